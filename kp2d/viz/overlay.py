"""Owns how photographs are placed and painted on axes: grids, titles, match lines, frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from kp2d import checks
from kp2d.viz import figures

INLIER, OUTLIER, TRUE, ESTIMATED = "#19d3e6", "#e8205c", "#ffffff", "#ffd400"
DASHES = (0, (3.0, 1.8))
KINDS = ("inliers", "outliers", "matches", "true frame", "estimated frame")
SINGULAR = {"inliers": "inlier", "outliers": "outlier", "matches": "match"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnPair:
    """Two photographs, what was matched between them, and where picture 1 stands beside picture 0."""

    image0: np.ndarray  # uint8 RGB `[H, W, 3]`, as image1
    image1: np.ndarray
    points0: np.ndarray  # float `[K, 2]`, (x, y) px, as points1: the two ends of each match, best first
    points1: np.ndarray
    inliers: np.ndarray | None  # bool `[K]`, or None when nothing is known
    homography: np.ndarray | None  # `[3, 3]`, 0 → 1, or None
    estimated: np.ndarray | None  # likewise
    zoom: float  # display pixels per pixel of picture 1
    shift0: np.ndarray  # display position of the top-left corner of picture 0
    shift1: np.ndarray  # of picture 1
    size: tuple[float, float]  # display (width, height) of everything, a margin for frames on the border too
    margin: float  # how far outside picture 1 a frame is still drawn, px of picture 1

    def place0(self, points: np.ndarray) -> np.ndarray:
        """Returns display coordinates of points `[..., 2]` of picture 0."""
        return points + 0.5 + self.shift0

    def place1(self, points: np.ndarray) -> np.ndarray:
        """Returns display coordinates of points `[..., 2]` of picture 1."""
        return (points + 0.5) * self.zoom + self.shift1


def checked_pair(
    image0: np.ndarray,
    image1: np.ndarray,
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    matches: np.ndarray,
    inliers: np.ndarray | None = None,
    homography: np.ndarray | None = None,
    estimated: np.ndarray | None = None,
) -> DrawnPair:
    """Checks the arguments of `viz.draw_matches` and places the two pictures side by side.

    Raises:
        InputError: If an argument has another shape, or an index is out of range.
    """
    checks.is_image(image0, "image0")
    checks.is_image(image1, "image1")
    keypoints0 = checks.is_points(keypoints0, "keypoints0")
    keypoints1 = checks.is_points(keypoints1, "keypoints1")
    matches = _checked_matches(matches, len(keypoints0), len(keypoints1))
    if inliers is not None:
        inliers = np.asarray(inliers)
        if inliers.shape != (len(matches),) or inliers.dtype != bool:
            received = f"{inliers.dtype} {list(inliers.shape)}"
            raise checks.problem(f"inliers as bool [{len(matches)}], one a match", received)
    if homography is not None:
        homography = checks.is_homography(homography)
    if estimated is not None:
        estimated = np.asarray(estimated, dtype=np.float64)
        if estimated.shape != (3, 3) or not np.isfinite(estimated).all():
            received = f"{estimated.tolist()}"
            raise checks.problem("estimated as a finite [3, 3] matrix", received, "Give None for a failure.")
    return DrawnPair(
        image0=image0,
        image1=image1,
        points0=keypoints0[matches[:, 0]],
        points1=keypoints1[matches[:, 1]],
        inliers=inliers,
        homography=homography,
        estimated=estimated,
        **_placing(image0.shape[:2], image1.shape[:2]),
    )


def _checked_matches(matches: np.ndarray, count0: int, count1: int) -> np.ndarray:
    """Returns matches as int `[K, 2]`; any empty array or list is zero matches."""
    matches = np.asarray(matches)
    if matches.size == 0:
        return np.zeros((0, 2), np.int64)
    if matches.ndim != 2 or matches.shape[1] != 2 or not np.issubdtype(matches.dtype, np.integer):
        raise checks.problem("matches as int [K, 2]", f"{matches.dtype} {list(matches.shape)}")
    low, high = matches.min(axis=0), matches.max(axis=0)
    if low.min() < 0 or high[0] >= count0 or high[1] >= count1:
        received = f"indices {low.tolist()} to {high.tolist()} for {count0} and {count1} keypoints"
        raise checks.problem("matches that index the keypoints", received)
    return matches


def _placing(image_size0: tuple[int, int], image_size1: tuple[int, int]) -> dict[str, Any]:
    """Centres two pictures side by side; a very different one is scaled to the same height."""
    (height0, width0), (height1, width1) = image_size0, image_size1
    zoom = height0 / height1 if not 0.5 <= height1 / height0 <= 2 else 1.0
    shown_width, shown_height = width1 * zoom, height1 * zoom
    border = 0.008 * (width0 + shown_width)
    height = max(height0, shown_height) + 2 * border
    return {
        "zoom": zoom,
        "shift0": np.array([0.0, (height - height0) / 2]),
        "shift1": np.array([width0 + 2 * border, (height - shown_height) / 2]),
        "size": (width0 + shown_width + 3 * border, height),
        "margin": border / zoom,
    }


def photograph(
    axes: Axes,
    image: np.ndarray,
    extent: tuple[float, float, float, float] | None = None,
    share: float = 1.0,
) -> None:
    """Shows a photograph, uint8 RGB `[H, W, 3]`, reduced first to about the resolution at which it is drawn.

    The extent is left, right, bottom, top in display coordinates, by default the pixels' own; `share` is the
    part of the width of the axes that it takes.
    """
    height, width = image.shape[:2]
    extent = extent or (-0.5, width - 0.5, height - 0.5, -0.5)
    figure = axes.get_figure(root=True)
    drawn_px = share * axes.get_position().width * figure.get_figwidth() * figure.dpi
    factor = 1.25 * drawn_px / width
    if factor < 0.8:
        size_wh = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    axes.imshow(image, extent=extent, interpolation="bicubic", zorder=0)


def paint_pair(axes: Axes, pair: DrawnPair, max_matches: int, *, thin: float = 1.0) -> dict[str, Artist]:
    """Paints photographs, at most so many match lines and frames; sets no limits, title or legend.

    Returns:
        The artists by kind: "outliers", "inliers" or "matches", "true frame", "estimated frame";
        each carries a label for a legend with its count.
    """
    for image, place in ((pair.image0, pair.place0), (pair.image1, pair.place1)):
        height, width = image.shape[:2]
        (left, top), (right, bottom) = place(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
        share = (right - left) / pair.size[0]
        photograph(axes, image, (left, right, bottom, top), share)
    kinds: dict[str, Artist] = {}
    for kind, total, index in selected(pair.inliers, len(pair.points0), max_matches):
        kinds[kind] = _lines(axes, pair, kind, index, thin)
        some = f" ({len(index)} drawn)" if len(index) < total else ""
        kinds[kind].set_label(f"{total} {SINGULAR[kind] if total == 1 else kind}{some}")
    for kind, matrix in (("true frame", pair.homography), ("estimated frame", pair.estimated)):
        if matrix is not None:
            kinds[kind] = _frame(axes, pair, kind, matrix, thin)
    return kinds


def selected(inliers: np.ndarray | None, count: int, max_matches: int) -> list[tuple[str, int, np.ndarray]]:
    """Chooses the matches to draw: best first, inliers and outliers in their true proportion.

    Returns:
        (kind, how many there are, indices to draw) for outliers then inliers, or for all matches
        when `inliers` is None. A kind that exists keeps at least one line.
    """
    if inliers is None:
        return [("matches", count, np.arange(min(count, max_matches)))]
    good, bad = np.flatnonzero(inliers), np.flatnonzero(~inliers)
    room = min(count, max_matches)
    kept = round(room * len(good) / count) if count else 0
    if room >= 2 and len(good) and len(bad):
        kept = min(max(kept, 1), room - 1)
    return [("outliers", len(bad), bad[: room - kept]), ("inliers", len(good), good[:kept])]


def _lines(axes: Axes, pair: DrawnPair, kind: str, index: np.ndarray, thin: float) -> LineCollection:
    """Draws the matches at `index` as lines with a dot at each end, the best on top."""
    index = index[::-1]
    ends = np.stack([pair.place0(pair.points0[index]), pair.place1(pair.points1[index])], axis=1)
    outlier = kind == "outliers"
    lines = LineCollection(
        ends,
        colors=OUTLIER if outlier else INLIER,
        linewidths=(0.6 if outlier else 0.7) * thin,
        linestyles=[DASHES if outlier else "solid"],
        alpha=0.85 if outlier else 0.65,
        zorder=2 if outlier else 3,
    )
    axes.add_collection(lines, autolim=False)
    dots = ends.reshape(-1, 2)
    color = OUTLIER if outlier else INLIER
    axes.scatter(*dots.T, s=4 * thin**2, color=color, linewidths=0, zorder=lines.get_zorder())
    return lines


def _frame(axes: Axes, pair: DrawnPair, kind: str, homography: np.ndarray, thin: float) -> Artist:
    """Draws the border of picture 0 in picture 1, true or estimated, with a dark halo."""
    segments = frame_segments(homography, pair.image0.shape[:2], pair.image1.shape[:2], pair.margin)
    gap = np.full((len(segments), 1, 2), np.nan)  # one line, interrupted between the sides
    path = np.concatenate([pair.place1(segments), gap], axis=1).reshape(-1, 2)
    true = kind == "true frame"
    width = (1.6 if true else 1.3) * thin
    stroke = patheffects.Stroke(linewidth=width + 1.6 * thin, foreground="#101010", alpha=0.8)
    (line,) = axes.plot(
        *path.T,
        color=TRUE if true else ESTIMATED,
        linestyle="-" if true else DASHES,
        linewidth=width,
        marker="",
        path_effects=[stroke, patheffects.Normal()],
        scalex=False,
        scaley=False,
        zorder=4 if true else 5,
        label=kind if len(segments) else f"{kind} (out of view)",
    )
    return line


def frame_segments(
    homography: np.ndarray,
    image_size0: tuple[int, int],
    image_size1: tuple[int, int],
    margin: float = 0.0,
) -> np.ndarray:
    """Returns the visible parts of picture 0's border, seen in picture 1.

    The four sides are clipped in homogeneous coordinates, where each limit (left, right, top,
    bottom, and w > 0: in front of the camera) is one linear function along a side. The sign of
    the matrix is the one that puts the centre of picture 0 in front.

    Convention: (x, y) px, centre of the top-left pixel (0, 0); the border is the outer pixel edges. The
    homography `[3, 3]`, 0 → 1, may be singular. Sizes are (height, width), px; within a margin, px, outside
    of picture 1, a border is still visible.

    Returns:
        float64 `[S, 2, 2]`, S ≤ 4 segments (start, end), (x, y) px in picture 1.
    """
    height, width = image_size0
    left, top, right, bottom = -0.5, -0.5, width - 0.5, height - 0.5
    corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    seen = corners @ np.asarray(homography, dtype=np.float64).T
    if seen[:, 2].mean() < 0:
        seen = -seen
    nearest = 1e-9 * np.abs(seen[:, 2]).max()
    if nearest == 0:
        return np.zeros((0, 2, 2))  # everything is mapped to infinity
    height, width = image_size1
    low, high = -0.5 - margin, np.array([width, height]) - 0.5 + margin
    segments = []
    for start, end in zip(seen, np.roll(seen, -1, axis=0), strict=True):
        limits = [np.array([p[2], *(p[:2] - low * p[2]), *(high * p[2] - p[:2])]) for p in (start, end)]
        limits = np.array(limits) - [[nearest, 0, 0, 0, 0]]
        change = limits[0] - limits[1]
        enter, leave = 0.0, 1.0
        for first, last, step in zip(*limits, change, strict=True):
            if first < 0 and last < 0:
                enter = 2.0  # the whole side lies outside
            elif first < 0:
                enter = max(enter, first / step)
            elif last < 0:
                leave = min(leave, first / step)
        if enter < leave:
            ends = np.array([start + t * (end - start) for t in (enter, leave)])
            segments.append(ends[:, :2] / ends[:, 2:])
    return np.array(segments).reshape(-1, 2, 2)


def frameless(
    axes: Axes,
    size: tuple[float, float],
    title: str | None,
    *,
    origin: float = 0.0,
    fontsize: float = 8.5,
) -> None:
    """Limits axes to a picture of (width, height), y down, square pixels, no ticks or spines."""
    width, height = size
    axes.set(xlim=(origin, width + origin), ylim=(height + origin, origin), xticks=[], yticks=[])
    axes.set_aspect("equal", anchor="NW")
    axes.spines[:].set_visible(False)
    if title:
        room = axes.get_position().width * axes.get_figure(root=True).get_figwidth()
        text, fontsize = fitted(title, room, fontsize, max(5.5, 0.75 * fontsize))
        axes.set_title(text, fontsize=fontsize, pad=3)


def text_width(text: str, fontsize: float) -> float:
    """Returns the width of a line of text in inches."""
    text, fonts = figures.drawable(text)
    prop = FontProperties(family=fonts)
    return TextPath((0, 0), text, fontsize, prop=prop).get_extents().width / 72 if text.strip() else 0.0


def fitted(text: str, room: float, fontsize: float, smallest: float) -> tuple[str, float]:
    """Returns text and font size that fit `room` inches: smaller first, then cut in the middle."""
    text, _ = figures.drawable(text.replace("\n", "\\n"))  # a title has one line
    width = text_width(text, fontsize)
    if width <= room:
        return text, fontsize
    fontsize = max(smallest, fontsize * room / width)
    shorter, kept = text, min(len(text), 2 + int(len(text) * room / text_width(text, fontsize)))
    while kept > 4 and text_width(shorter, fontsize) > room:
        kept -= 1
        shorter = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    return shorter, fontsize


def grid(
    shapes: Sequence[float],
    columns: int,
    width: float,
    *,
    left: float = 0.0,
    title: float = 0.0,
    gap: float = 0.08,
    top: float = 0.0,
    bottom: float = 0.0,
) -> tuple[float, list[tuple[float, float, float, float]]]:
    """Places pictures in rows; each row is as high as its tallest picture. All lengths are in inches.

    Args:
        shapes: Height / width of each picture, row by row; 0 for an empty slot.
        columns: Pictures in a row.
        width: Of the whole.
        left: Room at the left of each row.
        title: Room above each picture.
        gap: Between neighbours.
        top: Room above all.
        bottom: Room below all.

    Returns:
        The height of the whole, and for each picture (left, bottom, width, height) as fractions.
    """
    cell = (width - left - gap * (columns - 1)) / columns
    rows = [shapes[first : first + columns] for first in range(0, len(shapes), columns)]
    heights = [cell * max(row) for row in rows]
    total = top + sum(heights) + (title + gap) * len(rows) + bottom
    places, y = [], total - top
    for row, height in zip(rows, heights, strict=True):
        y -= title + height
        for column, shape in enumerate(row):
            high = cell * shape or height
            x, low = left + column * (cell + gap), y + height - high
            places.append((x / width, low / total, cell / width, high / total))
        y -= gap
    return total, places
