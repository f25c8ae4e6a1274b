"""Owns the generated tables of README.md, results/README.md and docs/: what they show, in which columns."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from kp2d import backend, checks, paths
from kp2d.evaluate import tables
from kp2d.methods import learned, weights
from kp2d.reproduce import chain

_SIZE = (240, 320)
_SPEED = "times_as_fast_as_sift"
_TUNED_ON = "bench"  # the real pairs by which settings were chosen; `bench2` lies beside them
_COLUMNS = ("method", "precision", "top_k", *tables.METRICS)

# The README's table: pairs, and the methods shown on them. At most seven rows.
_OURS, _REFERENCE = ("kp2d_tiny_s", "int8"), ("sift", "float32")
_HEADLINE = (
    ("bench", "illumination", (_OURS, _REFERENCE, ("orb", "float32"))),
    ("bench", "viewpoint", (_OURS, _REFERENCE)),
    ("bench2", "viewpoint", (_OURS, _REFERENCE)),
)


def documents() -> tuple[str, ...]:
    """Returns the documents that may hold generated tables, relative to the project."""
    pages = sorted(path.name for path in (paths.home() / "docs").glob("*.md"))
    return ("README.md", "results/README.md", *(f"docs/{name}" for name in pages))


def fill(text: str) -> str:
    """Returns a document with every generated table renewed from the files in results/.

    Each table stands between `<!-- table:NAME -->` and `<!-- /table:NAME -->`.

    Raises:
        InputError: If a result, a pair of markers or a table of that name is missing.
    """
    names = re.findall(r"<!-- table:(\w+) -->", text)
    for name in names:
        checks.one_of("generated table", name, BLOCKS)
    return tables.fill_markers(text, {name: BLOCKS[name]() for name in names})


def _headline() -> str:
    """Our network beside SIFT on each kind of pairs; then, from the same rows, what SIFT does better."""
    shown, ahead = [], []
    for dataset, subset, methods in _HEADLINE:
        rows = _evaluation("bench", top_k=1000, dataset=dataset)
        rows = rows[rows["subset"] == subset].set_index(["method", "precision"])
        rows = rows.loc[[key for key in methods if key in rows.index]].reset_index()
        if len(rows) > 1:
            pairs = f"`{dataset}`, {subset}, {rows['num_pairs'].iloc[0]} pairs"
            shown.append(rows.assign(pairs=pairs))
            ahead += [f"{where} on {pairs}" for where in _ahead(rows)]
    times = _latencies()[["method", "precision", "image_height", "image_width", _SPEED]]
    rows = pd.concat(shown).merge(times, how="left")
    rows["speed"] = [f"{tables.cell_text(_SPEED, value)} ×" for value in rows[_SPEED]]
    table = tables.markdown(_with_ends(rows), ("pairs", "method", "precision", *tables.METRICS, "speed"))
    return f"{table}\n\nWhere SIFT is ahead of {_OURS[0]}: {'; '.join(ahead) or 'in none of these'}."


def _ahead(rows: pd.DataFrame) -> Iterator[str]:
    """Yields each metric in which the reference is better than our network, with both values."""
    by_method = rows.set_index(["method", "precision"])
    for metric in tables.METRICS:
        ours, reference = by_method.loc[_OURS, metric], by_method.loc[_REFERENCE, metric]
        if reference < ours if metric == tables.SMALLER_IS_BETTER else reference > ours:
            yield f"{tables.HEADINGS.get(metric, metric)} ({reference:.3f} against {ours:.3f})"


def _with_ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns rows whose metrics are text with the ends of their intervals in small print below."""
    return tables.with_intervals(rows, form=tables.STACKED)


def _networks() -> str:
    """What each network costs in int8, and what it reaches on the real pairs."""
    backend.quiet()
    from kp2d.methods import networks

    scores = _evaluation("bench", top_k=1000, dataset=_TUNED_ON)
    scores = scores.query("subset == 'all' and precision == 'int8'")
    times = _latencies().query("precision == 'int8'")[["method", "image_height", "image_width", _SPEED]]
    rows = scores.merge(times, how="left", on=["method", "image_height", "image_width"])
    rows = tables.readable(
        rows.assign(
            parameters=[networks.get_preset(name).num_parameters for name in rows["method"]],
            macs=[networks.count_macs(name, _SIZE) for name in rows["method"]],
            kib=[weights.shipped_path(name, "int8").stat().st_size / 1024 for name in rows["method"]],
        )
    ).sort_values("macs")
    costs = ("parameters", "gmacs", "kib", _SPEED)
    return tables.markdown(rows, ("method", *costs, "repeatability", "d3", "matching_score"))


