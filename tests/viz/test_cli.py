"""kp2d match: any images, what is said of their homography, and what is written."""

import csv
import dataclasses
import importlib.util
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

import kp2d
from kp2d import checks, geometry, images
from kp2d.data import scenes
from kp2d.viz import matched

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def pair(tmp_path):
    image = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 255, (150, 200, 3), np.uint8), (9, 9), 0)
    matrix = np.array([[0.95, 0.1, 3], [-0.1, 0.95, 12], [0, 0, 1.0]])
    images.write_image(tmp_path / "a.png", image)
    images.write_image(tmp_path / "b.png", cv2.warpPerspective(image, matrix, (180, 160)))
    return tmp_path / "a.png", tmp_path / "b.png"


@pytest.mark.parametrize("extra", [[], ["--image-size", "96x128"], ["--method", "orb", "--top-k", "100"]])
def test_match_draws_any_two_images(pair, tmp_path, extra, command):
    code, out, _ = command("match", *pair, "-o", tmp_path / "out.png", *extra)
    assert code == 0
    assert "homography found" in out
    assert images.read_image(tmp_path / "out.png").shape[1] > 900


def test_match_never_writes_over_a_picture_that_it_reads(pair, command):
    before = pair[0].read_bytes()
    code, _, err = command("match", *pair, "-o", pair[0])
    assert code == 2 and "an --output other than what is read" in err
    assert pair[0].read_bytes() == before


def test_match_of_blank_images_says_so(tmp_path, command):
    images.write_image(tmp_path / "blank.png", np.full((50, 60, 3), 9, np.uint8))
    code, out, _ = command("match", tmp_path / "blank.png", tmp_path / "blank.png", "-o", tmp_path / "o.png")
    assert code == 0
    assert "no homography" in out
    assert (tmp_path / "o.png").exists()


def test_a_homography_from_a_handful_of_matches_is_not_praised(tmp_path, pair, command):
    code, out, _ = command("match", *pair, "-o", tmp_path / "out.png", "--top-k", 5)
    assert code == 0 and ("not to be trusted" in out or "no homography" in out)
    _, out, _ = command("match", *pair, "-o", tmp_path / "out.png", "--top-k", 300)
    assert out.count("homography found") == 1


@pytest.fixture
def folder(pair, tmp_path):
    """A folder with b.png, a picture that is none, notes, and another a.png."""
    folder = tmp_path / "album"
    folder.mkdir()
    (folder / "b.png").write_bytes(pair[1].read_bytes())
    (folder / "a.png").write_bytes(pair[1].read_bytes())
    (folder / "broken.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not even by its name")
    return folder


def test_a_picture_of_extreme_proportions_is_matched_as_others(pair, folder, tmp_path, command):
    images.write_image(folder / "aa.png", np.zeros((8, 60_000, 3), np.uint8))
    code, out, err = command("match", pair[0], folder, "--method", "sift", "-o", f"{tmp_path}/out/")
    assert code == 1 and "1 of 4 pictures left out" in err and "aa.png: " in out and "b.png: " in out


def test_a_folder_is_matched_with_the_first_and_what_is_unreadable_is_named(pair, folder, tmp_path, command):
    code, out, err = command("match", pair[0], folder, "--method", "sift", "-o", f"{tmp_path}/out/")
    assert code == 1 and "broken.jpg" in err and "1 of 3 pictures left out" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        str(folder / n) for n in ("a.png", "b.png")
    ]


def test_patterns_name_pictures_and_outputs_are_named_after_them(pair, folder, tmp_path, command):
    words = (pair[0], folder / "[ab].png", pair[1], "--method", "sift", "-o", tmp_path / "m.csv")
    code, _, err = command("match", *words, "-o", tmp_path / "m.json")
    assert (code, err) == (0, "")
    # Two pictures are called b: their places tell them apart.
    assert sorted(path.name for path in tmp_path.glob("m_*.csv")) == ["m_2_b.csv", "m_3_b.csv", "m_a.csv"]
    assert json.loads((tmp_path / "m_a.json").read_text())["image1"]["name"] == str(folder / "a.png")


@pytest.mark.parametrize("others", [["album/broken.jpg"], ["album/broken.jpg", "album/notes.txt"]])
def test_nothing_that_can_be_read_is_an_error(pair, folder, others, tmp_path, command):
    code, _, err = command(
        "match", pair[0], *(tmp_path / other for other in others), "-o", tmp_path / "m.csv"
    )
    assert code == 2 and "broken.jpg" in err and not list(tmp_path.glob("m*.csv"))


