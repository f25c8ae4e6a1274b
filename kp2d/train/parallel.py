"""Owns data parallelism behind one number of devices, on the JAX and TensorFlow backends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from kp2d.checks import problem


@contextlib.contextmanager
def data_parallel(devices: int) -> Iterator[DataParallel]:
    """Builds and runs a model on several devices that share each batch.

    JAX: `keras.distribution`, one program over the whole batch (BatchNorm sees all of it).
    TensorFlow: `tf.distribute.MirroredStrategy`; each replica normalizes its own share.

    Args:
        devices: How many; 1 changes nothing.

    Yields:
        What feeds batches to the devices.

    Raises:
        InputError: If there are fewer devices, or the backend has no such support here.
    """
    if devices == 1:
        yield DataParallel()
    elif keras.backend.backend() == "jax":
        present = keras.distribution.list_devices()
        _check_devices(devices, len(present))
        before = keras.distribution.distribution()
        layout = keras.distribution.DataParallel(devices=present[:devices], auto_shard_dataset=False)
        keras.distribution.set_distribution(layout)
        try:
            yield DataParallel()
        finally:
            keras.distribution.set_distribution(before)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        present = [device.name for device in tf.config.list_logical_devices(kind)]
        _check_devices(devices, len(present))
        strategy = tf.distribute.MirroredStrategy(present[:devices])
        with strategy.scope():
            yield _Mirrored(strategy)
    else:
        raise problem(
            f"devices=1 on the {keras.backend.backend()} backend",
            devices,
            "Set KERAS_BACKEND to jax or tensorflow for several devices.",
        )


class DataParallel:
    """Feeds whole batches; Keras shards them if a distribution is set.

    Attributes:
        replicas: Copies of the model whose gradients are summed.
    """

    replicas = 1

    def step(self, learner: keras.Model, batch: dict) -> dict[str, float]:
        """Runs one training step.

        Args:
            learner: Compiled model.
            batch: Arrays with the batch axis first.

        Returns:
            Name to value of every meter.
        """
        return learner.train_on_batch(batch, return_dict=True)


class _Mirrored(DataParallel):
    """Cuts each batch into one share per replica."""

    def __init__(self, strategy) -> None:
        self._strategy = strategy
        self.replicas = strategy.num_replicas_in_sync

    def step(self, learner: keras.Model, batch: dict) -> dict[str, float]:
        """Runs one training step on all replicas."""
        import tensorflow as tf

        def share(name: str):
            def cut(context):
                size = len(batch[name]) // self.replicas
                start = context.replica_id_in_sync_group * size
                return tf.convert_to_tensor(batch[name][start : start + size])

            return self._strategy.experimental_distribute_values_from_function(cut)

        learner.make_train_function()
        learner.reset_metrics()
        logs = learner.train_function(iter([({name: share(name) for name in batch},)]))
        return {name: float(value) for name, value in logs.items()}


def _check_devices(wanted: int, present: int) -> None:
    if present < wanted:
        raise problem(f"at most {present} devices, all that this machine shows", wanted, "Lower devices.")
