"""Owns IO-Net, KP2D's critic of point pairs, used only while training."""

from __future__ import annotations

import keras
from keras import layers, ops

from kp2d.methods.networks import BATCH_NORM_MOMENTUM


def build_ionet(blocks: int = 4, width: int = 128) -> keras.Model:
    """Builds IO-Net with fresh weights.

    Args:
        blocks: Residual blocks of two pointwise layers each.
        width: Channels.

    Returns:
        A model from `[B, N, 5]` (normalized x0, y0, x1, y1 and the descriptor distance of a
        pair) to its inlier score `[B, N]`, trained towards +1 for inliers and −1 for outliers.
    """
    pairs = keras.Input((None, 5), name="pairs")
    x = layers.Dense(width, use_bias=False, name="in")(pairs)
    x = layers.BatchNormalization(momentum=0.1, name="in_bn")(x)
    x = layers.Activation("relu", name="in_relu")(x)
    for block in range(1, blocks + 1):
        residual = x
        for half in "ab":
            name = f"block{block}{half}"
            x = layers.Dense(width, name=name)(x)
            x = ContextNormalization(name=f"{name}_context")(x)
            x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = layers.Add(name=f"block{block}_sum")([x, residual])
    x = layers.Dense(1, name="out")(x)
    return keras.Model(pairs, layers.Flatten(name="inlier")(x), name="ionet")


@keras.saving.register_keras_serializable("kp2d")
class ContextNormalization(layers.Layer):
    """Normalizes each channel over the points of one image (instance norm without parameters)."""

    def call(self, inputs):
        """Normalizes `[B, N, C]` over N."""
        mean = ops.mean(inputs, axis=1, keepdims=True)
        variance = ops.mean(ops.square(inputs - mean), axis=1, keepdims=True)
        return (inputs - mean) / ops.sqrt(variance + 1e-5)
