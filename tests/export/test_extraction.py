"""Features of a folder: resumed, unchanged, pairs by rule, clear words for wrong input."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest

import kp2d
from kp2d import checks, images
from kp2d.export import extraction


@pytest.fixture
def folder(tmp_path, textured):
    """Three overlapping parts of a picture, one of them in a folder below."""
    scene, root = textured((160, 260), seed=3), tmp_path / "photos"
    for name, left in (("a.png", 0), ("b.png", 24), ("below/c.png", 48)):
        images.write_image(root / name, scene[:, left : left + 200])
    return root


@pytest.fixture
def orb():
    return kp2d.load("orb")


class Counting:
    """A method that counts its calls and may fail at one."""

    def __init__(self, extractor, fails_at=None):
        self.extractor, self.fails_at, self.calls = extractor, fails_at, 0

    def __getattr__(self, name):
        return getattr(self.extractor, name)

    def extract(self, image):
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        return self.extractor.extract(image)


def test_a_file_of_other_settings_or_of_somebody_else_is_not_replaced(folder, tmp_path, orb):
    output = tmp_path / "f.npz"
    extraction.extract_folder(folder, output, orb, top_k=30)
    made = output.read_bytes()
    for arguments, said in (
        ({"top_k": 20}, "received top_k 20 in place of 30. Name another file"),
        ({"top_k": 30, "form": "opencv"}, "format opencv in place of npz"),
    ):
        with pytest.raises(checks.InputError, match=said):
            extraction.extract_folder(folder, output, orb, **arguments)
    with pytest.raises(checks.InputError, match="received method sift in place of orb"):
        extraction.extract_folder(folder, output, kp2d.load("sift"), top_k=30)
    (tmp_path / "f.npz.json").unlink()
    with pytest.raises(checks.InputError, match="no record of that"):
        extraction.extract_folder(folder, output, orb, top_k=30)
    assert output.read_bytes() == made


def test_names_with_spaces_are_paired_by_a_tab_and_names_that_collide_are_refused(folder, tmp_path, orb):
    (folder / "a.png").rename(folder / "ä one.png")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("ä one.png\tb.png\n", encoding="utf-8")
    names = extraction.find_pictures(folder)
    assert extraction.pairs_of(str(pairs), names) == [("ä one.png", "b.png")]
    pairs.write_text("ä one.png b.png\n", encoding="utf-8")
    with pytest.raises(checks.InputError, match="Put a tab"):
        extraction.pairs_of(str(pairs), names)
    images.write_image(folder / "below-c.png", images.read_image(folder / "b.png"))
    with pytest.raises(checks.InputError, match="differ by more than"):
        extraction.extract_folder(folder, tmp_path / "f.h5", orb, match="exhaustive")
    assert extraction.extract_folder(folder, tmp_path / "f.db", orb, match="exhaustive").pairs == 6


@pytest.mark.parametrize("name", ["f.npz", "f.h5", "f.db", "f.yml"])
def test_a_run_that_was_broken_off_goes_on_and_a_finished_one_stays(folder, tmp_path, orb, name):
    broken, output = Counting(orb, fails_at=3), tmp_path / "made" / name
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_folder(folder, output, broken, match="exhaustive")
    assert not output.exists()
    resumed = Counting(orb)
    summary = extraction.extract_folder(folder, output, resumed, match="exhaustive")
    assert resumed.calls == 1 and (summary.pictures, summary.pairs) == (3, 3) and summary.matches > 100
    again = Counting(orb)
    unchanged = extraction.extract_folder(folder, output, again, match="exhaustive")
    assert again.calls == 0 and unchanged.written == () and unchanged.matches == summary.matches
    images.write_image(folder / "b.png", images.read_image(folder / "a.png"))
    assert extraction.extract_folder(folder, output, again, match="exhaustive").written == summary.written
    expected = {output.name, f"{name}.json", *(path.name for path in summary.written)}
    assert {path.name for path in output.parent.iterdir()} == expected


def test_features_of_another_pyramid_are_those_of_another_method(folder, tmp_path):
    one, two = (kp2d.load("kp2d_nano:int8", pyramid=levels) for levels in (1, 2))
    fewer = extraction.extract_folder(folder, tmp_path / "f.npz", one, top_k=9000)
    with pytest.raises(checks.InputError, match="pyramid2 in place of kp2d_nano"):
        extraction.extract_folder(folder, tmp_path / "f.npz", two, top_k=9000)
    more = extraction.extract_folder(folder, tmp_path / "g.npz", two, top_k=9000)
    assert fewer.keypoints < more.keypoints


def test_damaged_features_of_a_broken_run_are_made_again(folder, tmp_path, orb):
    output = tmp_path / "f.npz"
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_folder(folder, output, Counting(orb, fails_at=2))
    (kept,) = (tmp_path / "f.npz.partial").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    resumed = Counting(orb)
    assert extraction.extract_folder(folder, output, resumed).pictures == resumed.calls == 3


def test_a_picture_that_cannot_be_read_is_left_out_and_named(folder, tmp_path, orb, command):
    (folder / "bad.jpg").write_bytes(b"no picture")
    summary = extraction.extract_folder(folder, tmp_path / "f.npz", orb, match="exhaustive")
    assert list(summary.skipped) == ["bad.jpg"] and (summary.pictures, summary.pairs) == (3, 3)
    code, out, _ = command("extract", folder, "-o", tmp_path / "f.npz", "--method", "orb")
    assert code == 0 and "in 3 pictures; 1 left out (bad.jpg): " in out
    code, out, _ = command("extract", folder, "-o", tmp_path / "f.npz", "--method", "orb")
    assert code == 0 and "nothing has changed" in out
    only_bad = tmp_path / "only"
    only_bad.mkdir()
    (only_bad / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(checks.InputError, match=r"bad\.jpg"):
        extraction.extract_folder(only_bad, tmp_path / "g.npz", orb)


def test_features_are_those_of_kp2d_match(textured):
    network = kp2d.load("kp2d_nano:int8")
    image = textured((101, 150), seed=5)
    features = extraction.extract_picture(image, network, top_k=50)
    registered = kp2d.match(image, image, method=network, top_k=50)
    np.testing.assert_array_equal(features.keypoints, registered.features0.keypoints)
    matches = extraction.match_pair(features, features, network)
    np.testing.assert_array_equal(matches.indices, registered.matches)
    assert len(features) == 50 and matches.scores.min() > 0.999


def test_pairs_follow_the_rule(tmp_path):
    names = [f"{number:02}.png" for number in range(13)]
    assert len(extraction.pairs_of("exhaustive", names)) == 13 * 12 // 2
    sequential = extraction.pairs_of("sequential", names)
    assert ("00.png", "10.png") in sequential and ("00.png", "11.png") not in sequential
    text = tmp_path / "pairs.txt"
    text.write_text("00.png 01.png\n\n01.png 00.png\n02.png 02.png\n03.png 01.png\n")
    assert extraction.pairs_of(str(text), names) == [("00.png", "01.png"), ("03.png", "01.png")]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_list_of_pairs_may_have_a_byte_order_mark_and_names_of_any_encoding(tmp_path, start):
    names = ["caf\udce9.png", "\u00e9.png"]
    text = tmp_path / "pairs.txt"
    text.write_bytes(start + b"caf\xe9.png \xc3\xa9.png\n")
    assert extraction.pairs_of(str(text), names) == [tuple(names)]


@pytest.mark.skipif(sys.platform != "linux", reason="the file system takes no such name")
@pytest.mark.parametrize("suffix", [".npz", ".h5", ".db", ".yml"])
def test_a_name_that_is_not_utf_8_costs_no_work(folder, tmp_path, orb, suffix, caplog):
    if suffix == ".h5":
        pytest.importorskip("h5py")
    (folder / "a.png").rename(folder / "caf\udce9.png")
    output = tmp_path / f"f{suffix}"
    summary = extraction.extract_folder(folder, output, orb, top_k=30, match="exhaustive")
    assert (summary.pictures, summary.pairs) == (3, 3)
    assert r"caf\udce9.png" in caplog.text
    content = output.read_bytes().replace(rb"\\", rb"\\"[:1])  # YAML writes two
    assert rb"caf\udce9.png" in content


@pytest.mark.parametrize(
    ("line", "said"), [("00.png", "two names"), ("00.png 01.pgn", "Did you mean '01.png'"), (None, "no file")]
)
def test_wrong_pairs_are_refused(tmp_path, line, said):
    text = tmp_path / "pairs.txt"
    if line is not None:
        text.write_text(line)
    with pytest.raises(checks.InputError, match=said):
        extraction.pairs_of(str(text), ["00.png", "01.png"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "does not exist"),
        ([".", "-o", "x.txt"], "suffix of features"),
        ([".", "-o", "x.npz", "--format", "hloc"], "ends in .h5"),
        ([".", "--format", "hlok"], "Did you mean 'hloc'"),
        ([".", "--top-k", "0"], "top_k"),
        ([".", "--match", "exhaustiv"], "which is no file"),
    ],
)
def test_wrong_input_is_one_clear_line(words, said, command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    code, _, err = command("extract", *words, "--method", "orb")
    assert code == 2 and said in err and "Traceback" not in err
    assert not list(folder.glob("*.partial"))


def test_a_package_that_is_missing_is_said_before_the_work(folder, tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    code, _, err = command("extract", folder, "-o", tmp_path / "f.h5", "--method", "orb")
    assert code == 2 and "the package h5py, which this command needs" in err and "reproduce" in err
    assert not list(tmp_path.glob("f.h5*"))


def test_a_folder_without_pictures_is_said(tmp_path, orb):
    (tmp_path / ".hidden.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1])
    with pytest.raises(checks.InputError, match="none in"):
        extraction.extract_folder(tmp_path, tmp_path / "f.npz", orb)


def test_the_record_says_what_the_file_was_made_of(folder, tmp_path, orb):
    extraction.extract_folder(folder, tmp_path / "f.h5", orb, top_k=20)
    record = json.loads((tmp_path / "f.h5.json").read_text())
    assert record["settings"]["extractor"]["method"] == "orb" and record["settings"]["top_k"] == 20
    assert list(record["pictures"]) == ["a.png", "b.png", "below/c.png"]
