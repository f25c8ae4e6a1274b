"""Owns reading, writing and resizing pictures: files on one side, uint8 RGB arrays on the other."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from kp2d import backend, checks, files, picture_files

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".ppm", ".pgm", ".pbm", ".pnm", ".png", ".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".tif", ".tiff", ".bmp", ".webp"),
)
_UNREAD = (  # of photographs and pictures that are found beside others and not read
    *(".heic", ".heif", ".avif", ".gif", ".jxl", ".jp2", ".psd", ".exr", ".hdr", ".tga", ".ico"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
WRITABLE_SUFFIXES = (".png", ".ppm", ".jpg", ".jpeg")
MIN_SIDE = 8  # px; the largest cell of our networks
MAX_PIXELS = 200_000_000  # of a picture: the largest cameras make as many
MAX_WHOLE = 3840 * 2160  # of a picture that is painted on, or of which floats are made: a frame in 4K
MAX_SIDE = 8192  # px of such a picture
_STRIP = 1 << 22  # pixels whose values are changed at once: a giant's would need gigabytes

# With these flags gray is repeated, alpha dropped without blending, EXIF orientation applied.
_DECODE_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_GRAY_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
_ASCII = (b"P1", b"P2", b"P3")
_WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits, in types that hold more
_FLOAT_WHITES = (1.0, 255.0, 65535.0)
_REPLACE = "Replace the file by a complete picture, or remove it."

# Some versions of OpenCV 4 (4.8 is one) have these at the top, OpenCV 5 in a module of their own.
_log = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
_quiet_opencv = backend.QuietOpenCV(_log)
_giant_lock = threading.Lock()  # one a process is unpacked at a time


def find_pictures(folder: Path, *, below: bool = True) -> list[Path]:
    """Lists the pictures in a folder and all folders below it, linked ones too, sorted; logs the rest.

    A folder counts once, by its own name rather than by that of a link to it; a link to a folder that holds
    the link is a circle and not followed. Hidden files and folders are left out: `._NAME.jpg` beside each
    picture is left in archives by some systems, and no picture at all. `below=False` searches the folder
    only.
    """
    if below:
        held = sorted(place / name for place, names in _folders_below(folder) for name in names)
    else:
        held = sorted(folder.iterdir())
        aside = [path.name for path in held if path.is_dir() and any(map(is_picture, _children(path)))]
        if aside:
            checks.left_out(f"pictures in folders of {folder}, which are not searched: {checks.some(aside)}")
    tell_unread(held, folder)
    return [path for path in held if is_picture(path)]


def tell_unread(paths: Iterable[Path], where: str | os.PathLike) -> None:
    """Logs how many photographs are among some files that are not read: of other kinds, and broken links."""
    paths = list(paths)
    broken = [path.name for path in paths if path.suffix.lower() in SUFFIXES and _is_broken_link(path)]
    if broken:
        told = f"{len(broken)} links of {where} to pictures that are not there ({checks.some(broken)})"
        checks.left_out(f"{told}; fetch them, as with git annex get")
    kinds = Counter(path.suffix.lower() for path in paths if not path.name.startswith("."))
    if unread := [f"{kinds[suffix]} {suffix}" for suffix in _UNREAD if kinds[suffix]]:
        told = f"files of {where} of kinds that are not read ({checks.some(unread)})"
        checks.left_out(f"{told}; convert them to PNG or JPEG")


def _is_broken_link(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_symlink() and not path.exists()


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # one that may not be read
        return []


def is_picture(path: Path) -> bool:
    """Tells whether a path is a file that is named as a picture, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folders_below(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields each folder once with the names of its files: first what is not behind a link."""
    seen, linked = set(), [folder]
    for start in linked:  # grows
        for place, below, names in os.walk(start, onerror=_left_out):
            path = Path(place)
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            below[:] = sorted(name for name in below if not name.startswith("."))
            links = [path / name for name in below if (path / name).is_symlink()]
            linked += [link for link in links if not path.resolve().is_relative_to(link.resolve())]
            yield path, names


def _left_out(error: OSError) -> None:
    log.warning("left out: the folder %s (%s)", error.filename, error.strerror)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture of any common format as RGB.

    Gray is repeated in three channels; an alpha channel is dropped without blending, but what is wholly
    transparent becomes white; 16 bits become 8 by rounding `value / 257`, which maps 65535 to 255; an EXIF
    orientation is applied, so that the array is what a viewer shows. Keypoints and homographies refer to that
    upright picture. Where white is another value than the type's largest (12 bits in 16, floats), where a
    JPEG lacks its end mark, and of an animation, the plain meaning is taken and noted in the log.

    Args:
        path: A file; the content decides the format, not the suffix.

    Returns:
        uint8 `[H, W, 3]` RGB, at least 8x8 px.

    Raises:
        InputError: If the file is missing, a folder, empty, unreadable, not a picture (the message says what
            it is), cut off, of values without a known white, smaller than 8x8 px or larger than `MAX_PIXELS`;
            the message names the path.
    """
    path = Path(path)
    content = _read_bytes(path)
    size = picture_files.declared_size(content)
    _refuse_giant(size, path)  # before it is unpacked
    giant = size is not None and size[0] * size[1] > MAX_WHOLE
    with _giant_lock if giant else contextlib.nullcontext():
        return _unpacked(content, path)


def _unpacked(content: bytes, path: Path) -> np.ndarray:
    """Returns the picture of a file of a known content; see `read_image`."""
    cut_off = picture_files.is_cut_off(content)
    if cut_off and picture_files.may_lack_its_end_only(content):
        image = _without_end(content, path)
        cut_off = image is None
        if not cut_off:
            checks.assumed(f"{path} is whole although it lacks a JPEG's end mark")
    else:
        image = _decode(content, path)
    if cut_off:
        raise checks.problem("a complete picture", f"{path}, which is cut off", _REPLACE)
    if image is None:
        raise _unreadable(content, path)
    _refuse_giant(image.shape[:2], path)
    if min(image.shape[:2]) < MIN_SIDE:
        size = f"{image.shape[0]}x{image.shape[1]} px in {path}"
        raise checks.problem(f"an image of at least {MIN_SIDE}x{MIN_SIDE} px", size, _REPLACE)
    image = _to_uint8(image, path, picture_files.netpbm_maximum(content))  # OpenCV turns no other type
    for strip in _strips(image):
        cv2.cvtColor(strip, cv2.COLOR_BGR2RGB, dst=strip)
    if picture_files.may_be_transparent(content):
        image = _on_white(image, content, path)
    if picture_files.is_animated(content):
        checks.assumed(f"of the pictures in {path} the first is meant")
    return image


def write_image(path: str | os.PathLike, image: np.ndarray) -> Path:
    """Writes uint8 RGB `[H, W, 3]` under a temporary name and renames it, so that no reader sees half a file.

    The suffix chooses PNG, PPM or JPEG (quality 95). Missing folders are made. Returns the path.

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
    """Resizes uint8 RGB `[H, W, 3]` to (height, width) px: area average to smaller, bilinear to larger.

    Convention: pixel centres are respected, so x becomes `(x + 0.5) * scale - 0.5`; the same size
    returns the same array.

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


def bounded_size(own_size: tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) of at most `MAX_WHOLE` pixels and `MAX_SIDE` a side, hardly distorted."""
    scale = min(1.0, (MAX_WHOLE / (own_size[0] * own_size[1])) ** 0.5, MAX_SIDE / max(own_size))
    height, width = (max(MIN_SIDE, int(side * scale)) for side in own_size)
    return height, width


def bounded(image: np.ndarray) -> np.ndarray:
    """Returns a picture, uint8 `[H, W, 3]` RGB, or what remains of a larger one at `bounded_size`."""
    return resize_image(image, size) if (size := bounded_size(image.shape[:2])) != image.shape[:2] else image


def _strips(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yields views of rows from the top to the bottom of an array `[H, W, C]`."""
    rows = max(1, _STRIP // image.shape[1])
    for top in range(0, len(image), rows):
        yield image[top : top + rows]


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


def _decode(content: bytes, path: Path, flags: int = _DECODE_FLAGS) -> np.ndarray | None:
    """Returns what OpenCV makes of a file, BGR; None if it is no picture to OpenCV."""
    if content[:2] in _ASCII and content[-1:].isdigit():
        content += b"\n"  # without which OpenCV does not see the last number
    content = picture_files.unblended(picture_files.plain_netpbm(content))
    if not content:
        return None
    try:
        with _quiet_opencv(path):
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
            if image is None and flags == _DECODE_FLAGS:  # of gray floats it makes no colours
                image = cv2.imdecode(np.frombuffer(content, np.uint8), _GRAY_FLAGS)
    except cv2.error as error:  # for example more pixels than OpenCV accepts
        setting = re.search(r"CV_IO_MAX_IMAGE_[A-Z]+", error.err)
        remedy = f"Unset OPEN{setting[0]}, a variable of the environment." if setting else _REPLACE
        raise checks.problem("a readable picture", f"{path} ({error.err})", remedy) from None
    if image is not None and image.ndim == 2 and flags == _DECODE_FLAGS:
        image = np.repeat(image[..., None], 3, axis=2)
    return image


def _without_end(content: bytes, path: Path) -> np.ndarray | None:
    """Returns the picture of a JPEG that lacks its end mark; None if pixels are missing as well.

    Missing pixels are decoded out of whatever follows; those of a whole picture do not depend on it.
    """
    first = None
    with _quiet_opencv(path):
        for filling in (b"\x00", b"\x55", b"\xaa"):
            padded = content + 64 * filling + b"\xff\xd9"
            picture = cv2.imdecode(np.frombuffer(padded, np.uint8), _DECODE_FLAGS)
            if picture is None or not np.array_equal(picture, picture if first is None else first):
                return None
            first = picture
    return first


def _unreadable(content: bytes, path: Path) -> checks.InputError:
    """Returns the error that says what a file is that OpenCV cannot decode."""
    kind, remedy = picture_files.kind(content)
    if kind:
        return checks.problem("a picture that OpenCV can read", f"{path}, {kind}", remedy)
    size = f"{path} ({len(content)} bytes)"
    return checks.problem("a picture, neither damaged nor cut off", size, _REPLACE)


def _to_uint8(image: np.ndarray, path: Path, declared: int | None = None) -> np.ndarray:
    """Returns 8-bit values `[H, W, 3]` of any type's, to the nearest integer; messages name the path.

    `declared` is the value of white, where the file says it; None leaves it to the type and the values.

    Raises:
        InputError: If it cannot be told which value is white.
    """
    ascii_scaled = image.dtype == np.uint8 and declared is not None and image.max() > declared  # by OpenCV
    white = declared if declared and not ascii_scaled else None
    if white is None:
        white = 255 if image.dtype == np.uint8 else _white(image, path)
    if white == 255 and image.dtype == np.uint8:
        return image
    scaled = np.empty(image.shape, np.uint8)
    for strip, target in zip(_strips(image), _strips(scaled), strict=True):
        if white == 65535 and image.dtype == np.uint16:
            target[:] = (strip.astype(np.uint32) + 128) // 257
        else:
            values = strip if white == 255 else strip * np.float64(255 / white)
            target[:] = np.clip(np.rint(values), 0, 255)
    return scaled


def _white(image: np.ndarray, path: Path) -> float:
    """Returns the value that is meant by white in a picture of more than 8 bits or of floats."""
    finite = np.isfinite(image).all()
    low, high = (float(image.min()), float(image.max())) if finite else (np.nan, np.nan)
    if image.dtype == np.uint16 and (high > _WHITES[-2] or high == 0):
        return 65535
    whites = _WHITES if image.dtype.kind in "iu" else _FLOAT_WHITES
    # Floats between these, as 7 or 1000, may be of any unit.
    fits = [white for white in whites if white / 8 < high <= white] or [w for w in whites if high == 0]
    if image.dtype.kind in "iu":
        fits = [white for white in whites if high <= white]
    if not finite or low < 0 or not fits:
        values = (
            f"{image.dtype} values from {low:.6g} to {high:.6g} in {path}"
            if finite
            else (f"{image.dtype} values in {path}, some of them NaN or infinite")
        )
        raise checks.problem("a picture of 8 or 16 bits a channel", values, "Scale it to 8 bits, as PNG.")
    checks.assumed(f"white is {fits[0]:g} in {path} ({image.dtype}, values up to {high:.6g})")
    return fits[0]


def _on_white(image: np.ndarray, content: bytes, path: Path) -> np.ndarray:
    """Returns a picture whose wholly transparent parts are white, as viewers show them."""
    layers = _decode(content, path, cv2.IMREAD_UNCHANGED)
    if layers is None or layers.ndim != 3 or layers.shape[2] != 4 or layers.shape[:2] != image.shape[:2]:
        return image
    hidden = layers[..., 3] == 0
    share = hidden.mean()
    if share in (0, 1):  # all of it: transparency was not meant
        return image
    checks.assumed(f"white is behind the transparent {max(share, 0.01):.0%} of {path}")
    image[hidden] = 255
    return image


def _refuse_giant(image_size: tuple[int, int] | None, path: Path) -> None:
    if image_size is not None and image_size[0] * image_size[1] > MAX_PIXELS:
        declared = f"{image_size[0]}x{image_size[1]} px in {path}"
        raise checks.problem(
            f"a picture of at most {MAX_PIXELS:,} pixels", declared, "Make it smaller first."
        )
