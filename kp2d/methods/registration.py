"""Owns the two-image task: keypoints in both, matches between them, and the homography that explains them."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from kp2d import checks, geometry, images
from kp2d.config import Protocol
from kp2d.methods import matching
from kp2d.methods.extractors import Extractor
from kp2d.methods.features import Features

MIN_INLIERS = 12  # fewer can agree by chance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A homography found from matches.

    Attributes:
        homography: float64 `[3, 3]`, image 0 to image 1, or None if none was found.
        inliers: bool `[K]`, which matches agree with it.
    """

    homography: np.ndarray | None
    inliers: np.ndarray

    @property
    def trustworthy(self) -> bool:
        """Tells whether more matches agree than RANSAC finds among matches of noise: 12 and 5 % of all."""
        return self.homography is not None and self.inliers.sum() >= MIN_INLIERS + len(self.inliers) / 20


def estimate_homography(
    points0: np.ndarray,
    points1: np.ndarray,
    *,
    ransac_threshold: float = 3.0,
    max_iterations: int = 5000,
    seed: int = 0,
) -> Estimate:
    """Finds a homography from matched points by OpenCV's RANSAC.

    Args:
        points0: `[K, 2]` px in image 0.
        points1: `[K, 2]` px in image 1, row by row the partners.
        ransac_threshold: Largest reprojection error of an inlier, px.
        max_iterations: Upper bound on RANSAC's samples.
        seed: OpenCV's RANSAC always draws the same samples, so only the order of the matches can vary it: 0
            keeps the order given, any other number shuffles by that seed. Several seeds show the spread.

    Returns:
        The estimate; without a homography if there are fewer than four matches or no model fits.
    """
    if len(points0) < 4:
        return Estimate(homography=None, inliers=np.zeros(len(points0), dtype=bool))
    order = np.random.default_rng(seed).permutation(len(points0)) if seed else np.arange(len(points0))
    matrix, mask = cv2.findHomography(
        points0[order].astype(np.float64),
        points1[order].astype(np.float64),
        cv2.RANSAC,
        ransac_threshold,
        maxIters=max_iterations,
    )
    if matrix is None or not np.isfinite(matrix).all():
        return Estimate(homography=None, inliers=np.zeros(len(points0), dtype=bool))
    inliers = np.zeros(len(points0), dtype=bool)
    inliers[order] = mask.ravel().astype(bool)
    return Estimate(homography=matrix, inliers=inliers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registration:
    """Two images brought together.

    Attributes:
        features0: Kept features of image 0, in its own pixels, best first.
        features1: Likewise of image 1.
        matches: int64 `[K, 2]` indices into both, cross-checked nearest neighbours, best score first.
        estimate: The homography from image 0 to image 1, if one was found, and which matches are its inliers.
    """

    features0: Features
    features1: Features
    matches: np.ndarray
    estimate: Estimate


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
    matches = match_features(features0, features1)
    # RANSAC gets the weakest match first, as in KP2D's code: the order decides which samples it draws, and on
    # real pairs that alone can move d1 by several points.
    weakest_first = matches[::-1]
    estimate = estimate_homography(
        features0.keypoints[weakest_first[:, 0]],
        features1.keypoints[weakest_first[:, 1]],
        ransac_threshold=protocol.ransac_threshold,
        max_iterations=protocol.ransac_iterations,
        seed=protocol.seed,
    )
    estimate = dataclasses.replace(estimate, inliers=estimate.inliers[::-1])
    return Registration(features0=features0, features1=features1, matches=matches, estimate=estimate)


def match_features(features0: Features, features1: Features) -> np.ndarray:
    """Pairs features that are each other's nearest; of several equally near ones the weakest (KP2D's rule).

    Args:
        features0: Of image 0, best first.
        features1: Of image 1, best first.

    Returns:
        int64 matches `[K, 2]`, indices into both, best score of image 0 first.
    """
    # Ties go to the lower index, so descriptors are compared from the weakest on, and indices turned back.
    distances = matching.descriptor_distances(features0.descriptors[::-1], features1.descriptors[::-1])
    last = np.array([len(features0) - 1, len(features1) - 1])
    return (last - matching.mutual(distances))[::-1]


def register_images(
    image0: np.ndarray,
    image1: np.ndarray,
    extractor: Extractor,
    *,
    top_k: int = 1000,
    protocol: Protocol | None = None,
    image_size: tuple[int, int] | None = None,
) -> Registration:
    """Finds, matches and explains the keypoints of two images of any sizes.

    Args:
        image0: uint8 RGB `[H0, W0, 3]`.
        image1: uint8 RGB `[H1, W1, 3]`.
        extractor: Any method.
        top_k: Features kept an image.
        protocol: RANSAC's threshold, iterations and seed, and networks' score threshold; None takes KP2D's.
        image_size: (height, width) at which the method sees both; None leaves each at its own.
    """
    protocol = protocol or Protocol()
    features0, features1 = (
        confident(extract_at(extractor, image, image_size), extractor, protocol) for image in (image0, image1)
    )
    features0 = turned_to(features0, features1, extractor)
    return register_features(features0, features1, top_k=top_k, protocol=protocol)


def turned_to(features0: Features, features1: Features, extractor: Extractor) -> Features:
    """Returns the features of image 0 as they compare with those of image 1: turned, if the method steers.

    Args:
        features0: Of image 0, best first.
        features1: Of image 1, best first.
        extractor: Their method.
    """
    if not extractor.steered:
        return features0
    quarters = matching.best_turn(features0.descriptors, features1.descriptors)
    return dataclasses.replace(features0, descriptors=matching.turn(features0.descriptors, quarters))


def confident(features: Features, extractor: Extractor, protocol: Protocol) -> Features:
    """Returns the features whose score passes the threshold; all of them if scores are no probabilities."""
    if not extractor.probabilistic or protocol.score_threshold == 0:
        return features
    return features.take(features.scores > protocol.score_threshold)
