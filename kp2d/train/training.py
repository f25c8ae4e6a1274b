"""Owns fitting a network to a folder of photographs: loop, resume, log, refuse NaN.

A run is a folder: `config.json`, `log.csv`, `checkpoints/`, `<preset>.weights.h5` (the
weight average, written with every checkpoint), `tensorboard/` and `wandb/`. Calling `train`
again with the same configuration goes on where the last checkpoint stands and ends with the same
losses as an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from tqdm.auto import tqdm

from kp2d import backend, files
from kp2d.checks import RunError, fits_cells, problem
from kp2d.data import datasets
from kp2d.data.loader import PairLoader, PairSource, check_main_guard
from kp2d.methods.networks import NetworkConfig, get_preset
from kp2d.methods.weights import load_weights
from kp2d.train import checkpoint
from kp2d.train.learner import (
    DataParallel,
    KeypointLearner,
    build_plain,
    corner_weight,
    data_parallel,
    learning_rate,
)
from kp2d.train.recipes import TrainConfig

# Fields that may differ between the parts of a run: they do not change what it computes.
RUNTIME_FIELDS = {
    "output", "workers", "log_every", "checkpoint_every", "validate_every", "validation", "keep",
    "wandb", "tensorboard",
}  # fmt: skip

VALIDATION_BATCHES = 4
VALIDATION_SEED = 20_230_611  # the same pairs in every run, whatever its own seed

log = logging.getLogger(__name__)


class DivergenceError(RunError):
    """A loss term or a weight is no longer a finite number."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run leaves behind."""

    network: keras.Model  # the trained network, carrying the averaged weights
    weights_path: Path  # the same weights on disk
    rows: list[dict[str, float]]  # the log, one dictionary of numbers a row
    pairs_per_second: float  # throughput of this call
    wait_share: float  # fraction of its time spent waiting for data
    corrupt: tuple[str, ...]  # pictures that could not be read


@backend.own_settings()
def train(config: TrainConfig, *, progress: bool = True) -> TrainResult:
    """Trains a network, or goes on with an interrupted run.

    Raises:
        InputError: If the folder, the size or the preset does not work, or `output` lies in the folder of
            photographs, or holds a run of another configuration, or one that is under way.
        DivergenceError: If a loss or weight stops being finite; the last checkpoint stays.
    """
    check_main_guard()
    network_config = get_preset(config.preset)
    fits_cells(config.image_size, network_config.cell)
    folder = Path(config.output)
    for read in filter(None, (config.data, config.validation)):
        files.check_outside(folder, read)
    source = pair_source(config, network_config.cell)
    files.check_writable(folder / "config.json")
    keras.utils.set_random_seed(config.seed)
    with files.alone(folder, f"training run in {folder}"), data_parallel(config.devices) as devices:
        _claim_folder(folder, config)
        run = _Run(config, network_config, devices)
        run.resume()
        return run.fit(source, progress)


def pair_source(config: TrainConfig, cell: int) -> PairSource:
    """Describes the training pairs of a run, for a network with cells of some px.

    Raises:
        InputError: If the folder holds no picture.
    """
    pictures = tuple(map(str, datasets.list_images(config.data)))
    log.info("%d pictures in %s", len(pictures), config.data)
    return PairSource(
        paths=pictures,
        image_size=config.image_size,
        cell=cell,
        batch_size=config.batch_size,
        seed=config.seed,
        steps=config.steps,
        augment=config.augment,
    )


def build_learner(
    config: TrainConfig, network_config: NetworkConfig, *, replicas: int = 1
) -> KeypointLearner:
    """Builds and compiles the learner of a run, with `initial_weights` loaded if the run names any.

    Raises:
        InputError: If the initial weights do not exist or do not fit.
    """
    learner = KeypointLearner(network_config, config, replicas=replicas)
    if config.initial_weights is not None:
        load_weights(learner.network, config.initial_weights)
    # Keras clips the gradient of each replica, before they are summed.
    clip = config.clip_norm / replicas if config.clip_norm else None
    optimizer = keras.optimizers.Adam(learning_rate(config), global_clipnorm=clip)
    # XLA makes the step slower on TensorFlow's CPU path and is the point of JAX.
    jit = config.jit if config.jit is not None else keras.backend.backend() == "jax"
    learner.compile(optimizer=optimizer, jit_compile=jit)
    optimizer.build(learner.trainable_variables)
    return learner


