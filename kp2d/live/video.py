"""Owns frames in and frames out: reads cameras, videos, streams and pictures; writes videos."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from kp2d import backend, checks, files, images, picture_files

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}  # of the videos that are written
FOLDER_FPS = 10.0
DEVICES = Path("/dev")
MAX_MISSES, MAX_LIVE_MISSES = 30, 3  # reads in a row that may fail; a camera takes seconds over each


class Source(contextlib.AbstractContextManager):
    """Frames, one after the other; a context manager that lets go of the camera or file.

    Attributes:
        name: What is shown: "camera 0", or the name of the file or folder.
        live: Whether time goes on without us, as for a camera.
        still: Whether it is one picture.
        fps: Frames a second that it was made for.
        skipped: Frames that could not be read, so far.
        trouble: Why it ended early; empty if it did not.
    """

    name: str = ""
    live: bool = False
    still: bool = False
    fps: float = FOLDER_FPS
    skipped: int = 0
    trouble: str = ""

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields uint8 RGB frames `[H, W, 3]`; their size may change."""
        return iter(())

    def close(self) -> None:
        """Lets go of the camera or file; may be called twice."""


class PictureSource(Source):
    """Pictures out of files, those that cannot be read left out."""

    def __init__(self, name: str, paths: list[Path], *, loop: bool = False) -> None:
        """Takes the files, in order; with `loop` they begin again at the end."""
        self.name, self.still = name, len(paths) == 1
        self._paths, self._loop = paths, loop

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the pictures, those larger than 4K reduced.

        Raises:
            InputError: If none can be read.
        """
        for turn in itertools.count():
            readable = 0
            for path in self._paths:
                try:
                    image = images.read_image(path)
                except checks.InputError as error:
                    if self.still:
                        raise
                    checks.left_out(str(error))
                    self.skipped += turn == 0
                    continue
                readable += 1
                yield images.bounded(image)
            if not readable:
                damaged = f"{len(self._paths)} damaged in {self.name}"
                raise checks.problem("pictures that can be read", damaged)
            if not self._loop:
                return


class VideoSource(Source):
    """A camera, a video file or a stream, read by OpenCV."""

    def __init__(self, target: int | str, name: str, *, live: bool = False, loop: bool = False) -> None:
        """Opens a camera (by its number), file or stream, and reads the first frame.

        `live` tells of a camera or stream; with `loop` a file begins again at its end.

        Raises:
            InputError: If it cannot be opened or gives no frame.
        """
        self.name, self.live, self._target, self._loop = name, live, target, loop and not live
        self._capture = _capture(target)
        if not self._capture.isOpened():
            raise self._unopened()
        if live:
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one from the queue
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 1 <= fps <= 240 else 30.0
        self._count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._first = self._read()
        if self._first is None:
            self.close()
            if live:
                raise self._unopened()
            received = f"{name} without any that can be read"
            raise checks.problem("a video with frames", received, "Record or convert it again.")

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the frames."""
        frame, seen, turn = self._first, 0, 0
        while True:
            while frame is not None:
                seen += 1
                yield as_rgb(frame)
                frame = self._read()
            if not self._loop:
                break
            turn += 1
            self._capture.release()
            self._capture = _capture(self._target)
            frame = self._read()
            if frame is None:
                break
        if self.live:
            self.trouble = f"{self.name} stopped giving frames"
        elif turn == 0 and seen + self.skipped < 0.9 * self._count:  # the count is often a guess
            self.trouble = f"{self.name} ends after {seen} of {self._count} frames"

    def close(self) -> None:
        """See `Source.close`."""
        self._capture.release()

    def _read(self) -> np.ndarray | None:
        """Returns the next frame that can be read, or None at the end."""
        for misses in range(MAX_LIVE_MISSES if self.live else MAX_MISSES):
            try:
                good, frame = self._capture.read()
            except cv2.error:
                good, frame = False, None
            if good and frame is not None and frame.size:
                self.skipped += misses  # what fails at the end of a file was no frame
                return frame
            if not self._capture.isOpened():
                break
        return None

    def _unopened(self) -> checks.InputError:
        """Returns the error that says what could not be opened and what to do."""
        if not self.live:
            remedy = "Convert it, for example to .mp4 with H.264."
            return checks.problem("a video that OpenCV can decode", self.name, remedy)
        if isinstance(self._target, str) and "://" in self._target:
            remedy = "Check address and network; the same address must open in a player such as VLC."
            return checks.problem("a stream that can be opened", self.name, remedy)
        return checks.problem("a camera that can be opened", *_camera_help(self._target))


def open_source(source: str | int, *, loop: bool = False) -> Source:
    """Opens what a user named.

    It is the number of a camera ("0"), a device ("/dev/video0"), the address of a stream ("http://…",
    "rtsp://…"), or the path of a video, of a picture, or of a folder of pictures; files may loop.

    Raises:
        InputError: If it does not exist or cannot be opened; the message says what to do.
    """
    text = str(source)
    if text.isdigit():
        return VideoSource(int(text), f"camera {int(text)}", live=True)
    if re.match(r"[a-z]+://", text) or text.startswith("/dev/video"):
        return VideoSource(text, text, live=True)
    path = Path(text).expanduser()
    if path.is_dir():
        return PictureSource(path.name or text, _pictures(path), loop=loop)
    if not path.is_file():
        raise checks.problem(
            "the number of a camera, or an existing video, picture or folder of pictures",
            f"{text}, which does not exist",
            "Check the name.",
        )
    if path.suffix.lower() in images.SUFFIXES and not _is_video(path):
        return PictureSource(path.name, [path], loop=loop)
    return VideoSource(str(path), path.name, loop=loop)


