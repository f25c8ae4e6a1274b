"""Owns where a profile's image pairs lie: in one data set, or in several that are measured side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kp2d import checks
from kp2d.data import datasets

VARIABLE = "VAL_PATH"
FROM_VARIABLE = ("hpatches", "bench")  # data sets that the variable names, if it is set


def folders(name: str | os.PathLike, profile: str) -> list[Path]:
    """Returns the folders of a profile's data sets.

    Args:
        name: As for `datasets.resolve`, or "bench", which only `VAL_PATH` names. The variable holds one
            folder or several, with ":" between them as in PATH (on Windows ";"); each is a data set, or
            holds data sets.
        profile: The profile whose `sample` is meant.

    Returns:
        At least one existing folder.

    Raises:
        InputError: If a folder does not exist (the message says how to get it), or if the variable names one
            without image pairs, or two that cannot be told apart.
    """
    named = os.environ.get(VARIABLE, "") if name in FROM_VARIABLE else ""
    paths = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    if not paths and name == "bench":
        remedy = f"Set {VARIABLE} to folders in the layout of HPatches, with {os.pathsep!r} between several."
        raise checks.problem("image pairs to measure on", f"no variable {VARIABLE}", remedy)
    if not paths:
        return [datasets.resolve(name, profile)]
    for path in paths:
        if not path.is_dir():
            received = f"the file {path}" if path.exists() else f"{path}, which does not exist"
            raise checks.problem("a folder", received, f"Correct or unset the variable {VARIABLE}.")
    roots = [folder for path in paths for folder in _datasets_in(path.resolve())]
    _check_different("data sets", [(root.name, root) for root in roots])
    return roots


def hold_anywhere() -> None:
    """Makes the folders in `VAL_PATH` and `TRAIN_PATH` absolute: notebooks run in a folder of their own."""
    for name, separator in ((VARIABLE, os.pathsep), ("TRAIN_PATH", None)):
        told = os.environ.get(name, "")
        parts = [part for part in (told.split(separator) if separator else [told]) if part]
        if parts:
            os.environ[name] = os.pathsep.join(str(Path(part).expanduser().absolute()) for part in parts)


def _datasets_in(folder: Path) -> list[Path]:
    """Returns the data sets in a folder: itself, unless only folders below it hold sequences.

    Raises:
        InputError: If neither does.
    """

    def holds_sequences(path: Path) -> bool:
        return any(map(datasets.is_sequence, datasets.subfolders(path)))

    if holds_sequences(folder):
        return [folder]
    if below := list(filter(holds_sequences, datasets.subfolders(folder))):
        return below
    try:
        datasets.load_sequences(folder)  # says what is there instead
    except checks.InputError as error:
        received = error.received if str(folder) in error.received else f"{folder} with {error.received}"
        raise checks.problem("image pairs", received, f"Correct or unset the variable {VARIABLE}.") from None
    return [folder]


def load(name: str | os.PathLike, profile: str) -> list[datasets.Sequence]:
    """Returns the sequences of all data sets of a profile, each data set's sorted by name.

    Args:
        name: As for `folders`, like the following.
        profile: The profile.

    Raises:
        InputError: If a data set is missing or has no usable pair, or two of them cannot be told apart.
    """
    roots = folders(name, profile)
    sequences = [sequence for root in roots for sequence in datasets.load_sequences(root)]
    _check_different("data sets", [(label, group[0].root) for label, group in by_dataset(sequences)])
    names = [(sequence.name, sequence.root / sequence.name) for sequence in sequences]
    _check_different("sequences", names)  # scores are kept by their names
    return sequences


def describe(sequences: Iterable[datasets.Sequence]) -> list[dict]:
    """Returns one row a sequence, as `datasets.describe`, with the name of its data set in front."""
    rows = []
    for name, group in by_dataset(sequences):
        rows += [{"dataset": name, **row} for row in datasets.describe(group)]
    return rows


def _check_different(what: str, named: Iterable[tuple[str, Path]]) -> None:
    """Refuses two folders of one name, under which results on both would be reported."""
    places: dict[str, list[Path]] = {}
    for name, place in named:
        places.setdefault(name, []).append(place)
    twice = [" and ".join(map(str, same)) for same in places.values() if len(same) > 1]
    if twice:
        remedy = f"Rename one of the folders, or measure on one data set at a time: {VARIABLE}."
        raise checks.problem(f"{what} with different names", "; ".join(twice[:3]), remedy)


def by_dataset(sequences: Iterable[datasets.Sequence]) -> list[tuple[str, list[datasets.Sequence]]]:
    """Returns the name under which results on each data set are reported, with its sequences.

    Args:
        sequences: Of one data set or several.
    """
    groups: dict[Path | None, list[datasets.Sequence]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.root, []).append(sequence)
    return [(datasets.label(group), group) for group in groups.values()]
