"""Owns the studies of homographies: what estimates them from the same matches, and which are trusted.

The tables of the papers' metrics keep KP2D's RANSAC and its order of the matches. Which samples it draws
depends on that order alone, so here every pair is estimated in several orders: their mean is what counts, and
the least and the most of them say how much of a number is luck.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kp2d import checks, geometry, images, provenance
from kp2d.config import Protocol, fingerprint
from kp2d.data import datasets, locations
from kp2d.data.datasets import ImagePair
from kp2d.evaluate import averages, evaluation
from kp2d.evaluate.evaluation import MatchedPair
from kp2d.evaluate.feature_store import FeatureStore, parallel
from kp2d.methods import extractors, registration
from kp2d.methods.extractors import Extractor

LIMITS = (1, 3, 5)  # px, of the mean corner error
METRICS = tuple(f"d{limit}" for limit in LIMITS)
LUCK = ("d1_least", "d1_most")  # the ends of what the order of the matches does to d1
ORDERS = 4  # of the matches; RANSAC takes most of the time of this study
UNRELATED = 25  # pairs of images that show different things, each once as it is and once in every dress
RIGHT = 5.0  # px, the mean corner error of a right homography where image 1 is 240 px high
NAMES = {"ransac": "opencv-ransac", "accurate": "opencv-usac-accurate"}  # in the tables


def study(
    methods: Sequence[str | Extractor],
    sequences: Sequence[datasets.Sequence],
    protocol: Protocol,
    *,
    profile: str,
    orders: int = ORDERS,
    cache: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measures d1, d3 and d5 of the same matches by KP2D's RANSAC, and by the estimator of `kp2d match`.

    The arguments are those of `comparison.evaluate_methods`, and in how many orders the estimators get the
    matches, that of the protocol's seed first. Of the protocol its largest k counts; RANSAC has its threshold
    and iterations, the other estimator those of `kp2d match`, without and with the refinement by the
    pictures.

    Returns:
        One row a method × precision × runtime × data set × subset × estimator × refined or not: the mean of
        d1, d3 and d5 over the orders, their 95 % intervals from the bootstrap over sequences (`d1_low`,
        `d1_high`), and the least and the most of an order (`d1_least`, `d1_most`), which no interval has.

    Raises:
        InputError: If there are no pairs, or fewer than one order.
    """
    if orders < 1:
        raise checks.problem("one or more orders of the matches", orders)
    pairs = [pair for sequence in sequences for pair in sequence.pairs]
    chosen = [extractors.as_extractor(method) for method in methods]
    how = {"cache": cache, "workers": workers, "progress": progress}
    stores = [evaluation.export_features(method, pairs, protocol.image_size, **how) for method in chosen]
    seeds = range(protocol.seed, protocol.seed + orders)
    estimate = functools.partial(_rows, stores=stores, protocol=protocol, seeds=seeds)
    found = parallel(estimate, pairs, workers or provenance.workers(), "estimators", progress)
    names = {s.name: name for name, group in locations.by_dataset(sequences) for s in group}
    scores = pd.DataFrame([row for rows in found for row in rows])
    if scores.empty:
        raise checks.problem("an image pair that can be read", f"none of {len(pairs)}")
    scores.insert(0, "dataset", scores["sequence"].map(names))
    hashes = {
        (method.name, method.precision, method.runtime): {
            "config_hash": fingerprint(protocol, orders, method.settings()),
            "weights_sha256": extractors.weights_hash(method),
        }
        for method in chosen
    }
    return _averages(scores, protocol, hashes, profile=profile, orders=orders)


