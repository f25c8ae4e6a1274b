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
from kp2d.evaluate import averages, evaluation, tables
from kp2d.methods import extractors, weights
from kp2d.methods.extractors import Extractor

_COMPARED = ("repeatability", "localization_error", "matching_score", "corner_error")
_EVALUATE_BOTH = "Evaluate both in 05 (its parameter methods), or leave 06 out: `stages=01,02,03,04,05`."


def evaluate_methods(
    methods: Sequence[str | Extractor],
    sequences: Sequence[datasets.Sequence],
    protocol: Protocol,
    *,
    profile: str,
    cache: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores several methods on a data set.

    Methods are extractors, or names as for `extractors.create` ("sift", "kp2d_tiny_s:int8"); the profile's
    name is for the rows. The other arguments are those of `evaluation.evaluate`.

    Returns:
        Result rows (`tables.EVALUATION_COLUMNS`), and scores a pair (`evaluation.evaluate`).

    Raises:
        InputError: If a method is unknown, named twice, or none is given, or no pair can be read.
    """
    names = [method for method in methods if isinstance(method, str)]
    if not methods or len(set(names)) < len(names):
        raise checks.problem("one or more different methods", repr(names))
    # A wrong name fails before the first hour.
    chosen = [extractors.as_extractor(method) for method in methods]
    how = {"cache": cache, "workers": workers, "progress": progress}
    pairs = [evaluation.evaluate(extractor, sequences, protocol, **how) for extractor in chosen]
    rows = [
        averages.result_rows(scores, extractor, protocol, profile=profile)
        for extractor, scores in zip(chosen, pairs, strict=True)
    ]
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
    """Scores methods at several sizes, (height, width) px; other arguments are those of `evaluate_methods`.

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
    """Returns the bytes of the file of each network's weights, by method and precision; others have none."""
    chosen = [extractors.create(name) for name in methods]
    return {(extractor.name, extractor.precision): extractor.bytes for extractor in chosen if extractor.bytes}


def against(pairs: pd.DataFrame, reference: str = "sift") -> pd.DataFrame:
    """Counts on how many pairs each method does better than a reference.

    Args:
        pairs: Scores a pair of several methods.
        reference: The method to compare with, at float32.

    Returns:
        One row a method × precision × data set × subset × k × metric: pairs better, equal and worse, and the
        mean difference (method - reference) over the `num_compared` pairs where both have a value, with its
        95 % interval from the bootstrap over sequences. A larger localization error and a larger corner error
        are worse; a pair without a homography is worse than any other, and is in no mean corner error. Where
        the scores have a `weights_sha256`, the rows have it, too.

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
        origin = scores.filter(items=["weights_sha256"]).iloc[0].to_dict()
        for subset in [*scores["subset"].unique(), "all"]:
            part = scores if subset == "all" else scores[scores["subset"] == subset]
            for top_k, chosen in part.groupby("top_k"):
                setting = {**dict(zip(names, key, strict=True)), "subset": subset, "top_k": top_k}
                rows += [
                    {**setting, "metric": metric, **_tally(chosen, metric), **origin} for metric in _COMPARED
                ]
    return pd.DataFrame(rows)


def paired(pairs: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Joins scores with a reference's of the same pair and k, whose columns end in `_reference`."""
    key = ["sequence", "index", "top_k"]
    return _read(pairs).merge(_read(reference), on=key, suffixes=("", "_reference"))


def differences(joined: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Returns by how much metrics are above the reference's, pair by pair; of rows from `paired`."""
    reference = joined[[f"{metric}_reference" for metric in metrics]].astype(float)
    return joined[list(metrics)].astype(float) - reference.set_axis(list(metrics), axis=1)


def _read(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs[pairs["status"] != "skipped"]


def _tally(joined: pd.DataFrame, metric: str) -> dict[str, float]:
    difference = differences(joined, [metric]).set_axis(["difference"], axis=1)
    ours, theirs = joined[metric].astype(float), joined[f"{metric}_reference"].astype(float)
    if metric.endswith("_error"):  # smaller is better, and NaN (none found) is worst
        ours, theirs = -ours.fillna(float("inf")), -theirs.fillna(float("inf"))
    return {
        "num_pairs": len(joined),
        "num_sequences": joined["sequence"].nunique(),
        "num_better": int((ours > theirs).sum()),
        "num_equal": int((ours == theirs).sum()),
        "num_worse": int((ours < theirs).sum()),
        "num_compared": int(difference["difference"].notna().sum()),
        "mean_difference": difference["difference"].mean(),
        **averages.named_intervals(difference, joined["sequence"]),
    }


def failures(pairs: pd.DataFrame, method: str, *, top_k: int) -> pd.DataFrame:
    """Returns the pairs whose homography a method does not find to 5 px at a k, the worst first.

    Returns:
        Columns dataset, pair, subset, reason (empty: a homography was found, but a wrong one), corner_error,
        num_matches, num_inliers, repeatability, matching_score, and `sift_corner_error`.
    """
    ours, theirs = _of(pairs, method, top_k), _of(pairs, "sift", top_k)
    failed = ours[~(ours["corner_error"] <= 5)]
    order = failed["corner_error"].fillna(np.inf).sort_values(ascending=False, kind="stable").index
    facts = ("reason", "corner_error", "num_matches", "num_inliers", "repeatability", "matching_score")
    beside = theirs.set_index("pair")["corner_error"].rename("sift_corner_error")
    failed = failed.loc[order, ["dataset", "pair", "subset", *facts]]
    return failed.join(beside, on="pair").reset_index(drop=True)


def _of(pairs: pd.DataFrame, method: str, top_k: int) -> pd.DataFrame:
    """Returns the pairs that were read, of one method at one precision and k."""
    chosen = tables.of_method(pairs, method)
    return _read(chosen[chosen["top_k"] == top_k])


def extremes(pairs: pd.DataFrame, method: str, *, top_k: int, count: int = 3) -> pd.DataFrame:
    """Returns the pairs on which a method gains and loses most against SIFT, by corner error, `count` each.

    Returns:
        Columns pair, subset, sift and the method (corner error, px; NaN without a homography), and difference
        (method - SIFT): the largest gains first, the largest losses last, pairs that only one of them solved
        at the ends.

    Raises:
        InputError: If the method is SIFT itself, or was not evaluated.
    """
    if extractors.Method.parse(method).name == "sift":
        raise checks.problem("a method other than SIFT to compare with it", repr(method))
    if tables.of_method(pairs, method).empty:
        known = ", ".join(sorted(pairs["method"].unique()))
        remedy = "Name one that 05 has evaluated, with its precision: -p 06.method=…"
        raise checks.problem(f"scores of {method}", f"those of {known}", remedy)
    key = ["pair", "subset"]
    ours, theirs = _of(pairs, method, top_k), _of(pairs, "sift", top_k)
    errors = theirs[[*key, "corner_error"]].merge(ours[[*key, "corner_error"]], on=key)
    name = extractors.label(method) if weights.is_path(method) else method
    errors.columns = [*key, "sift", name]
    errors["difference"] = errors[name] - errors["sift"]
    gains = errors[name].fillna(np.inf) - errors["sift"].fillna(np.inf)  # NaN where neither has one
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

    What `rows` and `pairs`, from `evaluate_methods`, hold of the methods under `protocol` is not computed
    again; the other protocols, `config.PROTOCOLS`, have its size, k and seed. Other arguments are as there.

    Returns:
        The result rows of all protocols, with the column `protocol` in front: "kp2d", "kp2dtiny", and of the
        choices that make the difference each by itself, as "half_pixel=False"; and the effects: the metrics
        under each other protocol minus those under "kp2d", with 95 % intervals.
    """
    rules = _protocols(protocol)
    known = _those_of(rows, methods, protocol), _those_of(pairs, methods, protocol)
    how = {"profile": profile, "cache": cache, "progress": progress}
    scored = {
        name: known if rule == protocol else evaluate_methods(methods, sequences, rule, **how)
        for name, rule in rules.items()
    }
    table = pd.concat([part.assign(protocol=name) for name, (part, _) in scored.items()], ignore_index=True)
    ours = scored["kp2d"][1]
    effects = [
        protocol_effect(theirs, ours, rules[name], rules["kp2d"]).assign(protocol=name)
        for name, (_, theirs) in scored.items()
        if name != "kp2d"
    ]
    return table[["protocol", *rows.columns]], pd.concat(effects, ignore_index=True)


def _protocols(protocol: Protocol) -> dict[str, Protocol]:
    """Returns the known rules, and ours with one of the reference code's choices each, by name."""
    choices = config.PROTOCOLS["kp2dtiny"]
    changes = dict(config.PROTOCOLS) | {f"{name}={value}": {name: value} for name, value in choices.items()}
    fixed = {"image_size": protocol.image_size, "top_k": protocol.top_k, "seed": protocol.seed}
    return {name: config.protocol(**changed, **fixed) for name, changed in changes.items()}


def _those_of(table: pd.DataFrame, methods: Sequence[str], protocol: Protocol) -> pd.DataFrame:
    """Returns what a table has of some methods at the protocol's k."""
    names = [(extractor.name, extractor.precision) for extractor in map(extractors.create, methods)]
    known = pd.MultiIndex.from_frame(table[["method", "precision"]]).isin(names)
    return table[known & table["top_k"].isin(protocol.top_k)]


def protocol_effect(
    pairs: pd.DataFrame, reference: pd.DataFrame, rules: Protocol, base: Protocol
) -> pd.DataFrame:
    """Returns what other rules change: the metrics of pairs under them minus those under a reference's.

    Returns:
        One row a method × precision × runtime × data set × subset × k, the columns of the metrics holding
        differences of the means, with the ends of their 95 % intervals from the bootstrap over sequences.
    """
    before = {tuple(setting.values()): scores for setting, scores in averages.by_setting(reference)}
    effects = []
    for setting, scores in averages.by_setting(pairs):
        theirs = _values(scores, rules)
        ours = _values(before[tuple(setting.values())], base)
        change = (theirs.mean() - ours.mean()).to_dict()
        sequences = theirs.index.get_level_values("sequence")
        effects.append({**setting, **change, **averages.named_intervals(theirs, sequences, minus=ours)})
    return pd.DataFrame(effects)


def _values(scores: pd.DataFrame, rules: Protocol) -> pd.DataFrame:
    """Returns the metrics of the pairs that were read, as rules count them, by sequence and index."""
    read = _read(scores).set_index(["sequence", "index"]).sort_index()
    return averages.counted(read, drop_unrepeated=rules.drop_unrepeated)
