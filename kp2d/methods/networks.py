"""Owns KeypointNet in the paper's sizes and a smaller one, as Keras 3 functional models for any backend."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import keras
from keras import layers, ops

from kp2d import backend
from kp2d.checks import fits_cells, one_of

BATCH_NORM_MOMENTUM = 0.9
LETTERS = "abcdefgh"  # at the ends of the names of consecutive convolutions
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # name to Keras' dtype policy


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Architecture of one KeypointNet.

    Attributes:
        name: Preset name.
        stages: Output channels of the consecutive 3×3 convolutions of every encoder stage.
        pools: For each of the first stages, whether a 2×2 max pooling follows it.
        strides: Of the first convolution of each stage; empty: 1.
        strided_kernel: Side of the kernels with a stride of 2; an even one is centred as cells are.
        head_channels: Width of the hidden convolution of every head.
        upsampled_channels: Descriptor channels at twice the resolution, before the skip is joined.
        merge_channels: Width of the convolution after the skip is joined.
        descriptor_blocks: Widths of the 3×3 convolutions of a descriptor head without upsampling and skip;
            empty takes KP2D's head, of the three widths above.
        descriptor_stride: Of the first of them: cells a sample of the descriptor map.
        output_kernel: Side of the last kernel of every head.
        descriptor_dim: Length D of a descriptor.
        activation: `"relu"` or `"leaky_relu"` (slope 0.01).
        num_parameters: Parameters, BatchNorm's four vectors included.
        upsampling: How the descriptor map comes to twice the resolution. `"depth_to_space"` trades
            four times the channels for it; `"nearest"` repeats every value between two convolutions,
            which the Edge TPU has an operator for.
    """

    name: str
    stages: tuple[tuple[int, ...], ...]
    pools: tuple[bool, ...] = ()
    strides: tuple[int, ...] = ()
    strided_kernel: int = 3
    head_channels: int
    upsampled_channels: int = 0
    merge_channels: int = 0
    descriptor_blocks: tuple[int, ...] = ()
    descriptor_stride: int = 1
    output_kernel: int = 3
    descriptor_dim: int
    activation: str
    num_parameters: int
    upsampling: str = "depth_to_space"

    def __post_init__(self) -> None:
        one_of("upsampling", self.upsampling, ("depth_to_space", "nearest"))

    @property
    def cell(self) -> int:
        """Side of the square of pixels (px) that yields one keypoint."""
        return 2 ** sum(self.pools) * math.prod(self.strides)

    @property
    def joined(self) -> tuple[str, ...]:
        """The two blocks whose results are concatenated, if any are."""
        return () if self.descriptor_blocks else ("conv3b", "descriptor_b")

    @property
    def encoder(self) -> dict[str, tuple[int, int]]:
        """Name of every convolution before the heads to its output channels and stride."""
        strides = self.strides or (1,) * len(self.stages)
        return {
            f"conv{number}{letter}": (channels, 1 if letter > "a" else stride)
            for number, (widths, stride) in enumerate(zip(self.stages, strides, strict=True), start=1)
            for letter, channels in zip(LETTERS, widths, strict=False)
        }


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
        name="kp2d_baseline", stages=((32, 32), (64, 64), (128, 128), (256, 256)), pools=(True, True, True),
        head_channels=256, upsampled_channels=128, merge_channels=256, descriptor_dim=256,
        activation="leaky_relu", num_parameters=5_317_219,
    ),
    NetworkConfig(
        name="kp2d_tiny_s", stages=((16, 32), (32, 32), (32, 64), (64, 64)), pools=(True, False, True),
        head_channels=64, upsampled_channels=32, merge_channels=64, descriptor_dim=32,
        activation="relu", num_parameters=387_539,
    ),
    NetworkConfig(
        name="kp2d_tiny_f", stages=((16, 32), (32, 64), (64, 128), (128, 128)), pools=(True, True, True),
        head_channels=128, upsampled_channels=128, merge_channels=128, descriptor_dim=64,
        activation="relu", num_parameters=1_849_011,
    ),
    NetworkConfig(  # ours, by time on a processor: nothing at full resolution, no narrow layers
        name="kp2d_nano", stages=((16, 16), (32, 48, 48, 48)), strides=(2, 2), head_channels=32,
        descriptor_blocks=(64,), descriptor_dim=32, activation="relu", num_parameters=138_611,
    ),
)  # fmt: skip
_CORAL_PARAMETERS = {"kp2d_baseline": 4_578_915, "kp2d_tiny_s": 341_203, "kp2d_tiny_f": 1_553_075}
PRESETS = {config.name: config for config in _PAPERS_AND_OURS}
PRESETS |= {
    f"{name}_coral": to_coral(PRESETS[name], num_parameters=count)
    for name, count in _CORAL_PARAMETERS.items()
}


