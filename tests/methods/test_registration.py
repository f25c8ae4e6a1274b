"""Two images: `kp2d.match` finds what they have in common."""

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import kp2d
from kp2d import checks, geometry, images
from kp2d.methods import extractors, matching, registration, weights
from kp2d.methods.decode import Features


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
    by_place = kp2d.match(*shifted[:2], "sift", np.int64(1000), None)
    np.testing.assert_array_equal(by_place.matches, by_array.matches)


def test_match_at_a_size_answers_in_the_images_own_pixels(shifted):
    found = kp2d.match(*shifted[:2], method="sift", image_size=(328, 432))
    np.testing.assert_allclose(found.estimate.homography[:2, 2], [-24, -16], rtol=0, atol=0.5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"method": "shift"}, "Did you mean 'sift'"),
        ({"method": "kp2d_tiny_s_int8"}, "Did you mean 'kp2d_tiny_s:int8'"),
        ({"method": None}, "a method out of"),
        ({"method": Path("no.tflite")}, "no.tflite"),
        ({"image0": "no.png"}, "no.png"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"image_size": 240}, r"Write for example \(240, 320\)"),
        ({"image_size": "240x320"}, r"Write for example \(240, 320\)"),
    ],
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


SIZE = (240, 320)
SQUARE = np.array([[10, 10], [110, 10], [110, 90], [10, 90.0]])
MOVE = np.array([[1, 0, 5], [0, 1, -3], [0, 0, 1.0]])
VIEW = np.array([[0.95, 0.08, 12], [-0.06, 1.04, 6], [2e-4, -1e-4, 1.0]])


def with_outliers(seed=0, count=100, share=0.3):
    rng = np.random.default_rng(seed)
    points0 = rng.uniform(0, [319, 239], (count, 2))
    points1 = geometry.warp_points(points0, VIEW)
    wrong = rng.choice(count, int(share * count), replace=False)
    points1[wrong] += rng.choice([-1, 1], (len(wrong), 2)) * rng.uniform(25, 90, (len(wrong), 2))
    return points0, points1, np.isin(np.arange(count), wrong)


@pytest.mark.parametrize("seed", range(3))
def test_a_homography_is_recovered_from_exact_matches_among_outliers(seed):
    points0, points1, wrong = with_outliers(seed)
    found = registration.estimate_homography(points0, points1, seed=seed)
    assert geometry.corner_error(found.homography, VIEW, SIZE) < 0.01
    assert found.inliers.dtype == bool and found.inliers.tolist() == (~wrong).tolist()


def test_the_seed_decides_and_zero_keeps_the_order_given():
    points0, points1, _ = with_outliers(4, share=0.6)
    points1 = points1 + np.random.default_rng(1).normal(0, 1.5, points1.shape)
    found = [registration.estimate_homography(points0, points1, seed=seed) for seed in range(6)]
    assert len({each.homography.tobytes() for each in found}) > 1
    plain, mask = cv2.findHomography(
        points0.astype(float), points1.astype(float), cv2.RANSAC, 3, maxIters=5000
    )
    assert np.array_equal(found[0].homography, plain)
    assert np.array_equal(found[0].inliers, mask.ravel().astype(bool))
    for each in found:  # the mask belongs to the matches in the order given, not as shuffled
        errors = np.hypot(*(geometry.warp_points(points0, each.homography) - points1).T)
        assert errors[each.inliers].max() < errors[~each.inliers].max()
        assert np.median(errors[each.inliers]) < 3


def test_the_same_seed_gives_the_same_homography():
    points0, points1, _ = with_outliers(7, share=0.6)
    points1 += np.random.default_rng(0).normal(0, 1, points1.shape)
    first = registration.estimate_homography(points0, points1, seed=3)
    cv2.setRNGSeed(99)
    cv2.randu(np.zeros((5, 5), np.uint8), 0, 255)
    again = registration.estimate_homography(points0.astype(np.float64), points1, seed=3)
    assert np.array_equal(first.homography, again.homography) and np.array_equal(first.inliers, again.inliers)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_than_four_matches_have_no_homography(count):
    found = registration.estimate_homography(SQUARE[:count], SQUARE[:count])
    assert found.homography is None and found.inliers.tolist() == [False] * count


def test_four_exact_matches_are_enough():
    found = registration.estimate_homography(SQUARE, SQUARE + MOVE[:2, 2])
    assert geometry.corner_error(found.homography, MOVE, SIZE) < 1e-6 and found.inliers.all()


@pytest.mark.parametrize("points", [np.stack([np.arange(9.0)] * 2, axis=1), np.ones((9, 2)), np.ones((4, 2))])
def test_points_on_a_line_or_all_equal_do_no_harm(points):
    found = registration.estimate_homography(points, points)
    assert len(found.inliers) == len(points)
    if found.homography is None:
        assert not found.inliers.any()
    else:
        assert geometry.corner_error(found.homography, np.eye(3), SIZE) >= 0


def test_few_inliers_are_not_trusted_and_many_matches_need_more_of_them():
    def estimate(num_inliers, num_matches, homography=None):
        found = np.eye(3) if homography is None else None
        return registration.Estimate(homography=found, inliers=np.arange(num_matches) < num_inliers)

    assert estimate(13, 14).trustworthy and not estimate(12, 14).trustworthy
    assert not estimate(14, 382).trustworthy  # ORB on noise
    assert estimate(80, 382).trustworthy and not estimate(80, 382, homography="none").trustworthy


