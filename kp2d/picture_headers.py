"""Owns what the file of a picture says of its size, so that nothing is unpacked that no memory holds."""

from __future__ import annotations

import re
import struct

_NETPBM = re.compile(rb"P[1-6]\s(?:\s|#[^\n]*\n)*(\d{1,10})\s(?:\s|#[^\n]*\n)*(\d{1,10})\s")
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG's markers that begin with a size


def declared_size(content: bytes) -> tuple[int, int] | None:
    """Returns the size that a file declares.

    Args:
        content: The file: PNG, JPEG, BMP, TIFF, WebP or Netpbm.

    Returns:
        (height, width) px; None for other formats and damaged files, which decoders refuse.
    """
    for magic, read in _READERS:
        if content.startswith(magic):
            try:
                return read(content)
            except struct.error:  # cut off within the header
                return None
    return None


def _png(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", content, 16)
    return height, width


def _bmp(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<ii", content, 18)
    return abs(height), abs(width)  # a negative height means from the top


def _jpeg(content: bytes) -> tuple[int, int] | None:
    position = 2
    while True:
        lead, marker, length = struct.unpack_from(">BBH", content, position)
        if lead != 0xFF:
            return None
        if marker == 0xFF:  # padding
            position += 1
        elif marker in _START_OF_FRAME:
            return struct.unpack_from(">HH", content, position + 5)
        else:
            position += 2 + length


def _webp(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        return _three_bytes(content, 27) + 1, _three_bytes(content, 24) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return height & 0x3FFF, width & 0x3FFF


def _three_bytes(content: bytes, position: int) -> int:
    low, high = struct.unpack_from("<HB", content, position)
    return high << 16 | low


def _netpbm(content: bytes) -> tuple[int, int] | None:
    found = _NETPBM.match(content)
    return None if found is None else (int(found[2]), int(found[1]))


def _tiff(content: bytes) -> tuple[int, int]:
    fields = tiff_fields(content)
    return max(fields.get(257, (0,)), default=0), max(fields.get(256, (0,)), default=0)


def tiff_fields(content: bytes) -> dict[int, tuple[int, ...]]:
    """Returns the whole numbers in the first directory of a TIFF by tag.

    Args:
        content: The file.

    Raises:
        struct.error: If the directory lies behind the end of the file.
    """
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    fields = {}
    for index in range(count):
        tag, kind, length = struct.unpack_from(f"{order}HHI", content, start + 2 + 12 * index)
        fields[tag] = _tiff_values(content, order, start + 10 + 12 * index, kind, length)
    return fields


def _tiff_values(content: bytes, order: str, position: int, kind: int, length: int) -> tuple[int, ...]:
    """Returns the values of a TIFF field of type SHORT (3) or LONG (4); nothing for other types."""
    letter = {3: "H", 4: "I"}.get(kind)
    if letter is None:
        return ()
    size = struct.calcsize(letter) * length
    if size > 4:  # longer values stand elsewhere
        (position,) = struct.unpack_from(f"{order}I", content, position)
    if position + size > len(content):  # before `struct` makes as many numbers as a damaged length says
        raise struct.error(f"a field that ends at {position + size}")
    return struct.unpack_from(f"{order}{length}{letter}", content, position)


_READERS = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"RIFF", _webp),
    (b"P", _netpbm),
)
