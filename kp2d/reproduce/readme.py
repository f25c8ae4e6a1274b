"""Owns the generated tables of README.md and results/README.md: which results they show, in which columns."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from kp2d import checks, paths
from kp2d.evaluate import tables
from kp2d.methods import learned

DOCUMENTS = ("README.md", "results/README.md")
_SIZE = (240, 320)
_COLUMNS = ("method", "precision", "top_k", *tables.METRICS)


def fill(text: str) -> str:
    """Returns a document with every generated table renewed from the files in results/.

    Args:
        text: The document; each table stands between `<!-- table:NAME -->` and `<!-- /table:NAME -->`.

    Raises:
        InputError: If a result, a pair of markers or a table of that name is missing.
    """
    names = re.findall(r"<!-- table:(\w+) -->", text)
    for name in names:
        checks.one_of("generated table", name, BLOCKS)
    return tables.fill_markers(text, {name: BLOCKS[name]() for name in names})


def _headline() -> str:
    rows = _evaluation("bench", top_k=1000)
    rows = rows[(rows["subset"] == "all") & (rows["precision"] != "int8_ptq")]
    return tables.markdown(_with_ends(rows), ("method", "precision", *tables.METRICS))


def _with_ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns rows whose metrics are text with the ends of their intervals in small print below."""
    rows = rows.copy()
    for metric in tables.METRICS:
        ends = zip(rows[metric], rows[f"{metric}_low"], rows[f"{metric}_high"], strict=True)
        rows[metric] = [
            f"{value:.3f}" if pd.isna(low) else f"{value:.3f}<br><sub>{low:.2f}–{high:.2f}</sub>"
            for value, low, high in ends
        ]
    return rows


def _networks() -> str:
    """What each network costs in int8, and what it reaches on the real pairs."""
    from kp2d.methods import networks

    scores = _evaluation("bench", top_k=1000).query("subset == 'all' and precision == 'int8'")
    times = _latencies().query("precision == 'int8'")[["method", "image_height", "image_width", "extract_ms"]]
    rows = scores.merge(times, how="left", on=["method", "image_height", "image_width"])
    rows = tables.readable(
        rows.assign(
            parameters=[networks.get_preset(name).num_parameters for name in rows["method"]],
            macs=[networks.count_macs(name, _SIZE) for name in rows["method"]],
            kib=[_model_bytes(name) / 1024 for name in rows["method"]],
        )
    ).sort_values("macs")
    costs = ("parameters", "gmacs", "kib", "extract_ms")
    return tables.markdown(rows, ("method", *costs, "repeatability", "d3", "matching_score"))


def _model_bytes(name: str) -> int:
    return (learned.PRETRAINED / f"{name}{learned.SUFFIXES['int8']}").stat().st_size


def _against_sift() -> str:
    rows = tables.read_csv(paths.results() / "bench" / "against_sift.csv")
    rows = rows[(rows["top_k"] == 1000) & (rows["metric"] != "corner_error")]
    rows = rows[rows["method"].str.startswith("kp2d") & (rows["precision"] == "int8")]
    counts = ("num_better", "num_equal", "num_worse")
    differences = ("mean_difference", "difference_low", "difference_high")
    return tables.markdown(rows, ("method", "subset", "metric", *counts, *differences))


def _comparison(folder: str, *, top_k: int, image_size: tuple[int, int] = _SIZE) -> str:
    rows = _evaluation(folder, top_k=top_k, image_size=image_size)
    parts = []
    for subset in ("viewpoint", "illumination"):
        part = rows[rows["subset"] == subset]
        pairs, scenes = part[["num_pairs", "num_sequences"]].iloc[0]
        parts.append(f"{subset.capitalize()}, {pairs} pairs from {scenes} sequences:\n")
        parts.append(tables.markdown(_with_ends(part), _COLUMNS) + "\n")
    return "\n".join(parts).rstrip()


def _evaluation(folder: str, *, top_k: int, image_size: tuple[int, int] = _SIZE) -> pd.DataFrame:
    rows = tables.read_csv(paths.results() / folder / "evaluation.csv", tables.EVALUATION_COLUMNS)
    here = (rows["image_height"] == image_size[0]) & (rows["image_width"] == image_size[1])
    return rows[here & (rows["top_k"] == top_k)]


