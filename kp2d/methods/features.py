"""Owns `Features`, the one result that every keypoint method returns."""

from __future__ import annotations

import dataclasses

import numpy as np

from kp2d import checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Keypoints of one image with their scores and descriptors.

    Convention: (x, y) in pixels, the centre of the top-left pixel is (0, 0); N = 0 is valid.

    Attributes:
        keypoints: float32 `[N, 2]`, (x, y) px.
        scores: float32 `[N]`, larger is better; a probability for our networks, the detector's
            response for classical methods.
        descriptors: float32 `[N, D]` of unit length (L2 matching), or uint8 `[N, D]` packed bits
            (Hamming matching).
    """

    keypoints: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray

    def __post_init__(self):
        checks.is_points(self.keypoints)
        count = len(self.keypoints)
        if self.scores.shape != (count,):
            raise checks.problem(f"scores [{count}]", f"shape {list(self.scores.shape)}")
        if self.descriptors.ndim != 2 or len(self.descriptors) != count:
            raise checks.problem(f"descriptors [{count}, D]", f"shape {list(self.descriptors.shape)}")

    def __len__(self) -> int:
        return len(self.keypoints)

    def take(self, index: np.ndarray) -> Features:
        """Returns the features at `index` (an integer or boolean array `[K]` or `[N]`), in that order."""
        return Features(
            keypoints=self.keypoints[index],
            scores=self.scores[index],
            descriptors=self.descriptors[index],
        )

    def by_score(self) -> Features:
        """Returns all features, best score first; of equal scores (int8 has many) the later comes first.

        That is the order of KP2D's evaluation code, read backwards; RANSAC depends on it.
        """
        return self.take(np.argsort(self.scores, kind="stable")[::-1])
