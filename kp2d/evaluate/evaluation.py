"""Owns loop 2 of the evaluation: every pair of a data set matched and scored at every k."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kp2d import checks, geometry, provenance
from kp2d.config import Protocol
from kp2d.data import datasets, locations
from kp2d.data.datasets import ImagePair
from kp2d.evaluate import metrics
from kp2d.evaluate.feature_store import FeatureStore, parallel
from kp2d.evaluate.tables import COUNTS, METRICS, MMA
from kp2d.methods import matching
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Extractor, weights_hash
from kp2d.methods.registration import confident, register_features, turned_to

logger = logging.getLogger(__name__)

DOUBTFUL = 0.05  # matching score below which the true homography itself is looked at
AGREES = 10.0  # px: mean distance of the corners under two homographies that are the same but for noise
_PAIR = ("pair", "sequence", "subset", "index")
_SCORES = ("top_k", "status", "reason", *METRICS, *MMA, "corner_error", *COUNTS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchedPair:
    """Two images brought together just as they are scored."""

    features0: Features  # the k best of image 0 among those visible in both images, best first
    features1: Features  # likewise of image 1
    matches: np.ndarray  # int64 `[K, 2]` indices into both, best score first
    inliers: np.ndarray  # bool `[K]`, the matches that agree with the estimated homography
    homography: np.ndarray  # `[3, 3]`, the true one, image 0 to image 1
    estimated: np.ndarray | None  # `[3, 3]`, the one found; None without one
    # mean distance of the corners under both, px; infinite without an estimate, or where it throws a corner
    # behind the horizon
    corner_error: float

    @property
    def match_errors(self) -> np.ndarray:
        """Returns how far each match misses its true place in image 1; float64 `[K]` px."""
        keypoints0, keypoints1 = self.features0.keypoints, self.features1.keypoints
        return metrics.match_errors(keypoints0, keypoints1, self.matches, self.homography)

    @property
    def failure(self) -> str:
        """Returns why no homography was found that has a corner error; "" if one was."""
        counts = len(self.features0), len(self.features1)
        if 0 in counts:
            return f"no keypoint in the shared view of image {counts.index(0)}"
        if self.estimated is None:
            return f"no homography from {len(self.matches)} matches"
        if not np.isfinite(self.corner_error):
            return "the estimated homography throws a corner behind the horizon"
        return ""


def read_pair(
    pair: ImagePair, store: FeatureStore, protocol: Protocol
) -> tuple[Features, Features, np.ndarray]:
    """Returns what of a pair is matched and scored.

    Of the store, it is the confident features of image 0 (turned to image 1 where the method steers) and of
    image 1, best first, and the true homography `[3, 3]` at the protocol's size.

    Raises:
        InputError: If an image or the homography cannot be read.
    """
    exported0, exported1 = store.get(pair.path0), store.get(pair.path1)
    homography = true_homography(pair, exported0.own_size, exported1.own_size, protocol)
    features0 = confident(exported0.features, store.extractor, protocol)
    features1 = confident(exported1.features, store.extractor, protocol)
    return turned_to(features0, features1, store.extractor), features1, homography


def true_homography(
    pair: ImagePair, own_size0: tuple[int, int], own_size1: tuple[int, int], protocol: Protocol
) -> np.ndarray:
    """Returns a pair's homography `[3, 3]` at the protocol's size, from its own sizes (height, width) px.

    Raises:
        InputError: If it cannot be read.
    """
    return geometry.rescale_homography(
        pair.homography(), own_size0, own_size1, protocol.image_size, half_pixel=protocol.half_pixel
    )


def match_pair(
    features0: Features,
    features1: Features,
    homography: np.ndarray,
    protocol: Protocol,
    *,
    top_k: int,
    estimator: str = "ransac",
) -> MatchedPair:
    """Matches two images and estimates their homography, just as they are scored.

    Args:
        features0: Confident ones of image 0 at the protocol's size, best first.
        features1: Likewise of image 1.
        homography: `[3, 3]`, the true one, image 0 to image 1 at that size.
        protocol: The size, and RANSAC's threshold, iterations and seed.
        top_k: Features kept an image, of those visible in the other one.
        estimator: "ransac", by which pairs are scored; viewers take "accurate", as `kp2d match` does.
    """
    size = protocol.image_size
    visible0 = geometry.visible(features0.keypoints, homography, size)
    visible1 = geometry.visible(features1.keypoints, np.linalg.inv(homography), size)
    found = register_features(
        features0.take(visible0),
        features1.take(visible1),
        top_k=top_k,
        protocol=protocol,
        estimator=estimator,
    )
    estimated, corner_error = found.estimate.homography, np.inf
    if estimated is not None:
        corner_error = geometry.corner_error(estimated, homography, size)
    return MatchedPair(
        features0=found.features0,
        features1=found.features1,
        matches=found.matches,
        inliers=found.estimate.inliers,
        homography=homography,
        estimated=estimated,
        corner_error=corner_error,
    )


def score_pair(
    features0: Features, features1: Features, homography: np.ndarray, protocol: Protocol
) -> list[dict[str, Any]]:
    """Scores one pair, as for `match_pair`, at every k of the protocol.

    Repeatability, localization error and homography use the k best of the points visible in both views; the
    matching score uses the k best of all (KP2D's rule).

    Returns:
        One dictionary a k: the metrics, counts, and `status` "ok" or "failed" with its `reason`. A pair fails
        when no point is repeated (repeatability is then 0), no homography is found, or the one found throws a
        corner behind the horizon (d1, d3 and d5 are then 0).
    """
    rows = []
    for top_k in protocol.top_k:
        matched = match_pair(features0, features1, homography, protocol, top_k=top_k)
        best0, best1 = features0.take(slice(top_k)), features1.take(slice(top_k))
        score = _matching_score(best0, best1, homography, protocol)
        num_keypoints = (len(best0) + len(best1)) / 2
        rows.append(
            {
                "top_k": top_k,
                **_scores(matched, protocol),
                "matching_score": score,
                "num_keypoints": num_keypoints,
            }
        )
    return rows


def _scores(matched: MatchedPair, protocol: Protocol) -> dict[str, Any]:
    """Returns what is measured on the matched points of a pair."""
    repeatability, localization_error = metrics.repeatability(
        matched.features0.keypoints,
        matched.features1.keypoints,
        matched.homography,
        threshold=protocol.distance_threshold,
    )
    error = matched.corner_error
    reason = matched.failure or ("no repeated keypoint" if repeatability == 0 else "")
    return {
        "status": "failed" if reason else "ok",
        "reason": reason,
        "repeatability": repeatability,
        "localization_error": localization_error,
        **{f"d{limit}": float(error <= limit) for limit in (1, 3, 5)},
        **dict(zip(MMA, metrics.matching_accuracy(matched.match_errors), strict=True)),
        "corner_error": error if np.isfinite(error) else np.nan,
        "num_matches": len(matched.matches),
        "num_inliers": int(matched.inliers.sum()),
    }


def _matching_score(
    features0: Features, features1: Features, homography: np.ndarray, protocol: Protocol
) -> float:
    weakest_first = slice(None, None, -1)  # ties go to the weaker point, see `register_features`
    weak0, weak1 = features0.take(weakest_first), features1.take(weakest_first)
    return metrics.matching_score(
        weak0.keypoints,
        weak1.keypoints,
        matching.descriptor_distances(weak0.descriptors, weak1.descriptors),
        homography,
        protocol.image_size,
        threshold=protocol.distance_threshold,
    )


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
        One row a pair and k: method, precision, runtime, dataset, pair, sequence, subset, index, the
        results of `score_pair`, and `weights_sha256`, from `extractors.weights_hash`.
        What cannot be read has the status "skipped", a reason, and NaN for every metric; a problem of a
        sequence that is no pair has index 0.

    Raises:
        InputError: If there are no pairs, or none of them could be read.
    """
    pairs = [pair for sequence in sequences for pair in sequence.pairs]
    store = export_features(
        extractor, pairs, protocol.image_size, cache=cache, workers=workers, progress=progress
    )
    label = f"{extractor.name} {extractor.precision}: scores"
    scored = parallel(
        lambda pair: _rows(pair, store, protocol), pairs, workers or provenance.workers(), label, progress
    )
    for sequence in sequences:
        key = dict(zip(_PAIR, (sequence.name, sequence.name, sequence.subset, 0), strict=True))
        scored += [_skipped(key, f"{why.what} {why.remedy}", protocol) for why in sequence.problems]
    _report_doubts([row for rows in scored for row in rows if row.get("doubt")], len(pairs))
    table = pd.DataFrame([row for rows in scored for row in rows], columns=[*_PAIR, *_SCORES])
    _report_skipped(table, len(pairs))
    table.insert(0, "method", extractor.name)
    table.insert(1, "precision", extractor.precision)
    table.insert(2, "runtime", extractor.runtime)
    groups = locations.by_dataset(sequences)
    names = {sequence.name: dataset for dataset, group in groups for sequence in group}
    table.insert(3, "dataset", table["sequence"].map(names))
    return table.assign(weights_sha256=weights_hash(extractor))


def _rows(pair: ImagePair, store: FeatureStore, protocol: Protocol) -> list[dict[str, Any]]:
    """Returns one row a k of a pair, those of one that cannot be read as well."""
    key = dict(zip(_PAIR, (pair.name, pair.sequence, pair.subset, pair.index), strict=True))
    try:
        features0, features1, homography = read_pair(pair, store, protocol)
    except checks.InputError as error:
        return _skipped(key, str(error), protocol)
    rows = [{**key, **scores} for scores in score_pair(features0, features1, homography, protocol)]
    if max(row["matching_score"] for row in rows) < DOUBTFUL:
        rows[0]["doubt"] = _doubt(pair, store, (features0, features1), protocol)
    return rows


def _doubt(
    pair: ImagePair, store: FeatureStore, features: tuple[Features, Features], protocol: Protocol
) -> str:
    """Names what a pair's own matches agree on where they contradict the true homography; "" if nothing."""
    agreed = register_features(*features, top_k=max(protocol.top_k), protocol=protocol)
    inliers = int(agreed.estimate.inliers.sum())
    if agreed.estimate.homography is None or inliers < max(20, len(agreed.matches) / 4):
        return ""
    given, swap = pair.homography(), np.eye(3)[[1, 0, 2]]
    inverse = np.linalg.inv(given)
    readings = {
        "its inverse (the file maps image 1 to image 0)": inverse,
        "its transpose (columns were written as rows)": given.T,
        "the transpose of its inverse": inverse.T,
        "itself with x and y swapped": swap @ given @ swap,
        "its inverse with x and y swapped": swap @ inverse @ swap,
    }
    sizes = [store.get(path).own_size for path in (pair.path0, pair.path1)]
    for name, reading in readings.items():
        with contextlib.suppress(checks.InputError):
            scaled = geometry.rescale_homography(
                reading, *sizes, protocol.image_size, half_pixel=protocol.half_pixel
            )
            error = geometry.corner_error(agreed.estimate.homography, scaled, protocol.image_size)
            if error < AGREES:
                return f"{inliers} of {len(agreed.matches)} matches agree on {name}"
    return f"{inliers} of {len(agreed.matches)} matches agree on another homography"


def _skipped(key: dict[str, Any], reason: str, protocol: Protocol) -> list[dict[str, Any]]:
    return [{**key, "top_k": k, "status": "skipped", "reason": reason} for k in protocol.top_k]


def _report_skipped(table: pd.DataFrame, num_pairs: int) -> None:
    """Logs what was skipped, each pair once; refuses a table of nothing else."""
    skipped = table[table["status"] == "skipped"]
    for pair, reason in skipped[["pair", "reason"]].drop_duplicates().itertuples(index=False):
        logger.warning("skipped %s: %s", pair, reason)
    if len(skipped) == len(table):
        first = skipped.iloc[0]["reason"]
        raise checks.InputError(f"none of the {num_pairs} pairs could be read; the first: {first}")


def _report_doubts(doubted: Sequence[dict[str, Any]], num_pairs: int) -> None:
    """Logs each pair whose true homography its own matches contradict, and how many there are."""
    for row in doubted:
        logger.warning("the true homography of %s may be wrong: %s", row["pair"], row["doubt"])
    if doubted:
        logger.warning("%d of %d pairs have a doubtful true homography", len(doubted), num_pairs)


def export_features(
    extractor: Extractor,
    pairs: Sequence[ImagePair],
    image_size: tuple[int, int],
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> FeatureStore:
    """Extracts the features of every image of some pairs; the arguments are those of `evaluate`.

    Returns:
        Where the features are; an image that cannot be read raises its error there.

    Raises:
        InputError: If there are no pairs.
    """
    if not pairs:
        raise checks.problem("at least one image pair", "none")
    if workers is not None and workers < 1:
        raise checks.problem("one or more workers", workers)
    store = FeatureStore(extractor, image_size, cache)
    images = sorted({path for pair in pairs for path in (pair.path0, pair.path1)})
    threads = (workers or provenance.workers()) if extractor.concurrent else 1
    label = f"{extractor.name} {extractor.precision}: features"
    parallel(lambda path: _export(store, path), images, threads, label, progress)
    return store


def _export(store: FeatureStore, path: Path) -> None:
    with contextlib.suppress(checks.InputError):  # scoring reports it, with the pair it belongs to
        store.get(path)
