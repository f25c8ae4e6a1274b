"""Owns what is painted over a frame with OpenCV alone: keypoints, tracks, a reference picture, words.

Convention: points are (x, y) px of the frame, the centre of the top-left pixel is (0, 0). Line widths and
text follow the size of the canvas, so that a thumbnail and a 4K frame look alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from kp2d import checks, images

# As in `kp2d.viz.overlay`: apart also for colour-blind eyes.
INLIER, ESTIMATED = (25, 211, 230), (255, 212, 0)
DARK, WHITE, GRAY = (16, 16, 16), (255, 255, 255), (190, 190, 190)
# Viridis, from the weakest score to the best; its dark end would be lost on a photograph.
SCORES = ((57, 86, 140), (35, 136, 142), (34, 168, 132), (84, 197, 104), (165, 219, 54), (253, 231, 37))
NEUTRAL_SIDE = 480  # px of a canvas at which a line of width 1 is one pixel wide
FONT = cv2.FONT_HERSHEY_SIMPLEX  # ASCII only, in every OpenCV
MAX_LINES = 40  # to keypoints of a reference, evenly chosen
_SUB = 4  # bits of a pixel's fraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """A reference picture and where its keypoints are in the frame."""

    image: np.ndarray  # uint8 RGB `[H, W, 3]`
    points0: np.ndarray  # `[K, 2]` px of the reference
    points1: np.ndarray  # `[K, 2]` px of the frame, row by row the partners
    inliers: np.ndarray  # bool `[K]`, which agree with the homography
    homography: np.ndarray | None  # `[3, 3]`, reference to frame, or None if it was not found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that is painted over a frame."""

    keypoints: np.ndarray | None = None  # `[N, 2]` px, or None
    scores: np.ndarray | None = None  # `[N]`, larger is better
    trails: np.ndarray | None = None  # `[T, L, 2]` px, newest place first, NaN before the birth; or None
    match: Match | None = None  # the reference picture, or None
    title: str = ""  # words at the top left
    rate: str = ""  # words at the top right
    status: Sequence[str] = ()  # lines at the bottom
    message: str = ""  # words in the middle, for a moment
    help_lines: Sequence[str] = ()  # a box over everything, if there are any
    mirror: bool = False  # whether the frame is shown as in a mirror; words are not


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a picture lies on the canvas."""

    width: int  # of the picture, px
    zoom: float  # canvas pixels a pixel of the picture
    left: int = 0  # of its first column on the canvas
    top: int = 0  # of its first row on the canvas
    mirror: bool = False  # whether left and right are exchanged

    def points(self, points: np.ndarray) -> np.ndarray:
        """Returns float64 `[..., 2]` px of the canvas for points of the picture."""
        points = np.array(points, np.float64)
        if self.mirror:
            points[..., 0] = self.width - 1 - points[..., 0]
        return (points + 0.5) * self.zoom - 0.5 + (self.left, self.top)


def _zoom(frame_size: tuple[int, int]) -> int:
    """Returns by which whole number a frame of (height, width) px is enlarged before it is painted on."""
    return max(1, min(math.ceil(NEUTRAL_SIDE / min(frame_size) - 0.1), 4 * NEUTRAL_SIDE // max(frame_size)))


def paint(frame: np.ndarray, scene: Scene) -> np.ndarray:
    """Paints a scene over a frame, uint8 RGB `[H, W, 3]`, which stays as it is.

    Returns:
        uint8 RGB `[H', W', 3]`: the frame, enlarged if it is small, at its left the reference picture if
        there is one.

    Raises:
        InputError: If the frame is no such array.
    """
    height, width = checks.is_image(frame).shape[:2]
    zoom = _zoom((height, width))
    shown = images.resize_image(frame, (height * zoom, width * zoom)) if zoom > 1 else frame
    shown = np.ascontiguousarray(shown[:, ::-1]) if scene.mirror else shown.copy()
    placement = Placement(width=width, zoom=zoom, mirror=scene.mirror)
    unit = min(shown.shape[:2]) / NEUTRAL_SIDE
    if scene.trails is not None:
        _draw_trails(shown, placement.points(scene.trails), unit)
    if scene.keypoints is not None:
        _draw_keypoints(shown, placement.points(scene.keypoints), scene.scores, unit)
    if scene.match is not None:
        shown = _draw_match(shown, placement, scene.match, unit)
    _draw_words(shown, scene, unit)
    return shown


def _draw_keypoints(canvas: np.ndarray, points: np.ndarray, scores: np.ndarray, unit: float) -> None:
    """Draws a dot at every keypoint of `points` `[N, 2]` px, larger and lighter by the rank of its score."""
    order = np.argsort(scores, kind="stable")  # worst first: the best lie on top
    ranks = np.arange(1, len(points) + 1) / max(len(points), 1)
    radii = _fixed((2.1 + 1.5 * ranks) * unit).tolist()
    colors = [SCORES[round(rank * (len(SCORES) - 1))] for rank in ranks]
    edge = _fixed(1.0 * unit)
    for at, radius, color in zip(_fixed(points[order]).tolist(), radii, colors, strict=True):
        cv2.circle(canvas, at, radius + edge, DARK, -1, cv2.LINE_AA, _SUB)
        cv2.circle(canvas, at, radius, color, -1, cv2.LINE_AA, _SUB)


def _draw_trails(canvas: np.ndarray, trails: np.ndarray, unit: float) -> None:
    """Draws the ways of tracks `[T, L, 2]` px, newest place first, wider and stronger towards that."""
    lengths = np.isfinite(trails[..., 0]).sum(axis=1)
    fixed = _fixed(np.nan_to_num(trails))
    ways = [(way, length) for way, length in zip(fixed, lengths.tolist(), strict=True) if length > 1]
    if not ways:
        return
    faint = canvas.copy()
    cv2.polylines(
        faint, [way[:length] for way, length in ways], False, INLIER, _width(1.3 * unit), cv2.LINE_AA, _SUB
    )
    cv2.addWeighted(faint, 0.6, canvas, 0.4, 0, dst=canvas)
    head = max(2, round(0.3 * trails.shape[1]))
    parts = [way[: min(length, head)] for way, length in ways]
    cv2.polylines(canvas, parts, False, INLIER, _width(2 * unit), cv2.LINE_AA, _SUB)


def _draw_match(canvas: np.ndarray, placement: Placement, match: Match, unit: float) -> np.ndarray:
    """Puts the reference picture at the left, lines to the keypoints found again, its outline in the frame.

    Returns:
        uint8 RGB `[H, W', 3]`, wider than the canvas, on which the frame is placed.
    """
    height, width = canvas.shape[:2]
    gap = max(2, round(8 * unit))
    size = match.image.shape[:2]
    zoom = min((height - 2 * gap) / size[0], 0.45 * width / size[1])
    small = images.resize_image(match.image, tuple(max(images.MIN_SIDE, round(side * zoom)) for side in size))
    panel = small.shape[1] + 2 * gap
    wide = np.full((height, panel + width, 3), 24, np.uint8)
    wide[:, panel:] = canvas
    top = (height - small.shape[0]) // 2
    wide[top : top + small.shape[0], gap : gap + small.shape[1]] = small
    placement0 = Placement(width=size[1], zoom=zoom, left=gap, top=top)
    placement1 = dataclasses.replace(placement, left=panel)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size[::-1] - 0.5
    if match.homography is None:
        _draw_loop(wide, placement0.points(corners), 0.6 * unit, GRAY)
        return wide
    inliers = np.flatnonzero(match.inliers)
    shown = inliers[np.linspace(0, len(inliers) - 1, min(len(inliers), MAX_LINES)).astype(int)]
    ends = [placement0.points(match.points0[shown]), placement1.points(match.points1[shown])]
    _draw_lines(wide, np.stack(ends, axis=1), unit)
    seen = np.column_stack([corners, np.ones(4)]) @ match.homography.T
    outline = placement1.points(seen[:, :2] / seen[:, 2:])
    frame = wide[:, panel:]  # the outline must not run over the reference
    _draw_loop(frame, outline - (panel, 0), unit)
    _draw_loop(wide, placement0.points(corners), unit)
    return wide


def _draw_text(
    canvas: np.ndarray,
    lines: Sequence[str],
    corner: tuple[float, float],
    unit: float,
    *,
    size: float = 1.0,
    color: tuple[int, int, int] = WHITE,
) -> None:
    """Writes lines, if there are any, on a dark box; smaller where the canvas is too narrow.

    The corner, (x, y) in [0, 1], says where the box stands, from top left to bottom right; other characters
    than ASCII become their escapes; `size` is relative to the usual.
    """
    if not any(lines):
        return
    lines = [line.encode("ascii", "backslashreplace").decode() for line in lines]
    height, width = canvas.shape[:2]
    scale, pad, margin = 0.5 * size * unit, round(6 * unit), round(8 * unit)
    widest = max(_text_width(line, scale, unit) for line in lines)
    scale *= min(1.0, (width - 2 * pad - 2 * margin) / widest)
    step = round(36 * scale)
    thickness = _width(1.1 * scale / 0.5)
    box = (max(_text_width(line, scale, unit) for line in lines) + 2 * pad, step * len(lines) + 2 * pad)
    left = round(margin + corner[0] * max(0, width - box[0] - 2 * margin))
    top = round(margin + corner[1] * max(0, height - box[1] - 2 * margin))
    back = canvas[top : top + box[1], left : left + box[0]]
    back[:] = back // 4 + 8
    for row, line in enumerate(lines):
        origin = (left + pad, top + pad + round(step * (row + 0.72)))
        cv2.putText(canvas, line, origin, FONT, scale, color, thickness, cv2.LINE_AA)


def _draw_words(canvas: np.ndarray, scene: Scene, unit: float) -> None:
    _draw_text(canvas, [scene.title], (0, 0), unit)
    _draw_text(canvas, [scene.rate], (1, 0), unit, color=ESTIMATED)
    _draw_text(canvas, scene.status, (0, 1), unit)
    _draw_text(canvas, [scene.message], (0.5, 0.8), unit, color=ESTIMATED)
    _draw_text(canvas, scene.help_lines, (0.5, 0.5), unit, size=1.1)


def _draw_lines(canvas: np.ndarray, ends: np.ndarray, unit: float) -> None:
    """Draws a line with a dark halo, and a dot at its ends, for each `[2, 2]` px of `ends` `[K, 2, 2]`."""
    lines = _fixed(ends)
    for width, color in ((2.4, DARK), (1.0, INLIER)):
        cv2.polylines(canvas, list(lines), False, color, _width(width * unit), cv2.LINE_AA, _SUB)
    for point in lines.reshape(-1, 2).tolist():
        for radius, color in ((3.2, DARK), (2.2, INLIER)):
            cv2.circle(canvas, point, _fixed(radius * unit), color, -1, cv2.LINE_AA, _SUB)


def _draw_loop(
    canvas: np.ndarray, points: np.ndarray, unit: float, color: tuple[int, int, int] = ESTIMATED
) -> None:
    """Draws a closed line with a dark halo; what lies outside is cut off."""
    loop = [_fixed(np.clip(points, -1e5, 1e5))]
    cv2.polylines(canvas, loop, True, DARK, _width(5 * unit), cv2.LINE_AA, _SUB)
    cv2.polylines(canvas, loop, True, color, _width(2.6 * unit), cv2.LINE_AA, _SUB)


def _text_width(line: str, scale: float, unit: float) -> int:
    return cv2.getTextSize(line, FONT, scale, _width(unit))[0][0]


def _width(value: float) -> int:
    return max(1, round(value))


def _fixed(value: np.ndarray | float) -> np.ndarray | int:
    """Returns pixels as the whole numbers of 1/16 px that OpenCV draws with."""
    if isinstance(value, np.ndarray):
        return np.rint(value * (1 << _SUB)).astype(np.int32)
    return round(value * (1 << _SUB))
