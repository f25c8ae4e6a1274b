"""Owns the result tables: their columns, how they are written and read, and ours beside the paper's."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kp2d import backend, checks, files, paths
from kp2d.evaluate import metrics
from kp2d.methods.extractors import Method


def end_names(name: str) -> tuple[str, str]:
    """Returns what the columns of the ends of a column's interval are called: "d1_low" and "d1_high"."""
    return f"{name}_low", f"{name}_high"


STACKED = "{}<br><sub>{}</sub>"  # a value and below it, in small print, its interval
METRICS = ("repeatability", "localization_error", "d1", "d3", "d5", "matching_score")
SMALLER_IS_BETTER = "localization_error"  # of the metrics, the only one
INTERVALS = tuple(name for metric in METRICS for name in end_names(metric))
MMA = tuple(f"mma_{threshold}" for threshold in metrics.MMA_THRESHOLDS)
COUNTS = ("num_keypoints", "num_matches", "num_inliers")  # means over pairs
SUBSETS = ("viewpoint", "illumination", "all")  # in the order of tables and charts
SCORE_COLUMNS = (
    *("method", "precision", "runtime", "profile", "dataset", "subset"),
    *("num_pairs", "num_sequences", "num_failed", "num_skipped", "image_height", "image_width", "top_k"),
    *METRICS,
    *INTERVALS,
    *MMA,
    *("auc_3", "auc_5", *COUNTS, "bytes_per_keypoint"),
    *("score_threshold", "distance_threshold", "half_pixel", "drop_unrepeated"),
    *("matcher", "estimator", "ransac_threshold", "ransac_iterations", "calibration", "seed"),
)
ORIGIN_COLUMNS = ("device", "config_hash", "weights_sha256", "git_commit")  # what made a row
EVALUATION_COLUMNS = (*SCORE_COLUMNS, *ORIGIN_COLUMNS)
TEXT = (  # columns that stay text when a folder is called 001, nan or true, or a hash has digits alone
    *("method", "precision", "runtime", "profile", "dataset", "subset", "sequence", "pair", "preset"),
    *("model", "variant", "recipe", "group", "kind", "tensor", "stage", "status", "reason", "failure"),
    *("matcher", "estimator", "calibration", "device", "config_hash", "weights_sha256", "git_commit"),
    "content",
)
PAPER_RESULTS = ("hpatches_320x240", "comparison")  # the paper's tables of measured results
_SETTING = ["method", "precision", "image_height", "image_width", "top_k"]
_NOT_A_RESULT = ("git_commit", "device", "cpu_ms")  # who computed a table, and how fast
_DIGITS = {  # others: 3
    **dict.fromkeys(("seconds", "cpu_seconds", "kib"), 0),
    **dict.fromkeys(
        ("network_ms", "decode_ms", "extract_ms", "extract_ms_p90", "match_ms", "bfmatcher_ms"), 1
    ),
    **dict.fromkeys(("times_as_fast_as_float32", "times_as_fast_as_sift", "cpu_ms", "ratio"), 1),
    **dict.fromkeys(("num_keypoints", "num_matches", "num_inliers"), 1),
    **dict.fromkeys(("compute_ms", "transfer_ms", "least_ms"), 2),
    **dict.fromkeys(("residual", "shifted"), 5),
}
HEADINGS = {  # as short as a table on a page wants them
    "top_k": "k",
    "num_pairs": "pairs",
    "num_failed": "failed",
    "num_skipped": "skipped",
    "num_sequences": "sequences",
    "num_compared": "in the mean",
    "num_better": "better on",
    "num_equal": "alike on",
    "num_worse": "worse on",
    "mean_difference": "difference",
    "difference_low": "from",
    "difference_high": "to",
    "localization_error": "localization, px",
    "matching_score": "matching",
    "num_unmapped_before": "on the CPU as converted",
    "num_unmapped": "rewritten",
    "parameter_kib": "parameters, KiB",
    "gmacs": "G multiply-adds",
    "kib": "int8, KiB",
    "arena_kib": "arena, KiB",
    "compute_ms": "arithmetic, ms",
    "transfer_ms": "transfer, ms",
    "least_ms": "at least, ms",
    "extract_ms_p90": "90 % within, ms",
    "compiled_unmapped": "on the CPU, compiled",
    "network_ms": "network, ms",
    "decode_ms": "decoding, ms",
    "extract_ms": "together, ms",
    "match_ms": "matching, ms",
    "bfmatcher_ms": "BFMatcher, ms",
    "cpu_seconds": "processor, s",
    "cpu_ms": "processor, ms",
    "peak_memory_mib": "memory, MiB",
    "refine": "refined",
    "d1_least": "d1, least order",
    "d1_most": "d1, most",
    "times_as_fast_as_sift": "times as fast as SIFT",
    "times_as_fast_as_float32": "times as fast as float32",
    "corner_error": "corners, px",
    "sift_corner_error": "SIFT's corners, px",
    "num_matches": "matches",
    "num_inliers": "inliers",
    "sqnr_score": "score, dB",
    "sqnr_offset": "offset, dB",
    "sqnr_descriptor": "descriptor, dB",
    "delta_repeatability": "Δ repeatability",
    "delta_localization_error": "Δ localization, px",
    "delta_matching_score": "Δ matching",
}


