"""Owns the charts of the quantization: what variants cost, errors layer by layer, what tensors hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kp2d import checks
from kp2d.quantize.calibration import TensorStatistics
from kp2d.viz import figures, panels

# Column → axis label; the panels of `plot_sensitivity`.
DELTAS = {
    "delta_repeatability": "Δ repeatability",
    "delta_localization_error": "Δ localization error (px)",
    "delta_matching_score": "Δ matching score",
}
_COLUMNS = 5  # panels a row of `plot_activations`


def plot_sensitivity(rows: pd.DataFrame) -> Figure:
    """Plots what each variant of the quantization changes against float32, one line a variant.

    Args:
        rows: From `kp2d.evaluate.sensitivity.Study.run`.

    Returns:
        The figure; what lies outside a panel is written at its edge.

    Raises:
        InputError: If columns or rows are missing.
    """
    _need(rows, ["group", "variant", *DELTAS])
    rows = rows[rows["group"] != "float32"].reset_index(drop=True)
    groups = list(dict.fromkeys(rows["group"]))
    first = rows["group"] != rows["group"].shift()
    heights = np.arange(len(rows)) + 0.7 * first.cumsum()  # a gap before each group
    with figures.style():
        figure = figures.StyledFigure(
            figsize=(figures.WIDE, 0.16 * heights.max() + 0.7), layout="constrained"
        )
        axes = figure.subplots(1, len(DELTAS), sharey=True)
        for panel, (column, label) in zip(axes, DELTAS.items(), strict=True):
            limit = 1.25 * np.nanquantile(np.abs(rows[column]), 0.85) + 1e-4
            panel.axvline(0, color="#999999", linewidth=0.8)
            for height, value, group in zip(heights, rows[column], rows["group"], strict=True):
                color = figures.method_style(f"group {groups.index(group)}")["color"]
                shown = np.clip(value, -limit, limit)
                panel.plot([0, shown], [height, height], color=color, linewidth=1.6, solid_capstyle="butt")
                if abs(value) > limit:
                    side = "right" if value > 0 else "left"
                    panel.text(shown, height - 0.35, f"{value:+.3f}", ha=side, fontsize=5.5, va="bottom")
                else:
                    panel.plot(shown, height, marker="o", color=color, markersize=3.6)
            panel.set_xlim(-1.04 * limit, 1.04 * limit)
            panel.set_xlabel(label)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.grid(axis="x")
        axes[0].set_ylim(heights.max() + 0.8, heights.min() - 0.8)
        names = [f"{group}: {name}" for group, name in zip(rows["group"], rows["variant"], strict=True)]
        axes[0].set_yticks(heights, names, fontsize=6.5)
        panels.freeze(figure)
    return figure


def plot_layer_errors(rows: pd.DataFrame) -> Figure:
    """Plots signal to quantization noise of every tensor, in the order of computation.

    Args:
        rows: From `kp2d.evaluate.sensitivity.layer_errors`.

    Returns:
        The figure.

    Raises:
        InputError: If columns or rows are missing.
    """
    lines = {
        "sqnr_kernel": ("rounded kernel", "#efaf1f", "^"),
        "sqnr_rounding": ("rounded tensor", "#a0a0a0", "D"),
        "sqnr_network": ("tensor in the int8 network", "#0a6fb5", "o"),
    }
    _need(rows, ["tensor", *lines])
    with figures.style():
        figure = figures.StyledFigure(figsize=(figures.WIDE, 2.6), layout="constrained")
        panel = figure.subplots()
        positions = np.arange(len(rows))
        for column, (label, color, marker) in lines.items():
            kept = rows[column].notna() & (rows[column] < 100)  # pixels are exact
            panel.plot(
                positions[kept], rows[column][kept], marker=marker, color=color, label=label, linewidth=0.9
            )
        worst = int(rows["sqnr_network"].idxmin())
        low = rows["sqnr_network"][worst]
        panel.annotate(
            f"worst: {rows['tensor'][worst]}, {low:.0f} dB",
            (worst, low),
            xytext=(0, -9),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=6.5,
        )
        panel.set_ylim(min(0.0, low - 10), None)
        panel.set_xticks(
            positions, rows["tensor"], rotation=60, ha="right", rotation_mode="anchor", fontsize=6.5
        )
        panel.set_ylabel("signal to quantization noise (dB)")
        panel.grid(axis="y")
        panel.legend(loc="upper right", ncols=3)
        panels.freeze(figure)
    return figure


def plot_activations(
    statistics: Mapping[str, TensorStatistics], ranges: Mapping[str, tuple[float, float]]
) -> Figure:
    """Plots the histogram of every tensor and where its range cuts it off.

    Args:
        statistics: From `kp2d.quantize.calibration.measure`.
        ranges: Tensor to (smallest, largest) of its int8 grid.

    Returns:
        The figure, one panel a tensor.

    Raises:
        InputError: If there is no tensor, or one has no range.
    """
    if not statistics or any(name not in ranges for name in statistics):
        raise checks.problem(
            "one or more tensors with their ranges", f"{len(statistics)}, {len(ranges)} ranges"
        )
    with figures.style():
        count = -(-len(statistics) // _COLUMNS)
        figure = figures.StyledFigure(figsize=(figures.WIDE, 1.05 * count), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
        for number, (name, measured) in enumerate(statistics.items(), start=1):
            panel = figure.add_subplot(count, _COLUMNS, number)
            counts = measured.counts.reshape(64, -1).sum(axis=1) / measured.counts.sum()
            edges = np.linspace(measured.low, measured.high, len(counts) + 1)
            panel.stairs(np.maximum(counts, 1e-7), edges, fill=True, color="#0a6fb5", baseline=1e-7)
            for end in ranges[name]:
                panel.axvline(end, color="#c0392b", linewidth=0.9)
            panel.set_yscale("log")
            panel.set_ylim(1e-7, 1.5)
            panel.set_title(name, fontsize=6.5, pad=2)
            panel.tick_params(labelsize=5.5)
            panel.set_yticks([1e-6, 1e-3, 1], ["10⁻⁶", "10⁻³", "1"])
            panel.minorticks_off()
            if number % _COLUMNS != 1:
                panel.set_yticklabels([])
        panels.freeze(figure)
    return figure


def _need(rows: pd.DataFrame, columns: list[str]) -> None:
    if rows.empty or any(column not in rows for column in columns):
        raise checks.problem(
            f"rows with the columns {', '.join(columns)}", f"{len(rows)} rows of {list(rows)}"
        )
