"""Owns many methods side by side: scored under one protocol, one against another, protocols compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kp2d import checks, config
from kp2d.config import Protocol
from kp2d.data import datasets
from kp2d.evaluate import bootstrap, evaluation, tables
from kp2d.methods import extractors

_EVALUATE_BOTH = "Evaluate both in 05 (its parameter methods), or leave 06 out: `stages=01,02,03,04,05`."


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
    rows, pairs = [], []
    for extractor in chosen:
        scores = evaluation.evaluate(extractor, sequences, protocol, cache=cache, progress=progress)
        summary = evaluation.summarize(scores, drop_unrepeated=protocol.drop_unrepeated)
        rows.append(tables.evaluation_rows(summary, extractor, protocol, profile=profile))
        pairs.append(scores)
    return pd.concat(rows, ignore_index=True), pd.concat(pairs, ignore_index=True)


def evaluate_sizes(
    methods: Sequence[str],
    image_sizes: Sequence[tuple[int, int]],
    sequences: Sequence[datasets.Sequence],
    protocol: Protocol,
    *,
    profile: str,
    cache: Path | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores methods at several sizes.

    Args:
        methods: Names as for `extractors.from_name`.
        image_sizes: (height, width) px.
        sequences: From `datasets.load_sequences`.
        protocol: How to score.
        profile: The profile's name, for the rows.
        cache: Folder for exported features.
        progress: Whether to show progress bars.

    Returns:
        Result rows (`tables.EVALUATION_COLUMNS`) of all sizes, and scores a pair at the protocol's own size.

    Raises:
        InputError: If a method cannot be used, the protocol's size is missing, or no pair can be read.
    """
    if protocol.image_size not in image_sizes:
        raise checks.problem(f"{protocol.image_size} among the sizes", ", ".join(map(str, image_sizes)))
    parts, pairs = [], pd.DataFrame()
    for image_size in image_sizes:
        rules = dataclasses.replace(protocol, image_size=image_size)
        rows, scores = evaluate_methods(
            methods, sequences, rules, profile=profile, cache=cache, progress=progress
        )
        parts.append(rows)
        if image_size == protocol.image_size:
            pairs = scores
    return pd.concat(parts, ignore_index=True), pairs


def weight_bytes(methods: Sequence[str]) -> dict[tuple[str, str], int]:
    """Returns the bytes of the file of each network's weights, by method and precision; others have none.

    Args:
        methods: As for `extractors.from_name`.
    """
    chosen = [extractors.from_name(name) for name in methods]
    return {(each.name, each.precision): each.bytes for each in chosen if hasattr(each, "bytes")}


def against(pairs: pd.DataFrame, reference: str = "sift") -> pd.DataFrame:
    """Counts on how many pairs each method does better than a reference.

    Args:
        pairs: Scores a pair of several methods.
        reference: The method to compare with, at float32.

    Returns:
        One row a method × precision × data set × subset × k × metric: pairs better, equal and worse, and the
        mean difference (method - reference) over the `num_compared` pairs where both have a value, with its
        95 % interval from the bootstrap over sequences. A larger localization error and a larger corner error
        are worse; a pair without a homography is worse than any other, and is in no mean corner error.

    Raises:
        InputError: If the reference is not among the methods, or alone.
    """
    if reference not in set(pairs["method"]):
        known = ", ".join(pairs["method"].unique())
        raise checks.problem(f"{reference} among the methods, to compare with it", known, _EVALUATE_BOTH)
    base = pairs[(pairs["method"] == reference) & (pairs["precision"] == "float32")]
    joined = paired(pairs[pairs["method"] != reference], base)
    if joined.empty:
        raise checks.problem(f"a method beside {reference} to compare with it", "no other", _EVALUATE_BOTH)
    rows = []
    names = ["method", "precision", "dataset"]
    for key, scores in joined.groupby(names, sort=False):
        for subset in [*scores["subset"].unique(), "all"]:
            part = scores if subset == "all" else scores[scores["subset"] == subset]
            for top_k, chosen in part.groupby("top_k"):
                for metric in ("repeatability", "localization_error", "matching_score", "corner_error"):
                    setting = {"subset": subset, "top_k": top_k, "metric": metric}
                    rows.append({**dict(zip(names, key, strict=True)), **setting, **_tally(chosen, metric)})
    return pd.DataFrame(rows)


