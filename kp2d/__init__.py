"""kp2d: the reproducible companion of KP2Dtiny, learned keypoints that run on the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kp2d.learned import KerasExtractor

__version__ = "0.1.0"


def load(name: str, *, precision: str = "float32") -> KerasExtractor:
    """Loads a network with the weights that come with this package.

    Args:
        name: "kp2d_tiny_s", or another of `kp2d.learned.shipped()`.
        precision: A key of `kp2d.learned.SUFFIXES`.

    Returns:
        The network behind `extract(image) -> Features`.

    Raises:
        InputError: If there are no such weights.
    """
    from kp2d import learned  # so that `import kp2d` costs nothing

    return learned.load(name, precision=precision)
