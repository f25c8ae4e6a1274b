"""Owns the charts made from result tables: metric curves and methods pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kp2d import checks
from kp2d.evaluate import tables
from kp2d.evaluate.metrics import MMA_THRESHOLDS
from kp2d.methods.extractors import Method
from kp2d.viz import figures, panels

# Metric → (axis label, larger is better, top of the axis or None for the data's own).
LABELS: dict[str, tuple[str, bool, float | None]] = {
    "repeatability": ("repeatability (fraction)", True, 1.0),
    "localization_error": ("localization error (px)", False, None),
    "matching_score": ("matching score (fraction)", True, 1.0),
    "corner_error": ("mean corner error (px)", False, None),
    "num_inliers": ("inliers (count)", True, None),
    **{f"mma_{t}": (f"matching accuracy at {t} px (fraction)", True, 1.0) for t in MMA_THRESHOLDS},
}
_CORNER_LIMITS = 0.1, 100.0  # px; beyond it a homography is as useless as none


def plot_mma(rows: pd.DataFrame) -> Figure:
    """Plots mean matching accuracy over 1-10 px, one line a method, one panel a subset.

    There is one row a method × precision × subset, with columns `method`, `subset`, `mma_1` … `mma_10` and
    where given `precision`, `num_pairs`.

    Raises:
        InputError: If columns or rows are missing, or a method has several rows for one subset.
    """
    columns = list(tables.MMA)
    rows = panels.checked_table(rows, ["method", "subset", *columns], once_by=["subset"])
    rows = panels.name_subsets(rows)
    with figures.style():
        drawn_in, ends = panels.by_subset(rows), {}
        for panel, subset, part in drawn_in:
            for method, precision, line in panels.by_method(part):
                values = line[columns].iloc[0].to_numpy(float)
                panel.plot(MMA_THRESHOLDS, values, **figures.method_style(method, precision))
                ends[panel, method, precision] = values[-1]
            panels.set_limits(panel, (0.5, 10.3), (0, 1.0), range(1, 11), "threshold (px)")
            panel.set_title(panels.panel_title(subset, part.get("num_pairs")))
        drawn_in[0][0].set_ylabel("mean matching accuracy (fraction)")
        return panels.finish(drawn_in[-1][0], rows, ends)


def plot_correctness(pairs: pd.DataFrame) -> Figure:
    """Plots the fraction of pairs whose mean corner error is within a threshold of 0-10 px.

    Dotted guides at 1, 3 and 5 px mark where the curves read d1, d3 and d5. There is one row a method ×
    precision × pair, with columns `method`, `corner_error` (px; NaN: no homography, counts as a failure) and
    where given `precision`, `subset`, `pair`.

    Raises:
        InputError: If columns or rows are missing, or a method has a pair twice.
    """
    pairs = panels.checked_table(pairs, ["method", "corner_error"])
    if "subset" not in pairs:
        pairs["subset"] = "all"
    if "pair" in pairs:
        pairs = panels.checked_table(pairs, ["pair"], once_by=["subset", "pair"])
    pairs = panels.name_subsets(pairs)
    with figures.style():
        drawn_in, ends = panels.by_subset(pairs), {}
        for panel, subset, part in drawn_in:
            for threshold in (1, 3, 5):
                panel.axvline(threshold, color="#b0b0b0", linewidth=0.7, linestyle=":", zorder=1)
                panel.text(threshold, 1.025, f"d{threshold}", ha="center", fontsize=6.5, color="#777777")
            for method, precision, line in panels.by_method(part):
                look = figures.method_style(method, precision)
                ends[panel, method, precision] = _correctness_curve(panel, line["corner_error"], look)
            panels.set_limits(panel, (0, 10.3), (0, 1.0), range(11), "threshold (px)")
            counts = part.groupby(["method", "precision"]).size()
            panel.set_title(panels.panel_title(subset, counts), pad=11)
        drawn_in[0][0].set_ylabel("pairs within threshold (fraction)")
        return panels.finish(drawn_in[-1][0], pairs, ends)


def plot_estimators(rows: pd.DataFrame) -> Figure:
    """Plots what the estimator of the homography does to d1, a line a method, one panel a subset.

    The rows are from `kp2d.evaluate.estimators.study`. Bars reach from the least to the most of the orders in
    which the estimator got the matches.

    Raises:
        InputError: If columns or rows are missing, or a method has several rows for one estimator.
    """
    ends_of_bars = ["d1_least", "d1_most"]
    rows = panels.checked_table(
        rows, ["subset", "d1", *ends_of_bars], once_by=["subset", "estimator", "refine"]
    )
    rows = panels.name_subsets(rows)
    key = ["estimator", "ransac_threshold", "refine"]
    steps = [tuple(step) for step in rows[key].drop_duplicates().itertuples(index=False)]
    with figures.style():
        drawn_in, ends = panels.by_subset(rows), {}
        for panel, subset, part in drawn_in:
            lines = list(panels.by_method(part))
            for index, (method, precision, line) in enumerate(lines):
                line = line.set_index(key).loc[steps]
                places = np.arange(len(steps)) + 0.035 * (index - (len(lines) - 1) / 2)  # bars side by side
                drawn = figures.method_style(method, precision)
                panel.plot(places, line["d1"], **drawn)
                panel.vlines(places, *line[ends_of_bars].to_numpy().T, color=drawn["color"], linewidth=0.9)
                ends[panel, method, precision] = line["d1"].iloc[-1]
            panels.set_limits(panel, (-0.3, len(steps) - 0.7), (0, 1.0), range(len(steps)), "")
            panel.set_xticklabels([_estimator_label(*step) for step in steps])
            panel.set_title(panels.panel_title(subset, part.get("num_pairs")))
        drawn_in[0][0].set_ylabel("d1 (fraction)")
        return panels.finish(drawn_in[-1][0], rows, ends)


def _estimator_label(estimator: str, threshold: float, refine: bool) -> str:
    name = estimator.removeprefix("opencv-").replace("-", " ").upper().replace("ACCURATE", "accurate")
    return "+ refined" if refine else f"{name}\n{threshold:g} px"


def plot_repeatability(rows: pd.DataFrame) -> Figure:
    """Plots repeatability and localization error by the number of keypoints kept, a row of panels a subset.

    There is one row a method × precision × subset × top_k, with columns `method`, `subset`, `top_k`,
    `repeatability`, `localization_error` (px) and where given `precision`, `num_pairs`.

    Raises:
        InputError: If columns or rows are missing, or a method has a subset and top_k twice.
    """
    metrics = ("repeatability", "localization_error")
    rows = panels.checked_table(rows, ["method", "subset", "top_k", *metrics], once_by=["subset", "top_k"])
    rows = panels.name_subsets(rows)
    subsets, counts = panels.subsets_of(rows), sorted(rows["top_k"].unique())
    worst = max(1.0, np.ceil(2 * rows["localization_error"].fillna(0).max()) / 2)
    with figures.style():
        drawn_in = panels.make_panels(2 * len(subsets), 2)
        ends = {}
        for index, panel in enumerate(drawn_in):
            subset, metric, top = subsets[index // 2], metrics[index % 2], (1.0, worst)[index % 2]
            part = rows[rows["subset"] == subset].sort_values("top_k")
            for method, precision, line in panels.by_method(part):
                panel.plot(line["top_k"], line[metric], **figures.method_style(method, precision))
                ends[panel, method, precision] = line[metric].iloc[-1] / top
            span = (counts[0] / 1.15, counts[-1] * 1.15)
            panels.log_axis(panel.xaxis, counts, [str(k) for k in counts])
            panels.set_limits(panel, span, (0, top), counts, "keypoints kept, k (count, log scale)")
            panel.set_ylabel(LABELS[metric][0])
            panel.set_title(panels.panel_title(subset, part.get("num_pairs")))
        return panels.finish(drawn_in[1], rows, ends)


def plot_against(pairs: pd.DataFrame, metric: str, method: str, reference: str = "sift") -> Figure:
    """Plots a method against a reference, one point a pair; the title counts who does better.

    Args:
        pairs: One row a method × precision × pair, with columns `method`, `pair`, the metric
            and where given `precision`, `subset`.
        metric: A column, such as `repeatability` or `corner_error` (logarithmic; NaN is "failed").
        method: On the vertical axis; as "METHOD:PRECISION" where the table holds several precisions.
        reference: On the horizontal axis.

    Raises:
        InputError: If columns, rows or shared pairs are missing, or a method has a pair twice.
    """
    pairs = panels.checked_table(pairs, ["method", "pair", metric], once_by=["pair"])
    labels, points = _joined(panels.name_subsets(pairs), metric, (reference, method))
    title = f"{labels[1]} against {labels[0]}, {len(points)} pairs\n{_tally(points, metric)}"
    if metric == "corner_error":
        points[["x", "y"]] = points[["x", "y"]].clip(*_CORNER_LIMITS)
    with figures.style():
        (panel,) = panels.make_panels(1, 1, width=figures.NARROW, height=3.6)
        limits = _CORNER_LIMITS if metric == "corner_error" else _value_limits(points, metric)
        panel.plot(limits, limits, color="#999999", linewidth=0.8, zorder=1)
        _draw_points(panel, points, figures.method_style(Method.parse(method).in_tables().name)["color"])
        (_corner_axes if metric == "corner_error" else _value_axes)(panel, limits)
        name = LABELS.get(metric, (metric,))[0]
        panel.set(xlabel=f"{labels[0]}: {name}", ylabel=f"{labels[1]}: {name}")
        panel.set_aspect("equal", adjustable="box")
        panel.set_title(title, fontsize=7.5)
        panels.freeze(panel.get_figure(root=True))
    return panel.get_figure(root=True)


def _joined(pairs: pd.DataFrame, metric: str, methods: tuple[str, str]) -> tuple[list[str], pd.DataFrame]:
    """Returns what two methods are called, and of the pairs that both have `x`, `y` and `subset`."""
    parts = [_of(pairs, name) for name in methods]
    joined = parts[0].merge(parts[1], on="pair", suffixes=("_x", "_y"))
    points = joined[[f"{metric}_x", f"{metric}_y"]].astype(float).set_axis(["x", "y"], axis=1)
    if metric == "corner_error":
        points = points.fillna(np.inf)  # without a homography
    if not points.notna().all(axis=1).any():
        received = f"{len(joined)} shared pairs without values"
        raise checks.problem(f"pairs with {metric} of both {methods[0]} and {methods[1]}", received)
    labels = [figures.method_label(*part[["method", "precision"]].iloc[0]) for part in parts]
    return labels, points.assign(subset=joined.get("subset_y", "pairs"))


def _tally(points: pd.DataFrame, metric: str) -> str:
    """Returns on how many pairs the method on the vertical axis is better, worse and alike."""
    x, y = points["x"], points["y"]
    larger_is_better = LABELS.get(metric, (metric, True, None))[1]
    above, below = (y > x).sum(), (y < x).sum()
    better, worse = (above, below) if larger_is_better else (below, above)
    alike, unknown = (y == x).sum(), (x.isna() | y.isna()).sum()
    facts = [f"better on {better}", f"worse on {worse}"]
    facts += [
        f"{what} {count}" for what, count in (("alike on", alike), ("without a value on", unknown)) if count
    ]
    return ", ".join(facts)


def _value_limits(points: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Returns the ends of both axes: from 0 to the metric's top, or a little beyond the largest value."""
    known = points[["x", "y"]].dropna()
    top = LABELS.get(metric, (metric, True, None))[2]
    least, most = min(known.min(axis=None), 0.0), max(known.max(axis=None), 0.0)
    return least, top or 1.05 * most or 1.0


