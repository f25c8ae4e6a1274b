"""Owns how a result table is laid out on a page of the report: what is in a cell, what is said only once."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kp2d import checks, paths
from kp2d.evaluate import tables

FOLDER = "tables"
MAX_ROWS = 200  # of a table on a page; a longer one is shown in part, and whole in its CSV
EXCERPT = 20
_SHARES = {"repeatability", "matching_score", "d1", "d3", "d5", "auc_3", "auc_5", *tables.MMA}
_SIZE = (240, 320)  # (height, width) px, that of the headlines
_HEADLINE = ("method", "precision", "top_k", *tables.METRICS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One value on a page."""

    text: str  # as it is shown
    value: str | float | None  # what sorting compares; None for a missing value, which sorts last
    share: float | None = None  # a fraction in [0, 1] to draw as a bar, in percent; None draws none
    best: bool = False  # whether no row has a better one
    interval: str = ""  # the ends of its 95 % interval, in small print; "" if there is none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One table on a page."""

    name: str  # file name without suffix
    caption: str = ""  # what a row is, as Markdown; "" if nobody knows
    columns: tuple[tuple[str, bool], ...] = ()  # headings, and whether what stands below is numbers
    rows: tuple[tuple[Cell, ...], ...] = ()  # the cells
    constants: tuple[tuple[str, str], ...] = ()  # columns with one value in all rows: heading and value
    total: int = 0  # rows of the whole table
    file: str = ""  # the CSV in the site
    note: str = ""  # why there are no rows

    @property
    def whole(self) -> bool:
        """Tells whether all rows are on the page; only then is sorting them honest."""
        return len(self.rows) == self.total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The tables of one folder of results."""

    name: str  # the folder, "results/fast"
    caption: str  # what it holds, as Markdown
    tables: tuple[Table, ...]  # its tables, by name
    note: str = ""  # what is missing, and how to make it


def lay_out(rows: pd.DataFrame, *, columns: Sequence[str] = (), best: bool = False, **about: str) -> Table:
    """Lays out a table.

    Args:
        rows: The table.
        columns: Which columns; empty takes all. Metrics whose intervals stand in other columns show them.
        best: Whether to mark the best value of each metric.
        **about: `name`, `caption` and `file` of the `Table`.
    """
    total = len(rows)
    columns = list(columns) or list(rows.columns)
    if total > MAX_ROWS:
        rows = rows.head(EXCERPT)
    constants = _constants(rows[columns]) if total <= MAX_ROWS else []
    shown = [name for name in columns if name not in constants]
    winners = {
        name: rows[name].agg("min" if name == tables.SMALLER_IS_BETTER else "max")
        for name in tables.METRICS
        if best and name in shown
    }
    return Table(
        columns=tuple((_heading(name), _is_numeric(rows[name])) for name in shown),
        rows=tuple(
            tuple(_cell(name, record, winners.get(name), columns) for name in shown)
            for record in rows.to_dict("records")
        ),
        constants=tuple((_heading(name), tables.cell_text(name, rows[name].iloc[0])) for name in constants),
        total=total,
        **about,
    )


def _constants(rows: pd.DataFrame) -> list[str]:
    """Returns the columns worth saying once: those with one value, where a table is too wide to read."""
    if len(rows) < 2 or len(rows.columns) <= 12:
        return []
    return [name for name in rows.columns if len(rows[name].drop_duplicates()) == 1]


def _heading(name: str) -> str:
    return tables.HEADINGS.get(name, name)


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _cell(name: str, record: dict[str, object], winner: float | None, columns: Sequence[str]) -> Cell:
    value = record[name]
    if pd.isna(value):
        return Cell(text="–", value=None)
    text = tables.cell_text(name, value)
    number = float(value) if isinstance(value, (int, float)) else None
    share = round(100 * number, 1) if number is not None and name in _SHARES and 0 <= number <= 1 else None
    best = winner is not None and text == tables.cell_text(name, winner)  # what looks equal is equal
    ends = [None if end in columns else record.get(end) for end in tables.end_names(name)]
    interval = tables.interval_text(*ends)
    value = text if number is None else number
    return Cell(text=text, value=value, share=share, best=best, interval=interval)


def headline(path: Path, top_k: int) -> list[tuple[str, Table]]:
    """Lays out the averages at 240×320, or at the largest size there is, a table a data set and subset.

    The path is an `evaluation.csv`; `top_k` is which k, the largest there is if it was not evaluated.

    Returns:
        Titles ("bench: viewpoint, 15 pairs from 3 scenes") and tables, the best values marked.

    Raises:
        InputError: If there is no such table.
    """
    rows = tables.read_csv(path, tables.SCORE_COLUMNS)
    sizes = set(zip(rows["image_height"], rows["image_width"], strict=True))
    rows = tables.of_size(rows, _SIZE if _SIZE in sizes else max(sizes, default=_SIZE))
    rows = rows[rows["top_k"] == (top_k if top_k in set(rows["top_k"]) else rows["top_k"].max())]
    parts = []
    for (dataset, subset), part in rows[rows["subset"] != "all"].groupby(["dataset", "subset"], sort=False):
        pairs, scenes = part[["num_pairs", "num_sequences"]].iloc[0]
        counts = f"{pairs} pairs from {scenes} {'scene' if scenes == 1 else 'scenes'}"
        table = lay_out(part, columns=_HEADLINE, best=True, name=f"{dataset}-{subset}")
        parts.append((f"{dataset}: {subset}, {counts}", table))
    return parts


def printed() -> Table:
    """Lays out what the paper prints for HPatches at 320×240; doubtful rows are marked.

    Raises:
        InputError: If the checkout lacks the table.
    """
    rows = tables.paper("comparison")
    rows = tables.of_size(rows, _SIZE)
    rows = rows[~rows["method"].str.startswith("kp2d_v")]
    marks = rows["doubt"].isna().map({True: "", False: " †"})
    return lay_out(rows.assign(method=rows["method"] + marks), columns=_HEADLINE, name="paper")


def collect(folder: Path, profile: str) -> list[Group]:
    """Copies every table of results into the folder `tables` of the site and lays it out.

    They are the profile's; those of real pairs and the paper's come along.
    """
    captions = _captions(paths.results() / "README.md")
    groups = [
        _group(folder, name, profile, captions) for name in dict.fromkeys((profile, "bench", "paper", ""))
    ]
    return [groups[0], *(group for group in groups[1:] if group.tables)]


def _group(folder: Path, name: str, profile: str, captions: dict[str, str]) -> Group:
    found = sorted(paths.results(name or None).glob("*.csv"))
    return Group(
        name="/".join(filter(None, ("results", name))),
        caption=captions.get(f"{name}/", "") if name else "What belongs to no profile.",
        tables=tuple(_collected(folder, name, path, captions) for path in found),
        note="" if found else f"There are no tables. To make them: kp2d reproduce --profile {profile}",
    )


def _collected(folder: Path, group: str, path: Path, captions: dict[str, str]) -> Table:
    file = "/".join(filter(None, (FOLDER, group, path.name)))
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / file)
    about = {"name": path.stem, "caption": captions.get(path.name, ""), "file": file}
    try:
        return lay_out(tables.read_csv(path), **about)
    except checks.InputError as error:
        return Table(note=str(error), **about)


def _captions(readme: Path) -> dict[str, str]:
    """Returns what the tables of a README say about files and folders, by name, as Markdown."""
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError:
        return {}
    return {
        name: " ".join(told.split()) for name, told in re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", text, re.M)
    }
