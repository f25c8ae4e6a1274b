"""Owns rankings: variants of the training recipe after the same time, networks after the same pairs.

And the measurement that makes a time fair: where a training step spends its own.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd
from keras import ops

from kp2d import checks, files, provenance
from kp2d.config import Protocol, fingerprint
from kp2d.data import datasets
from kp2d.data.loader import PairLoader
from kp2d.evaluate import averages, evaluation, tables
from kp2d.methods import learned
from kp2d.methods.networks import get_preset
from kp2d.train.learner import KeypointLearner
from kp2d.train.recipes import TrainConfig, from_recipe, replace
from kp2d.train.training import build_learner, pair_source, train

logger = logging.getLogger(__name__)

TIMED_STEPS = 15  # of each variant, to know its speed
WARMUP_STEPS = 2  # before those that are timed
SHORT_RUN = {"warmup": 50, "ema": 0.99}  # of every variant: suits some hundred steps

# Name to changes of the recipe `kp2d_plus`, or of the recipe that "recipe" names.
VARIANTS: dict[str, dict[str, Any]] = {
    "kp2d_plus": {},
    "another seed": {"seed": 1},
    "kp2d, the paper's": {"recipe": "kp2d"},
    "no corner teacher": {"loss.corner_hold": 0.0, "loss.corner_end": 0.0},
    "corner teacher for longer": {"loss.corner_hold": 0.4, "loss.corner_end": 0.8},
    "IO-Net": {"loss.inlier": 1.0},
    "triplet descriptors": {"loss.descriptor_kind": "triplet", "loss.descriptor": 2.0},
    "triplet, LANet's margins": {
        "loss.descriptor_kind": "triplet",
        "loss.descriptor": 4.0,
        "loss.margin": 1.0,
        "loss.relax": 8.0,
    },
    "negatives of other pictures": {"loss.other_pictures": 1},
    "resampled consistency": {"loss.consistency_kind": "resampled"},
    "half the localization weight": {"loss.localization": 1.0},
    "twice the localization weight": {"loss.localization": 4.0},
    "twice the usp weight": {"loss.usp": 3.0},
    "twice the learning rate": {"learning_rate": 4e-3},
    "wider homographies": {"augment.max_angle": 90.0, "augment.scale": (0.4, 2.5), "augment.tilt": 50.0},
}

# Changes of the recipe `kp2d_plus` for networks that are ranked: what the shipped ones learned last.
NETWORK_RUN: dict[str, Any] = {
    "augment.turn": 0.35,
    "loss.localization_weighting": "scores",
    "loss.localization_saturation": 0.8,
    "loss.descriptor_positives": "associated",
    "loss.other_pictures": 1,
}

COLUMNS = (
    *("variant", "changes", "recipe", "preset", "image_height", "image_width", "batch_size", "precision"),
    *("seed", "seconds", "pairs_per_second", "steps", "pairs"),
    *("dataset", "subset", "num_pairs", "num_sequences", "top_k"),
    *tables.METRICS,
    *tables.INTERVALS,
    *("device", "git_commit"),
)


def rank(
    variants: Mapping[str, Mapping[str, Any]],
    sequences: Sequence[datasets.Sequence],
    *,
    data: str | Path,
    output: str | Path,
    protocol: Protocol,
    seconds: float | None = None,
    steps: int | Mapping[str, int] | None = None,
    dataset: str = "folder",
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Trains variants of a recipe for the same time or steps, and scores each on image pairs.

    A time counts in steps: a variant's own speed is measured first, so that whatever else the machine
    does during the training changes nothing. Variants that an earlier call has finished are not repeated.

    Args:
        variants: Name to changes of the recipe, as in `VARIANTS`.
        sequences: Image pairs with ground truth, from `kp2d.data.datasets.load_sequences`.
        data: Folder of photographs to train on.
        output: Folder for the runs, one folder a variant.
        protocol: How to score.
        seconds: Training time of each variant; the machine should be quiet while speeds are measured.
        steps: Or the steps, of all or of each variant.
        dataset: Name of the image pairs, for the rows.
        progress: Whether to show progress bars.
        **settings: Changes of every variant, as in `kp2d.train.recipes.from_recipe`.

    Returns:
        One row a variant and subset with the columns `COLUMNS`, best d3 (then d1) of all pairs first.

    Raises:
        InputError: If a setting is unknown, the data cannot be used, or not exactly one of `seconds`
            and `steps` is given.
    """
    if (seconds is None) == (steps is None):
        raise checks.problem("either seconds or steps", f"seconds={seconds}, steps={steps}")
    if seconds is not None and not seconds > 0:
        raise checks.problem("a positive number of seconds", seconds)
    configs = {
        name: _config(name, {**SHORT_RUN, **settings, **changes}, str(data), Path(output))
        for name, changes in variants.items()
    }
    speeds = {name: _speed(config) if seconds else math.nan for name, config in configs.items()}
    parts = []
    for number, (name, config) in enumerate(configs.items(), start=1):
        logger.info("variant %d of %d: %s", number, len(configs), name)
        speed = speeds[name]
        count = steps.get(name) if isinstance(steps, Mapping) else steps
        if seconds:
            count = round(seconds * speed / config.batch_size)
        if not count:
            raise checks.problem("a number of steps for every variant", f"{count} for {name!r}")
        config = replace(config, steps=count)
        result = train(config, progress=progress)
        extractor = learned.load(result.weights_path)
        pairs = evaluation.evaluate(extractor, sequences, protocol, progress=progress)
        told = {"variant": name, "changes": _told(variants[name]), "dataset": dataset}
        parts.append(_rows(averages.summarize(pairs), config, told, seconds, speed))
    return _best_first(pd.concat(parts, ignore_index=True))


