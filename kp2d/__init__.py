"""kp2d: the reproducible companion of KP2Dtiny, learned keypoints that run on the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kp2d.learned import NetworkExtractor

__version__ = "0.1.0"


def load(name: str, *, precision: str = "float32") -> NetworkExtractor:
    """Loads a network with the weights that come with this package.

    Args:
        name: "kp2d_tiny_s", or another of `kp2d.learned.shipped()`.
        precision: "float32", "int8" (the best int8 network there is) or "int8_ptq" (without training).

    Returns:
        The network behind `extract(image) -> Features`.

    Raises:
        InputError: If there are no such weights, or nothing to run them.
    """
    from kp2d import learned  # so that `import kp2d` costs nothing

    return learned.load(name, precision=precision)
