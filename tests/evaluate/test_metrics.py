"""The metrics by hand, their invariants, and the scoring of a pair against a slow second implementation."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kp2d import config, geometry
from kp2d.evaluate import evaluation, metrics
from kp2d.methods import extractors, matching
from kp2d.methods.decode import Features

SIZE = (240, 320)
SQUARE = np.array([[10, 10], [110, 10], [110, 90], [10, 90.0]])
SHIFT = np.array([[1, 0, 5], [0, 1, -3], [0, 0, 1.0]])
MOVE = SHIFT[:2, 2]
INTEGERS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def diagonal(count):
    """Descriptor distances of `count` points whose partners have the same index."""
    return 1.0 - np.eye(count)


def accuracy(limit, errors):
    return metrics.matching_accuracy(np.array(errors), (limit,))[0]


def test_four_points_all_repeated():
    assert metrics.repeatability(SQUARE, SQUARE + MOVE, SHIFT) == (1.0, 0.0)


def test_a_single_moved_point_is_missed_from_both_sides():
    moved = SQUARE + MOVE
    moved[2] += [0, 40]
    assert metrics.repeatability(SQUARE, moved, SHIFT) == (6 / 8, 0.0)


def test_localization_error_is_the_mean_over_repeated_points_in_both_directions():
    moved = SQUARE + MOVE
    moved[0] += [1, 0]
    moved[1] += [0, 2]
    moved[2] += [0, 3.001]
    assert metrics.repeatability(SQUARE, moved, SHIFT) == pytest.approx((6 / 8, (1 + 2 + 0) / 3), abs=1e-12)
    assert metrics.repeatability(SQUARE, moved, SHIFT, threshold=1.5) == pytest.approx(
        (4 / 8, 0.5), abs=1e-12
    )


def test_the_threshold_belongs_to_the_repeated():
    assert metrics.repeatability(SQUARE[:1], SQUARE[:1] + np.array([3, 0]), np.eye(3)) == (1.0, 3.0)


def test_sides_of_different_size_are_counted_point_by_point():
    # 1 of 1 and 1 of 4: not the mean of the two fractions
    assert metrics.repeatability(SQUARE[:1], SQUARE, np.eye(3)) == (2 / 5, 0.0)


def test_distances_are_taken_in_image_1():
    assert metrics.repeatability(SQUARE, 2 * SQUARE + [2.5, 0], np.diag([2.0, 2, 1])) == (1.0, 2.5)


@pytest.mark.parametrize(("first", "second"), [(0, 4), (4, 0), (0, 0)])
def test_repeatability_of_none(first, second):
    found, error = metrics.repeatability(SQUARE[:first], SQUARE[:second], np.eye(3))
    assert found == 0 and math.isnan(error)


def test_nothing_repeated_has_no_error():
    found, error = metrics.repeatability(SQUARE, SQUARE + 20, np.eye(3))
    assert found == 0 and math.isnan(error)


@settings(max_examples=60, deadline=None)
@given(first=INTEGERS, second=INTEGERS, shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_repeatability_is_the_same_from_either_side(first, second, shift):
    first, second = (np.array(points, dtype=float).reshape(-1, 2) for points in (first, second))
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    forth = metrics.repeatability(first, second, matrix)
    back = metrics.repeatability(second, first, np.linalg.inv(matrix))
    assert forth == pytest.approx(back, abs=1e-9, nan_ok=True)
    assert 0 <= forth[0] <= 1 and (math.isnan(forth[1]) == (forth[0] == 0))


def test_matching_score_by_hand():
    score = metrics.matching_score(SQUARE, SQUARE + MOVE, diagonal(4), SHIFT, SIZE)
    assert score == 1
    moved = SQUARE + MOVE
    moved[2] += [4, 0]
    assert metrics.matching_score(SQUARE, moved, diagonal(4), SHIFT, SIZE) == 3 / 4
    assert metrics.matching_score(SQUARE, moved, diagonal(4), SHIFT, SIZE, threshold=4) == 1


def test_matching_score_averages_directions_without_a_cross_check():
    # Both points of image 0 choose point 0 of image 1 (one is wrong); the two of image 1 choose rightly.
    distances = np.array([[0.1, 0.9], [0.2, 0.3]])
    assert metrics.matching_score(SQUARE[:2], SQUARE[:2], distances, np.eye(3), SIZE) == (1 / 2 + 1) / 2


def test_matching_score_leaves_invisible_partners_out():
    shift = np.array([[1, 0, 300], [0, 1, 0], [0, 0, 1.0]])
    points0 = np.array([[5.0, 5], [200, 5]])  # the second is not visible in image 1
    points1 = np.array([[305.0, 5], [20, 5]])  # the second is not visible in image 0
    # Forward: 0 -> 0 right, 1 -> 1 partner invisible. Backward: 0 -> 0 right, 1 -> 1 partner invisible.
    assert metrics.matching_score(points0, points1, diagonal(2), shift, SIZE) == 1
    # Crossed: forward 0 -> 1 invisible, 1 -> 0 visible and wrong; backward likewise.
    assert metrics.matching_score(points0, points1, np.eye(2), shift, SIZE) == 0
    assert metrics.matching_score(points0[1:], points1[1:], diagonal(1), shift, SIZE) == 0


def test_matching_score_measures_each_direction_in_its_own_image():
    double = np.diag([2.0, 2, 1])
    points1 = 2 * SQUARE[:1] + [4, 0]  # 4 px off in image 1, 2 px in image 0
    assert metrics.matching_score(SQUARE[:1], points1, diagonal(1), double, SIZE) == 1 / 2


@pytest.mark.parametrize(("first", "second"), [(0, 4), (4, 0), (0, 0)])
def test_matching_score_of_none_is_0(first, second):
    empty = np.empty((first, second))
    assert metrics.matching_score(SQUARE[:first], SQUARE[:second], empty, np.eye(3), SIZE) == 0


def test_match_errors_by_hand():
    moved = SQUARE + MOVE
    moved[1] += [3, 4]
    matches = np.array([[0, 0], [1, 1], [2, 3]])
    assert metrics.match_errors(SQUARE, moved, matches, SHIFT) == pytest.approx([0, 5, 100], abs=1e-12)
    assert metrics.match_errors(SQUARE, moved, np.empty((0, 2), np.int64), SHIFT).shape == (0,)


def test_a_match_past_the_horizon_is_wrong():
    horizon = np.array([[1, 0, 0], [0, 1, 0], [0, -1 / 50, 1]])
    errors = metrics.match_errors(SQUARE, SQUARE, np.array([[0, 0], [3, 3]]), horizon)
    assert np.isnan(errors).tolist() == [False, True]
    assert metrics.matching_accuracy(errors, (1000,)).tolist() == [0.5]


def test_matching_accuracy_by_hand():
    assert metrics.matching_accuracy(np.array([0.5, 1, 2.5, 40]), (1, 2, 3)).tolist() == [0.5, 0.5, 0.75]
    assert metrics.matching_accuracy(np.empty(0)).tolist() == [0] * 10


@settings(max_examples=30, deadline=None)
@given(errors=st.lists(st.floats(0, 20) | st.just(math.nan), max_size=20))
def test_matching_accuracy_never_falls(errors):
    curve = metrics.matching_accuracy(np.array(errors, dtype=float))
    assert curve.shape == (10,) and (np.diff(curve) >= 0).all() and ((curve >= 0) & (curve <= 1)).all()


def test_area_under_the_curve_by_hand():
    assert metrics.area_under_curve(np.array([0.0]), 3) == 1
    assert metrics.area_under_curve(np.array([1.5]), 3) == 0.5
    assert metrics.area_under_curve(np.array([3.0, 4, np.inf, np.nan]), 3) == 0
    assert metrics.area_under_curve(np.array([0, 1.5, np.nan, 9]), 3) == pytest.approx(1.5 / 4, abs=1e-12)
    assert math.isnan(metrics.area_under_curve(np.empty(0), 3))


def test_area_under_the_curve_is_the_integral_of_the_cumulative_fraction():
    errors = np.array([0.2, 1.1, 2.4, 7.0, np.nan])
    grid = (np.arange(50000) + 0.5) * 5 / 50000
    expected = np.mean([(errors <= limit).mean() for limit in grid])
    assert metrics.area_under_curve(errors, 5) == pytest.approx(expected, abs=1e-4)


# The protocol once more, in loops, from DESIGN.md 4 and the published description of KP2D's evaluation.


def slow_warp(point, matrix):
    x, y, depth = (row[0] * point[0] + row[1] * point[1] + row[2] for row in matrix.tolist())
    return (x / depth, y / depth)


def slow_sees(point, size):
    return 0 <= point[0] <= size[1] - 1 and 0 <= point[1] <= size[0] - 1


def slow_distance(a, b):
    if a.dtype == np.uint8:
        return sum(int(x ^ y).bit_count() for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return math.dist(a.tolist(), b.tolist())


def slow_nearest(descriptor, others, order):
    best, chosen = math.inf, None
    for index in order:
        distance = slow_distance(descriptor, others[index])
        if distance < best:
            best, chosen = distance, index
    return chosen


def slow_scores(features0, features1, matrix, size, k):
    inverse = np.linalg.inv(matrix)
    sides = ((features0, matrix), (features1, inverse))
    # Repeatability and homography: the k best of the points seen in both views.
    shared = [
        [i for i, point in enumerate(f.keypoints.tolist()) if slow_sees(slow_warp(point, to_other), size)][:k]
        for f, to_other in sides
    ]
    warped = [slow_warp(features0.keypoints[i].tolist(), matrix) for i in shared[0]]
    targets = [features1.keypoints[i].tolist() for i in shared[1]]
    gaps = [min(math.dist(w, t) for t in targets) for w in warped] + [
        min(math.dist(w, t) for w in warped) for t in targets
    ]
    hits = [gap for gap in gaps if gap <= 3]
    # Cross-checked nearest neighbours; of equal distances the weaker point is taken, as KP2D's order has it.
    d0, d1 = features0.descriptors, features1.descriptors
    matches = []
    for i in shared[0]:
        j = slow_nearest(d0[i], d1, shared[1][::-1])
        if j is not None and slow_nearest(d1[j], d0, shared[0][::-1]) == i:
            matches.append((i, j))
    misses = [
        math.dist(slow_warp(features0.keypoints[i].tolist(), matrix), features1.keypoints[j].tolist())
        for i, j in matches
    ]
    source, target = (
        f.keypoints[[m[side] for m in matches]] for side, f in enumerate((features0, features1))
    )
    estimate, _ = cv2.findHomography(source, target, cv2.RANSAC, 3, maxIters=5000)
    height, width = size
    corners = [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)]
    corner_error = sum(math.dist(slow_warp(c, estimate), slow_warp(c, matrix)) for c in corners) / 4
    # Matching score: the k best of all points, no cross-check, partners that the own image sees.
    fractions = []
    for own, other, to_own in ((features0, features1, inverse), (features1, features0, matrix)):
        right = seen = 0
        for i in range(min(k, len(own))):
            j = slow_nearest(own.descriptors[i], other.descriptors, range(min(k, len(other)))[::-1])
            landed = slow_warp(other.keypoints[j].tolist(), to_own)
            if slow_sees(landed, size):
                seen += 1
                right += math.dist(landed, own.keypoints[i].tolist()) <= 3
        fractions.append(right / seen if seen else 0)
    return {
        "repeatability": len(hits) / len(gaps),
        "localization_error": sum(hits) / len(hits),
        "d1": float(corner_error <= 1),
        "d3": float(corner_error <= 3),
        "d5": float(corner_error <= 5),
        "matching_score": sum(fractions) / 2,
        "num_matches": len(matches),
        "corner_error": corner_error,
        **{f"mma_{t}": sum(miss <= t for miss in misses) / len(misses) for t in range(1, 11)},
    }


def random_pair(seed, kind, count=70, size=(90, 120)):
    """Features of two views: about two thirds correspond, the rest are strangers; the order is random."""
    rng = np.random.default_rng(seed)
    extent = np.array(size[::-1]) - 1
    matrix = np.array([[1.1, 0.1, rng.uniform(-25, 5)], [-0.05, 0.95, rng.uniform(-5, 20)], [1e-3, 5e-4, 1]])
    matrix[:2, :2] *= rng.uniform(0.9, 1.1)
    points0 = rng.uniform(0, extent, (count, 2)).astype(np.float32)
    points1 = geometry.warp_points(points0, matrix) + rng.normal(0, 0.2, (count, 2))
    strangers = (rng.uniform(size=count) < 1 / 3) | ~geometry.inside(points1, size)
    points1[strangers] = rng.uniform(0, extent, (strangers.sum(), 2))
    if kind == np.uint8:
        descriptors0 = rng.integers(0, 256, (count, 8), np.uint8)
        descriptors1 = descriptors0 ^ np.packbits(rng.uniform(size=(count, 64)) < 0.15, axis=1)
    else:
        descriptors0 = rng.normal(size=(count, 16)).astype(np.float32)
        descriptors1 = descriptors0 + rng.normal(0, 0.4, (count, 16)).astype(np.float32)
    order = rng.permutation(count)[: count - 9]
    scores = (
        rng.choice(np.float32([0.1, 0.5, 0.9]), count)
        if seed % 2
        else rng.uniform(size=count).astype(np.float32)
    )
    return (
        Features(keypoints=points0, scores=scores, descriptors=descriptors0).by_score(),
        Features(
            keypoints=points1[order].astype(np.float32), scores=scores[order], descriptors=descriptors1[order]
        ).by_score(),
        matrix,
        size,
    )


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
@pytest.mark.parametrize("seed", range(4))
def test_a_pair_scores_as_in_a_second_implementation(seed, kind):
    features0, features1, matrix, size = random_pair(seed, kind)
    protocol = config.protocol(image_size=size, top_k=(40, 1000))
    rows = evaluation.score_pair(features0, features1, matrix, protocol)
    assert [row["top_k"] for row in rows] == [40, 1000] and {row["status"] for row in rows} == {"ok"}
    for row in rows:
        expected = slow_scores(features0, features1, matrix, size, row["top_k"])
        found = {name: row[name] for name in expected}
        # RANSAC may settle on a slightly different set of inliers; the rest is the same to rounding.
        error = expected.pop("corner_error")
        assert found.pop("corner_error") == pytest.approx(error, abs=0.05)
        for name, limit in (("d1", 1), ("d3", 3), ("d5", 5)):
            same = found.pop(name) == expected.pop(name)
            assert same or abs(error - limit) < 0.05
        assert found == pytest.approx(expected, abs=1e-6)
        assert row["d1"] <= row["d3"] <= row["d5"]


@pytest.mark.parametrize("method", extractors.methods())
def test_an_image_and_itself(method, textured):
    features = extractors.create(method).extract(textured((120, 160)))
    for row in evaluation.score_pair(
        features, features, np.eye(3), config.protocol(image_size=(120, 160), top_k=(50, 300))
    ):
        assert (row["repeatability"], row["localization_error"], row["status"]) == (1, 0, "ok")
        assert row["d1"] == row["d3"] == row["d5"] == 1 and row["corner_error"] < 1e-6
        assert row["matching_score"] > 0.95  # two keypoints may share a place or a descriptor
        assert row["num_inliers"] == row["num_matches"] > 20


@pytest.mark.parametrize(
    ("missed", "correct"), [(0.9, (1, 1, 1)), (2, (0, 1, 1)), (4, (0, 0, 1)), (6, (0, 0, 0))]
)
def test_a_truth_that_is_off_by_some_pixels_costs_what_it_should(missed, correct, textured):
    features = extractors.create("sift").extract(textured((120, 160)))
    truth = np.array([[1, 0, missed], [0, 1, 0], [0, 0, 1.0]])
    (row,) = evaluation.score_pair(
        features, features, truth, config.protocol(image_size=(120, 160), top_k=1000)
    )
    assert (row["d1"], row["d3"], row["d5"]) == correct
    assert row["corner_error"] == pytest.approx(missed, abs=1e-6)
    assert [row[f"mma_{limit}"] for limit in range(1, 11)] == [
        float(missed <= limit) for limit in range(1, 11)
    ]


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)])
def test_a_pair_without_keypoints_fails_with_its_reason(empty):
    pair = list(random_pair(0, np.float32)[:2])
    for side in empty:
        pair[side] = pair[side].take(slice(0))
    (row,) = evaluation.score_pair(*pair, np.eye(3), config.protocol(image_size=(90, 120), top_k=50))
    assert row["status"] == "failed" and f"image {empty[0]}" in row["reason"]
    assert [row[name] for name in ("repeatability", "d1", "d3", "d5", "matching_score", "mma_10")] == [0] * 6
    assert math.isnan(row["localization_error"]) and math.isnan(row["corner_error"])


def test_accuracy_and_correctness_share_their_limits():
    assert accuracy(3, [3.0]) == 1 and accuracy(3, [3.0001]) == 0
    assert matching.mutual(diagonal(3)).tolist() == [[0, 0], [1, 1], [2, 2]]
