"""Checks at public boundaries: what passes, what is refused, and how the message reads."""

from __future__ import annotations

import errno
import pickle

import numpy as np
import pytest

from kp2d import checks


def test_a_problem_says_what_was_expected_received_and_what_to_do():
    error = checks.problem("a cat", "a dog", "Get a cat.")
    assert isinstance(error, ValueError)
    assert str(error) == "expected a cat; received a dog. Get a cat."
    assert (error.expected, error.received, error.remedy) == ("a cat", "a dog", "Get a cat.")
    assert error.facts == "expected a cat; received a dog."
    copy = pickle.loads(pickle.dumps(error))  # as a worker of a cluster sends it
    assert (str(copy), vars(copy)) == (str(error), vars(error))
    error = checks.problem("a cat", 0)
    assert str(error) == error.facts == "expected a cat; received 0."


@pytest.mark.parametrize(
    ("error", "line"),
    [(KeyError(), "KeyError"), (OSError(" \nno\nmore"), "no"), (ValueError("x" * 999), "x" * 160)],
)
def test_errors_of_libraries_shrink_to_a_line(error, line):
    assert checks.first_line(error) == line


def test_one_of_returns_a_choice_or_names_the_nearest():
    assert checks.one_of("method", "sift", iter(["sift", "orb"])) == "sift"
    with pytest.raises(
        checks.InputError, match=r"a method out of sift, orb; received 'sfit'.*Did you mean 'sift'"
    ):
        checks.one_of("method", "sfit", ["sift", "orb"])
    with pytest.raises(checks.InputError) as caught:
        checks.one_of("method", "zzzzzz", ["sift", "orb"])
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(checks.InputError, match="None"):
        checks.one_of("method", None, ["sift"])
    with pytest.raises(checks.InputError, match=r"an option out of a; .*Did you mean 'bee:c'"):
        checks.one_of("option", "bee_c", ["a"], ["bee:c"])


def test_an_image_is_uint8_rgb_and_comes_back_itself():
    image = np.zeros((3, 7, 3), np.uint8)
    assert checks.is_image(image) is image


@pytest.mark.parametrize(
    "image",
    [
        [[0]],
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=lambda image: "list" if isinstance(image, list) else f"{image.dtype}{list(image.shape)}",
)
def test_other_images_are_refused_with_type_and_shape(image):
    said = "list" if isinstance(image, list) else str(list(image.shape))
    with pytest.raises(checks.InputError, match="left image as") as caught:
        checks.is_image(image, "left image")
    assert said in str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_points_may_be_any_number(count):
    assert checks.is_points(np.ones((count, 2)).tolist() or np.empty((0, 2))).shape == (count, 2)


@pytest.mark.parametrize("points", [[], [1.0, 2.0], np.zeros((2, 3)), np.zeros((1, 2, 2)), 5.0])
def test_points_of_another_shape_are_refused(points):
    with pytest.raises(checks.InputError, match=r"corners as \[N, 2\]"):
        checks.is_points(points, "corners")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_refused(value):
    with pytest.raises(checks.InputError, match="finite keypoints"):
        checks.is_points([[0.0, 1.0], [value, 2.0]])


def test_a_homography_comes_back_as_float64():
    matrix = checks.is_homography([[1, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert matrix.dtype == np.float64 and matrix[1, 2] == 4
    assert checks.is_homography(-1e-5 * np.eye(3))[0, 0] == -1e-5  # scale and sign are free
    checks.is_homography([[1, 0, 1e5], [0, 1, 1e5], [0, 0, 1]])  # far away, but invertible


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (np.eye(2), r"shape \[2, 2\]"),
        (np.eye(4), r"shape \[4, 4\]"),
        (np.ones(9), r"shape \[9\]"),
        ("abc", "3x3 numbers"),
        ([[1, 2], [3]], "3x3 numbers"),
        (None, "homography"),
        (np.full((3, 3), np.nan), "finite"),
        (np.diag([1, 1, np.inf]), "finite"),
        (np.zeros((3, 3)), "invertible"),
        (np.ones((3, 3)), "invertible"),
        (np.diag([1.0, 1.0, 0.0]), "invertible"),
        ([[1, 2, 3], [2, 4, 6], [0, 0, 1]], "invertible"),
    ],
)
def test_other_matrices_are_refused(matrix, said):
    with pytest.raises(checks.InputError, match=said):
        checks.is_homography(matrix)


@pytest.mark.parametrize(
    "size", [(240, 320), [240, 320], ("240", "320"), np.array([240, 320]), iter((240, 320))]
)
def test_an_image_size_comes_back_as_height_and_width(size):
    assert checks.is_image_size(size) == (240, 320)
    assert checks.is_image_size((8, 9)) == (8, 9)


@pytest.mark.parametrize(
    "size",
    [
        240,
        None,
        (240,),
        (240, 320, 3),
        "240x320",
        "88",
        ("a", "b"),
        (240.5, 320),
        (np.inf, 320),
        (np.nan, 320),
    ],
)
def test_what_is_no_image_size_is_refused(size):
    with pytest.raises(checks.InputError, match=r"size0 as \(height, width\)"):
        checks.is_image_size(size, "size0")


@pytest.mark.parametrize("size", [(7, 320), (320, 7), (0, 0), (-240, 320), (True, 320)])
def test_an_image_size_below_8_is_refused(size):
    with pytest.raises(checks.InputError, match="at least 8x8 px"):
        checks.is_image_size(size)


@pytest.mark.parametrize(
    ("size", "cell", "nearest"),
    [
        ((250, 333), 4, [(248, 332), (252, 336)]),
        ((250, 333), 8, [(248, 328), (256, 336)]),
        ((240, 333), 4, [(240, 332), (240, 336)]),
        ((8, 8), 4, [(12, 12)]),
        ((5, 321), 8, [(24, 320), (24, 328)]),
        ((7, 11), 1, [(7, 11)]),
    ],
)
def test_a_size_that_cells_do_not_tile_is_refused_with_the_nearest_that_they_do(size, cell, nearest):
    assert checks.fitting_sizes(size, cell) == nearest
    if nearest == [size]:
        assert checks.fits_cells(size, cell) == size
        return
    with pytest.raises(checks.InputError, match=f"divisible by the cell {cell}; received") as refused:
        checks.fits_cells(size, cell, "train_size")
    assert refused.value.remedy == f"Choose {' or '.join(f'`train_size={fit}`' for fit in nearest)}."
    assert all(checks.fits_cells(fit, cell) == fit for fit in nearest)


def caused(error, by):
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        ImportError("libQt5Gui.so.5: failed to map segment from shared object"),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"),
        caused(checks.problem("a whole .tflite model", "a.tflite"), RuntimeError("Failed to allocate")),
    ],
)
def test_a_want_of_memory_is_known_in_the_words_of_any_library(error):
    assert checks.lacks_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        checks.problem("a picture", "cannot allocate memory.png"),
        OSError(errno.ENOSPC, "No space left on device"),
        caused(checks.problem("an image", "none"), RuntimeError("failed to prepare")),
    ],
)
def test_other_errors_are_no_want_of_memory(error):
    assert not checks.lacks_memory(error)
