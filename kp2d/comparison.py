"""Owns many methods side by side: scored under one protocol, one against another, protocols compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kp2d import checks, config, datasets, evaluation, extractors, tables
from kp2d.config import Protocol


def evaluate_methods(
    methods: Sequence[str],
    sequences: Sequence[datasets.Sequence],
    protocol: Protocol,
    *,
    profile: str,
    cache: Path | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores several methods on a data set.

    Args:
        methods: Names as for `extractors.from_name` ("sift", "kp2d_tiny_s:int8").
        sequences: From `datasets.load_sequences`.
        protocol: How to score.
        profile: The profile's name, for the rows.
        cache: Folder for exported features.
        progress: Whether to show progress bars.

    Returns:
        Result rows (`tables.EVALUATION_COLUMNS`), and scores a pair (`evaluation.evaluate`).

    Raises:
        InputError: If a method is unknown, named twice, or none is given, or no pair can be read.
    """
    if not methods or len(set(methods)) < len(methods):
        raise checks.problem("one or more different methods", repr(list(methods)))
    chosen = [extractors.from_name(name) for name in methods]  # a wrong name fails before the first hour
    dataset = datasets.label(sequences)
    rows, pairs = [], []
    for extractor in chosen:
        scores = evaluation.evaluate(extractor, sequences, protocol, cache=cache, progress=progress)
        summary = evaluation.summarize(scores, drop_unrepeated=protocol.drop_unrepeated)
        rows.append(tables.evaluation_rows(summary, extractor, protocol, profile=profile, dataset=dataset))
        pairs.append(scores)
    return pd.concat(rows, ignore_index=True), pd.concat(pairs, ignore_index=True)


def against(pairs: pd.DataFrame, reference: str = "sift") -> pd.DataFrame:
    """Counts on how many pairs each method does better than a reference.

    Args:
        pairs: Scores a pair of several methods.
        reference: The method to compare with, at float32.

    Returns:
        One row a method × precision × subset × k × metric: pairs better, equal and worse, and the mean
        difference (method - reference) over pairs where both have a value. A larger localization error and
        a larger corner error are worse; a pair without a homography is worse than any other.

    Raises:
        InputError: If the reference is not among the methods.
    """
    checks.one_of("reference method", reference, pairs["method"].unique())
    read = pairs[pairs["status"] != "skipped"]
    key = ["sequence", "index", "top_k"]
    base = read[(read["method"] == reference) & (read["precision"] == "float32")]
    others = read[(read["method"] != reference)]
    if others.empty:
        raise checks.problem(f"a method beside {reference} to compare with it", "no other")
    joined = others.merge(base, on=key, suffixes=("", "_reference"))
    rows = []
    for (method, precision), scores in joined.groupby(["method", "precision"], sort=False):
        for subset in [*scores["subset"].unique(), "all"]:
            part = scores if subset == "all" else scores[scores["subset"] == subset]
            for top_k, chosen in part.groupby("top_k"):
                for metric in ("repeatability", "localization_error", "matching_score", "corner_error"):
                    identity = {"method": method, "precision": precision, "subset": subset, "top_k": top_k}
                    rows.append({**identity, "metric": metric, **_tally(chosen, metric)})
    return pd.DataFrame(rows)


def _tally(joined: pd.DataFrame, metric: str) -> dict[str, float]:
    ours, theirs = joined[metric].astype(float), joined[f"{metric}_reference"].astype(float)
    difference = ours - theirs
    if metric.endswith("_error"):  # smaller is better, and NaN (none found) is worst
        ours, theirs = -ours.fillna(float("inf")), -theirs.fillna(float("inf"))
    return {
        "num_pairs": len(joined),
        "num_better": int((ours > theirs).sum()),
        "num_equal": int((ours == theirs).sum()),
        "num_worse": int((ours < theirs).sum()),
        "mean_difference": difference.mean(),
    }


def extremes(pairs: pd.DataFrame, method: str, *, top_k: int, count: int = 3) -> pd.DataFrame:
    """Returns the pairs on which a method gains and loses most against SIFT, by corner error.

    Args:
        pairs: Scores a pair, from `evaluate_methods`.
        method: As for `extractors.from_name`.
        top_k: At which k.
        count: Pairs of either kind.

    Returns:
        Columns pair, subset, sift and the method (corner error, px; NaN without a homography), and difference
        (method - SIFT): the largest gains first, the largest losses last, pairs that only one of them solved
        at the ends.

    Raises:
        InputError: If the method is SIFT itself.
    """
    name, _, precision = method.partition(":")
    if name == "sift":
        raise checks.problem("a method other than SIFT to compare with it", repr(method))
    chosen = pairs[(pairs["top_k"] == top_k) & (pairs["status"] != "skipped")]
    key = ["pair", "subset"]
    ours = chosen[(chosen["method"] == name) & (chosen["precision"] == (precision or "float32"))]
    theirs = chosen[(chosen["method"] == "sift") & (chosen["precision"] == "float32")]
    errors = theirs[[*key, "corner_error"]].merge(ours[[*key, "corner_error"]], on=key)
    errors.columns = [*key, "sift", method]
    errors["difference"] = errors[method] - errors["sift"]
    gains = errors[method].fillna(np.inf) - errors["sift"].fillna(np.inf)  # NaN where neither has one
    order = gains.dropna().sort_values(kind="stable").index
    ends = order if len(order) <= 2 * count else order[:count].append(order[-count:])
    return errors.loc[ends].reset_index(drop=True)


def compare_protocols(
    rows: pd.DataFrame,
    methods: Sequence[str],
    sequences: Sequence[datasets.Sequence],
    protocol: Protocol,
    *,
    profile: str,
    cache: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores the same features under every named protocol; only the rules differ.

    Args:
        rows: The results under `protocol`, which are not computed again.
        methods: As for `evaluate_methods`.
        sequences: From `datasets.load_sequences`.
        protocol: Size, k and seed, which stay; the rules come from `config.PROTOCOLS`.
        profile: For the rows.
        cache: Folder for exported features; with it nothing is extracted twice.
        progress: Whether to show progress bars.

    Returns:
        The result rows of all protocols, with the column `protocol` in front.
    """
    parts = []
    for name in config.PROTOCOLS:
        rules = config.protocol(
            name, image_size=protocol.image_size, top_k=protocol.top_k, seed=protocol.seed
        )
        scored = rows
        if rules != protocol:
            scored, _ = evaluate_methods(
                methods, sequences, rules, profile=profile, cache=cache, progress=progress
            )
        parts.append(scored.assign(protocol=name))
    table = pd.concat(parts, ignore_index=True)
    return table[["protocol", *rows.columns]]


def protocol_effect(table: pd.DataFrame) -> pd.DataFrame:
    """Returns what the reference code's rules change: metrics under "kp2dtiny" minus those under "kp2d".

    Args:
        table: From `compare_protocols`.

    Returns:
        One row a method × precision × subset × k, the columns of the metrics holding differences.
    """
    key = ["method", "precision", "subset", "top_k"]
    ours, theirs = (
        table[table["protocol"] == name].set_index(key)[list(tables.METRICS)] for name in ("kp2d", "kp2dtiny")
    )
    return (theirs - ours).reset_index()
