"""Owns ours beside the paper: its printed tables, regenerated with our values and the differences."""

from __future__ import annotations

import math

import pandas as pd

from kp2d.evaluate import tables
from kp2d.methods import networks, weights

RESULTS = ("hpatches_320x240", "comparison")  # tables of measured results
_SETTING = ["method", "precision", "image_height", "image_width", "top_k"]


def beside_results(rows: pd.DataFrame) -> pd.DataFrame:
    """Sets our rows beside both of the paper's tables of results.

    Args:
        rows: Evaluation rows; only the subset "all" has a counterpart in print.

    Returns:
        One row a printed setting × metric, in the paper's order: table, the setting, our data set (the
        paper's is HPatches: a difference means something only on the same data), metric, ours with its 95 %
        interval, paper, difference (ours - paper), source and doubt. Ours is missing where we have no such
        setting.
    """
    parts = []
    for name in RESULTS:
        printed = tables.paper(name)
        ours = rows.loc[rows["subset"] == "all", [*_SETTING, "dataset", *tables.METRICS, *tables.INTERVALS]]
        joined = printed.merge(ours, on=_SETTING, how="left", suffixes=("_paper", ""))
        for metric in tables.METRICS:
            values = {
                "metric": metric,
                "ours": joined[metric],
                **{end: joined[f"{metric}_{end}"] for end in ("low", "high")},
                "paper": joined[f"{metric}_paper"],
                "difference": joined[metric] - joined[f"{metric}_paper"],
            }
            place = {"table": name, "place": joined.index}
            parts.append(joined[[*_SETTING, "dataset", "source", "doubt"]].assign(**place, **values))
    table = pd.concat(parts).sort_values(["table", "place"], key=_printed_order, kind="stable")
    columns = ("dataset", "metric", "ours", "low", "high", "paper", "difference", "source", "doubt")
    return table[["table", *_SETTING, *columns]].reset_index(drop=True)


def _printed_order(column: pd.Series) -> pd.Series:
    return column.map(RESULTS.index) if column.name == "table" else column


def beside_models() -> pd.DataFrame:
    """Sets our networks beside the paper's table of models.

    Returns:
        One row a model × quantity: ours, paper, difference (ours - paper), source and doubt. The quantities:
        `parameters`; `float_mb` and `int8_mb`, four bytes and one byte a parameter in units of 2^20 bytes;
        `int8_file_mb`, the shipped model as a whole, of which the paper says nothing.
    """
    rows: list[tuple[str, str, float, float]] = []
    for printed in tables.paper("models").to_dict("records"):
        name, count = printed["model"], networks.get_preset(printed["model"]).num_parameters
        rows.append((name, "parameters", count, int(printed["parameters"])))
        for quantity, size in (("float_mb", 4 * count), ("int8_mb", count)):
            rows.append((name, quantity, round(size / 2**20, 4), printed[quantity]))
        if name in weights.shipped("int8"):
            model = weights.shipped_path(name, "int8")
            rows.append((name, "int8_file_mb", round(model.stat().st_size / 2**20, 4), math.nan))
    table = pd.DataFrame(
        [(*row, round(row[2] - row[3], 4)) for row in rows],
        columns=["model", "quantity", "ours", "paper", "difference"],
        dtype=object,  # whole numbers stay such: as floats they would be written with six digits
    )
    return table.merge(tables.paper("models")[["model", "source", "doubt"]], on="model")
