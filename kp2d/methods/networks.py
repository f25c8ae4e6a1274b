"""Owns KeypointNet in the paper's sizes and a smaller one, as Keras 3 functional models for any backend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import keras
from keras import layers, ops

from kp2d import backend
from kp2d.checks import first_line, fits_cells, one_of, problem

BATCH_NORM_MOMENTUM = 0.9
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # name to Keras' dtype policy


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Architecture of one KeypointNet.

    Attributes:
        name: Preset name.
        stages: Output channels of the consecutive 3×3 convolutions of the four encoder stages.
        pools: For each of the first three stages, whether a 2×2 max pooling follows it.
        head_channels: Width of the hidden convolution of every head.
        upsampled_channels: Descriptor channels at twice the resolution, before the skip is joined.
        merge_channels: Width of the convolution after the skip is joined.
        descriptor_dim: Length D of a descriptor.
        activation: `"relu"` or `"leaky_relu"` (slope 0.01).
        num_parameters: Parameters, BatchNorm's four vectors included.
        upsampling: How the descriptor map comes to twice the resolution. `"depth_to_space"` trades
            four times the channels for it; `"nearest"` repeats every value between two convolutions,
            which the Edge TPU has an operator for.
    """

    name: str
    stages: tuple[tuple[int, int], ...]
    pools: tuple[bool, bool, bool]
    head_channels: int
    upsampled_channels: int
    merge_channels: int
    descriptor_dim: int
    activation: str
    num_parameters: int
    upsampling: str = "depth_to_space"

    def __post_init__(self) -> None:
        one_of("upsampling", self.upsampling, ("depth_to_space", "nearest"))

    @property
    def cell(self) -> int:
        """Side of the square of pixels (px) that yields one keypoint."""
        return 2 ** sum(self.pools)


def to_coral(config: NetworkConfig, *, num_parameters: int) -> NetworkConfig:
    """Derives the variant for the Coral Edge TPU, which has no depth-to-space and no LeakyReLU.

    It has `num_parameters` and needs weights of its own: train it from scratch.
    """
    return replace(
        config,
        name=f"{config.name}_coral",
        upsampling="nearest",
        activation="relu",
        num_parameters=num_parameters,
    )


_PAPERS_AND_OURS = (
    NetworkConfig(
        name="kp2d_baseline",
        stages=((32, 32), (64, 64), (128, 128), (256, 256)),
        pools=(True, True, True),
        head_channels=256,
        upsampled_channels=128,
        merge_channels=256,
        descriptor_dim=256,
        activation="leaky_relu",
        num_parameters=5_317_219,
    ),
    NetworkConfig(
        name="kp2d_tiny_s",
        stages=((16, 32), (32, 32), (32, 64), (64, 64)),
        pools=(True, False, True),
        head_channels=64,
        upsampled_channels=32,
        merge_channels=64,
        descriptor_dim=32,
        activation="relu",
        num_parameters=387_539,
    ),
    NetworkConfig(
        name="kp2d_tiny_f",
        stages=((16, 32), (32, 64), (64, 128), (128, 128)),
        pools=(True, True, True),
        head_channels=128,
        upsampled_channels=128,
        merge_channels=128,
        descriptor_dim=64,
        activation="relu",
        num_parameters=1_849_011,
    ),
    NetworkConfig(  # ours: the topology of KP2DtinyS at a tenth of its arithmetic
        name="kp2d_nano",
        stages=((4, 8), (12, 12), (12, 12), (28, 32)),
        pools=(True, False, True),
        head_channels=16,
        upsampled_channels=8,
        merge_channels=16,
        descriptor_dim=24,
        activation="relu",
        num_parameters=42_327,
    ),
)
_CORAL_PARAMETERS = {"kp2d_baseline": 4_578_915, "kp2d_tiny_s": 341_203, "kp2d_tiny_f": 1_553_075}
PRESETS = {config.name: config for config in _PAPERS_AND_OURS}
PRESETS |= {
    f"{name}_coral": to_coral(PRESETS[name], num_parameters=count)
    for name, count in _CORAL_PARAMETERS.items()
}


def get_preset(name: str) -> NetworkConfig:
    """Looks up a preset.

    Args:
        name: A key of `PRESETS`.

    Returns:
        The architecture.

    Raises:
        InputError: If there is no such preset; names the nearest one.
    """
    return PRESETS[one_of("preset", name, PRESETS)]


