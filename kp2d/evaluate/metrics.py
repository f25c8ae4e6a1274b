"""Owns the paper's six metrics and the field's further ones, each a pure function of one image pair.

The protocol is that of KP2D (Tang et al., ICLR 2020); docs/protocol.md lists where it departs from the
code of KP2Dtiny.
"""

from __future__ import annotations

import numpy as np

from kp2d import geometry
from kp2d.methods import matching

MMA_THRESHOLDS = tuple(range(1, 11))  # px


def nearest_distances(points0: np.ndarray, points1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how far the nearest neighbour in the other set is of each point, `[N]` and `[M]` px."""
    squared = (points0[:, None, 0] - points1[None, :, 0]) ** 2
    squared += (points0[:, None, 1] - points1[None, :, 1]) ** 2
    return np.sqrt(squared.min(axis=1)), np.sqrt(squared.min(axis=0))


def repeatability(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    homography: np.ndarray,
    *,
    threshold: float = 3.0,
) -> tuple[float, float]:
    """Measures how many keypoints are found again in the other view, and how precisely.

    Both directions are counted: a point of image 0 is repeated if a point of image 1 lies within
    `threshold` of its warped position, and the other way round; distances are taken in image 1.

    Convention: no points at all give a repeatability of 0 and an undefined (NaN) error.

    Args:
        keypoints0: `[N, 2]` px, those visible in image 1.
        keypoints1: `[M, 2]` px, those visible in image 0.
        homography: `[3, 3]`, image 0 to image 1.
        threshold: px.

    Returns:
        Repeatability in [0, 1], and the localization error: the mean distance of repeated points, px.

    Source: DeTone et al., SuperPoint, 2018, appendix C.
    """
    if len(keypoints0) == 0 or len(keypoints1) == 0:
        return 0.0, float("nan")
    warped = np.nan_to_num(geometry.warp_points(keypoints0, homography), nan=np.inf)  # behind the horizon
    nearest = np.concatenate(nearest_distances(warped, keypoints1))
    repeated = nearest[nearest <= threshold]
    if len(repeated) == 0:
        return 0.0, float("nan")
    return len(repeated) / len(nearest), float(repeated.mean())


def matching_score(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    distances: np.ndarray,
    homography: np.ndarray,
    image_size: tuple[int, int],
    *,
    threshold: float = 3.0,
) -> float:
    """Returns the fraction of nearest neighbours that are correct, the mean of both directions.

    Each point takes the nearest descriptor of the other image, without a cross-check; the pair counts if the
    partner is visible in the point's own image, and is correct if it lands within `threshold` there.

    Args:
        keypoints0: `[N, 2]` px.
        keypoints1: `[M, 2]` px.
        distances: `[N, M]` descriptor distances.
        homography: `[3, 3]`, image 0 to image 1.
        image_size: (height, width) of both images, px.
        threshold: px.

    Returns:
        A fraction in [0, 1]; a direction without visible partners counts 0.

    Source: Tang et al., KP2D, ICLR 2020, section 4.3.
    """
    inverse = np.linalg.inv(homography)
    forward = matching.nearest(distances)
    backward = matching.nearest(distances.T)
    directions = (
        (keypoints0[forward[:, 0]], keypoints1[forward[:, 1]], inverse),
        (keypoints1[backward[:, 0]], keypoints0[backward[:, 1]], homography),
    )
    fractions = []
    for own, partner, to_own in directions:
        landed = geometry.warp_points(partner, to_own)
        seen = geometry.inside(landed, image_size)
        correct = np.hypot(*(landed - own).T) <= threshold
        fractions.append((correct & seen).sum() / max(seen.sum(), 1))
    return float(np.mean(fractions))


def match_errors(
    keypoints0: np.ndarray, keypoints1: np.ndarray, matches: np.ndarray, homography: np.ndarray
) -> np.ndarray:
    """Returns how far each match misses its true place in image 1; float64 `[K]` px, NaN past the horizon."""
    return np.hypot(
        *(geometry.warp_points(keypoints0[matches[:, 0]], homography) - keypoints1[matches[:, 1]]).T
    )


def matching_accuracy(errors: np.ndarray, thresholds: tuple[float, ...] = MMA_THRESHOLDS) -> np.ndarray:
    """Returns the fraction of matches that are right within each threshold (T of them, px).

    Averaged over pairs this is the mean matching accuracy (MMA). Errors are `[K]` px, as from `match_errors`;
    the fractions float64 `[T]` in [0, 1], zeros if there are no matches.

    Source: Dusmanu et al., D2-Net, CVPR 2019, section 4.
    """
    if len(errors) == 0:
        return np.zeros(len(thresholds))
    return (errors[:, None] <= np.asarray(thresholds)).mean(axis=0)


def area_under_curve(errors: np.ndarray, threshold: float) -> float:
    """Returns the area under the curve "fraction of pairs with an error of at most e", e up to a threshold.

    Errors are `[P]` px, infinite or NaN for pairs that failed. The area is divided by the threshold, in px,
    so that it lies in [0, 1]; it is NaN without pairs.
    """
    if len(errors) == 0:
        return float("nan")
    errors = np.nan_to_num(np.asarray(errors, dtype=np.float64), nan=np.inf)
    return float((1 - np.minimum(errors, threshold) / threshold).mean())
