"""Owns the averages of pair scores: what one is taken over, its interval, and its row in a result table.

Intervals come from the bootstrap over whole sequences, whose pairs are not independent.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kp2d import checks, provenance
from kp2d.config import Protocol, fingerprint
from kp2d.evaluate import metrics, tables
from kp2d.methods.extractors import Extractor, weights_hash

RESAMPLES = 2000
LEVEL = 0.95  # share of the draws' means inside an interval


def result_rows(
    pairs: pd.DataFrame, extractor: Extractor, protocol: Protocol, *, profile: str
) -> pd.DataFrame:
    """Averages the scores of one method into result rows that repeat their whole protocol.

    The pairs are from `evaluation.evaluate`, of this method alone; columns: `tables.EVALUATION_COLUMNS`.
    """
    binary = extractor.binary
    summary = summarize(pairs, drop_unrepeated=protocol.drop_unrepeated)
    return summary.assign(
        profile=profile,
        image_height=protocol.image_size[0],
        image_width=protocol.image_size[1],
        bytes_per_keypoint=extractor.descriptor_bytes,
        score_threshold=protocol.score_threshold if extractor.probabilistic else 0.0,
        distance_threshold=protocol.distance_threshold,
        half_pixel=protocol.half_pixel,
        drop_unrepeated=protocol.drop_unrepeated,
        matcher="mutual-hamming" if binary else "mutual-l2",
        estimator="opencv-ransac",
        ransac_threshold=protocol.ransac_threshold,
        ransac_iterations=protocol.ransac_iterations,
        calibration=extractor.calibration,
        seed=protocol.seed,
        device=provenance.device(extractor.runtime),
        config_hash=fingerprint(protocol, extractor.settings()),
        weights_sha256=weights_hash(extractor),
        git_commit=provenance.git_commit(),
    )[list(tables.EVALUATION_COLUMNS)]


def summarize(pairs: pd.DataFrame, *, drop_unrepeated: bool = False) -> pd.DataFrame:
    """Averages pair scores into one row a method × precision × runtime × data set × subset × k.

    Localization error is averaged over the pairs that have one; everything else over all pairs that were
    read, failed ones counting 0. Beside each metric stand the ends of its 95 % interval (`d1_low`,
    `d1_high`), from the bootstrap over sequences.

    Args:
        pairs: From `evaluation.evaluate`; several methods may be concatenated.
        drop_unrepeated: Leave pairs without a repeated point out of the repeatability (KP2Dtiny's choice).

    Returns:
        Rows in the order of appearance, each data set's subsets followed by "all".
    """
    return pd.DataFrame(
        [{**setting, **_average(scores, drop_unrepeated)} for setting, scores in by_setting(pairs)]
    )


def by_setting(pairs: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yields what one average is taken over (method, precision, runtime, data set, subset, k) and its pairs.

    Several methods may be concatenated. Without the column `dataset`, all pairs belong to one.
    """
    names = [name for name in ("method", "precision", "runtime", "dataset") if name in pairs]
    for key, group in pairs.groupby(names, sort=False):
        for subset in [*sorted(group["subset"].unique(), key=tables.subset_rank), "all"]:
            chosen = group if subset == "all" else group[group["subset"] == subset]
            for top_k, scores in chosen.groupby("top_k", sort=True):
                yield {**dict(zip(names, key, strict=True)), "subset": subset, "top_k": top_k}, scores


def counted(pairs: pd.DataFrame, *, drop_unrepeated: bool = False) -> pd.DataFrame:
    """Returns the metrics of pairs that were read as their means take them: NaN where one leaves a pair out.

    With `drop_unrepeated`, pairs without a repeated point are out of the repeatability.
    """
    values = pairs[list(tables.METRICS)].astype(float)
    if drop_unrepeated:
        values["repeatability"] = values["repeatability"].where(values["repeatability"] > 0)
    return values


def _average(scores: pd.DataFrame, drop_unrepeated: bool) -> dict[str, Any]:
    read = scores[scores["status"] != "skipped"]
    values = (
        read[[*tables.MMA, *tables.COUNTS]].astype(float).join(counted(read, drop_unrepeated=drop_unrepeated))
    )
    errors = read["corner_error"].to_numpy(dtype=float)
    return {
        "num_pairs": len(read),
        "num_sequences": read["sequence"].nunique(),
        "num_failed": int((read["status"] == "failed").sum()),
        "num_skipped": len(scores) - len(read),
        **values.mean().to_dict(),
        **named_intervals(values[list(tables.METRICS)], read["sequence"]),
        "auc_3": metrics.area_under_curve(errors, 3),
        "auc_5": metrics.area_under_curve(errors, 5),
    }


def intervals(
    values: np.ndarray, groups: Sequence[Hashable], *, minus: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns 95 % intervals of the means of columns, by drawing whole groups with replacement.

    The pairs of a sequence show one scene: they succeed and fail together, and drawing pair by pair would
    give intervals that are too narrow. Percentile bootstrap, the same draws in every call (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). From few groups such intervals
    are too narrow: with three, no draw can show what a fourth would.

    Args:
        values: `[N, M]`, one row a pair; NaN is left out of its column's mean.
        groups: `[N]`, the sequence of each row.
        minus: `[N, M]` values of the same rows whose means are subtracted, draw by draw; None subtracts none.

    Returns:
        `[M]` lower and `[M]` upper ends; NaN where fewer than two groups have a value, from which nothing can
        be learned about others.

    Raises:
        InputError: If `values` or `minus` is no table with one row a group's name.
    """
    means = _resampled_means(values, groups)
    if minus is not None:
        means = means - _resampled_means(minus, groups)
    ends = np.full((2, means.shape[1]), np.nan)
    enough = _known_groups(values, groups) > 1
    if minus is not None:
        enough &= _known_groups(minus, groups) > 1
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    ends[:, enough] = np.nanquantile(means[:, enough], tails, axis=0)
    return ends[0], ends[1]


def named_intervals(
    values: pd.DataFrame, groups: Sequence[Hashable], *, minus: pd.DataFrame | None = None
) -> dict[str, float]:
    """Returns the intervals of the means of a table's columns as a row of results has them.

    Arguments as for `intervals`; the ends go by their names, `d1_low` and `d1_high` for a column `d1`.
    """
    subtracted = None if minus is None else minus.to_numpy()
    lows, highs = intervals(values.to_numpy(), list(groups), minus=subtracted)
    named: dict[str, float] = {}
    for name, low, high in zip(values.columns, lows, highs, strict=True):
        named |= dict(zip(tables.end_names(name), (low, high), strict=True))
    return named


def _known_groups(values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Returns `[M]`: how many groups have a value in each column."""
    known, names = ~np.isnan(np.asarray(values, dtype=float)), np.array([str(name) for name in groups])
    counts = np.zeros(known.shape[1], dtype=int)
    for name in np.unique(names):
        counts += known[names == name].any(axis=0)
    return counts


def _resampled_means(values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Returns `[RESAMPLES, M]`: the means of the columns in each draw, NaN where it has no value."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) != len(groups):
        raise checks.problem(f"values [{len(groups)}, M]", f"shape {values.shape}")
    if not len(groups):
        return np.full((RESAMPLES, values.shape[1]), np.nan)
    names = sorted(set(groups), key=str)
    number = {name: index for index, name in enumerate(names)}
    member = np.zeros((len(names), len(values)))
    member[[number[name] for name in groups], np.arange(len(values))] = 1
    known = ~np.isnan(values)
    draws = _draws(len(names))
    sums, counts = draws @ (member @ np.where(known, values, 0)), draws @ (member @ known)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


@functools.lru_cache(maxsize=16)
def _draws(num_groups: int) -> np.ndarray:
    """Returns `[RESAMPLES, num_groups]`: how often each draw takes each group."""
    even = np.full(num_groups, 1 / num_groups)
    return np.random.default_rng(0).multinomial(num_groups, even, size=RESAMPLES).astype(float)
