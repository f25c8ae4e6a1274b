"""The fused batch normalization equals Keras' own."""

import keras
import numpy as np
import pytest
from keras import layers

from kp2d.methods.normalization import BatchNormalization

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