def _is_video(path: Path) -> bool:
    """Tells whether a file is a video by its content, whatever it is named."""
    try:
        with path.open("rb") as file:
            return picture_files.kind(file.read(2048))[0] == "a video"
    except OSError:  # whoever reads it says why
        return False


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """Turns what a camera or video gives into uint8 RGB `[H, W, 3]`.

    It is uint8 or uint16 `[H, W]`, `[H, W, 1]`, `[H, W, 3]` BGR or `[H, W, 4]` BGRA, whose alpha is dropped.

    Raises:
        InputError: If it has another type or shape.
    """
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    channels = frame.shape[2] if frame.ndim == 3 else 1
    if frame.ndim not in (2, 3) or channels not in codes or frame.dtype not in (np.uint8, np.uint16):
        received = f"{frame.dtype} {list(frame.shape)}"
        raise checks.problem("frames of 8 or 16 bits, gray, BGR or BGRA", received, "Convert the video.")
    if frame.dtype == np.uint16:
        frame = (frame >> 8).astype(np.uint8)
    return cv2.cvtColor(frame, codes[channels])


def fitted(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Brings a picture to a (height, width) px without distorting it: scaled, in the middle, black around it.

    Both are uint8 RGB `[H, W, 3]`; it is the same array if it has the size.
    """
    height, width = image_size
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_size = [max(images.MIN_SIDE, round(side * scale)) for side in image.shape[:2]]
    scaled = images.resize_image(image, tuple(inner_size))[:height, :width]
    down, across = height - scaled.shape[0], width - scaled.shape[1]
    top, left = down // 2, across // 2
    return cv2.copyMakeBorder(scaled, top, down - top, left, across - left, cv2.BORDER_CONSTANT)


def check_video(path: str | Path) -> Path:
    """Checks, before the work, that a video can be written, and returns its path.

    Raises:
        InputError: If the suffix is none of `CODECS`, or the folder cannot be written.
    """
    path = Path(path).expanduser()
    checks.one_of("video suffix", path.suffix.lower(), CODECS)
    files.check_writable(path)
    return path


class Recorder(contextlib.AbstractContextManager):
    """Writes frames to a video; the file takes its name when it is closed, so that it always plays."""

    def __init__(self, path: Path, *, fps: float, live: bool = False) -> None:
        """Names the video, from `check_video`; it is opened by the first frame, whose size it takes.

        Of a live source, as a camera, frames come when they come: each is repeated until the next, so that
        the video runs as fast as the world did.
        """
        self.path = path
        self.frames = 0
        self._fps, self._live = fps, live
        self._writer: cv2.VideoWriter | None = None
        self._partial = self.path  # until it is opened
        self._finish = contextlib.ExitStack()
        self._size = (0, 0)
        self._started = 0.0

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, image: np.ndarray) -> None:
        """Adds a frame, uint8 RGB `[H, W, 3]`; of another size than the first, it is fitted into that.

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
            plays = capture.isOpened() and capture.read()[0]
            capture.release()
        self._finish.close()
        if not plays:
            raise checks.RunError(f"{self.path} was not written completely; is the disk full?")

    def _open(self, image_size: tuple[int, int]) -> None:
        """Begins a video under a temporary name, for frames of a (height, width) px."""
        # Codecs share colours among two pixels: an odd last row or column would be lost without a word.
        self._size = tuple(side + side % 2 for side in image_size)
        codec = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
        with contextlib.ExitStack() as stack:
            self._partial = stack.enter_context(files.atomic(self.path))
            with backend.no_stderr():
                writer = cv2.VideoWriter(str(self._partial), codec, self._fps, self._size[::-1])
            if not writer.isOpened():
                others = ", ".join(suffix for suffix in CODECS if suffix != self.path.suffix.lower())
                raise checks.RunError(f"this OpenCV cannot write {self.path.suffix} videos; try {others}")
            self._finish = stack.pop_all()
        self._writer, self._started = writer, time.perf_counter()


def _natural(path: Path) -> list[tuple[int, str]]:
    """Returns a key that sorts names as people do: "2.png" before "10.png"."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in parts]


def _pictures(folder: Path) -> list[Path]:
    """Returns the pictures in a folder in the order of their names, "2.png" before "10.png"."""
    pictures = images.find_pictures(folder, below=False)
    if not pictures:
        videos = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        remedy = f"Name the video itself, as {folder / videos[0]}." if videos else "Name another folder."
        raise checks.problem(f"pictures ({', '.join(images.SUFFIXES)})", f"none in {folder}", remedy)
    return sorted(pictures, key=_natural)


def _capture(target: int | str) -> cv2.VideoCapture:
    with backend.no_stderr():  # our own error says more than those of the libraries below
        return cv2.VideoCapture(target)


def _camera_help(target: int | str) -> tuple[str, str]:
    """Returns what was received instead of a camera, and what to do about it."""
    name = f"camera {target}" if isinstance(target, int) else target
    if not sys.platform.startswith("linux"):
        return name, "Allow this terminal to use the camera, close other programs that do, or name a video."
    devices = sorted(DEVICES.glob("video*"), key=_natural)
    if not devices:
        return (
            f"{name}, and there is no /dev/video*",
            "Connect a camera, or name a video, a folder of pictures or the address of a stream; a Raspberry "
            "Pi's own camera needs `libcamerify kp2d demo`.",
        )
    listed = f"{name}; there are {', '.join(map(str, devices))}"
    if not any(os.access(device, os.R_OK | os.W_OK) for device in devices):
        return listed, "Join the group that may use them: sudo usermod -aG video $USER, then log in again."
    remedy = (
        "Name one of these by its number, close other programs that use it, or try `libcamerify kp2d demo`."
    )
    return listed, remedy
