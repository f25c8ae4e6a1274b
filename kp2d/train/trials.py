"""Owns training runs side by side: recipes that start from the same weights, their logs as one table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kp2d import backend, files, provenance
from kp2d.checks import problem
from kp2d.config import fingerprint
from kp2d.methods import weights
from kp2d.train import checkpoint
from kp2d.train.recipes import TrainConfig, from_recipe, replace

UNTRAINED = "untrained"
LOG_ROWS = 25  # of a run, unless `log_every` is among its settings
_TIMES = ["seconds", "pairs_per_second", "wait_share"]  # differ from run to run


def train_recipes(
    steps: Mapping[str, int],
    *,
    data: str | Path,
    output: str | Path,
    progress: bool = True,
    **settings: Any,
) -> dict[str, Path]:
    """Trains one network by several recipes, each for its steps, from the same fresh weights.

    An interrupted run goes on where it stopped, and a finished one is not repeated, as long as settings, data
    and code are the same. Runs of other settings in the folder `output` are removed; `settings` change every
    recipe, as in `kp2d.train.recipes.from_recipe`.

    Returns:
        Name to folder: "untrained", the fresh weights, then every recipe.

    Raises:
        InputError: If a recipe or setting is unknown, or the folder of photographs does not work.
    """
    backend.quiet()
    from kp2d.train.training import train

    if not steps:
        raise problem("one or more recipes with their steps", "none")
    configs = {
        recipe: from_recipe(
            recipe,
            data=str(data),
            output="",
            **{"log_every": max(1, count // LOG_ROWS), **settings, "steps": count},
        )
        for recipe, count in steps.items()
    }
    key = fingerprint(list(configs.values()), provenance.code_hash(__name__))
    folder = Path(output) / key
    files.check_writable(folder / "probe")
    for other in Path(output).iterdir():
        if other.is_dir() and other != folder and (other / UNTRAINED).is_dir():
            shutil.rmtree(other)
    folders = {UNTRAINED: _write_untrained(next(iter(configs.values())), folder / UNTRAINED)}
    for recipe, config in configs.items():
        folders[recipe] = folder / recipe
        train(replace(config, output=str(folders[recipe])), progress=progress)
    return folders


def keep_last(folders: Mapping[str, Path], target: Path) -> Path:
    """Copies the weights of the last of some runs, and its settings, to the folder they are named after."""
    folder = list(folders.values())[-1]
    files.write_bytes(target / "config.json", (folder / "config.json").read_bytes())
    return files.write_bytes(target / f"{target.name}{weights.WEIGHTS}", weights.find(folder).read_bytes())


def example_pairs(
    recipe: str, data: str | Path, *, image_size: tuple[int, int], seed: int = 0, **settings: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Makes training pairs to look at, as a recipe makes them at the end of a run.

    Settings are as in `kp2d.train.recipes.from_recipe`; the size is a view's (height, width), px.

    Returns:
        The first and the second views of a batch, uint8 RGB `[B, H, W, 3]`.

    Raises:
        InputError: If the recipe, a setting or the folder does not work.
    """
    config = from_recipe(recipe, data=str(data), output="", image_size=image_size, seed=seed, **settings)
    batch = _batch(config, config.steps)
    return batch["image0"], batch["image1"]


def example_step(
    recipe: str, data: str | Path, *, step: int = 0, **settings: Any
) -> tuple[Any, dict[str, np.ndarray]]:
    """Makes what a step of a recipe computes with, to look into it: a learner and a single pair.

    Settings are as in `kp2d.train.recipes.from_recipe`.

    Returns:
        The `KeypointLearner`, its network with the weights that come with the package if there are any;
        and the batch.

    Raises:
        InputError: If the recipe, a setting or the folder does not work.
    """
    backend.quiet()
    import keras

    from kp2d.methods import networks
    from kp2d.train.learner import KeypointLearner

    config = from_recipe(recipe, data=str(data), output="", **{"batch_size": 1, **settings})
    keras.utils.set_random_seed(config.seed)
    with backend.own_settings():
        learner = KeypointLearner(networks.get_preset(config.preset), config)
    if config.preset in weights.shipped():
        weights.load_weights(learner.network, weights.shipped_path(config.preset))
    return learner, _batch(config, step)


def _batch(config: TrainConfig, step: int) -> dict[str, np.ndarray]:
    """Returns the pairs of a step."""
    backend.quiet()
    from kp2d.methods.networks import get_preset
    from kp2d.train.training import pair_source

    return pair_source(config, get_preset(config.preset).cell).batch(step)[0]


def _write_untrained(config: TrainConfig, folder: Path) -> Path:
    """Writes the weights that a run of this seed starts from."""
    import keras

    from kp2d.methods import networks

    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)
    checkpoint.save_weights(networks.build_network(config.preset), folder / f"{config.preset}.weights.h5")
    return folder


def loss_table(folders: Mapping[str, str | Path]) -> pd.DataFrame:
    """Reads the logs of training runs, name to folder, into one table; folders without a log are left out.

    Returns:
        One row a run and logged step: recipe, step, pairs, and the mean of every unweighted loss term since
        the row before. A descriptor term is named after its kind, for the kinds have different units.

    Raises:
        InputError: If no run has a log, or one lacks its settings.
    """
    parts = []
    for name, folder in folders.items():
        rows = pd.DataFrame(checkpoint.read_rows(Path(folder) / "log.csv"))
        if rows.empty:
            continue
        config = files.read_json(Path(folder) / "config.json")
        if config is None:
            raise problem("the settings of a run beside its log", f"no config.json in {folder}")
        rows = rows.drop(columns=_TIMES, errors="ignore")
        rows = rows.rename(columns={"descriptor": config["loss"]["descriptor_kind"]})
        rows.insert(0, "recipe", name)
        rows.insert(2, "pairs", rows["step"].astype(int) * config["batch_size"])
        parts.append(rows)
    if not parts:
        raise problem("the log of at least one run", "none", "Train first.")
    return pd.concat(parts, ignore_index=True)
