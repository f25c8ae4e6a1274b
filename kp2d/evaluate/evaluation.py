"""Owns loop 2 of the evaluation: every pair scored at every k, and the averages of those scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kp2d import checks, geometry, provenance
from kp2d.config import Protocol
from kp2d.data import datasets, locations
from kp2d.data.datasets import ImagePair
from kp2d.evaluate import bootstrap, metrics
from kp2d.evaluate.feature_store import FeatureStore, parallel
from kp2d.methods import matching
from kp2d.methods.extractors import Extractor
from kp2d.methods.features import Features
from kp2d.methods.registration import Registration, confident, register_features

logger = logging.getLogger(__name__)

MEANS = ("repeatability", "localization_error", "d1", "d3", "d5", "matching_score")
_MMA = tuple(f"mma_{threshold}" for threshold in metrics.MMA_THRESHOLDS)
_COUNTS = ("num_keypoints", "num_matches", "num_inliers")


def score_pair(
    features0: Features,
    features1: Features,
    homography: np.ndarray,
    protocol: Protocol,
) -> list[dict[str, Any]]:
    """Scores one pair at every k of the protocol.

    Repeatability, localization error and homography use the k best of the points visible in both views; the
    matching score uses the k best of all (KP2D's rule).

    Args:
        features0: Of image 0 at the protocol's size, best first.
        features1: Likewise of image 1.
        homography: `[3, 3]`, image 0 to image 1 at that size.
        protocol: Sizes, thresholds and k.

    Returns:
        One dictionary a k: the metrics, counts, and `status` "ok" or "failed" with its `reason`. A pair fails
        when no point is repeated (repeatability is then 0), no homography is found, or the one found throws a
        corner behind the horizon (d1, d3 and d5 are then 0).
    """
    shared = shared_features(features0, features1, homography, protocol.image_size)
    return [_score(features0, features1, *shared, homography, k, protocol) for k in protocol.top_k]


def shared_features(
    features0: Features, features1: Features, homography: np.ndarray, image_size: tuple[int, int]
) -> tuple[Features, Features]:
    """Returns the features of each image that are visible in the other one, too."""
    return (
        features0.take(geometry.visible(features0.keypoints, homography, image_size)),
        features1.take(geometry.visible(features1.keypoints, np.linalg.inv(homography), image_size)),
    )


def _score(
    features0: Features,
    features1: Features,
    shared0: Features,
    shared1: Features,
    homography: np.ndarray,
    top_k: int,
    protocol: Protocol,
) -> dict[str, Any]:
    weakest_first = slice(None, None, -1)  # ties go to the weaker point, see `register_features`
    best0, best1 = (each.take(slice(top_k)).take(weakest_first) for each in (features0, features1))
    found = register_features(shared0, shared1, top_k=top_k, protocol=protocol)
    keypoints0, keypoints1 = found.features0.keypoints, found.features1.keypoints
    repeatability, localization_error = metrics.repeatability(
        keypoints0, keypoints1, homography, threshold=protocol.distance_threshold
    )
    matching_score = metrics.matching_score(
        best0.keypoints,
        best1.keypoints,
        matching.descriptor_distances(best0.descriptors, best1.descriptors),
        homography,
        protocol.image_size,
        threshold=protocol.distance_threshold,
    )
    errors = metrics.match_errors(keypoints0, keypoints1, found.matches, homography)
    missed = found.estimate.homography is None
    corner_error = (
        np.inf
        if missed
        else geometry.corner_error(found.estimate.homography, homography, protocol.image_size)
    )
    reason = _failure(found, repeatability, corner_error)
    return {
        "top_k": top_k,
        "status": "failed" if reason else "ok",
        "reason": reason,
        "repeatability": repeatability,
        "localization_error": localization_error,
        **{f"d{limit}": float(corner_error <= limit) for limit in (1, 3, 5)},
        "matching_score": matching_score,
        **dict(zip(_MMA, metrics.matching_accuracy(errors), strict=True)),
        "corner_error": corner_error if np.isfinite(corner_error) else np.nan,
        "num_keypoints": (len(best0) + len(best1)) / 2,
        "num_matches": len(found.matches),
        "num_inliers": int(found.estimate.inliers.sum()),
    }


def _failure(found: Registration, repeatability: float, corner_error: float) -> str:
    counts = len(found.features0), len(found.features1)
    if 0 in counts:
        return f"no keypoint in the shared view of image {counts.index(0)}"
    if found.estimate.homography is None:
        return f"no homography from {len(found.matches)} matches"
    if not np.isfinite(corner_error):
        return "the estimated homography throws a corner behind the horizon"
    return "no repeated keypoint" if repeatability == 0 else ""


def evaluate(
    extractor: Extractor,
    sequences: Sequence[datasets.Sequence],
    protocol: Protocol,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores a method on a data set.

    Args:
        extractor: The method.
        sequences: From `datasets.load_sequences`, of one data set or several.
        protocol: How to score.
        cache: Folder for exported features; with it, a run resumes and a second run extracts nothing.
        workers: Threads; None takes one a core.
        progress: Whether to show progress bars.

    Returns:
        One row a pair and k: method, precision, runtime, dataset, pair, sequence, subset, index, and the
        results of `score_pair`.
        What cannot be read has the status "skipped", a reason, and NaN for every metric; a problem of a
        sequence that is no pair has index 0.

    Raises:
        InputError: If there are no pairs, or none of them could be read.
    """
    store = export_features(
        extractor, sequences, protocol.image_size, cache=cache, workers=workers, progress=progress
    )
    pairs = [pair for sequence in sequences for pair in sequence.pairs]

    def score(pair: ImagePair) -> list[dict[str, Any]]:
        key = {"pair": pair.name, "sequence": pair.sequence, "subset": pair.subset, "index": pair.index}
        try:
            exported0, exported1 = store.get(pair.path0), store.get(pair.path1)
            homography = geometry.rescale_homography(
                pair.homography(),
                exported0.own_size,
                exported1.own_size,
                protocol.image_size,
                half_pixel=protocol.half_pixel,
            )
        except checks.InputError as error:
            return _skipped(key, error, protocol)
        features0, features1 = (
            confident(exported.features, extractor, protocol) for exported in (exported0, exported1)
        )
        return [{**key, **row} for row in score_pair(features0, features1, homography, protocol)]

    label = f"{extractor.name} {extractor.precision}: scores"
    scored = parallel(score, pairs, workers or provenance.workers(), label, progress)
    for sequence in sequences:
        key = {"pair": sequence.name, "sequence": sequence.name, "subset": sequence.subset, "index": 0}
        scored += [
            _skipped(key, f"{problem.what} {problem.remedy}", protocol) for problem in sequence.problems
        ]
    table = pd.DataFrame(
        [row for rows in scored for row in rows],
        columns=["pair", "sequence", "subset", "index", *_PAIR_COLUMNS],
    )
    skipped = table[table["status"] == "skipped"].drop_duplicates(["pair", "reason"])
    for pair, reason in skipped[["pair", "reason"]].itertuples(index=False):
        logger.warning("skipped %s: %s", pair, reason)
    if len(table) == len(skipped) * len(protocol.top_k):
        raise checks.InputError(
            f"none of the {len(pairs)} pairs could be read; the first: {skipped.iloc[0]['reason']}"
        )
    table.insert(0, "method", extractor.name)
    table.insert(1, "precision", extractor.precision)
    table.insert(2, "runtime", extractor.runtime)
    groups = locations.by_dataset(sequences)
    names = {sequence.name: dataset for dataset, group in groups for sequence in group}
    table.insert(3, "dataset", table["sequence"].map(names))
    return table


def export_features(
    extractor: Extractor,
    sequences: Sequence[datasets.Sequence],
    image_size: tuple[int, int],
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> FeatureStore:
    """Extracts the features of every image of a data set that is part of a pair.

    Args:
        extractor: The method.
        sequences: From `datasets.load_sequences`.
        image_size: (height, width) px.
        cache: Folder that keeps them; what lies there is not extracted again.
        workers: Threads; None takes one a core.
        progress: Whether to show a progress bar.

    Returns:
        Where the features are; an image that cannot be read raises its error there.

    Raises:
        InputError: If there are no pairs.
    """
    pairs = [pair for sequence in sequences for pair in sequence.pairs]
    if not pairs:
        raise checks.problem("at least one image pair", f"{len(sequences)} sequences without any")
    if workers is not None and workers < 1:
        raise checks.problem("one or more workers", workers)
    store = FeatureStore(extractor, image_size, cache)
    images = sorted({path for pair in pairs for path in (pair.path0, pair.path1)})
    threads = (workers or provenance.workers()) if extractor.concurrent else 1
    label = f"{extractor.name} {extractor.precision}: features"
    parallel(lambda path: _readable(store, path), images, threads, label, progress)
    return store


_PAIR_COLUMNS = ("top_k", "status", "reason", *MEANS, *_MMA, "corner_error", *_COUNTS)


def _skipped(key: dict[str, Any], reason: object, protocol: Protocol) -> list[dict[str, Any]]:
    return [{**key, "top_k": k, "status": "skipped", "reason": str(reason)} for k in protocol.top_k]


def _readable(store: FeatureStore, path: Path) -> bool:
    try:
        store.get(path)
    except checks.InputError:
        return False  # scoring reports it, with the pair it belongs to
    return True


def summarize(pairs: pd.DataFrame, *, drop_unrepeated: bool = False) -> pd.DataFrame:
    """Averages pair scores into one row a method × precision × runtime × data set × subset × k.

    Localization error is averaged over the pairs that have one; everything else over all pairs that were
    read, failed ones counting 0. Beside each metric stand the ends of its 95 % interval (`d1_low`,
    `d1_high`), from the bootstrap over sequences.

    Args:
        pairs: From `evaluate`; several methods may be concatenated.
        drop_unrepeated: Leave pairs without a repeated point out of the repeatability (KP2Dtiny's choice).

    Returns:
        Rows in the order of appearance, each data set's subsets followed by "all".
    """
    rows = []
    for identity, scores in by_setting(pairs):
        rows.append({**identity, **_average(scores, drop_unrepeated)})
    return pd.DataFrame(rows)


def by_setting(pairs: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yields what one average is taken over (method, precision, runtime, data set, subset, k) and its pairs.

    Args:
        pairs: From `evaluate`; several methods may be concatenated. Without the column `dataset`, all pairs
            belong to one.
    """
    names = [name for name in ("method", "precision", "runtime", "dataset") if name in pairs]
    for key, group in pairs.groupby(names, sort=False):
        for subset in [*sorted(group["subset"].unique(), key=_subset_order), "all"]:
            chosen = group if subset == "all" else group[group["subset"] == subset]
            for top_k, scores in chosen.groupby("top_k", sort=True):
                yield {**dict(zip(names, key, strict=True)), "subset": subset, "top_k": top_k}, scores


def counted(pairs: pd.DataFrame, *, drop_unrepeated: bool = False) -> pd.DataFrame:
    """Returns the metrics of pairs as their means take them: NaN where a pair is left out of one.

    Args:
        pairs: From `evaluate`, those that were read.
        drop_unrepeated: Leave pairs without a repeated point out of the repeatability.
    """
    values = pairs[list(MEANS)].astype(float)
    if drop_unrepeated:
        values["repeatability"] = values["repeatability"].where(values["repeatability"] > 0)
    return values


def _subset_order(subset: str) -> tuple[int, str]:
    known = ("viewpoint", "illumination")
    return (known.index(subset) if subset in known else len(known), subset)


def _average(scores: pd.DataFrame, drop_unrepeated: bool) -> dict[str, Any]:
    read = scores[scores["status"] != "skipped"]
    values = read[[*_MMA, *_COUNTS]].astype(float).join(counted(read, drop_unrepeated=drop_unrepeated))
    low, high = bootstrap.intervals(values[list(MEANS)].to_numpy(), list(read["sequence"]))
    errors = read["corner_error"].to_numpy(dtype=float)
    return {
        "num_pairs": len(read),
        "num_sequences": read["sequence"].nunique(),
        "num_failed": int((read["status"] == "failed").sum()),
        "num_skipped": len(scores) - len(read),
        **values.mean().to_dict(),
        **{f"{metric}_low": low[index] for index, metric in enumerate(MEANS)},
        **{f"{metric}_high": high[index] for index, metric in enumerate(MEANS)},
        "auc_3": metrics.area_under_curve(errors, 3),
        "auc_5": metrics.area_under_curve(errors, 5),
    }
