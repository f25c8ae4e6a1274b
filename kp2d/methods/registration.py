"""Owns the two-image task: keypoints in both, matches between them, and the homography that explains them."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np

from kp2d import checks, config, geometry, images
from kp2d.config import Protocol
from kp2d.methods import matching
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Extractor
from kp2d.methods.refinement import likeness, refine_homography

MIN_INLIERS = 12  # fewer can agree by chance
MIN_LIKENESS = 0.3  # of the pictures within the inliers; unrelated ones reach 0.28, see docs/protocol.md
ESTIMATORS = {"ransac": cv2.RANSAC, "accurate": cv2.USAC_ACCURATE}
THRESHOLD = 1.5  # px at the size that a method sees, with the estimator "accurate"
CONTRAST_WINDOW = 9  # px
MIN_CONTRAST = 0.7  # gray levels, standard deviation in that window
MAX_SEEN = 1024 * 1024  # pixels: larger pictures are reduced for the method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A homography found from matches.

    Attributes:
        homography: float64 `[3, 3]`, image 0 to image 1, or None if none was found.
        inliers: bool `[K]`, which matches agree with it.
        likeness: How alike the pictures are within the inliers (`refinement.likeness`); None if that was not
            asked.
    """

    homography: np.ndarray | None
    inliers: np.ndarray
    likeness: float | None = None

    @property
    def trustworthy(self) -> bool:
        """Tells whether the homography can be more than chance."""
        return not self.doubt

    @property
    def doubt(self) -> str:
        """Returns why the homography is not to be trusted; "" if it is.

        More matches must agree than RANSAC finds among matches of noise: 12 and 5 % of all. And where the
        pictures were compared, they must look alike within the inliers.
        """
        if self.homography is None:
            return "there is none"
        if self.inliers.sum() < MIN_INLIERS + len(self.inliers) / 20:
            return "chance finds as many inliers"
        if self.likeness is not None and self.likeness < MIN_LIKENESS:
            return "the pictures are not alike between the inliers"
        return ""


