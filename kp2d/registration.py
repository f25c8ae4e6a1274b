"""Owns the two-image task: keypoints in both, matches between them, and the homography that explains them."""

from __future__ import annotations

import dataclasses

import numpy as np

from kp2d import checks, geometry, images, matching, metrics
from kp2d.config import Protocol
from kp2d.extractors import Extractor
from kp2d.features import Features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registration:
    """Two images brought together.

    Attributes:
        features0: Kept features of image 0, in its own pixels, best first.
        features1: Likewise of image 1.
        matches: int64 `[K, 2]` indices into both, cross-checked nearest neighbours, weakest score first.
        estimate: The homography from image 0 to image 1, if one was found, and its inliers.
    """

    features0: Features
    features1: Features
    matches: np.ndarray
    estimate: metrics.Estimate


def extract_at(
    extractor: Extractor, image: np.ndarray, image_size: tuple[int, int] | None = None
) -> Features:
    """Extracts features at another size and returns them in the image's own pixels.

    Args:
        extractor: Any method.
        image: uint8 RGB `[H, W, 3]`.
        image_size: (height, width) the method sees; None takes the image's own, for a network rounded to
            what its cells can tile.
    """
    own_size = checks.is_image(image).shape[:2]
    if image_size is None:
        image_size = tuple(max(round(side / extractor.cell), 3) * extractor.cell for side in own_size)
    if tuple(image_size) == own_size:
        return extractor.extract(image)
    features = extractor.extract(images.resize_image(image, image_size))
    back = geometry.resize_matrix(tuple(image_size), own_size)
    keypoints = geometry.warp_points(features.keypoints, back)
    return dataclasses.replace(features, keypoints=keypoints.astype(np.float32))


def register_features(
    features0: Features, features1: Features, *, top_k: int, protocol: Protocol
) -> Registration:
    """Matches two sets of features and estimates the homography between them.

    Args:
        features0: Of image 0, best first.
        features1: Of image 1, best first.
        top_k: Features kept an image.
        protocol: RANSAC's threshold, iterations and seed.
    """
    features0, features1 = (features.take(slice(top_k)) for features in (features0, features1))
    # KP2D's code keeps the weakest points first. That order breaks the ties of binary descriptors and decides
    # which samples RANSAC draws; on real pairs it alone can move d1 by several points, so it is kept.
    distances = matching.descriptor_distances(features0.descriptors[::-1], features1.descriptors[::-1])
    matches = [len(features0) - 1, len(features1) - 1] - matching.mutual(distances)
    estimate = metrics.estimate_homography(
        features0.keypoints[matches[:, 0]],
        features1.keypoints[matches[:, 1]],
        ransac_threshold=protocol.ransac_threshold,
        max_iterations=protocol.ransac_iterations,
        seed=protocol.seed,
    )
    return Registration(features0=features0, features1=features1, matches=matches, estimate=estimate)


def register_images(
    image0: np.ndarray,
    image1: np.ndarray,
    extractor: Extractor,
    *,
    top_k: int,
    protocol: Protocol,
    image_size: tuple[int, int] | None = None,
) -> Registration:
    """Finds, matches and explains the keypoints of two images of any sizes.

    Args:
        image0: uint8 RGB `[H0, W0, 3]`.
        image1: uint8 RGB `[H1, W1, 3]`.
        extractor: Any method.
        top_k: Features kept an image.
        protocol: RANSAC's threshold, iterations and seed; the score threshold for networks.
        image_size: (height, width) at which the method sees both; None leaves each at its own.
    """
    features0, features1 = (
        confident(extract_at(extractor, image, image_size), extractor, protocol) for image in (image0, image1)
    )
    return register_features(features0, features1, top_k=top_k, protocol=protocol)


def confident(features: Features, extractor: Extractor, protocol: Protocol) -> Features:
    """Returns the features whose score passes the threshold; all of them if scores are no probabilities."""
    if not extractor.probabilistic or protocol.score_threshold == 0:
        return features
    return features.take(features.scores > protocol.score_threshold)
