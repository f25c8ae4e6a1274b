"""`kp2d demo`: what it writes and says, and what it refuses."""

import csv
import signal
import subprocess
import sys

import numpy as np
import pytest
from film import photograph, read_video
from heavy_packages import HEAVY

from kp2d import cli, images
from kp2d.live import cli as demo_cli
from kp2d.live import player
from kp2d.methods import weights


def run(capsys, *arguments):
    code = cli.main(["demo", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_writes_video_and_table(film, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(player, "can_show", lambda: False)
    code, out, err = run(
        capsys, film, "-o", tmp_path / "out.mp4", "--stats", tmp_path / "out.csv", "--threads", 1
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
        (["VIDEO", "--pyramid", "0"], "--pyramid as a whole number of levels from 1 to 4; received 0"),
        (["VIDEO", "--threads", "0"], "--threads of at least 1"),
        (["VIDEO", "--max-frames", "0"], "--max-frames of at least 1"),
        (["VIDEO", "--top-k", "2"], "top_k"),
        (["VIDEO", "--score-threshold", "2"], "score_threshold"),
    ],
)
def test_wrong_input_is_one_clear_line(film, tmp_path, capsys, arguments, words):
    (tmp_path / "FILE").touch()
    images.write_image(tmp_path / "blank.png", np.full((50, 60, 3), 9, np.uint8))
    names = {"VIDEO": film, "BLANK": tmp_path / "blank.png", "FILE/out.mp4": tmp_path / "FILE" / "out.mp4"}
    code, _, err = run(capsys, *(names.get(word, word) for word in arguments), "--headless")
    assert code == 2
    assert words in err.replace(str(tmp_path) + "/", "") and "Traceback" not in err
    assert film.stat().st_size > 10_000


def test_a_model_file_is_a_method(film, capsys):
    path = weights.shipped_path("kp2d_nano", "int8")
    code, out, _ = run(capsys, film, "--headless", "--max-frames", 2, "--method", path)
    assert (code, "kp2d_nano int8: 2 frames" in out) == (0, True)


def test_a_pyramid_in_the_name_of_a_method_keeps_the_demos_precision(film, capsys):
    code, out, _ = run(capsys, film, "--headless", "--max-frames", 1, "--method", "kp2d_nano+pyramid2")
    assert (code, "kp2d_nano+pyramid2 int8: 1 frames" in out) == (0, True)


def test_being_terminated_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), demo_cli._terminated_is_interrupted():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_small_device_can_run_it(film, tmp_path):
    code = (
        "import sys; from kp2d import cli;"
        f"code = cli.main(['demo', {str(film)!r}, '--headless', '--max-frames', '2', '-o', 'out.mp4']);"
        f"print(code, *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "0", result.stderr
