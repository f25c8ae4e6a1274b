"""Quantization: folding and evening keep the network's function, ranges fit, scores are spread."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from small_network import SMALL_COARSE

from kp2d.checks import InputError
from kp2d.methods import networks
from kp2d.methods.quantized import FLOAT, INT8, quantize_kernel
from kp2d.quantize import calibration, quantization

SIZE = (64, 96)


def trained_like(preset, seed=0):
    """A float network whose batch norm does something."""
    keras.utils.set_random_seed(seed)  # else its kernels hang on the tests that ran before
    network, rng = networks.build_network(preset), np.random.default_rng(seed)
    for variable in network.weights:
        kind = variable.path.rpartition("/")[2]
        if kind in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif kind in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return network


def image(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3)).astype(np.float32) / 127.5 - 1


@pytest.fixture(params=[{}, {"activation": "leaky_relu"}, {"upsampling": "nearest"}, "coarse"], ids=str)
def config(request, small_preset):
    if request.param == "coarse":
        return SMALL_COARSE
    return dataclasses.replace(networks.get_preset(small_preset), **request.param)


def assert_same_function(network, folded, config):
    wanted = network(image(), training=False)
    got = quantization.quantized_from(config, folded, {}, FLOAT)(image(), training=False)
    for name, head in wanted.items():
        difference = np.abs(ops.convert_to_numpy(head - got[name]))
        margin = slice(difference.shape[1] // 3, -(difference.shape[1] // 3))
        # Padding is worth half a pixel less in the shifted network, so the border differs a little.
        assert difference[:, margin, margin].max() < 2e-3 and difference.max() < 0.05, name


def test_folding_keeps_the_function(config):
    network = trained_like(config)
    assert_same_function(network, calibration.fold(quantization.read_weights(network)), config)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_evening_channels_keeps_the_function(config, strength):
    network = trained_like(config)
    folded = calibration.fold(quantization.read_weights(network))
    tensors = quantization.inspect(config, folded, FLOAT)(image())
    largest = {name: np.abs(values).max(axis=(0, 1, 2)) for name, values in tensors.items()}
    evened = calibration.equalize(folded, largest, config, strength=strength)
    assert_same_function(network, evened, config)
    after = quantization.inspect(config, evened, FLOAT)(image())
    if config.joined:
        assert np.abs(after["conv3b"]).max() == pytest.approx(np.abs(after["descriptor_b"]).max(), rel=1e-3)
    if strength == 1.0:
        loud = np.abs(after["conv2a"]).max(axis=(0, 1, 2))
        assert loud.min() > 0.99 * loud.max() or largest["conv2a"].min() < 0.02 * largest["conv2a"].max()


def test_every_channel_has_a_reader_and_widths_fit():
    for config in (*networks.PRESETS.values(), SMALL_COARSE):
        network = networks.build_network(config)
        kernels = {v.path.removesuffix("/kernel"): v.shape for v in network.weights if "kernel" in v.path}
        readers = calibration.consumers(config)
        unread = {"score_b", "offset_b", "descriptor_map"}
        unread |= set() if config.descriptor_blocks else {"descriptor_b"}  # its channels become places
        assert set(readers) | unread == set(kernels)
        for layer, entries in readers.items():
            for reader, source in entries:
                assert len(source) == kernels[reader][2], (layer, reader)
                assert source.max() == kernels[layer][3] - 1


@given(
    low=st.floats(-20, 0),
    high=st.floats(0.01, 20),
    bits=st.integers(2, 8),
    values=st.lists(st.floats(-30, 30), min_size=1, max_size=20),
)
def test_a_grid_holds_zero_and_rounds_to_the_nearest(low, high, bits, values):
    scale = (high - low) / (2**bits - 1)
    values = np.array([0.0, *values])
    rounded = calibration.round_to_grid(values, low, high, bits)
    assert rounded[0] == 0 and len(np.unique(rounded)) <= 2**bits
    np.testing.assert_allclose(calibration.round_to_grid(rounded, low, high, bits), rounded, atol=1e-9)
    inner = (values > low + scale) & (values < high - scale)
    assert (np.abs(rounded - values)[inner] <= scale / 2 + 1e-9).all()


def test_the_grid_of_a_range_reaches_both_of_its_ends():
    rounded = calibration.round_to_grid(np.array([-9.0, -1.4, 1.4, 253.6, 300.0]), -1.0, 254.0)
    np.testing.assert_allclose(rounded, [-1, -1, 1, 254, 254])


def statistics(values):
    run = {"x": np.asarray(values, np.float32).reshape(1, 1, -1, 1)}
    return calibration.measure(lambda _: run, [None])["x"]


def test_ranges_cut_off_what_costs_more_than_it_is_worth():
    rng = np.random.default_rng(0)
    one = statistics(np.append(np.abs(rng.normal(size=200_000)), 40.0))
    assert calibration.choose_range("x", one, method="minmax") == (0.0, pytest.approx(40.0))
    _, percentile = calibration.choose_range("x", one, method="percentile")
    _, mse = calibration.choose_range("x", one, method="mse")
    assert 3 < percentile < 5 and 10 < mse < 36

    def error(high):
        return np.square(calibration.round_to_grid(one.centers(), 0, high) - one.centers()) @ one.counts

    assert error(mse) < min(error(40.0), error(2.0))


def test_ranges_before_a_squash_look_at_what_comes_out():
    values = np.random.default_rng(0).normal(scale=6, size=100_000)
    plain = calibration.choose_range("descriptor_map", statistics(values))
    squashed = calibration.choose_range("offset_b", statistics(values))
    assert squashed[1] < 0.5 * plain[1] and squashed[0] > 0.5 * plain[0]


@pytest.mark.parametrize("values", [[0, 0, 0], [2.0, 3.0], [-1.0, -2.0]])
@pytest.mark.parametrize("method", calibration.METHODS)
def test_ranges_hold_zero(values, method):
    low, high = calibration.choose_range("x", statistics(values), method=method)
    assert low <= 0 < high


def test_measuring_needs_images_and_finite_values():
    with pytest.raises(InputError, match="images to calibrate with"):
        calibration.measure(lambda _: {}, [])
    with pytest.raises(InputError, match="NaN or infinity in x"):
        calibration.measure(lambda _: {"x": np.full((1, 1, 1, 1), np.nan)}, [None])
    with pytest.raises(InputError, match="method"):
        calibration.choose_range("x", statistics([1.0]), method="best")


def test_corrected_biases_take_out_the_mean_error(small_preset):
    rng = np.random.default_rng(0)
    weights = {"conv1a/kernel": rng.normal(size=(3, 3, 3, 5)).astype(np.float32), "conv1a/bias": np.ones(5)}
    measured = {"image": calibration.TensorStatistics(channel_mean=rng.uniform(0, 2, 3))}
    config = networks.get_preset(small_preset)
    bias = quantization._correct_biases(weights, measured, config, INT8)["conv1a/bias"]
    error = np.asarray(quantize_kernel(weights["conv1a/kernel"], 8)) - weights["conv1a/kernel"]
    constant = np.broadcast_to(measured["image"].channel_mean, (3, 3, 3))
    np.testing.assert_allclose(1 - bias, np.einsum("hwc,hwcn->n", constant, error), atol=1e-6)


def test_spread_scores_share_fewer_levels(small_preset):
    config = networks.get_preset(small_preset)
    network = trained_like(config)
    for variable in network.weights:  # scores as saturated as those of a trained network
        if variable.path == "score_b/kernel":
            variable.assign(variable * 30)
    distinct = {}
    for spread in (True, False):
        options = quantization.PostTraining(spread_scores=spread)
        quantized = quantization.post_training(network, config, [image(1)], options=options)
        distinct[spread] = len(np.unique(ops.convert_to_numpy(quantized(image())["score_map"])))
    assert distinct[True] > distinct[False]
