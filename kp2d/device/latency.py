"""Owns how long methods take on this machine, split into network, decoding and matching, in one run."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from kp2d import backend, checks, files, provenance
from kp2d.data import samples, scenes
from kp2d.device import edgetpu
from kp2d.images import resize_image
from kp2d.methods import extractors, learned, registration, weights
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Extractor, Method
from kp2d.methods.weights import Weights

PRECISIONS = ("float32", "float16", "int8_ptq", "int8")
CLASSICAL = ("sift", "orb")
_FLOAT = ("float32", "float16")  # converted on the spot, for which TensorFlow is needed
_PARTS = ("extract", "network", "decode", "match", "bfmatcher")
BESIDE = "kp2d_tiny_s"  # the network that architectures are compared with
_UNTIMED = 3  # runs before the first that counts


def bench_latency(
    networks: Sequence[str],
    image_sizes: Sequence[tuple[int, int]],
    *,
    threads: Sequence[int] = (1, 2),
    precisions: Sequence[str] | None = None,
    classical: Sequence[str] = CLASSICAL,
    top_k: int = 1000,
    repeats: int = 30,
    runtime: str | None = None,
    use_tpu: bool | None = None,
    quantile: float = 0.5,
) -> pd.DataFrame:
    """Measures methods side by side on photographs of `sample`.

    At every size and number of threads the methods take turns image by image, so that a busy moment of the
    machine hits all alike.

    Args:
        networks: Shipped networks, also as "METHOD:PRECISION", or paths of `.tflite` models and of float
            weights.
        image_sizes: (height, width) px.
        threads: Of the runtime, and of OpenCV; matching uses those of NumPy.
        precisions: Of shipped networks that name none; None takes all, without those that need TensorFlow
            where it is missing.
        classical: Methods of OpenCV to compare with.
        top_k: Features kept an image, and matched.
        repeats: Runs that are timed, after three that are not.
        runtime: Of the models; None takes the best.
        use_tpu: See `kp2d.methods.runtimes.TFLiteModel`.
        quantile: What of the runs counts; 0, the shortest, where a machine does other work too.

    Returns:
        One row a size × threads × method × precision: median (or that quantile) and 90th percentile in ms of
        extracting features (for networks split into the network itself and decoding), of matching two images
        of one scene, and of the same by OpenCV's BFMatcher with a cross-check; how many times as fast as
        float32 and as SIFT the extraction is; `weights_sha256`, the first digits of the hash of the file that
        a network was loaded or converted from; and `run`, what ran the networks in the run of a row.

    Raises:
        InputError: If a network is neither shipped nor a model, or there is no runtime.
    """
    precisions = _possible_precisions() if precisions is None else precisions
    chosen = [Method.parse(name) for name in networks]
    _check_networks(chosen, precisions, use_tpu=bool(use_tpu))
    if not threads or not (networks or classical):
        raise checks.problem("methods to measure and numbers of threads", "none")
    if repeats < 1 or top_k < 1:
        raise checks.problem("at least one repeat and one feature", f"{repeats} and {top_k}")
    rows = []
    for image_size in image_sizes:
        with tempfile.TemporaryDirectory() as folder:
            models = list(_models(chosen, precisions, image_size, Path(folder)))
            for count in threads:
                methods: dict[tuple[str, str], Extractor] = {
                    key: dataclasses.replace(
                        learned.load(path, threads=count, runtime=runtime, use_tpu=use_tpu),
                        top_k=top_k,
                    )
                    for key, path, _ in models
                }
                methods |= {(name, "float32"): extractors.create(name) for name in classical}
                taken = _measure(methods, _photographs(image_size), count, top_k, repeats)
                hashes = {key: sha256[:12] for key, _, sha256 in models}
                rows += _rows(methods, taken, hashes, image_size, count, top_k, quantile)
    ran = dict.fromkeys(row["runtime"] for row in rows if row["weights_sha256"]) or ["opencv"]
    return pd.DataFrame(rows).assign(run=", ".join(map(_with_version, ran)))


def _with_version(runtime: str) -> str:
    """Returns a runtime with the version that is installed, "tflite-runtime 2.14.0"."""
    name = runtime.partition("+")[0]
    package = {"litert": "ai-edge-litert", "opencv": "opencv-python"}.get(name, name)
    return f"{runtime} {provenance.version(package)}".rstrip()


def _possible_precisions() -> list[str]:
    """Returns those that can be measured here: float models of shipped networks are made by TensorFlow."""
    full = importlib.util.find_spec("tensorflow") is not None
    return [precision for precision in PRECISIONS if full or precision not in _FLOAT]


def _check_networks(networks: Sequence[Method], precisions: Sequence[str], *, use_tpu: bool) -> None:
    """Refuses networks that are neither shipped nor models, unknown precisions, and what no Edge TPU runs."""
    for precision in (*precisions, *(method.precision for method in networks if method.precision)):
        checks.one_of("precision", precision, PRECISIONS)
    for method in networks:
        if not method.is_path:
            checks.one_of("shipped network", method.name, weights.shipped())
            if use_tpu:
                raise checks.problem("compiled models", method, "Name files that kp2d compile made.")


def _models(
    networks: Sequence[Method], precisions: Iterable[str], image_size: tuple[int, int], folder: Path
) -> Iterable[tuple[tuple[str, str], Path, str]]:
    """Yields name and precision, the file to run, and the hash of the weights, of every model."""
    taken: set[tuple[str, str]] = set()
    for method in networks:
        chosen = (method.precision,) if method.precision or method.is_path else precisions
        for precision in chosen:
            floating = precision in _FLOAT
            held = weights.resolve(method.name, "float32" if floating else precision)
            key = held.name, precision or held.precision
            if key in taken:  # a file of the same name as another method
                key = held.path.name.removesuffix(weights.MODEL), key[1]
            taken.add(key)
            path = held.path
            if not held.is_model:
                path = folder / f"{'.'.join(key)}{weights.MODEL}"
                files.write_bytes(path, _converted(held, key[1], image_size))
            yield key, path, held.sha256


def _converted(held: Weights, precision: str, image_size: tuple[int, int]) -> bytes:
    from kp2d.quantize import convert, quantization

    source = quantization.load_float(str(held.path))
    export = convert.Export(
        name=held.name, precision=precision, image_size=image_size, steered=source.steered
    )
    return convert.to_tflite(source.network, source.config, export).pack()


def _photographs(image_size: tuple[int, int]) -> list[np.ndarray]:
    return [resize_image(scenes.photograph(name), image_size) for name in samples.HELD_OUT]


def _measure(
    methods: dict[Any, Extractor], images: list[np.ndarray], threads: int, top_k: int, repeats: int
) -> dict[Any, dict[str, list[float]]]:
    taken: dict[Any, dict[str, list[float]]] = {key: {part: [] for part in _PARTS} for key in methods}
    found: dict[Any, list[Features]] = {key: [] for key in methods}
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        for turn, (key, extractor) in itertools.product(range(repeats + _UNTIMED), methods.items()):
            features, parts = extractor.timed(images[turn % len(images)])
            parts = {"extract": sum(parts.values()), **parts}
            found[key].append(features.take(slice(top_k)))
            for part, spent in parts.items():
                taken[key][part] += [spent] * (turn >= _UNTIMED)
        # By itself, as threads of NumPy's that still wait for work would slow a network down.
        for turn, key in itertools.product(range(len(images), repeats + _UNTIMED), methods):
            pair = found[key][turn - len(images)], found[key][turn]
            matchers = {
                "match": functools.partial(_match, *pair, methods[key]),
                "bfmatcher": functools.partial(_bfmatch, *pair, methods[key]),
            }
            for part, match in matchers.items():
                taken[key][part] += [extractors.milliseconds(match)] * (turn >= _UNTIMED)
    finally:
        cv2.setNumThreads(before)
    return taken


def _match(features0: Features, features1: Features, extractor: Extractor) -> None:
    """Matches as users' pictures are, the vote on their turn included where the method steers."""
    registration.match_features(registration.turned_to(features0, features1, extractor), features1)


