"""Owns where frames come from: a camera, a video, a stream, a folder of pictures or one picture."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from kp2d import backend, checks, images

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
FOLDER_FPS = 10.0
DEVICES = Path("/dev")
MAX_MISSES, MAX_LIVE_MISSES = 30, 3  # reads in a row that may fail; a camera takes seconds over each


class Source:
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

    def __enter__(self) -> Source:
        return self

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
        """Takes the files.

        Args:
            name: Of the whole.
            paths: The pictures, in order.
            loop: Whether to begin again at the end.
        """
        self.name, self.still = name, len(paths) == 1
        self._paths, self._loop = paths, loop

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the pictures.

        Raises:
            InputError: If none can be read.
        """
        for turn in itertools.count():
            found = 0
            for path in self._paths:
                try:
                    image = images.read_image(path)
                except checks.InputError:
                    if self.still:
                        raise
                    self.skipped += turn == 0
                    continue
                found += 1
                yield image
            if not found:
                raise checks.problem(
                    "pictures that can be read", f"{len(self._paths)} damaged in {self.name}"
                )
            if not self._loop:
                return


class VideoSource(Source):
    """A camera, a video file or a stream, read by OpenCV."""

    def __init__(self, target: int | str, name: str, *, live: bool = False, loop: bool = False) -> None:
        """Opens it and reads the first frame.

        Args:
            target: Number of a camera, path of a file, or address of a stream.
            name: What it is called.
            live: Whether it is a camera or stream.
            loop: Whether a file begins again at its end.

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
            raise (
                self._unopened()
                if live
                else checks.problem(
                    "a video with frames",
                    f"{name} without any that can be read",
                    "Record or convert it again.",
                )
            )

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
        """Says what could not be opened and what to do."""
        if not self.live:
            return checks.problem(
                "a video that OpenCV can decode", self.name, "Convert it, for example to .mp4 with H.264."
            )
        if isinstance(self._target, str) and "://" in self._target:
            remedy = "Check address and network; the same address must open in a player such as VLC."
            return checks.problem("a stream that can be opened", self.name, remedy)
        return checks.problem("a camera that can be opened", *_camera_help(self._target))


def open_source(source: str | int, *, loop: bool = False) -> Source:
    """Opens what a user named.

    Args:
        source: Number of a camera ("0"), device ("/dev/video0"), address of a stream ("http://…",
            "rtsp://…"), or path of a video, of a picture, or of a folder of pictures.
        loop: Whether files begin again at the end.

    Returns:
        The source.

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
    if path.suffix.lower() in images.SUFFIXES:
        return PictureSource(path.name, [path], loop=loop)
    return VideoSource(str(path), path.name, loop=loop)


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """Turns what a camera or video gives into RGB.

    Args:
        frame: uint8 or uint16 `[H, W]`, `[H, W, 1]`, `[H, W, 3]` BGR or `[H, W, 4]` BGRA, whose alpha is
            dropped.

    Returns:
        uint8 `[H, W, 3]` RGB.

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


def natural(text: str) -> list[tuple[int, str]]:
    """Returns a key that sorts names as people do: "2.png" before "10.png"."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", text)]


def _pictures(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() in images.SUFFIXES and path.is_file()]
    if not found:
        videos = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        remedy = f"Name the video itself, as {folder / videos[0]}." if videos else "Name another folder."
        raise checks.problem(f"pictures ({', '.join(images.SUFFIXES)})", f"none in {folder}", remedy)
    return sorted(found, key=lambda path: natural(path.name))


def _capture(target: int | str) -> cv2.VideoCapture:
    with backend.no_stderr():  # our own error says more than those of the libraries below
        return cv2.VideoCapture(target)


def _camera_help(target: int | str) -> tuple[str, str]:
    """Returns what was received instead of a camera, and what to do about it."""
    name = f"camera {target}" if isinstance(target, int) else target
    if not sys.platform.startswith("linux"):
        return name, "Allow this terminal to use the camera, close other programs that do, or name a video."
    devices = sorted(DEVICES.glob("video*"), key=lambda path: natural(path.name))
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
