"""Owns the chart of times: every method on this machine, and the least that an Edge TPU could take."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kp2d import checks
from kp2d.viz import figures

# Part → its colour; methods of one step have "extract" only.
PARTS = {"network": "#0a6fb5", "decode": "#efaf1f", "extract": "#a0a0a0", "match": "#1a1a1a"}
_COLUMNS = [
    "method",
    "precision",
    "image_height",
    "image_width",
    "threads",
    *(f"{part}_ms" for part in PARTS),
]


def plot_times(times: pd.DataFrame, mapping: pd.DataFrame | None = None) -> Figure:
    """Plots the milliseconds of every method, split into its parts, a panel a size.

    Args:
        times: From `kp2d.device.latency.bench_latency`; the largest number of threads is shown.
        mapping: From `kp2d.device.deployment.deploy`; adds the least time on an Edge TPU as a diamond.

    Returns:
        The figure.

    Raises:
        InputError: If columns or rows are missing.
    """
    if missing := [name for name in _COLUMNS if name not in times]:
        raise checks.problem(f"the columns {', '.join(_COLUMNS)}", f"a table without {', '.join(missing)}")
    if times.empty:
        raise checks.problem("at least one measured method", "an empty table")
    times = times[times["threads"] == times["threads"].max()]
    sizes = list(dict.fromkeys(zip(times["image_height"], times["image_width"], strict=True)))
    most = max(len(_of(times, size)) for size in sizes)
    with figures.style():
        figure = figures.StyledFigure(figsize=(figures.WIDE, 0.23 * most + 1.1), layout="constrained")
        panels = figure.subplots(1, len(sizes), squeeze=False)[0]
        for panel, size in zip(panels, sizes, strict=True):
            rows = _of(times, size)
            _bars(panel, rows)
            if mapping is not None:
                _least(panel, rows, _of(mapping, size))
            panel.set_title(f"{size[1]}×{size[0]}")
            panel.set_xlabel("ms")
            panel.set_ylim(len(rows) - 0.4, -0.6)
            panel.grid(axis="x")
            names = [figures.method_label(row.method, row.precision) for row in rows.itertuples()]
            panel.set_yticks(
                range(len(rows)), names if panel is panels[0] else [""] * len(rows), fontsize=6.5
            )
        handles: dict = {}
        for panel in panels:
            handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=len(handles))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _of(rows: pd.DataFrame, size: tuple[int, int]) -> pd.DataFrame:
    return rows[(rows["image_height"] == size[0]) & (rows["image_width"] == size[1])].reset_index(drop=True)


def _bars(panel, rows: pd.DataFrame) -> None:
    places, left = np.arange(len(rows)), np.zeros(len(rows))
    for part, color in PARTS.items():
        width = rows[f"{part}_ms"].fillna(0).to_numpy(float)
        if part == "extract":  # of networks it is what the two parts before add up to
            width = np.where(rows["network_ms"].notna(), 0, width)
        panel.barh(places, width, left=left, height=0.62, color=color, label=_LABELS[part])
        left = left + width
    for place, total in zip(places, left, strict=True):
        panel.text(total, place, f" {total:.1f}", va="center", fontsize=5.5)
    panel.set_xlim(0, 1.16 * left.max())


_LABELS = {
    "network": "network",
    "decode": "decoding",
    "extract": "detector and descriptor",
    "match": "matching",
}


def _least(panel, rows: pd.DataFrame, mapping: pd.DataFrame) -> None:
    known = mapping.set_index(["method", "precision"])["least_ms"].dropna().to_dict()
    found = [(known.get((row.method, row.precision)), place) for place, row in enumerate(rows.itertuples())]
    found = [(least, place) for least, place in found if least is not None]
    if found:
        x, y = zip(*found, strict=True)
        panel.plot(x, y, linestyle="", marker="D", color="#c9642b", markersize=4, label="Edge TPU, at least")