def estimate_homography(
    points0: np.ndarray,
    points1: np.ndarray,
    *,
    estimator: str = "ransac",
    ransac_threshold: float = 3.0,
    max_iterations: int = 5000,
    seed: int = 0,
) -> Estimate:
    """Finds a homography from matched points.

    Args:
        points0: `[K, 2]` px in image 0.
        points1: `[K, 2]` px in image 1, row by row the partners.
        estimator: "ransac", OpenCV's plain one, by which the papers' tables are made; or "accurate", its
            USAC_ACCURATE, which is as good as least squares on the true matches and much faster.
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
        ESTIMATORS[checks.one_of("estimator", estimator, ESTIMATORS)],
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


def seen_size(own_size: tuple[int, int], cell: int) -> tuple[int, int]:
    """Returns the size at which a method sees a picture by default, both as (height, width) px.

    It is the picture's own, rounded to what cells (px a side) can tile; less, not distorted, for a picture of
    more than `MAX_SEEN` pixels or with a longer side than the widest that networks take.
    """
    scale = min(1.0, (MAX_SEEN / (own_size[0] * own_size[1])) ** 0.5, images.MAX_SIDE / max(own_size))
    least = max(3, -(-images.MIN_SIDE // cell))  # cells
    height, width = (max(round(side * scale / cell), least) * cell for side in own_size)
    return height, width


def estimator_settings(estimator: str, protocol: Protocol) -> dict[str, Any]:
    """Returns the arguments of `estimate_homography` for an estimator under a protocol, but for the order.

    Args:
        estimator: "ransac", which has the protocol's threshold and iterations, or "accurate" with its own.
        protocol: An evaluation's rules.
    """
    if checks.one_of("estimator", estimator, ESTIMATORS) == "accurate":
        return {"estimator": estimator, "ransac_threshold": THRESHOLD}
    return {
        "estimator": estimator,
        "ransac_threshold": protocol.ransac_threshold,
        "max_iterations": protocol.ransac_iterations,
    }


def register_features(
    features0: Features, features1: Features, *, top_k: int, protocol: Protocol, estimator: str = "ransac"
) -> Registration:
    """Matches two sets of features, best first, and estimates the homography between them.

    `top_k` features are kept an image. Of the protocol RANSAC's threshold, iterations and seed count; the
    estimator is as for `estimate_homography`.
    """
    features0, features1 = (features.take(slice(top_k)) for features in (features0, features1))
    matches = match_features(features0, features1)
    estimate = estimate_from_matches(
        features0,
        features1,
        matches,
        seed=protocol.seed,
        **estimator_settings(estimator, protocol),
    )
    return Registration(features0=features0, features1=features1, matches=matches, estimate=estimate)


def estimate_from_matches(
    features0: Features, features1: Features, matches: np.ndarray, **how: Any
) -> Estimate:
    """Finds a homography from matches (int64 `[K, 2]`, best first) in KP2D's order, the weakest first.

    The order decides which samples RANSAC draws, and on real pairs that alone can move d1 by several points.
    Further arguments are as for `estimate_homography`. The estimate's inliers are in the order of the
    matches.
    """
    weakest_first = matches[::-1]
    points0, points1 = features0.keypoints[weakest_first[:, 0]], features1.keypoints[weakest_first[:, 1]]
    estimate = estimate_homography(points0, points1, **how)
    return dataclasses.replace(estimate, inliers=estimate.inliers[::-1])


def match_features(features0: Features, features1: Features) -> np.ndarray:
    """Pairs features that are each other's nearest; of several equally near ones the weakest (KP2D's rule).

    Both are sorted, best first. Returns int64 matches `[K, 2]`, indices into both, best score of image 0
    first.
    """
    # Ties go to the lower index, so descriptors are compared from the weakest on, and indices turned back.
    matches = matching.mutual_nearest(features0.descriptors[::-1], features1.descriptors[::-1])
    last = np.array([len(features0) - 1, len(features1) - 1])
    return (last - matches)[::-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """A picture as a method sees it, to be matched with any others."""

    image: np.ndarray  # the picture itself, uint8 RGB `[H, W, 3]`
    seen: np.ndarray  # the picture at the size that the method sees, uint8 RGB
    features: Features  # kept features in pixels of `seen`, best first

    @property
    def back(self) -> np.ndarray:
        """Returns what carries pixels of `seen` to those of the picture, float64 `[3, 3]`."""
        return geometry.resize_matrix(self.seen.shape[:2], self.image.shape[:2])


def view_image(
    image: np.ndarray,
    extractor: Extractor,
    *,
    top_k: int = 1000,
    image_size: tuple[int, int] | None = None,
) -> View:
    """Finds the keypoints of an image of any size.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        extractor: Any method.
        top_k: Features kept.
        image_size: (height, width) at which the method sees it; None takes `seen_size`.

    Raises:
        InputError: If the image is no such array, or a value is out of range.
    """
    if not isinstance(top_k, (int, np.integer)) or top_k < 4:
        raise checks.problem("`top_k` as a whole number of at least 4", repr(top_k))
    if image_size is not None:
        image_size = checks.fits_cells(checks.is_image_size(image_size), extractor.cell)
        if image_size[0] * image_size[1] > images.MAX_WHOLE:
            received = "{}x{}, which takes gigabytes".format(*image_size)
            raise checks.problem(
                "an `image_size` of 8 megapixels at most, in px", received, "Choose a smaller one."
            )
    size = seen_size(checks.is_image(image).shape[:2], extractor.cell)
    seen = images.resize_image(image, image_size or size)
    return View(image=image, seen=seen, features=textured(extractor.extract(seen), seen).take(slice(top_k)))


def register_views(
    view0: View,
    view1: View,
    extractor: Extractor,
    *,
    ransac_threshold: float = THRESHOLD,
    refine: bool = True,
) -> Registration:
    """Matches and explains the keypoints of two images, seen by one method with `view_image`.

    Args:
        view0: Of image 0.
        view1: Of image 1.
        extractor: The method.
        ransac_threshold: Largest error of an inlier, px at the size that the method sees.
        refine: Whether a homography that can be trusted is refined by the pictures themselves.

    Returns:
        Features, matches and the homography, all in the images' own pixels.

    Raises:
        InputError: If a value is out of range.
    """
    config.protocol(ransac_threshold=ransac_threshold)  # refuses what makes no sense, by name
    features0, features1 = turned_to(view0.features, view1.features, extractor), view1.features
    matches = match_features(features0, features1)
    points0, points1 = features0.keypoints[matches[:, 0]], features1.keypoints[matches[:, 1]]
    estimate = estimate_homography(points0, points1, estimator="accurate", ransac_threshold=ransac_threshold)
    if estimate.trustworthy:
        claimed = points0[estimate.inliers]  # before any is lost, whatever the refinement favours
        if refine:
            seen = view0.seen, view1.seen
            estimate = refined(*seen, points0, points1, estimate, ransac_threshold=ransac_threshold)
        alike = likeness(view0.seen, view1.seen, claimed, estimate.homography)
        estimate = dataclasses.replace(estimate, likeness=alike)
    if estimate.homography is not None:
        homography = view1.back @ estimate.homography @ np.linalg.inv(view0.back)
        estimate = dataclasses.replace(estimate, homography=homography / (homography[2, 2] or 1.0))
    return Registration(
        features0=carried(features0, view0.back),
        features1=carried(features1, view1.back),
        matches=matches,
        estimate=estimate,
    )


def textured(features: Features, image: np.ndarray) -> Features:
    """Returns the features that have something to describe: contrast within some pixels around them.

    What lies in a black frame or on an empty wall looks the same in any two pictures, and agrees on a
    homography that says nothing of them. Features are in pixels of the image, uint8 RGB `[H, W, 3]`.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean, squares = (cv2.blur(values, (CONTRAST_WINDOW,) * 2) for values in (gray, gray * gray))
    column, row = np.round(features.keypoints).astype(int).T
    row, column = np.clip(row, 0, gray.shape[0] - 1), np.clip(column, 0, gray.shape[1] - 1)
    return features.take((squares - mean * mean)[row, column] >= MIN_CONTRAST**2)


