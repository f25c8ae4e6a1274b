"""Owns the data of the report's match browser: the pairs to choose from, and what every method matches."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import checks, config, files, geometry, images, paths, provenance
from kp2d.config import Protocol
from kp2d.data import datasets, locations
from kp2d.data.datasets import ImagePair
from kp2d.evaluate import evaluation
from kp2d.evaluate.evaluation import MatchedPair
from kp2d.evaluate.feature_store import FeatureStore, parallel
from kp2d.methods import extractors, matching
from kp2d.viz import showcase

logger = logging.getLogger(__name__)

MAX_PAIRS = 24
MAX_ZOOM = 2.0  # of a picture on the page over what a method sees: more would only be weight
FOLDER = "matches"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Browser:
    """What became of the match browser."""

    num_pairs: int = 0  # pairs to choose from; 0 if there is no browser
    methods: tuple[str, ...] = ()  # names of the methods to choose from
    notes: tuple[str, ...] = ()  # what is missing, and which command makes it


def choose_pairs(sequences: Sequence[datasets.Sequence], count: int = MAX_PAIRS) -> list[ImagePair]:
    """Returns the first and the last pair of each sequence: of `sample`, a mild and a strong change.

    There are at most `count` pairs; with more sequences than fit, they are chosen at even distances.
    """
    chosen = showcase.spread([sequence for sequence in sequences if sequence.pairs], max(count // 2, 1))
    return [pair for sequence in chosen for pair in showcase.spread(sequence.pairs, 2)]


def write_browser(folder: Path, profile: config.Profile, *, progress: bool = True) -> Browser:
    """Writes pictures and matches, below the folder of the site, for the page that draws them.

    A page opened from the file system may not fetch anything, so the data are scripts: `matches/index.js`
    says what there is, and each pair's script is loaded once it is chosen. Data set, size, methods and
    numbers of keypoints are the profile's; features that its notebooks extracted are reused.

    Returns:
        What can be chosen; without data or methods, why there is nothing.
    """
    try:
        pairs = choose_pairs(showcase.presentable(locations.load(profile.dataset, profile.name)))
    except checks.InputError as error:
        return Browser(notes=(f"No pairs to browse: {error}",))
    protocol = config.protocol(image_size=profile.image_size, top_k=profile.top_k)
    stores, notes = _stores(profile, pairs, protocol, progress)
    if not stores:
        return Browser(notes=tuple(notes))
    write = functools.partial(_write_pair, folder, stores=stores, protocol=protocol)
    numbered, workers = list(enumerate(pairs)), provenance.workers()
    written = parallel(lambda entry: write(*entry), numbered, workers, "match browser", progress)
    records = [record for record in written if isinstance(record, dict)]
    notes += [problem for problem in written if isinstance(problem, str)]
    if not records:
        return Browser(notes=tuple(notes))
    index = {
        "pairs": records,
        "methods": [  # `bits`: what distances count
            {"name": name, "label": extractors.label(name), "bits": store.extractor.binary}
            for name, store in stores.items()
        ],
        "top_k": list(protocol.top_k),
        "size": list(protocol.image_size),
        "threshold": protocol.distance_threshold,
        "matches": {},
    }
    _write_script(folder / FOLDER / "index.js", "window.KP2D", index)
    return Browser(num_pairs=len(records), methods=tuple(stores), notes=tuple(notes))


def _stores(
    profile: config.Profile, pairs: Sequence[ImagePair], protocol: Protocol, progress: bool
) -> tuple[dict[str, FeatureStore], list[str]]:
    """Extracts the features of all pictures, unless kept ones fit; says which methods cannot be had."""
    cache = paths.runs(profile.name) / "features"
    stores, notes = {}, []
    for name in profile.methods:
        try:
            stores[name] = evaluation.export_features(
                extractors.create(name), pairs, protocol.image_size, cache=cache, progress=progress
            )
        except (checks.InputError, ModuleNotFoundError) as error:
            logger.warning("%s is left out: %s", name, error)
            notes.append(f"{name} is left out: {error}")
    return stores, notes


def _write_pair(
    folder: Path, number: int, pair: ImagePair, *, stores: dict[str, FeatureStore], protocol: Protocol
) -> dict[str, Any] | str:
    """Writes a pair's pictures and matches; returns its entry in the index, or why it is left out."""
    try:
        originals = [images.read_image(path) for path in (pair.path0, pair.path1)]
        sizes = [image.shape[:2] for image in originals]
        homography = evaluation.true_homography(pair, *sizes, protocol)
        by_method = {name: _by_top_k(pair, store, protocol) for name, store in stores.items()}
    except checks.InputError as error:
        return f"{pair.name} is left out: {error}"
    entry = {
        "id": number,
        "name": pair.name,
        "subset": pair.subset,
        "frame": _frame(homography, protocol.image_size),
        "script": f"{FOLDER}/pair{number:02d}.js",
        "image0": f"{FOLDER}/pair{number:02d}_0.jpg",
        "image1": f"{FOLDER}/pair{number:02d}_1.jpg",
    }
    shown = _shown_size(sizes, protocol.image_size)
    for key, image in zip(("image0", "image1"), originals, strict=True):
        images.write_image(folder / entry[key], images.resize_image(image, shown))
    _write_script(folder / entry["script"], f"KP2D.matches[{number}]", by_method)
    return entry


