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
from kp2d.data import datasets
from kp2d.data.datasets import ImagePair
from kp2d.evaluate import evaluation, metrics
from kp2d.evaluate.feature_store import FeatureStore, parallel
from kp2d.methods import extractors, matching, registration
from kp2d.viz import showcase

logger = logging.getLogger(__name__)

MAX_PAIRS = 24
MAX_ZOOM = 2.0  # of a picture on the page over what a method sees: more would only be weight
FOLDER = "matches"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Browser:
    """What became of the match browser.

    Attributes:
        num_pairs: Pairs to choose from; 0 if there is no browser.
        methods: Names of the methods to choose from.
        notes: What is missing, and which command makes it.
    """

    num_pairs: int = 0
    methods: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def choose_pairs(sequences: Sequence[datasets.Sequence], count: int = MAX_PAIRS) -> list[ImagePair]:
    """Returns the first and the last pair of each sequence: of `sample`, a mild and a strong change.

    Args:
        sequences: What may be shown.
        count: At most this many pairs; with more sequences than fit, they are chosen at even distances.
    """
    chosen = showcase.spread([sequence for sequence in sequences if sequence.pairs], max(count // 2, 1))
    return [pair for sequence in chosen for pair in showcase.spread(sequence.pairs, 2)]


def write_browser(folder: Path, profile: config.Profile, *, progress: bool = True) -> Browser:
    """Writes pictures and matches for the page that draws them.

    A page opened from the file system may not fetch anything, so the data are scripts: `matches/index.js`
    says what there is, and each pair's script is loaded once it is chosen.

    Args:
        folder: The site.
        profile: Whose data set, size, methods and numbers of keypoints are taken. Features that its notebooks
            extracted are reused.
        progress: Whether to show progress bars.

    Returns:
        What can be chosen; without data or methods, why there is nothing.
    """
    try:
        root = datasets.resolve(profile.dataset, profile.name)
        pairs = choose_pairs(showcase.presentable(datasets.load_sequences(root)))
    except checks.InputError as error:
        return Browser(notes=(f"No pairs to browse: {error}",))
    protocol = config.protocol(image_size=profile.image_size, top_k=profile.top_k)
    stores, notes = _stores(profile, pairs, protocol, progress)
    if not stores:
        return Browser(notes=tuple(notes))
    write = functools.partial(_write_pair, folder / FOLDER, stores=stores, protocol=protocol)
    entries, workers = list(enumerate(pairs)), provenance.workers()
    written = parallel(lambda entry: write(*entry), entries, workers, "match browser", progress)
    records = [record for record in written if isinstance(record, dict)]
    notes += [problem for problem in written if isinstance(problem, str)]
    if not records:
        return Browser(notes=tuple(notes))
    index = {
        "pairs": records,
        "methods": [_method_entry(name, store) for name, store in stores.items()],
        "top_k": list(protocol.top_k),
        "size": list(protocol.image_size),
        "threshold": protocol.distance_threshold,
        "matches": {},
    }
    _write_script(folder / FOLDER / "index.js", f"window.KP2D = {_json(index)};")
    return Browser(num_pairs=len(records), methods=tuple(stores), notes=tuple(notes))


def _stores(
    profile: config.Profile, pairs: Sequence[ImagePair], protocol: Protocol, progress: bool
) -> tuple[dict[str, FeatureStore], list[str]]:
    """Extracts the features of all pictures, unless kept ones fit; says which methods cannot be had."""
    pictures = sorted({path for pair in pairs for path in (pair.path0, pair.path1)})
    workers, cache = provenance.workers(), paths.runs(profile.name) / "features"
    stores, notes = {}, []
    for name in profile.methods:
        try:
            extractor = extractors.from_name(name)
            store = FeatureStore(extractor, protocol.image_size, cache)
            run_at_once = workers if extractor.concurrent else 1
            parallel(functools.partial(_extract, store), pictures, run_at_once, f"{name}: features", progress)
        except (checks.InputError, ModuleNotFoundError) as error:
            logger.warning("%s is left out: %s", name, error)
            notes.append(f"{name} is left out: {error}")
        else:
            stores[name] = store
    return stores, notes


def _extract(store: FeatureStore, picture: Path) -> None:
    try:
        store.get(picture)
    except checks.InputError as error:
        logger.debug("%s", error)  # the pair it belongs to is named when its turn comes


def _method_entry(name: str, store: FeatureStore) -> dict[str, Any]:
    bits = bool(getattr(store.extractor, "binary", False))  # what distances count
    return {"name": name, "label": extractors.label(name), "bits": bits}


def _write_pair(
    folder: Path, number: int, pair: ImagePair, *, stores: dict[str, FeatureStore], protocol: Protocol
) -> dict[str, Any] | str:
    """Writes a pair's pictures and matches; returns its entry in the index, or why it is left out."""
    try:
        image0, image1, homography = _read_pair(pair, protocol)
        found = {name: match_pair(pair, store, homography, protocol) for name, store in stores.items()}
    except checks.InputError as error:
        return f"{pair.name} is left out: {error}"
    name = f"pair{number:02d}"
    for position, image in enumerate((image0, image1)):
        images.write_image(folder / f"{name}_{position}.jpg", image)
    frame = geometry.warp_points(geometry.corners(protocol.image_size), homography)
    _write_script(folder / f"{name}.js", f"KP2D.matches[{number}] = {_json(found)};")
    entry = {"id": number, "name": pair.name, "subset": pair.subset, "frame": _points(frame)}
    return {
        **entry,
        **{key: f"{FOLDER}/{name}{end}" for key, end in (("script", ".js"), ("image0", "_0.jpg"))},
        "image1": f"{FOLDER}/{name}_1.jpg",
    }


def _read_pair(pair: ImagePair, protocol: Protocol) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns both pictures as large as the page shows them, and the homography at the protocol's size."""
    _, _, homography = showcase.load_pair(pair, protocol)
    originals = [images.read_image(path) for path in (pair.path0, pair.path1)]
    wanted = protocol.image_size
    fitting = min(side / want for image in originals for side, want in zip(image.shape, wanted, strict=False))
    zoom = min(max(fitting, 1.0), MAX_ZOOM)
    shown = tuple(round(side * zoom) for side in wanted)
    image0, image1 = (images.resize_image(image, shown) for image in originals)
    return image0, image1, homography


def match_pair(
    pair: ImagePair, store: FeatureStore, homography: np.ndarray, protocol: Protocol
) -> dict[str, dict[str, Any]]:
    """Matches one pair just as it is scored.

    Args:
        pair: The pair.
        store: The method's features.
        homography: `[3, 3]`, image 0 to image 1 at the protocol's size.
        protocol: Size, k and thresholds.

    Returns:
        By k: `matches`, best score first, each as x0, y0, x1, y1 (px), distance of the descriptors and
        distance from the true place (px; null behind the horizon); `frame`, the corners of image 0 by the
        estimated homography, and `error`, how far they are off on average (px), both null without one;
        `reason`, why there is no error.

    Raises:
        InputError: If an image cannot be read.
    """
    features = [
        registration.confident(store.get(path).features, store.extractor, protocol)
        for path in (pair.path0, pair.path1)
    ]
    shared = evaluation.shared_features(*features, homography, protocol.image_size)
    return {str(k): _match(shared, homography, k, protocol) for k in protocol.top_k}


def _match(shared: tuple, homography: np.ndarray, top_k: int, protocol: Protocol) -> dict[str, Any]:
    found = registration.register_features(*shared, top_k=top_k, protocol=protocol)
    matches = found.matches[::-1]  # best first
    features0, features1 = found.features0, found.features1
    errors = metrics.match_errors(features0.keypoints, features1.keypoints, matches, homography)
    distances = matching.match_distances(features0.descriptors, features1.descriptors, matches)
    ends = np.hstack([features0.keypoints[matches[:, 0]], features1.keypoints[matches[:, 1]]])
    rows = [
        [*(round(float(value), 1) for value in end), round(float(distance), 3), _number(error, 3)]
        for end, distance, error in zip(ends, distances, errors, strict=True)
    ]
    estimated, frame, error = found.estimate.homography, None, None
    reason = "none found"
    if estimated is not None:
        frame = _points(geometry.warp_points(geometry.corners(protocol.image_size), estimated))
        error = _number(geometry.corner_error(estimated, homography, protocol.image_size), 2)
        reason = "a corner behind the horizon" if error is None else ""
    return {"matches": rows, "frame": frame, "error": error, "reason": reason}


def _points(points: np.ndarray) -> list[list[float]] | None:
    """Returns corners as a script takes them; None if one of them is behind the horizon."""
    return np.round(points, 1).tolist() if np.isfinite(points).all() else None


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None


def _json(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _write_script(path: Path, statement: str) -> None:
    files.write_text(path, f'"use strict";\n{statement}\n')
