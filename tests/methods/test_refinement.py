"""Refined homographies: right to a fraction of a pixel, unmoved by light, kept where nothing is seen."""

import cv2
import numpy as np
import pytest

from kp2d import geometry
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
