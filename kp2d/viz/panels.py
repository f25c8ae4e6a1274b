"""Owns what charts of results share: checked tables, panels, axes, and the key beside the last panel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from kp2d import checks
from kp2d.evaluate import tables
from kp2d.viz import figures


def checked_table(
    rows: pd.DataFrame, columns: Iterable[str], once_by: list[str] | None = None
) -> pd.DataFrame:
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
    several = ["dataset"] if "dataset" in rows else []
    keys = ["method", "precision", *several, *(once_by or [])]
    if once_by is not None and (twice := rows.duplicated(keys)).any():
        first = dict(rows.loc[twice, keys].iloc[0])
        remedy = "Choose one top_k, image size, runtime and profile first."
        raise checks.problem(f"one row for each {', '.join(keys)}", f"several for {first}", remedy)
    return rows


def datasets_of(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Returns the rows of each data set, with what labels begin with: "bench: ", or "" where there is one."""
    if "dataset" not in rows or rows["dataset"].nunique() < 2:
        return [("", rows)]
    return [(f"{name}: ", part) for name, part in rows.groupby("dataset", sort=False)]


def name_subsets(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns rows whose subsets name their data set, too, where there are several: "bench: viewpoint"."""
    parts = datasets_of(rows)
    if len(parts) == 1:
        return rows
    return pd.concat([part.assign(subset=prefix + part["subset"]) for prefix, part in parts])


def subset_rank(subset: str) -> tuple:
    """Returns what to sort subsets by: the data set that they may name, and the order of tables."""
    dataset, _, name = str(subset).rpartition(": ")
    return (dataset, *tables.subset_rank(name))


def subsets_of(rows: pd.DataFrame) -> list[str]:
    """Returns the subsets of a table in the house's order."""
    return sorted(rows["subset"].unique(), key=subset_rank)


def by_subset(rows: pd.DataFrame) -> list[tuple[Axes, str, pd.DataFrame]]:
    """Returns a panel of a new figure for each subset, in the house's order: the axes, its name, its rows."""
    subsets = subsets_of(rows)
    drawn_in = make_panels(len(subsets), len(subsets))
    return [
        (panel, name, rows[rows["subset"] == name]) for panel, name in zip(drawn_in, subsets, strict=True)
    ]


def by_method(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yields (method, precision, its rows): classical first, then networks, then others."""
    known = list(figures.METHODS)
    keys = set(zip(rows["method"], rows["precision"], strict=True))
    rank = {key: (known.index(key[0]) if key[0] in known else len(known), *key) for key in keys}
    for method, precision in sorted(keys, key=rank.__getitem__):
        yield method, precision, rows[(rows["method"] == method) & (rows["precision"] == precision)]


def panel_title(subset: str, num_pairs: pd.Series | None) -> str:
    """Returns "viewpoint · 15 pairs", with a range when the methods have different numbers."""
    counts = sorted(set(num_pairs.dropna().astype(int))) if num_pairs is not None else []
    span = "-".join(str(count) for count in sorted({*counts[:1], *counts[-1:]}))
    return f"{subset} · {span} pair{'s' * (span != '1')}" if span else str(subset)


def nothing(why: str) -> Figure:
    """Returns a figure that says why there is nothing to draw."""
    with figures.style():
        (panel,) = make_panels(1, 1, height=1.0)
        panel.set_axis_off()
        panel.text(0.5, 0.5, why, ha="center", va="center")
        return panel.get_figure(root=True)


def make_panels(count: int, columns: int, *, width: float = figures.WIDE, height: float = 2.5) -> list[Axes]:
    """Returns the axes of a new figure, `count` of them."""
    columns = columns if columns <= 3 else 2  # titles that name a data set need room
    rows = -(-count // columns)
    figure = figures.StyledFigure(figsize=(width, height * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05, wspace=0.03, hspace=0.06)
    return [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def set_limits(panel: Axes, x: tuple, y: tuple, ticks: Iterable[float], xlabel: str) -> None:
    """Sets clear limits, ticks and a light grid."""
    panel.set(xlim=x, ylim=(y[0], y[1] * 1.02), xlabel=xlabel)
    panel.xaxis.set_major_locator(FixedLocator(list(ticks)))
    panel.grid(axis="y")


def log_axis(axis: Axis, ticks: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """Makes an axis logarithmic, with ticks at the values given, by default named so, and none between."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks(ticks, labels=labels or [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def finish(panel: Axes, rows: pd.DataFrame, ends: dict[tuple[Axes, str, str], float]) -> Figure:
    """Writes the key at the right of `panel`, each name near the end of its line.

    `ends` holds the height (axes fraction) at which each line ends, by axes, method and precision.
    """
    figure = panel.get_figure(root=True)
    keys = [(method, precision) for method, precision, _ in by_method(rows)]
    place = {"xycoords": "axes fraction", "xytext": (31, 0), "textcoords": "offset points"}
    place |= {"va": "center", "fontsize": 7}
    texts = [panel.annotate(figures.method_label(*key), (1, 0), **place) for key in keys]
    figure.draw_without_rendering()  # the height of the axes is known only now
    inches = panel.get_position().height * figure.get_figheight()
    heights = _spread([ends.get((panel, *key), np.nan) for key in keys], 0.13 / inches)
    for key, text, height in zip(keys, texts, heights, strict=True):
        text.xy = (1, height)
        sample = figure.dpi_scale_trans + ScaledTranslation(1, height, panel.transAxes)
        drawn = {**figures.method_style(*key), "transform": sample, "clip_on": False}
        panel.add_artist(Line2D([0.06, 0.37], [0, 0], **{**drawn, "marker": ""}))
        panel.add_artist(Line2D([0.215], [0], **{**drawn, "linestyle": "none"}))
    freeze(figure)
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


def shared_legend(figure: Figure) -> None:
    """Writes one key below all panels; a label that several of them have stands there once."""
    handles = {}
    for panel in figure.axes:
        handles |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=len(handles))


def freeze(figure: Figure) -> None:
    """Lays the figure out once; later drawings must not move anything, or files would differ."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
