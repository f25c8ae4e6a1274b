"""Owns the generated tables of README.md: which results they show, and in which columns."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kp2d import paths, tables

_COLUMNS = ("method", "precision", "top_k", *tables.METRICS)


def fill(text: str) -> str:
    """Returns the README with every generated table renewed from the files in results/.

    Args:
        text: The README; each table stands between `<!-- table:NAME -->` and `<!-- /table:NAME -->`.

    Raises:
        InputError: If a result or a pair of markers is missing.
    """
    blocks = {
        "bench": _comparison("bench/evaluation", 1000),
        "bench88": _comparison("bench/evaluation_88x88", 150),
        "sample": _comparison("fast/evaluation", 300),
        "int8": _int8(),
        "latency": _latency(),
        "edgetpu": _edgetpu(),
        "paper": _paper(),
        "recipes": _recipes(),
    }
    return tables.fill_markers(text, blocks)


def _comparison(name: str, top_k: int) -> str:
    rows = tables.read_csv(paths.results() / f"{name}.csv", tables.EVALUATION_COLUMNS)
    rows = rows[rows["top_k"] == top_k]
    parts = []
    for subset in ("viewpoint", "illumination"):
        part = rows[rows["subset"] == subset]
        parts.append(f"{subset.capitalize()}, {part['num_pairs'].iloc[0]} pairs:\n")
        parts.append(tables.markdown(part, _COLUMNS) + "\n")
    return "\n".join(parts).rstrip()


def _int8() -> str:
    parts = []
    for name, top_k in (("bench/evaluation", (300, 1000)), ("bench/evaluation_88x88", (150,))):
        rows = tables.read_csv(paths.results() / f"{name}.csv", tables.EVALUATION_COLUMNS)
        rows = rows[rows["method"].str.startswith("kp2d") & rows["top_k"].isin(top_k)]
        parts.append(rows[rows["subset"] == "all"])
    rows = pd.concat(parts)
    return tables.markdown(tables.readable(rows), ("method", "size", *_COLUMNS[1:]))


def _latency() -> str:
    rows = tables.readable(tables.read_csv(paths.results() / "bench" / "latency.csv"))
    milliseconds = ("network_ms", "decode_ms", "extract_ms", "match_ms")
    columns = ("method", "size", "precision", "threads", *milliseconds, "times_as_fast_as_sift")
    rows = rows[rows["precision"].isin(["float32", "int8"]) & (rows["threads"] == rows["threads"].max())]
    return tables.markdown(rows, columns)


def _edgetpu() -> str:
    rows = tables.readable(tables.read_csv(paths.results() / "fast" / "compile.csv"))
    operators = ("num_unmapped_before", "num_unmapped")
    columns = ("method", "size", *operators, "parameter_kib", "gmacs", "compute_ms", "transfer_ms")
    return tables.markdown(rows[rows["precision"] == "int8"], columns)


def _recipes() -> str:
    rows = tables.read_csv(paths.results() / "recipes.csv")
    return tables.markdown(rows[rows["subset"] == "all"], ("variant", "pairs", *tables.METRICS))


def _paper() -> str:
    printed = tables.paper("comparison")
    printed = printed[(printed["image_height"] == 240) & ~printed["method"].str.startswith("kp2d_v")]
    printed["method"] += np.where(printed["doubt"].isna(), "", " †")
    return tables.markdown(printed, _COLUMNS)
