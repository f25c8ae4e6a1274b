"""Owns the way from a Keras network to a `.tflite` file, an ONNX file or a C array; needs TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from kp2d import backend, provenance
from kp2d.checks import fits_cells, one_of, problem
from kp2d.methods import tflite_file
from kp2d.methods.networks import FloatParts, NetworkConfig, assemble
from kp2d.methods.quantized import INT8, QuantizedParts, assign_by_name
from kp2d.quantize import rewriting
from kp2d.quantize.flatbuffer import Model

# Each with what becomes of weights and tensors.
PRECISIONS = {
    "float32": "weights and tensors in float32",
    "float16": "weights in float16, tensors in float32",
    "int8": "weights and tensors in int8, from training that knows the grid",
    "int8_ptq": "weights and tensors in int8, quantized after training",
}
_HEADS = {head: f"{head}_map" for head in tflite_file.SIGNATURE[1]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """What a model file is to be."""

    name: str  # of the network
    precision: str = "int8"  # a key of `PRECISIONS`
    image_size: tuple[int, int] = (240, 320)  # (height, width) px
    steered: bool = False  # whether the descriptors turn with their image

    def __post_init__(self) -> None:
        one_of("precision", self.precision, PRECISIONS)

    @property
    def integer(self) -> bool:
        """Whether nothing of the model is float."""
        return self.precision in ("int8", "int8_ptq")


@backend.own_settings()
def to_tflite(
    network: keras.Model,
    config: NetworkConfig,
    export: Export,
    *,
    about: dict[str, Any] | None = None,
) -> Model:
    """Converts a network to a TFLite model with signature and metadata.

    Args:
        network: From `kp2d.methods.quantized.build_quantized_network` for an integer model, which gets its
            very ranges; from `kp2d.methods.networks.build_network` for the others.
        config: Its architecture.
        export: What the file is to be.
        about: What else the metadata tell.

    Returns:
        The model, to be packed into a file.

    Raises:
        InputError: If TensorFlow is missing, the size does not suit the network, the network is of the other
            kind, or a float tensor is left in an integer model.
    """
    tf = require_tensorflow()
    fits_cells(export.image_size, config.cell)
    fixed = _of_fixed_size(config, export)
    values = {variable.path: variable for variable in network.weights}
    if not {variable.path for variable in fixed.weights} <= values.keys():
        kind = "a quantized" if export.integer else "a float"
        raise problem(f"{kind} network of {config.name} for {export.precision}", "one with other weights")
    assign_by_name(fixed, values)

    @tf.function(input_signature=[tf.TensorSpec((1, *export.image_size, 3), tf.float32, name="image")])
    def forward(image):
        heads = fixed(image, training=False)
        return {name: heads[head] for name, head in _HEADS.items()}

    # The one route on which ranges are constants when the converter looks at them: without the network as
    # second argument, of which it warns.
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([forward.get_concrete_function()])
    if export.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if export.integer:
        converter.inference_input_type = converter.inference_output_type = tf.int8
    elif export.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with _quiet():
        model = Model.parse(converter.convert())
    sharpness = values.get("score_sharpen/sharpness", 1.0)
    about = {"score_sharpness": float(keras.ops.convert_to_numpy(sharpness)), **(about or {})}
    rewriting.finish(model, metadata(config, export, about))
    if export.integer:
        _check_integer(model)
    return model


def _of_fixed_size(config: NetworkConfig, export: Export) -> keras.Model:
    if export.integer:
        return assemble(config, export.image_size, _QuantizedParts(config, INT8, bare=True))
    return assemble(config, export.image_size, _FloatParts(config, 0.0, "float32"))


class _Resizing:
    """Upsamples by the operator for it, which the converter does not find in repeated values."""

    def upsample(self, x, name: str):
        if self._config.upsampling == "nearest":
            return ResizedNearest(name=name)(x)
        return super().upsample(x, name)


class _FloatParts(_Resizing, FloatParts):
    pass


class _QuantizedParts(_Resizing, QuantizedParts):
    pass


class ResizedNearest(keras.layers.Layer):
    """`kp2d.methods.networks.NearestUpsampling` as RESIZE_NEAREST_NEIGHBOR: the same values."""

    def call(self, inputs):
        """Repeats rows and columns of `[B, H, W, C]`, H and W known."""
        tf = require_tensorflow()
        _, height, width, _ = inputs.shape
        # The Edge TPU's compiler refuses half_pixel_centers, which keras.ops.image.resize sets.
        return tf.raw_ops.ResizeNearestNeighbor(
            images=inputs, size=(2 * height, 2 * width), align_corners=False, half_pixel_centers=False
        )

    def compute_output_shape(self, input_shape):
        """Shape of the result."""
        batch, height, width, channels = input_shape
        return (batch, 2 * height, 2 * width, channels)


def metadata(config: NetworkConfig, export: Export, about: dict[str, Any]) -> dict[str, Any]:
    """Returns what a model says of itself; see `kp2d.methods.tflite_file`."""
    return {
        "name": export.name,
        "preset": config.name,
        "precision": export.precision,
        "image_size": list(export.image_size),
        "cell": config.cell,
        "descriptor_dim": config.descriptor_dim,
        "pixel_offset": 127.0 if export.integer else 127.5,
        "pixel_scale": 127.5,
        "git_commit": provenance.git_commit(),
        **({"steered": True} if export.steered else {}),
        **about,
    }


def _check_integer(model: Model) -> None:
    floats = [
        f"{operator.name} at {operator.outputs[0].shape}"
        for operator in model.graph().operators
        if any(tensor.type.startswith("float") for tensor in (*operator.inputs, *operator.outputs))
    ]
    if floats:
        raise problem("a model without float tensors", f"float in {', '.join(floats)}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what the converter prints, logs and warns of; what it makes is checked afterwards."""
    logger = logging.getLogger("absl")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with (
            backend.no_stderr(),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def require_tensorflow() -> Any:
    """Returns TensorFlow, or raises an InputError where it is missing or Keras runs on another backend."""
    backend.quiet()
    try:
        import tensorflow as tf
    except ImportError as error:
        raise problem(
            "TensorFlow, which converts networks", "none installed", "Run pip install 'kp2d[train]'."
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise problem(
            "Keras on TensorFlow, which converts networks",
            f"Keras on {keras.backend.backend()}",
            "Set KERAS_BACKEND=tensorflow.",
        )
    return tf


@backend.own_settings()
def to_onnx(network: keras.Model, config: NetworkConfig, image_size: tuple[int, int]) -> bytes:
    """Converts a float network, from `kp2d.methods.networks.build_network`, to ONNX.

    Returns:
        The bytes of a file whose model goes from "image", float32 `[1, H, W, 3]` in [−1, 1], (H, W) being the
        size, to "score", "offset" and "descriptor".

    Raises:
        InputError: If TensorFlow or tf2onnx is missing, or the size does not suit the network.
    """
    tf = require_tensorflow()
    fits_cells(image_size, config.cell)
    try:
        import tf2onnx
    except ImportError as error:
        raise problem(
            "tf2onnx, which writes ONNX", "none installed", "Run pip install 'kp2d[onnx]'."
        ) from error

    @tf.function
    def forward(image):
        heads = network(image, training=False)
        return {name: heads[head] for name, head in _HEADS.items()}

    image = tf.TensorSpec((1, *image_size, 3), tf.float32, name="image")
    with _quiet():
        model, _ = tf2onnx.convert.from_function(forward, input_signature=[image], opset=17)
    return model.SerializeToString()
