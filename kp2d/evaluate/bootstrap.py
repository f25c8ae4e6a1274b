"""Owns confidence intervals: the bootstrap over whole sequences, whose pairs are not independent."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from kp2d import checks

RESAMPLES = 2000
LEVEL = 0.95


def intervals(
    values: np.ndarray,
    groups: Sequence[Hashable],
    *,
    minus: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns intervals of the means of columns, by drawing whole groups with replacement.

    The pairs of a sequence show one scene: they succeed and fail together, and drawing pair by pair would
    give intervals that are too narrow. Percentile bootstrap, the same draws in every call (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). From few groups such intervals
    are too narrow: with three, no draw can show what a fourth would.

    Args:
        values: `[N, M]`, one row a pair; NaN is left out of its column's mean.
        groups: `[N]`, the sequence of each row.
        minus: `[N, M]` values of the same rows whose means are subtracted, draw by draw; None subtracts none.
        resamples: How many draws.
        level: Share of the draws' means inside the interval, in (0, 1).

    Returns:
        `[M]` lower and `[M]` upper ends; NaN where fewer than two groups have a value, from which nothing can
        be learned about others.

    Raises:
        InputError: If `values` or `minus` is no table with one row a group's name, or an option is out of
            range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise checks.problem("resamples >= 1 and a level in (0, 1)", f"{resamples} and {level}")
    means = _resampled_means(values, groups, resamples)
    if minus is not None:
        means = means - _resampled_means(minus, groups, resamples)
    ends = np.full((2, means.shape[1]), np.nan)
    enough = _known_groups(values, groups) > 1
    if minus is not None:
        enough &= _known_groups(minus, groups) > 1
    tails = [(1 - level) / 2, (1 + level) / 2]
    ends[:, enough] = np.nanquantile(means[:, enough], tails, axis=0)
    return ends[0], ends[1]


def end_names(name: str) -> tuple[str, str]:
    """Returns what the columns of the ends of a column's interval are called: "d1_low" and "d1_high"."""
    return f"{name}_low", f"{name}_high"


def named_intervals(
    values: pd.DataFrame, groups: Sequence[Hashable], *, minus: pd.DataFrame | None = None
) -> dict[str, float]:
    """Returns the intervals of the means of a table's columns as a row of results has them.

    Args:
        values: One row a pair, as for `intervals`.
        groups: `[N]`, the sequence of each row.
        minus: Columns in the same order, whose means are subtracted; None subtracts none.

    Returns:
        The ends by their names, `d1_low` and `d1_high` for a column `d1`.
    """
    subtracted = None if minus is None else minus.to_numpy()
    lows, highs = intervals(values.to_numpy(), list(groups), minus=subtracted)
    named: dict[str, float] = {}
    for name, low, high in zip(values.columns, lows, highs, strict=True):
        named |= dict(zip(end_names(name), (low, high), strict=True))
    return named


def _known_groups(values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Returns `[M]`: how many groups have a value in each column."""
    known, names = ~np.isnan(np.asarray(values, dtype=float)), np.array([str(name) for name in groups])
    counts = np.zeros(known.shape[1], dtype=int)
    for name in np.unique(names):
        counts += known[names == name].any(axis=0)
    return counts


def _resampled_means(values: np.ndarray, groups: Sequence[Hashable], resamples: int) -> np.ndarray:
    """Returns `[resamples, M]`: the means of the columns in each draw, NaN where it has no value."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) != len(groups):
        raise checks.problem(f"values [{len(groups)}, M]", f"shape {values.shape}")
    if not len(groups):
        return np.full((resamples, values.shape[1]), np.nan)
    names = sorted(set(groups), key=str)
    number = {name: index for index, name in enumerate(names)}
    member = np.zeros((len(names), len(values)))
    member[[number[name] for name in groups], np.arange(len(values))] = 1
    known = ~np.isnan(values)
    draws = _draws(len(names), resamples)
    sums, counts = draws @ (member @ np.where(known, values, 0)), draws @ (member @ known)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


@functools.lru_cache(maxsize=16)
def _draws(num_groups: int, resamples: int) -> np.ndarray:
    """Returns `[resamples, num_groups]`: how often each draw takes each group."""
    even = np.full(num_groups, 1 / num_groups)
    return np.random.default_rng(0).multinomial(num_groups, even, size=resamples).astype(float)
