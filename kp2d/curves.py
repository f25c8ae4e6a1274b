"""Owns the charts of training runs: what every loss term does while networks learn."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from kp2d import checks, figures

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
COLUMNS = 4


def plot_losses(log: pd.DataFrame) -> Figure:
    """Plots every unweighted loss term over the pairs seen, one line a recipe.

    Args:
        log: From `kp2d.trials.loss_table`.

    Returns:
        The figure, one panel for each term that any of the recipes has.

    Raises:
        InputError: If there are no rows, or none of the terms.
    """
    if missing := [name for name in ("recipe", "pairs") if name not in log]:
        raise checks.problem("the columns recipe and pairs", f"a table without {', '.join(missing)}")
    terms = [term for term in TERMS if term in log and log[term].notna().any()]
    if not terms:
        raise checks.problem(f"at least one of the terms {', '.join(TERMS)}", "none of them")
    with figures.style():
        rows = -(-len(terms) // COLUMNS)
        figure = figures.StyledFigure(figsize=(figures.WIDE, 1.85 * rows + 0.3), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05, wspace=0.03, hspace=0.06)
        for place, term in enumerate(terms, start=1):
            panel = figure.add_subplot(rows, min(COLUMNS, len(terms)), place)
            for recipe, run in log.groupby("recipe", sort=False):
                drawn = figures.method_style(recipe)
                if run[term].notna().any():
                    panel.plot(run["pairs"], run[term], color=drawn["color"], label=recipe)
            title, unit = TERMS[term]
            panel.set_title(title, fontsize=7.5)
            panel.set_ylabel(unit, fontsize=6.5)
            panel.tick_params(labelsize=6.5)
            panel.grid(axis="y")
            if place > len(terms) - COLUMNS:
                panel.set_xlabel("pairs seen")
        handles = {}
        for panel in figure.axes:
            handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=len(handles))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # later drawings must not move anything, or files would differ
    return figure
