"""Frames in and frames out: every kind of source, videos that are whole however they end."""

import os
import sys
import time

import cv2
import numpy as np
import pytest
from film import FRAMES, read_video

from kp2d import checks, images
from kp2d.live import video


class Camera:
    """Stands in for OpenCV's, and gives frames of all kinds."""

    def __init__(self, reads, fps=15.0):
        self.reads, self.fps, self.released = list(reads), fps, False

    def isOpened(self):  # noqa: N802
        return not self.released

    def get(self, name):
        return self.fps if name == cv2.CAP_PROP_FPS else 0.0

    def set(self, *_):
        return True

    def read(self):
        frame = self.reads.pop(0) if self.reads else None
        if isinstance(frame, type) and issubclass(frame, BaseException):
            raise frame
        return frame is not None, frame

    def release(self):
        self.released = True


def camera(monkeypatch, *reads, **options):
    made = Camera(reads, **options)
    monkeypatch.setattr(video, "_capture", lambda _: made)
    return made


def test_a_camera_may_give_gray_and_transparent_frames_and_fail_now_and_then(monkeypatch):
    color = np.zeros((60, 80, 4), np.uint8)
    color[..., 0] = 200  # blue first
    made = camera(monkeypatch, color[..., 0], None, color, color[..., :3], (color * np.uint16(257))[..., :1])
    with video.open_source("3") as source:
        found = list(source)
    assert [frame.shape for frame in found] == [(60, 80, 3)] * 4
    assert found[1][0, 0].tolist() == [0, 0, 200] and (found[0] == 200).all() and (found[3] == 200).all()
    assert (source.skipped, source.live, source.fps, made.released) == (1, True, 15.0, True)
    assert "camera 3 stopped" in source.trouble


@pytest.mark.parametrize("fps", [0.0, float("nan"), 1000.0])
def test_a_senseless_frame_rate_is_replaced(monkeypatch, fps):
    camera(monkeypatch, np.zeros((60, 80, 3), np.uint8), fps=fps)
    assert video.open_source(0).fps == 30.0


def test_frames_that_are_no_pictures_are_refused():
    with pytest.raises(checks.InputError, match="BGRA"):
        video.as_rgb(np.zeros((5, 5, 2), np.uint8))
    with pytest.raises(checks.InputError, match="float32"):
        video.as_rgb(np.zeros((5, 5, 3), np.float32))


