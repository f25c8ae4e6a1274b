"""Owns the table of what becomes of every network on an Edge TPU: mapping, memory, least times."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kp2d import checks, files
from kp2d.device import compiler, edgetpu
from kp2d.methods import weights
from kp2d.methods.extractors import Method
from kp2d.methods.runtimes import TFLiteModel
from kp2d.methods.weights import Weights
from kp2d.quantize import convert, quantization, rewriting
from kp2d.quantize.flatbuffer import Model

PRECISIONS = ("float32", "int8_ptq", "int8")
# Of the forecast of a model as the compiler gets it.
_FACTS = ("num_unmapped", "failure", "parameter_bytes", "fits_on_chip", "macs", "compute_ms")
_FACTS += ("input_bytes", "output_bytes", "transfer_ms")


def write_models(
    networks: Sequence[str],
    image_sizes: Iterable[tuple[int, int]],
    folder: Path,
    *,
    precisions: Sequence[str] = PRECISIONS,
) -> pd.DataFrame:
    """Writes every network at every size and precision, as it is converted and as the compiler gets it.

    Args:
        networks: Shipped networks, also as "METHOD:PRECISION", in that precision only; or paths of weights
            and models, in the one that they have.
        image_sizes: (height, width) px.
        folder: Where to.
        precisions: "float32", "int8" or "int8_ptq".

    Returns:
        One row a model: method, precision, weights_sha256, image_height, image_width, `converted` and
        `rewritten`, paths; the same for float32, of which nothing is rewritten.

    Raises:
        InputError: If there is no such network, or a file cannot be written.
    """
    if not networks:
        raise checks.problem("at least one network", "none")
    rows, load_float = [], functools.cache(quantization.load_float)
    for network in networks:
        for size, held in itertools.product(image_sizes, _weights_of(network, precisions)):
            model = _model(held, size, load_float)
            converted = model.pack()
            if held.is_model:
                rewriting.for_edgetpu(model)
            stem = f"{held.name}.{held.precision}.{size[0]}x{size[1]}"
            rows.append(
                {
                    "method": held.name,
                    "precision": held.precision,
                    "weights_sha256": held.sha256[:12],
                    "image_height": size[0],
                    "image_width": size[1],
                    "converted": files.write_bytes(folder / f"{stem}.converted.tflite", converted),
                    "rewritten": files.write_bytes(folder / f"{stem}.tflite", model.pack()),
                }
            )
    return pd.DataFrame(rows)


def _weights_of(network: str, precisions: Sequence[str]) -> list[Weights]:
    """Returns the weights of a network in each precision that is wanted of it."""
    method = Method.parse(network)
    if method.is_path:
        held = weights.resolve(method.name)
        checks.one_of(f"precision of {network}", held.precision, PRECISIONS)
        return [held]
    name = checks.one_of("shipped network", method.name, weights.shipped())
    if method.precision is not None:
        precisions = (checks.one_of(f"precision of {name}", method.precision, PRECISIONS),)
    return [weights.resolve(name, precision) for precision in precisions]


def _model(
    held: Weights, image_size: tuple[int, int], load_float: Callable[[str], quantization.FloatNetwork]
) -> Model:
    """Returns a model of weights at a size: of float ones, converted; else their own."""
    if held.is_model:
        model = Model.parse(held.path.read_bytes())
        rewriting.resize(model, image_size)
        return model
    source = load_float(str(held.path))
    export = convert.Export(
        name=held.name, precision="float32", image_size=image_size, steered=source.steered
    )
    return convert.to_tflite(source.network, source.config, export)


def deploy(models: pd.DataFrame) -> pd.DataFrame:
    """Forecasts what the Edge TPU compiler makes of models, and runs it where it is installed.

    Args:
        models: From `write_models`.

    Returns:
        One row a model: its identity; `num_operators` and `num_unmapped` as the compiler gets it,
        `num_unmapped_before` as it was converted and `blockers`, the operators to blame for that; `failure`;
        costs, see `kp2d.device.edgetpu.Report` (`least_ms` adds arithmetic and transfer); `compiler`, its
        version or "skipped", and what it reports: `compiled_unmapped`, `compiled_parameter_bytes`.

    Raises:
        RunError: If the compiler fails on a model in integers.
    """
    return pd.DataFrame([_row(model) for model in models.to_dict("records")])


def _row(model: dict[str, Any]) -> dict[str, Any]:
    converted, data = model.pop("converted").read_bytes(), model["rewritten"].read_bytes()
    before, report = (edgetpu.lint(Model.parse(content)) for content in (converted, data))
    path = model.pop("rewritten")
    facts = report.to_dict()
    own = [one.operator for one in before.unmapped if one.status != compiler.SUBGRAPH]
    row = {
        **model,
        "bytes": len(data),
        "num_operators": facts["num_operators"],
        "num_unmapped_before": len(before.unmapped),
        "blockers": " ".join(dict.fromkeys(own)) if not before.failure else "",
        **{name: facts[name] for name in _FACTS},
        "least_ms": np.nan if report.failure else round(report.compute_ms + report.transfer_ms, 3),
        "compiler": "skipped",
        "compiled_unmapped": np.nan,
        "compiled_parameter_bytes": np.nan,
    }
    if not report.failure:
        made = compiler.compile_model(path, path.with_name(f"{path.stem}_edgetpu.tflite"))
        if made.status == "compiled":
            row["compiler"], row["compiled_unmapped"] = made.version, made.unmapped
            row["compiled_parameter_bytes"] = made.on_chip_bytes
    return row


def compiler_status() -> str:
    """Returns a sentence on the compiler: its version, or that compilation is skipped and how to get it."""
    found = compiler.find()
    if found is None:
        return f"status: skipped. There is no edgetpu_compiler here.\n\n{compiler.INSTALL}"
    return f"status: compiled, by version {compiler.version(found)}."


def same_integers(models: pd.DataFrame, photograph: np.ndarray) -> bool:
    """Tells whether rewriting changed no integer of any head, with the kernels that repeat to the bit.

    The models are from `write_models`; the photograph, uint8 RGB `[H, W, 3]`, is at least as large as their
    images, which are cut out of it.
    """
    for model in models[models["precision"] != "float32"].to_dict("records"):
        height, width = model["image_height"], model["image_width"]
        pixels = np.ascontiguousarray(photograph[None, :height, :width])
        before, after = (
            TFLiteModel(model[kind], kernels="builtin").raw_heads(pixels)
            for kind in ("converted", "rewritten")
        )
        if any((before[head] != after[head]).any() for head in before):
            return False
    return True
