"""Owns `kp2d lint` and `kp2d compile`: their arguments and what they mean."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kp2d import checks, files
from kp2d.arguments import SIZE
from kp2d.methods import extractors, tflite_file, tpu, weights
from kp2d.methods.tflite_file import COMPILED

if TYPE_CHECKING:
    from kp2d.quantize.flatbuffer import Model

_INT8 = ("int8", "int8_ptq")  # of shipped networks, those that are models


def add_lint(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d lint` to the parser of the verb."""
    parser.add_argument(
        "model",
        help="any .tflite file, compiled or not, or a shipped network as kp2d_tiny_s or kp2d_tiny_s:int8",
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    parser.add_argument(
        "--strict", action="store_true", help="fail with exit status 1 unless every operator is mapped"
    )


def run_lint(options: argparse.Namespace) -> int:
    """Forecasts which operators of a model the Edge TPU would compute.

    Returns 1 if something stays on the CPU and that was to fail, else 0.

    Raises:
        InputError: If there is no such model, or it is damaged.
    """
    from kp2d.device import edgetpu
    from kp2d.quantize.flatbuffer import Model

    report = edgetpu.lint(Model.parse(tflite_file.read(_path(options.model))))
    print(json.dumps(report.to_dict(), indent=1) if options.json else report.text())
    return int(options.strict and bool(report.unmapped or report.failure))


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d compile` to the parser of the verb."""
    parser.add_argument(
        "model", help="an int8 .tflite model, or a shipped network as kp2d_tiny_s or kp2d_tiny_s:int8"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help=f"compiled model to write; default: NAME_HxW{COMPILED}.tflite here. What the compiler gets is"
        f" kept beside it, without {COMPILED}",
    )
    parser.add_argument("--image-size", **SIZE, help="of the model, px; default: a model's own")
    parser.add_argument("--input", choices=["int8", "uint8"], help="of the model's image; default: int8")
    parser.add_argument("--time-limit", type=int, default=300, help="seconds the compiler may take")


def run_compile(options: argparse.Namespace) -> None:
    """Rewrites a model for the Edge TPU and runs Google's compiler on it, where that is installed.

    Raises:
        InputError: If the model cannot be compiled or a file not be written.
        RunError: If the compiler fails.
    """
    from kp2d.device import compiler
    from kp2d.quantize import rewriting
    from kp2d.quantize.flatbuffer import Model

    if options.time_limit < 1:
        raise checks.problem("a --time-limit of at least 1 s", options.time_limit)
    path = _path(options.model)
    data, about = tflite_file.open_model(path)
    if tpu.is_compiled(data):
        raise checks.problem("a model that is not compiled yet", str(path), "Name the one it was made of.")
    size = options.image_size or tuple(about["image_size"])
    output = options.output or _default_output(path, size)
    if not output.name.endswith(f"{COMPILED}{weights.MODEL}"):
        raise checks.problem(f"an output that ends with {COMPILED}{weights.MODEL}", str(output))
    prepared = output.with_name(f"{output.stem.removesuffix(COMPILED)}{weights.MODEL}")
    for target in (output, prepared):
        files.check_writable(target)
    model, forecast = _for_compiler(path, data, size, options.input)
    data = model.pack()
    if prepared.exists() and prepared.read_bytes() != data:
        received = f"{prepared} beside it, another model, which would be overwritten"
        raise checks.problem(f"another output than {output}", received, "Name one with -o.")
    files.write_bytes(prepared, data)
    print(f"{forecast}\n\n{prepared}: for the compiler")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / output.name
        compiled = compiler.compile_model(prepared, made, time_limit=options.time_limit)
        if compiled.status == "skipped":
            print(f"{output}: skipped. {compiled.reason}")
            return
        result = Model.parse(tflite_file.read(made))
    rewriting.restore(result, model.metadata())
    files.write_bytes(output, result.pack())
    where = f"{compiled.mapped} operators on the Edge TPU, {compiled.unmapped} on the CPU"
    print(f"{output}: compiled by version {compiled.version}, {where}")
    for operators in compiled.blockers:
        print(f"  {operators.count} {operators.name}: {operators.status}")


def _for_compiler(path: Path, data: bytes, size: tuple[int, int], pixels: str | None) -> tuple[Model, str]:
    """Returns a model at a size (height, width) px in operators of the Edge TPU, and its forecast."""
    from kp2d.device import edgetpu
    from kp2d.quantize import rewriting
    from kp2d.quantize.flatbuffer import Model

    model = Model.parse(data)
    if list(size) != model.metadata()["image_size"]:
        rewriting.resize(model, size)
    rewriting.for_edgetpu(model)
    if pixels == "uint8":
        rewriting.take_uint8(model)
    forecast = edgetpu.lint(model)
    if forecast.failure:
        raise checks.problem("a model that the Edge TPU compiler takes", f"{path}: {forecast.failure}")
    return model, forecast.text()


def _default_output(path: Path, size: tuple[int, int]) -> Path:
    stem, ending = path.stem.removesuffix(".int8"), f"_{size[0]}x{size[1]}"
    return Path(f"{stem.removesuffix(ending)}{ending}{COMPILED}{weights.MODEL}")


def _path(model: str) -> Path:
    """Finds a model by its path, or a shipped network by METHOD or METHOD:PRECISION."""
    if weights.is_path(model):
        return Path(model).expanduser()
    method = extractors.Method.parse(model)
    precision = checks.one_of(f"precision of {method.name}", method.precision or "int8", _INT8)
    weights.check_name(f"shipped network in {precision}", method.name, weights.shipped(precision))
    return weights.shipped_path(method.name, precision)
