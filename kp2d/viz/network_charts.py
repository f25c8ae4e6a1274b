"""Owns the charts of how networks are made: what losses do, which recipe learns best, what int8 costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kp2d import checks
from kp2d.evaluate import tables
from kp2d.viz import figures, panels

# Term → (title, axis label); in the order of the panels.
TERMS = {
    "localization": ("localization", "distance to the nearest keypoint (px)"),
    "usp": ("scores: usp", "score × excess distance (px)"),
    "consistency": ("scores: consistency", "squared difference"),
    "triplet": ("descriptors: triplet", "margin violation"),
    "dual_softmax": ("descriptors: dual softmax", "negative log-likelihood (nats)"),
    "inlier": ("IO-Net", "squared error of ±1"),
    "corner_offset": ("corner teacher: offsets", "weighted squared error"),
    "corner_score": ("corner teacher: scores", "squared error"),
}
_LOSSES = 4  # panels a row of `plot_losses`
RANKED = {"matching_score": "matching score (fraction)", "d3": "homographies within 3 px (fraction)"}
# Column → axis label; the panels of `plot_sensitivity`.
DELTAS = {
    "delta_repeatability": "Δ repeatability",
    "delta_localization_error": "Δ localization error (px)",
    "delta_matching_score": "Δ matching score",
}
_ACTIVATIONS = 5  # panels a row of `plot_activations`


def plot_losses(log: pd.DataFrame) -> Figure:
    """Plots every unweighted loss term over the pairs seen, one line a recipe, one panel a term.

    The log is from `kp2d.train.trials.loss_table`.

    Raises:
        InputError: If there are no rows, or none of the terms.
    """
    if missing := [name for name in ("recipe", "pairs") if name not in log]:
        raise checks.problem("the columns recipe and pairs", f"a table without {', '.join(missing)}")
    terms = [term for term in TERMS if term in log and log[term].notna().any()]
    if not terms:
        raise checks.problem(f"at least one of the terms {', '.join(TERMS)}", "none of them")
    colors = figures.colors(log["recipe"])
    with figures.style():
        rows = -(-len(terms) // _LOSSES)
        figure = figures.StyledFigure(figsize=(figures.WIDE, 1.85 * rows + 0.3), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05, wspace=0.03, hspace=0.06)
        for number, term in enumerate(terms, start=1):
            panel = figure.add_subplot(rows, min(_LOSSES, len(terms)), number)
            for recipe, run in log.groupby("recipe", sort=False):
                if run[term].notna().any():
                    panel.plot(run["pairs"], run[term], color=colors[recipe], label=recipe)
            title, unit = TERMS[term]
            panel.set_title(title, fontsize=7.5)
            panel.set_ylabel(unit, fontsize=6.5)
            panel.tick_params(labelsize=6.5)
            panel.grid(axis="y")
            if number > len(terms) - _LOSSES:
                panel.set_xlabel("pairs seen")
        panels.shared_legend(figure)
        panels.freeze(figure)
    return figure


def plot_recipes(rows: pd.DataFrame) -> Figure:
    """Plots what variants of a recipe reach in the same time, the best matching score on top.

    The rows are from `kp2d.evaluate.ranking.rank`, of the subset "all", all at one k. A line is a variant, a
    panel one metric with its 95 % interval; without rows the figure says what makes them.

    Raises:
        InputError: If columns are missing, or a variant is there twice.
    """
    if rows.empty:
        return panels.nothing(
            "no results/recipes.csv here: kp2d bench recipes makes it, the repository has it"
        )
    ends = [name for metric in RANKED for name in tables.end_names(metric)]
    rows = panels.checked_table(rows.assign(method=rows.get("variant")), ["variant", *RANKED, *ends], [])
    rows = rows.sort_values("matching_score", kind="stable")
    heights = range(len(rows))
    with figures.style():
        axes = panels.make_panels(2, 2, height=0.6 + 0.17 * len(rows))
        for panel, (metric, title) in zip(axes, RANKED.items(), strict=True):
            low, high = tables.end_names(metric)
            spread = [rows[metric] - rows[low], rows[high] - rows[metric]]
            look = {"color": figures.method_style("kp2d_tiny_s")["color"], "markersize": 4.5}
            panel.errorbar(rows[metric], heights, xerr=spread, fmt="o", elinewidth=1.0, **look)
            panel.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel=title)
            panel.set_yticks(heights, labels=list(rows["variant"]) if panel is axes[0] else [])
            panel.grid(axis="x")
        return axes[0].get_figure(root=True)


def plot_sensitivity(rows: pd.DataFrame) -> Figure:
    """Plots what each variant of the quantization changes against float32, one line a variant.

    The rows are from `kp2d.evaluate.sensitivity.Study.run`; what lies outside a panel is written at its edge.

    Raises:
        InputError: If columns or rows are missing.
    """
    _need(rows, ["group", "variant", *DELTAS])
    rows = rows[rows["group"] != "float32"].reset_index(drop=True)
    colors = figures.colors(rows["group"])
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
                color, shown = colors[group], np.clip(value, -limit, limit)
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

    The rows are from `kp2d.evaluate.sensitivity.layer_errors`.

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


def plot_activations(statistics: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> Figure:
    """Plots the histogram of every tensor, a panel each, and where its range cuts it off.

    Args:
        statistics: From `kp2d.quantize.calibration.measure`.
        ranges: Tensor to (smallest, largest) of its int8 grid.

    Raises:
        InputError: If there is no tensor, or one has no range.
    """
    if not statistics or any(name not in ranges for name in statistics):
        raise checks.problem(
            "one or more tensors with their ranges", f"{len(statistics)}, {len(ranges)} ranges"
        )
    with figures.style():
        count = -(-len(statistics) // _ACTIVATIONS)
        figure = figures.StyledFigure(figsize=(figures.WIDE, 1.05 * count), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
        for number, (name, measured) in enumerate(statistics.items(), start=1):
            panel = figure.add_subplot(count, _ACTIVATIONS, number)
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
            if number % _ACTIVATIONS != 1:
                panel.set_yticklabels([])
        panels.freeze(figure)
    return figure


def _need(rows: pd.DataFrame, columns: list[str]) -> None:
    if rows.empty or any(column not in rows for column in columns):
        raise checks.problem(
            f"rows with the columns {', '.join(columns)}", f"{len(rows)} rows of {list(rows)}"
        )