def _bfmatch(features0: Features, features1: Features, extractor: Extractor) -> None:
    norm = cv2.NORM_HAMMING if extractor.binary else cv2.NORM_L2
    cv2.BFMatcher(norm, crossCheck=True).match(features0.descriptors, features1.descriptors)


def _rows(
    methods: dict[Any, Extractor],
    taken: dict[Any, dict[str, list[float]]],
    hashes: dict[Any, str],
    image_size: tuple[int, int],
    threads: int,
    top_k: int,
    quantile: float,
) -> list[dict[str, Any]]:
    extract = {key: _quantile(parts["extract"], quantile) for key, parts in taken.items()}
    sift = extract.get(("sift", "float32"), np.nan)
    rows = []
    for (name, precision), extractor in methods.items():
        key = name, precision
        row: dict[str, Any] = {
            "method": name,
            "precision": precision,
            "runtime": extractor.runtime,
            "image_height": image_size[0],
            "image_width": image_size[1],
            "threads": threads,
            "top_k": top_k,
        }
        for part in _PARTS:
            row[f"{part}_ms"] = round(_quantile(taken[key][part], quantile), 2)
            row[f"{part}_ms_p90"] = round(_quantile(taken[key][part], 0.9), 2)
        row["times_as_fast_as_float32"] = round(extract.get((name, "float32"), np.nan) / extract[key], 2)
        row["times_as_fast_as_sift"] = round(sift / extract[key], 2)
        row |= {"device": provenance.device(extractor.runtime), "weights_sha256": hashes.get(key, "")}
        rows.append(row)
    return rows


