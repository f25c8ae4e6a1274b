"""Owns what the parameters of notebooks may be, and reads each in any usual form of a command line."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from kp2d import backend, checks, config
from kp2d.methods import extractors, weights
from kp2d.train.recipes import RECIPES

Read = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of notebooks."""

    kind: str  # what it is, for messages
    form: str  # how it is written on a command line
    # returns the value as notebooks take it; raises ValueError for what it is not, `InputError` for what it
    # must not be
    read: Read


def read(name: str, value: Any) -> Any:
    """Reads a parameter, as 300, "300", [300, 1000], "300,1000", "sift", "[sift, orb]" or "240x320".

    The value, as a command line, YAML or a notebook's cell gives it, becomes what notebooks take; of a
    parameter that no notebook of this package has, it is returned as it is.

    Raises:
        InputError: If it is of another kind or out of range; the message says how to write it.
    """
    parameter = PARAMETERS.get(name)
    if parameter is None:
        return value
    remedy = f"Write for example {name}={parameter.form}."
    try:
        return parameter.read(value)
    except checks.InputError as error:
        remedy = f"{error.remedy} {remedy}".lstrip()
        raise checks.problem(f"{error.expected} for {name}", error.received, remedy) from None
    except (TypeError, ValueError):
        raise checks.problem(f"{parameter.kind} for {name}", repr(value), remedy) from None


def settle(names: MutableMapping[str, Any]) -> None:
    """Reads all parameters among the names of a notebook, as `globals()`, and puts the values in their place.

    Raises:
        InputError: As `read`; then none is changed.
    """
    names.update({name: read(name, names[name]) for name in PARAMETERS if name in names})


def _literal(value: Any) -> Any:
    """Returns what a text spells as Python; any other text and value as it is."""
    if isinstance(value, str):
        try:
            return ast.literal_eval(value.strip())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return value.strip()
    return value


def _items(value: Any) -> list[Any]:
    """Returns the items of a list in any form: "a,b", "[a, b]", ("a", "b"), or a single one."""
    value = _literal(value)
    if isinstance(value, str):
        inside = value.strip("[]() ")
        return [_literal(item) for item in re.split(r"\s*[,;]\s*", inside) if item]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _word(value: Any) -> str:
    value = _literal(value) if isinstance(value, str) and value[:1] in ("'", '"') else value
    if not isinstance(value, str):
        raise TypeError(value)
    return value.strip()


def _path(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _word(value)  # "2026"


def _whole(least: int) -> Read:
    def convert(value: Any) -> int:
        value = _literal(value)
        value = int(value) if isinstance(value, str) else value  # "007"
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(value)
        if not least <= value < 2**31:
            raise checks.problem(f"a whole number in [{least}, 2**31)", value)
        return value

    return convert


def _size(value: Any) -> list[int]:
    """Reads (height, width) as "240x320" or two numbers; nothing is []."""
    value = _literal(value)
    items = value.lower().split("x") if isinstance(value, str) and "x" in value.lower() else _items(value)
    try:
        return list(checks.is_image_size(items, "an image size")) if items else []
    except checks.InputError as error:
        raise checks.problem(error.expected, error.received) from None  # `read` says how to write it


def _sizes(value: Any) -> list[list[int]]:
    items = _items(value)
    single = len(items) == 2 and all(isinstance(item, int) for item in items)
    return [_size(items)] if single else [_size(item) for item in items]


def _several(convert: Read) -> Read:
    return lambda value: [convert(item) for item in _items(value)]


def _out_of(kind: str, choices: Callable[[], Iterable[str]]) -> Read:
    """Reads a word out of some, which may take a heavy import to know; "" leaves it to the profile."""
    return lambda value: (word := _word(value)) and checks.one_of(kind, word, choices())


def _method(value: Any) -> str:
    """Reads METHOD, METHOD:PRECISION or a path; "" leaves it open."""
    word = _word(value)
    if word:
        method, _ = extractors.Method.parse(word).split()
        if not method.is_path:
            weights.check_name("method", method.name, extractors.methods())
            if method.name not in weights.shipped():
                extractors.create(word)  # costs nothing, and refuses what is for networks only
            elif method.precision is not None:
                checks.one_of(f"precision of {method.name}", method.precision, weights.SUFFIXES)
    return word


def _network(value: Any) -> str:
    word = _method(value)
    method = extractors.Method.parse(word)
    if not method.is_path:
        checks.one_of("shipped network", method.name, weights.shipped())
    return word


def _presets() -> Iterable[str]:
    backend.quiet()
    from kp2d.methods import networks

    return networks.PRESETS


def _questions() -> Iterable[str]:
    backend.quiet()
    from kp2d.evaluate import sensitivity

    return dict.fromkeys(variant.group for variant in sensitivity.variants(1, 1))


def _switch(value: Any) -> bool | str:
    word = str(value).strip().strip("'\"").casefold()
    known = {"auto": "auto", "true": True, "yes": True, "false": False, "no": False}
    return known[checks.one_of("choice", word, known)]


_COUNT = Parameter(kind="a whole number", form="8", read=_whole(0))
_SIZE = Parameter(kind="a (height, width) in px", form="240x320", read=_size)
_SIZES = Parameter(kind="sizes in px", form="88x88,240x320", read=_sizes)
_FOLDER = Parameter(kind="a folder", form="~/photographs", read=_path)

PARAMETERS = {
    "profile": Parameter(kind="a profile", form="fast", read=_out_of("profile", lambda: config.PROFILES)),
    "data_seed": _COUNT,
    "preset": Parameter(kind="a network", form="kp2d_tiny_s", read=_out_of("preset", _presets)),
    "recipes": Parameter(
        kind="recipes", form="kp2d,kp2d_plus", read=_several(_out_of("recipe", lambda: RECIPES))
    ),
    "train_steps": Parameter(kind="whole numbers", form="60,80", read=_several(_whole(1))),
    "train_size": _SIZE,
    "photographs": _FOLDER,
    "train_seed": _COUNT,
    "network": Parameter(kind="a network", form="kp2d_tiny_s", read=_network),
    "networks": Parameter(kind="networks", form="kp2d_nano,kp2d_tiny_s", read=_several(_network)),
    "image_size": _SIZE,
    "num_images": _COUNT,
    "int8_steps": _COUNT,
    "questions": Parameter(
        kind="questions", form="ranges,kernels", read=_several(_out_of("question", _questions))
    ),
    "image_sizes": _SIZES,
    "threads": Parameter(kind="whole numbers", form="1,2", read=_several(_whole(1))),
    "repeats": _COUNT,
    "methods": Parameter(kind="methods", form="sift,kp2d_tiny_s:int8", read=_several(_method)),
    "top_k": Parameter(kind="whole numbers of at least 4", form="300,1000", read=_several(_whole(4))),
    "study_top_k": _COUNT,
    "protocol": Parameter(kind="a protocol", form="kp2d", read=_out_of("protocol", lambda: config.PROTOCOLS)),
    "seed": _COUNT,
    "method": Parameter(kind="a method", form="kp2d_tiny_s:int8", read=_method),
    "shown_top_k": Parameter(kind="a whole number of at least 4", form="300", read=_whole(4)),
    "num_panels": Parameter(kind="a whole number", form="24", read=_whole(1)),
    "num_failures": _COUNT,
    "trained": Parameter(kind="auto, True or False", form="True", read=_switch),
    "interactive": Parameter(kind="auto, True or False", form="False", read=_switch),
}
