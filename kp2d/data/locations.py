"""Owns a profile's image pairs: where they lie, in one data set or several, and whether their truth holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kp2d import checks, geometry, images
from kp2d.data import datasets

if TYPE_CHECKING:
    import pandas as pd

VARIABLE = "VAL_PATH"
FROM_VARIABLE = ("hpatches", "bench")  # data sets that the variable names, if it is set
_HALF_PIXEL_SHIFTS = ((0.5, 0.5), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5))


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
    remedy = f"Correct or unset the variable {VARIABLE}."
    existing = [datasets.existing_folder(path, remedy) for path in paths]
    roots = [folder for path in existing for folder in _datasets_in(path.resolve())]
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
    """Returns the sequences of all `folders` of a profile, each data set's sorted by name.

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
    """Returns the name under which results on each data set are reported, with its sequences."""
    groups: dict[Path | None, list[datasets.Sequence]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.root, []).append(sequence)
    return [(datasets.label(group), group) for group in groups.values()]


def ground_truth_residuals(sequences: Sequence[datasets.Sequence]) -> pd.DataFrame:
    """Warps image 1 onto its first partner and measures what remains, a row a sequence.

    The residual is 1 - r, r being the correlation of gray values where both images see the scene: it does not
    mind a change of brightness or contrast. `shifted` is the mean residual when the homography is moved by
    half a pixel along either diagonal; a ground truth worth its name has a smaller residual than that.

    Args:
        sequences: The data set.

    Returns:
        Columns pair, subset, residual, shifted and their ratio; NaN for a pair that cannot be read or shares
        no view.
    """
    import pandas as pd  # `kp2d doctor`, which looks for data, does without

    rows = []
    for pair in (sequence.pairs[0] for sequence in sequences if sequence.pairs):
        try:
            residual, shifted = _residuals(pair)
        except checks.InputError:
            residual = shifted = float("nan")  # the evaluation reports the pair as skipped
        rows.append({"pair": pair.name, "subset": pair.subset, "residual": residual, "shifted": shifted})
    table = pd.DataFrame(rows, columns=["pair", "subset", "residual", "shifted"])
    return table.assign(ratio=table["shifted"] / table["residual"])


def _residuals(pair: datasets.ImagePair) -> tuple[float, float]:
    (gray0, own0), (gray1, own1) = map(_gray, (pair.path0, pair.path1))
    homography = pair.homography()
    if (gray0.shape, gray1.shape) != (own0, own1):
        to_seen = geometry.resize_matrix(own1, gray1.shape)
        homography = to_seen @ homography @ geometry.resize_matrix(gray0.shape, own0)
    shifted = []
    for x, y in _HALF_PIXEL_SHIFTS:
        shift = np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
        shifted.append(_residual(gray0, gray1, shift @ homography))
    return _residual(gray0, gray1, homography), float(np.mean(shifted))


def _gray(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns a picture in float32 gray values, reduced if it is a giant, and its own (height, width) px."""
    image = images.read_image(path)
    return cv2.cvtColor(images.bounded(image), cv2.COLOR_RGB2GRAY).astype(np.float32), image.shape[:2]


def _residual(gray0: np.ndarray, gray1: np.ndarray, homography: np.ndarray) -> float:
    size_wh = gray1.shape[::-1]
    warped = cv2.warpPerspective(gray0, homography, size_wh, flags=cv2.INTER_CUBIC)
    covered = cv2.warpPerspective(np.ones_like(gray0), homography, size_wh) > 0.999
    if covered.sum() < 64:
        return float("nan")
    return float(1 - np.corrcoef(warped[covered], gray1[covered])[0, 1])
