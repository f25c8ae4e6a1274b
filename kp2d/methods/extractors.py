"""Owns the keypoint methods: one `extract(image) -> Features` for every one of them."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from kp2d import checks
from kp2d.methods import learned
from kp2d.methods.features import Features


class Extractor(Protocol):
    """What every method offers.

    Attributes:
        name: The method ("sift").
        precision: "float32" or "int8".
        runtime: What computes it ("opencv", "litert" …).
        concurrent: Whether `extract` may be called from several threads at once.
        probabilistic: Whether scores are probabilities, so that a score threshold has a meaning.
        cell: What both sides of an image must be divisible by, px; 1 for classical methods.
        calibration: What the ranges of an int8 network were chosen by; "none" for what is computed in float.
    """

    name: str
    precision: str
    runtime: str
    concurrent: bool
    probabilistic: bool
    cell: int
    calibration: str

    @property
    def descriptor_bytes(self) -> int:
        """Returns the bytes of one keypoint's descriptor."""

    def settings(self) -> dict[str, Any]:
        """Returns everything that determines the result; part of the key of exported features."""

    def extract(self, image: np.ndarray) -> Features:
        """Finds keypoints in an image.

        Args:
            image: uint8 RGB `[H, W, 3]`.

        Returns:
            Features in the image's own pixels, best score first.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassicalExtractor:
    """A detector and descriptor of OpenCV behind the common interface."""

    name: str
    make: Callable[..., cv2.Feature2D]
    options: dict[str, Any]  # arguments of `make`
    width: int  # values a descriptor
    binary: bool = False
    root: bool = False  # RootSIFT's square root
    precision: str = "float32"
    runtime: str = "opencv"
    concurrent: bool = True
    probabilistic: bool = False
    cell: int = 1
    calibration: str = "none"

    @property
    def descriptor_bytes(self) -> int:
        """See `Extractor`."""
        return self.width if self.binary else 4 * self.width

    def settings(self) -> dict[str, Any]:
        """See `Extractor.settings`."""
        return {"method": self.name, **self.options, "opencv": cv2.__version__}

    def extract(self, image: np.ndarray) -> Features:
        """See `Extractor.extract`."""
        checks.is_image_size(checks.is_image(image).shape[:2], "an image")  # OpenCV's ORB fails on a pixel
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        detector = self.make(**self.options)  # cheap, and no state is shared between threads
        found, descriptors = detector.detectAndCompute(gray, None)
        if not found:
            kind = np.uint8 if self.binary else np.float32
            descriptors = np.empty((0, self.width), dtype=kind)
        elif self.root:
            descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7))
        elif not self.binary:
            # OpenCV stores SIFT as whole numbers of 1/512 unit length; a constant keeps their order exactly.
            descriptors = descriptors / np.float32(512)
        return Features(
            keypoints=np.array([point.pt for point in found], dtype=np.float32).reshape(-1, 2),
            scores=np.array([point.response for point in found], dtype=np.float32),
            descriptors=descriptors,
        ).by_score()


_SIFT = {"nfeatures": 2000, "contrastThreshold": 0.01}
_CLASSICAL = {
    "sift": {"make": cv2.SIFT_create, "options": _SIFT, "width": 128},
    "rootsift": {"make": cv2.SIFT_create, "options": _SIFT, "width": 128, "root": True},
    "orb": {
        "make": cv2.ORB_create,
        "options": {"nfeatures": 2000, "fastThreshold": 5},
        "width": 32,
        "binary": True,
    },
}


def methods() -> tuple[str, ...]:
    """Returns the names of all methods: classical ones, and the networks that this package ships."""
    return (*_CLASSICAL, *learned.shipped())


def create(
    name: str,
    *,
    precision: str | None = None,
    runtime: str | None = None,
    use_tpu: bool | None = None,
    **options: Any,
) -> Extractor:
    """Makes an extractor.

    Args:
        name: A method out of `methods()`; or a path, known by its "/" or its suffix: a `.tflite` model, or
            weights that you trained (the folder of the run, or the `.weights.h5` file).
        precision: "float32", and for networks "int8" or "int8_ptq"; None takes "float32", or what a file is.
        runtime: None chooses: "opencv" for classical methods, "keras" for networks in float32, one of
            `kp2d.methods.runtimes.RUNTIMES` for others.
        use_tpu: Whether a network must run on an Edge TPU, or must not; None does as its model is compiled.
        **options: Replace a classical method's own settings, by OpenCV's names (`nfeatures=500`).

    Returns:
        The extractor; a network's is made once a process.

    Raises:
        InputError: If the method, precision, runtime or an option is unknown.
    """
    trained = learned.is_path(name)
    if not trained:
        checks.one_of("method", name, methods())
    if name not in _CLASSICAL:
        if options:
            raise checks.problem(f"no options for {name}", ", ".join(options))
        find = _trained if trained else _network
        return find(name, precision, runtime, use_tpu)
    checks.one_of(f"precision of {name}", "float32" if precision is None else precision, ["float32"])
    checks.one_of(f"runtime of {name}", runtime or "opencv", ["opencv"])
    if use_tpu:
        raise checks.problem("a network for the Edge TPU", name, "Name a model that kp2d compile made.")
    recipe = _CLASSICAL[name]
    for option in options:
        checks.one_of(f"option of {name}", option, recipe["options"])
    extractor = ClassicalExtractor(name=name, **{**recipe, "options": {**recipe["options"], **options}})
    try:
        extractor.make(**extractor.options)
    except (cv2.error, TypeError, ValueError) as error:
        raise checks.problem(f"options that OpenCV's {name} takes", repr(options)) from error
    return extractor


@functools.cache
def _network(name: str, precision: str | None, runtime: str | None, use_tpu: bool | None) -> Extractor:
    if precision is None:
        precision = "int8" if use_tpu else "float32"
    # Cached, since reading and tracing takes a second.
    return learned.load(name, precision=precision, runtime=runtime, use_tpu=use_tpu)


def _trained(path: str, *how: Any) -> Extractor:
    weights = learned.find_weights(path)
    return _trained_network(weights, weights.stat().st_mtime_ns, *how)


@functools.lru_cache(maxsize=16)
def _trained_network(
    weights: Path, _written: int, precision: str | None, runtime: str | None, use_tpu: bool | None
) -> Extractor:
    return learned.load_trained(weights, precision=precision, runtime=runtime, use_tpu=use_tpu)


def timed(extractor: Extractor, image: np.ndarray) -> tuple[Features, dict[str, float]]:
    """Finds keypoints and says how long that took.

    Args:
        extractor: Any method.
        image: As for its `extract`.

    Returns:
        The features, and milliseconds: "network" and "decode", or "extract" where a method is one step.
    """
    started = time.perf_counter()
    if not isinstance(extractor, learned.NetworkExtractor):
        features = extractor.extract(image)
        return features, {"extract": 1e3 * (time.perf_counter() - started)}
    heads = extractor.heads(image)
    between = time.perf_counter()
    features = extractor.decode(heads)
    return features, {"network": 1e3 * (between - started), "decode": 1e3 * (time.perf_counter() - between)}


def milliseconds(function: Callable[[], Any]) -> float:
    """Calls a function and returns how long that took, ms."""
    started = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - started)


def from_name(name: str) -> Extractor:
    """Makes an extractor from one word: "sift", "METHOD:PRECISION", or the path of a model or weights."""
    if learned.is_path(name):
        return create(name)
    method, colon, precision = name.partition(":")
    return create(method, precision=precision if colon else None)


def label(name: str) -> str:
    """Returns how a method is named in pictures: its own words, or the short name of trained weights."""
    return from_name(name).name if learned.is_path(name) else name.replace(":", " ")


def one_precision(names: Sequence[str]) -> list[str]:
    """Leaves out networks of which a later name has another precision: pictures show each once."""
    last = {name.partition(":")[0]: name for name in names}
    return [name for name in names if last[name.partition(":")[0]] == name]