def _against_sift() -> str:
    rows = tables.read_csv(paths.results() / "bench" / "against_sift.csv")
    rows = rows[(rows["top_k"] == 1000) & (rows["metric"] != "corner_error")]
    rows = rows[rows["method"].str.startswith("kp2d") & (rows["precision"] == "int8")]
    counts = ("num_better", "num_equal", "num_worse")
    differences = ("mean_difference", "difference_low", "difference_high")
    several = ("dataset",) if "dataset" in rows and len(rows["dataset"].unique()) > 1 else ()
    return tables.markdown(rows, ("method", *several, "subset", "metric", *counts, *differences))


def _estimators() -> str:
    """d1 and d3 of the same matches by each estimator, with the least and the most order in small print."""
    rows = tables.read_csv(paths.results() / "bench" / "estimators.csv")
    rows = rows[rows["subset"] != "all"]
    steps = {
        "RANSAC": ("opencv-ransac", False),
        "accurate": ("opencv-usac-accurate", False),
        "refined": ("opencv-usac-accurate", True),
    }
    key = ["method", "precision", "dataset", "subset"]
    parts = []
    for name, (estimator, refine) in steps.items():
        part = rows[(rows["estimator"] == estimator) & (rows["refine"] == refine)].set_index(key)
        for metric in ("d1", "d3"):
            texts = [
                f"{mean:.3f}<br><sub>{least:.3f}–{most:.3f}</sub>"
                for mean, least, most in part[[metric, f"{metric}_least", f"{metric}_most"]].to_numpy()
            ]
            parts.append(pd.Series(texts, part.index, name=f"{metric} {name}"))
    table = pd.concat(sorted(parts, key=lambda column: column.name[:2]), axis=1).reset_index()
    return tables.markdown(table)


def _pyramid() -> str:
    """Each kind of pairs: networks without an image pyramid, and with one of two levels."""
    rows = tables.read_csv(paths.results() / "bench" / "pyramid.csv")
    rows = rows[rows["subset"] != "all"]
    scaled = [f"scale {amount:.3g}" for amount in rows["amount"]]
    rows["pairs"] = np.where(rows["subset"] == "scale", scaled, rows["subset"])
    networks = rows["method"].str.partition(learned.PYRAMID)
    rows["method"] = networks[0]
    key = ["method", "dataset", "pairs"]
    plain, leveled = (rows[(networks[1] != "") == told].set_index(key) for told in (False, True))
    table = plain.index.to_frame(index=False)
    for name in (*tables.METRICS, "cpu_ms"):
        values = zip(plain[name], leveled.loc[plain.index, name], strict=True)
        table[name] = [" → ".join(tables.cell_text(name, value) for value in both) for both in values]
    return tables.markdown(table)


def _comparison(folder: str, *, top_k: int, image_size: tuple[int, int] = _SIZE) -> str:
    rows = _evaluation(folder, top_k=top_k, image_size=image_size)
    rows = rows[rows["subset"] != "all"]
    parts = []
    for (dataset, subset), part in rows.groupby(["dataset", "subset"], sort=False):
        pairs, scenes = part[["num_pairs", "num_sequences"]].iloc[0]
        parts.append(f"`{dataset}`, {subset}, {pairs} pairs from {scenes} sequences:\n")
        parts.append(tables.markdown(_with_ends(part), _COLUMNS) + "\n")
    return "\n".join(parts).rstrip()


def _evaluation(
    folder: str, *, top_k: int, image_size: tuple[int, int] = _SIZE, dataset: str | None = None
) -> pd.DataFrame:
    """Rows of an `evaluation.csv` at one size and k; of one of the data sets in it, or of all."""
    rows = tables.read_csv(paths.results() / folder / "evaluation.csv", tables.SCORE_COLUMNS)
    rows = tables.of_size(rows, image_size)
    rows = rows[rows["top_k"] == top_k]
    return rows if dataset is None else rows[rows["dataset"] == dataset]


def _int8() -> str:
    sizes = (((88, 88), 150), ((240, 320), 300), ((240, 320), 1000), ((480, 640), 1000))
    parts = [_evaluation("bench", top_k=top_k, image_size=size, dataset=_TUNED_ON) for size, top_k in sizes]
    rows = tables.readable(pd.concat(parts))
    rows = rows[(rows["subset"] == "all") & rows["method"].str.startswith("kp2d")]
    return tables.markdown(_with_ends(rows), ("method", "size", *_COLUMNS[1:]))


def _latency() -> str:
    rows = tables.readable(_latencies())
    parts = ("network_ms", "decode_ms", "extract_ms", "match_ms", "bfmatcher_ms")
    shown = [name for name in parts if name in rows]  # tables of before have no BFMatcher
    return tables.markdown(rows, ("method", "size", "precision", "threads", *shown, _SPEED))


def _latencies() -> pd.DataFrame:
    rows = tables.read_csv(paths.results() / "bench" / "latency.csv")
    return rows[rows["precision"].isin(["float32", "int8"]) & (rows["threads"] == rows["threads"].max())]


