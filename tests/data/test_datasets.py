"""Data sets: every layout that is accepted, every flaw that is reported while the rest goes on."""

from __future__ import annotations

import numpy as np
import pytest

from kp2d import checks, images
from kp2d.data import datasets

IDENTITY = "1 0 0\n0 1 0\n0 0 1\n"


def make_sequence(root, name, count=3, suffix=".png", pattern="H_1_{}", size=(24, 32)):
    """Writes a sequence of flat pictures with identity homographies and returns its folder."""
    folder = root / name
    folder.mkdir(parents=True)
    for k in range(1, count + 1):
        images.write_image(folder / f"{k}.png", np.full((*size, 3), 10 * k, np.uint8))
        (folder / f"{k}.png").rename(folder / f"{k}{suffix}")
        if k > 1:
            (folder / pattern.format(k)).write_text(IDENTITY)
    return folder


def test_sequences_are_sorted_with_their_subsets(tmp_path):
    for name in ("v_b", "i_a", "v_a", "night_x", "plain"):
        make_sequence(tmp_path, name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme.txt").touch()
    sequences = datasets.load_sequences(tmp_path)
    assert [s.name for s in sequences] == ["i_a", "night_x", "plain", "v_a", "v_b"]
    subsets = ["illumination", "night", "other", "viewpoint", "viewpoint"]
    assert [s.subset for s in sequences] == subsets
    assert all(s.problems == () and [p.index for p in s.pairs] == [2, 3] for s in sequences)
    pair = sequences[0].pairs[1]
    assert (pair.path0.name, pair.path1.name, pair.sequence) == ("1.png", "3.png", "i_a")
    assert np.array_equal(pair.homography(), np.eye(3))


@pytest.mark.parametrize("pattern", ["H_1_{}", "H_1_{}.txt", "H1to{}p"])
@pytest.mark.parametrize("suffix", [".ppm", ".PNG", ".jpeg", ".TIF", ".bmp"])
def test_suffixes_and_homography_names(tmp_path, pattern, suffix):
    make_sequence(tmp_path, "v_a", count=11, pattern=pattern, suffix=suffix)
    (sequence,) = datasets.load_sequences(tmp_path)
    assert [pair.index for pair in sequence.pairs] == list(range(2, 12))


def test_a_wrapping_folder_is_entered(tmp_path):
    make_sequence(tmp_path / "hpatches-sequences-release", "v_a")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    assert len(datasets.load_sequences(tmp_path)) == 1


def test_flaws_are_reported_and_the_rest_goes_on(tmp_path):
    (make_sequence(tmp_path, "v_1") / "H_1_2").unlink()
    (make_sequence(tmp_path, "v_2") / "1.png").unlink()
    make_sequence(tmp_path, "v_3", count=1)
    double = make_sequence(tmp_path, "v_4")
    (double / "1.ppm").write_bytes((double / "1.png").read_bytes())
    (make_sequence(tmp_path, "v_5") / "H_1_3").write_text("1 0 0 0 one 0 0 0 1")
    (make_sequence(tmp_path, "v_6") / "H_1_3").write_text("1 2 3 2 4 6 0 0 1")
    (make_sequence(tmp_path, "v_7") / "H_1_9").write_text(IDENTITY)
    make_sequence(tmp_path, "v_8")
    sequences = datasets.load_sequences(tmp_path)
    assert [len(s.pairs) for s in sequences] == [1, 0, 0, 0, 1, 1, 2, 2]
    assert [len(s.problems) for s in sequences] == [1, 1, 1, 1, 1, 1, 1, 0]
    said = ["no H_1_2", "no image 1", "single", "1.png and 1.ppm", "'one'", "invertible", "H_1_9"]
    for sequence, words in zip(sequences, said, strict=False):
        text = str(sequence.problems[0])
        assert words in text
        assert str(tmp_path / sequence.name) in text
        assert sequence.name in text
    rows = datasets.describe(sequences)
    assert rows[0] == {
        "sequence": "v_1",
        "subset": "viewpoint",
        "num_images": 3,
        "num_pairs": 1,
        "height": 24,
        "width": 32,
        "num_problems": 1,
        "content": datasets.fingerprint(sequences[:1])[:12],
    }
    assert rows[2]["num_images"] == 1
    assert rows[2]["num_pairs"] == 0


def test_an_unreadable_first_image_leaves_the_size_open(tmp_path):
    (make_sequence(tmp_path, "v_a") / "1.png").write_text("words")
    (row,) = datasets.describe(datasets.load_sequences(tmp_path))
    assert row["height"] is None
    assert row["width"] is None


def test_a_root_without_pairs_is_refused(tmp_path):
    with pytest.raises(checks.InputError, match="does not exist"):
        datasets.load_sequences(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(checks.InputError, match="the file"):
        datasets.load_sequences(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(checks.InputError, match="H_1_2"):
        datasets.load_sequences(tmp_path / "empty")
    make_sequence(tmp_path / "single", "v_a", count=1)
    with pytest.raises(checks.InputError, match="single image"):
        datasets.load_sequences(tmp_path / "single")
    sequence = make_sequence(tmp_path / "one", "v_a")
    with pytest.raises(checks.InputError, match="folder above"):
        datasets.load_sequences(sequence)


@pytest.mark.parametrize(
    "text",
    [
        "1.5, 0, 2\n0, 1.5e0, -3\n\n 0 1e-5 1 \n",
        "\ufeff1.5 0 2\r\n0 1.5 -3\r\n0 1e-5 1\r\n",
        "# a to b\n% of 2020\n1.5 0 2 // x\n0 1.5 \N{MINUS SIGN}3 # y\n0 1e-5 1",
        "1.5 0 2 0 1.5 -3 0 1e-5 1",
        "[[ 1.5e+00  0.0e+00  2.0e+00]\n [ 0.0e+00  1.5e+00 -3.0e+00]\n [ 0.0e+00  1.0e-05  1.0e+00]]",
        "np.array([[1.5, 0., 2.], [0., 1.5, -3.], [0, 1e-5, 1.]], dtype=float32)",
        "H_1_2 = [1.5 0 2; 0 1.5 -3; 0 1e-5 1];",
        '{"H": [[1.5, 0, 2], [0, 1.5, -3], [0, 1e-5, 1]]}',
        "const double H[3][3] = {{1.5,0,2},{0,1.5,-3},{0,1e-5,1}};",
        "1.5,0,2,0,1.5,-3,0,1e-5,1",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])  # the latter begins with a mark of its own
def test_homographies_are_read_as_people_and_programs_write_them(tmp_path, text, encoding, caplog):
    path = tmp_path / "H"
    path.write_bytes(text.encode(encoding))
    assert np.array_equal(datasets.read_homography(path), [[1.5, 0, 2], [0, 1.5, -3], [0, 1e-5, 1]])
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "assumed"),
    [
        ("1,5 0 2\n0 1,5 -3,0\n0 0,00001 1", "decimal points"),
        ("3 3\n1.5 0 2\n0 1.5 -3\n0 1e-5 1", "rows and columns"),
    ],
)
def test_what_is_assumed_of_a_homography_is_said(tmp_path, text, assumed, caplog):
    path = tmp_path / "H"
    path.write_text(text)
    for _ in range(2):
        assert np.array_equal(datasets.read_homography(path), [[1.5, 0, 2], [0, 1.5, -3], [0, 1e-5, 1]])
    assert len(caplog.messages) == 1 and assumed in caplog.text and str(path) in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"1 0 0 0 1 0 0 0", "8 in"),
        (b"1 0 0 0 1 0", "third row"),
        (b"", "0 in"),
        (b"1 0 0 0 1 0 0 0 nan", "finite"),
        (b"1 0 0 0 1 0 0 0 inf", "finite"),
        (b"0 0 0 0 0 0 0 0 0", "invertible"),
        (b"a b c", "the word 'a'"),
        (b"1_0 0 0 0 1 0 0 0 1", "the word '1_0'"),
        ("\u0661 0 0 0 1 0 0 0 1".encode(), "the word"),
        (b"1.234,5 0 0 0 1 0 0 0 1", "10 in"),
        (b"\xff\xfe\x00\x81", "the word|binary"),
        (b"\x93NUMPY\x01\x00v", "a NumPy array"),
        (b"\x89PNG\r\n\x1a\n", "binary"),
    ],
)
def test_other_homographies_are_refused_by_name(tmp_path, text, said):
    path = tmp_path / "H_1_2"
    path.write_bytes(text)
    with pytest.raises(checks.InputError, match=said) as error:
        datasets.read_homography(path)
    assert str(path) in str(error.value)
    with pytest.raises(checks.InputError, match="readable"):
        datasets.read_homography(tmp_path / "missing")


