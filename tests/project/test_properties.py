"""Laws that hold for all inputs: geometry, matching, metrics and decoding, on examples that hypothesis makes.

Laws of a single function stand beside its other tests; these tie functions to each other or to slow twins.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kp2d import config, geometry
from kp2d.evaluate import evaluation, metrics
from kp2d.methods import decode, matching
from kp2d.methods.decode import Features

LAW = settings(suppress_health_check=[HealthCheck.too_slow])
SIZE = (240, 320)
SIZES = st.tuples(st.integers(8, 900), st.integers(8, 900))
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def homographies(draw):
    """Maps of 320x240 images of which all corners stay in front of the camera."""

    def value(limit):
        return draw(st.floats(-limit, limit, allow_nan=False))

    angle, scale = value(math.pi), 2 ** value(1)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    rows = [
        [cosine, value(0.3) - sine, value(300)],
        [sine, cosine, value(300)],
        [value(1e-3), value(1e-3), 1],
    ]
    return np.array(rows)


def points(rng, count, size=SIZE):
    """Points of an image, at least 10 px apart, so that nothing hangs on a rounding error."""
    grid = np.stack(np.meshgrid(np.arange(5, size[1], 16), np.arange(5, size[0], 16)), axis=-1).reshape(-1, 2)
    chosen = rng.permutation(len(grid))[:count]
    return grid[chosen] + rng.uniform(-3, 3, (len(chosen), 2))


def features(rng, count, dim=16):
    descriptors = rng.normal(size=(count, dim)).astype(np.float32)
    return Features(
        keypoints=points(rng, count),
        scores=rng.permutation(count).astype(np.float32) / max(count, 1),
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
    )


# Geometry.


@LAW
@given(matrix=homographies(), scale=st.floats(0.01, 100) | st.floats(-100, -0.01))
def test_an_exact_estimate_has_no_corner_error_whatever_its_scale(matrix, scale):
    truth = geometry.facing(matrix, SIZE)
    corners = geometry.warp_points(geometry.corners(SIZE), truth)
    if np.isfinite(corners).all():
        size = max(1.0, np.abs(corners).max())
        assert geometry.corner_error(scale * matrix, truth, SIZE) <= 1e-9 * size


@LAW
@given(matrix=homographies(), size0=SIZES, size1=SIZES, to=SIZES, half_pixel=st.booleans())
def test_carrying_a_homography_through_a_resize_commutes_with_warping(matrix, size0, size1, to, half_pixel):
    carried = geometry.rescale_homography(matrix, size0, size1, to, half_pixel=half_pixel)
    moved = [geometry.resize_matrix(size, to, half_pixel=half_pixel) for size in (size0, size1)]
    start = geometry.corners(size0)
    seen = geometry.warp_points(start, matrix)
    assume(np.isfinite(seen).all())
    once = geometry.warp_points(seen, moved[1])
    other = geometry.warp_points(geometry.warp_points(start, moved[0]), carried)
    # The carried matrix faces image 0; where the whole of it is in front, the two ways agree.
    if np.isfinite(once).all() and np.isfinite(other).all() and np.abs(once).max() < 1e5:
        assert other == pytest.approx(once, abs=1e-4)


@LAW
@given(matrix=homographies(), size0=SIZES, size1=SIZES, to=SIZES)
def test_a_homography_comes_back_from_a_resize_and_back(matrix, size0, size1, to):
    matrix = geometry.facing(matrix, size0)
    there = geometry.rescale_homography(matrix, size0, size1, to)
    up, down = geometry.resize_matrix(to, size1), geometry.resize_matrix(size0, to)
    back = up @ there @ down
    assert back / back[2, 2] == pytest.approx(matrix / matrix[2, 2], rel=1e-6, abs=1e-6)


# Matching.


def brute_force(distances):
    """Pairs that are each other's first nearest, by comparing everything with everything."""
    found = []
    for row in range(distances.shape[0]):
        for column in range(distances.shape[1]):
            here = distances[row, column]
            best_row = all(here < d or (here == d and column <= j) for j, d in enumerate(distances[row]))
            best_column = all(
                here < d or (here == d and row <= i) for i, d in enumerate(distances[:, column])
            )
            if best_row and best_column:
                found.append((row, column))
    return found