def _stages() -> str:
    rows = tables.read_csv(paths.results() / "fast" / "bench_stages.csv")
    return tables.markdown(rows, ("stage", "seconds", "cpu_seconds", "peak_memory_mib"))


def _notebooks() -> str:
    """The notebooks: number, question and, of profile `fast`, seconds."""
    seconds = tables.read_csv(paths.results() / "fast" / "bench_stages.csv").set_index("stage")["seconds"]
    lines = ["| notebook | question | seconds |", "|---|---|---:|"]
    for path in sorted(paths.notebooks().glob("*.ipynb")):
        title, _, question, *_ = "".join(chain.read_cells(path)[0]["source"]).splitlines()
        link = f"[{title.removeprefix('# ')}](notebooks/{path.name})"
        taken = f"{seconds[path.stem]:.0f}" if path.stem in seconds.index else "–"  # 00 is no stage
        lines.append(f"| {link} | {question.strip('*')} | {taken} |")
    return "\n".join([*lines, f"| all | | {seconds.sum():.0f} |"])


def _settings(part: str = "") -> str:
    """The settings of a training run, or of one part of it, as the two recipes have them."""
    from kp2d.train import recipes

    runs = [recipes.from_recipe(name, data="", output="") for name in ("kp2d_plus", "kp2d")]
    settings = [getattr(run, part) if part else run for run in runs]
    lines = ["| setting | `kp2d_plus` | `kp2d` | meaning |", "|---|---|---|---|"]
    for name, meaning in _attributes(type(settings[0])).items():
        values = [getattr(setting, name) for setting in settings]
        if name not in ("recipe", "data", "output") and not dataclasses.is_dataclass(values[0]):
            shown = " | ".join("–" if value is None else str(value) for value in values)
            lines.append(f"| `{f'{part}.{name}' if part else name}` | {shown} | {meaning} |")
    return "\n".join(lines)


def _attributes(kind: type[Any]) -> dict[str, str]:
    """Returns what the docstring of a dataclass says of each attribute."""
    text = inspect.getdoc(kind) or ""
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text.partition("Attributes:")[2], flags=re.M)
    return {name: " ".join(meaning.split()).replace("|", "\\|") for name, meaning in found}


def _edgetpu() -> str:
    rows = tables.readable(tables.read_csv(paths.results() / "fast" / "compile.csv"))
    operators = ("num_unmapped_before", "num_unmapped")
    columns = ("method", "size", *operators, "parameter_kib", "gmacs", "compute_ms", "transfer_ms")
    return tables.markdown(rows[rows["precision"] == "int8"], columns)


def _recipes() -> str:
    rows = tables.read_csv(paths.results() / "recipes.csv")
    return tables.markdown(_with_ends(rows[rows["subset"] == "all"]), ("variant", "pairs", *tables.METRICS))


_TIMES = {  # column of results/networks.csv to its heading
    "ms_88x88_2": "88×88, ms",
    "ms_240x320_1": "320×240, 1 thread",
    "ms_240x320_2": "320×240, ms",
    "ms_480x640_2": "640×480, ms",
}


def _small_networks() -> str:
    rows = tables.read_csv(paths.results() / "networks.csv")
    rows = rows[rows["subset"] == "all"].sort_values("ms_240x320_2")
    rows = _with_ends(rows).assign(arena_kib=rows["arena_kib"].round().astype(int)).rename(columns=_TIMES)
    costs = ("parameters", "kib", "arena_kib", "gmacs", *_TIMES.values())
    return tables.markdown(rows, ("network", *costs, "d1", "d3", "matching_score"))


def _paper() -> str:
    """Both of the paper's tables of results at 320×240: each printed row, then ours and the difference."""
    rows = tables.read_csv(paths.results() / "bench" / "paper_comparison.csv")
    rows = tables.of_size(rows, _SIZE)
    rows = rows[~rows["method"].str.startswith("kp2d_v")]
    rows = rows[rows["dataset"].isin([_TUNED_ON]) | rows["dataset"].isna()]  # none: the paper's alone
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
    "estimators": _estimators,
    "pyramid": _pyramid,
    "bench": lambda: _comparison("bench", top_k=1000),
    "bench88": lambda: _comparison("bench", top_k=150, image_size=(88, 88)),
    "sample": lambda: _comparison("fast", top_k=300),
    "int8": _int8,
    "latency": _latency,
    "edgetpu": _edgetpu,
    "notebooks": _notebooks,
    "stages": _stages,
    "run_settings": _settings,
    "loss_settings": lambda: _settings("loss"),
    "augment_settings": lambda: _settings("augment"),
    "paper": _paper,
    "models": _models,
    "recipes": _recipes,
    "small_networks": _small_networks,
}
