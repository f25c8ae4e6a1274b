"""Decoding: hand-made heads, the pixel convention, parity of the two array namespaces."""

import subprocess
import sys

import numpy as np
import pytest

from kp2d.checks import InputError
from kp2d.methods import decode as d


def make_heads(rows=5, columns=7, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "score_map": rng.uniform(0.01, 0.99, (1, rows, columns, 1)).astype(np.float32),
        "offset_map": rng.uniform(-1, 1, (1, rows, columns, 2)).astype(np.float32),
        "descriptor_map": rng.normal(size=(1, 2 * rows, 2 * columns, dim)).astype(np.float32),
    }


def test_cell_centers():
    centers = d.cell_centers((2, 3), 4)
    assert centers.shape == (2, 3, 2)
    np.testing.assert_array_equal(centers[0, 0], [1.5, 1.5])
    np.testing.assert_array_equal(centers[1, 2], [9.5, 5.5])


@pytest.mark.parametrize(("cell", "reach"), [(4, 3.0), (8, 7.0)])
def test_offset_reaches_two_half_cells_and_is_clipped(cell, reach):
    offsets = np.zeros((1, 4, 5, 2), np.float32)
    offsets[0, 1, 2] = [1, -1]
    offsets[0, 0, 0] = [-1, -1]
    offsets[0, 3, 4] = [1, 1]
    keypoints = d.keypoint_map(offsets, cell)[0]
    center = [2 * cell + (cell - 1) / 2, cell + (cell - 1) / 2]
    np.testing.assert_allclose(keypoints[1, 2], [center[0] + reach, center[1] - reach])
    np.testing.assert_array_equal(keypoints[0, 0], [0, 0])
    np.testing.assert_array_equal(keypoints[3, 4], [5 * cell - 1, 4 * cell - 1])


def test_bilinear_reads_a_linear_map_exactly():
    rows, columns, image_size = 6, 8, (12, 16)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    feature_map = np.stack([x * 15 / 7, y * 11 / 5], axis=-1)[None]
    points = np.array([[[0, 0], [15, 11], [3.3, 7.7], [14.9, 0.2], [-5, 40]]], np.float32)
    inside = np.clip(points, 0, [15, 11])
    np.testing.assert_allclose(d.sample_bilinear(feature_map, points, image_size), inside, atol=1e-5)


@pytest.mark.parametrize(("map_size", "step"), [((10, 14), None), ((5, 7), 4), ((3, 4), 8), ((2, 3), 12)])
def test_samples_of_coarse_maps_stand_in_the_middle_of_their_cells(map_size, step):
    assert d.sample_step((5, 7), map_size, 4) == step
    if step is None:
        return
    x, y = np.meshgrid(*(step * np.arange(count) + (step - 1) / 2 for count in map_size[::-1]))
    feature_map = np.stack([x, y], axis=-1)[None]
    inside = np.array([[[step / 2, step], [x.max() - 0.7, y.max() - 1.3]]], np.float32)
    np.testing.assert_allclose(d.sample_bilinear(feature_map, inside, (20, 28), step=step), inside, atol=1e-5)
    corners = np.array([[[0, 0], [27, 19]]], np.float32)
    ends = [[x.min(), y.min()], [min(x.max(), 27), min(y.max(), 19)]]
    np.testing.assert_allclose(
        d.sample_bilinear(feature_map, corners, (20, 28), step=step)[0], ends, atol=1e-5
    )


@pytest.mark.parametrize("step", [None, 2])
def test_numpy_and_keras_agree(step):
    from keras import ops

    heads = make_heads()
    offset_map, descriptor_map = heads["offset_map"], heads["descriptor_map"]
    points = d.keypoint_map(offset_map, 4)
    points_ops = d.keypoint_map(ops.convert_to_tensor(offset_map), 4, xp=ops)
    np.testing.assert_allclose(points, ops.convert_to_numpy(points_ops), atol=1e-6)
    flat = points.reshape(1, -1, 2)
    read = d.normalize(d.sample_bilinear(descriptor_map, flat, (20, 28), step=step))
    read_ops = d.sample_bilinear(
        ops.convert_to_tensor(descriptor_map), ops.convert_to_tensor(flat), (20, 28), step=step, xp=ops
    )
    read_ops = ops.convert_to_numpy(d.normalize(read_ops, xp=ops))
    np.testing.assert_allclose(read, read_ops, atol=1e-6)