def test_a_folder_is_sorted_as_people_do_and_damaged_pictures_are_left_out(frames, tmp_path):
    for k, name in enumerate(("10.png", "2.png", "1.JPG")):
        images.write_image(tmp_path / name, frames[0][: 50 + k])
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("neither")
    source = video.open_source(tmp_path)
    assert [len(frame) for frame in source] == [52, 51, 50]
    assert (source.skipped, source.live, source.still) == (1, False, False)
    looped = iter(video.open_source(tmp_path, loop=True))
    assert [len(next(looped)) for _ in range(5)] == [52, 51, 50, 52, 51]
    for name in ("10.png", "2.png", "1.JPG"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(checks.InputError, match="4 damaged"):
        list(video.open_source(tmp_path))


def test_a_video_loops_and_its_frames_are_all_there(film):
    with video.open_source(film) as source:
        assert len(list(source)) == FRAMES
        assert (source.fps, source.skipped, source.trouble) == (12.0, 0, "")
    with video.open_source(film, loop=True) as source:
        assert len([frame for frame, _ in zip(source, range(50), strict=False)]) == 50


def test_a_video_may_be_named_as_a_picture(film, tmp_path):
    path = tmp_path / "frame.jpg"
    path.write_bytes(film.read_bytes())
    with video.open_source(path) as source:
        assert len(list(source)) == FRAMES


def test_a_video_that_was_cut_off_gives_what_is_left(film, tmp_path):
    content = film.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with video.open_source(tmp_path / "cut.avi") as source:
        assert 5 < len(list(source)) < 15


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.mp4", None, "which does not exist"),
        ("empty.mp4", b"", "a video that OpenCV can decode"),
        ("noise.avi", b"RIFF" + bytes(5000), "video"),
        ("damaged.png", b"no picture", "damaged.png"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(checks.InputError, match=words) as error:
        list(video.open_source(tmp_path / name))
    assert name in str(error.value)


def test_a_video_without_frames_is_refused(tmp_path, monkeypatch):
    (tmp_path / "none.avi").write_bytes(b"x")
    made = camera(monkeypatch)
    with pytest.raises(checks.InputError, match="a video with frames"):
        video.open_source(tmp_path / "none.avi")
    assert made.released


def test_an_empty_folder_names_the_video_in_it(tmp_path, film):
    with pytest.raises(checks.InputError, match="none in"):
        video.open_source(tmp_path)
    with pytest.raises(checks.InputError, match=r"Name the video itself.*astronaut\.avi"):
        video.open_source(film.parent)


@pytest.mark.parametrize(
    ("target", "words"), [("0", "camera 0"), ("/dev/video77", "video77"), ("rtsp://nobody/x", "stream")]
)
def test_no_camera_says_what_to_do(monkeypatch, target, words):
    made = camera(monkeypatch)
    made.release()
    with pytest.raises(checks.InputError, match=words) as error:
        video.open_source(target)
    assert str(error.value).endswith(".") and "Traceback" not in str(error.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices are files on Linux")
def test_help_with_a_camera_looks_at_the_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(video, "DEVICES", tmp_path)
    assert "no /dev/video" in video._camera_help(0)[0]
    (tmp_path / "video2").touch()
    assert "video2" in video._camera_help(0)[0] and "by its number" in video._camera_help(0)[1]
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "-aG video" in video._camera_help(0)[1]


@pytest.mark.parametrize(("suffix", "odd"), [(".mp4", 0), (".avi", 0), (".webm", 0), (".mp4", 1)])
def test_a_video_is_written_whole(tmp_path, frames, suffix, odd):
    path = tmp_path / "deep" / f"out{suffix}"
    with video.Recorder(path, fps=12.0) as recorder:
        for frame in frames[:5]:
            recorder.write(frame[odd:, odd:])
        assert not path.exists()
        recorder.write(frames[5][:100])  # fitted in
    found, fps = read_video(path)
    assert (len(found), found[0].shape, fps) == (6, (240, 320, 3), 12.0)
    assert found[5][0].max() < 40 and found[5][120].max() > 40  # black above
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_camera_is_recorded_as_fast_as_the_world_goes(tmp_path, frames):
    with video.Recorder(tmp_path / "live.avi", fps=20.0, live=True) as recorder:
        recorder.write(frames[0])
        time.sleep(0.25)
        recorder.write(frames[1])
    assert 5 <= len(read_video(tmp_path / "live.avi")[0]) <= 20


def test_nothing_written_leaves_the_earlier_file_alone(tmp_path):
    (tmp_path / "a.mp4").write_text("earlier")
    video.Recorder(tmp_path / "a.mp4", fps=9.0).close()
    assert (tmp_path / "a.mp4").read_text() == "earlier"


def test_a_video_that_cannot_be_read_again_is_reported(tmp_path, frames, monkeypatch):
    recorder = video.Recorder(tmp_path / "a.avi", fps=9.0)
    recorder.write(frames[0])
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera([]))
    with pytest.raises(checks.RunError, match="disk full"):
        recorder.close()
    assert (tmp_path / "a.avi").exists()


def test_a_missing_codec_names_the_other_suffixes(tmp_path, frames, monkeypatch):
    monkeypatch.setitem(video.CODECS, ".mp4", "ZZZZ")
    with (
        pytest.raises(checks.RunError, match=r"try \.avi, \.webm"),
        video.Recorder(tmp_path / "a.mp4", fps=9.0) as recorder,
    ):
        recorder.write(frames[0])
    assert list(tmp_path.iterdir()) == []
