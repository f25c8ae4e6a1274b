"""Owns the wording of errors and the shape checks at public boundaries."""

from __future__ import annotations

import difflib
import errno
import logging
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MAX_ASSUMED = 20  # messages a process: a folder may hold thousands of one kind

_WANT_OF_MEMORY = re.compile(
    "out of memory|resource ?exhausted|bad_alloc|insufficient memory|not enough memory|cannot allocate memory"
    "|(failed|unable|error|cannot|can't|could not) (to )?(allocat|reserv)|can't start new thread"
    "|failed to map segment|failed to create thread",
    re.IGNORECASE,
)
log = logging.getLogger(__name__)
_assumed: set[str] = set()
_left_out: set[str] = set()


class InputError(ValueError):
    """Something a user gave cannot be used; the message says what, and what to do about it.

    Attributes:
        expected: What should have been there; "" if the message is free text.
        received: What was there instead.
        remedy: What to do, or "".
    """

    def __init__(self, message: str, *, expected: str = "", received: str = "", remedy: str = ""):
        super().__init__(message)  # alone, so that errors travel between processes
        self.expected, self.received, self.remedy = expected, received, remedy

    @property
    def facts(self) -> str:
        """The message without what to do."""
        return str(self).removesuffix(self.remedy).rstrip()


class RunError(RuntimeError):
    """Work that had begun could not be finished; the message says where it stopped and what is kept."""


def problem(expected: str, received: Any, remedy: str = "") -> InputError:
    """Builds an `InputError` in the house form, for the caller to raise.

    Args:
        expected: What should have been there, as a noun phrase ("an image of at least 8x8 px").
        received: What was there instead; a value, a shape or a path.
        remedy: What to do, as an imperative sentence.
    """
    message = f"expected {expected}; received {received}. {remedy}".rstrip()
    return InputError(message, expected=expected, received=str(received), remedy=remedy)


def assumed(what: str) -> None:
    """Logs, once a process, what was taken for granted to read a file that does not follow its format.

    It is a sentence without its end ("white is 4095 in a.tif").
    """
    if what not in _assumed and len(_assumed) <= MAX_ASSUMED:
        _assumed.add(what)
        more = "; further assumptions are not told" if len(_assumed) > MAX_ASSUMED else ""
        log.warning("assumed that %s%s", what, more)


def left_out(what: str) -> None:
    """Logs, once a process, what of a user's data is not used, with where and why.

    It is a noun phrase ("3 files of kinds that are not read in photos").
    """
    if what not in _left_out:
        _left_out.add(what)
        log.warning("left out: %s", what)


def some(names: Sequence[str]) -> str:
    """Returns the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def first_line(error: Exception) -> str:
    """Returns the first line of what an error of a library says, at most 160 characters; else its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def lacks_memory(error: BaseException | None) -> bool:
    """Tells whether an error, or one that it came from, is a want of memory in the words of some library."""
    while error is not None:
        words = f"{type(error).__name__}: {error}"
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if not isinstance(error, InputError) and _WANT_OF_MEMORY.search(words):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_of(kind: str, value: str, choices: Iterable[str], meant: Iterable[str] = ()) -> str:
    """Returns `value` if it is one of `choices`.

    Raises:
        InputError: If it is not; the nearest is named, of the choices and of what else may be `meant`.
    """
    choices = list(choices)
    if value in choices:
        return value
    folded = {str(choice).casefold(): choice for choice in (*choices, *meant)}
    near = difflib.get_close_matches(str(value).strip().casefold(), folded, n=1)
    hint = f"Did you mean '{folded[near[0]]}'?" if near else ""
    article = "an" if kind.startswith(tuple("aeio")) else "a"
    raise problem(f"{article} {kind} out of {', '.join(map(str, choices))}", repr(value), hint)


