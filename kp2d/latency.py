"""Owns how long networks take on this machine, precision against precision in one run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kp2d import convert, files, learned, provenance, quantization, runtimes, samples, scenes
from kp2d.checks import one_of
from kp2d.images import resize_image

PRECISIONS = ("float32", "float16", "int8_ptq", "int8")


def bench_latency(
    networks: Sequence[str],
    image_sizes: Sequence[tuple[int, int]],
    *,
    threads: Sequence[int] = (1, 2),
    precisions: Sequence[str] = PRECISIONS,
    repeats: int = 30,
) -> pd.DataFrame:
    """Measures the networks alone, without decoding, all precisions of one size in turn.

    They take turns image by image, so that a busy moment of the machine hits all alike.

    Args:
        networks: Shipped networks.
        image_sizes: (height, width) px.
        threads: Of the runtime.
        precisions: Which are compared.
        repeats: Runs that are timed, after three that are not.

    Returns:
        One row a network × size × threads × precision: median and 90th percentile in ms, and how many
        times as fast as float32 it is.

    Raises:
        InputError: If a network is not shipped or there is no runtime.
    """
    rows = []
    for name in networks:
        one_of("shipped network", name, learned.shipped())
        for image_size in image_sizes:
            with tempfile.TemporaryDirectory() as folder:
                paths = {kind: _model(name, kind, image_size, Path(folder)) for kind in precisions}
                for count in threads:
                    models = {kind: runtimes.TFLiteModel(path, threads=count) for kind, path in paths.items()}
                    rows += _compare(name, models, _photographs(image_size), count, repeats)
    return pd.DataFrame(rows)


def _model(name: str, precision: str, image_size: tuple[int, int], folder: Path) -> Path:
    if precision in learned.SUFFIXES and precision != "float32":
        return learned.PRETRAINED / f"{name}{learned.SUFFIXES[precision]}"
    source = quantization.load_float(name)
    export = convert.Export(name=name, precision=precision, image_size=image_size)
    data = convert.to_tflite(source.network, source.config, export)
    return files.write_bytes(folder / f"{precision}.tflite", data)


def _photographs(image_size: tuple[int, int]) -> list[np.ndarray]:
    chosen = [scene for scene in scenes.SCENES if scene.name in samples.HELD_OUT]
    return [resize_image(scenes.photograph(scene), image_size)[None] for scene in chosen]


def _compare(
    name: str, models: dict[str, runtimes.TFLiteModel], images: list[np.ndarray], threads: int, repeats: int
) -> list[dict[str, object]]:
    times: dict[str, list[float]] = {kind: [] for kind in models}
    for turn in range(repeats + 3):
        for kind, model in models.items():
            image = images[turn % len(images)]
            started = time.perf_counter()
            model.raw_heads(image)
            if turn >= 3:
                times[kind].append(1e3 * (time.perf_counter() - started))
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    return [
        {
            "method": name,
            "precision": kind,
            "runtime": models[kind].runtime,
            "image_height": images[0].shape[1],
            "image_width": images[0].shape[2],
            "threads": threads,
            "network_ms": round(medians[kind], 2),
            "network_ms_p90": round(float(np.quantile(times[kind], 0.9)), 2),
            "times_as_fast_as_float32": round(medians.get("float32", np.nan) / medians[kind], 2),
            "device": provenance.device(),
        }
        for kind in models
    ]
