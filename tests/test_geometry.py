"""Homographies and the pixel convention: hand-made points, inverses, pictures that are really resized."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kp2d import checks, geometry

SHIFT = np.array([[1, 0, 3], [0, 1, -2], [0, 0, 1.0]])
POINTS = np.array([[0, 0], [10, 0], [0, 5], [7.5, 2.25]])
HORIZON = np.array([[1, 0, 0], [0, 1, 0], [0, -0.01, 1]])  # the line y = 100 has no image


@st.composite
def homographies(draw):
    """Views of a 320x240 image that keep it in front of the camera."""

    def value(low, high):
        return draw(st.floats(low, high, allow_nan=False))

    angle, scale = value(-1, 1), value(0.5, 2)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array(
        [
            [cosine, -sine + value(-0.2, 0.2), value(-200, 200)],
            [sine, cosine, value(-200, 200)],
            [value(-5e-4, 5e-4), value(-5e-4, 5e-4), 1.0],
        ]
    )


def gaussian(size, centre):
    """Draws a blob; (x, y) px."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 6.0**2)).astype(np.float32)


def centre_of_mass(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()


def test_identity_keeps_points():
    assert np.array_equal(geometry.warp_points(POINTS, np.eye(3)), POINTS)


def test_translation_is_added_to_x_and_y():
    assert np.array_equal(geometry.warp_points(POINTS, SHIFT), POINTS + np.array([3, -2]))


def test_a_projective_warp_by_hand():
    matrix = np.array([[2, 0, 1], [0, 3, 2], [0.1, 0, 1]])
    assert geometry.warp_points(np.array([[10.0, 4.0]]), matrix) == pytest.approx(
        np.array([[21 / 2, 14 / 2]]), abs=1e-12
    )


@pytest.mark.parametrize("count", [0, 1])
def test_no_point_and_one_point(count):
    warped = geometry.warp_points(np.ones((count, 2), np.float32), SHIFT)
    assert warped.shape == (count, 2) and warped.dtype == np.float64
    assert geometry.inside(warped, (8, 9)).shape == (count,)
    assert geometry.visible(np.ones((count, 2)), SHIFT, (8, 9)).shape == (count,)


@pytest.mark.parametrize("factor", [5, 0.001, 1e-9])
def test_scale_of_the_matrix_does_not_matter(factor):
    expected = geometry.warp_points(POINTS, HORIZON)
    assert geometry.warp_points(POINTS, factor * HORIZON) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_facing_makes_the_sign_right_for_both_directions(sign):
    """With a horizon in image 1, the inverse's last element is negative and yet its points are in front."""
    matrix = np.array([[1.3754, -0.1154, 3.7238], [0, -0.2308, 100.33], [0, -0.00385, 1]])
    size = (100, 200)
    faced = geometry.facing(sign * matrix, size)
    assert np.array_equal(faced, matrix)
    assert np.linalg.inv(faced)[2, 2] < 0
    points = geometry.corners(size)
    there = geometry.warp_points(points, faced)
    assert geometry.warp_points(there, np.linalg.inv(faced)) == pytest.approx(points, abs=1e-9)
    carried = geometry.rescale_homography(sign * matrix, size, size, (50, 100))
    assert np.isfinite(geometry.warp_points(geometry.corners((50, 100)), carried)).all()
    assert geometry.corner_error(-matrix, matrix, size) == 0


def test_points_on_and_behind_the_horizon_have_no_image():
    points = np.array([[5, 50], [5, 99.9], [5, 100], [5, 101], [5, 1000.0]])
    warped = geometry.warp_points(points, HORIZON)
    assert np.isfinite(warped).all(axis=1).tolist() == [True, True, False, False, False]
    assert not np.isfinite(warped[2:]).any()
    assert geometry.visible(points, HORIZON, (10**6, 10**6)).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("points", "matrix"),
    [
        (np.zeros((2, 3)), SHIFT),
        (np.zeros(2), SHIFT),
        (POINTS, np.eye(2)),
        (POINTS, np.zeros((3, 3))),
        (POINTS * np.nan, SHIFT),
    ],
)
def test_wrong_shapes_and_values_are_refused(points, matrix):
    for function in (geometry.warp_points, lambda *both: geometry.visible(*both, (8, 8))):
        with pytest.raises(checks.InputError):
            function(points, matrix)


def test_inside_ends_at_the_centres_of_the_outermost_pixels():
    points = np.array([[0, 0], [9, 4], [9.001, 0], [0, 4.001], [-0.001, 0], [0, -0.001], [4, 9], [np.nan, 1]])
    assert geometry.inside(points, (5, 10)).tolist() == [True, True, False, False, False, False, False, False]


def test_visible_uses_the_size_as_height_and_width():
    points = np.array([[0.0, 0.0], [6, 0], [7, 0], [0, 2], [0, 1]])
    assert geometry.visible(points, SHIFT, (5, 10)).tolist() == [False, False, False, True, False]
    assert geometry.visible(points + np.array([0, 6]), SHIFT, (10, 5)).tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]


