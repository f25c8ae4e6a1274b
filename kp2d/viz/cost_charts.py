"""Owns the charts of what accuracy stands and what it costs: rotation and scale, time, size, architecture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kp2d import checks
from kp2d.evaluate import tables
from kp2d.viz import figures, panels

SHOWN = {"d3": "homographies within 3 px (fraction)", "matching_score": "matching score (fraction)"}
_SIZE = ["image_height", "image_width"]
_OPEN = {"markeredgewidth": 1.2, "markersize": 5.5}  # of a marker that may be open
_LARGEST = 7.0  # points, the marker of the largest image size
# Part of a time → its label and colour; methods of one step have "extract" only.
PARTS = {
    "network": ("network", "#0a6fb5"),
    "decode": ("decoding", "#efaf1f"),
    "extract": ("detector and descriptor", "#a0a0a0"),
    "match": ("matching", "#1a1a1a"),
}
_NETWORK_TIME = "ms_240x320_2"  # column of `plot_networks`
_TIMES = ["method", "precision", *_SIZE, "threads", *(f"{part}_ms" for part in PARTS)]


def plot_robustness(rows: pd.DataFrame) -> Figure:
    """Plots accuracy over rotation (left) and over scale (right), a line a method, a row a metric.

    The rows are from `kp2d.evaluate.robustness.study`, of one k.

    Raises:
        InputError: If columns or rows are missing, or a method has an amount twice.
    """
    rows = panels.checked_table(rows, ["method", "subset", "amount", *SHOWN], once_by=["subset", "amount"])
    with figures.style():
        drawn_in, ends = _by_metric(rows, ("rotation", "scale"), height=2.3), {}
        for panel, part, metric, kind in drawn_in:
            part = part[part["subset"] == kind].sort_values("amount")
            for method, precision, line in panels.by_method(part):
                panel.plot(line["amount"], line[metric], **figures.method_style(method, precision))
                ends[panel, method, precision] = line[metric].iloc[-1]
            (_rotation_axis if kind == "rotation" else _scale_axis)(panel, part["amount"])
        return panels.finish(drawn_in[1][0], rows, ends)


def _by_metric(rows: pd.DataFrame, *further: Sequence[str], height: float) -> list[tuple[Any, ...]]:
    """Returns a panel for each data set and metric (and what is told further), its rows, and those names.

    The vertical axis has its label; a data set, where there are several, stands on a line of its own.
    """
    drawn = list(itertools.product(panels.datasets_of(rows), SHOWN, *further))
    axes = panels.make_panels(len(drawn), 2, height=height)
    for panel, ((prefix, _), metric, *_) in zip(axes, drawn, strict=True):
        panel.set_ylabel(prefix.replace(": ", ":\n") + SHOWN[metric], fontsize=7)
    return [(panel, part, *names) for panel, ((_, part), *names) in zip(axes, drawn, strict=True)]


def _rotation_axis(panel: Axes, amounts: pd.Series) -> None:
    most = max(amounts.max(), 1)
    panels.set_limits(panel, (-3, most + 3), (0, 1.0), np.arange(0, most + 1, 30), "rotation (degrees)")


def _scale_axis(panel: Axes, amounts: pd.Series) -> None:
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 4) if amounts.min() <= tick <= amounts.max()]
    span = (amounts.min() / 1.1, amounts.max() * 1.1)
    panels.log_axis(panel.xaxis, ticks)
    panels.set_limits(panel, span, (0, 1.0), ticks, "scale of image 1 over image 0 (factor, log scale)")


def plot_speed(rows: pd.DataFrame, times: pd.DataFrame) -> Figure:
    """Plots accuracy over the time of an image, a line a method from its smallest image size to its largest.

    Args:
        rows: Result rows of the subset "all" at one k, of one or more sizes.
        times: From `kp2d.device.latency.bench_latency`; the largest number of threads is shown.

    Returns:
        The figure, a panel a metric; markers grow with the image size. What has not been timed is left out;
        if nothing has, the figure says so.

    Raises:
        InputError: If columns or rows are missing, or a method has a size twice.
    """
    key = ["method", "precision", *_SIZE]
    rows = panels.checked_table(rows, ["method", *_SIZE, *SHOWN], once_by=_SIZE)
    times = times[times["threads"] == times["threads"].max()]
    joined = rows.merge(times[[*key, "extract_ms"]].drop_duplicates(key), on=key)
    if joined.empty:
        return panels.nothing("no method was both evaluated and timed at one of these image sizes: see 04")
    area = joined["image_height"] * joined["image_width"]
    joined["marker"] = _LARGEST * (area / area.max()) ** 0.25
    span = (joined["extract_ms"].min() / 1.3, joined["extract_ms"].max() * 1.3)
    with figures.style():
        drawn_in, ends = _by_metric(joined, height=2.9), {}
        for panel, part, metric in drawn_in:
            for method, precision, line in panels.by_method(part):
                line = line.sort_values("extract_ms")
                look = figures.method_style(method, precision)
                panel.plot(line["extract_ms"], line[metric], **{**look, "marker": ""})
                for x, y, size in line[["extract_ms", metric, "marker"]].itertuples(index=False):
                    panel.plot(x, y, **{**look, "linestyle": "none", "markersize": size, "clip_on": False})
                ends[panel, method, precision] = line[metric].iloc[-1]
            _decade_axis(panel, span, "milliseconds an image (log scale)")
        sizes = joined.sort_values("marker").drop_duplicates(_SIZE)
        names = ", ".join(f"{width}×{height}" for height, width in sizes[_SIZE].itertuples(index=False))
        drawn_in[0][0].set_title(f"from the smallest marker to the largest: {names}", fontsize=7)
        return panels.finish(drawn_in[-1][0], joined, ends)


def _decade_axis(panel: Axes, span: tuple[float, float], label: str) -> None:
    """Makes the horizontal axis logarithmic, with ticks at 1, 2 and 5 times the powers of ten in a span."""
    known = (base * 10.0**power for power in range(-3, 4) for base in (1, 2, 5))
    ticks = [tick for tick in known if span[0] <= tick <= span[1]]
    panels.log_axis(panel.xaxis, ticks)
    panels.set_limits(panel, span, (0, 1.0), ticks, label)


def plot_size(rows: pd.DataFrame, num_bytes: Mapping[tuple[str, str], int]) -> Figure:
    """Plots accuracy over the bytes of a network's weights; methods without weights are lines.

    Args:
        rows: Result rows of the subset "all" at one k and one image size.
        num_bytes: (method, precision) to the bytes of its file; what is not in it has no weights.

    Returns:
        The figure, a panel a metric; open markers are int8, and a thin line joins a network's precisions.

    Raises:
        InputError: If columns or rows are missing, or a method is there twice.
    """
    rows = panels.checked_table(rows, ["method", *SHOWN], once_by=[])
    sizes = [size / 2**20 for size in num_bytes.values()] or [1.0]
    span = (min(sizes) / 1.6, max(sizes) * 1.6)
    with figures.style():
        drawn_in, ends = _by_metric(rows, height=2.6), {}
        for panel, part, metric in drawn_in:
            joined: dict[str, list[tuple[float, float]]] = {}
            for method, precision, line in panels.by_method(part):
                value = line[metric].iloc[0]
                ends[panel, method, precision] = value
                look = figures.method_style(method, precision)
                if (method, precision) not in num_bytes:
                    panel.axhline(value, color=look["color"], linestyle=look["linestyle"], linewidth=0.9)
                    continue
                joined.setdefault(method, []).append((num_bytes[method, precision] / 2**20, value))
                face = look["color"] if precision == "float32" else "white"
                panel.plot(
                    *joined[method][-1],
                    **{**look, "linestyle": "none", **_OPEN, "mfc": face, "mec": look["color"]},
                )
            for method, points in joined.items():
                color = figures.method_style(method)["color"]
                panel.plot(*zip(*points, strict=True), color=color, linewidth=0.6, zorder=1)
            _decade_axis(panel, span, "weights (MiB, log scale)")
        return panels.finish(drawn_in[-1][0], rows, ends)


def plot_networks(rows: pd.DataFrame) -> Figure:
    """Plots what architectures reach after the same training over the time of an image, a panel a metric.

    The rows are from `kp2d.reproduce.bench.networks`, of one subset. A network is a marker with its 95 %
    interval. Networks that were not trained are left out; without any, the figure says what trains them.

    Raises:
        InputError: If columns are missing, or a network is there twice.
    """
    rows = rows.dropna(subset=[name for name in SHOWN if name in rows])
    if rows.empty:
        return panels.nothing("no results/networks.csv here: kp2d bench networks makes it")
    ends_of = {metric: tables.end_names(metric) for metric in SHOWN}
    wanted = ["network", _NETWORK_TIME, *SHOWN, *itertools.chain(*ends_of.values())]
    # The precision of the training is in no one's name.
    rows = rows.assign(method=rows.get("network"), precision="float32")
    rows = panels.checked_table(rows, wanted, once_by=[])
    span = (rows[_NETWORK_TIME].min() / 1.3, rows[_NETWORK_TIME].max() * 1.3)
    with figures.style():
        drawn_in, ends = _by_metric(rows, height=2.9), {}
        for panel, part, metric in drawn_in:
            low, high = ends_of[metric]
            for method, precision, line in panels.by_method(part):
                (row,) = line.to_dict("records")
                look = {**figures.method_style(method, precision), "linestyle": "none", "elinewidth": 0.6}
                spread = [[row[metric] - row[low]], [row[high] - row[metric]]]
                panel.errorbar([row[_NETWORK_TIME]], [row[metric]], yerr=spread, **look)
                ends[panel, method, precision] = row[metric]
            _decade_axis(panel, span, "milliseconds of the network in int8 (log scale)")
        return panels.finish(drawn_in[-1][0], rows, ends)


def plot_times(times: pd.DataFrame, mapping: pd.DataFrame | None = None) -> Figure:
    """Plots the milliseconds of every method, split into its parts, a panel a size.

    Args:
        times: From `kp2d.device.latency.bench_latency`; the largest number of threads is shown.
        mapping: From `kp2d.device.deployment.deploy`; adds the least time on an Edge TPU as a diamond.

    Raises:
        InputError: If columns or rows are missing.
    """
    if missing := [name for name in _TIMES if name not in times]:
        raise checks.problem(f"the columns {', '.join(_TIMES)}", f"a table without {', '.join(missing)}")
    if times.empty:
        raise checks.problem("at least one measured method", "an empty table")
    times = times[times["threads"] == times["threads"].max()]
    sizes = list(dict.fromkeys(zip(times["image_height"], times["image_width"], strict=True)))
    most = max(len(tables.of_size(times, size)) for size in sizes)
    with figures.style():
        figure = figures.StyledFigure(figsize=(figures.WIDE, 0.23 * most + 1.1), layout="constrained")
        axes = figure.subplots(1, len(sizes), squeeze=False)[0]
        for panel, size in zip(axes, sizes, strict=True):
            rows = tables.of_size(times, size)
            _bars(panel, rows)
            if mapping is not None:
                _least(panel, rows, tables.of_size(mapping, size))
            panel.set_title(f"{size[1]}×{size[0]}")
            panel.set_xlabel("ms")
            panel.set_ylim(len(rows) - 0.4, -0.6)
            panel.grid(axis="x")
            names = [figures.method_label(row.method, row.precision) for row in rows.itertuples()]
            panel.set_yticks(range(len(rows)), names if panel is axes[0] else [""] * len(rows), fontsize=6.5)
        panels.shared_legend(figure)
        panels.freeze(figure)
    return figure


def _bars(panel: Axes, rows: pd.DataFrame) -> None:
    heights, left = np.arange(len(rows)), np.zeros(len(rows))
    for part, (label, color) in PARTS.items():
        width = rows[f"{part}_ms"].fillna(0).to_numpy(float)
        if part == "extract":  # of networks it is what the two parts before add up to
            width = np.where(rows["network_ms"].notna(), 0, width)
        panel.barh(heights, width, left=left, height=0.62, color=color, label=label)
        left = left + width
    for height, total in zip(heights, left, strict=True):
        panel.text(total, height, f" {total:.1f}", va="center", fontsize=5.5)
    panel.set_xlim(0, 1.16 * left.max())


def _least(panel: Axes, rows: pd.DataFrame, mapping: pd.DataFrame) -> None:
    """Marks the least times on an Edge TPU at the heights of their rows."""
    known = mapping.set_index(["method", "precision"])["least_ms"].dropna().to_dict()
    keys = enumerate(zip(rows["method"], rows["precision"], strict=True))
    points = [(known[key], height) for height, key in keys if key in known]
    if points:
        x, y = zip(*points, strict=True)
        panel.plot(x, y, linestyle="", marker="D", color="#c9642b", markersize=4, label="Edge TPU, at least")
