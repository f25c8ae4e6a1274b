"""Owns the run of the live demonstration over all frames: window, keys, table, and what came out of it."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kp2d import checks, files, images
from kp2d.live.demo import Demo
from kp2d.live.video import Recorder, Source

SUMMARIZED = 50_000  # the last frames that medians and means are over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What came out of a run."""

    frames: int  # how many were shown
    rows: Sequence[Mapping[str, Any]]  # of the last `SUMMARIZED` frames, as they stand in the table

    @property
    def found(self) -> int | None:
        """Frames in which the reference was found; None without one."""
        found = [row["found"] for row in self.rows if row["found"] is not None]
        return sum(found) if found else None

    def line(self) -> str:
        """Returns the summary as one line: median times, mean numbers."""
        if not self.frames:
            return "no frames"
        columns = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        medians = {
            name[:-3]: statistics.median(times) for name, times in columns.items() if name.endswith("_ms")
        }
        fps = 1e3 / medians.pop("total")
        steps = ", ".join(f"{name} {time_ms:.1f}" for name, time_ms in medians.items())
        keypoints, length = (statistics.fmean(columns[name]) for name in ("keypoints", "mean_track_length"))
        found = "" if self.found is None else f", reference found in {self.found}"
        return (
            f"{self.frames} frames, {fps:.1f} FPS ({steps} ms), {keypoints:.0f} keypoints and "
            f"tracks of {length:.1f} frames on average{found}"
        )


def play(
    source: Source,
    demo: Demo,
    *,
    recorder: Recorder | None = None,
    table: Table | None = None,
    window: Window | None = None,
    max_frames: int | None = None,
    snapshots: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> Summary:
    """Shows frames until they end, or a user ends them; an interrupt ends them cleanly.

    Args:
        source: Where frames come from.
        demo: What is made of them.
        recorder: Video to write, closed by the caller.
        table: Numbers to write, closed by the caller.
        window: Where to show them.
        max_frames: After so many it is over.
        snapshots: Saved pictures get their folder and name from it; None names them "kp2d_demo".
        report: Called with a line of progress every two seconds.

    Raises:
        InputError: If no frame can be read.
        RunError: If the video cannot be written.
    """
    rows: collections.deque[dict[str, Any]] = collections.deque(maxlen=SUMMARIZED)
    count, begun, reported = 0, time.perf_counter(), time.perf_counter()
    try:
        for frame in source:
            painted, row = demo.step(frame)
            if recorder is not None:
                recorder.write(painted)
            waited = 0.0
            if window is not None:
                pace = 0.0 if source.live else 1 / source.fps - (time.perf_counter() - begun)
                waited = window.attend(painted, demo, pace, _snapshot(snapshots, count))
            now = time.perf_counter()
            row = {"frame": count, **row, "total_ms": 1e3 * (now - begun - waited)}
            begun = now
            demo.note({key[:-3]: value for key, value in row.items() if key.endswith("_ms")})
            rows.append(row)
            count += 1
            if table is not None:
                table.write(row)
            if report is not None and now - reported > 2:
                reported = now
                report(f"frame {count}: {1e3 / row['total_ms']:.0f} FPS, {row['keypoints']} keypoints")
            if count == max_frames or (window is not None and window.closed):
                break
        else:
            if window is not None and source.still and rows:
                window.hold(demo, _snapshot(snapshots, count - 1))
    except KeyboardInterrupt:
        pass  # how a camera's run ends
    return Summary(frames=count, rows=rows)


class Table(contextlib.AbstractContextManager):
    """Writes rows to a CSV file, which takes its name when it is closed."""

    def __init__(self, path: str | Path) -> None:
        """Names the table, a `.csv`; it is opened by the first row, whose keys become its columns.

        Raises:
            InputError: If the suffix is another, or the folder cannot be written.
        """
        self.path = Path(path).expanduser()
        checks.one_of("table suffix", self.path.suffix.lower(), [".csv"])
        files.check_writable(self.path)
        self._open_files = contextlib.ExitStack()
        self._writer: csv.DictWriter | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row of values by column, the same columns every time; floats are kept to three decimals."""
        if self._writer is None:
            partial = self._open_files.enter_context(files.atomic(self.path))
            file = self._open_files.enter_context(partial.open("w", encoding="utf-8", newline=""))
            self._writer = csv.DictWriter(file, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow({key: _plain(value) for key, value in row.items()})

    def close(self) -> None:
        """Finishes the file; without a row there is none, and an earlier one stays."""
        self._open_files.close()


class Window(contextlib.AbstractContextManager):
    """A window of OpenCV and the keys pressed in it.

    Attributes:
        closed: Whether the user is done.
    """

    TITLE = "kp2d demo"

    def __init__(self) -> None:
        """Opens it; see `can_show`."""
        self.closed = False
        cv2.namedWindow(self.TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._sized = False

    def __exit__(self, *_: object) -> None:
        cv2.destroyAllWindows()

    def attend(self, painted: np.ndarray, demo: Demo, pace: float, snapshot: Path) -> float:
        """Shows a painted frame, uint8 RGB, and answers keys, which act upon the demo; stays while paused.

        The frame should stay for `pace` seconds; a picture would be saved as `snapshot`. Returns the seconds
        that were spent waiting.
        """
        self._show(painted)
        started = time.perf_counter()
        key = self._key(max(1, round(1e3 * pace)))
        if self._answer(key, demo, snapshot) == " ":
            demo.say("paused")
            self.hold(demo, snapshot)
            demo.say("")
        return time.perf_counter() - started

    def hold(self, demo: Demo, snapshot: Path) -> None:
        """Stands still and answers keys until the space bar or the end."""
        while not self.closed:
            self._show(demo.repaint())
            if self._answer(self._key(50), demo, snapshot) == " ":
                return

    def _answer(self, key: str, demo: Demo, snapshot: Path) -> str:
        """Does what a key means, or notices that the window was closed; returns the key."""
        if key in ("q", "\x1b") or cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self.closed = True
        elif key == "s":
            try:
                demo.say(f"saved {images.write_image(snapshot, demo.repaint()).name}")
            except checks.InputError:
                demo.say(f"cannot write {snapshot.name} here")
        else:
            demo.press(key)
        return key

    def _key(self, wait_ms: int) -> str:
        code = cv2.waitKey(wait_ms)
        return chr(code & 0xFF).lower() if code >= 0 else ""

    def _show(self, painted: np.ndarray) -> None:
        if not self._sized:
            height, width = painted.shape[:2]
            scale = min(1.0, 1280 / width, 800 / height)
            cv2.resizeWindow(self.TITLE, round(width * scale), round(height * scale))
            self._sized = True
        cv2.imshow(self.TITLE, cv2.cvtColor(painted, cv2.COLOR_RGB2BGR))


def can_show() -> bool:
    """Tells whether a window can be opened here; some builds of OpenCV end the process when they cannot."""
    if sys.platform.startswith("linux") and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
        return False
    code = "import cv2; cv2.namedWindow('kp2d'); cv2.waitKey(1)"
    try:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _snapshot(base: Path | None, frame: int) -> Path:
    """Returns where a picture of a frame would be saved: beside `base`, with the frame's number."""
    base = base or Path("kp2d_demo")
    return base.with_name(f"{base.stem}_{frame:05d}.png")


def _plain(value: Any) -> Any:
    """Returns a value as it stands in the table."""
    if isinstance(value, float):
        return round(value, 3)
    return "" if value is None else int(value) if isinstance(value, bool) else value
