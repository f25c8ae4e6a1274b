"""Owns what a training run keeps on disk: its state, the running average of its weights, and its log."""

from __future__ import annotations

import csv
import logging
import os
import secrets
import time
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kp2d import files
from kp2d.checks import problem

if TYPE_CHECKING:
    import keras  # whoever only reads a log does without

# What NumPy and the archive beneath raise on damaged files; RuntimeError: an unknown version, a password.
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)

LARGEST_HALF = float(np.finfo(np.float16).max)  # that half precision holds

log = logging.getLogger(__name__)


class WeightAverage:
    """Exponential moving average of a network's weights, BatchNorm's statistics included.

    Attributes:
        values: The average, one float array a weight.
    """

    EVERY = 5  # steps between two updates; the decay is adapted

    def __init__(self, network: keras.Model, decay: float) -> None:
        """Starts from the present weights; a decay of 0 a step follows them without averaging."""
        self._network = network
        self._decay = decay
        self.values = _read(network.weights)

    def update(self, step: int, *, last: bool = False) -> None:
        """Takes in the weights after a step; early steps count more, so the start is forgotten.

        `last`: whether the run ends here, so that its last steps must not be left out.
        """
        if self._decay and step % self.EVERY and not last:
            return
        decay = min(self._decay**self.EVERY, (1 + step) / (50 + step)) if self._decay else 0.0
        for average, weight in zip(self.values, _read(self._network.weights), strict=True):
            with np.errstate(invalid="ignore"):  # `all_finite` finds it before anything is saved
                average += np.float32(1 - decay) * (weight - average)

    def copy_to(self, network: keras.Model) -> None:
        """Writes the average into a network of the same architecture."""
        network.set_weights(self.values)


def save_checkpoint(folder: Path, step: int, learner: keras.Model, average: WeightAverage, keep: int) -> Path:
    """Writes all that a run needs to go on, atomically, and returns the file; the newest `keep` stay."""
    arrays = {"step": np.array(step)}
    arrays |= {f"average/{i}": value for i, value in enumerate(average.values)}
    for name, variables in _variables(learner).items():
        arrays |= {f"{name}/{i}": value for i, value in enumerate(_read(variables))}
    path = folder / f"step-{step:08d}.npz"
    with files.atomic(path) as temporary:
        np.savez(temporary, **arrays)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path, learner: keras.Model, average: WeightAverage) -> int:
    """Restores a run from `save_checkpoint`, and returns the steps done.

    The learner is compiled, of the same configuration, and its optimizer built; the average is overwritten.

    Raises:
        InputError: If the file is damaged, or belongs to another architecture; nothing is changed then.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            saved = {name: arrays[name] for name in arrays.files}
            step = int(saved["step"])
    except DAMAGES as error:
        raise problem(
            "a whole checkpoint",
            f"{path}, which is damaged or cut off ({error or type(error).__name__})",
            "Remove it: the run then resumes from the checkpoint before it, or from the start.",
        ) from error
    groups = {**_variables(learner), "average": average.values}
    for name, items in groups.items():
        for i, item in enumerate(items):
            _check_shape(path, f"{name}/{i}", saved.get(f"{name}/{i}"), tuple(item.shape))
    for name, items in groups.items():
        for i, item in enumerate(items):
            if name == "average":
                items[i] = saved[f"{name}/{i}"]
            else:
                item.assign(saved[f"{name}/{i}"])
    return step


def _check_shape(path: Path, name: str, value: np.ndarray | None, shape: tuple[int, ...]) -> None:
    """Refuses an array of a checkpoint that belongs to another network."""
    if value is None or value.shape != shape:
        raise problem(
            "a checkpoint of this network",
            f"{path}, in which {name} is {None if value is None else value.shape}, not {shape}",
            "Resume with the run's own configuration.",
        )


def list_checkpoints(folder: Path) -> list[Path]:
    """Lists the checkpoints in a folder, which need not exist, oldest first."""
    return sorted(folder.glob("step-*.npz"))


def save_weights(network: keras.Model, path: Path) -> None:
    """Writes a network's weights, atomically, to a name that ends in `.weights.h5`."""
    with files.atomic(path) as temporary:
        partial = temporary.with_suffix(".weights.h5")  # Keras insists on the name
        network.save_weights(partial)
        partial.replace(temporary)


def save_half(weights: Path, path: Path) -> None:
    """Writes a `.weights.h5` file again, atomically, with its float32 numbers in half precision.

    Raises:
        InputError: If it holds numbers that are too large for that.
    """
    import h5py

    with files.atomic(path) as temporary, h5py.File(weights) as source, h5py.File(temporary, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                values = np.asarray(item)
                if values.dtype == np.float32:
                    if np.abs(values).max(initial=0) > LARGEST_HALF:
                        raise problem(f"weights of at most {LARGEST_HALF:.0f}", f"larger ones in {weights}")
                    values = values.astype(np.float16)
                made = target.create_dataset(name, data=values)
            else:
                made = target.require_group(name)
            made.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)


