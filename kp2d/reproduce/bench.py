"""Owns speed measurements; they are recorded in results/, never asserted in a test."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from kp2d import checks, config, geometry, images, provenance
from kp2d.data import datasets
from kp2d.data.datasets import ImagePair
from kp2d.evaluate import evaluation
from kp2d.methods import extractors
from kp2d.methods.extractors import Extractor
from kp2d.methods.features import Features

logger = logging.getLogger(__name__)


def bench_evaluate(profile: config.Profile, *, repeats: int = 3) -> pd.DataFrame:
    """Measures how long extraction and scoring take on a profile's data, one image or pair at a time.

    Args:
        profile: Whose data set, methods, size and k are used.
        repeats: Passes over each pair; the fastest counts, so that a busy moment of the machine does not.

    Returns:
        One row a method × k: median milliseconds an image for resizing and features, median and 90th
        percentile a pair for scoring (visibility, matching, RANSAC, all metrics), and the process's
        largest memory so far in MB.

    Raises:
        InputError: If the data is missing.
    """
    sequences = datasets.load_sequences(datasets.resolve(profile.dataset, profile.name))
    pairs = [pair for sequence in sequences for pair in sequence.pairs]
    rows = []
    for method in profile.methods:
        features, sizes, extract_ms = _bench_features(extractors.create(method), pairs, profile)
        for top_k in profile.top_k:
            protocol = config.protocol(image_size=profile.image_size, top_k=(top_k,))
            score_ms = [
                _milliseconds(
                    evaluation.score_pair,
                    (
                        features[pair.path0],
                        features[pair.path1],
                        geometry.rescale_homography(
                            pair.homography(),
                            sizes[pair.path0],
                            sizes[pair.path1],
                            profile.image_size,
                        ),
                        protocol,
                    ),
                    repeats,
                )
                for pair in pairs
                if pair.path0 in features and pair.path1 in features
            ]
            rows.append(
                {
                    "method": method,
                    "image_height": profile.image_size[0],
                    "image_width": profile.image_size[1],
                    "top_k": top_k,
                    "num_pairs": len(score_ms),
                    "extract_ms": round(statistics.median(extract_ms), 2),
                    "score_ms": round(statistics.median(score_ms), 2),
                    "score_ms_p90": round(sorted(score_ms)[int(0.9 * (len(score_ms) - 1))], 2),
                    "peak_memory_mb": _peak_memory_mb(),
                    "device": provenance.device(),
                }
            )
    return pd.DataFrame(rows)


def _bench_features(
    extractor: Extractor, pairs: Sequence[ImagePair], profile: config.Profile
) -> tuple[dict[Any, Features], dict[Any, tuple[int, int]], list[float]]:
    features, sizes, extract_ms = {}, {}, []
    for path in sorted({path for pair in pairs for path in (pair.path0, pair.path1)}):
        try:
            image = images.read_image(path)
        except checks.InputError as error:
            logger.warning("left out: %s", error)
            continue
        started = time.perf_counter()
        features[path] = extractor.extract(images.resize_image(image, profile.image_size))
        extract_ms.append(1e3 * (time.perf_counter() - started))
        sizes[path] = image.shape[:2]
    return features, sizes, extract_ms


def _milliseconds(function: Callable, arguments: tuple, repeats: int) -> float:
    best = float("inf")
    for _ in range(max(repeats, 1)):
        started = time.perf_counter()
        function(*arguments)
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


def _peak_memory_mb() -> float:
    """Returns the largest resident size of this process so far, MB; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 0)