def paired(pairs: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Joins scores with a reference's of the same pair and k, whose columns end in `_reference`.

    Args:
        pairs: Scores a pair of any methods.
        reference: Scores a pair of one method.
    """
    key = ["sequence", "index", "top_k"]
    read, base = (each[each["status"] != "skipped"] for each in (pairs, reference))
    return read.merge(base, on=key, suffixes=("", "_reference"))


def difference_intervals(joined: pd.DataFrame, metrics: Sequence[str]) -> dict[str, float]:
    """Returns the 95 % interval of mean differences from the reference, `<metric>_low` and `<metric>_high`.

    Args:
        joined: From `paired`, of one method at one k.
        metrics: Columns.
    """
    ours, theirs = (
        joined[[f"{metric}{end}" for metric in metrics]].to_numpy(float) for end in ("", "_reference")
    )
    ends = bootstrap.intervals(ours - theirs, list(joined["sequence"]))
    return {
        f"{metric}_{end}": values[index]
        for index, metric in enumerate(metrics)
        for end, values in zip(("low", "high"), ends, strict=True)
    }


def _tally(joined: pd.DataFrame, metric: str) -> dict[str, float]:
    ours, theirs = joined[metric].astype(float), joined[f"{metric}_reference"].astype(float)
    difference = ours - theirs
    ends = difference_intervals(joined, [metric])
    if metric.endswith("_error"):  # smaller is better, and NaN (none found) is worst
        ours, theirs = -ours.fillna(float("inf")), -theirs.fillna(float("inf"))
    return {
        "num_pairs": len(joined),
        "num_sequences": joined["sequence"].nunique(),
        "num_better": int((ours > theirs).sum()),
        "num_equal": int((ours == theirs).sum()),
        "num_worse": int((ours < theirs).sum()),
        "num_compared": int(difference.notna().sum()),
        "mean_difference": difference.mean(),
        "difference_low": ends[f"{metric}_low"],
        "difference_high": ends[f"{metric}_high"],
    }


def failures(
    pairs: pd.DataFrame, method: str, *, top_k: int, limit: float = 5.0, reference: str = "sift"
) -> pd.DataFrame:
    """Returns the pairs whose homography a method does not find, the worst first.

    Args:
        pairs: Scores a pair, from `evaluate_methods`.
        method: As for `extractors.from_name`.
        top_k: At which k.
        limit: A larger corner error is a failure, px.
        reference: A method whose corner error is set beside.

    Returns:
        Columns dataset, pair, subset, reason (empty: a homography was found, but a wrong one), corner_error,
        num_matches, num_inliers, repeatability, matching_score, and `<reference>_corner_error`.
    """
    ours, theirs = (_of(pairs, name, top_k) for name in (method, reference))
    failed = ours[~(ours["corner_error"] <= limit)]
    order = failed["corner_error"].fillna(np.inf).sort_values(ascending=False, kind="stable").index
    facts = ("reason", "corner_error", "num_matches", "num_inliers", "repeatability", "matching_score")
    beside = theirs.set_index("pair")["corner_error"].rename(f"{reference}_corner_error")
    failed = failed.loc[order, ["dataset", "pair", "subset", *facts]]
    return failed.join(beside, on="pair").reset_index(drop=True)


def _of(pairs: pd.DataFrame, method: str, top_k: int) -> pd.DataFrame:
    """Returns the pairs that were read, of one method at one precision and k."""
    name, _, precision = method.partition(":")
    chosen = pairs[(pairs["method"] == name) & (pairs["precision"] == (precision or "float32"))]
    return chosen[(chosen["top_k"] == top_k) & (chosen["status"] != "skipped")]


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
        InputError: If the method is SIFT itself, or was not evaluated.
    """
    name, _, precision = method.partition(":")
    if name == "sift":
        raise checks.problem("a method other than SIFT to compare with it", repr(method))
    if not ((pairs["method"] == name) & (pairs["precision"] == (precision or "float32"))).any():
        known = ", ".join(sorted(pairs["method"].unique()))
        remedy = "Name one that 05 has evaluated, with its precision: -p 06.method=…"
        raise checks.problem(f"scores of {method}", f"those of {known}", remedy)
    key = ["pair", "subset"]
    ours, theirs = (_of(pairs, name, top_k) for name in (method, "sift"))
    errors = theirs[[*key, "corner_error"]].merge(ours[[*key, "corner_error"]], on=key)
    errors.columns = [*key, "sift", method]
    errors["difference"] = errors[method] - errors["sift"]
    gains = errors[method].fillna(np.inf) - errors["sift"].fillna(np.inf)  # NaN where neither has one
    order = gains.dropna().sort_values(kind="stable").index
    ends = order if len(order) <= 2 * count else order[:count].append(order[-count:])
    return errors.loc[ends].reset_index(drop=True)


def compare_protocols(
    rows: pd.DataFrame,
    pairs: pd.DataFrame,
    methods: Sequence[str],
    sequences: Sequence[datasets.Sequence],
    protocol: Protocol,
    *,
    profile: str,
    cache: Path | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores the same features by our rules, the reference code's, and ours with one of its choices each.

    Args:
        rows: Results that hold those under `protocol`, which are not computed again.
        pairs: The scores a pair they are the averages of.
        methods: As for `evaluate_methods`.
        sequences: From `datasets.load_sequences`.
        protocol: Size, k and seed, which stay; the rules come from `config.PROTOCOLS`.
        profile: For the rows.
        cache: Folder for exported features; with it nothing is extracted twice.
        progress: Whether to show progress bars.

    Returns:
        The result rows of all protocols, with the column `protocol` in front: "kp2d", "kp2dtiny", and of the
        choices that make the difference each by itself, as "half_pixel=False"; and the effects: the metrics
        under each other protocol minus those under "kp2d", with 95 % intervals.
    """
    choices = config.PROTOCOLS["kp2dtiny"]
    rules = dict(config.PROTOCOLS) | {f"{name}={value}": {name: value} for name, value in choices.items()}
    fixed = {"image_size": protocol.image_size, "top_k": protocol.top_k, "seed": protocol.seed}
    names = [(each.name, each.precision) for each in map(extractors.from_name, methods)]
    results = {}
    for name, changes in rules.items():
        chosen = config.protocol(**changes, **fixed)
        scored = tuple(_those_of(each, names, protocol.top_k) for each in (rows, pairs))
        if chosen != protocol:
            scored = evaluate_methods(
                methods, sequences, chosen, profile=profile, cache=cache, progress=progress
            )
        results[name] = (*scored, chosen)
    table = pd.concat([each.assign(protocol=name) for name, (each, *_) in results.items()], ignore_index=True)
    _, ours, base = results.pop("kp2d")
    effects = [
        protocol_effect(theirs, ours, rules, base).assign(protocol=name)
        for name, (_, theirs, rules) in results.items()
    ]
    return table[["protocol", *rows.columns]], pd.concat(effects, ignore_index=True)


def _those_of(table: pd.DataFrame, names: Sequence[tuple[str, str]], top_k: Sequence[int]) -> pd.DataFrame:
    known = pd.MultiIndex.from_frame(table[["method", "precision"]]).isin(names)
    return table[known & table["top_k"].isin(top_k)]


def protocol_effect(
    pairs: pd.DataFrame, reference: pd.DataFrame, rules: Protocol, base: Protocol
) -> pd.DataFrame:
    """Returns what other rules change: the metrics under them minus those under a reference's.

    Args:
        pairs: Scores a pair under the other rules.
        reference: Scores of the same methods and pairs under the reference's rules.
        rules: The other rules.
        base: The reference's.

    Returns:
        One row a method × precision × runtime × data set × subset × k, the columns of the metrics holding
        differences of the means, with the ends of their 95 % intervals from the bootstrap over sequences.
    """
    key = ["sequence", "index"]
    before = {tuple(identity.values()): scores for identity, scores in evaluation.by_setting(reference)}
    found = []
    for identity, scores in evaluation.by_setting(pairs):
        both = [
            each[each["status"] != "skipped"].sort_values(key)
            for each in (scores, before[tuple(identity.values())])
        ]
        theirs, ours = (
            evaluation.counted(each, drop_unrepeated=rule.drop_unrepeated)[list(tables.METRICS)]
            for each, rule in zip(both, (rules, base), strict=True)
        )
        low, high = bootstrap.intervals(theirs.to_numpy(), list(both[0]["sequence"]), minus=ours.to_numpy())
        change = theirs.mean() - ours.mean()
        ends = {
            f"{metric}_{end}": values[index]
            for index, metric in enumerate(tables.METRICS)
            for end, values in (("low", low), ("high", high))
        }
        found.append({**identity, **change.to_dict(), **ends})
    return pd.DataFrame(found)
