"""Owns the charts made from result tables: metric curves and methods pair by pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from kp2d import checks, figures

MMA_THRESHOLDS = tuple(range(1, 11))  # px
SUBSETS = ("viewpoint", "illumination", "all")

# Metric → (axis label, larger is better, top of the axis or None for the data's own).
METRICS: dict[str, tuple[str, bool, float | None]] = {
    "repeatability": ("repeatability (fraction)", True, 1.0),
    "localization_error": ("localization error (px)", False, None),
    "matching_score": ("matching score (fraction)", True, 1.0),
    "corner_error": ("mean corner error (px)", False, None),
    "num_inliers": ("inliers (count)", True, None),
    **{f"mma_{t}": (f"matching accuracy at {t} px (fraction)", True, 1.0) for t in MMA_THRESHOLDS},
}
_CORNER_LIMITS = 0.1, 100.0  # px; beyond it a homography is as useless as none


def plot_mma(rows: pd.DataFrame, *, axes: Axes | Sequence[Axes] | None = None) -> Figure:
    """Plots mean matching accuracy over 1-10 px, one line a method, one panel a subset.

    Args:
        rows: One row a method × precision × subset, with columns `method`, `subset`, `mma_1` …
            `mma_10` and where given `precision`, `num_pairs`.
        axes: Where to draw, one axes a subset; a new figure by default.

    Returns:
        The figure.

    Raises:
        InputError: If columns or rows are missing, or a method has several rows for one subset.
    """
    columns = [f"mma_{threshold}" for threshold in MMA_THRESHOLDS]
    rows = _table(rows, ["method", "subset", *columns], once_by=["subset"])
    subsets = _subsets(rows)
    with figures.style():
        panels = _panels(len(subsets), len(subsets), axes)
        ends = {}
        for panel, subset in zip(panels, subsets, strict=True):
            part = rows[rows["subset"] == subset]
            for method, precision, line in _methods(part):
                values = line[columns].iloc[0].to_numpy(float)
                panel.plot(MMA_THRESHOLDS, values, **figures.method_style(method, precision))
                ends[panel, method, precision] = values[-1]
            _limits(panel, (0.5, 10.3), (0, 1.0), range(1, 11), "threshold (px)")
            panel.set_title(_panel_title(subset, part.get("num_pairs")))
        panels[0].set_ylabel("mean matching accuracy (fraction)")
        return _finish(panels[-1], rows, ends, own=axes is None)


def plot_correctness(pairs: pd.DataFrame, *, axes: Axes | Sequence[Axes] | None = None) -> Figure:
    """Plots the fraction of pairs whose mean corner error is within a threshold of 0-10 px.

    Dotted guides at 1, 3 and 5 px mark where the curves read d1, d3 and d5.

    Args:
        pairs: One row a method × precision × pair, with columns `method`, `corner_error` (px; NaN:
            no homography, counts as a failure) and where given `precision`, `subset`, `pair`.
        axes: Where to draw, one axes a subset; a new figure by default.

    Returns:
        The figure.

    Raises:
        InputError: If columns or rows are missing, or a method has a pair twice.
    """
    pairs = _table(pairs, ["method", "corner_error"])
    if "subset" not in pairs:
        pairs["subset"] = "all"
    if "pair" in pairs:
        pairs = _table(pairs, ["pair"], once_by=["subset", "pair"])
    subsets = _subsets(pairs)
    with figures.style():
        panels = _panels(len(subsets), len(subsets), axes)
        ends = {}
        for panel, subset in zip(panels, subsets, strict=True):
            part = pairs[pairs["subset"] == subset]
            for threshold in (1, 3, 5):
                panel.axvline(threshold, color="#b0b0b0", linewidth=0.7, linestyle=":", zorder=1)
                panel.text(threshold, 1.025, f"d{threshold}", ha="center", fontsize=6.5, color="#777777")
            for method, precision, line in _methods(part):
                drawn = figures.method_style(method, precision)
                end = _correctness_curve(panel, line["corner_error"], drawn)
                ends[panel, method, precision] = end
            _limits(panel, (0, 10.3), (0, 1.0), range(11), "threshold (px)")
            counts = part.groupby(["method", "precision"]).size()
            panel.set_title(_panel_title(subset, counts), pad=11)
        panels[0].set_ylabel("pairs within threshold (fraction)")
        return _finish(panels[-1], pairs, ends, own=axes is None)


def plot_repeatability(rows: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Plots repeatability and localization error by the number of keypoints kept.

    Args:
        rows: One row a method × precision × subset × top_k, with columns `method`, `subset`,
            `top_k`, `repeatability`, `localization_error` (px) and where given `precision`,
            `num_pairs`.
        axes: Where to draw, two axes a subset, one a metric; a new figure by default.

    Returns:
        The figure, one row of panels a subset.

    Raises:
        InputError: If columns or rows are missing, or a method has a subset and top_k twice.
    """
    metrics = ("repeatability", "localization_error")
    rows = _table(rows, ["method", "subset", "top_k", *metrics], once_by=["subset", "top_k"])
    subsets, counts = _subsets(rows), sorted(rows["top_k"].unique())
    worst = max(1.0, np.ceil(2 * rows["localization_error"].fillna(0).max()) / 2)
    with figures.style():
        panels = _panels(2 * len(subsets), 2, axes)
        ends = {}
        for index, panel in enumerate(panels):
            subset, metric, top = subsets[index // 2], metrics[index % 2], (1.0, worst)[index % 2]
            part = rows[rows["subset"] == subset].sort_values("top_k")
            for method, precision, line in _methods(part):
                panel.plot(line["top_k"], line[metric], **figures.method_style(method, precision))
                ends[panel, method, precision] = line[metric].iloc[-1] / top
            panel.set_xscale("log")
            span = (counts[0] / 1.15, counts[-1] * 1.15)
            _limits(panel, span, (0, top), counts, "keypoints kept, k (count, log scale)")
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xticks(counts, labels=[str(k) for k in counts])
            panel.set_ylabel(METRICS[metric][0])
            panel.set_title(_panel_title(subset, part.get("num_pairs")))
        return _finish(panels[1], rows, ends, own=axes is None)


def plot_against(
    pairs: pd.DataFrame,
    metric: str,
    method: str,
    reference: str = "sift",
    *,
    axes: Axes | None = None,
) -> Figure:
    """Plots a method against a reference, one point a pair; the title counts who does better.

    Args:
        pairs: One row a method × precision × pair, with columns `method`, `pair`, the metric
            and where given `precision`, `subset`.
        metric: A column, such as `repeatability` or `corner_error` (logarithmic; NaN is "failed").
        method: On the vertical axis; as "METHOD:PRECISION" where the table holds several precisions.
        reference: On the horizontal axis.
        axes: Where to draw; a new figure 3.4 in wide by default.

    Returns:
        The figure.

    Raises:
        InputError: If columns, rows or shared pairs are missing, or a method has a pair twice.
    """
    pairs = _table(pairs, ["method", "pair", metric], once_by=["pair"])
    both = [_of(pairs, name) for name in (reference, method)]
    labels = [figures.method_label(*part[["method", "precision"]].iloc[0]) for part in both]
    joined = both[0].merge(both[1], on="pair", suffixes=("_x", "_y"))
    name, larger_is_better, top = METRICS.get(metric, (metric, True, None))
    logarithmic = metric == "corner_error"
    x, y = (joined[f"{metric}_{side}"].to_numpy(float) for side in "xy")
    if logarithmic:
        x, y = np.nan_to_num(x, nan=np.inf), np.nan_to_num(y, nan=np.inf)
    known = ~(np.isnan(x) | np.isnan(y))
    if not known.any():
        received = f"{len(joined)} shared pairs without values"
        raise checks.problem(f"pairs with {metric} of both {reference} and {method}", received)
    counts = {
        "better on": y > x,
        "worse on": y < x,
        "alike on": y == x,
        "without a value on": ~known,
    }
    if not larger_is_better:
        counts |= {"better on": y < x, "worse on": y > x}
    facts = [
        f"{what} {on.sum()}" for what, on in counts.items() if on.any() or what in ("better on", "worse on")
    ]
    if logarithmic:
        x, y = np.clip(x, *_CORNER_LIMITS), np.clip(y, *_CORNER_LIMITS)
    drawn = np.concatenate([x[known], y[known], [0.0]])
    low, high = _CORNER_LIMITS if logarithmic else (drawn.min(), top or 1.05 * drawn.max() or 1.0)
    with figures.style():
        panel = axes or _panels(1, 1, None, width=figures.NARROW, height=3.6)[0]
        panel.plot([low, high], [low, high], color="#999999", linewidth=0.8, zorder=1)
        subsets = joined["subset_y"] if "subset_y" in joined else pd.Series("pairs", joined.index)
        _against_points(panel, x, y, known, subsets, figures.method_style(method.partition(":")[0])["color"])
        pad = 0.02 * (high - low)
        limits = (low - pad, high + pad)
        if logarithmic:
            limits = (low / 1.25, high * 1.25)
            names = "≤0.1", "0.3", "1", "3", "10", "30", "≥100,\nfailed"
            panel.set(xscale="log", yscale="log")
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_ticks([0.1, 0.3, 1, 3, 10, 30, 100], labels=names)
                axis.set_minor_locator(NullLocator())
        xlabel, ylabel = (f"{label}: {name}" for label in labels)
        panel.set(xlim=limits, ylim=limits, xlabel=xlabel, ylabel=ylabel)
        panel.set_aspect("equal", adjustable="box")
        title = f"{labels[1]} against {labels[0]}, {len(x)} pairs\n{', '.join(facts)}"
        panel.set_title(title, fontsize=7.5)
        if axes is None:
            _freeze(panel.get_figure(root=True))
    return panel.get_figure(root=True)


def _correctness_curve(panel: Axes, errors: pd.Series, drawn: dict[str, Any]) -> float:
    """Draws the exact step curve of errors (NaN is never within) and returns its end."""
    found = np.sort(errors.dropna().to_numpy(float))
    steps = np.concatenate([[0.0], found[found <= 10], [10.0]])
    values = np.searchsorted(found, steps, side="right") / len(errors)
    panel.step(steps, values, where="post", **{**drawn, "marker": ""})
    marked = np.array([1.0, 3.0, 5.0, 10.0])
    heights = np.searchsorted(found, marked, side="right") / len(errors)
    panel.plot(marked, heights, **{**drawn, "linestyle": "none"})
    return float(values[-1])


def _against_points(
    panel: Axes, x: np.ndarray, y: np.ndarray, known: np.ndarray, subsets: pd.Series, color: str
) -> None:
    """Draws one point a pair; filled and open markers of different form tell the subsets apart."""
    names = sorted(subsets.unique(), key=_subset_rank)
    for index, subset in enumerate(names):
        chosen = known & (subsets == subset).to_numpy()
        look = {"marker": "o^sD"[index % 4], "facecolors": "none" if index else color}
        look |= {"s": 14, "edgecolors": color, "linewidths": 0.8, "alpha": 0.75, "clip_on": False}
        panel.scatter(x[chosen], y[chosen], label=f"{subset} ({chosen.sum()})", zorder=3, **look)
    if len(names) > 1:
        place = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "borderpad": 0}
        panel.legend(ncols=2, handletextpad=0.2, columnspacing=1.2, **place)


