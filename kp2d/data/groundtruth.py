"""Owns the test of a data set's own homographies: do the images agree with them?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kp2d import checks, geometry, images
from kp2d.data import datasets

_HALF_PIXEL_SHIFTS = ((0.5, 0.5), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5))


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