class _Run:
    """The moving parts of one call of `train`."""

    def __init__(self, config: TrainConfig, network_config: NetworkConfig, devices: DataParallel) -> None:
        self.config = config
        self.network_config = network_config
        self.devices = devices
        self.folder = Path(config.output)
        self.learner = build_learner(config, network_config, replicas=devices.replicas)
        self.average = checkpoint.WeightAverage(self.learner.network, config.ema)
        self.averaged = build_plain(network_config, quantized=config.quantized)
        self.validation = Validation(config, network_config) if config.validation else None
        self.step = 0

    def resume(self) -> None:
        """Restores the newest checkpoint, if there is one."""
        checkpoints = checkpoint.list_checkpoints(self.folder / "checkpoints")
        if checkpoints:
            self.step = checkpoint.load_checkpoint(checkpoints[-1], self.learner, self.average)
            log.info("Resuming at step %d from %s", self.step, checkpoints[-1])

    def fit(self, source: PairSource, progress: bool) -> TrainResult:
        """Runs the remaining steps."""
        config, first = self.config, self.step
        run_log = checkpoint.RunLog(
            self.folder,
            first_step=first,
            tensorboard=config.tensorboard,
            wandb=config.wandb,
            name=f"{config.preset} {config.recipe} seed {config.seed}",
            config=dataclasses.asdict(config),
        )
        bar = tqdm(
            total=config.steps * config.batch_size,
            initial=first * config.batch_size,
            unit="pair",
            disable=not progress,
            desc=config.preset,
        )
        loader = PairLoader(source, workers=config.workers, first_step=first)
        start = time.perf_counter()
        try:
            with loader, _interrupt_between_steps() as self.interrupted:
                self._loop(loader, run_log, bar)
        except KeyboardInterrupt:
            log.warning("Interrupted at step %d; call train again to go on.", self.step)
            self._save()
            raise
        finally:
            bar.close()
            run_log.close()
        seconds = max(time.perf_counter() - start, 1e-9)
        return TrainResult(
            network=self.averaged,
            weights_path=self._save(),
            rows=run_log.rows,
            pairs_per_second=(self.step - first) * config.batch_size / seconds,
            wait_share=loader.wait_seconds / seconds,
            corrupt=tuple(sorted(loader.corrupt)),
        )

    def _loop(self, loader: PairLoader, run_log: checkpoint.RunLog, bar: tqdm) -> None:
        config, recent = self.config, []
        mark, waited = time.perf_counter(), 0.0
        seconds = run_log.rows[-1].get("seconds") or 0.0 if run_log.rows else 0.0
        validate_every = config.validate_every if self.validation is not None else 0
        while self.step < config.steps:
            recent.append(self._one_step(next(loader)))
            bar.update(config.batch_size)
            if self._due(config.log_every) or self._due(validate_every):
                now = time.perf_counter()
                row = {name: float(np.mean([r[name] for r in recent])) for name in recent[0]}
                seconds += now - mark
                row["seconds"] = seconds  # of training, interruptions left out
                row["pairs_per_second"] = len(recent) * config.batch_size / (now - mark)
                row["wait_share"] = (loader.wait_seconds - waited) / (now - mark)
                row["corrupt"] = len(loader.corrupt)
                bar.set_postfix(loss=f"{row['loss']:.3f}", wait=f"{row['wait_share']:.0%}")
                recent, mark, waited = [], now, loader.wait_seconds
                if self._due(validate_every):
                    row |= self.validation.losses(self.average)
                run_log.write(self.step, row)
            if self._due(config.checkpoint_every):
                self._save()
            if self.interrupted.is_set():
                raise KeyboardInterrupt

    def _due(self, every: int) -> bool:
        return bool(every) and (self.step % every == 0 or self.step == self.config.steps)

    def _one_step(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        self.learner.corner_weight.assign(corner_weight(self.step, self.config.steps, self.config.loss))
        values = self.devices.step(self.learner, batch)
        bad = sorted(name for name, value in values.items() if not math.isfinite(value))
        if bad:
            raise DivergenceError(self._divergence(f"not finite at step {self.step}: {bad}"))
        self.step += 1
        self.average.update(self.step, last=self.step == self.config.steps)
        return {name: float(value) for name, value in values.items()}

    def _save(self) -> Path:
        path = self.folder / f"{self.config.preset}.weights.h5"
        if not checkpoint.all_finite(self.learner, self.average):
            raise DivergenceError(self._divergence(f"weights not finite at step {self.step}"))
        checkpoint.save_checkpoint(
            self.folder / "checkpoints", self.step, self.learner, self.average, self.config.keep
        )
        self.average.copy_to(self.averaged)
        checkpoint.save_weights(self.averaged, path)
        return path

    def _divergence(self, what: str) -> str:
        checkpoints = checkpoint.list_checkpoints(self.folder / "checkpoints")
        last = f"The last good checkpoint is {checkpoints[-1]}." if checkpoints else "There is no checkpoint."
        return (
            f"expected finite losses and weights; received {what}. {last} "
            "Lower learning_rate, or clip gradients with clip_norm, and call train again."
        )


class Validation:
    """A fixed set of pairs and a learner that never learns."""

    def __init__(self, config: TrainConfig, network_config: NetworkConfig) -> None:
        """Makes the pairs of the run's validation folder, at full homography strength.

        Raises:
            InputError: If the folder holds no readable picture.
        """
        # Left out: IO-Net, which belongs to the learner that trains, and the teacher.
        loss = dataclasses.replace(config.loss, inlier=0.0, corner_end=0.0, corner_hold=0.0)
        fixed = dataclasses.replace(
            config,
            data=config.validation,
            seed=VALIDATION_SEED,
            loss=loss,
            augment=dataclasses.replace(config.augment, ramp=0.0),
        )
        source = pair_source(fixed, network_config.cell)
        self._batches = [source.batch(step)[0] for step in range(VALIDATION_BATCHES)]
        self._learner = KeypointLearner(network_config, fixed)
        self._learner.compile(jit_compile=keras.backend.backend() == "jax")

    def losses(self, average: checkpoint.WeightAverage) -> dict[str, float]:
        """Returns `validation_<term>` of averaged weights, its mean over the pairs, and `validation_loss`."""
        average.copy_to(self._learner.network)
        rows = [self._learner.test_on_batch(batch, return_dict=True) for batch in self._batches]
        return {f"validation_{name}": float(np.mean([r[name] for r in rows])) for name in rows[0]}


@contextlib.contextmanager
def _interrupt_between_steps() -> Iterator[threading.Event]:
    """Collects a first Ctrl-C, for a step must be done whole or not at all; a second one acts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def collect(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, collect)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _claim_folder(folder: Path, config: TrainConfig) -> None:
    """Refuses a folder that holds another run; notes the configuration of this one."""
    path = folder / "config.json"
    new = json.loads(json.dumps(dataclasses.asdict(config)))
    old = files.read_json(path)
    if old is not None and checkpoint.list_checkpoints(folder / "checkpoints"):
        changed = [
            name
            for name in sorted(old.keys() | new.keys())
            if name not in RUNTIME_FIELDS and old.get(name) != new.get(name)
        ]
        if changed:
            raise problem(
                f"the configuration of the run in {folder}",
                f"other values of {changed}",
                "Choose another output folder, or restore them to resume.",
            )
    files.write_json(path, new)
