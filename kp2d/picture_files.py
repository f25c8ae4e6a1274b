"""Owns what the bytes of a picture file say before they are unpacked: kind, size, end, range, alpha."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator

# How files of formats begin, and markers of JPEG.
_JPEG, _TIFF, _PNG = b"\xff\xd8\xff", (b"II*\0", b"MM\0*"), b"\x89PNG\r\n\x1a\n"
_SCAN, _END, _RESTARTS = 0xDA, 0xD9, 0xDD
_BASELINE = (0xC0, 0xC1)
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # these begin with a size

# What is sent as a picture and is none that OpenCV always reads: how it begins, from which byte on.
_CONVERT = "Convert it to PNG or JPEG."
_EXPORT = "Export it as PNG or JPEG."
_KINDS = (
    (
        4,
        b"ftyp(heic|heix|hevc|heim|heis|mif1|msf1)",
        "a HEIC photograph",
        "Convert it to JPEG, as phones do when they share one.",
    ),
    (4, b"ftyp(avif|avis)", "an AVIF picture", _CONVERT),
    (4, b"ftypcrx ", "the raw photograph of a Canon camera", "Develop it to JPEG or PNG."),
    (4, b"ftyp", "a video", "Take a frame of it, or name it to kp2d demo."),
    (0, b"RIFF....AVI ", "a video", "Take a frame of it, or name it to kp2d demo."),
    (0, b"\x1aE\xdf\xa3", "a video", "Take a frame of it, or name it to kp2d demo."),
    (0, b"GIF8", "a GIF picture", _CONVERT),
    (0, b"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
    (0, b"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", _CONVERT),
    (0, b"II\\*\0|MM\0\\*|II\\+\0|MM\0\\+", "a TIFF or raw photograph", "Develop or convert it to PNG."),
    (0, b"FUJIFILMCCD|IIRO|IIU\0", "the raw photograph of a camera", "Develop it to JPEG or PNG."),
    (0, b"P7\n|PF\n|Pf\n", "a Netpbm picture of a rare kind (PAM or PFM)", _CONVERT),
    (0, b"8BPS", "a Photoshop document", _EXPORT),
    (0, b"%PDF", "a PDF document", _EXPORT),
    (0, b"%!PS", "a PostScript document", _EXPORT),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture of floating point values", _CONVERT),
    (0, b"#\\?RADIANCE|#\\?RGBE", "a Radiance picture of floating point values", _CONVERT),
    (0, b"SIMPLE  =", "a FITS file", _CONVERT),
    (0, b"\x93NUMPY", "a NumPy array", "Write it with kp2d.images.write_image."),
    (0, b"\x89HDF", "an HDF5 file", _EXPORT),
    (128, b"DICM", "a DICOM file", _EXPORT),
    (0, b"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", "Unpack it."),
    (0, b"\\0\5\x16[\0\7]", "attributes of a file as macOS keeps them apart", "Remove it."),
    (0, b"\\0\\0\1\\0.\\0", "an icon", _CONVERT),
    (
        0,
        b"\x89PNG(?!\r\n\x1a\n)|\xef\xbf\xbdPNG|\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
        "a picture that was transferred as text, which damages it",
        "Transfer it again, as binary.",
    ),
    (0, b"\\0{512}", "nothing but zeros, as an interrupted copy leaves them", "Copy the picture again."),
    (0, b"version https://git-lfs", "the placeholder of a file in Git LFS", "Fetch the file: git lfs pull."),
    (0, b"\\s*(<\\?xml[^>]*>\\s*)?(<!--.*?-->\\s*)*<svg", "an SVG drawing", _EXPORT),
    (
        0,
        b"\\s*<(!doctype html|html|head)",
        "a web page, as a failed download leaves it",
        "Download the picture again.",
    ),
    (
        0,
        b'(\xef\xbb\xbf)?\\s*(<\\?xml|\\{\\s*["}]|data:image/)',
        "a text (XML, JSON or a data URL), as a failed download leaves it",
        "Download the picture again.",
    ),
)


def kind(content: bytes) -> tuple[str, str]:
    """Returns what a file is, whatever its name says, and what to do with it; ("", "") if that is unknown."""
    for start, beginning, name, remedy in _KINDS:
        if re.compile(beginning, re.S | re.I).match(content[: start + 1024], start):
            return name, remedy
    return "", ""


def is_cut_off(content: bytes) -> bool:
    """Tells whether a JPEG or TIFF lacks its end, which decoders fill with gray or black."""
    if content.startswith(_JPEG):
        return all(marker != _END for marker, _ in _jpeg_segments(content))
    return content.startswith(_TIFF) and _tiff_end(content) > len(content)


def may_lack_its_end_only(content: bytes) -> bool:
    """Tells whether a JPEG without its end may have all its pixels: one scan, and no restart is missing.

    Network cameras send such files. Whether pixels are missing shows only when they are decoded.
    """
    segments = dict(_jpeg_segments(content)) if content.startswith(_JPEG) else {}
    frame = next((segments[marker] for marker in _BASELINE if marker in segments), None)
    scan, interval = segments.get(_SCAN), segments.get(_RESTARTS)
    if frame is None or scan is None or frame + 9 >= len(content) or scan + 4 >= len(content):
        return False
    components = content[frame + 9]
    if content[scan + 4] != components:  # further scans are to come
        return False
    if interval is None or not (every := int.from_bytes(content[interval + 4 : interval + 6], "big")):
        return True
    height, width = struct.unpack_from(">HH", content, frame + 5)
    factors = [content[frame + 11 + 3 * i] for i in range(components)] if components > 1 else [0x11]
    side = [8 * max(factor >> 4 for factor in factors), 8 * max(factor & 15 for factor in factors)]
    units = -(-width // side[0]) * -(-height // side[1])
    return len(re.findall(rb"\xff[\xd0-\xd7]", content[scan:])) == -(-units // every) - 1


def netpbm_maximum(content: bytes) -> int | None:
    """Returns the value of white that a Netpbm picture declares; None for other files."""
    comment = rb"(?:\s+|#[^\n\r]*[\n\r])+"
    header = re.match(rb"P[2356]" + 3 * (comment + rb"(\d+)"), content[:4096])
    return int(header[3]) if header else None


def plain_netpbm(content: bytes) -> bytes:
    """Returns a Netpbm picture as all versions of OpenCV read it right, other content as it is.

    They take the colours of a PAM for those of BMP, and of a header with Windows' line ends the last byte for
    a pixel; of a PAM with alpha nothing is left.
    """
    if content.startswith(b"P7\n"):
        head, _, pixels = content.partition(b"ENDHDR\n")
        fields = dict(re.findall(rb"(?m)^([A-Z]+)[ \t]+(\S+)", head))
        kind = {b"1": b"P5", b"3": b"P6"}.get(fields.get(b"DEPTH", b""))
        sizes = [fields.get(name) for name in (b"WIDTH", b"HEIGHT", b"MAXVAL")]
        return b" ".join([kind, *filter(None, sizes)]) + b"\n" + pixels if kind and all(sizes) else b""
    header = re.match(rb"P([56])\s+(\d+)\s+(\d+)\s+(\d+)\r\n", content[:128])
    if header:
        channels, width, height, white = (3 if header[1] == b"6" else 1, *map(int, header.groups()[1:]))
        if len(content) - header.end() == width * height * channels * (2 if white > 255 else 1):
            return header[0][:-2] + content[header.end() - 1 :]
    return content


def unblended(content: bytes) -> bytes:
    """Returns a TIFF whose alpha OpenCV does not multiply its colours by, other content as it is.

    It takes the alpha for one that they were multiplied by already.
    """
    if not content.startswith(_TIFF):
        return content
    order = "<" if content[:2] == b"II" else ">"
    with contextlib.suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}HHIH", content, entry) == (338, 3, 1, 2):
                return content[: entry + 8] + struct.pack(f"{order}H", 1) + content[entry + 10 :]
    return content


def may_be_transparent(content: bytes) -> bool:
    """Tells whether a PNG, TIFF or WebP declares transparency, and is stored upright."""
    if content.startswith(_PNG):
        head = content[: content.find(b"IDAT")]
        return (content[25:26] in (b"\x04", b"\x06") or b"tRNS" in head) and b"eXIf" not in content
    if content[8:12] == b"WEBP":
        extended = content[12:16] == b"VP8X" and content[20] & 0x10 and not content[20] & 0x08
        return bool(extended) or content[12:16] == b"VP8L"
    if content.startswith(_TIFF):
        with contextlib.suppress(struct.error):
            fields = _tiff_fields(content)  # 338: what further samples are; 274: which way up
            return fields.get(338, (0,))[0] in (1, 2) and fields.get(274, (1,)) == (1,)
    return False


def is_animated(content: bytes) -> bool:
    """Tells whether a GIF, PNG, WebP or TIFF declares more than one picture."""
    if content.startswith(b"GIF8"):
        return content.count(b"\x21\xf9\x04") > 1
    if content.startswith(_PNG):
        return b"acTL" in content[: content.find(b"IDAT")]
    if content.startswith(_TIFF):
        return _tiff_has_pages(content)
    return content[8:16] == b"WEBPVP8X" and bool(content[20] & 0x02)


def _tiff_has_pages(content: bytes) -> bool:
    """Tells whether a second directory follows that is no reduced version of the first."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        (following,) = struct.unpack_from(f"{order}I", content, start + 2 + 12 * count)
        return bool(following) and _tiff_fields(content, following).get(254, (0,))[0] & 1 == 0
    except struct.error:
        return False


def declared_size(content: bytes) -> tuple[int, int] | None:
    """Returns the size that a file declares whose few bytes may unpack to more than any memory holds.

    That is PNG, BMP, JPEG and TIFF; Netpbm is not packed and WebP never so large. It is (height, width) px;
    None for other formats and damaged files, which decoders refuse.
    """
    try:
        if content.startswith(_PNG):
            width, height = struct.unpack_from(">II", content, 16)
        elif content.startswith(b"BM"):
            width, height = map(abs, struct.unpack_from("<ii", content, 18))  # upside down: below 0
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


def _tiff_fields(content: bytes, start: int | None = None) -> dict[int, tuple[int, ...]]:
    """Returns the whole numbers in a directory of a TIFF, the first by default, by tag.

    Raises:
        struct.error: If it is cut off.
    """
    order = "<" if content[:2] == b"II" else ">"
    if start is None:
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