def test_all_outputs_tell_the_same_in_pixels_of_the_pictures(pair, tmp_path, command):
    names = ("m.csv", "m.json", "m.npz", "m.svg", "m.JPG")
    outputs = [word for name in names for word in ("-o", tmp_path / name)]
    assert command("match", *pair, "--method", "sift", *outputs)[0] == 0
    found = kp2d.match(*pair, method="sift")
    with (tmp_path / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    content = json.loads((tmp_path / "m.json").read_text())
    with np.load(tmp_path / "m.npz") as arrays:
        np.testing.assert_array_equal(arrays["matches"], found.matches)
        np.testing.assert_array_equal(arrays["homography"], found.homography)
        np.testing.assert_array_equal(arrays["inliers"], found.inliers)
        points = arrays["keypoints1"][arrays["matches"][:, 1]]
    assert tuple(rows[0]) == matched.COLUMNS and len(rows) == len(content["matches"]) == len(found.matches)
    assert [float(row["x1"]) for row in rows] == pytest.approx(points[:, 0].tolist(), abs=1e-3)
    assert [row["inlier"] == "1" for row in rows] == [row["inlier"] for row in content["matches"]]
    assert content["homography"] == found.homography.tolist() and content["trustworthy"] is True
    assert (content["image1"]["height"], content["image1"]["width"]) == (160, 180)
    assert images.read_image(tmp_path / "m.JPG").shape[1] > 900
    assert (tmp_path / "m.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "m.gif"], "suffix of an output out of .png"),
        (["-o", "m.csv", "-o", "m.csv"], "different outputs"),
        (["-o", "m.csv", "--top-k", "0"], "--top-k as a whole number of at least 4"),
        (["-o", "m.csv", "--pyramid", "2"], "a network for --pyramid; received sift"),
        (["-o", "m.csv", "--ransac-threshold", "-1"], "a positive ransac_threshold"),
        (["-o", "taken.csv/m.png"], "taken.csv"),
        (["-o", "found"], "Write found/, if a folder is meant"),
    ],
)
def test_wrong_options_are_refused_before_any_picture_is_written(
    pair, tmp_path, words, said, command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.csv").write_text("a file")
    code, _, err = command("match", *pair, "--method", "sift", *words)
    assert code == 2 and said in err and not (tmp_path / "m.csv").exists()


def test_the_first_picture_is_not_matched_with_itself_however_its_folder_is_named(
    pair, tmp_path, command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("match", "a.png", tmp_path, "--method", "sift", "-o", "m.csv")
    assert code == 0 and out.count("inliers") == 1


def test_one_picture_or_a_folder_without_any_is_explained(pair, tmp_path, command):
    (tmp_path / "empty").mkdir()
    assert "two pictures or more" in command("match", pair[0])[2]
    assert "a folder or pattern with pictures" in command("match", tmp_path / "empty", pair[1])[2]
    assert "which does not exist" in command("match", pair[0], tmp_path / "nowhere.png")[2]


def test_matches_are_written_where_nothing_can_draw(pair, tmp_path, command, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    assert command("match", *pair, "--method", "sift", "-o", tmp_path / "m.csv")[0] == 0
    code, _, err = command("match", *pair, "--method", "sift", "-o", tmp_path / "m.png")
    assert code == 2 and "pip install matplotlib" in err and not (tmp_path / "m.png").exists()


def test_the_result_of_python_tells_and_draws_itself(pair, tmp_path):
    image1 = images.read_image(pair[1])
    found = kp2d.match(str(pair[0]), image1, method="sift")
    assert repr(found).startswith(f"<kp2d.match of {pair[0]} and image 1 by sift: ")
    assert f"{found.inliers.sum()}/{len(found.matches)} inliers, homography found>" in repr(found)
    assert found.scores.shape == (len(found.matches), 2) and found.distances.shape == found.inliers.shape
    truth = np.array([[0.95, 0.1, 3], [-0.1, 0.95, 12], [0, 0, 1.0]])
    assert geometry.corner_error(found.homography, truth, (150, 200)) < 1
    drawn = found.draw(tmp_path / "new" / "m.png")
    np.testing.assert_array_equal(drawn, images.read_image(tmp_path / "new" / "m.png"))
    with pytest.raises(checks.InputError, match="picture suffix"):
        found.draw(tmp_path / "m.csv")
    assert found._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("likeness", [1.0, 0.0])
def test_a_picture_says_of_a_homography_that_it_is_not_to_be_trusted(pair, likeness):
    found = kp2d.match(*pair, method="sift")
    found = dataclasses.replace(found, estimate=dataclasses.replace(found.estimate, likeness=likeness))
    words = " ".join(
        part.get_text() for part in found.figure().findobj(lambda part: hasattr(part, "get_text"))
    )
    assert ("not to be trusted" in words) == (likeness == 0)
    assert ("estimated frame" in words) == (likeness == 1)


def test_what_found_nothing_is_told_and_written_too(tmp_path):
    flat = np.full((64, 80, 3), 9, np.uint8)
    found = kp2d.match(flat, flat, method="sift")
    assert "0 and 0 keypoints, 0/0 inliers, no homography" in repr(found)
    assert found.save(tmp_path / "m.csv").read_text() == ",".join(matched.COLUMNS) + "\n"
    content = json.loads(found.save(tmp_path / "m.json").read_text())
    assert content["homography"] is None and content["doubt"] == "there is none" and content["matches"] == []
    with np.load(found.save(tmp_path / "m.npz")) as arrays:
        assert "homography" not in arrays and arrays["matches"].shape == (0, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells it")
def test_photographs_of_a_phone_take_the_memory_of_a_laptop(tmp_path):
    """Two of 12 megapixels in less than a gibibyte, the homography right to a thousandth of the width."""
    size_wh = (4032, 3024)
    scene = cv2.resize(scenes.photograph(scenes.SCENES[0]), size_wh, interpolation=cv2.INTER_CUBIC)
    view = np.array([[0.9, 0.12, 120], [-0.1, 0.93, 300], [1.2e-5, -8e-6, 1]])
    images.write_image(tmp_path / "a.jpg", scene)
    images.write_image(tmp_path / "b.jpg", cv2.warpPerspective(scene, view, size_wh))
    command = [sys.executable, "-m", "kp2d", "match", "a.jpg", "b.jpg", "-o", "m.png", "-o", "m.json"]
    # Of a child by itself: memory of this process, or of others that it started, does not count.
    measured = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
    measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", measured, *command], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    told, kibibytes = done.stdout.splitlines()
    assert "homography found (seen at 1184x888 and 1184x888 px)" in told
    assert int(kibibytes) < 2**20
    content = json.loads((tmp_path / "m.json").read_text())
    assert geometry.corner_error(np.array(content["homography"]), view, size_wh[::-1]) < 1e-3 * size_wh[0]
    assert max(match["x0"] for match in content["matches"]) > 2000
