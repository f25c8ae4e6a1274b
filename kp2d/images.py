"""Owns reading, writing and resizing pictures: files on one side, uint8 RGB arrays on the other."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from kp2d import checks, files

SUFFIXES = (".ppm", ".pgm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
WRITABLE_SUFFIXES = (".png", ".ppm", ".jpg", ".jpeg")
MIN_SIDE = 8  # px; the largest cell of our networks
MAX_PIXELS = 200_000_000  # of a picture: the largest cameras make as many

# With these flags gray is repeated, alpha dropped without blending, EXIF orientation applied.
_DECODE_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_REPLACE = "Replace the file by a complete picture, or remove it."

# How files of formats begin, and markers of JPEG.
_JPEG, _TIFF = b"\xff\xd8\xff", (b"II*\0", b"MM\0*")
_SCAN, _END = 0xDA, 0xD9
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # these begin with a size

# Some versions of OpenCV 4 (4.8 is one) have these at the top, OpenCV 5 in a module of their own.
_log = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
_SILENT = 0
_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_level = 0


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture of any common format as RGB.

    Gray is repeated in three channels; an alpha channel is dropped without blending; 16 bits become
    8 by rounding `value / 257`, which maps 65535 to 255; an EXIF orientation is applied, so that
    the array is what a viewer shows. Keypoints and homographies refer to that upright picture.

    Args:
        path: A file; the content decides the format, not the suffix.

    Returns:
        uint8 `[H, W, 3]` RGB, at least 8x8 px.

    Raises:
        InputError: If the file is missing, a folder, empty, unreadable, not a picture, cut off, of
            floating point values, smaller than 8x8 px or larger than `MAX_PIXELS`; the message names
            the path.
    """
    path = Path(path)
    content = _read_bytes(path)
    _refuse_giant(_declared_size(content), path)  # before it is unpacked
    try:
        with _quiet_opencv():
            image = cv2.imdecode(np.frombuffer(content, np.uint8), _DECODE_FLAGS)
    except cv2.error as error:
        # For example more pixels than OpenCV accepts.
        raise checks.problem("a readable picture", f"{path} ({error.err})", _REPLACE) from None
    if _is_cut_off(content):
        raise checks.problem("a complete picture", f"{path}, which is cut off", _REPLACE)
    if image is None:
        size = f"{path} ({len(content)} bytes)"
        expected = "a picture of 8 or 16 bits a channel, neither damaged nor cut off"
        raise checks.problem(expected, size, _REPLACE)
    _refuse_giant(image.shape[:2], path)
    if min(image.shape[:2]) < MIN_SIDE:
        size = f"{image.shape[0]}x{image.shape[1]} px in {path}"
        raise checks.problem(f"an image of at least {MIN_SIDE}x{MIN_SIDE} px", size, _REPLACE)
    return _to_uint8(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), path)


def write_image(path: str | os.PathLike, image: np.ndarray) -> Path:
    """Writes a picture under a temporary name and renames it, so that no reader sees half a file.

    Args:
        path: The file to write; its suffix chooses PNG, PPM or JPEG (quality 95). Missing folders
            are made.
        image: uint8 `[H, W, 3]` RGB.

    Returns:
        The path that was written.

    Raises:
        InputError: If the suffix is not one that is written, the image is not uint8 RGB, or the
            file cannot be written.
    """
    path = Path(path)
    checks.is_image(image)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise checks.problem(f"a picture name ending in {', '.join(WRITABLE_SUFFIXES)}", str(path))
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix in (".jpg", ".jpeg") else []
    _, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    with files.atomic(path) as temporary:
        temporary.write_bytes(encoded.tobytes())  # unlike `tofile`, says why a disk refuses
    return path


