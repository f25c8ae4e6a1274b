"""Owns the form of a model that the Edge TPU compiler takes: its operators, in versions that it knows.

Nothing changes what a model computes: rewritten models give the same integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kp2d.checks import problem
from kp2d.quantize.flatbuffer import Operator, builtin, operator_of, pack, parse, type_name

# The kernel of a transposed convolution holds this value where it copies and 0 elsewhere; its scale is the
# inverse, a power of two below 1, so that every fixed-point arithmetic gives back the very same integer.
_ONE = 64

# Version of an operator's definition that signed 8-bit tensors need; unsigned ones do with 1. From
# `GetBuiltinOperatorVersion` of TensorFlow Lite; `_raised` has the options that need more.
_SIGNED = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 3),
    "FULLY_CONNECTED": 4,
    **dict.fromkeys(
        (
            *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"),
            *("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION", "PACK", "SPLIT", "SLICE", "STRIDED_SLICE"),
            *("PAD", "TRANSPOSE", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "L2_NORMALIZATION", "TRANSPOSE_CONV"),
            *("LOGISTIC", "TANH", "SOFTMAX", "RELU", "RELU6", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
            *("DEQUANTIZE", "ARG_MAX"),
        ),
        2,
    ),
    **dict.fromkeys(
        ("QUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "LEAKY_RELU", "PRELU", "HARD_SWISH"), 1
    ),
}
_UNSIGNED_TOO = ("RELU",)  # the same version for unsigned tensors


def needed_version(operator: Operator) -> int | None:
    """Returns the oldest version of an operator's definition that means what the operator does.

    Args:
        operator: With 8-bit tensors.

    Returns:
        The version; None where it is not known, as for floats and custom operators.
    """
    if operator.custom or operator.name not in _SIGNED or not operator.inputs:
        return None
    types = {tensor.type for tensor in (*operator.inputs, *operator.outputs)}
    if types - {"int8", "uint8", "int32", "int64", "float32"} or not types & {"int8", "uint8"}:
        return None
    if "float32" in types and operator.name not in ("QUANTIZE", "DEQUANTIZE"):
        return None
    signed = "int8" in types or operator.name in _UNSIGNED_TOO
    return max(_SIGNED[operator.name] if signed else 1, _raised(operator))


def _raised(operator: Operator) -> int:
    """The version that options of an operator ask for, above that of its types."""
    options, inputs = operator.options, operator.inputs
    rank = max(len(tensor.shape) for tensor in inputs)
    conditions = {
        "CONV_2D": {6: len(inputs) > 1 and inputs[0].shape[3:] != inputs[1].shape[3:]},
        "DEPTHWISE_CONV_2D": {
            2: options.get("dilationWFactor", 1) != 1 or options.get("dilationHFactor", 1) != 1
        },
        "FULLY_CONNECTED": {
            5: bool(options.get("keepNumDims")),
            6: len(inputs) == 2,
            12: len(inputs) > 1 and len(inputs[1].scales) > 1,
        },
        "MUL": {3: _rescale(operator) >= 1},
        "SUB": {3: rank > 4},
        "MAXIMUM": {3: rank > 4},
        "MINIMUM": {3: rank > 4},
        "TRANSPOSE": {4: rank > 4, 6: rank > 5},
        "PAD": {4: rank > 4},
        "SLICE": {5: rank > 4},
        "STRIDED_SLICE": {
            4: rank > 4,
            6: bool(options.get("ellipsisMask") or options.get("newAxisMask")),
            8: bool(options.get("offset")),
        },
        "TRANSPOSE_CONV": {3: len(inputs) == 4, 4: bool(options.get("fusedActivationFunction"))},
        "RESIZE_BILINEAR": {3: bool(options.get("halfPixelCenters"))},
        "RESIZE_NEAREST_NEIGHBOR": {3: bool(options.get("halfPixelCenters") or options.get("alignCorners"))},
        "QUANTIZE": {3: any(len(tensor.scales) > 1 for tensor in (*inputs, *operator.outputs))},
        "DEQUANTIZE": {5: len(inputs[0].scales) > 1},
    }
    return max((version for version, holds in conditions.get(operator.name, {}).items() if holds), default=1)


def _rescale(operator: Operator) -> float:
    scales = [tensor.scales for tensor in (*operator.inputs[:2], *operator.outputs[:1])]
    return scales[0][0] * scales[1][0] / scales[2][0] if len(scales) == 3 and all(scales) else 0.0


def lower_versions(data: bytes) -> bytes:
    """Declares every operator in the oldest version that means the same.

    Converters write the version that they know; compilers refuse versions newer than themselves.

    Args:
        data: The file's bytes, of any TFLite model.

    Returns:
        The same model; the very same bytes where nothing is to be lowered.

    Raises:
        InputError: If the file is damaged.
    """
    model = parse(data)
    needed: dict[int, list[int | None]] = {}
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            version = needed_version(operator_of(model, graph, operator))
            needed.setdefault(operator.opcodeIndex, []).append(version)
    changed = False
    for index, versions in needed.items():
        code = model.operatorCodes[index]
        if None not in versions and max(versions) < code.version:
            code.version, changed = max(versions), True
    return pack(model) if changed else data


def for_edgetpu(data: bytes) -> bytes:
    """Rewrites a model so that the Edge TPU compiler can map all of it.

    Depth-to-space, for which the Edge TPU has no operator, becomes a transposed convolution with a fixed
    kernel; versions are lowered. The model computes the same integers, for images of its own size only, as a
    transposed convolution has it written in (`kp2d.quantize.rewriting.resize` changes it).

    Args:
        data: An int8 model's bytes.

    Returns:
        The rewritten model; the very same bytes where nothing is to be changed.

    Raises:
        InputError: If the file is damaged, or a depth-to-space is not in int8.
    """
    model = parse(data)
    found = [
        (graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators or []
        if builtin(model.operatorCodes[operator.opcodeIndex]) == schema.BuiltinOperator.DEPTH_TO_SPACE
    ]
    if not found:
        return lower_versions(data)
    model.operatorCodes.append(_code(schema.BuiltinOperator.TRANSPOSE_CONV, version=2))
    for graph, operator in found:
        _transpose(model, graph, operator)
    return lower_versions(pack(_without_unused_codes(model)))


def _transpose(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT) -> None:
    """Turns a depth-to-space into the transposed convolution of the same values, in place."""
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if source.type != schema.TensorType.INT8:
        raise problem(
            "a depth-to-space in int8", f"one in {type_name(source)}", "Quantize the network: kp2d quantize."
        )
    block, channels = operator.builtinOptions.blockSize, int(result.shape[3])
    kernel = np.zeros((channels, block, block, block * block * channels), np.int8)
    for place in range(block * block):
        for channel in range(channels):
            kernel[channel, place // block, place % block, place * channels + channel] = _ONE
    scale = schema.QuantizationParametersT(
        scale=np.array([1 / _ONE], np.float32), zeroPoint=np.array([0], np.int64)
    )
    name = "descriptor_upsample"
    size = _constant(model, graph, np.asarray(result.shape, np.int32), f"{name}/size")
    weights = _constant(model, graph, kernel, f"{name}/kernel", scale)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.array([size, weights, operator.inputs[0]], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeConvOptions
    operator.builtinOptions = schema.TransposeConvOptionsT(
        padding=schema.Padding.VALID, strideW=block, strideH=block
    )


def _constant(
    model: schema.ModelT, graph: schema.SubGraphT, values: np.ndarray, name: str, quantization: Any = None
) -> int:
    model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
    kinds = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}
    tensor = schema.TensorT(
        shape=np.array(values.shape, np.int32),
        type=kinds[values.dtype.name],
        buffer=len(model.buffers) - 1,
        name=name,
        quantization=quantization,
    )
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _code(number: int, version: int) -> schema.OperatorCodeT:
    return schema.OperatorCodeT(deprecatedBuiltinCode=number, builtinCode=number, version=version)


def _without_unused_codes(model: schema.ModelT) -> schema.ModelT:
    """Drops codes that no operator uses: the compiler looks for each of them and gives up if it has none."""
    operators = [operator for graph in model.subgraphs for operator in graph.operators or []]
    used = sorted({operator.opcodeIndex for operator in operators})
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    return model