def test_registration_finds_a_known_shift_at_any_size(textured):
    scene = textured((200, 260))
    image0, image1 = scene[:160, :200], scene[20:190, 30:240]
    for size in (None, (120, 160)):
        found = kp2d.match(image0, image1, method="sift", top_k=500, image_size=size)
        truth = np.array([[1, 0, -30], [0, 1, -20], [0, 0, 1.0]])
        homography = found.estimate.homography / found.estimate.homography[2, 2]
        assert np.abs(homography[:2, 2] - truth[:2, 2]).max() < 1
        assert found.features0.keypoints[:, 0].max() > 160


def test_a_size_that_would_take_gigabytes_is_refused(textured):
    with pytest.raises(checks.InputError, match="8 megapixels at most, in px; received 8000x8000"):
        kp2d.match(textured((48, 64)), textured((48, 64)), method="sift", image_size=(8000, 8000))


def test_large_pictures_are_reduced_for_the_method_and_answered_in_their_own_pixels(textured):
    assert registration.seen_size((480, 640), 8) == (480, 640)
    assert registration.seen_size((3024, 4032), 4) == (888, 1184)
    assert registration.seen_size((101, 5), 4) == (100, 12)
    assert registration.seen_size((30600, 300), 4) == (images.MAX_SIDE, 80), "a panorama on its side"
    assert registration.seen_size((1, 3), 1) == (8, 8)
    scene = images.resize_image(textured((300, 400)), (1500, 2000))
    found = kp2d.match(scene[:1400, :1900], scene[40:1440, 64:1964], method="sift")
    expected = np.array([[1, 0, -64], [0, 1, -40], [0, 0, 1.0]])
    assert geometry.corner_error(found.estimate.homography, expected, (1400, 1900)) < 1.9
    assert found.features0.keypoints[:, 0].max() > 1500


def test_refinement_places_a_homography_between_pixels(textured):
    scene = textured((240, 320), seed=5)
    shift = np.array([[1, 0, -20.4], [0, 1, -12.7], [0, 0, 1.0]])
    image0, image1 = scene[:200, :260], cv2.warpPerspective(scene, shift, (260, 200))
    plain, refined = (
        geometry.corner_error(
            kp2d.match(image0, image1, method="kp2d_tiny_s:int8", refine=refine).estimate.homography,
            shift,
            (200, 260),
        )
        for refine in (False, True)
    )
    assert refined < 0.1 and refined <= plain


@pytest.mark.parametrize("estimator", list(registration.ESTIMATORS))
def test_estimators_find_the_homography_among_outliers(estimator):
    rng = np.random.default_rng(0)
    view = np.array([[0.95, 0.08, 12], [-0.06, 1.04, 6], [2e-4, -1e-4, 1.0]])
    points0 = rng.uniform(0, [319, 239], (300, 2))
    points1 = geometry.warp_points(points0, view)
    points1[:120] += rng.uniform(20, 60, (120, 2))
    found = registration.estimate_homography(points0, points1, estimator=estimator)
    assert geometry.corner_error(found.homography, view, (240, 320)) < 0.01 and found.inliers.sum() == 180
    with pytest.raises(checks.InputError, match="estimator"):
        registration.estimate_homography(points0, points1, estimator="ransack")


@pytest.mark.parametrize("level", [0, 255])
def test_flat_pictures_have_nothing_in_common(level):
    flat = np.full((96, 128, 3), level, np.uint8)
    found = kp2d.match(flat, flat)
    assert len(found.matches) == 0 and found.estimate.homography is None


def test_a_black_frame_around_two_scenes_is_no_match(textured):
    frames = []
    for seed in (1, 2):
        frame = np.zeros((240, 320, 3), np.uint8)
        frame[80:160, 100:220] = textured((80, 120), seed=seed)
        frames.append(frame)
    assert not kp2d.match(*frames).estimate.trustworthy


def in_disk(image):
    """The picture as a microscope shows it."""
    mask = cv2.circle(np.zeros(image.shape[:2], np.uint8), (160, 120), 100, 1, -1)
    return image * mask[..., None]


def test_a_microscopes_disk_around_two_scenes_is_no_match(textured):
    misled = []
    for seed in range(1, 7):
        frames = (in_disk(textured((240, 320), number)) for number in (seed, seed + 7))
        estimate = kp2d.match(*frames, method="kp2d_nano:int8").estimate
        assert not estimate.trustworthy
        if dataclasses.replace(estimate, likeness=None).trustworthy:  # the disk's edge agrees with itself
            misled.append(estimate.doubt)
    assert misled and all("alike" in doubt for doubt in misled)


@pytest.mark.parametrize("method", ["sift", "kp2d_nano:int8"])
def test_what_moves_within_a_microscopes_disk_is_found(textured, method):
    scene = textured((300, 400))
    views = (in_disk(scene[y : y + 240, x : x + 320]) for y, x in ((20, 20), (30, 35)))
    estimate = kp2d.match(*views, method=method).estimate
    assert estimate.trustworthy and estimate.doubt == "" and estimate.likeness > 0.9
    shift = np.array([[1, 0, -15], [0, 1, -10], [0, 0, 1.0]])
    assert geometry.corner_error(estimate.homography, shift, (240, 320)) < 1


def test_doubt_says_what_is_wrong_with_a_homography():
    def doubt(num_inliers, likeness=None, homography=VIEW):
        inliers = np.arange(100) < num_inliers
        return registration.Estimate(homography=homography, inliers=inliers, likeness=likeness).doubt

    assert doubt(50) == doubt(50, 0.9) == doubt(17, registration.MIN_LIKENESS) == ""
    assert "chance" in doubt(16, 0.9) and "alike" in doubt(50, 0.29) and "none" in doubt(50, 0.9, None)