def _value_axes(panel: Axes, limits: tuple[float, float]) -> None:
    pad = 0.02 * (limits[1] - limits[0])
    ends = limits[0] - pad, limits[1] + pad
    panel.set(xlim=ends, ylim=ends)


def _corner_axes(panel: Axes, limits: tuple[float, float]) -> None:
    """Makes both axes logarithmic; what lies beyond their ends stands at the ends."""
    labels = ("≤0.1", "0.3", "1", "3", "10", "30", "≥100,\nfailed")
    for axis in (panel.xaxis, panel.yaxis):
        panels.log_axis(axis, (0.1, 0.3, 1, 3, 10, 30, 100), labels)
    ends = limits[0] / 1.25, limits[1] * 1.25
    panel.set(xlim=ends, ylim=ends)


def _correctness_curve(panel: Axes, errors: pd.Series, drawn: dict[str, Any]) -> float:
    """Draws the exact step curve of errors (NaN is never within) and returns its end."""
    known = np.sort(errors.dropna().to_numpy(float))
    steps = np.concatenate([[0.0], known[known <= 10], [10.0]])
    values = np.searchsorted(known, steps, side="right") / len(errors)
    panel.step(steps, values, where="post", **{**drawn, "marker": ""})
    marked = np.array([1.0, 3.0, 5.0, 10.0])
    heights = np.searchsorted(known, marked, side="right") / len(errors)
    panel.plot(marked, heights, **{**drawn, "linestyle": "none"})
    return float(values[-1])