@settings(max_examples=60, deadline=None)
@given(matrix=homographies(), points=st.lists(st.tuples(st.floats(0, 319), st.floats(0, 239)), max_size=5))
def test_warping_there_and_back_returns(matrix, points):
    points = np.array(points).reshape(-1, 2)
    back = geometry.warp_points(geometry.warp_points(points, matrix), np.linalg.inv(matrix))
    assert back == pytest.approx(points, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(matrix=homographies(), other=homographies())
def test_warping_agrees_with_opencv_and_composes(matrix, other):
    points = np.array([[0, 0], [319, 0], [160, 120], [3.25, 200.5]])
    warped = geometry.warp_points(points, matrix)
    assert warped == pytest.approx(cv2.perspectiveTransform(points[None], matrix)[0], abs=1e-6)
    again, at_once = geometry.warp_points(warped, other), geometry.warp_points(points, other @ matrix)
    both = np.isfinite(again).all(axis=1) & np.isfinite(at_once).all(axis=1)
    near = both & (np.abs(again) < 1e4).all(axis=1)
    assert at_once[near] == pytest.approx(again[near], abs=1e-4)


@pytest.mark.parametrize("half_pixel", [True, False])
def test_resizes_compose_and_undo_each_other(half_pixel):
    a, b, c = (240, 320), (121, 200), (480, 77)

    def resize(*sizes):
        return geometry.resize_matrix(*sizes, half_pixel=half_pixel)

    assert resize(b, c) @ resize(a, b) == pytest.approx(resize(a, c), abs=1e-12)
    assert resize(b, a) @ resize(a, b) == pytest.approx(np.eye(3), abs=1e-12)
    assert np.array_equal(resize(a, a), np.eye(3))


def test_a_resize_maps_the_outer_edge_to_the_outer_edge():
    edge = np.array([[-0.5, -0.5], [99.5, 49.5]])
    resized = geometry.warp_points(edge, geometry.resize_matrix((50, 100), (30, 250)))
    assert resized == pytest.approx(np.array([[-0.5, -0.5], [249.5, 29.5]]), abs=1e-12)
    plain = geometry.warp_points(
        np.array([[10.0, 10.0]]), geometry.resize_matrix((50, 100), (25, 300), half_pixel=False)
    )
    assert plain == pytest.approx(np.array([[30.0, 5.0]]), abs=1e-12)


@pytest.mark.parametrize("size_to", [(120, 160), (90, 240), (500, 420)])
def test_a_homography_follows_pictures_that_are_really_resized(size_to):
    size0, size1 = (240, 400), (360, 300)
    matrix = np.array([[0.6, 0.1, 20], [-0.1, 1.1, 60], [1e-4, 2e-4, 1]])
    errors = {True: [], False: []}
    for point in np.array([[90.3, 70.8], [260.1, 120.0], [180.5, 160.25]]):
        images = gaussian(size0, point), gaussian(size1, geometry.warp_points(point[None], matrix)[0])
        seen0, seen1 = (
            centre_of_mass(cv2.resize(image, size_to[::-1], interpolation=cv2.INTER_LINEAR_EXACT))
            for image in images
        )
        for half_pixel in errors:
            carried = geometry.rescale_homography(matrix, size0, size1, size_to, half_pixel=half_pixel)
            errors[half_pixel].append(np.linalg.norm(geometry.warp_points(seen0[None], carried)[0] - seen1))
    assert max(errors[True]) < 0.05
    assert min(errors[False]) > 0.05


def test_rescaling_by_hand_and_at_equal_size():
    moved = geometry.rescale_homography(SHIFT, (100, 200), (50, 100), (50, 100))
    # x0' = x0 / 2 - 1/4; image 1 keeps its size, so x1' = 2 x0' + 1/2 + 3
    assert moved == pytest.approx(np.array([[2, 0, 3.5], [0, 2, -1.5], [0, 0, 1]]), abs=1e-12)
    assert geometry.rescale_homography(5 * SHIFT, (8, 9), (8, 9), (8, 9)) == pytest.approx(SHIFT, abs=1e-12)
    with pytest.raises(checks.InputError, match="invertible"):
        geometry.rescale_homography(np.ones((3, 3)), (8, 8), (8, 8), (8, 8))


def test_corners_are_pixel_centres_clockwise():
    assert geometry.corners((5, 10)).tolist() == [[0, 0], [9, 0], [9, 4], [0, 4]]


def test_a_quadrilateral_is_convex_if_it_turns_clockwise_all_the_way():
    square = geometry.corners((10, 20))
    assert geometry.is_convex(square)
    assert not geometry.is_convex(square[::-1])  # mirrored
    assert not geometry.is_convex(square[[0, 1, 3, 2]])  # a bow tie
    assert not geometry.is_convex(np.array([[0, 0], [10, 0], [2, 2], [0, 10.0]]))  # dented


def test_corner_error_by_hand():
    assert geometry.corner_error(SHIFT, SHIFT, (240, 320)) == 0
    assert geometry.corner_error(SHIFT, np.eye(3), (240, 320)) == pytest.approx(np.hypot(3, 2), abs=1e-12)
    wider = np.diag([2.0, 1, 1])  # moves the two right corners by width - 1
    assert geometry.corner_error(wider, np.eye(3), (240, 320)) == pytest.approx(319 / 2, abs=1e-9)
    assert geometry.corner_error(wider, np.eye(3), (320, 240)) == pytest.approx(239 / 2, abs=1e-9)
    assert geometry.corner_error(-7 * SHIFT, SHIFT, (240, 320)) == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(one=homographies(), other=homographies())
def test_corner_error_is_symmetric(one, other):
    forth, back = geometry.corner_error(one, other, (240, 320)), geometry.corner_error(other, one, (240, 320))
    assert forth == back >= 0


@pytest.mark.parametrize("estimate", [HORIZON, np.zeros((3, 3)), np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_a_useless_estimate_is_infinitely_wrong(estimate):
    assert geometry.corner_error(estimate, np.eye(3), (240, 320)) == np.inf


def test_similarity_of_a_turn_and_a_zoom():
    angle = np.deg2rad(25)
    turn = 1.5 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    homography = np.eye(3)
    homography[:2, :2], homography[:2, 2] = turn, [7, -3]
    assert geometry.similarity(homography, (60, 80)) == (pytest.approx(25), pytest.approx(1.5))
    assert geometry.similarity(4 * homography, (60, 80)) == (pytest.approx(25), pytest.approx(1.5))
