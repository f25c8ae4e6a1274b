"""Owns the training step: both views through the network, the weighted loss terms, their meters, IO-Net.

On one device, or on several that share each batch; and what of it changes over a run: the learning rate
and the weight of the corner teacher.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers, ops
from keras.optimizers import schedules

from kp2d import backend
from kp2d.checks import fits_cells, problem
from kp2d.methods.networks import BATCH_NORM_MOMENTUM, NetworkConfig, build_network
from kp2d.methods.quantized import build_quantized_network
from kp2d.methods.weights import load_weights
from kp2d.train.recipes import LossConfig, TrainConfig
from kp2d.train.terms import CORNER_TERMS, loss_terms, term_weights


@keras.saving.register_keras_serializable("kp2d")
class KeypointLearner(keras.Model):
    """A KeypointNet with everything that training adds to it.

    Its inputs are the fields of `kp2d.data.augment.ViewPair`, batched. `train_on_batch` reports every
    unweighted loss term.

    Attributes:
        network: The KeypointNet.
        ionet: IO-Net, or None when its term has no weight.
        corner_weight: Present weight of the corner teacher, in [0, 1]; the training loop sets it.
    """

    def __init__(self, network_config: NetworkConfig, config: TrainConfig, *, replicas: int = 1) -> None:
        """Builds the networks with fresh weights.

        Of the run, loss, image size and dropout are used; replicas are copies whose gradients will be summed.

        Raises:
            InputError: If the image size does not suit the network.
        """
        super().__init__(name="learner")
        fits_cells(config.image_size, network_config.cell)
        # Dropout draws from the random stream of the weights; a seed is to be one start, with it and without.
        start = build_network(network_config).get_weights() if config.dropout else None
        if config.quantized:
            self.network = build_quantized_network(network_config, config.image_size)
        else:
            options = {"dropout": config.dropout, "precision": config.precision}
            self.network = build_network(network_config, config.image_size, **options)
        if start is not None:
            self.network.set_weights(start)
        self.ionet = build_ionet() if config.loss.inlier else None
        self.corner_weight = self.add_weight(
            name="corner_weight", shape=(), initializer="ones", dtype="float32", trainable=False
        )
        # Behind a function, for its weights are none of the learner's: neither trained nor saved.
        self._teach = _teacher(network_config, config) if config.loss.distillation else None
        self._cell = network_config.cell
        self._loss_config = config.loss
        self._weights_by_term = term_weights(config.loss)
        self._replicas = replicas
        self._steered = config.augment.turn > 0
        self._meters = {name: keras.metrics.Mean(name=name) for name in self._weights_by_term}
        self.built = True

    def call(self, inputs, training=None):
        """Runs both views as one batch; `training` lets BatchNorm and dropout train.

        Returns:
            The heads of both views, image0's in the first half of the batch; the teacher's, if there is one,
            as "wanted_score_map" and so on.
        """
        images = ops.concatenate([inputs["image0"], inputs["image1"]], axis=0)
        images = ops.cast(images, "float32") / 127.5 - 1.0
        heads = self.network(images, training=training)
        heads = {name: ops.cast(head, "float32") for name, head in heads.items()}
        if self._teach is not None:
            heads |= {f"wanted_{name}": ops.stop_gradient(head) for name, head in self._teach(images).items()}
        return heads

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # noqa: ARG002
        """Weighs and adds the loss terms of a batch `x` with the heads `y_pred`, to a scalar.

        The losses are self-supervised: `y` and `sample_weight` are unused. `training` is passed on to IO-Net.
        """
        ionet = None
        if self.ionet is not None:
            ionet = lambda pairs: self.ionet(pairs, training=training)  # noqa: E731
        terms = loss_terms(y_pred, x, self._loss_config, self._cell, ionet, steered=self._steered)
        total = 0.0
        for name, value in terms.items():
            self._meters[name].update_state(value)
            weight = self._weights_by_term[name]
            if name in CORNER_TERMS:
                weight = weight * self.corner_weight
            total = total + weight * value
        return total / self._replicas


def build_plain(network_config: NetworkConfig, *, quantized: bool) -> keras.Model:
    """Builds the network that a run's weights are for: any size, no dropout, float32."""
    return build_quantized_network(network_config) if quantized else build_network(network_config)


def _teacher(network_config: NetworkConfig, config: TrainConfig):
    if config.teacher is None:
        raise problem("train.teacher, the weights to learn from, with loss.distillation", None)
    network = build_network(network_config, config.image_size)
    load_weights(network, config.teacher)
    return lambda images: network(images, training=False)


@backend.own_settings()
def build_ionet() -> keras.Model:
    """Builds IO-Net, KP2D's critic of point pairs, used only while training, with fresh weights.

    It has four residual blocks of two pointwise layers each, with 128 channels.

    Returns:
        A model from `[B, N, 5]` (normalized x0, y0, x1, y1 and the descriptor distance of a
        pair) to its inlier score `[B, N]`, trained towards +1 for inliers and −1 for outliers.
    """
    width = 128
    pairs = keras.Input((None, 5), name="pairs")
    x = layers.Dense(width, use_bias=False, name="in")(pairs)
    x = layers.BatchNormalization(momentum=0.1, name="in_bn")(x)
    x = layers.Activation("relu", name="in_relu")(x)
    for block in range(1, 5):
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


class WarmUp(schedules.LearningRateSchedule):
    """Another schedule under a linear rise that ends with the last step of the warm-up."""

    # CosineDecay(warmup_target=…) arrives a step later, and no other schedule of Keras warms up at all.

    def __init__(
        self, schedule: schedules.LearningRateSchedule, warmup: int, *, delayed: bool = False
    ) -> None:
        """Joins the full rate of a step and a rise of so many steps; `delayed`, it begins after the rise."""
        self._schedule, self._warmup, self._delay = schedule, warmup, warmup if delayed else 0

    def __call__(self, step):
        """Rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        rise = ops.minimum(1.0, (step + 1.0) / max(1, self._warmup))
        return self._schedule(ops.maximum(step - self._delay, 0.0)) * rise


def learning_rate(config: TrainConfig) -> WarmUp:
    """Returns the schedule of a run."""
    peak, warmup = config.learning_rate, min(config.warmup, config.steps // 10)
    if config.schedule == "halve":
        every = max(1, round(config.halve_every * config.steps))
        return WarmUp(schedules.ExponentialDecay(peak, every, 0.5, staircase=True), warmup)
    falling = max(1, config.steps - warmup)
    return WarmUp(schedules.CosineDecay(peak, falling, alpha=config.final_rate), warmup, delayed=True)


def corner_weight(step: int, steps: int, config: LossConfig) -> float:
    """Returns the corner teacher's weight at a step (from 0) of so many: 1, then falling linearly to 0."""
    hold, end = config.corner_hold * steps, config.corner_end * steps
    if step < hold:
        return 1.0
    return float(np.clip((end - step) / (end - hold), 0.0, 1.0)) if step < end else 0.0


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
        """Runs one training step on a batch of arrays; returns the value of every meter by name."""
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
