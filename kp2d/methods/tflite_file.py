"""Owns the `.tflite` file, read without any package: its tables, and what a model of ours says of itself.

A model of ours carries a JSON object beside its tensors (a metadata entry named "kp2d"): network, precision,
image size, cell and how pixels enter, so that the file alone is enough to run it. A file may come from
anywhere: every offset is doubted, and what leads out of the file raises `DamagedError`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kp2d import picture_files
from kp2d.checks import InputError, problem

ENTRY = "kp2d"
COMPILED = "_edgetpu"  # at the end of the stem of what the Edge TPU compiler makes
SIGNATURE = ("image", ("score", "offset", "descriptor"))  # input and outputs by name
REQUIRED = (
    *("name", "preset", "precision", "image_size", "cell", "descriptor_dim"),
    *("pixel_offset", "pixel_scale"),  # a pixel p enters as (p − offset) / scale
    "score_sharpness",  # see `kp2d.methods.decode.sharpen`
)
LOGISTIC = (1 / 256, -128)  # scale and zero point that TFLite lays down for a score in int8
_BUFFERS, _METADATA = 4, 6  # fields of the table Model


def read(path: str | Path) -> bytes:
    """Reads the bytes of a `.tflite` file.

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
        kind, remedy = picture_files.kind(data)
        remedy = remedy if "LFS" in kind else "Make one with kp2d quantize."
        raise problem("a .tflite model", f"{path}, which is {kind or 'none'}", remedy)
    return data


def metadata(data: bytes, source: str | Path = "the model") -> dict[str, Any]:
    """Returns what a model of ours says of itself: an object with the keys `REQUIRED`.

    `source` names the file in errors.

    Raises:
        InputError: If the file is cut off, or is not one of ours.
    """
    return parse_metadata(_entry(data, source), source)


def parse_metadata(entry: bytes | None, source: str | Path = "the model") -> dict[str, Any]:
    """Returns what the metadata entry of a model says; as `metadata`, which also finds the entry."""
    content = _object(entry) if entry is not None else None
    if content is None or not _usable(content):
        raise _not_ours(source, "Convert the weights with kp2d quantize.")
    return content


def _entry(data: bytes, source: str | Path) -> bytes | None:
    """Returns our metadata entry; None if there is none."""
    try:
        return _find_entry(root(data))
    except DamagedError as error:
        raise problem(
            "a whole .tflite model", f"{source}, which is damaged or cut off", "Copy or make it again."
        ) from error


def _not_ours(source: str | Path, remedy: str) -> InputError:
    what = f"{source}, which does not say how to feed and decode it"
    return problem("a .tflite model made by kp2d", what, remedy)


def open_model(path: str | Path) -> tuple[bytes, dict[str, Any]]:
    """Reads a model of ours: its bytes, and the object of `metadata`.

    What the Edge TPU compiler made, which drops the latter, is taken for what the file without "_edgetpu" in
    its name says, where that lies beside it.

    Raises:
        InputError: As `read` and `metadata`.
    """
    path, data = Path(path).expanduser(), read(path)
    source = path.with_name(path.name.replace(f"{COMPILED}.", "."))
    if source != path and _entry(data, path) is None:
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
        Of an int8 model also what decoding needs: `g_NAME_cell`, and `g_NAME_scores[256]`, what each level of
        the score means, from −128 on.
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
    length = f"const unsigned int {symbol}_len = {len(data)};\n"
    return f"{head}{aligned}{array}{length}{_c_decoding(data, symbol)}\n#endif  // {guard}\n"


def _c_decoding(data: bytes, symbol: str) -> str:
    """Writes what decoding must know of an int8 model; scores tie as in Python, whose numbers they are."""
    import numpy as np  # only here: a file is read without any package

    from kp2d.methods.decode import dequantize, sharpen

    about = metadata(data)
    if not about["precision"].startswith("int8"):
        return ""
    levels = dequantize(np.arange(-128, 128, dtype=np.int8), *LOGISTIC)
    scores = sharpen(levels, about["score_sharpness"]).astype(np.float32)
    numbers = [f"{score:#.9g}f," for score in scores]
    rows = "\n".join("  " + " ".join(numbers[start : start + 6]) for start in range(0, 256, 6))
    cell = f"enum {{ {symbol}_cell = {about['cell']} }};  // px\n"
    return f"{cell}const float {symbol}_scores[256] = {{\n{rows}\n}};\n"


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _find_entry(model: Table) -> bytes | None:
    buffers = list(model.tables(_BUFFERS))
    for entry in model.tables(_METADATA):
        if entry.bytes(0) == ENTRY.encode():
            number = entry.scalar(1, "I")
            if number >= len(buffers):
                raise DamagedError(f"buffer {number}")
            return buffers[number].bytes(0)
    return None


