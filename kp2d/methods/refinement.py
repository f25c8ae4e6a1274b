"""Owns what two pictures themselves say of a homography: its place within a pixel, and whether it is one.

A keypoint lies on the best pixel of its own picture; the pixels around it tell more precisely which point
of the other picture is the same. Image 1 is warped back by the estimate, so that shifts of a few pixels are
left; the method of Lucas and Kanade measures them at every inlier, and the homography is fitted again. Both
pictures are normalized locally, for a change of light is no shift. A result that does not make the pictures
more alike is not taken.

Matches can agree on a homography by what is the same in unrelated pictures: the edge of a microscope's disk,
a black frame. It says nothing of what such an edge encloses, so that is what is compared.

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
COMPARED_PIXELS = 240 * 320  # the pictures are compared at no more than that
LEAST_TEXTURE = 0.1  # mean square of a normalized picture: a deviation of 0.7 gray levels


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


def likeness(image0: np.ndarray, image1: np.ndarray, points0: np.ndarray, homography: np.ndarray) -> float:
    """Tells how alike two pictures are where a homography claims to explain them.

    It is the median of their correlations in small windows, light and contrast taken out, over what is
    textured within the hull of some points: near 1 where most of that is one surface seen twice, near 0 where
    it has nothing in common, however well the points on its edge agree. The edge of what is flat in both
    pictures does not count.

    Args:
        image0: uint8 RGB `[H0, W0, 3]`.
        image1: uint8 RGB `[H1, W1, 3]`.
        points0: `[K, 2]` px in image 0: the inliers of the homography.
        homography: `[3, 3]`, image 0 to image 1.

    Returns:
        The median correlation, in [−1, 1]; −1 where there is nothing to compare.
    """
    points0 = np.asarray(points0, dtype=np.float64).reshape(-1, 2)
    points1 = geometry.warp_points(points0, homography)
    if len(points0) < 3 or not np.isfinite(points1).all():
        return -1.0
    area0, area1 = (cv2.contourArea(_hull(points)) for points in (points0, points1))
    extent = points0.max(axis=0) - points0.min(axis=0)
    if min(area0, area1) < 1:
        return -1.0
    # No finer than either picture shows it: enlarged pixels do not look like the small ones they stand for.
    scale = min(1.0, (area1 / area0) ** 0.5, (COMPARED_PIXELS / float(np.prod(extent))) ** 0.5)
    shift = WINDOW // 2 - scale * points0.min(axis=0)
    into_frame = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
    width, height = (int(side) for side in np.ceil(scale * extent) + WINDOW)
    frame = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(frame, np.round(_hull(geometry.warp_points(points0, into_frame))).astype(np.int32), 1)
    texture0, seen0 = _framed(image0, into_frame, scale, frame.shape)
    from_image1, scale1 = into_frame @ np.linalg.inv(homography), scale * (area0 / area1) ** 0.5
    texture1, seen1 = _framed(image1, from_image1, scale1, frame.shape)
    return _median_correlation(texture0, texture1, (frame > 0) & seen0 & seen1)


def _hull(points: np.ndarray) -> np.ndarray:
    return cv2.convexHull(points.astype(np.float32))


def _median_correlation(texture0: np.ndarray, texture1: np.ndarray, mask: np.ndarray) -> float:
    """Returns the median correlation in windows of two normalized pictures, where a mask and texture are."""
    energy0, energy1, product = (
        cv2.blur(values, (WINDOW, WINDOW))
        for values in (texture0 * texture0, texture1 * texture1, texture0 * texture1)
    )
    edge = _beside_flat(texture0) & _beside_flat(texture1)
    compared = mask & ~edge & (np.maximum(energy0, energy1) > LEAST_TEXTURE)
    if compared.sum() < WINDOW**2:
        return -1.0
    return float(np.median(product[compared] / np.sqrt(energy0 * energy1 + 1e-6)[compared]))


def _beside_flat(texture: np.ndarray) -> np.ndarray:
    """Returns which pixels of a normalized picture have some without texture nearby, bool `[H, W]`."""
    flat = cv2.blur(texture * texture, (9, 9)) < LEAST_TEXTURE
    return cv2.dilate(flat.astype(np.uint8), np.ones((WINDOW, WINDOW), np.uint8)) > 0


def _framed(
    image: np.ndarray, matrix: np.ndarray, scale: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a picture warped into a frame, normalized, and which pixels of the frame it covers well.

    The matrix `[3, 3]` takes pixels of the picture, uint8 RGB `[H, W, 3]`, to those of the frame, whose size
    is (height, width) px; the warp reduces it by about `scale`: areas are averaged first.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    own_size = gray.shape
    if scale < 1:
        reduced = tuple(max(round(side * scale), 1) for side in own_size)
        gray = cv2.resize(gray, reduced[::-1], interpolation=cv2.INTER_AREA)
        matrix = matrix @ geometry.resize_matrix(reduced, own_size)
    return _warped_back(gray, np.linalg.inv(matrix), size)


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
