"""Owns the network in integers, simulated in floats: the same layers, each value rounded to its grid.

The batch normalization is folded, kernels have a symmetric grid per output channel and every tensor that
a TFLite model stores has a range of its own, so that a model converted from this network computes with the
very numbers that were calibrated or trained here. Rounding lets gradients through (straight-through
estimator; Jacob et al., CVPR 2018), so that the network can be trained further.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers, ops

from kp2d.checks import one_of, problem
from kp2d.methods.decode import sharpen
from kp2d.methods.networks import UPSAMPLING, NetworkConfig, activation, assemble, get_preset

PARTS = ("encoder", "score", "offset", "descriptor")
# What TFLite prescribes for these two outputs: (smallest, largest) of 256 steps.
FIXED_RANGES = {"sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
# A pixel p enters as (p − 127) / 127.5, not (p − 127.5) / 127.5, so that its int8 value p − 128 is exact.
PIXEL_RANGE = (-127 / 127.5, 128 / 127.5)
PIXEL_SHIFT = 0.5 / 127.5


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What is quantized, and how finely."""

    weight_bits: int = 8  # of every kernel
    activation_bits: int = 8  # of every stored tensor between the layers
    descriptor_bits: int = 8  # of the descriptor map
    per_channel: bool = True  # whether every output channel of a kernel has a scale of its own
    parts: tuple[str, ...] = PARTS  # which of `PARTS` are quantized; the others stay float

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "descriptor_bits"):
            if getattr(self, name) not in range(2, 17):
                raise problem(f"{name} of 2 to 16", getattr(self, name))
        for part in self.parts:
            one_of("part of a network", part, PARTS)

    def quantizes(self, layer: str) -> bool:
        """Tells whether a layer ("conv1a", "score_b") is in a quantized part."""
        return part_of(layer) in self.parts


def part_of(layer: str) -> str:
    """Returns the part that a layer belongs to."""
    head = layer.partition("_")[0]
    return head if head in PARTS else "encoder"


FLOAT = Scheme(parts=())
INT8 = Scheme()


