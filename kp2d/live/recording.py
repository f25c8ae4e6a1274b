"""Owns what is kept of a run over frames: the video and the table, both whole whenever it ends."""

from __future__ import annotations

import csv
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kp2d import backend, checks, files, images

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}


def check_video(path: str | Path) -> Path:
    """Checks, before the work, that a video can be written.

    Args:
        path: Where to.

    Returns:
        The path.

    Raises:
        InputError: If the suffix is none of `CODECS`, or the folder cannot be written.
    """
    path = Path(path).expanduser()
    checks.one_of("video suffix", path.suffix.lower(), CODECS)
    files.check_writable(path)
    return path


def fitted(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Brings a picture to a size without distorting it: scaled, in the middle, black around it.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        image_size: (height, width) px.

    Returns:
        uint8 RGB `[height, width, 3]`; the same array if it has the size.
    """
    height, width = image_size
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = [max(images.MIN_SIDE, round(side * scale)) for side in image.shape[:2]]
    small = images.resize_image(image, tuple(inner))[:height, :width]
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    whole = np.zeros((height, width, 3), np.uint8)
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole


class Recorder:
    """Writes frames to a video; the file takes its name when it is closed, so that it always plays."""

    def __init__(self, path: str | Path, *, fps: float, live: bool = False) -> None:
        """Names the video; it is opened by the first frame, whose size it takes.

        Args:
            path: `.mp4`, `.avi` or `.webm`.
            fps: Frames a second.
            live: Whether frames come when they come, as from a camera: each is then repeated until the next,
                so that the video runs as fast as the world did.

        Raises:
            InputError: If the suffix is another, or the folder cannot be written.
        """
        self.path = check_video(path)
        self.frames = 0
        self._partial = self.path.with_name(f".{self.path.stem}-{secrets.token_hex(4)}{self.path.suffix}")
        self._fps, self._live = fps, live
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._started = 0.0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, image: np.ndarray) -> None:
        """Adds a frame.

        Args:
            image: uint8 RGB `[H, W, 3]`; of another size than the first, it is fitted into that.

        Raises:
            RunError: If OpenCV cannot write such a video here.
        """
        if self._writer is None:
            self._open(image.shape[:2])
        frame = cv2.cvtColor(fitted(image, self._size), cv2.COLOR_RGB2BGR)
        due = self.frames + 1
        if self._live:
            due = max(1, round((time.perf_counter() - self._started) * self._fps) + 1)
        while self.frames < due:
            self._writer.write(frame)
            self.frames += 1

    def close(self) -> None:
        """Finishes the file; without a frame there is none, and an earlier one stays.

        Raises:
            RunError: If what was written cannot be read again, as on a full disk.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        with backend.no_stderr():
            capture = cv2.VideoCapture(str(self._partial))
            good = capture.isOpened() and capture.read()[0]
            capture.release()
        self._partial.replace(self.path)
        if not good:
            raise checks.RunError(f"{self.path} was not written completely; is the disk full?")

    def _open(self, image_size: tuple[int, int]) -> None:
        # Codecs share colours among two pixels: an odd last row or column would be lost without a word.
        self._size = tuple(side + side % 2 for side in image_size)
        codec = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
        with backend.no_stderr():
            writer = cv2.VideoWriter(str(self._partial), codec, self._fps, self._size[::-1])
        if not writer.isOpened():
            others = ", ".join(suffix for suffix in CODECS if suffix != self.path.suffix.lower())
            raise checks.RunError(f"this OpenCV cannot write {self.path.suffix} videos; try {others}")
        self._writer, self._started = writer, time.perf_counter()


class Table:
    """Writes rows to a CSV file, which takes its name when it is closed."""

    def __init__(self, path: str | Path) -> None:
        """Names the table; it is opened by the first row, whose keys become its columns.

        Args:
            path: `.csv`.

        Raises:
            InputError: If the suffix is another, or the folder cannot be written.
        """
        self.path = Path(path).expanduser()
        checks.one_of("table suffix", self.path.suffix.lower(), [".csv"])
        files.check_writable(self.path)
        self._partial = self.path.with_name(f".{self.path.stem}-{secrets.token_hex(4)}.csv")
        self._file: Any = None
        self._writer: Any = None

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row.

        Args:
            row: Values by column, the same columns every time.
        """
        if self._file is None:
            self._file = self._partial.open("w", encoding="utf-8", newline="")
            self._writer = csv.DictWriter(self._file, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(row)

    def close(self) -> None:
        """Finishes the file; without a row there is none, and an earlier one stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial.replace(self.path)