def all_finite(learner: keras.Model, average: WeightAverage) -> bool:
    """Tells whether every weight, batch statistic and averaged weight is a finite number."""
    return all(bool(np.isfinite(v).all()) for v in (*_read(learner.variables), *average.values))


def _variables(learner: keras.Model) -> dict[str, list]:
    """What training changes; the corner teacher's weight is set anew before every step."""
    model = [variable for variable in learner.variables if variable is not learner.corner_weight]
    return {"model": model, "optimizer": learner.optimizer.variables}


def _read(variables) -> list[np.ndarray]:
    from keras import ops

    return [ops.convert_to_numpy(ops.copy(variable)) for variable in variables]


class RunLog:
    """Writes rows of scalars, keyed by step, to every destination of a run."""

    def __init__(
        self,
        folder: Path,
        *,
        first_step: int,
        tensorboard: bool,
        wandb: bool,
        name: str,
        config: dict[str, Any],
    ) -> None:
        """Opens the destinations.

        Args:
            folder: Folder of the run; event files go to its `tensorboard`.
            first_step: Steps done; later rows of an interrupted run are dropped.
            tensorboard: Write event files.
            wandb: Log to Weights & Biases, offline when there is no account or no network.
            name: Display name of the run.
            config: The run's settings.
        """
        self._path = folder / "log.csv"
        self._rows = read_rows(self._path, first_step)
        self._rewrite()
        self._events = _open_tensorboard(folder) if tensorboard else None
        self._wandb = _open_wandb(folder, name, config) if wandb else None

    @property
    def rows(self) -> list[dict[str, float]]:
        """All rows so far, those of earlier parts of the run included."""
        return [dict(row) for row in self._rows]

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one row: numbers by name, after some steps."""
        row = {"step": step, **values}
        known = set(self._rows[0]) if self._rows else set()
        self._rows.append(row)
        if set(row) <= known:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, list(self._rows[0])).writerow(row)
        else:
            self._rewrite()
        if self._events is not None:
            _write_events(self._events, step, values)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def close(self) -> None:
        """Flushes and closes every destination."""
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _rewrite(self) -> None:
        """Writes the whole file, after a new column appeared or rows were dropped."""
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        self._rows[:1] = [{name: row.get(name, "") for name in names} for row in self._rows[:1]]
        with files.atomic(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self._rows)


def read_rows(path: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """Reads a `log.csv`, up to a step: column to number, or to "" where a row has no value.

    A missing log has no rows, and damaged lines count as missing.

    Raises:
        InputError: If it is no table at all.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            rows = [row for row in map(_numbers, csv.DictReader(file)) if row is not None]
        except csv.Error as error:
            raise problem("the log of a training run", f"{path} ({error})", "Remove it.") from error
    return [row for row in rows if last_step is None or row["step"] <= last_step]


def _numbers(row: dict[str | None, Any]) -> dict[str, Any] | None:
    """Returns the numbers of a line; None for one that a kill cut short or a disk garbled."""
    if None in row or None in row.values():
        return None
    try:
        numbers = {name: float(value) if value else "" for name, value in row.items()}
        return {**numbers, "step": int(numbers["step"])}
    except (KeyError, OverflowError, ValueError):
        return None


def _open_tensorboard(folder: Path) -> Any:
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        log.warning("TensorBoard is not installed; its log is skipped (pip install tensorboard).")
        return None
    return EventFileWriter(str(folder / "tensorboard"))


def _write_events(writer: Any, step: int, values: dict[str, float]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))


def _open_wandb(folder: Path, name: str, config: dict[str, Any]) -> Any:
    """Starts a Weights & Biases run without ever asking, waiting long, or failing."""
    try:
        import wandb
    except ImportError:
        log.warning("Weights & Biases is not installed; its log is skipped (pip install wandb).")
        return None
    run = {"project": "kp2d", "name": name, "dir": str(folder), "config": config}
    run["settings"] = {"silent": True, "init_timeout": 20}  # s
    try:  # whatever a foreign service does, training goes on
        mode = os.environ.get("WANDB_MODE")
        if mode != "offline" and (mode or wandb.login(prompt=False, verify=False)):
            identity = folder / "wandb_id.txt"  # a resumed run goes on in the same place
            if not identity.exists():
                files.write_text(identity, secrets.token_hex(4))
            return wandb.init(mode=mode or "online", id=identity.read_text().strip(), resume="allow", **run)
    except Exception as error:
        log.warning("Weights & Biases cannot be reached: %s", error)
    try:
        log.info("Weights & Biases: offline, in %s (no account or no network).", folder)
        return wandb.init(mode="offline", **run)
    except Exception as error:  # likewise
        log.warning("Weights & Biases did not start; its log is skipped: %s", error)
        return None
