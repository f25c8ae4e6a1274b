"""Owns settings: the evaluation protocol, the profiles, and the hash that names a configuration."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from kp2d import checks

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Builds a config dataclass from values by field name, and refuses names that it does not have.

    Raises:
        InputError: If a key is unknown; the nearest field is named.
    """
    fields = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        checks.one_of(f"setting of {kind.__name__}", key, fields)
    return kind(**values)


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Reads settings written as NAME=VALUE; a value is a Python literal, or else taken as a word.

    Raises:
        InputError: If an assignment has no "=".
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise checks.problem("a setting as NAME=VALUE", repr(text), "Write for example seed=1.")
        try:
            values[name.strip()] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            values[name.strip()] = value
    return values


def check_types(config: Any, part: str) -> None:
    """Refuses values of another type than their field's; messages call the dataclass `part`.

    Raises:
        InputError: Naming the field, if its value is of another type.
    """
    for setting in dataclasses.fields(config):
        value, kind = getattr(config, setting.name), str(setting.type)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if kind.startswith("tuple"):
            pair = isinstance(value, (tuple, list)) and len(value) == 2
            fits = pair and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value)
            expected = "two numbers, as (0.5, 2.0)"
        elif kind.startswith("float"):
            fits, expected = number, "a number"
        elif kind.startswith("int"):
            fits, expected = number and isinstance(value, int), "a whole number"
        elif kind.startswith("bool"):
            fits, expected = isinstance(value, bool), "True or False"
        elif kind.startswith("str"):
            fits, expected = isinstance(value, str), "a word"
        else:
            fits, expected = dataclasses.is_dataclass(value), f"a {kind}"
        optional = kind.endswith("| None") and value is None
        require(fits or optional, f"{part}.{setting.name} as {expected}", repr(value))


def require(condition: bool, expected: str, received: Any) -> None:
    """Raises an InputError about the training configuration unless a condition holds."""
    if not condition:
        raise checks.problem(expected, received, "Change the training configuration.")