TIED = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7),
    elements=st.integers(0, 4),
)


@LAW
@given(distances=TIED)
def test_mutual_matches_are_those_of_brute_force(distances):
    assert list(map(tuple, matching.mutual(distances).tolist())) == brute_force(distances)


@LAW
@given(seed=SEEDS, counts=st.tuples(st.integers(0, 12), st.integers(0, 12)), binary=st.booleans())
def test_distances_do_not_depend_on_the_order_of_descriptors(seed, counts, binary):
    rng = np.random.default_rng(seed)
    sides = [
        rng.integers(0, 256, (n, 8), np.uint8) if binary else rng.normal(size=(n, 8)).astype(np.float32)
        for n in counts
    ]
    orders = [rng.permutation(n) for n in counts]
    distances = matching.descriptor_distances(*sides)
    shuffled = matching.descriptor_distances(
        *(side[order] for side, order in zip(sides, orders, strict=True))
    )
    assert shuffled == pytest.approx(distances[np.ix_(*orders)], abs=1e-5)
    assert (distances >= 0).all()


# Metrics.


@LAW
@given(seed=SEEDS, count=st.integers(1, 60))
def test_an_image_and_itself_score_perfectly(seed, count):
    rng = np.random.default_rng(seed)
    found = features(rng, count)
    assert metrics.repeatability(found.keypoints, found.keypoints, np.eye(3)) == (1.0, 0.0)
    distances = matching.descriptor_distances(found.descriptors, found.descriptors)
    assert metrics.matching_score(found.keypoints, found.keypoints, distances, np.eye(3), SIZE) == 1.0
    errors = metrics.match_errors(found.keypoints, found.keypoints, matching.mutual(distances), np.eye(3))
    assert metrics.matching_accuracy(errors).tolist() == [1.0] * 10


@LAW
@given(seed=SEEDS, matrix=homographies(), counts=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_scores_do_not_depend_on_the_order_of_keypoints_and_are_fractions(seed, matrix, counts):
    rng = np.random.default_rng(seed)
    one, other = (features(rng, count) for count in counts)
    orders = [rng.permutation(count) for count in counts]
    results = []
    for first, second in ((one, other), (one.take(orders[0]), other.take(orders[1]))):
        distances = matching.descriptor_distances(first.descriptors, second.descriptors)
        pair = first.keypoints, second.keypoints
        repeated, error = metrics.repeatability(*pair, matrix)
        score = metrics.matching_score(*pair, distances, matrix, SIZE)
        errors = metrics.match_errors(*pair, matching.mutual(distances), matrix)
        curve = metrics.matching_accuracy(errors)
        assert 0 <= repeated <= 1 and 0 <= score <= 1 and (math.isnan(error) or 0 <= error <= 3)
        assert (np.diff(curve) >= 0).all() and ((curve >= 0) & (curve <= 1)).all()
        results.append([repeated, error, score, *curve])
    assert results[1] == pytest.approx(results[0], abs=1e-9, nan_ok=True)


def shifted_pair(seed, count, shift, noise):
    """Returns features, the same shifted and then moved by up to `noise` px, and the homography."""
    rng = np.random.default_rng(seed)
    one = features(rng, count)
    moved = one.keypoints + shift + rng.uniform(-noise, noise, (count, 2))
    other = dataclasses.replace(one, keypoints=moved)
    return one, other, np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])


@LAW
@given(seed=SEEDS, shift=st.tuples(st.integers(-40, 40), st.integers(-40, 40)), noise=st.floats(0, 2))
def test_a_pair_scores_alike_from_either_side(seed, shift, noise):
    one, other, matrix = shifted_pair(seed, 40, shift, noise)
    distances = matching.descriptor_distances(one.descriptors, other.descriptors)
    forth = metrics.matching_score(one.keypoints, other.keypoints, distances, matrix, SIZE)
    back = metrics.matching_score(other.keypoints, one.keypoints, distances.T, np.linalg.inv(matrix), SIZE)
    assert forth == pytest.approx(back, abs=1e-12)


