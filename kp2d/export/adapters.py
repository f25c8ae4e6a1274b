"""Owns our methods behind the interfaces of other libraries: OpenCV, LightGlue and kornia, hloc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from kp2d import checks
from kp2d.export import extraction, formats
from kp2d.methods import extractors
from kp2d.methods.decode import Features


class Feature2D:
    """A method as a `cv2.Feature2D`: what takes a detector of OpenCV's takes this.

    Args:
        method: As for `kp2d.load`, or what that returned.
        top_k: Keypoints kept an image.
    """

    def __init__(self, method: str | extractors.Extractor = "kp2d_tiny_s:int8", *, top_k: int = 1000):
        self.extractor = extractors.as_extractor(method)
        self.top_k = top_k

    def detectAndCompute(  # noqa: N802, as OpenCV has it
        self, image: np.ndarray, mask: np.ndarray | None
    ) -> tuple[tuple[cv2.KeyPoint, ...], np.ndarray]:
        """Finds keypoints, best first, and their descriptors `[N, D]`.

        The image is uint8, gray `[H, W]` or BGR `[H, W, 3]`, as `cv2.imread` returns it; the mask uint8 `[H,
        W]`, 0 where no keypoints are wanted, or None.
        """
        features = self._features(image)
        if mask is not None:
            if mask.shape[:2] != image.shape[:2]:
                raise checks.problem(f"a mask of the image, {image.shape[:2]}", mask.shape[:2])
            column, row = np.round(features.keypoints).astype(int).T
            height, width = mask.shape[:2]
            features = features.take(mask[row.clip(0, height - 1), column.clip(0, width - 1)] != 0)
        points = tuple(
            cv2.KeyPoint(
                x=float(x),
                y=float(y),
                size=formats.SIZE,
                angle=formats.ANGLE,
                response=float(score),
                octave=formats.OCTAVE,
                class_id=formats.CLASS,
            )
            for (x, y), score in zip(features.keypoints, features.scores, strict=True)
        )
        return points, np.ascontiguousarray(features.descriptors)

    def detect(self, image: np.ndarray, mask: np.ndarray | None = None) -> tuple[cv2.KeyPoint, ...]:
        """Finds keypoints only; see `detectAndCompute`."""
        return self.detectAndCompute(image, mask)[0]

    def descriptorSize(self) -> int:  # noqa: N802
        """Returns the numbers (bytes, of binary ones) of a descriptor."""
        return self.extractor.descriptor_bytes // (1 if self.extractor.binary else 4)

    def descriptorType(self) -> int:  # noqa: N802
        """Returns OpenCV's type of descriptors."""
        return cv2.CV_8U if self.extractor.binary else cv2.CV_32F

    def defaultNorm(self) -> int:  # noqa: N802
        """Returns the norm by which a `cv2.BFMatcher` compares descriptors."""
        return cv2.NORM_HAMMING if self.extractor.binary else cv2.NORM_L2

    def getDefaultName(self) -> str:  # noqa: N802
        """Returns the name of the method."""
        return f"kp2d.{self.extractor.name}"

    def empty(self) -> bool:
        """Returns False: there always is a method."""
        return False

    def _features(self, image: np.ndarray) -> Features:
        gray = isinstance(image, np.ndarray) and (image.ndim == 2 or image.shape[-1] == 1)
        rgb = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if gray else checks.is_image(image)[..., ::-1]
        return extraction.extract_picture(np.ascontiguousarray(rgb), self.extractor, top_k=self.top_k)


def lightglue(
    features: Features, image_size: tuple[int, int], *, to: Callable[[np.ndarray], Any] = np.asarray
) -> dict[str, Any]:
    """Returns features as LightGlue's extractors and kornia's matchers have them, a batch of one.

    Args:
        features: In the image's pixels; (0, 0) is the centre of the top-left one there, too.
        image_size: (height, width) of the image, px.
        to: What makes a tensor of an array, as `torch.from_numpy`.

    Returns:
        keypoints `[1, N, 2]`, keypoint_scores `[1, N]`, descriptors `[1, N, D]`, image_size `[1, 2]`, which
        is (width, height).
    """
    arrays = {
        "keypoints": features.keypoints,
        "keypoint_scores": features.scores,
        "descriptors": features.descriptors,
        "image_size": np.array(image_size[::-1], np.float32),
    }
    return {name: to(np.ascontiguousarray(array)[None]) for name, array in arrays.items()}


def hloc(
    image: np.ndarray,
    extractor: extractors.Extractor,
    *,
    top_k: int = 1000,
    to: Callable[[np.ndarray], Any] = np.asarray,
) -> dict[str, Any]:
    """Returns what the `_forward` of an extractor of hloc returns.

    The image is float `[1, 3, H, W]` RGB in [0, 1], of any size: what hloc hands over, as an array. `top_k`
    keypoints are kept; `to` is as for `lightglue`.

    Returns:
        keypoints `[1, N, 2]`, scores `[1, N]`, descriptors `[1, D, N]`.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise checks.problem("an image [1, 3, H, W]", list(image.shape), "Set grayscale to False.")
    rgb = np.ascontiguousarray((image[0].transpose(1, 2, 0) * 255).round().astype(np.uint8))
    features = extraction.extract_picture(rgb, extractor, top_k=top_k)
    arrays = (features.keypoints, features.scores, features.descriptors.T)
    names = ("keypoints", "scores", "descriptors")
    return {name: to(np.ascontiguousarray(array)[None]) for name, array in zip(names, arrays, strict=True)}


def hloc_configuration(method: str = "kp2d_tiny_s:int8", *, top_k: int = 1000) -> dict[str, Any]:
    """Returns the entry of a method, as for `kp2d.load`, for the `confs` of `hloc.extract_features`."""
    return {
        "output": f"feats-{method.replace(':', '-').replace('/', '-')}-n{top_k}",
        "model": {"name": "kp2d", "method": method, "max_keypoints": top_k},
        "preprocessing": {"grayscale": False, "resize_max": 1024},
    }
