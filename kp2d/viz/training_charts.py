"""Owns the charts of training runs: what their loss terms do, and which recipe learns best."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

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
COLUMNS = 4
RANKED = {"matching_score": "matching score (fraction)", "d3": "homographies within 3 px (fraction)"}


def plot_losses(log: pd.DataFrame) -> Figure:
    """Plots every unweighted loss term over the pairs seen, one line a recipe.

    Args:
        log: From `kp2d.train.trials.loss_table`.

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
        for number, term in enumerate(terms, start=1):
            panel = figure.add_subplot(rows, min(COLUMNS, len(terms)), number)
            for recipe, run in log.groupby("recipe", sort=False):
                drawn = figures.method_style(recipe)
                if run[term].notna().any():
                    panel.plot(run["pairs"], run[term], color=drawn["color"], label=recipe)
            title, unit = TERMS[term]
            panel.set_title(title, fontsize=7.5)
            panel.set_ylabel(unit, fontsize=6.5)
            panel.tick_params(labelsize=6.5)
            panel.grid(axis="y")
            if number > len(terms) - COLUMNS:
                panel.set_xlabel("pairs seen")
        panels.shared_legend(figure)
        panels.freeze(figure)
    return figure


def plot_recipes(rows: pd.DataFrame) -> Figure:
    """Plots what variants of a recipe reach in the same time, the best matching score on top.

    Args:
        rows: From `kp2d.evaluate.ranking.rank`; of the subset "all", all at one k.

    Returns:
        The figure: a line a variant, in each panel one metric with its 95 % interval; without rows it says
        what makes them.

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
        axes = panels.make_panels(2, 2, None, height=0.6 + 0.17 * len(rows))
        for panel, (metric, title) in zip(axes, RANKED.items(), strict=True):
            low, high = tables.end_names(metric)
            spread = [rows[metric] - rows[low], rows[high] - rows[metric]]
            look = {"color": figures.method_style("kp2d_tiny_s")["color"], "markersize": 4.5}
            panel.errorbar(rows[metric], heights, xerr=spread, fmt="o", elinewidth=1.0, **look)
            panel.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel=title)
            panel.set_yticks(heights, labels=list(rows["variant"]) if panel is axes[0] else [])
            panel.grid(axis="x")
        return axes[0].get_figure(root=True)
