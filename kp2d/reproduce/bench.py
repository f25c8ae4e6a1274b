"""Owns what `kp2d bench` measures: latencies, training speed, recipes, networks, stages; never asserted."""

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
    "latency": ("run", "threads", "image_height", "image_width"),  # such rows are compared within one run
    "stages": ("profile", "stage"),
    "networks": ("subset",),  # costs are compared within one run
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
    """Times networks beside SIFT and ORB, with the rows of `kp2d.device.latency.bench_latency`.

    Networks may be `.tflite` files; empty takes all that are shipped. Sizes are (height, width) px, threads
    of the runtime; no precision takes all. `repeats`, `runtime` and `use_tpu` are handed on.
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
    from kp2d.evaluate import ranking
    from kp2d.train import recipes as train_recipes

    with ranking.textures() as data:
        configs = [
            train_recipes.from_recipe(
                "kp2d_plus", data=data, output="", preset=name, image_size=size, precision=kind
            )
            for name, size, kind in itertools.product(preset, train_size, precision)
        ]
        return pd.DataFrame([ranking.bench_train(settings) for settings in configs])


def recipes(
    *,
    data: str,
    pairs: Path,
    preset: Sequence[str] = ("kp2d_tiny_s",),
    seconds: float = 150.0,
    variants: Sequence[str] = (),
    output: Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Trains variants of the recipe for the same time and ranks them.

    Args:
        data: Folder of photographs to train on.
        pairs: Folder in the layout of HPatches to measure on.
        preset: The network, a single one.
        seconds: Training time of each variant.
        variants: Names out of `kp2d.evaluate.ranking.VARIANTS`; empty takes all.
        output: Folder for the runs, which a second call reuses.
        **options: `train_size` and `precision`, a single one each, and `progress`, as in `networks`.

    Returns:
        The rows of `kp2d.evaluate.ranking.rank`.

    Raises:
        InputError: If a setting has several values, or data are missing.
    """
    backend.quiet()
    from kp2d.evaluate import ranking

    (network,) = _single("preset", preset)
    names = [checks.one_of("variant", name, ranking.VARIANTS) for name in variants or ranking.VARIANTS]
    changes = {name: ranking.VARIANTS[name] for name in names}
    output = output or paths.runs("recipes")
    return _ranked(changes, data, pairs, output, seconds=seconds, preset=network, **options)


def networks(
    *,
    data: str,
    pairs: Path,
    preset: Sequence[str] = (),
    steps: int = 1000,
    output: Path | None = None,
    image_size: Sequence[tuple[int, int]] = ((88, 88), (240, 320), (480, 640)),
    threads: Sequence[int] = (1, 2),
    repeats: int = 100,
    **options: Any,
) -> pd.DataFrame:
    """Measures what architectures cost, and what they reach when all have seen the same pairs.

    Args:
        data: Folder of photographs to train on.
        pairs: Folder in the layout of HPatches to measure on.
        preset: Networks; empty takes `kp2d.methods.networks.CANDIDATES`, KP2DtinyS and the shipped nano.
        steps: Of each training.
        output: Folder for the runs, which a second call reuses.
        image_size: As in `kp2d.device.latency.network_costs`, like the next two.
        threads: Of the runtime.
        repeats: Runs, of which the shortest counts.
        **options: `train_size` (px) of a view, `precision` of the training, `progress`.

    Returns:
        One row a network and subset of the pairs: its costs, its training and its metrics.

    Raises:
        InputError: If a preset is unknown, a setting has several values, or data are missing.
    """
    backend.quiet()
    from kp2d.device import latency
    from kp2d.evaluate import ranking
    from kp2d.methods.networks import CANDIDATES

    names = preset or [*CANDIDATES, "kp2d_nano", latency.BESIDE]
    costs = latency.network_costs(names, image_size, threads=threads, repeats=repeats)
    changes = {name: {"preset": name, **ranking.NETWORK_RUN} for name in names}
    output = output or paths.runs("networks")
    ranked = _ranked(changes, data, pairs, output, steps=steps, **options)
    told = [name for name in ranked if name not in ("changes", "variant", "seconds", "pairs_per_second")]
    return costs.merge(ranked[told], left_on="network", right_on="preset").drop(columns="preset")


def _single(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if len(values) != 1:
        raise checks.problem(f"one {name} for all that is ranked", repr(values))
    return values


def _ranked(
    changes: dict[str, dict[str, Any]],
    data: str,
    pairs: Path,
    output: Path,
    *,
    train_size: Sequence[tuple[int, int]] = ((120, 160),),
    precision: Sequence[str] = ("float32",),
    **options: Any,
) -> pd.DataFrame:
    from kp2d.evaluate import ranking

    (image_size,), (kind,) = _single("train_size", train_size), _single("precision", precision)
    logging.getLogger("kp2d").setLevel(logging.INFO)  # which variant it is at
    sequences = datasets.load_sequences(pairs)
    return ranking.rank(
        changes,
        sequences,
        data=data,
        output=output,
        protocol=config.protocol(top_k=(1000,)),
        dataset=datasets.label(sequences),
        wandb=False,
        image_size=image_size,
        precision=kind,
        **options,
    )


def stages(profile: str) -> pd.DataFrame:
    """Returns what the stages of a profile took when they ran last, out of their records.

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
    """Keeps the rows of a table, if there is one, that were not measured again, as those of another backend.

    `names` are the columns that tell what a row is a measurement of.
    """
    key = [name for name in names if name in rows]
    if not key or not path.is_file():
        return rows
    before = tables.read_csv(path)
    if list(before.columns) != list(rows.columns):
        return rows
    again = pd.MultiIndex.from_frame(before[key]).isin(pd.MultiIndex.from_frame(rows[key]))
    return pd.concat([before[~again], rows], ignore_index=True) if not again.all() else rows
