"""Owns the state of a run on disk, and the running average of the weights."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kp2d import files
from kp2d.checks import problem

# What NumPy and the archive beneath raise on damaged files; RuntimeError: an unknown version, a password.
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class WeightAverage:
    """Exponential moving average of a network's weights, BatchNorm's statistics included.

    Attributes:
        values: The average, one float array a weight.
    """

    EVERY = 5  # steps between two updates; the decay is adapted

    def __init__(self, network: keras.Model, decay: float) -> None:
        """Starts from the present weights.

        Args:
            network: What to average.
            decay: Decay a step; 0 follows the weights without averaging.
        """
        self._network = network
        self._decay = decay
        self.values = _read(network.weights)

    def update(self, step: int, *, last: bool = False) -> None:
        """Takes in the weights after a step; early steps count more, so the start is forgotten.

        Args:
            step: Steps done.
            last: Whether the run ends here, so that its last steps must not be left out.
        """
        if self._decay and step % self.EVERY and not last:
            return
        decay = min(self._decay**self.EVERY, (1 + step) / (50 + step)) if self._decay else 0.0
        for average, weight in zip(self.values, _read(self._network.weights), strict=True):
            with np.errstate(invalid="ignore"):  # `all_finite` finds it before anything is saved
                average += np.float32(1 - decay) * (weight - average)

    def copy_to(self, network: keras.Model) -> None:
        """Writes the average into a network of the same architecture.

        Args:
            network: What to overwrite.
        """
        network.set_weights(self.values)


def save_checkpoint(folder: Path, step: int, learner: keras.Model, average: WeightAverage, keep: int) -> Path:
    """Writes everything that a run needs to go on, atomically.

    Args:
        folder: Where checkpoints live.
        step: Steps done.
        learner: Compiled learner.
        average: Its weight average.
        keep: Newest checkpoints that stay.

    Returns:
        The file.
    """
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
    """Restores a run.

    Args:
        path: From `save_checkpoint`.
        learner: Compiled learner of the same configuration, its optimizer built.
        average: Overwritten.

    Returns:
        Steps done.

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
    """Lists the checkpoints of a run.

    Args:
        folder: Where checkpoints live; it need not exist.

    Returns:
        Files, oldest first.
    """
    return sorted(folder.glob("step-*.npz"))


def save_weights(network: keras.Model, path: Path) -> None:
    """Writes a network's weights, atomically.

    Args:
        network: What to save.
        path: A name that ends in `.weights.h5`.
    """
    with files.atomic(path) as temporary:
        partial = temporary.with_suffix(".weights.h5")  # Keras insists on the name
        network.save_weights(partial)
        partial.replace(temporary)


def all_finite(learner: keras.Model, average: WeightAverage) -> bool:
    """Tells whether every weight, batch statistic and averaged weight is a finite number."""
    return all(bool(np.isfinite(v).all()) for v in (*_read(learner.variables), *average.values))


def _variables(learner: keras.Model) -> dict[str, list]:
    """What training changes; the corner teacher's weight is set anew before every step."""
    model = [variable for variable in learner.variables if variable is not learner.corner_weight]
    return {"model": model, "optimizer": learner.optimizer.variables}


def _read(variables) -> list[np.ndarray]:
    return [ops.convert_to_numpy(ops.copy(variable)) for variable in variables]