def test_decode_sorts_and_drops_the_border():
    features = d.decode(**make_heads(), cell=4)
    assert features.keypoints.shape == (3 * 5, 2)
    assert np.all(np.diff(features.scores) <= 0)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert features.keypoints.dtype == features.descriptors.dtype == np.float32


def test_decode_breaks_ties_by_index():
    heads = make_heads()
    heads["score_map"][:] = 0.5
    heads["offset_map"][:] = 0
    features = d.decode(**heads, cell=4, top_k=3)
    np.testing.assert_array_equal(features.keypoints, [[5.5, 5.5], [9.5, 5.5], [13.5, 5.5]])


def test_decode_may_find_nothing():
    features = d.decode(**make_heads(), cell=4, score_threshold=0.999)
    assert features.keypoints.shape == (0, 2)
    assert features.descriptors.shape == (0, 4)


def test_decode_refuses_a_batch():
    heads = {name: np.repeat(head, 2, axis=0) for name, head in make_heads().items()}
    with pytest.raises(InputError, match="one image at a time"):
        d.decode(**heads, cell=4)


def test_pixels_gray_equals_repeated_color():
    gray = np.random.default_rng(0).integers(0, 256, (16, 24), np.uint8)
    x = d.pixels(gray, 4)
    assert x.shape == (1, 16, 24, 3) and x.dtype == np.uint8
    np.testing.assert_array_equal(x, d.pixels(np.stack([gray] * 3, axis=-1), 4))
    assert d.normalized(d.pixels(np.zeros((2, 16, 24, 3), np.uint8), 4)).min() == -1
    assert d.normalized(d.pixels(np.full((16, 24, 1), 255, np.uint8), 4)).max() == 1


def test_pixels_of_a_picture_in_colour_are_not_copied():
    image = np.zeros((12, 16, 3), np.uint8)
    assert np.shares_memory(d.pixels(image, 4), image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((16, 24), np.float32), np.zeros((16, 24, 4), np.uint8), np.zeros((16, 25), np.uint8)],
)
def test_pixels_refuses(image):
    with pytest.raises(InputError, match="received"):
        d.pixels(image, 4)


def test_dequantize():
    values = np.array([-128, 0, 127], np.int8)
    np.testing.assert_allclose(d.dequantize(values, 1 / 256, -128), [0, 0.5, 255 / 256])


def test_decoding_needs_no_keras():
    code = "import sys, kp2d.methods.decode; sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sharpening_undoes_flat_scores():
    logits = np.linspace(-6, 12, 50)
    flat = 1 / (1 + np.exp(-logits / 2.5))
    np.testing.assert_allclose(d.sharpen(flat, 2.5), 1 / (1 + np.exp(-logits)), atol=1e-3)
    np.testing.assert_array_equal(d.sharpen(np.arange(256) / 256, 1.0), np.arange(256) / 256)
    levels = d.sharpen(np.arange(256) / 256, 3.0)
    assert (np.diff(levels[:-1]) > 0).all() and levels.min() > 0 and levels.max() < 1


def test_descriptors_in_integers_are_those_of_their_numbers():
    rng = np.random.default_rng(7)
    score_map = rng.random((1, 6, 8, 1)).astype(np.float32)
    offset_map = rng.uniform(-1, 1, (1, 6, 8, 2)).astype(np.float32)
    kept = d.QuantizedMap(rng.integers(-128, 128, (1, 12, 16, 5), np.int8), 0.03, 4)
    numbers = d.dequantize(kept.values, kept.scale, kept.zero_point)
    ours, theirs = (d.decode(score_map, offset_map, heads, cell=4) for heads in (kept, numbers))
    np.testing.assert_array_equal(ours.descriptors, theirs.descriptors)


@pytest.mark.parametrize("top_k", [None, 1, 2, 5, 23, 24, 100])
def test_the_best_are_those_of_a_stable_sort(top_k):
    score_map = np.random.default_rng(8).integers(0, 4, (1, 6, 8, 1)).astype(np.float32) / 4  # ties, zeros
    inside = np.zeros((6, 8))
    inside[1:-1, 1:-1] = score_map[0, 1:-1, 1:-1, 0]
    order = np.argsort(-inside.reshape(-1), kind="stable")
    expected = order[inside.reshape(-1)[order] > 0][:top_k]
    zeros = np.zeros((1, 6, 8, 2), np.float32), np.ones((1, 12, 16, 4), np.float32)
    features = d.decode(score_map, *zeros, cell=4, top_k=top_k)
    np.testing.assert_array_equal(features.keypoints, d.cell_centers((6, 8), 4).reshape(-1, 2)[expected])