def build_network(
    preset: str | NetworkConfig,
    image_size: tuple[int | None, int | None] = (None, None),
    *,
    dropout: float = 0.0,
    precision: str = "float32",
) -> keras.Model:
    """Builds a KeypointNet with fresh weights.

    Args:
        preset: Name of a preset, or an architecture of your own.
        image_size: (height, width) px; None leaves a side open.
        dropout: Rate of the channel-wise dropout after every stage and inside every head (the
            KP2D paper trains with 0.2). It changes neither the weights nor their order.
        precision: A key of `PRECISIONS`. `"bfloat16"` halves the bits of what flows through the
            convolutions; weights, batch statistics, scores and offsets stay float32.

    Returns:
        A model from float32 RGB `[B, H, W, 3]` in [−1, 1] to a dictionary with `score_map`
        `[B, H/cell, W/cell, 1]` in (0, 1), `offset_map` `[B, H/cell, W/cell, 2]` in
        (−1, 1) and `descriptor_map` `[B, 2H/cell, 2W/cell, D]`.

    Raises:
        InputError: If preset or precision is unknown or the size is not divisible by the cell.
    """
    config = get_preset(preset) if isinstance(preset, str) else preset
    dtype = PRECISIONS[one_of("precision", precision, PRECISIONS)]
    return assemble(config, image_size, FloatParts(config, dropout, dtype))


class FloatParts:
    """Layers of a float network; `kp2d.methods.quantized` has others of the same interface.

    Args:
        config: Architecture.
        dropout: Rate of the channel-wise dropout; 0 leaves it out.
        dtype: Keras' dtype policy of the convolutions.
    """

    def __init__(self, config: NetworkConfig, dropout: float, dtype: str) -> None:
        self._config, self._dropout, self.dtype = config, dropout, dtype

    def image(self, x):
        """What the first convolution sees of the image."""
        return x

    def block(self, x, channels: int, name: str, *, drop: bool = False):
        """3×3 convolution, normalization, activation; and dropout, where `drop` and a rate ask for it."""
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=name, dtype=self.dtype)(x)
        x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn", dtype=self.dtype)(x)
        if drop and self._dropout:
            act = ActivationAndDropout(self._config, self._dropout, name=f"{name}_act", dtype=self.dtype)
            return act(x)
        return activation(self._config, f"{name}_act", self.dtype)(x)

    def output(self, x, channels: int, name: str, function: str | None):
        """Plain convolution at the end of a head, with its squashing function or none."""
        if function is None:
            return layers.Conv2D(channels, 3, padding="same", name=f"{name}_map", dtype=self.dtype)(x)
        logits = layers.Conv2D(channels, 3, padding="same", name=f"{name}_b")(x)  # float32 always
        return layers.Activation(function, name=f"{name}_map")(logits)

    def upsample(self, x, name: str):
        """Twice the resolution."""
        return UPSAMPLING[self._config.upsampling](name=name, dtype=self.dtype)(x)


@backend.own_settings()
def assemble(config: NetworkConfig, image_size: tuple[int | None, int | None], parts) -> keras.Model:
    """Joins layers to a KeypointNet.

    Args:
        config: Architecture.
        image_size: (height, width) px; None leaves a side open.
        parts: Makes the layers, as `FloatParts`.

    Returns:
        The model; see `build_network`.

    Raises:
        InputError: If the size is not divisible by the cell.
    """
    if None not in image_size:
        fits_cells(image_size, config.cell)
    image = keras.Input((*image_size, 3), name="image")
    x, skip = parts.image(image), None
    for index, (first, second) in enumerate(config.stages, start=1):
        x = parts.block(x, first, f"conv{index}a")
        x = parts.block(x, second, f"conv{index}b", drop=True)
        if index == 3:
            skip = x
        if index <= 3 and config.pools[index - 1]:
            x = layers.MaxPooling2D(2, name=f"pool{index}", dtype=parts.dtype)(x)

    def hidden(name: str):
        return parts.block(x, config.head_channels, f"{name}_a", drop=True)

    score_map = parts.output(hidden("score"), 1, "score", "sigmoid")
    offset_map = parts.output(hidden("offset"), 2, "offset", "tanh")
    d, wide = hidden("descriptor"), config.upsampled_channels
    if config.upsampling == "nearest":
        d = parts.block(d, wide, "descriptor_narrow")
        d = parts.block(parts.upsample(d, "descriptor_upsample"), wide, "descriptor_b")
    else:
        d = parts.upsample(parts.block(d, 4 * wide, "descriptor_b"), "descriptor_upsample")
    d = layers.Concatenate(name="descriptor_skip", dtype=parts.dtype)([d, skip])
    d = parts.block(d, config.merge_channels, "descriptor_c")
    outputs = {
        "score_map": score_map,
        "offset_map": offset_map,
        "descriptor_map": parts.output(d, config.descriptor_dim, "descriptor", None),
    }
    return keras.Model(image, outputs, name=config.name)


