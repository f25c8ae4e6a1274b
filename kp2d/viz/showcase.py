"""Owns which pairs and images of a data set are shown, failures included."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kp2d import checks, geometry, images
from kp2d.config import Protocol
from kp2d.data import datasets, samples
from kp2d.data.datasets import ImagePair
from kp2d.evaluate import evaluation, tables
from kp2d.evaluate.feature_store import FeatureStore
from kp2d.methods import extractors
from kp2d.viz import pictures, viewer


def presentable(sequences: Sequence[datasets.Sequence]) -> list[datasets.Sequence]:
    """Returns the sequences whose pictures may be published.

    Of `sample` only photographs under CC0, CC BY or in the public domain stay; of other data sets all stay,
    because pictures of them are never committed.

    Raises:
        InputError: If nothing stays.
    """
    sequences = list(sequences)
    if datasets.label(sequences) == "sample":
        allowed = samples.redistributable()
        sequences = [s for s in sequences if s.name.partition("_")[2] in allowed]
    if not any(sequence.pairs for sequence in sequences):
        raise checks.problem("at least one sequence to show", "none whose licence allows it")
    return sequences


def match_panel(
    pair: ImagePair, method: str, protocol: Protocol, *, top_k: int, estimator: str = "ransac"
) -> dict[str, Any]:
    """Matches one pair just as it is scored, and returns what `viz.draw_matches` and `viz.gallery` draw.

    Args:
        pair: The pair.
        method: As for `extractors.create`.
        protocol: Size, thresholds, seed.
        top_k: Keypoints kept an image.
        estimator: As for `evaluation.match_pair`.

    Raises:
        InputError: If an image or the homography cannot be read.
    """
    store = FeatureStore(extractors.create(method), protocol.image_size)
    features = evaluation.read_pair(pair, store, protocol)
    matched = evaluation.match_pair(*features, protocol, top_k=top_k, estimator=estimator)
    inliers, error = matched.inliers, matched.corner_error
    verdict = f"{error:.1f} px" if np.isfinite(error) else "failed"
    return {
        "image0": _resized(pair.path0, protocol.image_size),
        "image1": _resized(pair.path1, protocol.image_size),
        "keypoints0": matched.features0.keypoints,
        "keypoints1": matched.features1.keypoints,
        "matches": matched.matches,
        "inliers": inliers,
        "homography": matched.homography,
        "estimated": matched.estimated,
        "title": f"{pair.name} · {inliers.sum()}/{len(inliers)} inliers · {verdict}",
    }


def _resized(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    return images.resize_image(images.read_image(path), image_size)


def ranked_pairs(
    scores: pd.DataFrame, sequences: Sequence[datasets.Sequence], method: str, *, top_k: int
) -> list[ImagePair]:
    """Returns a method's pairs by corner error at a k, the smallest first, those without one last."""
    chosen = tables.of_method(scores, method)
    chosen = chosen[(chosen["top_k"] == top_k) & (chosen["status"] != "skipped")]
    errors = chosen.set_index(["sequence", "index"])["corner_error"].fillna(np.inf)
    pairs = {(pair.sequence, pair.index): pair for s in sequences for pair in s.pairs}
    return [pairs[key] for key in errors.sort_values(kind="stable").index if key in pairs]


def describe_failures(failed: pd.DataFrame, pairs: Sequence[ImagePair], protocol: Protocol) -> pd.DataFrame:
    """Adds to failures, from `comparison.failures`, the rotation (degrees) and scale of the true homography.

    Those of none of the pairs are left out.
    """
    known = {pair.name: pair for pair in pairs}
    rows = failed[failed["pair"].isin(known)].reset_index(drop=True)
    moves = [_similarity(known[name], protocol) for name in rows["pair"]]
    return rows.assign(rotation=[move[0] for move in moves], scale=[move[1] for move in moves])


def _similarity(pair: ImagePair, protocol: Protocol) -> tuple[float, float]:
    sizes = (images.read_image(path).shape[:2] for path in (pair.path0, pair.path1))
    return geometry.similarity(evaluation.true_homography(pair, *sizes, protocol), protocol.image_size)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Returns `count` items at even distances, the first and the last among them; all if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, count)]