def fingerprint(*parts: Any) -> str:
    """Returns 12 hexadecimal digits that change with any part (dataclass, mapping, text, number)."""

    def plain(value: Any) -> Any:
        return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)

    text = json.dumps(parts, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How image pairs are scored; every row of a result repeats it."""

    image_size: tuple[int, int] = (240, 320)  # (height, width) both images are resized to, px
    top_k: tuple[int, ...] = (300, 1000)  # keypoints kept an image, best scores first
    score_threshold: float = 0.0  # [0, 1]; for networks, whose score is a probability
    distance_threshold: float = 3.0  # px, repeatability and matching score
    ransac_threshold: float = 3.0  # px
    ransac_iterations: int = 5000
    seed: int = 0  # of RANSAC: 0 keeps the matches in KP2D's order, others shuffle them first
    half_pixel: bool = True  # homographies follow the resize about pixel centres
    drop_unrepeated: bool = False  # leave pairs without a repeated point out of the repeatability mean

    def __post_init__(self):
        object.__setattr__(self, "image_size", checks.is_image_size(self.image_size))
        top_k = tuple(self.top_k) if isinstance(self.top_k, Iterable) else (self.top_k,)
        if not top_k or any(isinstance(k, bool) or not isinstance(k, int) or k < 4 for k in top_k):
            raise checks.problem("top_k as whole numbers of at least 4", repr(self.top_k))
        object.__setattr__(self, "top_k", tuple(sorted(set(top_k))))
        for name in ("score_threshold", "distance_threshold", "ransac_threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise checks.problem(f"{name} as a number", repr(value))
            object.__setattr__(self, name, float(value))  # 3 and 3.0 are one setting, with one hash
        if not 0 <= self.score_threshold < 1:
            raise checks.problem("a score_threshold in [0, 1)", self.score_threshold)
        for name in ("distance_threshold", "ransac_threshold"):
            if not 0 < getattr(self, name) < float("inf"):
                raise checks.problem(f"a positive {name}", getattr(self, name))
        for name, least in (("ransac_iterations", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
                raise checks.problem(f"a {name} as a whole number in [{least}, 2**31)", repr(value))
        for name in ("half_pixel", "drop_unrepeated"):
            if not isinstance(getattr(self, name), bool):
                raise checks.problem(f"{name} as True or False", repr(getattr(self, name)))


PROTOCOLS = {
    "kp2d": {},
    # The reference code's own choices, kept to show how far they move the numbers.
    "kp2dtiny": {"score_threshold": 0.7, "half_pixel": False, "drop_unrepeated": True},
}


def protocol(name: str = "kp2d", **overrides: Any) -> Protocol:
    """Returns a protocol by its name in `PROTOCOLS`, with some fields of `Protocol` replaced.

    Raises:
        InputError: If the name or a field is unknown, or a value is out of range.
    """
    checks.one_of("protocol", name, PROTOCOLS)
    return build(Protocol, {**PROTOCOLS[name], **overrides})


_PAPER_SIZES = ((88, 88), (240, 320), (480, 640))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """How much of the reproduction is run, and on which data; profiles share no path."""

    name: str
    purpose: str
    skipped_stages: tuple[str, ...] = ()  # numbers of the notebooks that it leaves out
    patient_stages: tuple[str, ...] = ()  # numbers of those whose cells may take as long as they need
    trained: bool = False  # whether 03 to 06 take what 02 trains, unless asked otherwise
    dataset: str  # "sample", "hpatches", "bench" or a folder in HPatches layout
    shows_photographs: bool = True  # whether pictures of its photographs lie in figures/, which is committed
    photographs: str = "sample"  # to learn from and to calibrate with: "sample" or "coco"
    scenes: tuple[str, ...] | None = None  # of `sample`; None takes all
    num_images: int = 6  # an image sequence of `sample`
    image_size: tuple[int, int] = (240, 320)  # (height, width) px, for the evaluation and its pictures
    image_sizes: tuple[tuple[int, int], ...] = _PAPER_SIZES  # (height, width) px, all that the tables have
    top_k: tuple[int, ...] = (150, 300, 1000)
    methods: tuple[str, ...]
    robustness_images: int  # of each data set, that are turned and scaled
    pyramids: tuple[str, ...] = ("kp2d_tiny_s:int8",)  # networks that are also measured with an image pyramid
    judged: tuple[str, ...] = ("sift", "kp2d_tiny_s:int8")  # methods whose trust in homographies is measured
    train_size: tuple[int, int] = (64, 96)  # (height, width) px of a training view
    train_steps: Mapping[str, int]  # recipe to its steps; where there are two, both take the same time
    int8_size: tuple[int, int] = (120, 160)  # (height, width) px, for the study of the quantization
    int8_images: int = 7  # to calibrate with
    int8_steps: int = 16  # of training on the int8 grid
    int8_questions: tuple[str, ...] = ()  # of the study; empty takes all
    device_sizes: tuple[tuple[int, int], ...] = _PAPER_SIZES  # (height, width) px, for notebook 04
    device_repeats: int = 30  # runs of each method that are timed

    @property
    def picture_folder(self) -> str:
        """Returns where pictures of its photographs go, relative to the project."""
        return f"figures/{self.name}" if self.shows_photographs else f"results/runs/{self.name}/pictures"

    def takes_trained(self, asked: bool | str = "auto") -> bool:
        """Tells whether 03 to 06 take the network that 02 trains, as a further one.

        Asked is for True, False, or "auto", the profile's own choice.

        Raises:
            InputError: If it is asked for, but the profile leaves 02 out.
        """
        trained = self.trained if asked == "auto" else bool(asked)
        if trained and "02" in self.skipped_stages:
            received = f"the profile {self.name}, which leaves out notebook 02"
            remedy = "Take the profile fast or full, or leave --trained (the parameter trained) out."
            raise checks.problem("a profile that trains a network, for trained", received, remedy)
        return trained


_CLASSICAL = ("sift", "rootsift", "orb")
_PRECISIONS = ("", ":int8_ptq", ":int8")
_TINY = tuple(f"{name}{kind}" for name in ("kp2d_tiny_f", "kp2d_tiny_s") for kind in _PRECISIONS)
_NANO = tuple(f"kp2d_nano{kind}" for kind in _PRECISIONS)
_BASELINE = tuple(f"kp2d_baseline{kind}" for kind in _PRECISIONS)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            purpose="tests: the whole chain in seconds",
            dataset="sample",
            scenes=("astronaut", "coffee"),
            num_images=3,
            image_size=(120, 160),
            image_sizes=((88, 88), (120, 160)),
            top_k=(150, 300),
            methods=("sift", "orb"),
            robustness_images=1,
            train_size=(64, 80),
            train_steps={"kp2d": 3, "kp2d_plus": 4},
            int8_size=(64, 80),
            int8_images=2,
            int8_steps=2,
            int8_questions=("all int8", "calibration data"),
            device_sizes=((64, 80),),
            device_repeats=2,
        ),
        Profile(
            name="fast",
            purpose="the default: real photographs, minutes on two cores, no download",
            dataset="sample",
            methods=(*_CLASSICAL, "kp2d_nano:int8", *_TINY),  # pictures show the last one
            robustness_images=6,
            train_steps={"kp2d": 62, "kp2d_plus": 80},
            device_repeats=10,
        ),
        Profile(
            name="full",
            purpose="the paper's: HPatches, or the folder that VAL_PATH names",
            patient_stages=("02", "03"),
            trained=True,
            dataset="hpatches",
            photographs="coco",
            methods=(*_CLASSICAL, *_BASELINE, *_NANO, *_TINY),
            robustness_images=30,
            train_size=(240, 320),
            train_steps={"kp2d": 739_294},  # 50 epochs of COCO's 118,287 photographs, 8 a step
            int8_size=(240, 320),
            int8_images=100,
            int8_steps=400,
        ),
        Profile(
            name="bench",
            purpose="the README's tables: the image pairs that VAL_PATH names, in one data set or several",
            skipped_stages=("02",),  # its demonstration of training says nothing about these pairs
            dataset="bench",
            shows_photographs=False,  # free for research, but not to be passed on
            methods=(*_CLASSICAL, *_BASELINE, *_NANO, *_TINY),
            robustness_images=15,
            pyramids=("kp2d_tiny_s:int8", "kp2d_tiny_f:int8"),
            judged=("sift", "orb", "kp2d_nano:int8", "kp2d_tiny_s:int8", "kp2d_tiny_f:int8"),
            train_steps={"kp2d": 62, "kp2d_plus": 80},
        ),
    )
}


def profile(name: str) -> Profile:
    """Returns a profile by name.

    Raises:
        InputError: If there is none of that name.
    """
    return PROFILES[checks.one_of("profile", name, PROFILES)]