def _config(name: str, changes: dict[str, Any], data: str, output: Path) -> TrainConfig:
    """Returns the configuration of a variant, whose run has a folder of its own."""
    folder = output / "".join(c if c.isalnum() else "_" for c in name)
    recipe = changes.pop("recipe", "kp2d_plus")
    return from_recipe(recipe, data=data, output=str(folder), **changes)


def _best_first(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the variants with the best d3 (then d1) of all pairs first."""
    best = table[table["subset"] == "all"].sort_values(["d3", "d1"], ascending=False, kind="stable")
    order = {name: rank for rank, name in enumerate(best["variant"])}
    return table.sort_values(
        "variant", key=lambda column: column.map(order), kind="stable", ignore_index=True
    )


def _speed(config: TrainConfig) -> float:
    """Pairs/s of a variant on this machine, noted in its folder."""
    noted, key = Path(config.output) / "speed.json", fingerprint(config)
    known = files.read_json(noted) or {}
    if known.get("config") != key:
        known = {"config": key, **bench_train(config, timed_steps=TIMED_STEPS)}
        files.write_json(noted, known)
    return known["pairs_per_second"]


def _rows(
    summary: pd.DataFrame,
    config: TrainConfig,
    told: Mapping[str, str],
    seconds: float | None,
    speed: float,
) -> pd.DataFrame:
    return summary.assign(
        **told,
        recipe=config.recipe,
        preset=config.preset,
        image_height=config.image_size[0],
        image_width=config.image_size[1],
        batch_size=config.batch_size,
        precision=config.precision,
        seed=config.seed,
        seconds=math.nan if seconds is None else seconds,
        pairs_per_second=speed,
        steps=config.steps,
        pairs=config.steps * config.batch_size,
        device=provenance.device(),
        git_commit=provenance.git_commit(),
    )[list(COLUMNS)]


def _told(changes: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in changes.items()).replace(", ", ",")


def bench_train(config: TrainConfig, *, timed_steps: int = 6) -> dict[str, str | int | float]:
    """Measures training throughput on this machine and backend.

    The network's share is the time of a step whose loss is the mean square of the heads; the
    losses' share is what the recipe's own step takes longer; the data's share is the time that
    the loop waits for batches.

    Args:
        config: The run whose steps are measured; nothing is written to its folder.
        timed_steps: Steps that are timed.

    Returns:
        One row: preset, recipe, backend, precision, image_height, image_width, batch_size, workers,
        pairs_per_second, network_share, loss_share, data_share (adding to 1), and
        seconds_per_batch_made, the time one worker needs for a batch.

    Raises:
        InputError: If preset, size or folder does not work.
    """
    network_config = get_preset(config.preset)
    source = pair_source(config, network_config.cell)
    start = time.perf_counter()
    batch = source.batch(0)[0]
    made = time.perf_counter() - start
    learner = build_learner(config, network_config)
    bare = _BareLearner(network_config, replace(config, **{"loss.inlier": 0.0}))
    bare.compile(optimizer=keras.optimizers.Adam(), jit_compile=learner.jit_compile)
    for compiled in (bare, learner):
        _seconds_per_step(compiled, [batch] * WARMUP_STEPS)
    network = _seconds_per_step(bare, [batch] * timed_steps)
    full = _seconds_per_step(learner, [batch] * timed_steps)
    with PairLoader(source, workers=config.workers) as loader:
        next(loader)  # the workers are up
        before = loader.wait_seconds
        looped = _seconds_per_step(learner, itertools.islice(loader, timed_steps))
        waited = (loader.wait_seconds - before) / timed_steps
    data_share = min(waited / looped, 1.0)
    network_share = (1 - data_share) * min(network / full, 1.0)
    return {
        "preset": config.preset,
        "recipe": config.recipe,
        "backend": keras.backend.backend(),
        "precision": config.precision,
        "image_height": config.image_size[0],
        "image_width": config.image_size[1],
        "batch_size": config.batch_size,
        "workers": config.workers,
        "pairs_per_second": config.batch_size / looped,
        "network_share": network_share,
        "loss_share": 1 - data_share - network_share,
        "data_share": data_share,
        "seconds_per_batch_made": made,
    }


class _BareLearner(KeypointLearner):
    """The network with a loss that costs nothing."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # noqa: ARG002
        return sum(ops.mean(ops.square(head)) for head in y_pred.values())


def _seconds_per_step(learner: KeypointLearner, batches: Iterable[dict]) -> float:
    seconds = []
    start = time.perf_counter()
    for batch in batches:
        learner.train_on_batch(batch, return_dict=True)
        seconds.append(time.perf_counter() - start)
    return seconds[-1] / len(seconds)


@contextlib.contextmanager
def textures() -> Iterator[str]:
    """Makes pictures to measure with, for as long as the context lasts, and yields their folder."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(8):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            texture = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(Path(folder) / f"texture{index}.jpg"), texture)
        yield folder
