"""The run over all frames: keys, window, files, whatever ends it."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from film import read_video

from kp2d import checks, images
from kp2d.live import demo, player, video


class Frames(video.Source):
    """A source of given frames; an exception among them is raised."""

    def __init__(self, frames, **attributes):
        self.frames = frames
        self.__dict__.update(attributes)

    def __iter__(self):
        for frame in self.frames:
            if not isinstance(frame, np.ndarray):
                raise frame
            yield frame


@pytest.mark.parametrize("error", [KeyboardInterrupt(), checks.RunError("the camera burns")])
def test_however_it_ends_the_video_plays(frames, orb, tmp_path, error):
    path, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    with video.Recorder(path, fps=10.0) as recorder, player.Table(table) as rows:
        try:
            summary = player.play(Frames([*frames[:5], error]), demo.Demo(orb), recorder=recorder, table=rows)
            assert summary.frames == 5 and isinstance(error, KeyboardInterrupt)
        except checks.RunError:
            assert isinstance(error, checks.RunError)
    assert len(read_video(path)[0]) == 5
    assert len(table.read_text().splitlines()) == 6


def test_a_table_takes_its_name_with_the_first_row_and_when_it_is_closed(tmp_path):
    (tmp_path / "a.csv").write_text("earlier")
    player.Table(tmp_path / "a.csv").close()
    with player.Table(tmp_path / "a.csv") as table:
        table.write({"frame": 0, "found": None, "draw_ms": 1.23456})
        assert (tmp_path / "a.csv").read_text() == "earlier"
        table.write({"frame": 1, "found": True, "draw_ms": 2.0})
    assert (tmp_path / "a.csv").read_text() == "frame,found,draw_ms\n0,,1.235\n1,1,2.0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_no_frames_are_summed_up_too(orb):
    assert player.play(Frames([]), demo.Demo(orb)).line() == "no frames"


class Screen:
    """Stands in for OpenCV's windows: shows nothing and presses keys, one a turn."""

    def __init__(self, monkeypatch, keys):
        self.keys, self.shown, self.open = list(keys), [], 1.0
        for name, stand_in in {
            "namedWindow": lambda *_: None,
            "resizeWindow": lambda *_: None,
            "destroyAllWindows": lambda: None,
            "imshow": lambda _, image: self.shown.append(image),
            "waitKey": lambda _: self.press(),
            "getWindowProperty": lambda *_: self.open,
        }.items():
            monkeypatch.setattr(cv2, name, stand_in)

    def press(self):
        key = self.keys.pop(0) if self.keys else "q"
        if key == "close":
            self.open = 0.0
            return -1
        return ord(key) if key else -1


def test_every_key_does_what_the_help_says(monkeypatch, frames, orb, tmp_path):
    keys = ["", "k", "t", "r", "", "h", "s", " ", "k", "", " ", "", "\x1b", "x"]
    screen, shown = Screen(monkeypatch, keys), demo.Demo(orb)
    with player.Window() as window:
        summary = player.play(Frames(frames, live=True), shown, window=window, snapshots=tmp_path / "a.mp4")
    assert summary.frames == 10 and screen.keys == ["x"]  # three keys were pressed while it stood still
    assert shown.shows == {"keypoints": True, "tracks": False, "help": True}
    assert summary.found == 6  # from the frame after r on
    assert [path.name for path in tmp_path.iterdir()] == ["a_00006.png"]
    assert images.read_image(tmp_path / "a_00006.png").shape[0] == 480
    assert screen.shown[5].shape[1] > screen.shown[0].shape[1]


def test_a_closed_window_and_one_picture(monkeypatch, frames, orb, tmp_path):
    Screen(monkeypatch, ["", "", "close"])
    with player.Window() as window:
        assert player.play(Frames(frames, fps=1000.0), demo.Demo(orb), window=window).frames == 3
    screen = Screen(monkeypatch, ["", "h", "h", "q"])
    with player.Window() as window:  # one picture stays until it was looked at
        assert player.play(Frames(frames[:1], still=True), demo.Demo(orb), window=window).frames == 1
    assert len(screen.shown) == 4


def test_a_picture_that_cannot_be_saved_stops_nothing(monkeypatch, frames, orb, tmp_path):
    (tmp_path / "file").touch()
    Screen(monkeypatch, ["s", ""])
    with player.Window() as window:
        summary = player.play(
            Frames(frames[:3]), demo.Demo(orb), window=window, snapshots=tmp_path / "file" / "a.mp4"
        )
    assert summary.frames == 3


def test_without_a_display_there_is_no_window(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform.startswith("linux"):
        assert player.can_show() is False
    monkeypatch.setenv("DISPLAY", ":12345")  # set, but nobody answers
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -6))
    assert player.can_show() is False
