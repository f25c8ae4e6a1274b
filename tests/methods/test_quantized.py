"""The network in integers: rounding lies on its grid, lets gradients through, and keeps to its scheme."""

import keras
import numpy as np
import pytest
from keras import ops
from small_network import SMALL_CORAL

from kp2d.checks import InputError
from kp2d.methods import networks
from kp2d.methods.decode import normalized
from kp2d.methods.quantized import (
    FLOAT,
    INT8,
    PIXEL_RANGE,
    PIXEL_SHIFT,
    Quantize,
    QuantizedConv2D,
    Scheme,
    build_inspector,
    build_quantized_network,
    quantize_kernel,
)


def image(size=(64, 96)):
    return np.random.default_rng(0).integers(0, 256, (1, *size, 3)).astype(np.float32) / 127.5 - 1


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_kernel_is_rounded_to_a_symmetric_grid(per_channel, bits):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 4)).astype(np.float32) * [1, 2, 4, 8]
    rounded = ops.convert_to_numpy(
        quantize_kernel(ops.convert_to_tensor(kernel, "float32"), bits, per_channel=per_channel)
    )
    levels = 2 ** (bits - 1) - 1
    scales = np.abs(kernel).max(axis=(0, 1, 2) if per_channel else None) / levels
    steps = rounded / scales
    assert np.abs(steps - np.round(steps)).max() < 1e-3 and np.abs(steps).max() <= levels + 1e-3
    assert np.abs(rounded - kernel).max() <= (scales / 2 + 1e-6).max()


def test_a_channel_of_zeros_stays_zero():
    kernel = np.zeros((3, 3, 2, 2), np.float32)
    kernel[..., 1] = 1.0
    np.testing.assert_allclose(
        ops.convert_to_numpy(quantize_kernel(ops.convert_to_tensor(kernel), 8)), kernel
    )


def test_pixels_are_exact():
    layer = Quantize(ends=PIXEL_RANGE, fixed="both")
    pixels = (np.arange(256, dtype=np.float32) - 127) / np.float32(127.5)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(pixels, bits=8)), pixels, atol=1e-6)
    assert pytest.approx(0.5 / 127.5) == PIXEL_SHIFT


def test_rounding_lets_gradients_through_and_ranges_learn():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow's tape")
    import tensorflow as tf

    convolution, quantize = QuantizedConv2D(2, bits=8), Quantize(ends=(0.0, 0.5), fixed="low")
    with tf.GradientTape() as tape:
        loss = ops.sum(ops.square(quantize(ops.relu(convolution(ops.ones((1, 8, 8, 3)))), bits=8)))
    kernel, high = tape.gradient(loss, [convolution.kernel.value, quantize.high.value])
    assert np.abs(kernel).max() > 0 or np.abs(high) > 0
    assert [v.path.rpartition("/")[2] for v in quantize.trainable_variables] == ["high"]


def test_weights_are_the_same_for_every_scheme(small_preset):
    of = {
        scheme: [v.path for v in build_quantized_network(small_preset, scheme=scheme).weights]
        for scheme in (INT8, FLOAT, Scheme(parts=("score",)), Scheme(descriptor_bits=4))
    }
    assert len({tuple(paths) for paths in of.values()}) == 1
    bare = {v.path for v in build_quantized_network(small_preset, bare=True).weights}
    assert set(of[INT8]) - bare == {"score_sharpen/sharpness"}


@pytest.mark.parametrize("part", ["encoder", "score", "offset", "descriptor"])
def test_a_part_that_is_not_quantized_is_not_rounded(small_preset, part):
    scheme = Scheme(parts=tuple(p for p in ("encoder", "score", "offset", "descriptor") if p != part))
    inspector = build_inspector(small_preset, scheme=scheme)
    tensors = inspector(image(), training=False)
    name = {"encoder": "conv1a", "descriptor": "descriptor_b"}.get(part, f"{part}_map")
    assert len(np.unique(ops.convert_to_numpy(tensors[name]))) > 256
    other = "conv1a" if part != "encoder" else "score_map"
    assert len(np.unique(ops.convert_to_numpy(tensors[other]))) <= 256


@pytest.mark.parametrize(
    "wrong", [{"weight_bits": 1}, {"activation_bits": 17}, {"descriptor_bits": 8.5}, {"parts": ("head",)}]
)
def test_a_scheme_refuses_what_makes_no_sense(wrong):
    with pytest.raises(InputError):
        Scheme(**wrong)


def test_gradients_reach_every_kernel_of_both_networks():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow's tape")
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    pixels = np.random.default_rng(3).integers(0, 256, (1, 48, 64, 3), np.uint8)
    image = normalized(pixels)
    for network in (networks.build_network(SMALL_CORAL), build_quantized_network(SMALL_CORAL)):
        kernels = {v.path: v.value for v in network.trainable_variables if v.path.endswith("kernel")}
        with tf.GradientTape() as tape:
            heads = network(image, training=True)
            loss = sum(tf.reduce_sum(tf.square(head)) for head in heads.values())
        found = tape.gradient(loss, kernels)
        assert len(found) == 17 and all(np.abs(each).max() > 0 for each in found.values())
