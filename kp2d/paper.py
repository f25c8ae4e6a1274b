"""Owns ours beside the paper: its printed tables, regenerated with our values and the differences."""

from __future__ import annotations

import pandas as pd

from kp2d import learned, networks, tables

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
    parts = []
    for printed in tables.paper("models").to_dict("records"):
        parameters = networks.get_preset(printed["model"]).num_parameters
        ours = {"parameters": parameters, "float_mb": 4 * parameters / 2**20, "int8_mb": parameters / 2**20}
        if printed["model"] in learned.shipped("int8"):
            model = learned.PRETRAINED / f"{printed['model']}{learned.SUFFIXES['int8']}"
            ours["int8_file_mb"] = model.stat().st_size / 2**20
        parts += [
            {
                "model": printed["model"],
                "quantity": quantity,
                "ours": value,
                "paper": printed.get(quantity),
                "source": printed["source"],
                "doubt": printed["doubt"],
            }
            for quantity, value in ours.items()
        ]
    table = pd.DataFrame(parts)
    table["paper"] = table["paper"].astype(float)
    table.insert(4, "difference", table["ours"] - table["paper"])
    return table
