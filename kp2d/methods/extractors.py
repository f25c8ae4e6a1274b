"""Owns the keypoint methods: how they are named, and one `extract(image) -> Features` for every one."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kp2d import checks
from kp2d.methods import learned, weights
from kp2d.methods.decode import Features


class Extractor(Protocol):
    """What every method offers.

    Attributes:
        name: The method ("sift").
        precision: "float32" or "int8".
        runtime: What computes it ("opencv", "litert" …).
        label: How it is named where one method is shown; of networks the precision is told, too.
        concurrent: Whether `extract` may be called from several threads at once.
        probabilistic: Whether scores are probabilities, so that a score threshold has a meaning.
        binary: Whether descriptors are packed bits, compared by the Hamming distance.
        steered: Whether descriptors turn with their image, so that matching finds the turn.
        cell: What both sides of an image must be divisible by, px; 1 for classical methods.
        top_k: Features kept an image; None keeps all. `dataclasses.replace` changes it.
        bytes: Of the file of its weights; 0 for classical methods.
        descriptor_bytes: Of one keypoint's descriptor.
        calibration: What the ranges of an int8 network were chosen by; "none" for what is computed in float.
    """

    name: str
    precision: str
    runtime: str
    label: str
    concurrent: bool
    probabilistic: bool
    binary: bool
    steered: bool
    cell: int
    top_k: int | None
    bytes: int
    descriptor_bytes: int
    calibration: str

    def settings(self) -> dict[str, Any]:
        """Returns everything that determines the result; part of the key of exported features."""

    def extract(self, image: np.ndarray) -> Features:
        """Finds keypoints in uint8 RGB `[H, W, 3]`: in the image's own pixels, best score first."""

    def timed(self, image: np.ndarray) -> tuple[Features, dict[str, float]]:
        """Finds keypoints as `extract`, and says how long that took.

        The milliseconds are of "network" and "decode", or of "extract" where a method is one step.
        """