def _rows(
    pair: ImagePair, *, stores: Sequence[FeatureStore], protocol: Protocol, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns a pair's corner errors by method and by all that `corner_errors` varies; none if unreadable."""
    try:
        read = [evaluation.read_pair(pair, store, protocol) for store in stores]
        pictures = [
            images.resize_image(images.read_image(path), protocol.image_size)
            for path in (pair.path0, pair.path1)
        ]
    except checks.InputError:
        return []  # the evaluation names it
    rows = []
    for store, (features0, features1, homography) in zip(stores, read, strict=True):
        matched = evaluation.match_pair(features0, features1, homography, protocol, top_k=max(protocol.top_k))
        method = store.extractor
        setting = {"method": method.name, "precision": method.precision, "runtime": method.runtime}
        setting |= {name: getattr(pair, name) for name in ("sequence", "index", "subset")}
        rows += [{**setting, **scores} for scores in corner_errors(matched, *pictures, protocol, seeds)]
    return rows


def corner_errors(
    matched: MatchedPair,
    image0: np.ndarray,
    image1: np.ndarray,
    protocol: Protocol,
    seeds: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """Yields the corner error of a pair by each estimator and order; by "accurate" also refined.

    The images are uint8 RGB `[H, W, 3]` at the protocol's size, the seeds as for
    `registration.estimate_homography`; RANSAC in the protocol's own is not computed again.
    """
    points0 = matched.features0.keypoints[matched.matches[:, 0]]
    points1 = matched.features1.keypoints[matched.matches[:, 1]]
    for estimator, seed in itertools.product(NAMES, seeds):
        if estimator == "ransac" and seed == protocol.seed:
            estimate = registration.Estimate(homography=matched.estimated, inliers=matched.inliers)
        else:
            how = {"seed": seed, **registration.estimator_settings(estimator, protocol)}
            estimate = registration.estimate_from_matches(
                matched.features0, matched.features1, matched.matches, **how
            )
        results = [(False, estimate)]
        if estimator == "accurate":
            results.append((True, registration.refined(image0, image1, points0, points1, estimate)))
        for refine, result in results:
            error = np.inf
            if result.homography is not None:
                error = geometry.corner_error(result.homography, matched.homography, protocol.image_size)
            yield {"estimator": estimator, "refine": refine, "seed": seed, "corner_error": error}


def _averages(
    scores: pd.DataFrame, protocol: Protocol, hashes: dict[tuple, dict], *, profile: str, orders: int
) -> pd.DataFrame:
    """Averages corner errors into rows, each with the rules that it was made by."""
    rows = []
    settings = {name: registration.estimator_settings(name, protocol) for name in NAMES}
    for setting, chosen in averages.by_setting(scores.assign(top_k=max(protocol.top_k))):
        method = tuple(setting[name] for name in ("method", "precision", "runtime"))
        for (estimator, refine), part in chosen.groupby(["estimator", "refine"], sort=False):
            rows.append(
                {
                    **setting,
                    "profile": profile,
                    "image_height": protocol.image_size[0],
                    "image_width": protocol.image_size[1],
                    "estimator": NAMES[estimator],
                    "ransac_threshold": settings[estimator]["ransac_threshold"],
                    "refine": refine,
                    "orders": orders,
                    **_average(part),
                    "seed": protocol.seed,
                    **hashes[method],
                    "git_commit": provenance.git_commit(),
                }
            )
    return pd.DataFrame(rows)


def _average(part: pd.DataFrame) -> dict[str, Any]:
    """Returns the metrics of one estimator over pairs and orders."""
    within = pd.DataFrame({f"d{limit}": (part["corner_error"] <= limit).astype(float) for limit in LIMITS})
    by_order = within.groupby(part["seed"]).mean()
    by_pair = within.groupby([part["sequence"], part["index"]]).mean()
    sequences = by_pair.index.get_level_values("sequence")
    return {
        "num_pairs": len(by_pair),
        "num_sequences": sequences.nunique(),
        **by_pair.mean().to_dict(),
        **averages.named_intervals(by_pair, sequences),
        **by_order.min().add_suffix("_least").to_dict(),
        **by_order.max().add_suffix("_most").to_dict(),
    }


def trust_study(
    methods: Sequence[str | Extractor],
    sequences: Sequence[datasets.Sequence],
    image_size: tuple[int, int],
    *,
    profile: str,
    unrelated: int = UNRELATED,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Counts which homographies `kp2d match` trusts: of pairs with a true one, and of pairs that have none.

    Images are unrelated if the first words of their sequences' names differ, as of "i_mefb_Lake1" and
    "v_graf". Each such pair is matched as it is, and with the same around both images: a black frame, the
    bars of a film, a microscope's disk.

    Args:
        methods: Extractors, or names as for `extractors.create`.
        sequences: The data sets.
        image_size: (height, width) px at which methods see the images.
        profile: For the rows.
        unrelated: Unrelated pairs of a data set at most, spread over all there are.
        workers: Threads; None takes all cores.
        progress: Whether to show progress bars.

    Returns:
        One row a method × precision × runtime × data set × `pairs` ("related", or "unrelated" with what is
        `around`): `num_pairs`; how many have a homography (`num_found`) and how many are trusted
        (`num_trusted`); of related pairs, how many are right within `RIGHT`, and how many right and trusted.

    Raises:
        InputError: If a method does not exist, or the size does not fit its cells.
    """
    jobs = []
    for dataset, group in locations.by_dataset(sequences):
        pairs = [pair for sequence in group for pair in sequence.pairs]
        jobs += [(dataset, "nothing", pair.path0, pair.path1, pair) for pair in pairs]
        jobs += [(dataset, around, *two, None) for around in AROUND for two in _unrelated(group, unrelated)]
    rows, count = [], workers or provenance.workers()
    for method in methods:
        extractor = extractors.as_extractor(method)
        judge = functools.partial(_judged, extractor, image_size)
        judged = parallel(judge, jobs, count if extractor.concurrent else 1, "trust", progress)
        table = pd.DataFrame([one for one in judged if one is not None])
        setting = {"method": extractor.name, "precision": extractor.precision, "runtime": extractor.runtime}
        keys = ["dataset", "pairs", "around"]
        for key, part in table.groupby(keys, sort=False):
            counts = part[["found", "trusted", "right", "right_trusted"]].sum().add_prefix("num_").to_dict()
            told = {"profile": profile, **dict(zip(keys, key, strict=True)), "num_pairs": len(part)}
            about = {
                "weights_sha256": extractors.weights_hash(extractor),
                "git_commit": provenance.git_commit(),
            }
            rows.append({**setting, **told, **counts, **about})
    return pd.DataFrame(rows)


def _unrelated(group: Sequence[datasets.Sequence], count: int) -> list[tuple[Path, Path]]:
    """Returns up to `count` pairs of first images that show different things, spread over all there are."""
    firsts = [(sequence.name.split("_")[1:2], sequence.images[0]) for sequence in group if sequence.images]
    two = [(one, other) for (a, one), (b, other) in itertools.combinations(firsts, 2) if a != b]
    return [two[round(step)] for step in np.linspace(0, len(two) - 1, min(count, len(two)))]


def _judged(
    extractor: Extractor, image_size: tuple[int, int], job: tuple[str, str, Path, Path, ImagePair | None]
) -> dict[str, Any] | None:
    """Returns what becomes of a pair; None if it cannot be read."""
    dataset, around, path0, path1, pair = job
    try:
        pictures = [AROUND[around](images.bounded(images.read_image(path))) for path in (path0, path1)]
        truth = None if pair is None else pair.homography()
    except checks.InputError:
        return None  # the evaluation names it
    views = [registration.view_image(picture, extractor, image_size=image_size) for picture in pictures]
    estimate = registration.register_views(*views, extractor).estimate
    right = False
    if truth is not None and estimate.homography is not None:
        error = geometry.corner_error(estimate.homography, truth, pictures[0].shape[:2])
        right = error <= RIGHT * pictures[1].shape[0] / 240
    return {
        "dataset": dataset,
        "pairs": "unrelated" if pair is None else "related",
        "around": around,
        "found": estimate.homography is not None,
        "trusted": estimate.trustworthy,
        "right": right,
        "right_trusted": right and estimate.trustworthy,
    }


def _framed(image: np.ndarray) -> np.ndarray:
    return _blackened(image, lambda x, y: np.maximum(abs(x), abs(y)) > 0.76)


def _letterboxed(image: np.ndarray) -> np.ndarray:
    return _blackened(image, lambda _, y: abs(y) > 0.7)


def _through_a_microscope(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    wide, high = width / min(height, width), height / min(height, width)
    return _blackened(image, lambda x, y: np.hypot(x * wide, y * high) > 0.95)


def _blackened(image: np.ndarray, outside: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns a uint8 RGB image that is black where `outside` says so of x and y, from -1 to 1."""
    y, x = (np.linspace(-1, 1, side) for side in image.shape[:2])
    return np.where(outside(x[None], y[:, None])[..., None], np.uint8(0), image)


AROUND = {  # an unrelated pair of images
    "nothing": np.asarray,
    "black frame": _framed,
    "letterbox": _letterboxed,
    "disk": _through_a_microscope,
}