def is_image(image: np.ndarray, name: str = "image") -> np.ndarray:
    """Checks that `image` is uint8 RGB `[H, W, 3]` and returns it.

    Raises:
        InputError: If its type, rank or number of channels differ.
    """
    if not isinstance(image, np.ndarray):
        raise problem(f"{name} as a NumPy array [H, W, 3]", type(image).__name__)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise problem(
            f"{name} as uint8 RGB [H, W, 3]",
            f"{image.dtype} {list(image.shape)}",
            "Read files with kp2d.images.read_image, which converts gray, RGBA and 16-bit.",
        )
    return image


def is_points(points: np.ndarray, name: str = "keypoints") -> np.ndarray:
    """Checks that `points` are finite `[N, 2]` coordinates (x, y) and returns them as an array.

    Raises:
        InputError: If the shape differs or a coordinate is NaN or infinite.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise problem(f"{name} as [N, 2] points (x, y)", f"shape {list(points.shape)}")
    if not np.isfinite(points).all():
        raise problem(f"finite {name}", "NaN or infinite coordinates")
    return points


def is_homography(matrix: np.ndarray) -> np.ndarray:
    """Checks that `matrix` is a finite, invertible `[3, 3]` and returns it as float64.

    Raises:
        InputError: If the shape differs, a value is not finite, or the matrix has no inverse.
    """
    try:
        matrix = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise problem("homography as 3x3 numbers", repr(matrix)) from None
    if matrix.shape != (3, 3):
        raise problem("homography as a [3, 3] matrix", f"shape {list(matrix.shape)}")
    if not np.isfinite(matrix).all():
        raise problem("a finite homography", "NaN or infinite values")
    # Each row is normalized: translations in pixels make the plain determinant meaningless.
    rows = np.linalg.norm(matrix, axis=1, keepdims=True)
    if (rows == 0).any() or abs(np.linalg.det(matrix / rows)) < 1e-12:
        raise problem("an invertible homography", f"determinant {np.linalg.det(matrix):.3g}")
    return matrix


def is_image_size(size: Iterable[int], name: str = "image_size") -> tuple[int, int]:
    """Checks that `size` is (height, width) in whole pixels, both at least 8, and returns it as a tuple.

    Raises:
        InputError: If it is not.
    """
    try:
        # Text may come from a command line, but a fraction of a pixel is a mistake.
        values = [int(value) if isinstance(value, str) else operator.index(value) for value in size]
        height, width = values if not isinstance(size, str) else ()
    except (TypeError, ValueError):
        raise problem(f"{name} as (height, width)", repr(size), "Write for example (240, 320).") from None
    if max(height, width) > 8192:
        raise problem(f"{name} of at most 8192 px a side", f"{height}x{width}")
    if min(height, width) < 8:
        raise problem(f"{name} of at least 8x8 px", f"{height}x{width}")
    return height, width


def fits_cells(image_size: Iterable[int], cell: int, name: str = "image_size") -> tuple[int, int]:
    """Returns a size (height, width) in px as integers, and refuses one that cells do not tile.

    Args:
        image_size: (height, width) px.
        cell: Cell side, px; 1 takes any size.
        name: Of the setting that gives the size, for the message.

    Raises:
        InputError: If a side is not a positive multiple of the cell with at least 3 cells.
    """
    height, width = (int(side) for side in image_size)
    if (height, width) not in (sizes := fitting_sizes((height, width), cell)):
        raise problem(
            f"sides of at least {3 * cell} px, divisible by the cell {cell}",
            f"{height}x{width}",
            f"Choose {' or '.join(f'`{name}={size}`' for size in sizes)}.",
        )
    return height, width


def fitting_sizes(image_size: tuple[int, int], cell: int) -> list[tuple[int, int]]:
    """Returns the nearest sizes (height, width) that cells tile: a smaller and a larger one, or the size."""
    smaller = tuple(max(3, side // cell) * cell for side in image_size)
    larger = tuple(max(3, -(-side // cell)) * cell for side in image_size)
    return list(dict.fromkeys((smaller, larger)))
