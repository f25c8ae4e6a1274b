"""Owns homographies, warps and the pixel convention.

Convention: points are (x, y) in pixels and the centre of the top-left pixel is (0, 0), so an image of
H x W pixels covers [-0.5, W - 0.5] x [-0.5, H - 0.5]. A homography maps image 0 to image 1:
(x', y', 1) ~ H (x, y, 1). Sizes are (height, width).
"""

from __future__ import annotations

import re

import numpy as np

from kp2d import checks

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,?[0-9]+([eE][+-]?[0-9]+)?")
_DECORATIONS = (  # a name in front, as H = or double H[9] = or "H":, and NumPy's words
    re.compile(r"(?m)^\s*\{?\s*(const\s+)?(double|float)?\s*[\"']?[A-Za-z_]\w*[\"']?(\[\d*\])*\s*[=:](?!=)"),
    re.compile(r"\b((np|numpy)\.)?(array|asarray|matrix|mat)\s*\(|\bdtype\s*=\s*[\w.'\"]+"),
)


def warp_points(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Maps points through a homography.

    Convention: N = 0 gives N = 0. A point is in front of the camera where its third coordinate is positive;
    on or behind the horizon it has no image and comes out as NaN, which `inside` rejects. Scale does not
    matter but sign does: see `facing`.

    Args:
        points: `[N, 2]` (x, y) px in image 0.
        homography: `[3, 3]`, image 0 to image 1.

    Returns:
        float64 `[N, 2]` px in image 1.

    Raises:
        InputError: If the points or the matrix are malformed.
    """
    points = checks.is_points(points, "points").astype(np.float64, copy=False)
    homography = checks.is_homography(homography)
    mapped = points @ homography[:, :2].T + homography[:, 2]
    depth = np.where(mapped[:, 2] > 1e-12 * np.abs(homography).max(), mapped[:, 2], np.nan)
    return mapped[:, :2] / depth[:, None]


def parse_homography(text: str) -> tuple[np.ndarray, str]:
    """Reads nine numbers as people and programs write them, row by row.

    Separated by white space, commas or semicolons; in brackets of any kind, as NumPy, MATLAB, JSON or C write
    them; behind a name ("H ="), with comments behind #, % or //.

    Returns:
        float64 `[3, 3]`, as written; and what was assumed to read it, "" for nothing.

    Raises:
        InputError: If there are other than nine numbers, or other words.
    """
    remedy = "Write three rows of three numbers."
    text = re.sub(r"(#|%|//).*", "", text.replace("\N{MINUS SIGN}", "-").lstrip("\ufeff"))
    for decoration in _DECORATIONS:
        text = decoration.sub(" ", text)
    words, assumed = re.sub(r"[\[\](){}]", " ", text).split(), ""
    if len(words) == 9 and all(map(_DECIMAL_COMMA.fullmatch, words)):
        if any("," in word for word in words):
            assumed = "commas are decimal points"
        words = [word.replace(",", ".") for word in words]
    words = re.sub(r"[,;]", " ", " ".join(words)).split()
    for word in words:
        if not _NUMBER.fullmatch(word) and word.lower().lstrip("+-") not in ("nan", "inf", "infinity"):
            raise checks.problem("a homography of numbers", f"the word {word[:40]!r}", remedy)
    if len(words) == 11 and words[:2] == ["3", "3"]:
        words, assumed = words[2:], "3 3 at the beginning is the number of rows and columns"
    if len(words) == 6:
        remedy = "Of an affine map, write the third row too: 0 0 1."
    elif len(words) == 8:
        remedy = "Write the last number too: 1."
    if len(words) != 9:
        raise checks.problem("a homography of 9 numbers", str(len(words)), remedy)
    return checks.is_homography(np.reshape([float(word) for word in words], (3, 3))), assumed


def facing(homography: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Returns a homography with the sign that puts the centre of image 0 in front of the camera.

    H and -H are the same map, but only one of them has positive depth for what both images see, and so has
    the inverse of that one.
    """
    height, width = image_size
    depth = homography[2] @ [(width - 1) / 2, (height - 1) / 2, 1.0]
    return -homography if depth < 0 else homography


def inside(points: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Tells which points lie between the centres of an image's outermost pixels; bool `[N]`, NaN does not."""
    height, width = image_size
    x, y = points[:, 0], points[:, 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def visible(points: np.ndarray, homography: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Tells which points of image 0 land inside image 1; bool `[N]`."""
    return inside(warp_points(points, homography), image_size)


def resize_matrix(
    size_from: tuple[int, int], size_to: tuple[int, int], *, half_pixel: bool = True
) -> np.ndarray:
    """Returns the homography that a resize of a whole image performs on its coordinates.

    Convention: OpenCV and PIL resize about pixel corners, so x' = s (x + 1/2) - 1/2. `half_pixel=False`
    gives x' = s x, the reference code's choice, which is off by up to |s - 1| / 2 px.

    Args:
        size_from: (height, width) before, px.
        size_to: (height, width) after, px.
        half_pixel: Whether to respect pixel centres.

    Returns:
        float64 `[3, 3]`, coordinates before to coordinates after.
    """
    scale_y, scale_x = size_to[0] / size_from[0], size_to[1] / size_from[1]
    shift = 0.5 if half_pixel else 0.0
    return np.array(
        [
            [scale_x, 0.0, shift * (scale_x - 1.0)],
            [0.0, scale_y, shift * (scale_y - 1.0)],
            [0.0, 0.0, 1.0],
        ]
    )


def rescale_homography(
    homography: np.ndarray,
    size0: tuple[int, int],
    size1: tuple[int, int],
    size_to: tuple[int, int],
    *,
    half_pixel: bool = True,
) -> np.ndarray:
    """Carries a homography through the resize of both images to one size.

    Args:
        homography: `[3, 3]`, image 0 to image 1 at their own sizes.
        size0: (height, width) of image 0 before.
        size1: (height, width) of image 1 before.
        size_to: (height, width) of both images after.
        half_pixel: See `resize_matrix`.

    Returns:
        float64 `[3, 3]` between the resized images, facing image 0, with a last element of 1 or -1 where
        that is possible.

    Raises:
        InputError: If the matrix is malformed or not invertible.
    """
    homography = checks.is_homography(homography)
    before = resize_matrix(size0, size_to, half_pixel=half_pixel)
    after = resize_matrix(size1, size_to, half_pixel=half_pixel)
    carried = after @ homography @ np.linalg.inv(before)
    return facing(carried / (abs(carried[2, 2]) or 1.0), size_to)


def corners(image_size: tuple[int, int]) -> np.ndarray:
    """Returns the centres of the four corner pixels, clockwise from the top left; float64 `[4, 2]` px."""
    height, width = image_size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=np.float64)


def is_convex(quad: np.ndarray) -> bool:
    """Tells whether corners `[4, 2]` turn clockwise all the way (y down), so that nothing is mirrored."""
    edges = np.roll(quad, -1, axis=0) - quad
    following = np.roll(edges, -1, axis=0)
    return bool((edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] > 0).all())


def corner_error(estimated: np.ndarray, truth: np.ndarray, image_size: tuple[int, int]) -> float:
    """Returns the mean distance of the four corners of image 0 under two homographies, px of image 1.

    It is infinite if an estimate throws a corner behind the horizon or is singular. Both matrices are
    `[3, 3]`, image 0 to image 1; the size is image 0's (height, width), px.

    Source: DeTone et al., SuperPoint, 2018, section 6.
    """
    points = corners(image_size)
    try:
        moved = warp_points(points, facing(estimated, image_size))
    except checks.InputError:
        return float("inf")
    error = float(np.linalg.norm(moved - warp_points(points, facing(truth, image_size)), axis=1).mean())
    return error if np.isfinite(error) else float("inf")


def similarity(homography: np.ndarray, image_size: tuple[int, int]) -> tuple[float, float]:
    """Returns the rotation (degrees, counterclockwise as one sees it) and the scale of a homography.

    Convention: those of its derivative at the middle of image 0, whose size is (height, width) px. The matrix
    is `[3, 3]`, image 0 to image 1.
    """
    centre = (np.array(image_size[::-1], dtype=float) - 1) / 2
    around = centre + np.array([[0, 0], [0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    warped = warp_points(around, homography)
    (a, c), (b, d) = warped[1] - warped[2], warped[3] - warped[4]
    return float(np.rad2deg(np.arctan2(b - c, a + d))), float(np.sqrt(abs(a * d - b * c)))