def test_images_are_listed_recursively_without_hidden_files(tmp_path):
    for name in ("b/2.jpg", "b/c/1.PNG", "a.webp", "b/._2.jpg", ".git/x.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in datasets.list_images(tmp_path)]
    assert found == ["a.webp", "b/2.jpg", "b/c/1.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(checks.InputError, match="none in"):
        datasets.list_images(tmp_path / "empty")
    with pytest.raises(checks.InputError, match="does not exist"):
        datasets.list_images(tmp_path / "missing")


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"photos/more": "other"}, ["a.png", "more/b.jpe", "more/c/d.jfif"]),
        ({"photos/here": "photos"}, ["a.png"]),  # a circle
        ({"photos/up": "."}, ["a.png"]),  # the folder above, which holds the link
        ({"photos/x": "other/c", "other/c/back": "photos"}, ["a.png", "x/d.jfif"]),
        ({"photos/1": "other", "photos/2": "other"}, ["1/b.jpe", "1/c/d.jfif", "a.png"]),  # once
        ({"photos/.hidden": "other", "photos/gone": "nowhere"}, ["a.png"]),
        ({"photos/a": "other/c", "photos/one.pbm": "other/b.jpe"}, ["a/d.jfif", "a.png", "one.pbm"]),
    ],
)
def test_images_behind_links_are_listed_once(tmp_path, links, expected):
    for name in ("photos/a.png", "other/b.jpe", "other/c/d.jfif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    folder = tmp_path / "photos"
    assert [path.relative_to(folder).as_posix() for path in datasets.list_images(folder)] == expected


def test_fingerprint_follows_content_and_not_place(tmp_path):
    for place in ("a", "b"):
        make_sequence(tmp_path / place, "v_a")
    first = datasets.fingerprint(datasets.load_sequences(tmp_path / "a"))
    assert first == datasets.fingerprint(datasets.load_sequences(tmp_path / "b"))
    (tmp_path / "b" / "v_a" / "H_1_2").write_text("2 0 0 0 1 0 0 0 1")
    assert first != datasets.fingerprint(datasets.load_sequences(tmp_path / "b"))
    (tmp_path / "a" / "v_a" / "notes.txt").touch()
    assert first == datasets.fingerprint(datasets.load_sequences(tmp_path / "a"))


def test_resolve_finds_folders_and_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("KP2D_HOME", str(tmp_path))
    for variable in ("VAL_PATH", "TRAIN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    for name, said in [
        ("sample", "kp2d prepare --profile fast"),
        ("hpatches", "kp2d download hpatches"),
        ("coco", "TRAIN_PATH"),
        (str(tmp_path / "mine"), "existing folder"),
    ]:
        with pytest.raises(checks.InputError, match=said):
            datasets.resolve(name, "fast")
    for folder in ("data/fast/sample", "data/hpatches", "data/coco", "mine", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    assert datasets.resolve("sample", "fast") == tmp_path / "data/fast/sample"
    assert datasets.resolve("hpatches", "fast") == tmp_path / "data/hpatches"
    assert datasets.resolve("coco", "full") == tmp_path / "data/coco"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.resolve("~/mine", "fast") == tmp_path / "mine"
    monkeypatch.setenv("VAL_PATH", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TRAIN_PATH", str(tmp_path / "gone"))
    assert datasets.resolve("hpatches", "fast") == tmp_path / "elsewhere"
    with pytest.raises(checks.InputError, match="TRAIN_PATH"):
        datasets.resolve("coco", "fast")


def test_only_the_whole_release_is_called_hpatches(tmp_path):
    make_sequence(tmp_path / "hpatches", "v_1")
    make_sequence(tmp_path / "mine", "i_1")
    assert datasets.label(datasets.load_sequences(tmp_path / "hpatches")) == "hpatches (incomplete)"
    assert datasets.label(datasets.load_sequences(tmp_path / "mine")) == "mine"
    (pair,) = datasets.load_sequences(tmp_path / "mine")[0].pairs[:1]
    whole = [
        datasets.Sequence(name=f"{prefix}_{number}", subset=subset, pairs=(pair,) * 5)
        for prefix, subset, count in (("v", "viewpoint", 59), ("i", "illumination", 57))
        for number in range(count)
    ]
    assert datasets.label(whole) == "hpatches"
    assert datasets.label(whole[1:]) == "mine"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("notes/readme.txt", "without numbered pictures in {0}: notes"),
        ("v_empty/picture.png", "without numbered pictures in {0}: v_empty"),
        ("v_a/IMG_1.png", "no numbers in {0}/v_a: IMG_1.png"),
        ("v_a/4.heic", "not read (1 .heic)"),
        ("v_a/notes.txt", ""),
    ],
)
def test_what_a_data_set_holds_beside_its_pairs_is_said(extra, said, tiny_dataset, caplog):
    (tiny_dataset / extra).parent.mkdir(exist_ok=True)
    (tiny_dataset / extra).touch()
    assert len(datasets.load_sequences(tiny_dataset)) == 2
    assert said.format(tiny_dataset) in caplog.text and bool(caplog.text) == bool(said)
