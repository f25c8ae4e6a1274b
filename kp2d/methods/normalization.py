"""Owns batch normalization that is one kernel, not six passes over memory, where TensorFlow has one."""

from __future__ import annotations

import keras
from keras import layers


@keras.saving.register_keras_serializable("kp2d")
class BatchNormalization(layers.BatchNormalization):
    """Keras' BatchNormalization, fused while training on the TensorFlow backend.

    The same variables and results; on a CPU a training step of KeypointNet takes about two thirds
    of the time. Keras' name is kept because weight files are laid out by class name.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalizes `[B, H, W, C]` over all axes but the last."""
        fused = keras.backend.backend() == "tensorflow" and len(inputs.shape) == 4 and mask is None
        if not (fused and training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma.value, self.beta.value, epsilon=self.epsilon, is_training=True
        )
        variance = variance * (count - 1.0) / count  # the kernel returns the unbiased one
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs
