"""Two images: `kp2d.match` finds what they have in common."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

import kp2d
from kp2d import checks, images
from kp2d.methods import extractors, matching, registration, weights
from kp2d.methods.features import Features


@pytest.fixture
def shifted():
    """Two overlapping parts of one texture, uint8 RGB, and the homography between them."""
    noise = np.random.default_rng(2).integers(0, 255, (180, 240, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (9, 9), 0)
    shift = np.array([[1, 0, -24], [0, 1, -16], [0, 0, 1.0]])
    return texture[:-16, :-24], texture[16:, 24:], shift


@pytest.mark.parametrize("method", ["sift", "kp2d_tiny_s:int8"])
def test_match_finds_the_shift_between_two_parts_of_a_picture(shifted, method):
    image0, image1, shift = shifted
    found = kp2d.match(image0, image1, method=method, top_k=200)
    np.testing.assert_allclose(found.estimate.homography, shift, rtol=0, atol=0.3)
    assert len(found.features0) <= 200 and found.estimate.inliers.mean() > 0.5
    points0 = found.features0.keypoints[found.matches[:, 0]]
    points1 = found.features1.keypoints[found.matches[:, 1]]
    assert np.median(points1 - points0, axis=0) == pytest.approx([-24, -16], abs=0.5)


def test_match_takes_paths_and_loaded_methods_too(shifted, tmp_path):
    for name, image in zip(("a.png", "b.png"), shifted, strict=False):
        images.write_image(tmp_path / name, image)
    by_array = kp2d.match(*shifted[:2], method="sift")
    by_path = kp2d.match(str(tmp_path / "a.png"), tmp_path / "b.png", method=kp2d.load("sift"))
    np.testing.assert_array_equal(by_path.matches, by_array.matches)


def test_match_at_a_size_answers_in_the_images_own_pixels(shifted):
    found = kp2d.match(*shifted[:2], method="sift", image_size=(328, 432))
    np.testing.assert_allclose(found.estimate.homography[:2, 2], [-24, -16], rtol=0, atol=0.5)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"method": "shift"}, "Did you mean 'sift'"), ({"image0": "no.png"}, "no.png"), ({"top_k": 0}, "top_k")],
)
def test_match_refuses_what_it_cannot_use(shifted, change, match):
    given = {"image0": shifted[0], "image1": shifted[1], "method": "sift", **change}
    with pytest.raises(checks.InputError, match=match):
        kp2d.match(**given)


@pytest.mark.parametrize("steered", [False, True])
def test_features_of_a_method_that_steers_are_turned_to_the_other_image(steered):
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(80, 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints, scores = (
        rng.uniform(0, 100, (80, 2)).astype(np.float32),
        np.linspace(1, 0, 80, dtype=np.float32),
    )
    features0, features1 = (
        Features(keypoints=keypoints, scores=scores, descriptors=matching.turn(descriptors, quarters))
        for quarters in (0, 3)
    )
    extractor = dataclasses.replace(extractors.create("sift"), steered=steered)
    turned = registration.turned_to(features0, features1, extractor)
    assert np.array_equal(turned.descriptors, features1.descriptors) == steered
    assert np.array_equal(turned.keypoints, keypoints)


@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_weights_of_a_run_tell_whether_they_steer(tmp_path, turn):
    run = tmp_path / "mine"
    shutil.copytree(weights.PRETRAINED, run, ignore=lambda _, names: set(names) - {"kp2d_nano.weights.h5"})
    (run / "config.json").write_text(json.dumps({"preset": "kp2d_nano", "augment": {"turn": turn}}))
    assert weights.resolve(run).steered == bool(turn)
