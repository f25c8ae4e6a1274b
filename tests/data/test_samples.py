"""The sample data set: exact homographies, same bytes for a seed, rebuilt when anything differs."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest

from kp2d import checks, files, images
from kp2d.data import datasets, samples, scenes

SMALL = {"num_images": 3, "image_size": (90, 120), "progress": False}


def hashes(folder):
    """Returns the hash of every file below a folder, by name."""
    return {str(p.relative_to(folder)): files.sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two scenes at a small size."""
    folder = tmp_path_factory.mktemp("samples") / "sample"
    samples.prepare_samples(folder, scenes=["coffee", "brick"], **SMALL)
    return folder


def test_layout_is_that_of_hpatches(small):
    sequences = datasets.load_sequences(small)
    assert [s.name for s in sequences] == ["i_coffee", "v_brick", "v_coffee"]
    assert all(len(s.pairs) == 2 and not s.problems for s in sequences)
    assert {(row["height"], row["width"]) for row in datasets.describe(sequences)} == {(90, 120)}
    assert all(np.array_equal(pair.homography(), np.eye(3)) for pair in sequences[0].pairs)
    assert not list(small.rglob(".*")), "no temporary file is left"


def test_homography_text_keeps_every_digit(small):
    pair = datasets.load_sequences(small)[1].pairs[0]
    words = pair.homography_path.read_text().split()
    assert [f"{float(word):.17g}" for word in words] == words
    assert len(words[0].lstrip("-0.")) >= 15


def test_homographies_map_pixel_centres_exactly():
    """A smooth picture without noise: the two views may differ by interpolation only."""
    y, x = np.mgrid[0:400, 0:600]
    waves = np.stack([np.sin(x / 17) + np.cos(y / 23), np.sin((x + y) / 19), np.cos((x - y) / 29)], -1)
    picture = np.rint(127 + 60 * waves).clip(0, 255).astype(np.uint8)
    size, rng = (180, 240), np.random.default_rng(0)
    first = scenes.crop((400, 600), size, 0.75, (0.5, 0.5))
    matrices = [scenes.to_photograph(first, size)]
    quads = [scenes.sample_quad(first, (400, 600), strength, rng) for strength in (0.5, 1)]
    matrices += [scenes.to_photograph(quad, size) for quad in quads]
    shots = [scenes.sample_view(picture, matrix, size) for matrix in matrices]
    for matrix, shot in zip(matrices[1:], shots[1:], strict=True):
        homography = np.linalg.inv(matrix) @ matrices[0]
        warped = cv2.warpPerspective(shots[0], homography, size[::-1], flags=cv2.INTER_CUBIC)
        seen = cv2.warpPerspective(np.ones(size, np.float32), homography, size[::-1])
        error = (warped - shot)[cv2.erode(seen, np.ones((5, 5))) > 0.999]
        shifted = cv2.warpPerspective(
            shots[0],
            np.array([[1, 0, 0.1], [0, 1, 0], [0, 0, 1]]) @ homography,
            size[::-1],
            flags=cv2.INTER_CUBIC,
        )
        assert error.size > 10_000
        assert np.abs(error).mean() < 0.25, "gray levels; rounding alone gives about 0.1"
        worse = (shifted - shot)[cv2.erode(seen, np.ones((5, 5))) > 0.999]
        assert np.abs(worse).mean() > 1.3 * np.abs(error).mean(), "0.1 px is noticed"


def test_real_views_agree_through_their_homographies(small):
    for sequence in datasets.load_sequences(small)[1:]:
        for pair in sequence.pairs:
            image0, image1 = images.read_image(pair.path0), images.read_image(pair.path1)
            size_wh = image1.shape[1::-1]
            warped = cv2.warpPerspective(image0, pair.homography(), size_wh)
            seen = cv2.warpPerspective(np.full(image0.shape[:2], 255, np.uint8), pair.homography(), size_wh)
            seen = cv2.erode(seen, np.ones((5, 5))) == 255
            correlation = np.corrcoef(warped[seen].ravel(), image1[seen].ravel())[0, 1]
            assert correlation > 0.9, f"{pair.sequence} {pair.index}"


def test_views_lie_inside_the_photograph_and_are_not_mirrored():
    rng = np.random.default_rng(3)
    for size in [(360, 480), (480, 360), (64, 512)]:
        first = scenes.crop((300, 451), size, 0.75, (0.5, 0.1))
        for _ in range(20):
            quad = scenes.sample_quad(first, (300, 451), 1.0, rng)
            assert (quad >= 0).all()
            assert (quad <= [450, 299]).all()
            matrix = scenes.to_photograph(quad, size)
            assert np.linalg.det(matrix[:2, :2]) > 0


def test_same_seed_same_bytes_other_seed_other_bytes(small, tmp_path):
    samples.prepare_samples(tmp_path / "again", scenes=["brick", "coffee"], **SMALL)
    assert hashes(tmp_path / "again") == hashes(small)
    samples.prepare_samples(tmp_path / "one", scenes=["brick"], **SMALL)
    assert files.sha256(tmp_path / "one/v_brick/2.png") == files.sha256(small / "v_brick/2.png")
    samples.prepare_samples(tmp_path / "other", scenes=["brick"], seed=1, **SMALL)
    for name in ("2.png", "H_1_2"):
        assert files.sha256(tmp_path / "other/v_brick" / name) != files.sha256(small / "v_brick" / name)


