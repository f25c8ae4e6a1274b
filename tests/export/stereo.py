"""Two views of a scene with depth, whose geometry is known: a photograph folded like an open book."""

from __future__ import annotations

import cv2
import numpy as np

from kp2d.data import scenes

SIZE = (512, 512)  # (height, width) px
FOCAL = 1.2 * SIZE[1]  # px, as COLMAP guesses it
CAMERA = np.array([[FOCAL, 0, (SIZE[1] - 1) / 2], [0, FOCAL, (SIZE[0] - 1) / 2], [0, 0, 1]])
# Right of the fold and left of it: n with n · X = 1, for X in the first camera's axes.
PAGES = (np.array([0.8, 0.0, 1.0]), np.array([-0.8, 0.0, 1.0]))


def two_views() -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 RGB pictures of both cameras; the second went right and turned back to the fold."""
    first = scenes.photograph("astronaut")
    rotation, _ = cv2.Rodrigues(np.array([0.0, 0.3, 0.02]))
    centre = np.array([[0.3], [0.02], [0.03]])
    second = np.zeros_like(first)
    for page, half in zip(PAGES, (slice(256, None), slice(None, 256)), strict=True):
        homography = CAMERA @ rotation @ (np.eye(3) - centre * page) @ np.linalg.inv(CAMERA)
        shown = np.zeros(SIZE, np.uint8)
        shown[:, half] = 255
        mask = cv2.warpPerspective(shown, homography, SIZE[::-1], flags=cv2.INTER_NEAREST)
        view = cv2.warpPerspective(first, homography, SIZE[::-1])
        second[mask > 0] = view[mask > 0]
    return first, second