def activation(config: NetworkConfig, name: str, dtype: str | None = None) -> layers.Layer:
    """Makes the activation that follows every block of an architecture."""
    if config.activation == "leaky_relu":
        return layers.LeakyReLU(negative_slope=0.01, name=name, dtype=dtype)
    return layers.Activation(config.activation, name=name, dtype=dtype)


def load_network(preset: str, path: str | Path) -> tuple[keras.Model, NetworkConfig]:
    """Builds a preset's network for images of any size, with the weights of a file; see `load_weights`."""
    config = get_preset(preset)
    network = build_network(config)
    load_weights(network, path)
    return network, config


def load_weights(network: keras.Model, path: str | Path) -> None:
    """Reads weights into a network.

    The format holds arrays only, and no other is accepted: nothing in such a file is ever executed.

    Args:
        network: What to overwrite.
        path: A `.weights.h5` file.

    Raises:
        InputError: If there is no such file, or it holds another architecture.
    """
    if not str(path).endswith(".weights.h5"):
        raise problem("a file that ends in .weights.h5", str(path), "Name the output of kp2d train.")
    try:
        network.load_weights(path)
    except Exception as error:  # the readers of HDF5 have no error of their own for damaged files
        raise problem(
            f"a .weights.h5 file of {network.name}",
            f"{str(path)!r} ({first_line(error)})",
            "Check the path and the preset.",
        ) from error


def assign_by_name(network: keras.Model, values: dict[str, object]) -> None:
    """Sets every weight of a network.

    Args:
        network: What to overwrite.
        values: Path of each weight ("conv1a/kernel") to its value.
    """
    for variable in network.weights:
        variable.assign(values[variable.path])


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


@keras.saving.register_keras_serializable("kp2d")
class ActivationAndDropout(layers.Layer):
    """An activation and, while training, channel-wise dropout of its result.

    One layer, not two: weight files follow the order of layers, which one more in the middle would change.
    """

    def __init__(self, config: NetworkConfig, rate: float, **kwargs) -> None:
        """Takes the architecture, whose activation it is, and the rate of the dropout."""
        super().__init__(**kwargs)
        self.activation = activation(config, "activation", self.dtype_policy)
        self.dropout = layers.SpatialDropout2D(rate, name="dropout", dtype=self.dtype_policy)

    def call(self, inputs, training=False):
        """Activates and drops channels of `[B, H, W, C]`."""
        return self.dropout(self.activation(inputs), training=training)


@keras.saving.register_keras_serializable("kp2d")
class DepthToSpace(layers.Layer):
    """Trade channels for resolution: `[B, H, W, 4C]` to `[B, 2H, 2W, C]`."""

    def call(self, inputs):
        """Rearranges the channels."""
        return ops.depth_to_space(inputs, 2)

    def compute_output_shape(self, input_shape):
        """Shape of the result; open sides stay open."""
        batch, *sides, channels = input_shape
        return (batch, *(None if side is None else 2 * side for side in sides), channels // 4)


@keras.saving.register_keras_serializable("kp2d")
class NearestUpsampling(layers.Layer):
    """Repeats rows and columns: `[B, H, W, C]` to `[B, 2H, 2W, C]`."""

    def call(self, inputs):
        """Repeats."""
        # Not a resize, though as fast: XLA has no gradient of that.
        return ops.repeat(ops.repeat(inputs, 2, axis=1), 2, axis=2)

    def compute_output_shape(self, input_shape):
        """Shape of the result; open sides stay open."""
        batch, *sides, channels = input_shape
        return (batch, *(None if side is None else 2 * side for side in sides), channels)


UPSAMPLING = {"depth_to_space": DepthToSpace, "nearest": NearestUpsampling}


def count_macs(preset: str | NetworkConfig, image_size: tuple[int, int]) -> int:
    """Counts the multiply-accumulate operations of one forward pass (convolutions only).

    Args:
        preset: Name of a preset, or an architecture.
        image_size: (height, width) px.

    Returns:
        The number of multiply-accumulates for one image.

    Raises:
        InputError: As `build_network`.
    """
    total = 0
    for layer in build_network(preset, image_size).layers:
        if isinstance(layer, layers.Conv2D):
            _, height, width, _ = layer.output.shape
            total += height * width * int(ops.size(layer.kernel))
    return total