def refined(
    image0: np.ndarray,
    image1: np.ndarray,
    points0: np.ndarray,
    points1: np.ndarray,
    estimate: Estimate,
    *,
    ransac_threshold: float = THRESHOLD,
) -> Estimate:
    """Refines an estimate by the pictures, if it can be trusted.

    Args:
        image0: uint8 RGB `[H0, W0, 3]`.
        image1: uint8 RGB `[H1, W1, 3]`.
        points0: `[K, 2]` px in image 0.
        points1: `[K, 2]` px in image 1, row by row the partners.
        estimate: From these points.
        ransac_threshold: Largest reprojection error of an inlier, px.

    Returns:
        The refined homography with the matches that agree with it; the estimate as it is if it is not to be
        trusted, or if too few agree.
    """
    if not estimate.trustworthy:
        return estimate
    homography = refine_homography(image0, image1, points0[estimate.inliers], estimate.homography)
    errors = np.hypot(*(geometry.warp_points(points0, homography) - points1).T)
    # NaN, behind the horizon, is no inlier
    better = Estimate(homography=homography, inliers=errors <= ransac_threshold)
    return better if better.trustworthy else estimate


def carried(features: Features, matrix: np.ndarray) -> Features:
    """Returns features with their keypoints in other pixels, by a `[3, 3]` of `geometry.resize_matrix`."""
    keypoints = geometry.warp_points(features.keypoints, matrix)
    return dataclasses.replace(features, keypoints=keypoints.astype(np.float32))


def turned_to(features0: Features, features1: Features, extractor: Extractor) -> Features:
    """Returns the features of image 0 as they compare with those of image 1: turned, if the method steers.

    Both are sorted, best first.
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
