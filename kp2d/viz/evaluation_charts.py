"""Owns the charts made from result tables: metric curves and methods pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kp2d import checks
from kp2d.evaluate import metrics, tables
from kp2d.methods.extractors import Method
from kp2d.viz import figures, panels

# Metric → (axis label, larger is better, top of the axis or None for the data's own).
METRICS: dict[str, tuple[str, bool, float | None]] = {
    "repeatability": ("repeatability (fraction)", True, 1.0),
    "localization_error": ("localization error (px)", False, None),
    "matching_score": ("matching score (fraction)", True, 1.0),
    "corner_error": ("mean corner error (px)", False, None),
    "num_inliers": ("inliers (count)", True, None),
    **{f"mma_{t}": (f"matching accuracy at {t} px (fraction)", True, 1.0) for t in metrics.MMA_THRESHOLDS},
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
    columns = list(tables.MMA)
    rows = panels.checked_table(rows, ["method", "subset", *columns], once_by=["subset"])
    rows = panels.name_subsets(rows)
    subsets = panels.subsets_of(rows)
    with figures.style():
        places = panels.make_panels(len(subsets), len(subsets), axes)
        ends = {}
        for panel, subset in zip(places, subsets, strict=True):
            part = rows[rows["subset"] == subset]
            for method, precision, line in panels.by_method(part):
                values = line[columns].iloc[0].to_numpy(float)
                panel.plot(metrics.MMA_THRESHOLDS, values, **figures.method_style(method, precision))
                ends[panel, method, precision] = values[-1]
            panels.set_limits(panel, (0.5, 10.3), (0, 1.0), range(1, 11), "threshold (px)")
            panel.set_title(panels.panel_title(subset, part.get("num_pairs")))
        places[0].set_ylabel("mean matching accuracy (fraction)")
        return panels.finish(places[-1], rows, ends, own=axes is None)


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
    pairs = panels.checked_table(pairs, ["method", "corner_error"])
    if "subset" not in pairs:
        pairs["subset"] = "all"
    if "pair" in pairs:
        pairs = panels.checked_table(pairs, ["pair"], once_by=["subset", "pair"])
    pairs = panels.name_subsets(pairs)
    subsets = panels.subsets_of(pairs)
    with figures.style():
        places = panels.make_panels(len(subsets), len(subsets), axes)
        ends = {}
        for panel, subset in zip(places, subsets, strict=True):
            part = pairs[pairs["subset"] == subset]
            for threshold in (1, 3, 5):
                panel.axvline(threshold, color="#b0b0b0", linewidth=0.7, linestyle=":", zorder=1)
                panel.text(threshold, 1.025, f"d{threshold}", ha="center", fontsize=6.5, color="#777777")
            for method, precision, line in panels.by_method(part):
                drawn = figures.method_style(method, precision)
                end = _correctness_curve(panel, line["corner_error"], drawn)
                ends[panel, method, precision] = end
            panels.set_limits(panel, (0, 10.3), (0, 1.0), range(11), "threshold (px)")
            counts = part.groupby(["method", "precision"]).size()
            panel.set_title(panels.panel_title(subset, counts), pad=11)
        places[0].set_ylabel("pairs within threshold (fraction)")
        return panels.finish(places[-1], pairs, ends, own=axes is None)


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
    rows = panels.checked_table(rows, ["method", "subset", "top_k", *metrics], once_by=["subset", "top_k"])
    rows = panels.name_subsets(rows)
    subsets, counts = panels.subsets_of(rows), sorted(rows["top_k"].unique())
    worst = max(1.0, np.ceil(2 * rows["localization_error"].fillna(0).max()) / 2)
    with figures.style():
        places = panels.make_panels(2 * len(subsets), 2, axes)
        ends = {}
        for index, panel in enumerate(places):
            subset, metric, top = subsets[index // 2], metrics[index % 2], (1.0, worst)[index % 2]
            part = rows[rows["subset"] == subset].sort_values("top_k")
            for method, precision, line in panels.by_method(part):
                panel.plot(line["top_k"], line[metric], **figures.method_style(method, precision))
                ends[panel, method, precision] = line[metric].iloc[-1] / top
            panel.set_xscale("log")
            span = (counts[0] / 1.15, counts[-1] * 1.15)
            panels.set_limits(panel, span, (0, top), counts, "keypoints kept, k (count, log scale)")
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xticks(counts, labels=[str(k) for k in counts])
            panel.set_ylabel(METRICS[metric][0])
            panel.set_title(panels.panel_title(subset, part.get("num_pairs")))
        return panels.finish(places[1], rows, ends, own=axes is None)


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
    pairs = panels.checked_table(pairs, ["method", "pair", metric], once_by=["pair"])
    both = [_of(panels.name_subsets(pairs), name) for name in (reference, method)]
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
        panel = axes or panels.make_panels(1, 1, None, width=figures.NARROW, height=3.6)[0]
        panel.plot([low, high], [low, high], color="#999999", linewidth=0.8, zorder=1)
        subsets = joined["subset_y"] if "subset_y" in joined else pd.Series("pairs", joined.index)
        _against_points(panel, x, y, known, subsets, figures.method_style(Method.parse(method).name)["color"])
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
            panels.freeze(panel.get_figure(root=True))
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
    names = sorted(subsets.unique(), key=panels.subset_rank)
    for index, subset in enumerate(names):
        chosen = known & (subsets == subset).to_numpy()
        look = {"marker": "o^sD"[index % 4], "facecolors": "none" if index else color}
        look |= {"s": 14, "edgecolors": color, "linewidths": 0.8, "alpha": 0.75, "clip_on": False}
        panel.scatter(x[chosen], y[chosen], label=f"{subset} ({chosen.sum()})", zorder=3, **look)
    if len(names) > 1:
        place = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "borderpad": 0}
        panel.legend(ncols=2, handletextpad=0.2, columnspacing=1.2, **place)


def _of(pairs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns the rows of one method; where it has several precisions, "METHOD:PRECISION" or float32."""
    named = Method.parse(name)
    checks.one_of("method", named.name, pairs["method"].unique())
    part = pairs[pairs["method"] == named.name]
    held = list(part["precision"].unique())
    precision = named.precision or (held[0] if len(held) == 1 else "float32")
    return part[part["precision"] == checks.one_of(f"precision of {named.name}", precision, held)]