def test_complete_folder_is_reused_and_damage_is_repaired(small, caplog):
    before, stamps = hashes(small), {p: p.stat().st_mtime_ns for p in small.rglob("*.png")}
    with caplog.at_level(logging.INFO, "kp2d"):
        samples.prepare_samples(small, scenes=["coffee", "brick"], **SMALL)
    assert "Reusing" in caplog.text
    assert stamps == {p: p.stat().st_mtime_ns for p in small.rglob("*.png")}
    (small / "v_brick/2.png").write_bytes(b"damage")
    with caplog.at_level(logging.INFO, "kp2d"):
        samples.prepare_samples(small, scenes=["coffee", "brick"], **SMALL)
    assert "v_brick/2.png is missing or changed" in caplog.text
    assert hashes(small) == before


def test_interrupted_run_is_completed_to_the_same_bytes(small, tmp_path, monkeypatch):
    write, written = images.write_image, []

    def die(path, image):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, image)

    monkeypatch.setattr(images, "write_image", die)
    with pytest.raises(KeyboardInterrupt):
        samples.prepare_samples(tmp_path / "s", scenes=["coffee", "brick"], **SMALL | {"num_images": 5})
    assert not (tmp_path / "s" / samples.CARD).exists()
    monkeypatch.setattr(images, "write_image", write)
    samples.prepare_samples(tmp_path / "s", scenes=["coffee", "brick"], **SMALL)
    assert hashes(tmp_path / "s") == hashes(small)


def test_other_settings_rebuild_and_remove_only_own_files(tmp_path, caplog):
    samples.prepare_samples(tmp_path, scenes=["brick", "coffee"], **SMALL)
    (tmp_path / "v_brick/mine.txt").write_text("kept")
    card = json.loads((tmp_path / samples.CARD).read_text())
    card["files"]["../outside.png"] = "0"
    (tmp_path / samples.CARD).write_text(json.dumps(card))
    outside = tmp_path.parent / "outside.png"
    outside.touch()
    with caplog.at_level(logging.INFO, "kp2d"):
        samples.prepare_samples(tmp_path, scenes=["coffee"], **SMALL | {"num_images": 2})
    assert "num_images, scenes changed" in caplog.text
    assert outside.exists()
    assert (tmp_path / "v_brick/mine.txt").exists()
    names = {name for name in hashes(tmp_path) if not name.startswith("v_brick")}
    assert names == {
        samples.CARD,
        *(f"{k}_coffee/{f}" for k in "iv" for f in ("1.png", "2.png", "H_1_2")),
    }
    assert list((tmp_path / "v_brick").iterdir()) == [tmp_path / "v_brick/mine.txt"]


def test_card_names_licences_and_versions(small):
    card = json.loads((small / samples.CARD).read_text())
    assert card["settings"]["seed"] == 0
    assert card["settings"]["image_size"] == [90, 120]
    assert set(card["settings"]["versions"]) == {"scikit-image"}
    assert all(scene["licence"] and scene["source"] and scene["author"] for scene in card["scenes"])
    assert card["files"] == {k: v for k, v in hashes(small).items() if k != samples.CARD}


def test_scene_table_is_complete():
    names = [scene.name for scene in samples.SCENES]
    assert len(names) == len(set(names)) >= 10
    kinds = "".join(scene.kinds for scene in samples.SCENES)
    assert kinds.count("v") >= 5
    assert kinds.count("i") >= 5
    allowed = ("CC0", "CC BY 2.0", "public domain")
    for scene in samples.SCENES:
        assert not scene.redistributable or scene.licence.startswith(allowed)
        assert scenes.photograph(scene).shape[2] == 3


def test_full_set_is_made_once_with_the_same_bytes(tmp_path):
    """All scenes, at a small size, twice."""
    for name in ("a", "b"):
        made = samples.prepare_samples(tmp_path / name, num_images=2, image_size=(60, 80), progress=False)
    assert len(made) == 14
    assert made == sorted(made)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scenes": ["cofee"]}, "Did you mean 'coffee'"),
        ({"scenes": []}, "at least one scene"),
        ({"num_images": 1}, "num_images"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"image_size": (4, 100)}, "8x8"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, change, said):
    with pytest.raises(checks.InputError, match=said):
        samples.prepare_samples(tmp_path / "s", **SMALL | change)
    assert not (tmp_path / "s").exists()


def test_missing_package_and_unwritable_folder_are_explained(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(checks.InputError, match="file"):
        samples.prepare_samples(tmp_path / "file" / "s", scenes=["brick"], **SMALL)
    monkeypatch.setitem(scenes.PACKAGES, "skimage", "no-such-package-here")
    with pytest.raises(checks.InputError, match="pip install scikit-image scikit-learn"):
        samples.prepare_samples(tmp_path / "s", scenes=["brick"], **SMALL)
