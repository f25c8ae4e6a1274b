"""Owns the studies of turned and scaled images: how far a method finds its way, and what a pyramid adds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kp2d import checks, images, provenance
from kp2d.config import Protocol
from kp2d.data import datasets, locations, scenes
from kp2d.evaluate import averages, comparison, evaluation
from kp2d.evaluate.feature_store import parallel
from kp2d.methods import extractors, registration
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Extractor

ROTATIONS = tuple(range(0, 181, 15))  # degrees
SCALES = tuple(2.0 ** (step / 2) for step in range(-4, 5))  # size of a thing in image 1 over that in image 0
PYRAMIDS = (1, 2)  # levels that are compared
PYRAMID_SCALES = (1.5, 2.0, 2.5, 3.0)  # size of a thing in image 1 over that in image 0
TIMED = 20  # runs of each pyramid, of which the shortest counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Views:
    """Pairs of views of one photograph: the views, and by amount which two of them and their homography."""

    dataset: str
    photograph: str
    kind: str
    images: list[np.ndarray]
    pairs: dict[float, tuple[int, int, np.ndarray]]


def first_images(sequences: Sequence[datasets.Sequence], count: int) -> dict[str, list[Path]]:
    """Returns the first images of up to `count` sequences of each data set, by its name.

    They are taken at even distances; of `sample`, no scene twice.
    """
    chosen = {}
    for dataset, group in locations.by_dataset(sequences):
        firsts = [(sequence.name, sequence.images[0]) for sequence in group if sequence.images]
        if dataset == "sample":
            firsts = list({name.partition("_")[2]: (name, path) for name, path in firsts}.values())
        paths = [path for _, path in firsts]
        steps = np.linspace(0, len(paths) - 1, min(count, len(paths)))
        chosen[dataset] = [paths[round(step)] for step in steps]
    return chosen


def study(
    methods: Sequence[str | Extractor],
    photographs: Mapping[str, Sequence[Path]],
    protocol: Protocol,
    *,
    profile: str,
    rotations: Sequence[float] = ROTATIONS,
    scales: Sequence[float] = SCALES,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores methods on pairs of views that differ by a rotation or a scale only.

    Both views are sampled from one photograph and lie inside it, so that no border is seen. A scale above 1
    shows the middle of the photograph larger in image 1; it gains no detail by that, as with digital zoom.
    Rotations are degrees, counterclockwise as one sees it. Photographs go by the name of their data set;
    methods, protocol and profile are as for `comparison.evaluate_methods`.

    Returns:
        Result rows as `kp2d.evaluate.tables.EVALUATION_COLUMNS`, the subset being "rotation" or "scale", with
        the column `amount` (degrees; factor) in front.

    Raises:
        InputError: If a method, an image or a scale cannot be used.
    """
    wanted = [(dataset, path) for dataset, paths in photographs.items() for path in paths]
    if not wanted or any(scale <= 0 for scale in scales):
        raise checks.problem("photographs and positive scales", f"{len(wanted)} and {list(scales)}")
    workers = provenance.workers()
    kinds = {"rotation": rotations, "scale": scales}
    shown = parallel(
        lambda view: _show(*view, protocol.image_size),
        [(*photograph, *kind) for photograph in wanted for kind in kinds.items()],
        workers,
        "views",
        progress,
    )
    parts = []
    for method in methods:
        extractor = extractors.as_extractor(method)
        pairs = _score_views(extractor, shown, protocol, workers, progress)
        for (_, kind, amount), part in pairs.groupby(["dataset", "subset", "amount"], sort=False):
            rows = averages.result_rows(part, extractor, protocol, profile=profile)
            rows = rows[rows["subset"] == kind]
            rows.insert(0, "amount", float(amount))
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def pyramid_study(
    methods: Sequence[str],
    sequences: Sequence[datasets.Sequence],
    photographs: Mapping[str, Sequence[Path]],
    protocol: Protocol,
    *,
    profile: str,
    cache: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores networks without and with an image pyramid: on views that differ in scale, and on real pairs.

    The arguments are those of `study`; with `sequences`, the real pairs, and a `cache` of their features.

    Returns:
        Rows as of `study`, those of real pairs without an amount, with a column `cpu_ms`: milliseconds of
        processor time, of all threads, of an image.
    """
    parts = []
    for method in methods:
        chosen = [extractors.create(method, pyramid=levels) for levels in PYRAMIDS]
        seen = images.resize_image(images.read_image(sequences[0].pairs[0].path0), protocol.image_size)
        times = _cpu_times(chosen, seen)
        how = {"profile": profile, "progress": progress}
        scaled_views = study(chosen, photographs, protocol, rotations=(), scales=PYRAMID_SCALES, **how)
        real, _ = comparison.evaluate_methods(chosen, sequences, protocol, cache=cache, **how)
        parts += [part.assign(cpu_ms=part["method"].map(times)) for part in (scaled_views, real)]
    return pd.concat(parts, ignore_index=True)


def _cpu_times(methods: Sequence[Extractor], image: np.ndarray) -> dict[str, float]:
    """Returns the processor time of an image, ms, by method; they take turns, the least of each counts."""
    least = dict.fromkeys([method.name for method in methods], np.inf)
    for method in list(methods) * TIMED:
        started = time.process_time()
        method.extract(image)
        least[method.name] = min(least[method.name], 1e3 * (time.process_time() - started))
    return {name: round(spent, 1) for name, spent in least.items()}


def _score_views(
    extractor: Extractor, shown: Sequence[_Views], protocol: Protocol, workers: int, progress: bool
) -> pd.DataFrame:
    """Scores a method on pairs of views, a row a pair and k."""
    label = f"{extractor.name} {extractor.precision}"
    features = parallel(
        lambda views_shown: _extract(extractor, views_shown, protocol),
        shown,
        workers if extractor.concurrent else 1,
        f"{label}: features",
        progress,
    )
    pairs = [
        (views_of, extracted, amount)
        for views_of, extracted in zip(shown, features, strict=True)
        for amount in views_of.pairs
    ]
    scored = parallel(
        lambda pair: _score(*pair, extractor, protocol), pairs, workers, f"{label}: scores", progress
    )
    table = pd.DataFrame([row for rows in scored for row in rows])
    return table.assign(method=extractor.name, precision=extractor.precision, runtime=extractor.runtime)


def _show(
    dataset: str, path: Path, kind: str, amounts: Sequence[float], image_size: tuple[int, int]
) -> _Views:
    image = images.bounded(images.read_image(path))
    known: dict[bytes, int] = {}
    shown: list[np.ndarray] = []
    pairs = {}
    for amount in amounts:
        matrices = (turned if kind == "rotation" else scaled)(image.shape[:2], image_size, amount)
        for matrix in matrices:
            if matrix.tobytes() not in known:
                known[matrix.tobytes()] = len(shown)
                view = scenes.sample_view(image, matrix, image_size)
                shown.append(np.clip(np.rint(view), 0, 255).astype(np.uint8))
        homography = np.linalg.solve(matrices[1], matrices[0])
        first, second = (known[matrix.tobytes()] for matrix in matrices)
        pairs[amount] = first, second, homography / homography[2, 2]
    return _Views(dataset=dataset, photograph=str(path), kind=kind, images=shown, pairs=pairs)


def _extract(extractor: Extractor, shown: _Views, protocol: Protocol) -> list[Features]:
    return [registration.confident(extractor.extract(view), extractor, protocol) for view in shown.images]


def _score(
    shown: _Views, features: Sequence[Features], amount: float, extractor: Extractor, protocol: Protocol
) -> list[dict[str, Any]]:
    first, second, homography = shown.pairs[amount]
    features1 = features[second]
    features0 = registration.turned_to(features[first], features1, extractor)
    key = {"dataset": shown.dataset, "subset": shown.kind, "sequence": shown.photograph, "amount": amount}
    scores = evaluation.score_pair(features0, features1, homography, protocol)
    return [{**key, **score} for score in scores]


def turned(
    photograph_size: tuple[int, int], image_size: tuple[int, int], degrees: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two views `[3, 3]` (view to photograph, px) of which the second shows things turned.

    Their size is such that a view fits inside the photograph however it is turned: by degrees
    counterclockwise as one sees it.
    """
    scale = (min(photograph_size) - 1) / np.hypot(*image_size)
    return tuple(_view(photograph_size, image_size, scale, angle) for angle in (0.0, degrees))


def scaled(
    photograph_size: tuple[int, int], image_size: tuple[int, int], factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two views `[3, 3]` (view to photograph, px) of which the second shows things so much larger.

    The view that shows more is as large as the photograph allows.
    """
    whole = min(side / wanted for side, wanted in zip(photograph_size, image_size, strict=True))
    return tuple(
        _view(photograph_size, image_size, whole / zoom, 0.0) for zoom in (max(1, 1 / factor), max(1, factor))
    )


def _view(
    photograph_size: tuple[int, int], image_size: tuple[int, int], scale: float, degrees: float
) -> np.ndarray:
    """Returns the view around the photograph's middle: its pixel is `scale` px large there."""
    cosine, sine = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    middle, centre = ((np.array(size[::-1]) - 1) / 2 for size in (photograph_size, image_size))
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, middle - turn @ centre
    return matrix
