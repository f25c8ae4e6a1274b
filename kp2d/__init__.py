"""kp2d: the reproducible companion of KP2Dtiny, learned keypoints that run on the edge."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from kp2d.methods.extractors import Extractor
    from kp2d.viz.matched import Match

__version__ = "0.1.0"


def load(name: str, *, precision: str | None = None, **running: Any) -> Extractor:
    """Loads a keypoint method: a classical one, a network that this package ships, or a model that you made.

    Args:
        name: "sift", "kp2d_tiny_s:int8", or another of `kp2d.methods.extractors.methods()`; or the path of a
            `.tflite` model, be it compiled for the Edge TPU or not, or of trained weights.
        precision: "float32" (the default for a name), "int8" (the best int8 network there is) or "int8_ptq"
            (without training).
        **running: Of a network `pyramid=2`, which also looks at an image at half its size; of an int8 network
            `runtime`, `threads`, `use_tpu` …, see `kp2d.methods.runtimes.TFLiteModel`. Of a classical method
            OpenCV's settings (`nfeatures=500`).

    Returns:
        The method behind `extract(image) -> Features`.

    Raises:
        InputError: If there is no such method, or nothing to run it.
    """
    from kp2d.methods import extractors  # so that `import kp2d` costs nothing

    return extractors.load(name, precision=precision, **running)


def match(
    image0: np.ndarray | str | os.PathLike,
    image1: np.ndarray | str | os.PathLike,
    method: str | os.PathLike | Extractor = "kp2d_tiny_s:int8",
    top_k: int = 1000,
    image_size: tuple[int, int] | None = None,
    *,
    refine: bool = True,
) -> Match:
    """Matches two images and estimates the homography between them.

    Args:
        image0: uint8 RGB `[H0, W0, 3]`, or the path of a picture.
        image1: uint8 RGB `[H1, W1, 3]`, or the path of a picture.
        method: As for `load`, or what that returned.
        top_k: Keypoints kept an image.
        image_size: (height, width) px at which the method sees both; None leaves each at its own, but for
            pictures of more than a megapixel, which are reduced for the method.
        refine: Whether the homography is refined by the pictures themselves, to a fraction of a pixel.

    Returns:
        Keypoints, matches best first, scores, the homography and its inliers, all in the images' own pixels.
        It tells itself (`print`), draws itself (`.draw()`, `.draw("matches.png")`), and writes its matches
        (`.save("matches.csv")`, `.json`, `.npz`).

    Raises:
        InputError: If there is no such method or picture, or a value is out of range.
    """
    from kp2d.methods import extractors, registration
    from kp2d.viz import matched

    pair = [matched.image_of(image, f"image {side}") for side, image in enumerate((image0, image1))]
    extractor = extractors.as_extractor(method)
    views = [
        registration.view_image(image, extractor, top_k=top_k, image_size=image_size) for image, _ in pair
    ]
    return matched.match_views(*views, extractor, names=(pair[0][1], pair[1][1]), refine=refine)
