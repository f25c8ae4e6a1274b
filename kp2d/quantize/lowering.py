"""Owns the form of a model that the Edge TPU compiler takes: its operators, in versions that it knows.

Nothing changes what a model computes: rewritten models give the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kp2d.checks import problem
from kp2d.quantize.flatbuffer import Model, Operator, type_name

# The kernel of a transposed convolution holds this value where it copies and 0 elsewhere; its scale is the
# inverse, a power of two below 1, so that every fixed-point arithmetic gives back the very same integer.
_ONE = 64

# Version of a definition that signed 8-bit tensors need, of the operators that a KeypointNet has; unsigned
# ones do with 1. From `GetBuiltinOperatorVersion` of TensorFlow Lite.
_SIGNED = {
    "CONV_2D": 3,
    **dict.fromkeys(("MAX_POOL_2D", "CONCATENATION", "LOGISTIC", "TANH"), 2),
    **dict.fromkeys(("DEPTH_TO_SPACE", "TRANSPOSE_CONV", "RESIZE_NEAREST_NEIGHBOR"), 2),
    **dict.fromkeys(("QUANTIZE", "LEAKY_RELU"), 1),
}
# Options that need a newer one: version, and whether an operator has the option.
_RAISED: dict[str, tuple[tuple[int, Callable[[Operator], bool]], ...]] = {
    "CONV_2D": ((6, lambda it: len({tensor.shape[3:] for tensor in it.inputs[:2]}) > 1),),  # in groups
    "TRANSPOSE_CONV": (
        (3, lambda it: len(it.inputs) == 4),  # with a bias
        (4, lambda it: bool(it.options.get("fusedActivationFunction"))),
    ),
    "RESIZE_NEAREST_NEIGHBOR": (
        (3, lambda it: bool(it.options.get("halfPixelCenters") or it.options.get("alignCorners"))),
    ),
    "QUANTIZE": ((3, lambda it: any(len(tensor.scales) > 1 for tensor in (*it.inputs, *it.outputs))),),
}


def needed_version(operator: Operator) -> int | None:
    """Returns the oldest version of an operator's definition that means what the operator does.

    Args:
        operator: With 8-bit tensors.

    Returns:
        The version; None where it is not known, as for floats and operators that no KeypointNet has.
    """
    if operator.custom or operator.name not in _SIGNED:
        return None
    types = {tensor.type for tensor in (*operator.inputs, *operator.outputs)}
    if types - {"int8", "uint8", "int32", "float32"} or not types & {"int8", "uint8"}:
        return None
    if "float32" in types and operator.name != "QUANTIZE":
        return None
    raised = [version for version, holds in _RAISED.get(operator.name, ()) if holds(operator)]
    return max([_SIGNED[operator.name] if "int8" in types else 1, *raised])


def lower_versions(model: Model) -> None:
    """Declares every operator in the oldest version that means the same.

    Converters write the version that they know; compilers refuse versions newer than themselves.

    Args:
        model: Any TFLite model.
    """
    needed: dict[int, list[int | None]] = {}
    for graph, operator in model.operators():
        version = needed_version(model.read(graph, operator))
        needed.setdefault(operator.opcodeIndex, []).append(version)
    for index, versions in needed.items():
        if None not in versions and max(versions) < model.tables.operatorCodes[index].version:
            model.edit().operatorCodes[index].version = max(versions)


def for_edgetpu(model: Model) -> None:
    """Rewrites a model so that the Edge TPU compiler can map all of it.

    Depth-to-space, for which the Edge TPU has no operator, becomes a transposed convolution with a fixed
    kernel; versions are lowered. The model computes the same integers, for images of its own size only, as a
    transposed convolution has it written in (`kp2d.quantize.rewriting.resize` changes it).

    Args:
        model: In int8.

    Raises:
        InputError: If a depth-to-space is not in int8.
    """
    depth_to_space = schema.BuiltinOperator.DEPTH_TO_SPACE
    blocks = [entry for entry in model.operators() if model.builtin(entry[1]) == depth_to_space]
    if blocks:
        code = model.add_code(schema.BuiltinOperator.TRANSPOSE_CONV, version=2)
        for graph, operator in blocks:
            _transpose(model, graph, operator, code)
        _drop_unused_codes(model)
    lower_versions(model)


def _transpose(model: Model, graph: schema.SubGraphT, operator: schema.OperatorT, code: int) -> None:
    """Turns a depth-to-space into the transposed convolution of the same values."""
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if source.type != schema.TensorType.INT8:
        raise problem(
            "a depth-to-space in int8", f"one in {type_name(source)}", "Quantize the network: kp2d quantize."
        )
    block, channels = operator.builtinOptions.blockSize, int(result.shape[3])
    kernel = np.zeros((channels, block, block, block * block * channels), np.int8)
    for cell in range(block * block):
        for channel in range(channels):
            kernel[channel, cell // block, cell % block, cell * channels + channel] = _ONE
    scale = schema.QuantizationParametersT(
        scale=np.array([1 / _ONE], np.float32), zeroPoint=np.array([0], np.int64)
    )
    name = "descriptor_upsample"
    size = _constant(model, graph, np.asarray(result.shape, np.int32), f"{name}/size")
    weights = _constant(model, graph, kernel, f"{name}/kernel", scale)
    operator.opcodeIndex = code
    operator.inputs = np.array([size, weights, operator.inputs[0]], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeConvOptions
    operator.builtinOptions = schema.TransposeConvOptionsT(
        padding=schema.Padding.VALID, strideW=block, strideH=block
    )


def _constant(
    model: Model, graph: schema.SubGraphT, values: np.ndarray, name: str, quantization: Any = None
) -> int:
    kinds = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}
    tensor = schema.TensorT(
        shape=np.array(values.shape, np.int32),
        type=kinds[values.dtype.name],
        buffer=model.add_buffer(np.frombuffer(values.tobytes(), np.uint8)),
        name=name,
        quantization=quantization,
    )
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _drop_unused_codes(model: Model) -> None:
    """Drops codes that no operator uses: the compiler looks for each of them and gives up if it has none."""
    operators = [operator for _, operator in model.operators()]
    used = sorted({operator.opcodeIndex for operator in operators})
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
    tables = model.edit()
    tables.operatorCodes = [tables.operatorCodes[index] for index in used]