def gallery_pairs(ranked: Sequence[ImagePair], count: int) -> list[ImagePair]:
    """Returns `count` pairs at even ranks and, of each sequence they miss, the middle one; best first."""
    chosen = spread(ranked, count)
    seen = {pair.sequence for pair in chosen}
    by_sequence: dict[str, list[ImagePair]] = {}
    for pair in ranked:
        by_sequence.setdefault(pair.sequence, []).append(pair)
    chosen += [own[len(own) // 2] for name, own in by_sequence.items() if name not in seen]
    return sorted(chosen, key=ranked.index)


def typical_pair(ranked: Sequence[ImagePair]) -> ImagePair:
    """Returns the middle one of the ranked pairs; of those with a change of viewpoint, if there are any."""
    views = [pair for pair in ranked if pair.subset == "viewpoint"] or list(ranked)
    return views[len(views) // 2]


def hardest_light(ranked: Sequence[ImagePair]) -> ImagePair:
    """Returns the last one of the ranked pairs; of those with a change of light, if there are any."""
    return ([pair for pair in ranked if pair.subset == "illumination"] or list(ranked))[-1]


def draw_methods(pair: ImagePair, methods: Sequence[str], protocol: Protocol, *, top_k: int) -> Figure:
    """Draws the matches of several methods on one pair, one below the other."""
    panels = [match_panel(pair, method, protocol, top_k=top_k) for method in methods]
    for panel, method in zip(panels, methods, strict=True):
        panel["title"] = f"{extractors.label(method)} · {panel['title']}"
    return pictures.gallery(panels, columns=1, max_matches=80)


def draw_detections(pair: ImagePair, methods: Sequence[str], protocol: Protocol, *, top_k: int) -> Figure:
    """Draws the keypoints of several methods on the first image of a pair, side by side."""
    image = _resized(pair.path0, protocol.image_size)
    features = {method: extractors.create(method).extract(image).take(slice(top_k)) for method in methods}
    detections = {extractors.label(name): (best.keypoints, best.scores) for name, best in features.items()}
    return pictures.compare_keypoints(image, detections)


def sequence_sheet(sequences: Sequence[datasets.Sequence]) -> Figure:
    """Draws image 1 and its partners, a row a sequence (12 at most), at reduced resolution."""
    chosen = spread([sequence for sequence in sequences if sequence.images], 12)
    rows = [[_small(path) for path in sequence.images[:6]] for sequence in chosen]
    columns = [str(number + 1) for number in range(max(map(len, rows), default=0))]
    return pictures.contact_sheet(rows, row_titles=[s.name for s in chosen], column_titles=columns)


def draw_training_pairs(views0: np.ndarray, views1: np.ndarray) -> Figure:
    """Draws up to six training pairs, uint8 RGB `[B, H, W, 3]`, the first views above the second ones."""
    rows = [list(views[:6]) for views in (views0, views1)]
    titles = [f"pair {number}" for number in range(1, len(rows[0]) + 1)]
    return pictures.contact_sheet(rows, row_titles=["first view", "second view"], column_titles=titles)


def _small(path: Path, width: int = 240) -> np.ndarray:
    try:
        image = images.read_image(path)
    except checks.InputError:
        return np.full((180, width, 3), 255, np.uint8)  # left empty; the evaluation says why
    height = max(round(image.shape[0] * width / image.shape[1]), 8)
    return images.resize_image(image, (height, width))


def renderer(sequences: Sequence[datasets.Sequence], protocol: Protocol) -> viewer.Render:
    """Returns the function that draws what `viewer.show_pairs` asks for.

    Homographies are found as `kp2d match` finds them.
    """
    pairs = {pair.name: pair for sequence in sequences for pair in sequence.pairs}

    def render(name: str, method: str, top_k: int, threshold: float) -> Figure:
        rules = dataclasses.replace(protocol, score_threshold=min(threshold, 0.99))
        panel = match_panel(pairs[name], method, rules, top_k=top_k, estimator="accurate")
        return pictures.draw_matches(**{**panel, "title": f"{extractors.label(method)} · {panel['title']}"})

    return render
