"""Pairs: geometry right to the pixel, light that leaves it alone, corners in their place."""

import cv2
import numpy as np
import pytest

from kp2d.checks import InputError
from kp2d.data import augment as a
from kp2d.data.augment import AugmentConfig

SIZE = (48, 64)
STILL = AugmentConfig(max_angle=0, scale=(1, 1), perspective=0, tilt=0, translation=0, zoom=(1, 1), flip=0)
DARK = {
    "gray": 0, "exposure": 0, "gamma": (1, 1), "brightness": 0, "contrast": (1, 1),
    "saturation": (1, 1), "hue": 0, "tint": 0, "noise": 0, "blur": 0, "motion_blur": 0,
    "jpeg": 100, "shadow": 0,
}  # fmt: skip


def smooth_photo(size=(240, 320)):
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / (9 + c)) * np.cos(y / (11 - c)) for c in range(3)]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_no_change_gives_two_equal_crops():
    config = AugmentConfig(**{**STILL.__dict__, **DARK})
    pair = a.make_view_pair(smooth_photo(), SIZE, 4, config, np.random.default_rng(0))
    np.testing.assert_allclose(pair.homography, np.eye(3), atol=1e-6)
    np.testing.assert_array_equal(pair.image0, pair.image1)
    assert pair.image0.shape == (*SIZE, 3)


def test_homography_maps_the_first_view_onto_the_second():
    config = AugmentConfig(**DARK, zoom=(1.0, 1.2), scale=(0.9, 1.1), flip=1)
    for seed in range(5):
        pair = a.make_view_pair(smooth_photo(), SIZE, 4, config, np.random.default_rng(seed))
        height, width = SIZE
        warped = cv2.warpPerspective(pair.image0, pair.homography, (width, height))
        seen = cv2.warpPerspective(np.ones(SIZE, np.uint8), pair.homography, (width, height))
        seen = cv2.erode(seen, np.ones((5, 5))) > 0
        error = np.abs(warped.astype(float) - pair.image1)[seen]
        assert seen.sum() > 200 and np.median(error) < 3


def test_turns_are_whole_quarters_at_any_strength():
    for turns in range(4):
        config = AugmentConfig(perspective=0, translation=0, max_angle=0, scale=(1, 1), tilt=0)
        homography = a.sample_homography((64, 64), config, np.random.default_rng(0), 0.3, turns)
        corner = cv2.perspectiveTransform(np.zeros((1, 1, 2)), homography)[0, 0]
        np.testing.assert_allclose(corner, [(0, 0), (63, 0), (63, 63), (0, 63)][turns], atol=1e-9)
    config = AugmentConfig(turn=1.0)
    drawn = [
        int(a.make_view_pair(smooth_photo(), SIZE, 4, config, np.random.default_rng(seed)).turns)
        for seed in range(30)
    ]
    assert set(drawn) == {0, 1, 2, 3}


def test_center_of_the_image_stays_without_translation():
    config = AugmentConfig(perspective=0, translation=0)
    for seed in range(5):
        homography = a.sample_homography(SIZE, config, np.random.default_rng(seed))
        center = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
        moved = cv2.perspectiveTransform(center[None, None], homography)[0, 0]
        np.testing.assert_allclose(moved, center, atol=1e-6)


def test_strength_zero_is_the_identity():
    homography = a.sample_homography(SIZE, AugmentConfig(), np.random.default_rng(0), 0.0)
    np.testing.assert_allclose(homography, np.eye(3), atol=1e-6)


def test_views_avoid_the_edge_of_a_large_photo():
    photo = np.full((480, 640, 3), 255, np.uint8)
    photo[2:-2, 2:-2] = 100
    config = AugmentConfig(**DARK)
    for seed in range(10):
        pair = a.make_view_pair(photo, SIZE, 4, config, np.random.default_rng(seed))
        assert pair.image0.max() <= 110 and pair.image1.max() <= 110


def test_same_generator_same_pair():
    pairs = [
        a.make_view_pair(smooth_photo(), SIZE, 4, AugmentConfig(), np.random.default_rng([1, 2, 3]))
        for _ in range(2)
    ]
    for name in ("image0", "image1", "homography", "corners0", "corners1"):
        np.testing.assert_array_equal(getattr(pairs[0], name), getattr(pairs[1], name))


def test_appearance_changes_values_not_places():
    photo = np.zeros((*SIZE, 3), np.uint8)
    photo[:, 32:] = 200
    config = AugmentConfig(blur=0, motion_blur=0, shadow=0, jpeg=100, noise=0)
    for seed in range(10):
        changed = a.change_appearance(photo, config, np.random.default_rng(seed)).astype(int)
        steps = np.abs(np.diff(changed.sum(axis=2), axis=1))
        assert not steps[:, :31].any() and not steps[:, 32:].any()


@pytest.mark.parametrize("cell", [4, 8])
def test_corner_targets_point_at_the_corner(cell):
    image = np.zeros((64, 96, 3), np.uint8)
    image[20:, 33:] = 255  # one corner, at (32.5, 19.5)
    targets = a.corner_targets(image, cell)
    assert targets.shape == (64 // cell, 96 // cell, 4)
    assert np.abs(targets[..., :2]).max() <= 1
    assert targets[..., 2:].min() >= 0 and targets[..., 2:].max() <= 1
    row, column = int(19.5 // cell), int(32.5 // cell)
    offset = targets[row, column, :2] * (cell - 1)
    place = offset + np.array([column, row]) * cell + (cell - 1) / 2
    np.testing.assert_allclose(place, [33, 20], atol=1.0)
    assert targets[row, column, 2] > 0.9


def test_one_corner_is_wanted_by_one_cell():
    image = np.zeros((64, 96, 3), np.uint8)
    image[22:, 34:] = 255  # a corner inside cell (5, 8) and within reach of its neighbours
    targets = a.corner_targets(image, 4)
    assert (targets[..., 2] > 0.5).sum() > 1
    wanted = targets[..., 3].sum()
    assert 0.5 < wanted < 2.1


@pytest.mark.parametrize(
    "change",
    [{"scale": (2, 1)}, {"gamma": (0, 1)}, {"flip": 1.5}, {"tilt": 90}, {"jpeg": 0}],
)
def test_bad_ranges_are_refused(change):
    with pytest.raises(InputError, match=f"augment.{next(iter(change))}"):
        AugmentConfig(**change)
