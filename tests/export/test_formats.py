"""Files of features and matches, read back by the libraries that they are for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from stereo import two_views

import kp2d
from kp2d import images
from kp2d.export import extraction, formats

NAMES = ("a.png", "below/b.png")
KEY = "a.png/below-b.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("stereo")
    for name, view in zip(NAMES, two_views(), strict=True):
        images.write_image(root / name, view)
    return root


@pytest.fixture(scope="module", params=["kp2d_tiny_s:int8", "sift", "orb"])
def case(request, folder):
    """A method, its features of both views and their matches."""
    extractor = kp2d.load(request.param)
    views = [extraction.extract_picture(images.read_image(folder / name), extractor) for name in NAMES]
    return extractor, views, extraction.match_pair(*views, extractor)


def extracted(folder, output, extractor, form=None):
    extraction.extract_folder(folder, output, extractor, form=form, match="exhaustive")
    return output


def test_npz_is_read_by_numpy(case, folder, tmp_path):
    extractor, views, matches = case
    path = extracted(folder, tmp_path / "f.npz", extractor)
    with np.load(path) as arrays:
        assert tuple(arrays["names"]) == NAMES
        for name, features in zip(NAMES, views, strict=True):
            for part, values in vars(features).items():
                np.testing.assert_array_equal(arrays[f"{name}/{part}"], values)
            assert arrays[f"{name}/image_size"].tolist() == [512, 512]
    with np.load(formats.matches_path(path)) as arrays:
        assert arrays["pairs"].tolist() == [list(NAMES)]
        np.testing.assert_array_equal(arrays[f"{KEY}/matches"], matches.indices)
        np.testing.assert_array_equal(arrays[f"{KEY}/distances"], matches.distances)


def test_hloc_s_files_are_read_by_h5py(case, folder, tmp_path):
    h5py = pytest.importorskip("h5py")
    extractor, views, matches = case
    path = extracted(folder, tmp_path / "f.h5", extractor)
    with h5py.File(path) as file:
        for name, features in zip(NAMES, views, strict=True):
            group = file[name]
            np.testing.assert_array_equal(group["keypoints"], features.keypoints)
            np.testing.assert_array_equal(group["descriptors"], features.descriptors.T)
            np.testing.assert_array_equal(group["scores"], features.scores)
            assert list(group["image_size"]) == [512, 512]
            assert group["keypoints"].attrs["uncertainty"] == 1
    with h5py.File(formats.matches_path(path)) as file:  # read as hloc.utils.io.get_matches does
        partner, scores = file[KEY]["matches0"][()], file[KEY]["matching_scores0"][()]
    assert partner.shape == scores.shape == (len(views[0]),)
    first = np.where(partner != -1)[0]
    found = np.stack([first, partner[first]], axis=1)
    np.testing.assert_array_equal(found, matches.indices[np.argsort(matches.indices[:, 0])])
    assert (scores[partner == -1] == 0).all() and scores[first].min() > 0.5 and scores.max() <= 1


def test_opencv_s_yaml_is_read_by_filestorage(case, folder, tmp_path):
    extractor, views, matches = case
    path = extracted(folder, tmp_path / "f.yml", extractor)
    storage = cv2.FileStorage(str(path), cv2.FileStorage_READ)
    node = storage.getNode("images")
    assert [node.at(i).getNode("name").string() for i in range(node.size())] == list(NAMES)
    for index, features in enumerate(views):
        picture, points = node.at(index), node.at(index).getNode("keypoints")
        np.testing.assert_array_equal(picture.getNode("descriptors").mat(), features.descriptors)
        assert (picture.getNode("width").real(), points.size()) == (512, len(features))
        values = [points.at(7).at(field).real() for field in range(7)]  # pt, size, angle, response …
        assert values[:2] == features.keypoints[7].tolist()
        assert values[2:] == [formats.SIZE, -1, features.scores[7], 0, -1]
    storage.release()
    storage = cv2.FileStorage(str(formats.matches_path(path)), cv2.FileStorage_READ)
    pair = storage.getNode("pairs").at(0)
    assert (pair.getNode("image0").string(), pair.getNode("image1").string()) == NAMES
    match = pair.getNode("matches").at(3)
    assert [match.at(i).real() for i in range(2)] == matches.indices[3].tolist()
    assert match.at(3).real() == matches.distances[3] and pair.getNode("matches").size() == len(
        matches.indices
    )


def test_opencv_s_npz_makes_keypoints(case, folder, tmp_path):
    extractor, views, matches = case
    path = extracted(folder, tmp_path / "f.npz", extractor, form="opencv")
    fields = ("size", "angle", "response", "octave", "class_id")
    with np.load(path) as arrays:
        pt, *rest = (arrays[f"{NAMES[1]}/{field}"] for field in ("pt", *fields))
        points = [
            cv2.KeyPoint(*xy, *values)
            for xy, *values in zip(pt.tolist(), *map(np.ndarray.tolist, rest), strict=True)
        ]
    np.testing.assert_array_equal(cv2.KeyPoint.convert(points), views[1].keypoints)
    with np.load(formats.matches_path(path)) as arrays:
        query, train = (arrays[f"{KEY}/{field}"] for field in ("queryIdx", "trainIdx"))
    np.testing.assert_array_equal(np.stack([query, train], axis=1), matches.indices)


def test_colmap_reconstructs_two_views(case, folder, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    extractor, views, matches = case
    path = extracted(folder, tmp_path / "f.db", extractor)
    with pycolmap.Database.open(str(path)) as database:
        assert {image.name: image.camera_id for image in database.read_all_images()} == {
            NAMES[0]: 1,
            NAMES[1]: 2,
        }
        keypoints = np.asarray(database.read_keypoints(1))[:, :2]
        np.testing.assert_allclose(keypoints, views[0].keypoints + 0.5)
        np.testing.assert_array_equal(database.read_matches(1, 2), matches.indices)
        camera = database.read_camera(1)
        assert (camera.width, camera.height, camera.focal_length) == (512, 512, 1.2 * 512)
    (tmp_path / "pairs.txt").write_text(" ".join(NAMES) + "\n")
    pycolmap.verify_matches(str(path), str(tmp_path / "pairs.txt"))
    with pycolmap.Database.open(str(path)) as database:
        inliers = len(database.read_two_view_geometry(1, 2).inlier_matches)
    assert inliers > 0.85 * len(matches.indices)
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size, options.triangulation.ignore_two_view_tracks = 2, False  # there are only two
    (tmp_path / "model").mkdir()
    models = pycolmap.incremental_mapping(str(path), str(folder), str(tmp_path / "model"), options)
    assert models[0].num_reg_images() == 2 and models[0].num_points3D() > 0.8 * len(matches.indices)
    assert models[0].compute_mean_reprojection_error() < 1


def test_a_pair_may_be_named_in_any_order_and_have_no_matches(tmp_path):
    empty = formats.Matches(indices=np.empty((0, 2), int), distances=np.empty(0, np.float32), count=3)
    some = formats.Matches(indices=np.array([[0, 1]]), distances=np.float32([0.5]), count=3)
    features = kp2d.load("orb").extract(np.zeros((64, 64, 3), np.uint8))
    import sqlite3

    for name in ("f.npz", "f.h5", "f.db", "f.yml"):
        with formats.open_writer(formats.choose(None, tmp_path / name), tmp_path / name) as writer:
            for picture in ("a", "b", "c"):
                writer.add(formats.Picture(name=picture, image_size=(64, 64), features=features))
            writer.add_matches(("b", "a"), some) if name == "f.db" else None
    with formats.open_writer("hloc", tmp_path / "m.h5") as writer:
        writer.add_matches(("a", "b"), empty)
    rows = sqlite3.connect(tmp_path / "f.db").execute("SELECT pair_id, data FROM matches").fetchall()
    assert rows == [(2147483647 + 2, np.array([1, 0], np.uint32).tobytes())]