def _int8() -> str:
    sizes = (((88, 88), 150), ((240, 320), 300), ((240, 320), 1000), ((480, 640), 1000))
    parts = [_evaluation("bench", top_k=top_k, image_size=size) for size, top_k in sizes]
    rows = tables.readable(pd.concat(parts))
    rows = rows[(rows["subset"] == "all") & rows["method"].str.startswith("kp2d")]
    return tables.markdown(_with_ends(rows), ("method", "size", *_COLUMNS[1:]))


def _speed() -> str:
    rows = _latencies()
    rows = rows[(rows["image_height"] == _SIZE[0]) & (rows["image_width"] == _SIZE[1])]
    return tables.markdown(rows, ("method", "precision", "extract_ms", "match_ms", "times_as_fast_as_sift"))


def _latency() -> str:
    milliseconds = ("network_ms", "decode_ms", "extract_ms", "match_ms")
    columns = ("method", "size", "precision", "threads", *milliseconds, "times_as_fast_as_sift")
    return tables.markdown(tables.readable(_latencies()), columns)


def _latencies() -> pd.DataFrame:
    rows = tables.read_csv(paths.results() / "bench" / "latency.csv")
    return rows[rows["precision"].isin(["float32", "int8"]) & (rows["threads"] == rows["threads"].max())]


def _stages() -> str:
    rows = tables.read_csv(paths.results() / "fast" / "bench_stages.csv")
    return tables.markdown(rows, ("stage", "seconds", "cpu_seconds", "peak_memory_mib"))


def _edgetpu() -> str:
    rows = tables.readable(tables.read_csv(paths.results() / "fast" / "compile.csv"))
    operators = ("num_unmapped_before", "num_unmapped")
    columns = ("method", "size", *operators, "parameter_kib", "gmacs", "compute_ms", "transfer_ms")
    return tables.markdown(rows[rows["precision"] == "int8"], columns)


def _recipes() -> str:
    rows = tables.read_csv(paths.results() / "recipes.csv")
    return tables.markdown(_with_ends(rows[rows["subset"] == "all"]), ("variant", "pairs", *tables.METRICS))


def _paper() -> str:
    """Both of the paper's tables of results at 320×240: each printed row, then ours and the difference."""
    rows = tables.read_csv(paths.results() / "bench" / "paper_comparison.csv")
    rows = rows[(rows["image_height"] == _SIZE[0]) & ~rows["method"].str.startswith("kp2d_v")]
    setting = ["table", "method", "precision", "top_k"]
    parts = []
    for key, part in rows.groupby(setting, sort=False):
        values = part.set_index("metric")
        doubt = "" if part["doubt"].isna().all() else " †"
        for what in ("paper", "ours", "difference"):
            if values[what].notna().any():
                whose = f"{what}{doubt}" if what == "paper" else what
                parts.append({**dict(zip(setting, key, strict=True)), "whose": whose, **values[what]})
    columns = ("table", "method", "precision", "top_k", "whose", *tables.METRICS)
    return tables.markdown(pd.DataFrame(parts), columns)


def _models() -> str:
    rows = tables.read_csv(paths.results() / "bench" / "paper_models.csv")
    digits = np.where(rows["quantity"] == "parameters", 0, 2)
    for name in ("ours", "paper", "difference"):
        texts = [
            f"{round(value, count) + 0.0:.{count}f}"  # + 0.0: no minus before a zero
            for value, count in zip(rows[name], digits, strict=True)
        ]
        rows[name] = ["–" if text == "nan" else text for text in texts]
    return tables.markdown(rows, ("model", "quantity", "ours", "paper", "difference"))


BLOCKS: dict[str, Callable[[], str]] = {
    "headline": _headline,
    "networks": _networks,
    "against_sift": _against_sift,
    "bench": lambda: _comparison("bench", top_k=1000),
    "bench88": lambda: _comparison("bench", top_k=150, image_size=(88, 88)),
    "sample": lambda: _comparison("fast", top_k=300),
    "int8": _int8,
    "speed": _speed,
    "latency": _latency,
    "edgetpu": _edgetpu,
    "stages": _stages,
    "paper": _paper,
    "models": _models,
    "recipes": _recipes,
}