def _draw_points(panel: Axes, points: pd.DataFrame, color: str) -> None:
    """Draws one point a pair; filled and open markers of different form tell the subsets apart."""
    names = sorted(points["subset"].unique(), key=panels.subset_rank)
    for index, subset in enumerate(names):
        chosen = points[points["subset"] == subset].dropna()
        look = {"marker": "o^sD"[index % 4], "facecolors": "none" if index else color}
        look |= {"s": 14, "edgecolors": color, "linewidths": 0.8, "alpha": 0.75, "clip_on": False}
        panel.scatter(chosen["x"], chosen["y"], label=f"{subset} ({len(chosen)})", zorder=3, **look)
    if len(names) > 1:
        below = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "borderpad": 0}
        panel.legend(ncols=2 if len(names) == 2 else 1, handletextpad=0.2, columnspacing=1.2, **below)


def _of(pairs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns the rows of one method; where it has several precisions, "METHOD:PRECISION" or float32."""
    named = Method.parse(name)
    named = named.in_tables() if named.is_path else named
    checks.one_of("method", named.name, pairs["method"].unique())
    part = pairs[pairs["method"] == named.name]
    held = list(part["precision"].unique())
    precision = named.precision or (held[0] if len(held) == 1 else "float32")
    return part[part["precision"] == checks.one_of(f"precision of {named.name}", precision, held)]
