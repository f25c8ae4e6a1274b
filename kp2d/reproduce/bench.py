"""Owns what `kp2d bench` measures: latencies, training speed, recipes, stages; recorded, never asserted."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kp2d import backend, checks, config, files, paths
from kp2d.data import datasets
from kp2d.evaluate import tables
from kp2d.methods import weights
from kp2d.reproduce import chain

# What makes two rows measurements of the same thing.
KEY = (
    *("variant", "preset", "backend", "method", "precision", "runtime", "threads"),
    *("image_height", "image_width", "seconds", "dataset"),
)
KEYS = {
    "latency": ("threads", "image_height", "image_width"),  # such rows are compared within one run
    "stages": ("profile", "stage"),
}
_STAGE_FACTS = ("seconds", "cpu_seconds", "peak_memory_mib", "cores", "device")


def latencies(
    *,
    preset: Sequence[str] = (),
    image_size: Sequence[tuple[int, int]] = ((88, 88), (240, 320)),
    threads: Sequence[int] = (1, 2),
    precision: Sequence[str] | None = None,
    **running: Any,
) -> pd.DataFrame:
    """Times networks beside SIFT and ORB.

    Args:
        preset: Networks or .tflite files; empty takes all that are shipped.
        image_size: (height, width) px.
        threads: Of the runtime.
        precision: Of the networks; None takes all.
        **running: `repeats`, `runtime` and `use_tpu` of `kp2d.device.latency.bench_latency`.

    Returns:
        Its rows.
    """
    backend.quiet()
    from kp2d.device import latency

    names = preset or weights.shipped()
    return latency.bench_latency(names, image_size, threads=threads, precisions=precision, **running)


def training(
    *,
    preset: Sequence[str] = ("kp2d_tiny_s", "kp2d_tiny_f"),
    train_size: Sequence[tuple[int, int]] = ((120, 160), (240, 320)),
    precision: Sequence[str] = ("float32", "bfloat16"),
) -> pd.DataFrame:
    """Measures pairs a second of every combination of networks, sizes of a view (px) and precisions."""
    backend.quiet()
    from kp2d.train import bench as train_bench
    from kp2d.train import recipes as train_recipes

    with train_bench.textures() as data:
        configs = [
            train_recipes.from_recipe(
                "kp2d_plus", data=data, output="", preset=name, image_size=size, precision=kind
            )
            for name, size, kind in itertools.product(preset, train_size, precision)
        ]
        return pd.DataFrame([train_bench.bench_train(settings) for settings in configs])


def recipes(
    *,
    data: str,
    pairs: Path,
    preset: Sequence[str] = ("kp2d_tiny_s",),
    train_size: Sequence[tuple[int, int]] = ((120, 160),),
    precision: Sequence[str] = ("float32",),
    seconds: float = 150.0,
    variants: Sequence[str] = (),
    output: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains variants of the recipe for the same time and ranks them.

    Args:
        data: Folder of photographs to train on.
        pairs: Folder in the layout of HPatches to measure on.
        preset: The network, a single one, as are the size of a view (px) and the precision.
        train_size: (height, width) px.
        precision: "float32" or "bfloat16".
        seconds: Training time of each variant.
        variants: Names out of `kp2d.evaluate.ranking.VARIANTS`; empty takes all.
        output: Folder for the runs, which a second call reuses.
        progress: Whether to show a progress bar.

    Returns:
        The rows of `kp2d.evaluate.ranking.rank`.

    Raises:
        InputError: If a setting has several values, or data are missing.
    """
    backend.quiet()
    from kp2d.evaluate import ranking

    for name, values in (("preset", preset), ("image_size", train_size), ("precision", precision)):
        if len(values) > 1:
            raise checks.problem(f"one {name} for all recipes", repr(values))
    logging.getLogger("kp2d").setLevel(logging.INFO)  # which variant it is at
    sequences = datasets.load_sequences(pairs)
    return ranking.rank(
        variants or list(ranking.VARIANTS),
        sequences,
        data=data,
        output=output or paths.runs("recipes"),
        protocol=config.protocol(top_k=(1000,)),
        seconds=seconds,
        dataset=datasets.label(sequences),
        progress=progress,
        wandb=False,
        preset=preset[0],
        image_size=train_size[0],
        precision=precision[0],
    )


def stages(profile: str) -> pd.DataFrame:
    """Returns what the stages of a profile took when they ran last, out of their records.

    Args:
        profile: Its name.

    Returns:
        One row a stage: seconds; processor seconds, and the memory (MiB) at its peak, of the process that ran
        the notebook; cores and device.

    Raises:
        InputError: If no stage of the profile has a record.
    """
    rows = []
    for stage in chain.select(None, profile):
        record = files.read_json(paths.runs(profile) / f"{stage.name}.json")
        if record is not None:
            facts = {name: record.get(name) for name in _STAGE_FACTS}
            rows.append({"stage": stage.name, "profile": profile, **facts})
    if not rows:
        remedy = f"Run kp2d reproduce --profile {profile}."
        raise checks.problem(f"records of stages in {paths.runs(profile)}", "none", remedy)
    return pd.DataFrame(rows)


def beside_others(rows: pd.DataFrame, path: Path, names: Sequence[str] = KEY) -> pd.DataFrame:
    """Keeps the rows of a table that were not measured again, as those of another backend or variant.

    Args:
        rows: What was measured.
        path: The table, if there is one.
        names: Columns that tell what a row is a measurement of.
    """
    key = [name for name in names if name in rows]
    if not key or not path.is_file():
        return rows
    before = tables.read_csv(path)
    if list(before.columns) != list(rows.columns):
        return rows
    again = pd.MultiIndex.from_frame(before[key]).isin(pd.MultiIndex.from_frame(rows[key]))
    return pd.concat([before[~again], rows], ignore_index=True) if not again.all() else rows
