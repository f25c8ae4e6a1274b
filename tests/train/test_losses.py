"""Loss terms on hand-made cases: 0 when perfect, more when worse, gradients where they belong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kp2d.methods.decode import keypoint_map
from kp2d.train import losses

RNG = np.random.default_rng(0)


def number(x):
    return float(ops.convert_to_numpy(x))


def unit(shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def gradient(function, *values):
    """Gradients of a scalar function (the tests run on the TensorFlow backend)."""
    import tensorflow as tf

    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = function(*tensors)
    grads = tape.gradient(result, tensors)
    return [None if g is None else tf.convert_to_tensor(g).numpy() for g in grads]


ALL = np.ones((1, 6), bool)


def test_warp_uses_column_vectors():
    homography = np.array([[[2, 0, 5], [0, 3, -1], [0, 0, 1]]], np.float32)
    warped = losses.warp_points(np.array([[[1, 2]]], np.float32), homography)
    np.testing.assert_allclose(ops.convert_to_numpy(warped), [[[7, 5]]])


def test_point_behind_the_horizon_is_outside():
    homography = np.array([[[1, 0, 0], [0, 1, 0], [-1, 0, 1]]], np.float32)
    warped = losses.warp_points(np.array([[[3, 2]]], np.float32), homography)
    assert not ops.convert_to_numpy(losses.inside(warped, (10, 10)))[0, 0]


def test_inside_includes_the_edge_pixels():
    points = np.array([[[0, 0], [9, 4], [9.1, 4], [4, -0.1]]], np.float32)
    result = ops.convert_to_numpy(losses.inside(points, (5, 10)))
    assert result.tolist() == [[True, True, False, False]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cell=st.sampled_from([4, 8]))
def test_nearest_keypoint_equals_brute_force(seed, cell):
    rng = np.random.default_rng(seed)
    rows, columns = 5, 7
    offsets = rng.uniform(-1, 1, (2, rows, columns, 2)).astype(np.float32)
    grid = keypoint_map(offsets, cell)
    points = rng.uniform(-10, 1.2 * cell * columns, (2, 40, 2)).astype(np.float32)
    distance, index = (ops.convert_to_numpy(x) for x in losses.nearest_keypoint(points, grid, cell))
    flat = grid.reshape(2, -1, 2)
    brute = np.linalg.norm(points[:, :, None] - flat[:, None], axis=-1)
    near = brute.min(axis=2) < losses.MAX_DISTANCE
    np.testing.assert_allclose(distance[near], brute.min(axis=2)[near], atol=1e-3)
    np.testing.assert_array_equal(index[near], brute.argmin(axis=2)[near])
    assert np.all(distance >= brute.min(axis=2) - 1e-3)


def test_identity_pair_has_no_localization_error():
    grid = keypoint_map(RNG.uniform(-0.2, 0.2, (1, 4, 5, 2)).astype(np.float32), 4)
    distance, index = losses.nearest_keypoint(grid.reshape(1, -1, 2), grid, 4)
    assert number(losses.localization_loss(distance, np.ones((1, 20), bool))) < 1e-3
    assert ops.convert_to_numpy(index).tolist() == [list(range(20))]


def test_localization_gradient_pulls_both_views_together():
    grid = np.array([[[[3.0, 3.0]]]], np.float32)
    points = np.array([[[2.0, 3.0]]], np.float32)

    def loss(points, grid):
        return losses.localization_loss(losses.nearest_keypoint(points, grid, 4)[0], ALL[:, :1])

    to_points, to_grid = gradient(loss, points, grid)
    np.testing.assert_allclose(to_points, [[[-1, 0]]], atol=1e-4)
    np.testing.assert_allclose(to_grid, [[[[1, 0]]]], atol=1e-4)


def test_masked_mean_ignores_and_survives_empty():
    values = np.array([[1, 2, 300], [5, 5, 5]], np.float32)
    mask = np.array([[1, 1, 0], [0, 0, 0]], bool)
    assert number(losses.masked_mean(values, mask)) == pytest.approx(0.75)


def test_usp_raises_scores_of_good_pairs_only():
    distance = np.array([[0, 1, 2, 3, 0, 0]], np.float32)
    mask = np.array([[1, 1, 1, 1, 0, 0]], bool)
    scores = np.full((1, 6), 0.5, np.float32)
    to0, to1, to_distance = gradient(lambda a, b, d: losses.usp_loss(a, b, d, mask), scores, scores, distance)
    np.testing.assert_allclose(to0[0], np.array([-1.5, -0.5, 0.5, 1.5, 0, 0]) / 4, atol=1e-6)
    np.testing.assert_allclose(to0, to1)
    assert to_distance is None or not to_distance.any()
    equal = losses.usp_loss(scores, scores, np.ones_like(distance), mask)
    assert number(equal) == pytest.approx(0, abs=1e-7)


def test_consistency():
    a, b = RNG.random((1, 6)).astype(np.float32), RNG.random((1, 6)).astype(np.float32)
    assert number(losses.consistency_loss(a, a, ALL)) == 0
    assert number(losses.consistency_loss(a, b, ALL)) == pytest.approx(((a - b) ** 2).mean())


def spread_points(count):
    return (np.arange(count, dtype=np.float32)[None, :, None] * 10).repeat(2, axis=-1)


def test_triplet_perfect_is_zero_and_shuffled_is_not():
    descriptors = np.eye(6, dtype=np.float32)[None]
    arguments = {"margin": 0.2, "relax": 4.0}
    perfect = losses.triplet_loss(descriptors, descriptors, spread_points(6), ALL, **arguments)
    shuffled = losses.triplet_loss(
        descriptors, np.roll(descriptors, 1, axis=1), spread_points(6), ALL, **arguments
    )
    assert number(perfect) == pytest.approx(0, abs=1e-3)
    assert number(shuffled) == pytest.approx(0.2 + np.sqrt(2), abs=1e-3)


def test_triplet_spares_near_and_unseen_points():
    descriptors = np.full((1, 2, 4), 0.5, np.float32)
    points = np.array([[[0, 0], [4, 4]]], np.float32)
    both = np.ones((1, 2), bool)
    near = losses.triplet_loss(descriptors, descriptors, points, both, margin=0.2, relax=4.0)
    assert number(near) == pytest.approx(0, abs=1e-3)
    far = losses.triplet_loss(descriptors, descriptors, 2 * points, both, margin=0.2, relax=4.0)
    assert number(far) == pytest.approx(0.2, abs=1e-3)
    unseen = np.array([[True, False]])
    alone = losses.triplet_loss(descriptors, descriptors, 2 * points, unseen, margin=0.2, relax=4.0)
    assert number(alone) == pytest.approx(0, abs=1e-3)


def dual(a, b, mask=ALL, **changes):
    arguments = {"temperature": 0.05, "relax": 4.0} | changes
    points = spread_points(a.shape[1]).repeat(len(a), axis=0)
    return losses.dual_softmax_loss(a, b, points, mask, **arguments)


def test_dual_softmax_perfect_shuffled_uniform():
    descriptors = np.eye(6, dtype=np.float32)[None]
    assert number(dual(descriptors, descriptors)) == pytest.approx(0, abs=1e-6)
    assert number(dual(descriptors, np.roll(descriptors, 1, axis=1))) > 10
    same = np.ones((1, 6, 4), np.float32) / 2
    assert number(dual(same, same)) == pytest.approx(np.log(6), abs=1e-4)


def test_dual_softmax_ignores_unseen_points():
    a, b = unit((1, 6, 8)), unit((1, 6, 8), seed=1)
    mask = np.array([[1, 1, 1, 1, 0, 0]], bool)
    fewer = dual(a[:, :4], b[:, :4], mask[:, :4])
    assert number(dual(a, b, mask)) == pytest.approx(number(fewer), abs=1e-4)
    grad0, grad1 = gradient(lambda x, y: dual(x, y, mask), a, b)
    assert not grad0[0, 4:].any() and not grad1[0, 4:].any()


def test_other_pictures_lend_negatives():
    a, b = unit((3, 6, 8)), unit((3, 6, 8), seed=1)
    mask = np.ones((3, 6), bool)
    values = [number(dual(a, b, mask, others=n)) for n in (0, 1, 2, 9)]
    assert values[0] < values[1] < values[2] == pytest.approx(values[3])


def test_corner_teacher():
    corner_map = RNG.uniform(0, 1, (2, 4, 5, 4)).astype(np.float32)
    assert number(losses.corner_offset_loss(corner_map[..., :2], corner_map)) == 0
    offset = number(losses.corner_offset_loss(corner_map[..., :2] + 0.5, corner_map))
    assert offset == pytest.approx(0.5, abs=1e-4)
    assert number(losses.corner_offset_loss(corner_map[..., :2], 0 * corner_map)) == 0, "no saliency at all"
    assert number(losses.corner_score_loss(corner_map[..., 3:], corner_map)) == 0
    assert number(losses.corner_score_loss(corner_map[..., 3:] + 0.5, corner_map)) == pytest.approx(0.25)


def test_point_pairs_and_inlier_loss():
    points = np.array([[[0, 0], [20, 0], [0, 12], [20, 12]]], np.float32).repeat(4, axis=1)
    points += np.arange(16, dtype=np.float32)[None, :, None] * 1e-3
    descriptors = unit((1, 16, 32))
    order = RNG.permutation(16)
    pairs, matched = losses.point_pairs(
        points, points[:, order], descriptors, descriptors[:, order], (13, 21)
    )
    pairs = ops.convert_to_numpy(pairs)
    np.testing.assert_allclose(ops.convert_to_numpy(matched), points)
    np.testing.assert_allclose(pairs[0, 0], [-1, -1, -1, -1, 0], atol=1e-3)
    assert number(losses.inlier_loss(np.ones((1, 16), np.float32), points, matched)) == 0
    wrong = losses.inlier_loss(-np.ones((1, 16), np.float32), points, matched)
    assert number(wrong) == pytest.approx(4)
    few = losses.inlier_loss(-np.ones((1, 16), np.float32), points + 50, matched)
    assert number(few) == 0


def test_losses_do_not_mix_the_batch():
    a, b = unit((2, 6, 8)), unit((2, 6, 8), seed=1)
    mask = np.ones((2, 6), bool)
    whole = number(dual(a, b, mask))
    halves = [number(dual(a[i : i + 1], b[i : i + 1], ALL)) for i in range(2)]
    assert whole == pytest.approx(np.mean(halves), abs=1e-5)
