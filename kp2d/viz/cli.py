"""Owns `kp2d match`: its arguments and what they mean."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kp2d.arguments import image_size, refuse_input_as_output
from kp2d.methods import cli as method_cli
from kp2d.methods import registration

if TYPE_CHECKING:
    import numpy as np

    from kp2d.methods.extractors import Extractor


def add_match(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d match`.

    Args:
        parser: Parser of the verb.
    """
    parser.add_argument("image0", help="first image")
    parser.add_argument("image1", help="second image")
    parser.add_argument("-o", "--output", default="matches.png", help="picture to write (.png or .svg)")
    method_cli.add_arguments(parser)
    parser.add_argument("--top-k", type=int, default=1000, help="keypoints kept an image")
    parser.add_argument(
        "--image-size",
        type=image_size,
        metavar="HxW",
        help="size the method sees; default: each image's own, reduced to a megapixel if it is larger",
    )
    parser.add_argument(
        "--ransac-threshold",
        type=float,
        default=registration.THRESHOLD,
        help="largest error of an inlier, px at the size that the method sees",
    )
    parser.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refine the homography by the pictures themselves, to a fraction of a pixel",
    )


def run_match(options: argparse.Namespace) -> None:
    """Matches two images, draws the matches and says how many fit one homography.

    Args:
        options: From a parser with `add_match`.

    Raises:
        InputError: If a value is refused, or a file cannot be used.
    """
    from kp2d import images
    from kp2d.viz import figures, pictures

    figures.check_target(options.output)  # before the work
    refuse_input_as_output("output", options.output, (options.image0, options.image1))
    extractor = method_cli.extractor_from(options)
    image0, image1 = images.read_image(options.image0), images.read_image(options.image1)
    registered = registration.register_images(
        image0,
        image1,
        extractor,
        top_k=options.top_k,
        image_size=options.image_size,
        ransac_threshold=options.ransac_threshold,
        refine=options.refine,
    )
    estimate = registered.estimate
    facts = f"{estimate.inliers.sum()}/{len(estimate.inliers)} inliers"
    figure = pictures.draw_matches(
        image0,
        image1,
        registered.features0.keypoints,
        registered.features1.keypoints,
        registered.matches,
        inliers=estimate.inliers,
        estimated=estimate.homography,
        title=f"{extractor.name} {extractor.precision} · {facts}",
    )
    path = figures.save_figure(figure, options.output)
    if estimate.homography is None:
        verdict = "no homography"
    elif estimate.trustworthy:
        verdict = "homography found"
    else:
        verdict = f"a homography not to be trusted ({estimate.doubt})"
    counts = f"{len(registered.features0)} and {len(registered.features1)} keypoints"
    print(f"{counts}, {facts}, {verdict}{_reduced(options, extractor, image0, image1)}: {path}")


def _reduced(
    options: argparse.Namespace, extractor: Extractor, image0: np.ndarray, image1: np.ndarray
) -> str:
    """Says at which sizes a method saw pictures that are too large for it."""
    own = [image.shape[:2] for image in (image0, image1)]
    if options.image_size or all(height * width <= registration.MAX_SEEN for height, width in own):
        return ""
    seen = [registration.seen_size(size, extractor.cell) for size in own]
    return f" (seen at {' and '.join(f'{width}x{height}' for height, width in seen)} px)"