@dataclasses.dataclass(frozen=True)
class Method:
    """A keypoint method and its precision, as command lines, notebooks and settings name them.

    Attributes:
        name: One out of `methods()`, of networks also with a pyramid ("kp2d_tiny_s+pyramid2"), the name of
            results, or the path of a model or of trained weights.
        precision: None leaves it open: "float32" of a name, what it is of a file.
    """

    name: str
    precision: str | None = None

    @classmethod
    def parse(cls, text: str, precision: str | None = None) -> Method:
        """Reads "METHOD", "METHOD:PRECISION" or a path, and the precision given beside it.

        The method need not exist: `create` checks that.

        Raises:
            InputError: If a part is missing, or two different precisions are given.
        """
        if weights.is_path(text):
            return cls(text, precision)
        name, colon, told = text.partition(":")
        if colon and not (name and told):
            raise checks.problem(
                "METHOD or METHOD:PRECISION", repr(text), "Write for example kp2d_tiny_s:int8."
            )
        if told and precision not in (None, told):
            raise checks.problem(f"one precision of {name}", f"{told} in '{text}' and {precision} beside it")
        return cls(name, told or precision)

    def __str__(self) -> str:
        return self.name if self.precision is None or self.is_path else f"{self.name}:{self.precision}"

    @property
    def is_path(self) -> bool:
        """Tells whether the name is a path."""
        return weights.is_path(self.name)

    def split(self) -> tuple[Method, int | None]:
        """Splits "kp2d_tiny_s+pyramid2" into the method and the levels of its pyramid; None if none are told.

        Raises:
            InputError: If they are no number of levels.
        """
        name, plus, levels = self.name.partition(learned.PYRAMID)
        if self.is_path or not plus:
            return self, None
        number = int(levels) if levels.isdecimal() else levels
        return dataclasses.replace(self, name=name), learned.checked_levels(number)

    def in_tables(self) -> Method:
        """Returns the method as result tables name it; refuses a path without weights."""
        if not self.is_path:
            return dataclasses.replace(self, precision=self.precision or "float32")
        held = weights.resolve(self.name, self.precision)
        return Method(held.name, held.precision)

    def absolute(self) -> Method:
        """Returns the method such that it holds in any working directory; refuses a path without weights."""
        if not self.is_path:
            return self
        weights.find(self.name)
        return dataclasses.replace(self, name=str(Path(self.name).expanduser().resolve()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassicalExtractor:
    """A detector and descriptor of OpenCV behind the common interface."""

    name: str
    detector: str  # name of OpenCV's function that makes it
    options: dict[str, Any]  # arguments of that function
    width: int  # values a descriptor
    binary: bool = False
    root: bool = False  # RootSIFT's square root
    precision: str = "float32"
    runtime: str = "opencv"
    concurrent: bool = True
    probabilistic: bool = False
    steered: bool = False
    cell: int = 1
    top_k: int | None = None
    bytes: int = 0
    calibration: str = "none"

    @property
    def label(self) -> str:
        """See `Extractor`."""
        return self.name

    @property
    def descriptor_bytes(self) -> int:
        """See `Extractor`."""
        return self.width if self.binary else 4 * self.width

    def make(self) -> Any:
        """Makes OpenCV's detector.

        Raises:
            InputError: If OpenCV refuses the options.
        """
        import cv2  # only here and below: a network in integers needs no OpenCV

        try:
            return getattr(cv2, self.detector)(**self.options)
        except (cv2.error, TypeError, ValueError) as error:
            raise checks.problem(f"options that OpenCV's {self.name} takes", repr(self.options)) from error

    def settings(self) -> dict[str, Any]:
        """See `Extractor.settings`."""
        import cv2

        kept = {} if self.top_k is None else {"top_k": self.top_k}
        return {"method": self.name, **self.options, "opencv": cv2.__version__, **kept}

    def extract(self, image: np.ndarray) -> Features:
        """See `Extractor.extract`."""
        import cv2

        checks.is_image_size(checks.is_image(image).shape[:2], "an image")  # OpenCV's ORB fails on a pixel
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        detector = self.make()  # cheap, and no state is shared between threads
        points, descriptors = detector.detectAndCompute(gray, None)
        if not points:
            kind = np.uint8 if self.binary else np.float32
            descriptors = np.empty((0, self.width), dtype=kind)
        elif self.root:
            descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-7))
        elif not self.binary:
            # OpenCV stores SIFT as whole numbers of 1/512 unit length; a constant keeps their order exactly.
            descriptors = descriptors / np.float32(512)
        features = Features(
            keypoints=np.array([point.pt for point in points], dtype=np.float32).reshape(-1, 2),
            scores=np.array([point.response for point in points], dtype=np.float32),
            descriptors=descriptors,
        ).by_score()
        return features if self.top_k is None else features.take(slice(self.top_k))

    def timed(self, image: np.ndarray) -> tuple[Features, dict[str, float]]:
        """See `Extractor.timed`."""
        started = time.perf_counter()
        features = self.extract(image)
        return features, {"extract": 1e3 * (time.perf_counter() - started)}


_SIFT = {"nfeatures": 2000, "contrastThreshold": 0.01}
_ORB = {"nfeatures": 2000, "fastThreshold": 5}
_CLASSICAL = {
    extractor.name: extractor
    for extractor in (
        ClassicalExtractor(name="sift", detector="SIFT_create", options=_SIFT, width=128),
        ClassicalExtractor(name="rootsift", detector="SIFT_create", options=_SIFT, width=128, root=True),
        ClassicalExtractor(name="orb", detector="ORB_create", options=_ORB, width=32, binary=True),
    )
}


def methods() -> tuple[str, ...]:
    """Returns the names of all methods: classical ones, and the networks that this package ships."""
    return (*_CLASSICAL, *weights.shipped())


def create(method: str | Method, *, precision: str | None = None, **options: Any) -> Extractor:
    """Makes an extractor; a network's is made once a process.

    Args:
        method: One out of `methods()`, also as "METHOD:PRECISION" or "METHOD+pyramid2:PRECISION"; or a path,
            known by its "/" or its suffix: a `.tflite` model, or weights that you trained (the folder of the
            run, or the `.weights.h5` file).
        precision: "float32", and for networks "int8" or "int8_ptq"; None takes the method's own, else
            "float32" ("int8" for an Edge TPU), or what a file is.
        **options: Of a classical method its own settings, by OpenCV's names (`nfeatures=500`); of a network
            `pyramid`, see `kp2d.methods.learned.load`, and `runtime`, `threads`, `kernels`, `use_tpu`,
            `device`, see `kp2d.methods.runtimes.TFLiteModel`. What is None is left open.

    Returns:
        The extractor.

    Raises:
        InputError: If the method, precision, runtime or an option is unknown.
    """
    chosen, options = _chosen(method, precision, options)
    if chosen.name in _CLASSICAL:
        return _classical(chosen, **options)
    written = weights.find(chosen.name).stat().st_mtime_ns if chosen.is_path else 0
    return _network(chosen, written, tuple(sorted(options.items())))