def subset_rank(subset: str) -> tuple[int, str]:
    """Returns what to sort subsets by: the known ones first, others by name."""
    return (SUBSETS.index(subset) if subset in SUBSETS else len(SUBSETS), str(subset))


def of_method(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Returns the rows of a method as for `extractors.create`; of float32 where a name has no precision."""
    named = Method.parse(method).in_tables()
    return rows[(rows["method"] == named.name) & (rows["precision"] == named.precision)]


def of_size(rows: pd.DataFrame, image_size: tuple[int, int]) -> pd.DataFrame:
    """Returns the rows of one image size, (height, width) px."""
    height, width = image_size
    return rows[(rows["image_height"] == height) & (rows["image_width"] == width)]


def write_csv(path: Path | str, rows: pd.DataFrame) -> Path:
    """Writes a table, six significant digits, and returns the path; one with the same results stays as it is.

    Whole numbers keep all digits, whatever type a column got from what it was put together with.
    So a repeated run of the same reproduction changes no file, and the commit named in the rows is the one
    that first computed them.

    Raises:
        InputError: If the place cannot be written.
    """
    path = Path(path)
    text = rows.to_csv(index=False, float_format=_six_digits, lineterminator="\n")
    if path.is_file() and _same_results(path.read_text(encoding="utf-8", errors="replace"), text):
        return path
    return files.write_text(path, text)


def _six_digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) < 2**53 and value.is_integer() else f"{value:.6g}"


def _same_results(old: str, new: str) -> bool:
    def results(text: str) -> pd.DataFrame:
        return pd.read_csv(io.StringIO(text), dtype=str).drop(columns=list(_NOT_A_RESULT), errors="ignore")

    try:
        return results(old).equals(results(new))
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        return False


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a copy with columns that are easier to read, where it has their sources.

    They are `size` ("320×240", width first), `parameter_kib` and `gmacs`.
    """
    rows = rows.copy()
    if {"image_height", "image_width"} <= set(rows):
        rows["size"] = rows["image_width"].astype(str) + "×" + rows["image_height"].astype(str)
    if "parameter_bytes" in rows:
        rows["parameter_kib"] = (rows["parameter_bytes"] / 1024).round().astype(int)
    if "macs" in rows:
        rows["gmacs"] = rows["macs"] / 1e9
    return rows


def read_csv(path: Path | str, columns: tuple[str, ...] = (), *, optional: bool = False) -> pd.DataFrame:
    """Reads a table that must have some columns; a missing file that is `optional` is one without rows.

    Raises:
        InputError: If the file is missing, is no table, or lacks a column.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # to open a pipe would wait for its other end
        raise checks.problem(f"the table {path}", "no file", "Check the name.")
    try:
        text = dict.fromkeys(TEXT, str)
        rows = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=text)
    except FileNotFoundError:
        if optional:
            return pd.DataFrame(columns=list(columns))
        raise checks.problem(f"the table {path}", "no such file", "Run the stage that makes it.") from None
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise checks.problem(f"a table in {path}", str(error)) from error
    missing = [column for column in columns if column not in rows.columns]
    if missing:
        raise checks.problem(f"the columns {', '.join(missing)} in {path}", ", ".join(rows.columns))
    return rows


def paper(name: str) -> pd.DataFrame:
    """Returns one of the tables typed from print: "models", "hpatches_320x240" or "comparison".

    Each row has a `source`, and a `doubt` where the printed value cannot be right.

    Raises:
        InputError: If there is no such table.
    """
    known = sorted(path.stem for path in paths.paper().glob("*.csv"))
    checks.one_of("table of the paper", name, known or ["(none: the checkout is incomplete)"])
    return read_csv(paths.paper() / f"{name}.csv", ("source", "doubt"))


def with_intervals(
    rows: pd.DataFrame, metrics: Sequence[str] = METRICS, *, form: str = "{} ({})"
) -> pd.DataFrame:
    """Returns a table whose metrics are text with their 95 % intervals: "0.834 (0.790–0.871)".

    The ends are in `<metric>_low` and `<metric>_high`; `form` is what value and interval are put into, where
    there is an interval.
    """
    rows = rows.copy()
    for metric in metrics:
        records = rows[[metric, *end_names(metric)]].itertuples(index=False, name=None)
        rows[metric] = [_with_interval(metric, value, interval_text(*ends), form) for value, *ends in records]
    return rows


def _with_interval(metric: str, value: float, interval: str, form: str) -> str:
    text = cell_text(metric, float(value))
    return form.format(text, interval) if interval and not pd.isna(value) else text


def interval_text(low: float, high: float) -> str:
    """Returns an interval as every table shows it, "0.790–0.871" or "-0.010 to 0.004"; "" without one."""
    if pd.isna(low):
        return ""
    low, high = (round(end, 3) + 0.0 for end in (low, high))  # + 0.0: no minus before a zero
    return f"{low:.3f} to {high:.3f}" if low < 0 else f"{low:.3f}–{high:.3f}"


def markdown(rows: pd.DataFrame, columns: Sequence[str] = ()) -> str:
    """Formats a table, or some of its columns, as GitHub markdown: fractions to three decimals."""
    columns = list(columns) or list(rows.columns)
    numeric = {name: pd.api.types.is_numeric_dtype(rows[name]) for name in columns}
    lines = [
        "| " + " | ".join(HEADINGS.get(name, name) for name in columns) + " |",
        "|" + "|".join("---:" if numeric[name] else "---" for name in columns) + "|",
    ]
    lines += [
        "| " + " | ".join(cell_text(name, value) for name, value in zip(columns, record, strict=True)) + " |"
        for record in rows[columns].itertuples(index=False)
    ]
    return "\n".join(lines)


def cell_text(column: str, value: object) -> str:
    """Returns a value as tables show it: "–" for none, fractions to the digits of their column."""
    if pd.isna(value):
        return "–"
    if not isinstance(value, float):
        return str(value)
    digits = _DIGITS.get(column, 3)
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def fill_markers(text: str, blocks: dict[str, str]) -> str:
    """Replaces what stands between `<!-- table:NAME -->` and `<!-- /table:NAME -->` by blocks by name.

    Raises:
        InputError: If a pair of markers is missing.
    """
    for name, block in blocks.items():
        pattern = rf"(<!-- table:{re.escape(name)} -->\n).*?(<!-- /table:{re.escape(name)} -->)"
        text, count = re.subn(
            pattern, lambda found, block=block: f"{found[1]}{block}\n{found[2]}", text, flags=re.S
        )
        if count != 1:
            raise checks.problem(f"one pair of markers table:{name}", f"{count} pairs")
    return text


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
    for name in PAPER_RESULTS:
        printed = paper(name)
        ours = rows.loc[rows["subset"] == "all", [*_SETTING, "dataset", *METRICS, *INTERVALS]]
        joined = printed.merge(ours, on=_SETTING, how="left", suffixes=("_paper", ""))
        for metric in METRICS:
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
    return column.map(PAPER_RESULTS.index) if column.name == "table" else column


def beside_models() -> pd.DataFrame:
    """Sets our networks beside the paper's table of models.

    Returns:
        One row a model × quantity: ours, paper, difference (ours - paper), source and doubt. The quantities:
        `parameters`; `float_mb` and `int8_mb`, four bytes and one byte a parameter in units of 2^20 bytes;
        `int8_file_mb`, the shipped model as a whole, of which the paper says nothing.
    """
    backend.quiet()
    from kp2d.methods import networks, weights  # Keras comes with them

    rows: list[tuple[str, str, float, float]] = []
    for printed in paper("models").to_dict("records"):
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
    return table.merge(paper("models")[["model", "source", "doubt"]], on="model")
