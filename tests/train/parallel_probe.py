"""Run in a process of its own: a short run on one virtual CPU device, and on two.

Usage: ``KERAS_BACKEND=jax python parallel_probe.py photos output``, of which the caller's XLA_FLAGS make two.
"""

import sys

import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from small_network import SMALL

from kp2d.data.loader import PairSource
from kp2d.methods import networks
from kp2d.train.recipes import from_recipe
from kp2d.train.training import train

networks.PRESETS[SMALL.name] = SMALL


def repeat_half(source, step, original=PairSource.batch):
    """Give both replicas the same pairs, so that BatchNorm sees the same on one device and two."""
    batch, corrupt = original(source, step)
    return {name: np.concatenate([x[:2], x[:2]]) for name, x in batch.items()}, corrupt


PairSource.batch = repeat_half


def main(photos, output, devices):
    train(
        from_recipe(
            "kp2d_plus",
            data=photos,
            output=f"{output}/{devices}",
            preset="test_small",
            image_size=(32, 48),
            batch_size=4,
            steps=3,
            workers=0,
            log_every=1,
            devices=devices,
            wandb=False,
            tensorboard=False,
        ),
        progress=False,
    )


if __name__ == "__main__":
    for count in (1, 2):
        main(*sys.argv[1:], count)