def as_extractor(method: str | Method | Extractor) -> Extractor:
    """Returns an extractor as it is, and of anything else what `create` makes of it."""
    return method if hasattr(method, "extract") else create(method)


def load(method: str | Method, *, precision: str | None = None, **options: Any) -> Extractor:
    """Makes an extractor that is shared with no other caller; see `create`."""
    chosen, options = _chosen(method, precision, options)
    if chosen.name in _CLASSICAL:
        return _classical(chosen, **options)
    return learned.load(chosen.name, precision=chosen.precision, **options)


def _chosen(
    method: str | Method, precision: str | None, options: dict[str, Any]
) -> tuple[Method, dict[str, Any]]:
    """Returns a method that exists, its precision or absolute path, and the options that are given.

    The levels of an image pyramid in its name become an option, and a pyramid of one level is none.
    """
    chosen = Method.parse(str(method), precision)
    options = {name: value for name, value in options.items() if value is not None}
    plain, levels = chosen.split()
    given = learned.checked_levels(options.pop("pyramid", levels or 1))
    if given != (levels or given):
        raise checks.problem(f"one number of levels of {plain.name}", f"{given} beside {chosen}")
    if given > 1:
        options["pyramid"] = given
    if plain.is_path:
        return plain.absolute(), options
    weights.check_name("method", plain.name, methods())
    default = "int8" if options.get("use_tpu") and plain.name not in _CLASSICAL else "float32"
    return dataclasses.replace(plain, precision=plain.precision or default), options


def _classical(
    method: Method, *, runtime: str = "opencv", use_tpu: bool = False, pyramid: int = 1, **options: Any
) -> ClassicalExtractor:
    name = method.name
    if pyramid > 1:
        remedy = "Leave `pyramid` out: OpenCV's methods have a pyramid of their own."
        raise checks.problem("a network for `pyramid`", name, remedy)
    checks.one_of(f"precision of {name}", method.precision, ["float32"])
    checks.one_of(f"runtime of {name}", runtime, ["opencv"])
    if use_tpu:
        raise checks.problem("a network for the Edge TPU", name, "Name a model that kp2d compile made.")
    extractor = _CLASSICAL[name]
    for option in options:
        checks.one_of(f"option of {name}", option, extractor.options)
    if options:
        extractor = dataclasses.replace(extractor, options={**extractor.options, **options})
        extractor.make()  # which refuses values that do not work
    return extractor


@functools.lru_cache(maxsize=32)
def _network(method: Method, _written: int, options: tuple[tuple[str, Any], ...]) -> Extractor:
    # Cached, since reading and tracing takes a second.
    return learned.load(method.name, precision=method.precision, **dict(options))


def weights_hash(extractor: Extractor) -> str:
    """Returns the first 12 hexadecimal digits of the sha256 of a method's weights; "" where it has none."""
    return extractor.settings().get("sha256", "")[:12]


def milliseconds(function: Callable[[], Any]) -> float:
    """Calls a function and returns how long that took, ms."""
    started = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - started)


def label(method: str) -> str:
    """Returns how a method is named in pictures: its own words, or the short name of a path's weights."""
    named = Method.parse(method)
    if named.is_path:
        named = named.in_tables()
        named = dataclasses.replace(
            named, precision=named.precision if named.precision != "float32" else None
        )
    return str(named).replace(":", " ")


def one_precision(names: Sequence[str]) -> list[str]:
    """Leaves out networks of which a later name has another precision: pictures show each once."""
    last = {Method.parse(name).in_tables().name: name for name in names}
    return [name for name in names if name in last.values()]