@keras.saving.register_keras_serializable("kp2d")
class QuantizedConv2D(layers.Layer):
    """Convolution with bias whose kernel is rounded to its grid."""

    def __init__(
        self,
        filters: int,
        *,
        bits: int | None,
        per_channel: bool = True,
        side: int = 3,
        stride: int = 1,
        **kwargs,
    ) -> None:
        """Takes the output channels, the kernel's bits (None: not rounded) and side, and the stride."""
        super().__init__(**kwargs)
        self.filters, self.bits, self.per_channel = filters, bits, per_channel
        self.side, self.stride = side, stride

    def build(self, input_shape):
        """Makes kernel and bias."""
        shape = (self.side, self.side, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs):
        """Convolves `[B, H, W, C]`."""
        kernel = ops.convert_to_tensor(self.kernel)
        if self.bits is not None:
            kernel = quantize_kernel(kernel, self.bits, per_channel=self.per_channel)
        return ops.conv(inputs, kernel, strides=self.stride, padding="same") + self.bias

    def compute_output_shape(self, input_shape):
        """Shape of the result."""
        batch, *sides, _ = input_shape
        return (batch, *(None if side is None else -(-side // self.stride) for side in sides), self.filters)


def quantize_kernel(kernel, bits: int, *, per_channel: bool = True):
    """Rounds a kernel `[h, w, C, N]` to symmetric grids of 2^bits − 1 values, of each N or of all."""
    axes = (0, 1, 2) if per_channel else None
    largest = ops.maximum(ops.max(ops.abs(ops.stop_gradient(kernel)), axis=axes), 1e-8)
    return keras.quantizers.fake_quant_with_min_max_vars(
        kernel, -largest, largest, num_bits=bits, narrow_range=True, axis=3 if per_channel else None
    )


@keras.saving.register_keras_serializable("kp2d")
class Quantize(layers.Layer):
    """Rounds a tensor to the grid of its range; the range's ends are weights.

    Attributes:
        low: Smallest value.
        high: Largest value. Both are moved a little so that 0 is on the grid.
    """

    def __init__(self, *, ends: tuple[float, float] = (0.0, 1.0), fixed: str = "", **kwargs) -> None:
        """Takes the first ends, and which of them are fixed: "low", "both" or none."""
        super().__init__(**kwargs)
        self.ends, self.fixed = ends, fixed

    def build(self, input_shape):  # noqa: ARG002
        """Makes the range."""
        for name, value in zip(("low", "high"), self.ends, strict=True):
            initial = keras.initializers.Constant(value)
            weight = self.add_weight(
                name=name, shape=(), initializer=initial, trainable=self.fixed not in (name, "both")
            )
            setattr(self, name, weight)

    def call(self, inputs, bits=None):
        """Rounds to 2^bits values; None leaves the tensor as it is."""
        if bits is None:
            return inputs
        low, high = ops.convert_to_tensor(self.low), ops.convert_to_tensor(self.high)
        return keras.quantizers.fake_quant_with_min_max_vars(inputs, low, high, num_bits=bits)

    def compute_output_shape(self, input_shape):
        """Shape of the result."""
        return input_shape


@keras.saving.register_keras_serializable("kp2d")
class ShiftPixels(layers.Layer):
    """From what a float network sees, (p − 127.5) / 127.5, to (p − 127) / 127.5."""

    def call(self, inputs):
        """Shifts."""
        return inputs + PIXEL_SHIFT


@keras.saving.register_keras_serializable("kp2d")
class Sharpen(layers.Layer):
    """Undoes the flattening of the scores; see `kp2d.methods.decode.sharpen`.

    Attributes:
        sharpness: A weight that is not trained; 1 at first.
    """

    def build(self, input_shape):  # noqa: ARG002
        """Makes the weight."""
        self.sharpness = self.add_weight(name="sharpness", shape=(), initializer="ones", trainable=False)

    def call(self, inputs):
        """Sharpens `[B, H, W, 1]`."""
        return sharpen(inputs, ops.convert_to_tensor(self.sharpness), xp=ops)

    def compute_output_shape(self, input_shape):
        """Shape of the result."""
        return input_shape


class QuantizedParts:
    """Layers of a quantized network, for `kp2d.methods.networks.assemble`.

    Args:
        config: Architecture.
        scheme: What is quantized.
        bare: Whether to leave out what is done outside of the converted model: shifting pixels, so that the
            image comes as (p − 127) / 127.5, and sharpening scores.

    Attributes:
        tensors: Name of each range to the tensor that it rounds, in the order of computation.
    """

    dtype = "float32"

    def __init__(self, config: NetworkConfig, scheme: Scheme, *, bare: bool) -> None:
        one_of("activation that can be quantized", config.activation, ("relu", "leaky_relu"))
        self._config, self._scheme, self._bare = config, scheme, bare
        self.tensors: dict[str, keras.KerasTensor] = {}
        # Both inputs of a concatenation must lie on one grid, so they share its range.
        self._joined = Quantize(fixed="low", name="skip_range")

    def image(self, x):
        """See `kp2d.methods.networks.FloatParts`."""
        x = x if self._bare else ShiftPixels(name="shift")(x)
        return self._quantize(x, "image", PIXEL_RANGE, "both")

    def block(self, x, channels: int, name: str, *, stride: int = 1, drop: bool = False):  # noqa: ARG002
        """See `kp2d.methods.networks.FloatParts`; there is no dropout here."""
        side = 3 if stride == 1 else self._config.strided_kernel
        x = self._convolve(x, channels, name, side=side, stride=stride)
        if self._config.activation == "relu":  # fused into the convolution, so only its result is stored
            return self._quantize(activation(self._config, f"{name}_act")(x), name, (0.0, 1.0), "low")
        x = self._quantize(x, f"{name}_in")
        return self._quantize(activation(self._config, f"{name}_act")(x), name)

    def output(self, x, channels: int, name: str, function: str | None):
        """See `kp2d.methods.networks.FloatParts`."""
        side = self._config.output_kernel
        if function is None:
            x = self._convolve(x, channels, f"{name}_map", side=side)
            return self._quantize(x, f"{name}_map", bits=self._scheme.descriptor_bits)
        x = self._quantize(self._convolve(x, channels, f"{name}_b", side=side), f"{name}_b")
        x = layers.Activation(function, name=f"{name}_squash")(x)
        x = self._quantize(x, f"{name}_map", FIXED_RANGES[function], "both")
        return Sharpen(name="score_sharpen")(x) if name == "score" and not self._bare else x

    def upsample(self, x, name: str):
        """See `kp2d.methods.networks.FloatParts`."""
        return UPSAMPLING[self._config.upsampling](name=name)(x)

    def _convolve(self, x, channels: int, name: str, **shape: int):
        bits = self._scheme.weight_bits if self._scheme.quantizes(name) else None
        layer = QuantizedConv2D(channels, bits=bits, per_channel=self._scheme.per_channel, name=name, **shape)
        return layer(x)

    def _quantize(self, x, name: str, ends=(-1.0, 1.0), fixed: str = "", bits: int | None = None):
        joined = name in self._config.joined
        layer = self._joined if joined else Quantize(ends=ends, fixed=fixed, name=f"{name}_range")
        quantized = self._scheme.quantizes(name)
        x = layer(x, bits=(bits or self._scheme.activation_bits) if quantized else None)
        self.tensors[name] = x
        return x


def build_quantized_network(
    preset: str | NetworkConfig,
    image_size: tuple[int | None, int | None] = (None, None),
    *,
    scheme: Scheme = INT8,
    bare: bool = False,
) -> keras.Model:
    """Builds a KeypointNet that computes as its int8 form will.

    Args:
        preset: Name of a preset, or an architecture of your own.
        image_size: (height, width) px; None leaves a side open.
        scheme: What is quantized; `FLOAT` rounds nothing.
        bare: Whether to build what is converted, without shifting pixels and sharpening scores.

    Returns:
        A model with the inputs and outputs of `kp2d.methods.networks.build_network`, and the same weights
        for every scheme and size; a bare one lacks "score_sharpen/sharpness".

    Raises:
        InputError: If the preset is unknown or the size not divisible by the cell.
    """
    config = get_preset(preset) if isinstance(preset, str) else preset
    return assemble(config, image_size, QuantizedParts(config, scheme, bare=bare))


def build_inspector(preset: str | NetworkConfig, *, scheme: Scheme = INT8) -> keras.Model:
    """Builds the same network with every rounded tensor as an output, by name in order of computation."""
    config = get_preset(preset) if isinstance(preset, str) else preset
    parts = QuantizedParts(config, scheme, bare=False)
    network = assemble(config, (None, None), parts)
    return keras.Model(network.input, parts.tensors, name=f"{config.name}_inspector")


def assign_by_name(network: keras.Model, values: dict[str, object]) -> None:
    """Sets every weight of a network from values by path ("conv1a/kernel")."""
    for variable in network.weights:
        variable.assign(values[variable.path])