# Untrained ones that `kp2d bench networks` measures beside kp2d_nano.
_FLAT = NetworkConfig(
    name="nano_flat", stages=((16, 16), (32, 32, 32, 32)), strides=(2, 2), head_channels=32,
    descriptor_blocks=(64,), output_kernel=1, descriptor_dim=32, activation="relu", num_parameters=75_187,
)  # fmt: skip
_COARSE = replace(_FLAT, stages=((16, 16), (32, 32, 32)), descriptor_blocks=(64, 64), descriptor_stride=2)
_DEEP = replace(_COARSE, stages=((16, 16), (32, 48, 48)), descriptor_blocks=(64, 64, 64))
_CANDIDATES = {
    "nano_flat": (_FLAT, {}),
    "nano_flat3": (_FLAT, {"output_kernel": 3, "num_parameters": 92_339}),
    "nano_even": (_FLAT, {"strided_kernel": 4, "num_parameters": 79_107}),
    "nano_pooled": (_FLAT, {
        "stages": ((16,), (32, 32, 32, 32)), "strides": (2, 1), "pools": (True,), "num_parameters": 72_819,
    }),
    "nano_wide": (_FLAT, {"stages": ((16, 16), (32, 64, 64)), "num_parameters": 139_827}),
    "nano_mid3": (_FLAT, {"stages": ((16, 16), (32, 48, 48)), "output_kernel": 3, "num_parameters": 117_683}),
    "nano_coarse": (_COARSE, {"num_parameters": 102_963}),
    "nano_deep": (_DEEP, {"num_parameters": 174_771}),
    "nano_deep_even": (_DEEP, {"strided_kernel": 2, "num_parameters": 156_611}),
    "nano_small": (_COARSE, {"head_channels": 16, "descriptor_blocks": (48, 48), "num_parameters": 72_195}),
    "nano_smallest": (_FLAT, {
        "stages": ((16,), (24, 24, 24)), "head_channels": 16, "descriptor_blocks": (48,),
        "num_parameters": 33_827,
    }),
}  # fmt: skip
CANDIDATES = {name: replace(base, name=name, **changes) for name, (base, changes) in _CANDIDATES.items()}
PRESETS |= CANDIDATES


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

    def block(self, x, channels: int, name: str, *, stride: int = 1, drop: bool = False):
        """3×3 convolution, normalization, activation; and dropout, where `drop` and a rate ask for it."""
        side = 3 if stride == 1 else self._config.strided_kernel
        options = {"padding": "same", "use_bias": False, "name": name, "dtype": self.dtype}
        x = layers.Conv2D(channels, side, stride, **options)(x)
        x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn", dtype=self.dtype)(x)
        if drop and self._dropout:
            act = ActivationAndDropout(self._config, self._dropout, name=f"{name}_act", dtype=self.dtype)
            return act(x)
        return activation(self._config, f"{name}_act", self.dtype)(x)

    def output(self, x, channels: int, name: str, function: str | None):
        """Plain convolution at the end of a head, with its squashing function or none."""
        side = self._config.output_kernel
        if function is None:
            return layers.Conv2D(channels, side, padding="same", name=f"{name}_map", dtype=self.dtype)(x)
        logits = layers.Conv2D(channels, side, padding="same", name=f"{name}_b")(x)  # float32 always
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
    x, skip, encoder = parts.image(image), None, config.encoder
    for number, widths in enumerate(config.stages, start=1):
        for letter in LETTERS[: len(widths)]:
            name, last = f"conv{number}{letter}", letter == LETTERS[len(widths) - 1]
            channels, stride = encoder[name]
            x = parts.block(x, channels, name, stride=stride, drop=last)
            skip = x if name == "conv3b" else skip
        if any(config.pools[number - 1 : number]):
            x = layers.MaxPooling2D(2, name=f"pool{number}", dtype=parts.dtype)(x)

    def hidden(name: str):
        return parts.block(x, config.head_channels, f"{name}_a", drop=True)

    outputs = {
        "score_map": parts.output(hidden("score"), 1, "score", "sigmoid"),
        "offset_map": parts.output(hidden("offset"), 2, "offset", "tanh"),
    }
    if config.descriptor_blocks:
        d = x
        for letter, channels in zip(LETTERS, config.descriptor_blocks, strict=False):
            first = letter == "a"
            stride = config.descriptor_stride if first else 1
            d = parts.block(d, channels, f"descriptor_{letter}", stride=stride, drop=first)
    else:
        d = _upsampled(hidden("descriptor"), skip, config, parts)
    outputs["descriptor_map"] = parts.output(d, config.descriptor_dim, "descriptor", None)
    return keras.Model(image, outputs, name=config.name)


def _upsampled(d, skip, config: NetworkConfig, parts):
    """Brings the descriptor head to twice the resolution, and joins what the encoder knew there."""
    wide = config.upsampled_channels
    if config.upsampling == "nearest":
        d = parts.block(d, wide, "descriptor_narrow")
        d = parts.block(parts.upsample(d, "descriptor_upsample"), wide, "descriptor_b")
    else:
        d = parts.upsample(parts.block(d, 4 * wide, "descriptor_b"), "descriptor_upsample")
    d = layers.Concatenate(name="descriptor_skip", dtype=parts.dtype)([d, skip])
    return parts.block(d, config.merge_channels, "descriptor_c")


def activation(config: NetworkConfig, name: str, dtype: str | None = None) -> layers.Layer:
    """Makes the activation that follows every block of an architecture."""
    if config.activation == "leaky_relu":
        return layers.LeakyReLU(negative_slope=0.01, name=name, dtype=dtype)
    return layers.Activation(config.activation, name=name, dtype=dtype)


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
