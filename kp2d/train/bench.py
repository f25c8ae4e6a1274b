"""Owns the measurement of where a training step spends its time: network, losses, data."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import keras
import numpy as np
from keras import ops

from kp2d.data.loader import PairLoader
from kp2d.methods.networks import get_preset
from kp2d.train.learner import KeypointLearner
from kp2d.train.recipes import TrainConfig, replace
from kp2d.train.training import build_learner, pair_source

WARMUP_STEPS = 2


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
def textures(count: int = 8) -> Iterator[str]:
    """Makes pictures to measure with, for as long as the context lasts.

    Args:
        count: How many.

    Yields:
        Their folder.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            texture = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(Path(folder) / f"texture{index}.jpg"), texture)
        yield folder
