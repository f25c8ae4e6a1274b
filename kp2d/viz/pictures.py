"""Owns the pictures made of photographs: keypoints, matches, galleries, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from kp2d import checks
from kp2d.viz import overlay
from kp2d.viz.figures import WIDE, StyledFigure, style

TALLEST = 9.0  # inches; a portrait pair is drawn smaller rather than running off the page


def compare_keypoints(
    image: np.ndarray, detections: dict[str, tuple[np.ndarray, np.ndarray]], *, max_points: int = 500
) -> Figure:
    """Draws the keypoints of methods on one image, side by side, coloured by the rank of their score.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        detections: Keypoints `[N, 2]`, (x, y) px, the centre of the top-left pixel is (0, 0), and scores
            `[N]`, larger is better, by name; the name becomes the title. N = 0 is valid.
        max_points: At most this many are drawn a method, best first.

    Returns:
        The figure, 7 in wide.

    Raises:
        InputError: If there is no method, or an array has another shape.
    """
    if not detections:
        raise checks.problem("at least one method's keypoints", "none")
    height, width = checks.is_image(image).shape[:2]
    with style():
        shapes = [height / width] * len(detections)
        figure, cells = _grid(shapes, min(len(shapes), 3), title=0.18, bottom=0.2)
        for axes, (name, (keypoints, scores)) in zip(cells, detections.items(), strict=True):
            title = f"{name} · {len(keypoints)} keypoints"
            rank_map = _paint_keypoints(axes, image, keypoints, scores, max_points, title)
        _rank_bar(cells[-1], rank_map)
    return figure


def _paint_keypoints(
    axes: Axes,
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    max_points: int,
    title: str,
) -> ScalarMappable:
    """Paints image and rings, the best on top; returns the colours of the ranks."""
    keypoints, scores = checks.is_points(keypoints), np.asarray(scores)
    if scores.shape != (len(keypoints),):
        raise checks.problem(f"scores [{len(keypoints)}]", f"shape {list(scores.shape)}")
    drawn = np.argsort(-scores, kind="stable")[:max_points][::-1]  # worst first
    overlay.photograph(axes, image)
    ranks = np.arange(len(drawn), 0, -1)
    rank_map = ScalarMappable(Normalize(1, max(len(drawn), 2)), "viridis_r")
    ring = {"s": 13, "facecolors": "none"}
    axes.scatter(*keypoints[drawn].T, edgecolors="#101010", linewidths=1.9, alpha=0.6, **ring)
    axes.scatter(*keypoints[drawn].T, edgecolors=rank_map.to_rgba(ranks), linewidths=0.9, **ring)
    overlay.frameless(axes, image.shape[1::-1], title, origin=-0.5)
    return rank_map


def draw_matches(
    image0: np.ndarray,
    image1: np.ndarray,
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    matches: np.ndarray,
    *,
    inliers: np.ndarray | None = None,
    homography: np.ndarray | None = None,
    estimated: np.ndarray | None = None,
    title: str | None = None,
    max_matches: int = 200,
) -> Figure:
    """Draws two pictures side by side, their matches, and the frame of picture 0 in picture 1.

    Inliers are solid lines on top of dashed, thinner outliers of another colour. A frame is clipped
    to picture 1 and to what lies in front of the camera; the legend says when nothing is visible.

    Args:
        image0: uint8 RGB `[H0, W0, 3]`.
        image1: uint8 RGB `[H1, W1, 3]`; of another size it is centred, and below half
            or above twice the height it is scaled to the same height.
        keypoints0: `[N, 2]`, (x, y) px, the centre of the top-left pixel is (0, 0); N = 0 is valid.
        keypoints1: `[M, 2]`, (x, y) px.
        matches: int `[K, 2]`, indices into keypoints0 and keypoints1, best first.
        inliers: bool `[K]`; None draws all matches alike.
        homography: True `[3, 3]`, 0 → 1.
        estimated: Estimated `[3, 3]`, 0 → 1; may be singular, as a failed estimate can be.
        title: Facts for the title line ("sift · 182/240 inliers · 1.3 px").
        max_matches: At most this many lines, best first, inliers and outliers in proportion.

    Returns:
        The figure, 7 in wide.

    Raises:
        InputError: If an argument has another shape, or an index is out of range.
    """
    pair = overlay.checked_pair(
        image0, image1, keypoints0, keypoints1, matches, inliers, homography, estimated
    )
    with style():
        width, height = pair.size
        top, bottom, high = 0.24 if title else 0.0, 0.24, min(WIDE * height / width, TALLEST)
        figure = StyledFigure(figsize=(WIDE, high + top + bottom))
        total = figure.get_figheight()
        axes = figure.add_axes((0, bottom / total, 1, high / total))
        kinds = overlay.paint_pair(axes, pair, max_matches)
        overlay.frameless(axes, pair.size, title)
        _legend(axes, kinds, loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=0.4, borderpad=0)
    return figure


def gallery(panels: Sequence[dict[str, Any]], *, columns: int = 3, max_matches: int = 60) -> Figure:
    """Draws many matched pairs as small panels, in the order given, with one legend for all.

    Sort the panels from best to worst: the gallery is there so that failures are seen too.

    Args:
        panels: One dict a pair with the arguments of `draw_matches` by name: image0, image1,
            keypoints0, keypoints1, matches, and where known inliers, homography, estimated, title.
        columns: Panels in a row.
        max_matches: At most this many lines a panel.

    Returns:
        The figure, 7 in wide.

    Raises:
        InputError: If there is no panel, or a panel lacks one of the five needed entries.
    """
    needed = ("image0", "image1", "keypoints0", "keypoints1", "matches")
    if not panels:
        raise checks.problem("at least one panel", "an empty list")
    for index, panel in enumerate(panels):
        if missing := [name for name in needed if name not in panel]:
            raise checks.problem(f"panels with {', '.join(needed)}", f"panel {index} without {missing}")
    names = (*needed, "inliers", "homography", "estimated")
    pairs = [overlay.checked_pair(*(panel.get(name) for name in names)) for panel in panels]
    with style():
        shapes = [pair.size[1] / pair.size[0] for pair in pairs]
        figure, cells = _grid(shapes, max(1, min(columns, len(pairs))), title=0.17, bottom=0.22)
        found: dict[str, Artist] = {}
        for axes, pair, panel in zip(cells, pairs, panels, strict=True):
            found = overlay.paint_pair(axes, pair, max_matches, thin=0.7) | found
            overlay.frameless(axes, pair.size, panel.get("title"), fontsize=6.5)
        for kind, artist in found.items():
            artist.set_label(kind)  # one panel's count must not stand for all
        _legend(figure, found, loc="lower left", borderaxespad=0, borderpad=0.3)
    return figure


def contact_sheet(
    rows_of_images: Sequence[Sequence[np.ndarray]],
    *,
    row_titles: Sequence[str],
    column_titles: Sequence[str],
) -> Figure:
    """Draws images in rows and columns, one row a sequence; rows may be shorter than the longest.

    Args:
        rows_of_images: Rows of uint8 RGB `[H, W, 3]`, of any sizes.
        row_titles: One a row, drawn at its left.
        column_titles: One a column of the longest row, drawn above.

    Returns:
        The figure, 7 in wide.

    Raises:
        InputError: If there is no image, or the number of titles differs.
    """
    rows = [list(row) for row in rows_of_images]
    columns = max(map(len, rows), default=0)
    if not columns:
        raise checks.problem("at least one image", f"{len(rows)} rows without images")
    if (len(row_titles), len(column_titles)) != (len(rows), columns):
        received = f"{len(row_titles)} row titles and {len(column_titles)} column titles"
        raise checks.problem(f"{len(rows)} row titles and {columns} column titles", received)
    images = [image for row in rows for image in row]
    shapes = [checks.is_image(image).shape[0] / image.shape[1] for image in images]
    with style():
        left = min(0.12 + max(overlay.text_width(str(title), 7) for title in row_titles), 1.6)
        shape = iter(shapes)
        slots = [next(shape) if c < len(row) else 0.0 for row in rows for c in range(columns)]
        figure, cells = _grid(slots, columns, left=left, top=0.2, gap=0.05)
        for slot, axes in enumerate(cells):
            row, column = divmod(slot, columns)
            size = (1, 1)
            if column < len(rows[row]):
                overlay.photograph(axes, rows[row][column])
                size = rows[row][column].shape[1::-1]
            title = str(column_titles[column]) if row == 0 else None
            overlay.frameless(axes, size, title, origin=-0.5, fontsize=7)
            if column == 0:
                text, fontsize = overlay.fitted(str(row_titles[row]), left - 0.1, 7, 5.5)
                place = {"ha": "right", "va": "center", "transform": axes.transAxes}
                axes.text(-0.04, 0.5, text, fontsize=fontsize, **place)
    return figure


def _grid(shapes: Sequence[float], columns: int, **room: float) -> tuple[Figure, list[Axes]]:
    """Returns a new figure 7 in wide with one axes a picture; see `overlay.grid`."""
    height, places = overlay.grid(shapes, columns, WIDE, **room)
    figure = StyledFigure(figsize=(WIDE, height))
    return figure, [figure.add_axes(place) for place in places]


def _legend(owner: Axes | Figure, kinds: dict[str, Artist], **where: Any) -> None:
    """Names the kinds of lines in one row, with samples stronger than the lines drawn."""
    order = [kind for kind in overlay.KINDS if kind in kinds]
    handles = [kinds[kind] for kind in order]
    legend = owner.legend(handles=handles, ncols=5, handlelength=2.8, columnspacing=2.0, **where)
    for kind, sample in zip(order, legend.legend_handles, strict=True):
        if "frame" not in kind:
            sample.set(linewidth=1.4, alpha=1.0)


def _rank_bar(axes: Axes, ranks: ScalarMappable) -> None:
    """Draws a thin bar of the rank colours under a picture."""
    below = {"textcoords": "offset points", "va": "top", "fontsize": 7, "annotation_clip": False}
    inches = axes.get_figure(root=True).dpi_scale_trans + ScaledTranslation(1, 0, axes.transAxes)
    bar = axes.inset_axes((-0.92, -0.145, 0.6, 0.06), transform=inches)
    bar.imshow(ranks.to_rgba(np.linspace(*ranks.get_clim(), 64))[None], aspect="auto")
    bar.set(xticks=[], yticks=[])
    bar.spines[:].set_visible(False)
    ends = {"xycoords": inches, **below}
    axes.annotate("best score", (-0.96, 0), xytext=(0, -5), ha="right", **ends)
    axes.annotate("worst", (-0.28, 0), xytext=(0, -5), ha="left", **ends)