def _quantile(values: list[float], q: float) -> float:
    return float(np.quantile(values, q)) if values else np.nan


def network_costs(
    networks: Sequence[str],
    image_sizes: Sequence[tuple[int, int]] = ((88, 88), (240, 320), (480, 640)),
    *,
    threads: Sequence[int] = (1, 2),
    repeats: int = 100,
) -> pd.DataFrame:
    """Measures what architectures cost in int8, with fresh weights, for no number hangs on these.

    Args:
        networks: Presets.
        image_sizes: (height, width) px: first what a microcontroller sees, then the size of the ratios.
        threads: Of the runtime, ratios by the last.
        repeats: Runs; the shortest counts.

    Returns:
        One row a network: `parameters`; `kib` of its file; at the second size `gmacs`; at the first
        `arena_kib`; operators `unmapped` on an Edge TPU; `ms_HxW_T` of the network alone at T threads; at the
        second size that over int8 KP2DtinyS's (`of_tiny_s`), and the extraction over SIFT's (`of_sift`).

    Raises:
        InputError: If a preset is unknown or TensorFlow missing.
    """
    small, middle = image_sizes[:2]
    with tempfile.TemporaryDirectory() as folder:
        files_of = {name: str(Path(folder) / f"{name}.tflite") for name in networks}
        rows = {name: _facts(name, path, small, middle) for name, path in files_of.items()}
        times = bench_latency(
            [*files_of.values(), *([] if BESIDE in networks else [f"{BESIDE}:int8"])],
            image_sizes,
            threads=threads,
            classical=("sift",),
            repeats=repeats,
            quantile=0.0,
        )
    for (height, width, count), part in times.groupby(["image_height", "image_width", "threads"]):
        taken = part.set_index("method")
        for name, row in rows.items():
            row[f"ms_{height}x{width}_{count}"] = taken.network_ms[name]
            if (height, width) == middle:
                row["of_tiny_s"] = round(taken.network_ms[name] / taken.network_ms[BESIDE], 3)
                row["of_sift"] = round(taken.extract_ms[name] / taken.extract_ms["sift"], 3)
    return pd.DataFrame(rows.values())


def _facts(name: str, path: str, small: tuple[int, int], middle: tuple[int, int]) -> dict[str, Any]:
    """Writes a network in int8 with fresh weights, and tells what it is made of."""
    backend.quiet()
    from kp2d.methods import networks
    from kp2d.quantize import convert, quantization, rewriting

    config = networks.get_preset(name)
    network = networks.build_network(config)
    image = np.random.default_rng(0).uniform(-1, 1, (1, *small, 3)).astype(np.float32)
    quick = quantization.PostTraining(method="minmax", refine=False)
    quantized = quantization.post_training(network, config, [image], options=quick)
    export = convert.Export(name=name, precision="int8_ptq", image_size=middle)
    model = convert.to_tflite(quantized, config, export)
    files.write_bytes(Path(path), model.pack())
    report = edgetpu.lint(model)
    rewriting.resize(model, small)
    return {
        "network": name,
        "parameters": network.count_params(),
        "kib": round(Path(path).stat().st_size / 1024, 1),
        "gmacs": round(sum(finding.macs for finding in report.findings) / 1e9, 3),
        "arena_kib": round(model.graph().arena_bytes / 1024, 1),
        "unmapped": len(report.unmapped),
    }
