"""kp2d: the reproducible companion of KP2Dtiny, learned keypoints that run on the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kp2d.methods.learned import NetworkExtractor

__version__ = "0.1.0"


def load(name: str, *, precision: str | None = None, **running: Any) -> NetworkExtractor:
    """Loads a network with the weights that come with this package, or a model that you made.

    Args:
        name: "kp2d_tiny_s", or another of `kp2d.methods.learned.shipped()`; or the path of a `.tflite` model,
            be it compiled for the Edge TPU or not, or of trained weights.
        precision: "float32" (the default for a name), "int8" (the best int8 network there is) or "int8_ptq"
            (without training).
        **running: Of an int8 network: `runtime`, `threads`, `use_tpu` …; see
            `kp2d.methods.runtimes.TFLiteModel`.

    Returns:
        The network behind `extract(image) -> Features`.

    Raises:
        InputError: If there are no such weights, or nothing to run them.
    """
    from kp2d.methods import learned  # so that `import kp2d` costs nothing

    if learned.is_path(name):
        return learned.load_trained(name, precision=precision, **running)
    return learned.load(name, precision=precision or "float32", **running)
