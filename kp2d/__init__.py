"""kp2d: the reproducible companion of KP2Dtiny, learned keypoints that run on the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kp2d.methods.extractors import Extractor

__version__ = "0.1.0"


def load(name: str, *, precision: str | None = None, **running: Any) -> Extractor:
    """Loads a keypoint method: a classical one, a network that this package ships, or a model that you made.

    Args:
        name: "sift", "kp2d_tiny_s:int8", or another of `kp2d.methods.extractors.methods()`; or the path of a
            `.tflite` model, be it compiled for the Edge TPU or not, or of trained weights.
        precision: "float32" (the default for a name), "int8" (the best int8 network there is) or "int8_ptq"
            (without training).
        **running: Of an int8 network: `runtime`, `threads`, `use_tpu` …; see
            `kp2d.methods.runtimes.TFLiteModel`. Of a classical method OpenCV's settings (`nfeatures=500`).

    Returns:
        The method behind `extract(image) -> Features`.

    Raises:
        InputError: If there is no such method, or nothing to run it.
    """
    from kp2d.methods import extractors  # so that `import kp2d` costs nothing

    return extractors.load(name, precision=precision, **running)
