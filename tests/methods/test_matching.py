"""Matching against brute force, OpenCV, and hand-made distances."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from kp2d import checks
from kp2d.methods import matching, registration
from kp2d.methods.decode import Features

DISTANCES = np.array([[1, 5, 9], [2, 1.5, 9], [0.5, 4, 8]])
# Few values, so that ties are everywhere.
TIED = arrays(
    np.float32, st.tuples(st.integers(0, 6), st.integers(0, 6)), elements=st.sampled_from([0, 1, 2, 3])
)


def unit(rng, count, width=32):
    descriptors = rng.normal(size=(count, width)).astype(np.float32)
    return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


def test_float_distances_agree_with_brute_force():
    rng = np.random.default_rng(0)
    first, second = unit(rng, 50), unit(rng, 40)
    found = matching.descriptor_distances(first, second)
    assert found.dtype == np.float32 and found.shape == (50, 40)
    assert found == pytest.approx(cdist(first, second), abs=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("limit", [1, 7 * 40 * 32, 2**18])
def test_one_thread_finds_the_distances_and_matches_of_all(kind, limit, monkeypatch):
    monkeypatch.setattr(matching, "ONE_THREAD", limit)  # blocks of one row, of some, of all
    rng = np.random.default_rng(4)
    for counts in ((50, 40), (40, 50), (1, 30), (30, 1), (0, 30), (30, 0)):
        first, second = ((100 * rng.random((count, 32))).astype(kind) for count in counts)
        distances = matching.descriptor_distances(first, second)
        blocks = matching.descriptor_distances(first, second, one_thread=True)
        assert blocks.shape == distances.shape and blocks == pytest.approx(distances, rel=1e-4, abs=1e-3)
        found = matching.mutual_nearest(first, second)
        assert found.tolist() == matching.mutual(distances).tolist() and found.dtype == np.int64


@pytest.mark.parametrize("limit", [1, 2**14, 2**18])
def test_descriptors_of_unit_length_match_by_their_products_and_equal_ones_by_the_lower_index(
    limit, monkeypatch
):
    monkeypatch.setattr(matching, "ONE_THREAD", limit)
    rng = np.random.default_rng(6)
    first, second = unit(rng, 150), unit(rng, 130)
    second[:90] = first[:90] + 0.2 * unit(rng, 90)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    first, second = first[rng.integers(0, 150, 300)], second[rng.integers(0, 130, 290)]  # many twice
    first, second = first[::-1], second[::-1]  # as features are matched, the weakest first
    products = np.round(first @ second.T, 4)  # whatever the block of a product rounds to
    assert matching.mutual_nearest(first, second).tolist() == matching.mutual(-products).tolist()


def test_products_under_way_at_the_same_time_do_not_share_their_memory():
    rng = np.random.default_rng(7)
    first, second, third = (unit(rng, count) for count in (500, 400, 450))
    for _ in range(2):  # the second time, one of them has the memory that was kept
        pairs = zip(matching._products(first, second), matching._products(first, third), strict=True)
        (one, other), *_ = ((rows0.copy(), rows1.copy()) for rows0, rows1 in pairs)
        assert one == pytest.approx(first[: len(one)] @ second.T, abs=1e-6)
        assert other == pytest.approx(first[: len(other)] @ third.T, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    *[arrays(np.uint8, st.tuples(st.integers(0, 9), st.just(1)), elements=st.integers(0, 3))] * 2,
    st.sampled_from([1, 16 * 8, 16 * 8 * 3, 2**18]),
)
def test_nearest_without_a_matrix_tie_like_those_of_the_matrix(first, second, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "ONE_THREAD", limit)
        found = matching.mutual_nearest(first, second)
    assert found.tolist() == matching.mutual(matching.descriptor_distances(first, second)).tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_distances_of_matches_are_those_among_all_distances(kind):
    rng = np.random.default_rng(5)
    first, second = ((250 * rng.random((count, 32))).astype(kind) for count in (30, 20))
    distances = matching.descriptor_distances(first, second)
    matches = matching.mutual(distances)
    found = matching.match_distances(first, second, matches)
    assert found == pytest.approx(distances[tuple(matches.T)], abs=0.01)
    assert matching.match_distances(first, second, matches[:0]).shape == (0,)


def test_equal_float_descriptors_have_nearly_no_distance_and_never_nan():
    descriptors = unit(np.random.default_rng(1), 60, 128)
    distances = matching.descriptor_distances(descriptors, descriptors)
    assert np.isfinite(distances).all() and np.diag(distances).max() < 1e-3
    assert np.array_equal(matching.mutual(distances), np.stack([np.arange(60)] * 2, axis=1))


def test_hamming_distances_are_exact():
    rng = np.random.default_rng(2)
    first, second = (rng.integers(0, 256, (count, 32), np.uint8) for count in (30, 20))
    second[3], second[4] = first[5], ~first[6]
    found = matching.descriptor_distances(first, second)
    expected = np.unpackbits(first[:, None] ^ second[None], axis=2).sum(axis=2)
    assert np.array_equal(found, expected) and found.dtype == np.float32
    assert found[5, 3] == 0 and found[6, 4] == 256


@pytest.mark.parametrize(("width", "kind"), [(4, np.uint8), (32, np.uint8), (64, np.float32)])
def test_mutual_nearest_agree_with_opencv(width, kind):
    rng = np.random.default_rng(width)
    if kind == np.uint8:  # with 32 bits many distances are equal
        first, second = (rng.integers(0, 256, (count, width), np.uint8) for count in (80, 70))
    else:
        first, second = unit(rng, 80, width), unit(rng, 70, width)
    norm = cv2.NORM_HAMMING if kind == np.uint8 else cv2.NORM_L2
    theirs = sorted(
        (m.queryIdx, m.trainIdx) for m in cv2.BFMatcher(norm, crossCheck=True).match(first, second)
    )
    ours = matching.mutual_nearest(first, second)
    assert len(ours) > 5 and ours.tolist() == [list(pair) for pair in theirs]


def test_nearest_and_mutual_by_hand():
    assert matching.nearest(DISTANCES).tolist() == [[0, 0], [1, 1], [2, 0]]
    assert matching.mutual(DISTANCES).tolist() == [[1, 1], [2, 0]]
    assert all(f(DISTANCES).dtype == np.int64 for f in (matching.nearest, matching.mutual))


def test_ties_go_to_the_lower_index():
    assert matching.nearest(np.array([[3, 1, 1], [2, 2, 2]])).tolist() == [[0, 1], [1, 0]]
    assert matching.mutual(np.ones((3, 4))).tolist() == [[0, 0]]


def test_features_match_best_first_and_ties_go_to_the_weakest():
    def features(bits):
        count = len(bits)
        keypoints, scores = np.zeros((count, 2), np.float32), np.linspace(1, 0, count, dtype=np.float32)
        return Features(keypoints=keypoints, scores=scores, descriptors=np.array(bits, np.uint8)[:, None])

    matches = registration.match_features(features([0, 255, 15]), features([15, 0, 255, 0]))
    assert matches.tolist() == [[0, 3], [1, 2], [2, 0]] and matches.dtype == np.int64
    assert registration.match_features(features([]), features([0])).shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
@pytest.mark.parametrize("match", [matching.nearest, matching.mutual])
def test_an_empty_side_gives_no_matches(match, shape):
    matches = match(np.empty(shape, np.float32))
    assert matches.shape == (0, 2) and matches.dtype == np.int64


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_distances_of_none_and_one(kind, counts):
    sets = [np.zeros((count, 4), kind) for count in counts]
    assert matching.descriptor_distances(*sets).shape == counts


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32)),
        (np.zeros((2, 4), np.float32), np.zeros((2, 4), np.uint8)),
        (np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.float32)),
        (np.zeros(4, np.float32), np.zeros((2, 4), np.float32)),
        (np.zeros((1, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32)),
    ],
)
def test_two_kinds_of_descriptors_are_refused_with_their_shapes(first, second):
    for compare in (matching.descriptor_distances, matching.mutual_nearest):
        with pytest.raises(checks.InputError, match="one kind and length") as caught:
            compare(first, second)
        assert f"{second.dtype} {list(second.shape)}" in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(distances=TIED)
def test_mutual_is_the_same_from_either_side(distances):
    forth, back = matching.mutual(distances), matching.mutual(distances.T)
    assert sorted(map(tuple, forth.tolist())) == sorted((row, column) for column, row in back.tolist())
    assert len(set(forth[:, 0])) == len(set(forth[:, 1])) == len(forth)
    assert set(map(tuple, forth.tolist())) <= set(map(tuple, matching.nearest(distances).tolist()))


@settings(max_examples=60, deadline=None)
@given(distances=TIED)
def test_a_match_has_the_smallest_distance_of_its_row(distances):
    for row, column in matching.nearest(distances):
        assert distances[row, column] == distances[row].min()
        assert (distances[row, :column] > distances[row, column]).all()


def steerable(count, seed=0, dim=32):
    descriptors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


@pytest.mark.parametrize("quarters", range(4))
def test_the_turn_of_an_image_is_found_among_outliers(quarters):
    descriptors0 = steerable(400)
    noise = steerable(400, seed=1)
    descriptors1 = (
        np.concatenate([matching.turn(descriptors0[:120], quarters), noise[:300]]) + 0.4 * noise[:1]
    )
    assert matching.best_turn(descriptors0, descriptors1) == quarters


@pytest.mark.parametrize(("side", "few"), list(enumerate(matching.FEW)))
def test_all_keypoints_vote_on_a_turn_where_few_are_not_clear(side, few):
    descriptors, noise = steerable(matching.VOTERS), steerable(few, seed=1)
    turned = matching.turn(descriptors[few:], 3 - 2 * side)
    pair = [descriptors, np.concatenate([noise, turned])]
    pair = pair[::-1] if side else pair
    first = [voters[:count] for voters, count in zip(pair, matching.FEW, strict=True)]
    assert np.ptp(matching._likeness_of_turns(*first)) < matching.CLEAR
    assert matching.best_turn(*pair) == 3


def test_the_turn_is_that_of_the_most_similar_matches_of_four_products():
    rng = np.random.default_rng(3)
    for _ in range(20):
        descriptors0, descriptors1 = unit(rng, rng.integers(1, 90), 8), unit(rng, rng.integers(1, 90), 8)
        share = max(1, min(len(descriptors0), len(descriptors1)) // 5)
        likeness = []
        for quarters in range(4):
            similarity = matching.turn(descriptors0, quarters) @ descriptors1.T
            rows, columns = matching.mutual(-similarity).T
            likeness.append(np.sort(similarity[rows, columns])[-share:].mean())
        assert matching.best_turn(descriptors0, descriptors1) == np.argmax(likeness)


def test_a_quarter_moves_the_blocks_on_by_one():
    assert matching.turn(np.arange(8)[None], 1).tolist() == [[6, 7, 0, 1, 2, 3, 4, 5]]
    assert matching.turn(np.arange(8)[None], -1).tolist() == [[2, 3, 4, 5, 6, 7, 0, 1]]


def test_turns_add_up_to_none_and_nothing_is_upright():
    descriptors = steerable(5)
    assert np.array_equal(matching.turn(matching.turn(descriptors, 1), 3), descriptors)
    assert matching.best_turn(descriptors[:0], descriptors) == 0
    assert matching.best_turn(descriptors, descriptors) == 0
