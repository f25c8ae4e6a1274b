"""Owns the charts of what accuracy stands and what it costs: against rotation and scale, time and size."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kp2d.viz import figures, panels

SHOWN = {"d3": "homographies within 3 px (fraction)", "matching_score": "matching score (fraction)"}
_SIZE = ["image_height", "image_width"]
_OPEN = {"markeredgewidth": 1.2, "markersize": 5.5}  # of a marker that may be open
_LARGEST = 7.0  # points, the marker of the largest image size


def plot_robustness(rows: pd.DataFrame) -> Figure:
    """Plots accuracy over rotation and over scale, a line a method.

    Args:
        rows: From `kp2d.evaluate.robustness.study`, of one k.

    Returns:
        The figure: a row a metric, rotation on the left and scale on the right.

    Raises:
        InputError: If columns or rows are missing, or a method has an amount twice.
    """
    rows = panels.checked_table(rows, ["method", "subset", "amount", *SHOWN], once_by=["subset", "amount"])
    with figures.style():
        drawn = list(itertools.product(panels.datasets_of(rows), SHOWN, ("rotation", "scale")))
        places = panels.make_panels(len(drawn), 2, None, height=2.3)
        ends = {}
        for place, ((prefix, part), metric, kind) in zip(places, drawn, strict=True):
            part = part[part["subset"] == kind].sort_values("amount")
            for method, precision, line in panels.by_method(part):
                place.plot(line["amount"], line[metric], **figures.method_style(method, precision))
                ends[place, method, precision] = line[metric].iloc[-1]
            (_rotation_axis if kind == "rotation" else _scale_axis)(place, part["amount"])
            place.set_ylabel(prefix.replace(" ", "\n") + SHOWN[metric], fontsize=7)
        return panels.finish(places[1], rows, ends, own=True)


def _rotation_axis(place: Axes, amounts: pd.Series) -> None:
    most = max(amounts.max(), 1)
    panels.set_limits(place, (-3, most + 3), (0, 1.0), np.arange(0, most + 1, 30), "rotation (degrees)")


def _scale_axis(place: Axes, amounts: pd.Series) -> None:
    place.set_xscale("log")
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 4) if amounts.min() <= tick <= amounts.max()]
    span = (amounts.min() / 1.1, amounts.max() * 1.1)
    panels.set_limits(place, span, (0, 1.0), ticks, "scale of image 1 over image 0 (factor, log scale)")
    place.xaxis.set_minor_locator(NullLocator())
    place.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])


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
        return _nothing("no method was both evaluated and timed at one of these image sizes: see 04")
    area = joined["image_height"] * joined["image_width"]
    joined["marker"] = _LARGEST * (area / area.max()) ** 0.25
    span = (joined["extract_ms"].min() / 1.3, joined["extract_ms"].max() * 1.3)
    with figures.style():
        drawn = list(itertools.product(panels.datasets_of(joined), SHOWN))
        places = panels.make_panels(len(drawn), 2, None, height=2.9)
        ends = {}
        for place, ((prefix, part), metric) in zip(places, drawn, strict=True):
            for method, precision, line in panels.by_method(part):
                line = line.sort_values("extract_ms")
                look = figures.method_style(method, precision)
                place.plot(line["extract_ms"], line[metric], **{**look, "marker": ""})
                for x, y, size in line[["extract_ms", metric, "marker"]].itertuples(index=False):
                    place.plot(x, y, **{**look, "linestyle": "none", "markersize": size, "clip_on": False})
                ends[place, method, precision] = line[metric].iloc[-1]
            _millisecond_axis(place, span)
            place.set_ylabel(prefix.replace(" ", "\n") + SHOWN[metric], fontsize=7)
        sizes = joined.sort_values("marker").drop_duplicates(_SIZE)
        names = ", ".join(f"{width}×{height}" for height, width in sizes[_SIZE].itertuples(index=False))
        places[0].set_title(f"from the smallest marker to the largest: {names}", fontsize=7)
        return panels.finish(places[-1], joined, ends, own=True)


def _nothing(why: str) -> Figure:
    with figures.style():
        (place,) = panels.make_panels(1, 1, None, height=1.0)
        place.set_axis_off()
        place.text(0.5, 0.5, why, ha="center", va="center")
        return place.get_figure(root=True)


def _millisecond_axis(place: Axes, span: tuple[float, float]) -> None:
    place.set_xscale("log")
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if span[0] <= tick <= span[1]]
    panels.set_limits(place, span, (0, 1.0), ticks, "milliseconds an image (log scale)")
    place.xaxis.set_minor_locator(NullLocator())
    place.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])


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
        drawn = list(itertools.product(panels.datasets_of(rows), SHOWN))
        places = panels.make_panels(len(drawn), 2, None, height=2.6)
        ends = {}
        for place, ((prefix, part), metric) in zip(places, drawn, strict=True):
            joined: dict[str, list[tuple[float, float]]] = {}
            for method, precision, line in panels.by_method(part):
                value = line[metric].iloc[0]
                ends[place, method, precision] = value
                look = figures.method_style(method, precision)
                if (method, precision) not in num_bytes:
                    place.axhline(value, color=look["color"], linestyle=look["linestyle"], linewidth=0.9)
                    continue
                joined.setdefault(method, []).append((num_bytes[method, precision] / 2**20, value))
                face = look["color"] if precision == "float32" else "white"
                place.plot(
                    *joined[method][-1],
                    **{**look, "linestyle": "none", **_OPEN, "mfc": face, "mec": look["color"]},
                )
            for method, points in joined.items():
                color = figures.method_style(method)["color"]
                place.plot(*zip(*points, strict=True), color=color, linewidth=0.6, zorder=1)
            place.set_xscale("log")
            ticks = [tick for tick in _megabytes(span) if span[0] <= tick <= span[1]]
            panels.set_limits(place, span, (0, 1.0), ticks, "weights (MiB, log scale)")
            place.xaxis.set_minor_locator(NullLocator())
            place.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            place.set_ylabel(prefix.replace(" ", "\n") + SHOWN[metric], fontsize=7)
        return panels.finish(places[-1], rows, ends, own=True)


def _megabytes(span: tuple[float, float]) -> Sequence[float]:
    return [
        base * 10.0**power for power in range(-3, 4) for base in (1, 2, 5) if span[0] <= base * 10.0**power
    ]
