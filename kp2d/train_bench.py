"""Owns the measurement of where a training step spends its time: network, losses, data."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import keras
import numpy as np
from keras import ops

from kp2d.learner import KeypointLearner
from kp2d.loader import PairLoader, PairSource
from kp2d.networks import get_preset
from kp2d.recipes import from_recipe
from kp2d.training import build_learner

WARMUP_STEPS = 2


def bench_train(
    preset: str,
    image_size: tuple[int, int],
    *,
    recipe: str = "kp2d_plus",
    precision: str = "float32",
    batch_size: int = 8,
    steps: int = 6,
    workers: int = 1,
    data: str | None = None,
) -> dict[str, str | int | float]:
    """Measures training throughput on this machine and backend.

    The network's share is the time of a step whose loss is the mean square of the heads; the
    losses' share is what the recipe's own step takes longer; the data's share is the time that
    the loop waits for batches.

    Args:
        preset: Network.
        image_size: (height, width) px.
        recipe: Training recipe.
        precision: Of the convolutions.
        batch_size: Pairs a step.
        steps: Steps that are timed.
        workers: Processes that make pairs.
        data: Folder of photographs; None makes textures.

    Returns:
        One row: preset, recipe, backend, precision, image_height, image_width, batch_size, workers,
        pairs_per_second, network_share, loss_share, data_share (adding to 1), and
        seconds_per_batch_made, the time one worker needs for a batch.

    Raises:
        InputError: If preset, recipe, precision, size or folder does not work.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = data if data is not None else _write_textures(Path(scratch))
        config = from_recipe(
            recipe,
            data=folder,
            output=scratch,
            preset=preset,
            image_size=image_size,
            precision=precision,
            batch_size=batch_size,
            steps=steps,
        )
        network_config = get_preset(preset)
        source = PairSource.from_config(config, network_config.cell)
        start = time.perf_counter()
        batch = source.batch(0)[0] | {"corner_weight": np.ones(batch_size, np.float32)}
        made = time.perf_counter() - start
        learner = build_learner(config, network_config)
        bare = _BareLearner(network_config, config)
        bare.compile(optimizer=keras.optimizers.Adam(), jit_compile=learner.jit_compile)
        for compiled in (bare, learner):
            _seconds_per_step(compiled, [batch] * WARMUP_STEPS)
        network = _seconds_per_step(bare, [batch] * steps)
        full = _seconds_per_step(learner, [batch] * steps)
        with PairLoader(source, workers=workers) as loader:
            next(loader)  # the workers are up
            before = loader.wait_seconds
            made_ahead = itertools.islice(loader, steps)
            looped = _seconds_per_step(
                learner, ({**b, "corner_weight": batch["corner_weight"]} for b in made_ahead)
            )
            waited = (loader.wait_seconds - before) / steps
    data_share = min(waited / looped, 1.0)
    network_share = (1 - data_share) * min(network / full, 1.0)
    return {
        "preset": preset,
        "recipe": recipe,
        "backend": keras.backend.backend(),
        "precision": precision,
        "image_height": image_size[0],
        "image_width": image_size[1],
        "batch_size": batch_size,
        "workers": workers,
        "pairs_per_second": batch_size / looped,
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


def _write_textures(folder: Path, count: int = 8) -> str:
    rng = np.random.default_rng(0)
    for index in range(count):
        noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
        texture = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"texture{index}.jpg"), texture)
    return str(folder)
