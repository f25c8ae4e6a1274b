"""Architectures: exact sizes, shapes, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from small_network import SMALL, SMALL_CORAL

from kp2d.checks import InputError
from kp2d.methods import matching, weights
from kp2d.methods.networks import (
    CANDIDATES,
    PRESETS,
    ActivationAndDropout,
    BatchNormalization,
    DepthToSpace,
    NearestUpsampling,
    build_network,
    count_macs,
    get_preset,
)
from kp2d.methods.quantized import assign_by_name
from kp2d.train.learner import ContextNormalization, build_ionet


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_count_is_exact(name):
    assert build_network(name).count_params() == get_preset(name).num_parameters


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_keep_to_the_rules_of_their_kind(name):
    config = get_preset(name)
    assert (config.name, config.cell, config.activation) == (name, 4, "relu")
    assert config.descriptor_dim % matching.TURNS == 0, "or they could not be steered"
    assert min(width for widths in config.stages for width in widths) >= 16 and config.strides[0] == 2
    heads = build_network(name, (48, 64)).output
    assert heads["score_map"].shape == (None, 12, 16, 1) and heads["offset_map"].shape == (None, 12, 16, 2)
    coarse = config.descriptor_stride
    assert heads["descriptor_map"].shape == (None, 12 // coarse, 16 // coarse, 32)


def test_parameter_counts_are_the_papers_and_those_of_ours():
    counts = {name: PRESETS[name].num_parameters for name in PRESETS.keys() - CANDIDATES}
    assert counts == {
        "kp2d_baseline": 5_317_219,
        "kp2d_tiny_s": 387_539,
        "kp2d_tiny_f": 1_849_011,
        "kp2d_nano": 138_611,
        "kp2d_baseline_coral": 4_578_915,
        "kp2d_tiny_s_coral": 341_203,
        "kp2d_tiny_f_coral": 1_553_075,
    }


@pytest.mark.parametrize(("name", "kilo"), [("kp2d_tiny_s_coral", 338.5), ("kp2d_tiny_f_coral", 1547.6)])
def test_convolutions_for_the_edge_tpu_are_the_references(name, kilo):
    convolutions = [x for x in build_network(name).layers if isinstance(x, keras.layers.Conv2D)]
    assert sum(x.count_params() for x in convolutions) / 1e3 == pytest.approx(kilo, abs=0.1)


@pytest.mark.parametrize(
    ("name", "giga_macs"),
    [
        ("kp2d_tiny_s", 3.934),
        ("kp2d_tiny_f", 4.815),
        ("kp2d_baseline", 13.17),
        ("kp2d_nano", 0.698),
        ("kp2d_tiny_s_coral", 3.85),
        ("kp2d_tiny_f_coral", 4.99),
    ],
)
def test_macs_at_320x240(name, giga_macs):
    assert count_macs(name, (240, 320)) / 1e9 == pytest.approx(giga_macs, abs=0.005)


@pytest.mark.parametrize(
    ("name", "cell", "dim"),
    [
        ("kp2d_tiny_s", 4, 32),
        ("kp2d_tiny_f", 8, 64),
        ("kp2d_tiny_s_coral", 4, 32),
        ("kp2d_tiny_f_coral", 8, 64),
    ],
)
def test_heads_of_any_size_and_batch(name, cell, dim):
    network = build_network(name)
    for batch, height, width in [(1, 24, 40), (3, 32, 24)]:
        image = np.random.default_rng(0).uniform(-1, 1, (batch, height, width, 3))
        heads = network(image.astype("float32"))
        rows, columns = height // cell, width // cell
        assert heads["score_map"].shape == (batch, rows, columns, 1)
        assert heads["offset_map"].shape == (batch, rows, columns, 2)
        assert heads["descriptor_map"].shape == (batch, 2 * rows, 2 * columns, dim)
        assert np.min(heads["score_map"]) > 0 and np.max(heads["score_map"]) < 1
        assert np.max(np.abs(heads["offset_map"])) < 1


@pytest.mark.parametrize("size", [(88, 88), (240, 320), (480, 640)])
def test_heads_for_the_edge_tpu_have_the_same_shapes(size):
    plain, coral = (build_network(name, size).output for name in ("kp2d_tiny_s", "kp2d_tiny_s_coral"))
    assert {name: head.shape for name, head in coral.items()} == {
        name: head.shape for name, head in plain.items()
    }
    small = build_network(SMALL_CORAL)(np.zeros((1, *size, 3), "float32"))
    assert small["descriptor_map"].shape == (1, size[0] // 2, size[1] // 2, SMALL_CORAL.descriptor_dim)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("_coral")])
def test_a_network_for_the_edge_tpu_has_no_layer_that_it_lacks(name):
    kinds = {type(layer).__name__ for layer in build_network(name).layers}
    assert "NearestUpsampling" in kinds and not kinds & {"DepthToSpace", "LeakyReLU"}


def test_dropout_changes_no_weight_and_no_order(tmp_path):
    plain, dropped = build_network("kp2d_tiny_s"), build_network("kp2d_tiny_s", dropout=0.2)
    assert [(w.path, w.shape) for w in plain.weights] == [(w.path, w.shape) for w in dropped.weights]
    assert sum(isinstance(x, ActivationAndDropout) for x in dropped.layers) == 7
    dropped.save_weights(tmp_path / "x.weights.h5")
    weights.load_weights(plain, tmp_path / "x.weights.h5")
    for expected, received in zip(dropped.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)
    weights.load_weights(dropped, weights.shipped_path("kp2d_tiny_s"))


def test_dropout_drops_whole_channels_and_only_while_training():
    layer, x = ActivationAndDropout(SMALL, 0.5), np.full((2, 3, 4, 40), 2.0, "float32")
    np.testing.assert_array_equal(layer(x, training=False), x)
    channels = keras.ops.convert_to_numpy(layer(x, training=True)).reshape(2, 12, 40)
    assert (channels == channels[:, :1]).all() and set(np.unique(channels)) == {0.0, 4.0}


def test_bfloat16_is_the_same_network_in_fewer_bits():
    keras.utils.set_random_seed(0)
    full, half = build_network("kp2d_tiny_s"), build_network("kp2d_tiny_s", precision="bfloat16")
    assert [w.path for w in half.weights] == [w.path for w in full.weights]
    assert {w.dtype for w in half.weights} == {"float32"}
    assign_by_name(half, {w.path: w for w in full.weights})
    image = np.random.default_rng(0).uniform(-1, 1, (1, 32, 40, 3)).astype("float32")
    expected, received = full(image), half(image)
    for name, head in expected.items():
        difference = np.abs(keras.ops.convert_to_numpy(keras.ops.cast(received[name], "float32") - head))
        assert 0 < difference.max() < 0.05, name
    assert half.get_layer("score_map").compute_dtype == "float32"
    assert half.get_layer("offset_map").compute_dtype == "float32"
    with pytest.raises(InputError, match="bfloat16"):
        build_network("kp2d_tiny_s", precision="int8")


def test_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match="kp2d_tiny_s"):
        get_preset("kp2d_tinys")


@pytest.mark.parametrize("size", [(30, 40), (240, 318), (8, 40)])
def test_size_that_cells_do_not_tile_is_refused(size):
    with pytest.raises(InputError, match="divisible by the cell 4"):
        build_network("kp2d_tiny_s", size)


def test_depth_to_space_order():
    x = np.arange(8, dtype="float32").reshape(1, 1, 1, 8)
    result = keras.ops.convert_to_numpy(DepthToSpace()(x))
    np.testing.assert_array_equal(result[0], [[[0, 1], [2, 3]], [[4, 5], [6, 7]]])


def test_nearest_upsampling_repeats_and_its_gradient_adds():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype("float32")
    result = keras.ops.convert_to_numpy(NearestUpsampling()(x))
    np.testing.assert_array_equal(result, x.repeat(2, axis=1).repeat(2, axis=2))
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow's tape")
    import tensorflow as tf

    weights = np.random.default_rng(1).normal(size=result.shape).astype("float32")
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(NearestUpsampling()(inputs) * weights)
    wanted = weights.reshape(2, 3, 2, 5, 2, 4).sum(axis=(2, 4))
    np.testing.assert_allclose(tape.gradient(loss, inputs), wanted, atol=1e-5)


def test_an_unknown_upsampling_is_refused():
    with pytest.raises(InputError, match="Did you mean 'nearest'"):
        dataclasses.replace(SMALL_CORAL, upsampling="nearst")


def test_context_normalization_over_points():
    x = np.random.default_rng(0).normal(3, 2, (2, 50, 4)).astype("float32")
    y = keras.ops.convert_to_numpy(ContextNormalization()(x))
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=1), 1, atol=1e-3)


def test_ionet_scores_every_pair():
    pairs = np.random.default_rng(0).normal(size=(2, 30, 5)).astype("float32")
    assert build_ionet()(pairs).shape == (2, 30)


# Batch normalization: ours equals Keras' own.

X = np.random.default_rng(0).normal(1.5, 2.0, (4, 6, 5, 3)).astype("float32")

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel")


def pair():
    """Both layers with the same variables."""
    both = [kind(momentum=0.9) for kind in (layers.BatchNormalization, BatchNormalization)]
    for layer in both:
        layer.build(X.shape)
        layer.gamma.assign([0.5, 1.0, 2.0])
        layer.beta.assign([-1.0, 0.0, 1.0])
    return both


@pytest.mark.parametrize("training", [True, False])
def test_results_and_moving_statistics_are_keras(training):
    theirs, ours = pair()
    for _ in range(2):
        expected, result = (keras.ops.convert_to_numpy(f(X, training=training)) for f in (theirs, ours))
        np.testing.assert_allclose(result, expected, atol=1e-5)
    for name in ("moving_mean", "moving_variance"):
        expected, result = (keras.ops.convert_to_numpy(getattr(f, name)) for f in (theirs, ours))
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@tensorflow_only
def test_gradients_are_keras():
    import tensorflow as tf

    gradients = []
    for layer in pair():
        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(x, training=True)))
        gradients.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for expected, result in zip(*gradients, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-4)


@tensorflow_only
def test_training_uses_one_kernel():
    import tensorflow as tf

    _, ours = pair()
    trace = tf.function(lambda x: ours(x, training=True)).get_concrete_function(tf.TensorSpec(X.shape))
    assert "FusedBatchNormV3" in {operation.type for operation in trace.graph.get_operations()}


def test_frozen_layer_keeps_its_statistics():
    _, ours = pair()
    ours.trainable = False
    ours(X, training=True)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours.moving_mean), 0.0)


def test_points_are_normalized_too():
    points = X.reshape(4, 30, 3)
    theirs, ours = layers.BatchNormalization(), BatchNormalization()
    np.testing.assert_allclose(ours(points, training=True), theirs(points, training=True), atol=1e-5)


def test_weight_files_are_interchangeable(tmp_path):
    def model(kind):
        return keras.Sequential(
            [keras.Input((4, 4, 3)), layers.Conv2D(3, 1), kind(), layers.Activation("relu")]
        )

    theirs, ours = model(layers.BatchNormalization), model(BatchNormalization)
    theirs.save_weights(tmp_path / "x.weights.h5")
    ours.load_weights(tmp_path / "x.weights.h5")
    for expected, result in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(result, expected)
