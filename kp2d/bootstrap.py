"""Owns confidence intervals: the bootstrap over whole sequences, whose pairs are not independent."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np

from kp2d import checks

RESAMPLES = 2000
LEVEL = 0.95


def intervals(
    values: np.ndarray, groups: Sequence[Hashable], *, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Returns intervals of the means of columns, by drawing whole groups with replacement.

    The pairs of a sequence show one scene: they succeed and fail together, and drawing pair by pair would
    give intervals that are too narrow. Percentile bootstrap, the same draws in every call (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).

    Args:
        values: `[N, M]`, one row a pair; NaN is left out of its column's mean.
        groups: `[N]`, the sequence of each row.
        resamples: How many draws.
        level: Share of the draws' means inside the interval, in (0, 1).

    Returns:
        `[M]` lower and `[M]` upper ends; NaN with fewer than two groups, from which nothing can be learned
        about others.

    Raises:
        InputError: If `values` is no table with one row a group's name, or an option is out of range.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) != len(groups):
        raise checks.problem(f"values [{len(groups)}, M]", f"shape {values.shape}")
    if resamples < 1 or not 0 < level < 1:
        raise checks.problem("resamples >= 1 and a level in (0, 1)", f"{resamples} and {level}")
    names = sorted(set(groups), key=str)
    number = {name: index for index, name in enumerate(names)}
    member = np.zeros((len(names), len(values)))
    member[[number[name] for name in groups], np.arange(len(values))] = 1
    if len(names) < 2:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing.copy()
    known = ~np.isnan(values)
    draws = _draws(len(names), resamples)
    sums, counts = draws @ (member @ np.where(known, values, 0)), draws @ (member @ known)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    ends = np.full((2, values.shape[1]), np.nan)
    some = known.any(axis=0)  # nanquantile warns about columns without a value
    tails = [(1 - level) / 2, (1 + level) / 2]
    ends[:, some] = np.nanquantile(means[:, some], tails, axis=0)
    return ends[0], ends[1]


@functools.lru_cache(maxsize=16)
def _draws(num_groups: int, resamples: int) -> np.ndarray:
    """Returns `[resamples, num_groups]`: how often each draw takes each group."""
    even = np.full(num_groups, 1 / num_groups)
    return np.random.default_rng(0).multinomial(num_groups, even, size=resamples).astype(float)