def _table(rows: pd.DataFrame, columns: Iterable[str], once_by: list[str] | None = None) -> pd.DataFrame:
    """Returns a checked copy: columns and rows present, no key twice, `precision` filled in."""
    if not isinstance(rows, pd.DataFrame):
        raise checks.problem("a pandas DataFrame", type(rows).__name__)
    columns = list(columns)
    if missing := [name for name in columns if name not in rows]:
        held = ", ".join(map(str, rows.columns)) or "no columns"
        received = f"a table without {', '.join(missing)} ({held})"
        raise checks.problem(f"columns {', '.join(columns)}", received)
    if rows.empty:
        raise checks.problem("at least one row", "an empty table", "Run the evaluation first.")
    rows = rows.copy()
    rows["precision"] = rows["precision"].fillna("float32") if "precision" in rows else "float32"
    keys = ["method", "precision", *(once_by or [])]
    if once_by is not None and (twice := rows.duplicated(keys)).any():
        first = dict(rows.loc[twice, keys].iloc[0])
        remedy = "Choose one top_k, image size, runtime and profile first."
        raise checks.problem(f"one row for each {', '.join(keys)}", f"several for {first}", remedy)
    return rows


def _of(pairs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns the rows of one method; where it has several precisions, "METHOD:PRECISION" or float32."""
    method, _, precision = name.partition(":")
    checks.one_of("method", method, pairs["method"].unique())
    part = pairs[pairs["method"] == method]
    held = list(part["precision"].unique())
    if not precision:
        precision = held[0] if len(held) == 1 else "float32"
    return part[part["precision"] == checks.one_of(f"precision of {method}", precision, held)]


def _subset_rank(subset: str) -> tuple[int, str]:
    return (SUBSETS.index(subset) if subset in SUBSETS else len(SUBSETS), str(subset))


def _subsets(rows: pd.DataFrame) -> list[str]:
    return sorted(rows["subset"].unique(), key=_subset_rank)


def _methods(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yields (method, precision, its rows): classical first, then networks, then others."""
    known = list(figures.METHODS)
    keys = set(zip(rows["method"], rows["precision"], strict=True))
    rank = {key: (known.index(key[0]) if key[0] in known else len(known), *key) for key in keys}
    for method, precision in sorted(keys, key=rank.__getitem__):
        yield method, precision, rows[(rows["method"] == method) & (rows["precision"] == precision)]


def _panel_title(subset: str, num_pairs: pd.Series | None) -> str:
    """Returns "viewpoint · 15 pairs", with a range when the methods have different numbers."""
    counts = sorted(set(num_pairs.dropna().astype(int))) if num_pairs is not None else []
    span = "-".join(str(count) for count in sorted({*counts[:1], *counts[-1:]}))
    return f"{subset} · {span} pair{'s' * (span != '1')}" if span else str(subset)


def _panels(
    count: int,
    columns: int,
    axes: Axes | Sequence[Axes] | None,
    *,
    width: float = figures.WIDE,
    height: float = 2.5,
) -> list[Axes]:
    """Returns `count` axes: the caller's, or those of a new figure."""
    if axes is not None:
        given = list(np.ravel(axes))
        if len(given) != count:
            raise checks.problem(f"{count} axes, one a panel", f"{len(given)}")
        return given
    columns = min(columns, 3)
    rows = -(-count // columns)
    figure = figures.StyledFigure(figsize=(width, height * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05, wspace=0.03, hspace=0.06)
    return [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def _limits(panel: Axes, x: tuple, y: tuple, ticks: Iterable[float], xlabel: str) -> None:
    """Sets clear limits, ticks and a light grid."""
    panel.set(xlim=x, ylim=(y[0], y[1] * 1.02), xlabel=xlabel)
    panel.xaxis.set_major_locator(FixedLocator(list(ticks)))
    panel.grid(axis="y")


def _finish(
    panel: Axes, rows: pd.DataFrame, ends: dict[tuple[Axes, str, str], float], *, own: bool
) -> Figure:
    """Writes the key at the right of `panel`, each name near the end of its line.

    `ends` holds the height (axes fraction) at which each line ends, by axes, method and precision.
    """
    figure = panel.get_figure(root=True)
    keys = [(method, precision) for method, precision, _ in _methods(rows)]
    place = {"xycoords": "axes fraction", "xytext": (31, 0), "textcoords": "offset points"}
    place |= {"va": "center", "fontsize": 7}
    texts = [panel.annotate(figures.method_label(*key), (1, 0), **place) for key in keys]
    if own:
        figure.draw_without_rendering()  # the height of the axes is known only now
    inches = panel.get_position().height * figure.get_figheight()
    heights = _spread([ends.get((panel, *key), np.nan) for key in keys], 0.13 / inches)
    for key, text, height in zip(keys, texts, heights, strict=True):
        text.xy = (1, height)
        sample = figure.dpi_scale_trans + ScaledTranslation(1, height, panel.transAxes)
        drawn = {**figures.method_style(*key), "transform": sample, "clip_on": False}
        panel.add_artist(Line2D([0.06, 0.37], [0, 0], **{**drawn, "marker": ""}))
        panel.add_artist(Line2D([0.215], [0], **{**drawn, "linestyle": "none"}))
    if own:
        _freeze(figure)
    return figure


def _spread(wanted: list[float], gap: float) -> list[float]:
    """Returns heights near those wanted (NaN: at the bottom), at least `gap` apart."""
    values = np.nan_to_num(np.array(wanted, dtype=float), nan=0.0)
    order = np.argsort(values, kind="stable")
    up, down = values[order], values[order]
    for i in range(1, len(up)):
        up[i] = max(up[i], up[i - 1] + gap)
        down[-1 - i] = min(down[-1 - i], down[-i] - gap)
    placed = (up + down) / 2  # each keeps the gap, and so does their mean, which pushes both ways
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], 1.0 - gap * (len(placed) - 1 - i))
    for i in range(len(placed)):
        placed[i] = max(placed[i], gap * i)
    heights = np.empty(len(placed))
    heights[order] = placed
    return heights.tolist()


def _freeze(figure: Figure) -> None:
    """Lays the figure out once; later drawings must not move anything, or files would differ."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