# The format FlatBuffers, followed by hand.


class DamagedError(ValueError):
    """An offset or a length leads out of the file."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a file."""

    data: bytes  # the whole file
    at: int  # where the table begins

    def scalar(self, number: int, kind: str) -> int:
        """Returns a number, 0 if its field is absent; the kind is a letter of the module `struct`, as "I"."""
        offset = self._offset(number)
        return _read(self.data, self.at + offset, kind) if offset else 0

    def table(self, number: int) -> Table | None:
        """Returns a field that is a table; None if it is absent."""
        at = self.target(number)
        return None if at is None else _checked(Table(self.data, at))

    def tables(self, number: int) -> Iterator[Table]:
        """Yields the tables of a vector; none if it is absent."""
        at = self.target(number)
        if at is not None:
            for entry in range(at + 4, self._end(at, 4), 4):
                yield _checked(Table(self.data, _follow(self.data, entry)))

    def numbers(self, number: int, kind: str) -> tuple:
        """Returns the values of a vector; none if it is absent."""
        at = self.target(number)
        if at is None:
            return ()
        end = self._end(at, struct.calcsize(f"<{kind}"))
        return tuple(value for (value,) in struct.iter_unpack(f"<{kind}", self.data[at + 4 : end]))

    def size(self, number: int, width: int = 1) -> int:
        """Returns how many values of so many bytes a vector has; 0 if it is absent."""
        at = self.target(number)
        return 0 if at is None else (self._end(at, width) - at - 4) // width

    def bytes(self, number: int) -> bytes | None:
        """Returns a field that is a string or a vector of bytes; None if it is absent."""
        at = self.target(number)
        return None if at is None else bytes(self.data[at + 4 : self._end(at, 1)])

    def target(self, number: int) -> int | None:
        """Returns where in the file what a field refers to begins; None if the field is absent."""
        offset = self._offset(number)
        return _follow(self.data, self.at + offset) if offset else None

    def _end(self, vector: int, width: int) -> int:
        """Returns where a vector ends."""
        end = vector + 4 + width * _read(self.data, vector, "I")
        if end > len(self.data):
            raise DamagedError(f"a vector at {vector} ends at {end}")
        return end

    def _offset(self, number: int) -> int:
        """Returns where in the table a field lies; 0 if it is absent."""
        directory = self.at - _read(self.data, self.at, "i")
        entry = 4 + 2 * number
        return _read(self.data, directory + entry, "H") if entry < _read(self.data, directory, "H") else 0


def root(data: bytes) -> Table:
    """Returns the table that a file consists of.

    Raises:
        DamagedError: If there is none.
    """
    return _checked(Table(data, _follow(data, 0)))


def _checked(table: Table) -> Table:
    """Checks that the directory of a table and all fields lie within the file."""
    data, at = table.data, table.at
    directory = at - _read(data, at, "i")
    size, length = _read(data, directory, "H"), _read(data, directory + 2, "H")
    if size < 4 or size % 2 or length < 4 or directory + size > len(data) or at + length > len(data):
        raise DamagedError(f"a table at {at}")
    if any(_read(data, directory + entry, "H") >= length for entry in range(4, size, 2)):
        raise DamagedError(f"a field of the table at {at}")
    return table


def _follow(data: bytes, at: int) -> int:
    """Returns where the offset at a position leads."""
    target = at + _read(data, at, "I")
    if target + 4 > len(data):
        raise DamagedError(f"the offset at {at} leads to {target}")
    return target


def _read(data: bytes, at: int, kind: str) -> int:
    """Reads the number at a position; `kind` is a letter of the module `struct`."""
    if at < 0:
        raise DamagedError(f"the position {at}")
    try:
        return struct.unpack_from(f"<{kind}", data, at)[0]
    except struct.error:
        raise DamagedError(f"the position {at}") from None
