"""Refined homographies: right to a fraction of a pixel, unmoved by light, kept where nothing is seen."""

import cv2
import numpy as np
import pytest

from kp2d import geometry, images
from kp2d.methods import refinement

SIZE = (120, 160)
VIEW = np.array([[0.97, 0.05, 4], [-0.04, 1.02, -3], [1e-4, -2e-4, 1.0]])


@pytest.fixture(scope="module")
def pair(textured):
    scene = textured((240, 320), seed=3)
    place = np.array([[1, 0, -80], [0, 1, -60], [0, 0, 1.0]])
    image0, image1 = (cv2.warpPerspective(scene, matrix, SIZE[::-1]) for matrix in (place, VIEW @ place))
    return image0, image1


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).uniform(12, [SIZE[1] - 12, SIZE[0] - 12], (150, 2))


def nearly(homography, shift=0.9):
    moved = np.array([[1, 0.004, shift], [-0.003, 1, -shift], [0, 0, 1.0]])
    return moved @ homography


def error(homography):
    return geometry.corner_error(homography, VIEW, SIZE)


def darker(image):
    """The same place in the evening: a gamma, less contrast, a shadow over one side."""
    shade = np.linspace(0.4, 1, image.shape[1])[None, :, None]
    return (255 * (image / 255.0) ** 1.8 * shade * 0.7).astype(np.uint8)


@pytest.mark.parametrize("change", [lambda image: image, darker])
def test_a_homography_that_is_off_by_a_pixel_is_put_right(pair, points, change):
    start = nearly(VIEW)
    refined = refinement.refine_homography(pair[0], change(pair[1]), points, start)
    assert error(start) > 1 and error(refined) < 0.2


def test_a_right_one_stays_right_when_light_changes(pair, points):
    assert error(refinement.refine_homography(pair[0], darker(pair[1]), points, VIEW)) < 0.2


@pytest.mark.parametrize("level", [0, 128])
def test_flat_pictures_leave_it_alone(points, level):
    flat = np.full((*SIZE, 3), level, np.uint8)
    assert refinement.refine_homography(flat, flat, points, VIEW) is VIEW


def test_pictures_of_something_else_hardly_move_it(pair, points, textured):
    refined = refinement.refine_homography(pair[0], textured(SIZE, seed=9), points, VIEW)
    assert error(refined) < 2 * refinement.MAX_SHIFT


@pytest.mark.parametrize("count", [0, 1, 7])
def test_few_points_leave_it_alone(pair, points, count):
    start = nearly(VIEW)
    assert refinement.refine_homography(*pair, points[:count], start) is start


def disk(image, radius=52, center=(80, 60)):
    """The picture as a microscope shows it."""
    mask = cv2.circle(np.zeros(image.shape[:2], np.uint8), center, radius, 1, -1)
    return image * mask[..., None]


RIM = np.array([[80, 60]]) + 51 * np.column_stack([np.cos(np.arange(40) / 6), np.sin(np.arange(40) / 6)])


@pytest.mark.parametrize("change", [lambda image: image, darker])
def test_two_views_of_one_surface_are_alike_in_any_light(pair, points, change):
    assert refinement.likeness(pair[0], change(pair[1]), points, VIEW) > 0.9
    assert refinement.likeness(pair[0], change(pair[1]), points, nearly(VIEW, 8)) < 0.3


@pytest.mark.parametrize("noise", [0, 3])
def test_what_a_microscopes_disk_encloses_is_compared_not_its_edge(pair, textured, noise):
    other = textured(SIZE, seed=9)
    grain = np.random.default_rng(0).normal(0, noise, (2, *other.shape))
    image0, image1 = (
        np.clip(disk(image) + part, 0, 255).astype(np.uint8)
        for image, part in zip((pair[0], other), grain, strict=True)
    )
    assert refinement.likeness(image0, image1, RIM, np.eye(3)) < 0.2
    assert refinement.likeness(image0, disk(pair[0]), RIM, np.eye(3)) > 0.8


@pytest.mark.parametrize("scale", [0.25, 0.5, 3])
def test_pictures_of_different_scales_are_compared_at_the_coarser_one(textured, scale):
    scene = textured((240, 320), seed=3)
    size = round(240 * scale), round(320 * scale)
    other = images.resize_image(scene, size)
    homography = geometry.resize_matrix((240, 320), size)
    points = np.random.default_rng(0).uniform(10, [310, 230], (60, 2))
    assert refinement.likeness(scene, other, points, homography) > 0.8
    there = geometry.warp_points(points, homography)
    assert refinement.likeness(other, scene, there, np.linalg.inv(homography)) > 0.8


def test_an_object_before_another_background_is_alike_where_its_points_are(pair, textured):
    image1 = textured(SIZE, seed=9)
    image1[40:90, 50:110] = pair[0][40:90, 50:110]
    points = np.random.default_rng(0).uniform([52, 42], [107, 87], (30, 2))
    assert refinement.likeness(pair[0], image1, points, np.eye(3)) > 0.9


@pytest.mark.parametrize(
    ("points", "homography"),
    [
        (np.zeros((0, 2)), VIEW),
        (np.array([[20, 20], [90, 80.0]]), VIEW),
        (np.stack([np.arange(20.0, 60)] * 2, axis=1), VIEW),  # on a line
        (np.full((20, 2), 50.0), VIEW),
        (RIM, np.diag([1, 1, -1e-9])),  # behind the horizon
        (RIM, np.diag([1e-6, 1e-6, 1])),  # shrunk to nothing
    ],
)
def test_there_is_nothing_to_compare_where_points_enclose_nothing(pair, points, homography):
    assert refinement.likeness(*pair, points, homography) == -1


def test_flat_pictures_are_not_alike():
    flat = np.full((*SIZE, 3), 90, np.uint8)
    assert refinement.likeness(flat, flat, RIM, np.eye(3)) == -1
