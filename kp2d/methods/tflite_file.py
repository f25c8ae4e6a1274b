"""Owns what a `.tflite` file says of itself, read without any package: a device must be able to run it.

A model of ours carries a JSON object beside its tensors (a metadata entry named "kp2d"): network, precision,
image size, cell and how pixels enter, so that the file alone is enough to run it.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from kp2d.checks import InputError, problem
from kp2d.methods import packed

ENTRY = "kp2d"
COMPILED = "_edgetpu"  # at the end of the stem of what the Edge TPU compiler makes
SIGNATURE = ("image", ("score", "offset", "descriptor"))  # input and outputs by name
REQUIRED = (
    *("name", "preset", "precision", "image_size", "cell", "descriptor_dim"),
    *("pixel_offset", "pixel_scale"),  # a pixel p enters as (p − offset) / scale
    "score_sharpness",  # see `kp2d.methods.decode.sharpen`
)
_BUFFERS, _METADATA = 4, 6  # fields of the table Model


def read(path: str | Path) -> bytes:
    """Reads a model file.

    Args:
        path: A `.tflite` file.

    Returns:
        Its bytes.

    Raises:
        InputError: If there is no such file, or it is no TFLite model.
    """
    path = Path(path).expanduser()
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for its other end
            raise problem("a .tflite model", f"{path}, which is no file", "Check the path.")
        data = path.read_bytes()
    except OSError as error:
        raise problem("a .tflite model", f"{path}: {error.strerror or error}", "Check the path.") from error
    if data[4:8] != b"TFL3":
        raise problem("a .tflite model", f"{path}, which is none", "Make one with kp2d quantize.")
    return data


def metadata(data: bytes, source: str | Path = "the model") -> dict[str, Any]:
    """Returns what a model of ours says of itself.

    Args:
        data: The file's bytes.
        source: Names the file in errors.

    Returns:
        The JSON object; it has the keys `REQUIRED`.

    Raises:
        InputError: If the file is cut off, or is not one of ours.
    """
    return parse_metadata(_found(data, source), source)


def parse_metadata(entry: bytes | None, source: str | Path = "the model") -> dict[str, Any]:
    """Returns what the metadata entry of a model says; as `metadata`, which also finds the entry."""
    content = _object(entry) if entry is not None else None
    if content is None or not _usable(content):
        raise _not_ours(source, "Convert the weights with kp2d quantize.")
    return content


def _found(data: bytes, source: str | Path) -> bytes | None:
    try:
        return _entry(data)
    except packed.DamagedError as error:
        raise problem(
            "a whole .tflite model", f"{source}, which is damaged or cut off", "Copy or make it again."
        ) from error


def _not_ours(source: str | Path, remedy: str) -> InputError:
    what = f"{source}, which does not say how to feed and decode it"
    return problem("a .tflite model made by kp2d", what, remedy)


def open_model(path: str | Path) -> tuple[bytes, dict[str, Any]]:
    """Reads a model of ours and what it says of itself.

    Args:
        path: A `.tflite` file. What the Edge TPU compiler made, which drops the latter, is taken for what the
            file without "_edgetpu" in its name says, where that lies beside it.

    Returns:
        Its bytes, and the object of `metadata`.

    Raises:
        InputError: As `read` and `metadata`.
    """
    path, data = Path(path).expanduser(), read(path)
    source = path.with_name(path.name.replace(f"{COMPILED}.", "."))
    if source != path and _found(data, path) is None:
        if not source.is_file():
            raise _not_ours(path, f"Put {source.name} beside it, of which it was compiled.")
        return data, metadata(read(source), source)
    return data, metadata(data, path)


def _usable(content: dict[str, Any]) -> bool:
    """Tells whether an object has all that is needed to feed and decode a model, with values that can be."""
    if any(key not in content for key in REQUIRED):
        return False
    size = content["image_size"]
    whole = [content["cell"], content["descriptor_dim"], *(size if isinstance(size, list) else [None])]
    numbers = [content["pixel_offset"], content["pixel_scale"], content["score_sharpness"]]
    return (
        all(isinstance(content[key], str) for key in ("name", "preset", "precision"))
        and all(isinstance(value, int) and value > 0 for value in whole)
        and len(whole) == 4
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers)
        and content["pixel_scale"] > 0
        and content["score_sharpness"] >= 1
    )


def to_c_array(data: bytes, name: str) -> str:
    """Writes a model as a C source, for microcontrollers.

    Args:
        data: The file's bytes.
        name: Of the array, behind "g_"; other characters than letters, digits and _ are replaced.

    Returns:
        The text of a header for C11 and C++11: `alignas(16) const unsigned char g_NAME[]` and `g_NAME_len`.
    """
    symbol = "g_" + re.sub(r"[^A-Za-z0-9_]", "_", name)
    lines = [
        "  " + ", ".join(f"0x{byte:02x}" for byte in data[start : start + 16]) + ","
        for start in range(0, len(data), 16)
    ]
    guard = f"{symbol.upper()}_H_"
    head = f"// Generated by kp2d: {len(data)} bytes.\n#ifndef {guard}\n#define {guard}\n\n"
    aligned = "#ifndef __cplusplus\n#include <stdalign.h>\n#endif\n\n"
    array = f"alignas(16) const unsigned char {symbol}[] = {{\n" + "\n".join(lines) + "\n};\n"
    return f"{head}{aligned}{array}const unsigned int {symbol}_len = {len(data)};\n\n#endif  // {guard}\n"


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _entry(data: bytes) -> bytes | None:
    """Finds our metadata entry."""
    model = packed.root(data)
    buffers = list(model.tables(_BUFFERS))
    for entry in model.tables(_METADATA):
        if entry.bytes(0) == ENTRY.encode():
            number = entry.scalar(1, "I")
            if number >= len(buffers):
                raise packed.DamagedError(f"buffer {number}")
            return buffers[number].bytes(0)
    return None