def _shown_size(own_sizes: Sequence[tuple[int, int]], wanted: tuple[int, int]) -> tuple[int, int]:
    """Returns how large the page shows pictures: as a method sees them, or larger where they allow it."""
    fitting = min(side / want for size in own_sizes for side, want in zip(size, wanted, strict=True))
    zoom = min(max(fitting, 1.0), MAX_ZOOM)
    return round(wanted[0] * zoom), round(wanted[1] * zoom)


def _by_top_k(pair: ImagePair, store: FeatureStore, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Returns what the page draws of a pair by one method, by k.

    It is matched just as it is scored, and the homography is found as `kp2d match` finds it. What is drawn is
    `matches`, best score first, each as x0, y0, x1, y1 (px), the descriptors' distance and that from the
    true place (px; null behind the horizon); `frame`, the corners of image 0 by the estimated homography, and
    `error`, how far they are off on average (px), both null without one; `reason`, why there is no error.
    """
    features0, features1, homography = evaluation.read_pair(pair, store, protocol)
    matched = {
        top_k: evaluation.match_pair(
            features0, features1, homography, protocol, top_k=top_k, estimator="accurate"
        )
        for top_k in protocol.top_k
    }
    return {
        str(top_k): {
            "matches": _match_rows(pair_at_k),
            "frame": _frame(pair_at_k.estimated, protocol.image_size),
            "error": _number(pair_at_k.corner_error, 2),
            "reason": _reason(pair_at_k),
        }
        for top_k, pair_at_k in matched.items()
    }


def _match_rows(matched: MatchedPair) -> list[list[float | None]]:
    features0, features1, matches = matched.features0, matched.features1, matched.matches
    distances = matching.match_distances(features0.descriptors, features1.descriptors, matches)
    ends = np.hstack([features0.keypoints[matches[:, 0]], features1.keypoints[matches[:, 1]]])
    return [
        [*(round(float(value), 1) for value in end), round(float(distance), 3), _number(error, 3)]
        for end, distance, error in zip(ends, distances, matched.match_errors, strict=True)
    ]


def _reason(matched: MatchedPair) -> str:
    if matched.estimated is None:
        return "none found"
    return "" if math.isfinite(matched.corner_error) else "a corner behind the horizon"


def _frame(homography: np.ndarray | None, image_size: tuple[int, int]) -> list[list[float]] | None:
    """Returns the corners of image 0 in image 1 as a script takes them; None if one is behind the horizon."""
    if homography is None:
        return None
    corners = geometry.warp_points(geometry.corners(image_size), homography)
    return np.round(corners, 1).tolist() if np.isfinite(corners).all() else None


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None


def _write_script(path: Path, name: str, value: Any) -> None:
    content = json.dumps(value, separators=(",", ":"), allow_nan=False)
    files.write_text(path, f'"use strict";\n{name} = {content};\n')
