"""The live demonstration: every kind of source, what is found and drawn, what is kept, however it ends."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from kp2d import checks, cli, geometry, images
from kp2d.data import scenes
from kp2d.live import canvas, demo, player, recording, sources
from kp2d.live import cli as demo_cli
from kp2d.methods import extractors
from kp2d.viz import overlay

SIZE, FRAMES = (240, 320), 20
HEAVY = ("tensorflow", "keras", "matplotlib", "pandas", "tqdm", "skimage", "scipy")


def photograph(name="astronaut"):
    (scene,) = [scene for scene in scenes.SCENES if scene.name == name]
    return scenes.photograph(scene)


def to_frame(k):
    """Photograph (512x512) to frame k: a camera that turns, comes nearer and tilts."""
    t = k / FRAMES * np.pi
    angle, zoom = 0.15 * np.sin(t), 0.85 - 0.1 * np.sin(t)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = np.array([159.5, 119.5]) - turn @ [256 + 30 * np.sin(t), 190 + 30 * np.cos(t)]
    matrix[2, 0] = 1e-4 * np.sin(2 * t)
    return matrix


@pytest.fixture(scope="module")
def frames():
    picture = photograph()
    return [
        cv2.warpPerspective(picture, to_frame(k), SIZE[::-1], flags=cv2.INTER_AREA) for k in range(FRAMES)
    ]


@pytest.fixture(scope="module")
def video(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "astronaut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, SIZE[::-1])
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture(scope="module")
def tiny():
    return extractors.create("kp2d_tiny_s", precision="int8")


@pytest.fixture(scope="module")
def orb():
    return extractors.create("orb")


def read_video(path):
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found, capture.get(cv2.CAP_PROP_FPS)


def run(capsys, *arguments):
    code = cli.main(["demo", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# What is found.


def test_tracks_follow_the_true_motion(video, tiny):
    shown, errors, seen = demo.Demo(tiny), {1: [], 5: [], 10: []}, []
    with sources.open_source(video) as source:
        for k, frame in enumerate(source):
            _, row = shown.step(frame)
            places = shown.tracks.trails[:, 0].astype(float)
            seen.append(dict(zip(shown.tracks.ids.tolist(), places, strict=True)))
            for age in errors:
                both = seen[k].keys() & seen[k - age].keys() if k >= age else ()
                for number in both:
                    motion = to_frame(k) @ np.linalg.inv(to_frame(k - age))
                    (there,) = geometry.warp_points(seen[k - age][number][None], motion)
                    errors[age].append(np.hypot(*(there - seen[k][number])))
    assert [np.median(errors[age]) < 1 for age in errors] == [True] * 3
    assert [np.mean(np.array(errors[age]) < 4) > 0.95 for age in errors] == [True] * 3
    assert row["tracks"] > 150 and row["mean_track_length"] > 5


def test_the_reference_is_found_where_it_is(video, tiny):
    picture = photograph()[60:420, 80:440]
    cut = np.array([[1, 0, 80], [0, 1, 60], [0, 0, 1.0]])
    shown, misses = demo.Demo(tiny, reference=picture), []
    with sources.open_source(video) as source:
        for k, frame in enumerate(source):
            shown.step(frame)
            found = shown.scene.match.homography
            truth = to_frame(k) @ cut
            misses.append(np.inf if found is None else geometry.corner_error(found, truth, (360, 360)))
    assert np.median(misses) < 3
    assert np.mean(np.array(misses) < 6) > 0.8


def test_a_reference_that_is_not_there_is_not_found(frames, tiny):
    shown = demo.Demo(tiny, reference=photograph("coffee"))
    painted, row = shown.step(frames[0])
    assert (row["found"], row["inliers"]) == (False, 0)
    assert painted.shape[1] > 640  # it is shown nevertheless


def test_frames_without_anything_break_nothing(frames, tiny):
    shown, blank = demo.Demo(tiny), np.full((*SIZE, 3), 90, np.uint8)
    rows = [shown.step(frame)[1] for frame in (blank, frames[0], blank, frames[1], blank)]
    assert [row["keypoints"] for row in rows] == [0, 300, 0, 300, 0]
    assert rows[3]["tracks"] > 150  # found again behind the blank one
    with pytest.raises(checks.InputError, match="more texture"):
        shown.refer_to(blank)
    shown.press("r")
    assert shown.step(blank)[0].any()


def test_a_frame_of_another_size_is_fitted_into_the_first(frames, orb):
    shown = demo.Demo(orb)
    sizes = [shown.step(frame)[0].shape for frame in (frames[0], frames[1][:100], frames[2][:, :77])]
    assert set(sizes) == {(480, 640, 3)}


def test_a_mirror_turns_the_picture_but_not_what_is_found(frames, orb):
    plain, mirrored = demo.Demo(orb), demo.Demo(orb, demo.Settings(mirror=True))
    for each in (plain, mirrored):
        each.shows.update(keypoints=False, tracks=False)
        for frame in frames[:2]:
            painted, _ = each.step(frame)
        each.painted = painted[100:300]  # where no words are
    np.testing.assert_array_equal(plain.scene.keypoints, mirrored.scene.keypoints)
    np.testing.assert_array_equal(plain.painted[:, ::-1], mirrored.painted)


def test_each_step_is_timed(frames, tiny, orb):
    features, spent = extractors.timed(tiny, frames[0])
    assert list(spent) == ["network", "decode"] and min(spent.values()) > 0
    np.testing.assert_array_equal(features.keypoints, tiny.extract(frames[0]).keypoints)
    assert list(extractors.timed(orb, frames[0])[1]) == ["extract"]


def test_a_method_is_named_by_what_matters(tiny, orb):
    assert (demo.label(tiny), demo.label(orb)) == ("kp2d_tiny_s int8", "orb")
    on_tpu = dataclasses.replace(tiny, runtime="litert+edgetpu")
    assert demo.label(on_tpu) == "kp2d_tiny_s int8 on Edge TPU"


def test_a_method_sees_the_frame_undistorted_unless_told():
    assert demo.seen_size((480, 640), 8) == (240, 320)
    assert demo.seen_size((1080, 1920), 8) == (208, 368)
    assert demo.seen_size((1920, 1080), 1) == (368, 208)


@pytest.mark.parametrize(("size", "words"), [((102, 100), "divisible by the cell"), ((4, 4), "at least 8x8")])
def test_a_size_that_does_not_fit_is_refused(tiny, size, words):
    with pytest.raises(checks.InputError, match=words):
        demo.Demo(tiny, demo.Settings(image_size=size))


def test_only_what_a_camera_could_see_is_plausible():
    size = (100, 100)
    assert demo.plausible(np.eye(3), size, size)
    assert not demo.plausible(np.diag([-1.0, 1, 1]), size, size)  # mirrored
    assert not demo.plausible(np.diag([0.01, 0.01, 1]), size, size)  # a speck
    assert not demo.plausible(np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1.0]]), size, size)  # behind us
    bow_tie = cv2.getPerspectiveTransform(
        np.float32([[0, 0], [99, 0], [99, 99], [0, 99]]), np.float32([[0, 0], [99, 0], [0, 99], [99, 90]])
    )
    assert not demo.plausible(bow_tie, size, size)


# What is drawn.


@pytest.mark.parametrize(
    ("size", "shown"),
    [((100, 100), (500, 500)), ((240, 320), (480, 640)), ((720, 1280), (720, 1280)), ((8, 900), (16, 1800))],
)
def test_everything_can_be_painted_at_any_size(size, shown):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (*size, 3), np.uint8)
    before = frame.copy()
    points = rng.uniform(-5, max(size) + 5, (40, 2))
    trails = points[:, None] + np.arange(20)[:, None]
    trails[::3, 4:] = np.nan
    homography = np.diag([size[1] / 60, size[0] / 80, 1.0])
    for found in (homography, None):
        match = canvas.Match(
            image=np.full((80, 60, 3), 200, np.uint8),
            points0=rng.uniform(0, 60, (40, 2)),
            points1=points,
            inliers=np.arange(40) % 2 == 0,
            homography=found,
        )
        scene = canvas.Scene(
            keypoints=points,
            scores=rng.uniform(0, 1, 40),
            trails=trails,
            match=match,
            title="method",
            rate="9 FPS",
            status=("one", "ä line that is far too long for any of these pictures " * 4),
            message="saved",
            help_lines=("a", "b"),
        )
        painted = canvas.paint(frame, scene)
        assert painted.dtype == np.uint8 and painted.shape[0] == shown[0] and painted.shape[1] > shown[1]
    np.testing.assert_array_equal(frame, before)
    assert canvas.paint(frame, canvas.Scene()).shape == (*shown, 3)


def test_nothing_found_is_painted_as_nothing():
    frame = np.full((480, 640, 3), 77, np.uint8)
    scene = canvas.Scene(keypoints=np.empty((0, 2)), scores=np.empty(0), trails=np.empty((0, 20, 2)))
    np.testing.assert_array_equal(canvas.paint(frame, scene), frame)


def test_a_keypoint_is_painted_where_it_is():
    for mirror, x in ((False, 10), (True, 89)):
        scene = canvas.Scene(keypoints=np.array([[10.0, 20.0]]), scores=np.ones(1), mirror=mirror)
        rows, columns = np.nonzero(canvas.paint(np.zeros((100, 100, 3), np.uint8), scene).sum(axis=2) > 300)
        assert abs(rows.mean() - (20.5 * 5 - 0.5)) < 0.3 and abs(columns.mean() - ((x + 0.5) * 5 - 0.5)) < 0.3


def test_colours_are_those_of_the_other_pictures():
    for name in ("INLIER", "OUTLIER", "ESTIMATED"):
        assert "#{:02x}{:02x}{:02x}".format(*getattr(canvas, name)) == getattr(overlay, name)


# Where frames come from.


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
    monkeypatch.setattr(sources, "_capture", lambda _: made)
    return made


def test_a_camera_may_give_gray_and_transparent_frames_and_fail_now_and_then(monkeypatch):
    color = np.zeros((60, 80, 4), np.uint8)
    color[..., 0] = 200  # blue first
    made = camera(monkeypatch, color[..., 0], None, color, color[..., :3], (color * np.uint16(257))[..., :1])
    with sources.open_source("3") as source:
        found = list(source)
    assert [frame.shape for frame in found] == [(60, 80, 3)] * 4
    assert found[1][0, 0].tolist() == [0, 0, 200] and (found[0] == 200).all() and (found[3] == 200).all()
    assert (source.skipped, source.live, source.fps, made.released) == (1, True, 15.0, True)
    assert "camera 3 stopped" in source.trouble


@pytest.mark.parametrize("fps", [0.0, float("nan"), 1000.0])
def test_a_senseless_frame_rate_is_replaced(monkeypatch, fps):
    camera(monkeypatch, np.zeros((60, 80, 3), np.uint8), fps=fps)
    assert sources.open_source(0).fps == 30.0


def test_frames_that_are_no_pictures_are_refused():
    with pytest.raises(checks.InputError, match="BGRA"):
        sources.as_rgb(np.zeros((5, 5, 2), np.uint8))
    with pytest.raises(checks.InputError, match="float32"):
        sources.as_rgb(np.zeros((5, 5, 3), np.float32))


def test_a_folder_is_sorted_as_people_do_and_damaged_pictures_are_left_out(frames, tmp_path):
    for k, name in enumerate(("10.png", "2.png", "1.JPG")):
        images.write_image(tmp_path / name, frames[0][: 50 + k])
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("neither")
    source = sources.open_source(tmp_path)
    assert [len(frame) for frame in source] == [52, 51, 50]
    assert (source.skipped, source.live, source.still) == (1, False, False)
    looped = iter(sources.open_source(tmp_path, loop=True))
    assert [len(next(looped)) for _ in range(5)] == [52, 51, 50, 52, 51]
    for name in ("10.png", "2.png", "1.JPG"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(checks.InputError, match="4 damaged"):
        list(sources.open_source(tmp_path))


def test_a_video_loops_and_its_frames_are_all_there(video):
    with sources.open_source(video) as source:
        assert len(list(source)) == FRAMES
        assert (source.fps, source.skipped, source.trouble) == (12.0, 0, "")
    with sources.open_source(video, loop=True) as source:
        assert len([frame for frame, _ in zip(source, range(50), strict=False)]) == 50


def test_a_video_that_was_cut_off_gives_what_is_left(video, tmp_path):
    content = video.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with sources.open_source(tmp_path / "cut.avi") as source:
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
        list(sources.open_source(tmp_path / name))
    assert name in str(error.value)


def test_a_video_without_frames_is_refused(tmp_path, monkeypatch):
    (tmp_path / "none.avi").write_bytes(b"x")
    made = camera(monkeypatch)
    with pytest.raises(checks.InputError, match="a video with frames"):
        sources.open_source(tmp_path / "none.avi")
    assert made.released


def test_an_empty_folder_names_the_video_in_it(tmp_path, video):
    with pytest.raises(checks.InputError, match="none in"):
        sources.open_source(tmp_path)
    with pytest.raises(checks.InputError, match=r"Name the video itself.*astronaut\.avi"):
        sources.open_source(video.parent)


@pytest.mark.parametrize(
    ("target", "words"), [("0", "camera 0"), ("/dev/video77", "video77"), ("rtsp://nobody/x", "stream")]
)
def test_no_camera_says_what_to_do(monkeypatch, target, words):
    made = camera(monkeypatch)
    made.release()
    with pytest.raises(checks.InputError, match=words) as error:
        sources.open_source(target)
    assert str(error.value).endswith(".") and "Traceback" not in str(error.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices are files on Linux")
def test_help_with_a_camera_looks_at_the_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "DEVICES", tmp_path)
    assert "no /dev/video" in sources._camera_help(0)[0]
    (tmp_path / "video2").touch()
    assert "video2" in sources._camera_help(0)[0] and "by its number" in sources._camera_help(0)[1]
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "-aG video" in sources._camera_help(0)[1]


# What is kept.


@pytest.mark.parametrize(("suffix", "odd"), [(".mp4", 0), (".avi", 0), (".webm", 0), (".mp4", 1)])
def test_a_video_is_written_whole(tmp_path, frames, suffix, odd):
    path = tmp_path / "deep" / f"out{suffix}"
    with recording.Recorder(path, fps=12.0) as recorder:
        for frame in frames[:5]:
            recorder.write(frame[odd:, odd:])
        assert not path.exists()
        recorder.write(frames[5][:100])  # fitted in
    found, fps = read_video(path)
    assert (len(found), found[0].shape, fps) == (6, (240, 320, 3), 12.0)
    assert found[5][0].max() < 40 and found[5][120].max() > 40  # black above
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_camera_is_recorded_as_fast_as_the_world_goes(tmp_path, frames):
    with recording.Recorder(tmp_path / "live.avi", fps=20.0, live=True) as recorder:
        recorder.write(frames[0])
        time.sleep(0.25)
        recorder.write(frames[1])
    assert 5 <= len(read_video(tmp_path / "live.avi")[0]) <= 20


def test_nothing_written_leaves_the_earlier_file_alone(tmp_path):
    for kind, name in ((recording.Recorder, "a.mp4"), (recording.Table, "a.csv")):
        (tmp_path / name).write_text("earlier")
        options = {"fps": 9.0} if kind is recording.Recorder else {}
        kind(tmp_path / name, **options).close()
        assert (tmp_path / name).read_text() == "earlier"


def test_a_video_that_cannot_be_read_again_is_reported(tmp_path, frames, monkeypatch):
    recorder = recording.Recorder(tmp_path / "a.avi", fps=9.0)
    recorder.write(frames[0])
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera([]))
    with pytest.raises(checks.RunError, match="disk full"):
        recorder.close()
    assert (tmp_path / "a.avi").exists()


def test_a_missing_codec_names_the_other_suffixes(tmp_path, frames, monkeypatch):
    monkeypatch.setitem(recording.CODECS, ".mp4", "ZZZZ")
    with (
        pytest.raises(checks.RunError, match=r"try \.avi, \.webm"),
        recording.Recorder(tmp_path / "a.mp4", fps=9.0) as recorder,
    ):
        recorder.write(frames[0])
    assert list(tmp_path.iterdir()) == []


# The run over all frames.


class Frames(sources.Source):
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
    with recording.Recorder(path, fps=10.0) as recorder, recording.Table(table) as rows:
        try:
            summary = player.play(Frames([*frames[:5], error]), demo.Demo(orb), recorder=recorder, table=rows)
            assert summary.frames == 5 and isinstance(error, KeyboardInterrupt)
        except checks.RunError:
            assert isinstance(error, checks.RunError)
    assert len(read_video(path)[0]) == 5
    assert len(table.read_text().splitlines()) == 6


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


# The command.


def test_the_command_writes_video_and_table(video, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(player, "can_show", lambda: False)
    code, out, err = run(
        capsys, video, "-o", tmp_path / "out.mp4", "--stats", tmp_path / "out.csv", "--threads", 1
    )
    assert code == 0
    assert err.strip() == "kp2d demo: no display here: running without a window"
    assert out.startswith("kp2d_tiny_s int8: 20 frames, ") and out.count("\n") == 1
    for word in ("FPS", "network", "decode", "match", "draw", "keypoints", "out.mp4", "out.csv"):
        assert word in out
    found, fps = read_video(tmp_path / "out.mp4")
    assert (len(found), found[0].shape, fps) == (20, (480, 640, 3), 12.0)
    with (tmp_path / "out.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["frame"]) for row in rows] == list(range(20))
    assert all(float(row["total_ms"]) > float(row["network_ms"]) > 0 for row in rows)
    assert rows[0]["tracks"] == "0" and int(rows[-1]["tracks"]) > 100 and rows[0]["found"] == ""


def test_the_command_takes_a_folder_a_reference_and_any_method(frames, tmp_path, capsys):
    for k, frame in enumerate(frames[:4]):
        images.write_image(tmp_path / "pictures" / f"{k}.png", frame)
    (tmp_path / "pictures" / "9.png").write_bytes(b"")
    images.write_image(tmp_path / "reference.png", photograph())
    code, out, err = run(
        capsys,
        *(tmp_path / "pictures", "--method", "sift", "--reference", tmp_path / "reference.png"),
        *("--headless", "--loop", "--max-frames", 6, "--image-size", "120x160", "--mirror", "--top-k", 200),
    )
    assert (code, err) == (0, "kp2d demo: 1 unreadable frames of pictures were left out\n")
    assert "sift: 6 frames" in out and "extract" in out and "reference found in 6" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.mp4"], "nowhere.mp4, which does not exist"),
        (["VIDEO", "-o", "out.mov"], "a video suffix out of .mp4"),
        (["VIDEO", "--stats", "out.txt"], "table suffix"),
        (["VIDEO", "-o", "FILE/out.mp4"], "FILE/out.mp4"),
        (["VIDEO", "-o", "VIDEO"], "other than what is read"),
        (["VIDEO", "--reference", "nothing.png"], "nothing.png"),
        (["VIDEO", "--reference", "BLANK"], "more texture"),
        (["VIDEO", "--image-size", "102x100"], "divisible by the cell"),
        (["VIDEO", "--method", "kp2d_tiny_x"], "Did you mean 'kp2d_tiny_s'"),
        (["VIDEO", "--precision", "int4"], "precision of kp2d_tiny_s"),
        (["VIDEO", "--runtime", "litrt"], "Did you mean 'litert'"),
        (["VIDEO", "--method", "orb", "--threads", "2"], "no --threads for orb"),
        (["VIDEO", "--threads", "0"], "--threads of at least 1"),
        (["VIDEO", "--max-frames", "0"], "--max-frames of at least 1"),
        (["VIDEO", "--top-k", "2"], "top_k"),
        (["VIDEO", "--score-threshold", "2"], "score_threshold"),
    ],
)
def test_wrong_input_is_one_clear_line(video, tmp_path, capsys, arguments, words):
    (tmp_path / "FILE").touch()
    images.write_image(tmp_path / "blank.png", np.full((50, 60, 3), 9, np.uint8))
    names = {"VIDEO": video, "BLANK": tmp_path / "blank.png", "FILE/out.mp4": tmp_path / "FILE" / "out.mp4"}
    code, _, err = run(capsys, *(names.get(word, word) for word in arguments), "--headless")
    assert code == 2
    assert words in err.replace(str(tmp_path) + "/", "") and "Traceback" not in err
    assert video.stat().st_size > 10_000


def test_a_model_file_is_a_method(video, capsys):
    from kp2d.methods import learned

    path = learned.PRETRAINED / "kp2d_tiny_s_88.int8.tflite"
    code, out, _ = run(capsys, video, "--headless", "--max-frames", 2, "--method", path)
    assert (code, "kp2d_tiny_s_88 int8: 2 frames" in out) == (0, True)


def test_being_terminated_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), demo_cli._terminated_is_interrupted():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_small_device_can_run_it(video, tmp_path):
    code = (
        "import sys; from kp2d import cli;"
        f"code = cli.main(['demo', {str(video)!r}, '--headless', '--max-frames', '2', '-o', 'out.mp4']);"
        f"print(code, *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "0", result.stderr
