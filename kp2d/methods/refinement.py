"""Owns the refinement of a homography by the pictures themselves, to a fraction of a pixel.

A keypoint lies on the best pixel of its own picture; the pixels around it tell more precisely which point
of the other picture is the same. Image 1 is warped back by the estimate, so that shifts of a few pixels are
left; the method of Lucas and Kanade measures them at every inlier, and the homography is fitted again. Both
pictures are normalized locally, for a change of light is no shift. A result that does not make the pictures
more alike is not taken.

Convention: (x, y) px, centre of the top-left pixel = (0, 0); homographies map image 0 to image 1.
"""

from __future__ import annotations

import cv2
import numpy as np

from kp2d import geometry

WINDOW = 15  # px, of what is compared around a point
NEIGHBOURHOOD = 4.0  # px, standard deviation of the window in which light is normalized
NOISE = 4.0  # gray levels squared: contrast below it is not amplified
MAX_SHIFT = 2.5  # px that a point may move
MIN_POINTS = 8
ITERATIONS = 2


def refine_homography(
    image0: np.ndarray, image1: np.ndarray, points0: np.ndarray, homography: np.ndarray
) -> np.ndarray:
    """Refines a homography that is right to a few pixels.

    Args:
        image0: uint8 RGB `[H0, W0, 3]`.
        image1: uint8 RGB `[H1, W1, 3]`.
        points0: `[K, 2]` px in image 0, where the pictures are compared: the inliers of the estimate.
        homography: `[3, 3]`, image 0 to image 1.

    Returns:
        float64 `[3, 3]`: the refined homography, or the given one where there are fewer than eight points, or
        where no better one is found.

    Source: Lucas and Kanade, 1981; Baker and Matthews, IJCV 2004.
    """
    points0 = np.asarray(points0, dtype=np.float32).reshape(-1, 2)
    if len(points0) < MIN_POINTS:
        return homography
    gray0, gray1 = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image0, image1))
    texture0, compared = _normalized(gray0), _around(points0, gray0.shape)
    texture1, seen = _warped_back(gray1, homography, gray0.shape)
    likeness = _correlation(texture0, texture1, compared & seen)
    for _ in range(ITERATIONS):
        shifted, moved = _shifts(texture0, texture1, points0)
        if moved.sum() < MIN_POINTS:
            break
        targets = geometry.warp_points(shifted[moved].astype(np.float64), homography)
        refined = _fit(points0[moved].astype(np.float64), targets)
        if refined is None:
            break
        texture1, seen = _warped_back(gray1, refined, gray0.shape)
        now = _correlation(texture0, texture1, compared & seen)
        if now <= likeness:
            break
        homography, likeness = refined, now
    return homography


def _normalized(gray: np.ndarray) -> np.ndarray:
    """Returns a picture with mean 0 and deviation 1 around every pixel, float32 `[H, W]`."""
    gray = gray.astype(np.float32)
    gray -= cv2.GaussianBlur(gray, (0, 0), NEIGHBOURHOOD)
    return gray / np.sqrt(cv2.GaussianBlur(gray * gray, (0, 0), NEIGHBOURHOOD) + NOISE)


def _around(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns which pixels lie in the window of a point, bool `[H, W]`."""
    mask = np.zeros(size, np.uint8)
    column, row = np.round(points).astype(int).T
    mask[np.clip(row, 0, size[0] - 1), np.clip(column, 0, size[1] - 1)] = 1
    return cv2.dilate(mask, np.ones((WINDOW, WINDOW), np.uint8)) > 0


def _warped_back(
    gray1: np.ndarray, homography: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns image 1 as seen from image 0, normalized, and which of its pixels image 1 covers well."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(gray1, homography, size[::-1], flags=flags)
    covered = cv2.warpPerspective(np.ones_like(gray1), homography, size[::-1], flags=flags)
    return _normalized(warped), cv2.erode(covered, np.ones((9, 9), np.uint8)) > 0


def _correlation(texture0: np.ndarray, texture1: np.ndarray, mask: np.ndarray) -> float:
    """Returns the correlation of two normalized pictures where a mask says so, in [−1, 1]; −1 if nowhere."""
    values0, values1 = texture0[mask], texture1[mask]
    energy = float(values0 @ values0) * float(values1 @ values1)
    return float(values0 @ values1) / energy**0.5 if energy > 0 else -1.0


def _shifts(texture0: np.ndarray, texture1: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds points of one picture in another that is nearly aligned with it.

    Returns:
        Their places in the second picture, float32 `[K, 2]` px, and which of them are to be believed.
    """
    levels0, levels1 = (
        np.clip(128 + 40 * texture, 0, 255).astype(np.uint8) for texture in (texture0, texture1)
    )
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
    shifted, status, _ = cv2.calcOpticalFlowPyrLK(
        levels0,
        levels1,
        points,
        points.copy(),
        winSize=(WINDOW, WINDOW),
        maxLevel=0,
        criteria=criteria,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return shifted, (status.ravel() > 0) & (np.hypot(*(shifted - points).T) < MAX_SHIFT)


def _levels(texture: np.ndarray) -> np.ndarray:
    return np.clip(128 + 40 * texture, 0, 255).astype(np.uint8)


def _fit(points0: np.ndarray, points1: np.ndarray) -> np.ndarray | None:
    """Fits a homography by least squares to the points that agree, found by their median error."""
    homography, _ = cv2.findHomography(points0, points1, cv2.LMEDS)
    for _ in range(3):
        if homography is None:
            return None
        errors = np.hypot(*(geometry.warp_points(points0, homography) - points1).T)
        agreeing = errors < 2.5 * max(1.4826 * float(np.median(errors)), 0.1)  # deviations, of a normal error
        if agreeing.sum() < MIN_POINTS:
            return homography
        homography, _ = cv2.findHomography(points0[agreeing], points1[agreeing], 0)
    return homography