def resize_image(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Resizes a picture; areas are averaged when it gets smaller, bilinear when it gets larger.

    Convention: pixel centres are respected, so x becomes `(x + 0.5) * scale - 0.5`; the same size
    returns the same array.

    Args:
        image: uint8 `[H, W, 3]` RGB.
        image_size: (height, width), px.

    Returns:
        uint8 `[height, width, 3]` RGB.

    Raises:
        InputError: If the image is not uint8 RGB or the size is below 8x8 px.
    """
    checks.is_image(image)
    height, width = checks.is_image_size(image_size)
    if image.shape[:2] == (height, width):
        return image
    shrinking = height * width < image.shape[0] * image.shape[1]
    size_wh = (width, height)
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def _read_bytes(path: Path) -> bytes:
    """Returns the content of a file that is not empty; from bytes OpenCV decodes under any file name."""
    if path.is_dir():
        raise checks.problem("a picture file", f"the folder {path}", "Name one file in it.")
    if not path.is_file():
        received = "is no file" if path.exists() else "does not exist"  # a pipe would wait for its other end
        raise checks.problem("an existing picture file", f"{path}, which {received}", "Check the name.")
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise checks.problem("a readable file", f"{path} ({reason})", "Check its permissions.") from error
    if not content:
        raise checks.problem("a picture", f"the empty file {path}", _REPLACE)
    return content


def _to_uint8(image: np.ndarray, path: Path) -> np.ndarray:
    """Returns 8-bit values `[H, W, 3]`; 16 bits are divided by 257, to the nearest integer."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise checks.problem(
        "a picture of 8 or 16 bits a channel",
        f"{image.dtype} in {path}",
        "Convert it to PNG first.",
    )


def _is_cut_off(content: bytes) -> bool:
    """Tells whether a JPEG or TIFF lacks its end, which decoders fill with gray or black."""
    if content.startswith(_JPEG):
        return all(marker != _END for marker, _ in _jpeg_segments(content))
    return content.startswith(_TIFF) and _tiff_end(content) > len(content)


def _refuse_giant(image_size: tuple[int, int] | None, path: Path) -> None:
    if image_size is not None and image_size[0] * image_size[1] > MAX_PIXELS:
        declared = f"{image_size[0]}x{image_size[1]} px in {path}"
        raise checks.problem(
            f"a picture of at most {MAX_PIXELS:,} pixels", declared, "Make it smaller first."
        )


def _declared_size(content: bytes) -> tuple[int, int] | None:
    """Returns the size that a file declares whose few bytes may unpack to more than any memory holds.

    Args:
        content: The file. Of PNG, BMP, JPEG and TIFF, that is; Netpbm is not packed and WebP never so large.

    Returns:
        (height, width) px; None for other formats and damaged files, which decoders refuse.
    """
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", content, 16)
        elif content.startswith(b"BM"):
            width, height = map(
                abs, struct.unpack_from("<ii", content, 18)
            )  # a negative height: from the top
        elif content.startswith(_JPEG):
            frame = next((at for marker, at in _jpeg_segments(content) if marker in _START_OF_FRAME), None)
            height, width = (0, 0) if frame is None else struct.unpack_from(">HH", content, frame + 5)
        elif content.startswith(_TIFF):
            fields = _tiff_fields(content)
            width, height = (max(fields.get(tag, (0,)), default=0) for tag in (256, 257))
        else:
            return None
    except struct.error:  # cut off within the header
        return None
    return height, width


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yields each marker of the picture itself and its position; a thumbnail is within a segment."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        yield marker, position
        if marker == _END:
            return
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if marker == _SCAN:  # its data run to the next marker that is neither stuffing nor a restart
            end = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.S).search(content, position)
            if end is None:
                return
            position = end.start()
    if content[position : position + 2] == b"\xff\xd9":  # with nothing behind it
        yield _END, position


def _tiff_end(content: bytes) -> int:
    """Returns the byte after the last strip or tile that the first directory of a TIFF promises."""
    try:
        fields = _tiff_fields(content)
    except struct.error:
        return len(content) + 1  # the directory itself lies behind the end
    # 273 and 279: offsets and byte counts of strips; 324 and 325: of tiles.
    starts = [*fields.get(273, ()), *fields.get(324, ())]
    sizes = [*fields.get(279, ()), *fields.get(325, ())]
    return max((start + size for start, size in zip(starts, sizes, strict=False)), default=0)


def _tiff_fields(content: bytes) -> dict[int, tuple[int, ...]]:
    """Returns the whole numbers in the first directory of a TIFF by tag; struct.error if it is cut off."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    fields = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", content, entry)
        letter = {3: "H", 4: "I"}.get(kind)  # SHORT and LONG
        if letter is None:
            continue
        position = entry + 8
        if struct.calcsize(letter) * length > 4:  # longer values stand elsewhere
            (position,) = struct.unpack_from(f"{order}I", content, position)
        fields[tag] = struct.unpack_from(f"{order}{length}{letter}", content, position)
    return fields


@contextlib.contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Silences OpenCV's log while decoding; the level comes back with the last thread."""
    global _quiet_depth, _quiet_level
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_level = _log.getLogLevel()
            _log.setLogLevel(_SILENT)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _log.setLogLevel(_quiet_level)