@LAW
@given(errors=st.lists(st.floats(0, 8) | st.just(math.inf), max_size=12))
def test_correctness_never_falls_with_its_limit(errors):
    within = [sum(error <= limit for error in errors) for limit in (1, 3, 5)]
    areas = [metrics.area_under_curve(np.array(errors), limit) for limit in (1, 3, 5)]
    assert within == sorted(within)
    assert all(math.isnan(area) or 0 <= area <= 1 for area in areas)
    # The curve rises: its mean height up to a limit grows with the limit.
    assert not errors or areas == pytest.approx(sorted(areas), abs=1e-9)


@settings(LAW, max_examples=15)
@given(seed=SEEDS, shift=st.tuples(st.integers(-20, 20), st.integers(-20, 20)))
def test_a_whole_pair_keeps_the_order_of_d1_d3_d5(seed, shift):
    one, other, matrix = shifted_pair(seed, 60, shift, noise=2.5)
    rows = evaluation.score_pair(one, other, matrix, config.protocol(image_size=SIZE, top_k=(50,)))
    for row in rows:
        assert row["d1"] <= row["d3"] <= row["d5"]
        assert 0 <= row["repeatability"] <= 1 and 0 <= row["matching_score"] <= 1


# Decoding.


@st.composite
def heads(draw, whole=False):
    """Heads of one image, and the cell: float, or int8 with a scale and a zero point for each."""
    rows, columns, dim = draw(st.integers(3, 7)), draw(st.integers(3, 7)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(SEEDS))
    if not whole:
        return {
            "score_map": rng.uniform(0, 1, (1, rows, columns, 1)).astype(np.float32).round(1),  # with ties
            "offset_map": rng.uniform(-1, 1, (1, rows, columns, 2)).astype(np.float32),
            "descriptor_map": rng.normal(size=(1, 2 * rows, 2 * columns, dim)).astype(np.float32),
        }
    shapes = (rows, columns, 1), (rows, columns, 2), (2 * rows, 2 * columns, dim)
    return [rng.integers(-128, 128, (1, *shape), np.int8) for shape in shapes]


CELLS = st.sampled_from([2, 4, 8])


@LAW
@given(found=heads(), cell=CELLS, threshold=st.floats(0, 0.99))
def test_decoded_features_are_sorted_inside_and_of_unit_length(found, cell, threshold):
    rows, columns = found["score_map"].shape[1:3]
    result = decode.decode(**found, cell=cell, score_threshold=threshold)
    assert (np.diff(result.scores) <= 0).all() and (result.scores > threshold).all()
    assert geometry.inside(result.keypoints, (rows * cell, columns * cell)).all()
    assert len(result) <= (rows - 2) * (columns - 2)
    assert np.linalg.norm(result.descriptors, axis=1) == pytest.approx(np.ones(len(result)), abs=1e-3)


@LAW
@given(found=heads(), cell=CELLS, top_k=st.integers(0, 30))
def test_the_best_k_are_the_first_k_of_all(found, cell, top_k):
    everything, best = (decode.decode(**found, cell=cell, top_k=k) for k in (None, top_k))
    assert len(best) == min(top_k, len(everything))
    for field in ("keypoints", "scores", "descriptors"):
        assert np.array_equal(getattr(best, field), getattr(everything, field)[:top_k])


@LAW
@given(whole=heads(whole=True), cell=CELLS, zero=st.integers(-128, 127), scale=st.floats(0.001, 0.1))
def test_integers_decode_as_the_floats_they_stand_for(whole, cell, zero, scale):
    scales = ((1 / 256, -128), (1 / 128, 0), (scale, zero))
    named = zip(("score_map", "offset_map", "descriptor_map"), whole, scales, strict=True)
    dequantized, floats = {}, {}
    for name, values, (one, point) in named:
        dequantized[name] = decode.dequantize(values, one, point)
        floats[name] = (np.float64(one) * (values.astype(np.float64) - point)).astype(np.float32)
    ours, theirs = (decode.decode(**each, cell=cell) for each in (dequantized, floats))
    assert np.array_equal(ours.scores, theirs.scores)
    assert ours.keypoints == pytest.approx(theirs.keypoints, abs=1e-4)
    assert ours.descriptors == pytest.approx(theirs.descriptors, abs=1e-3)
