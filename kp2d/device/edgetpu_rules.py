"""Owns the rules by which the Edge TPU compiler maps an operator, as far as they are known.

They come from the list of supported operations in Coral's documentation, from what users report of compiler
16, and from models that Google published before and after compilation. Whether an operator is mapped also
depends on those before it; see `kp2d.device.edgetpu`.
"""

from __future__ import annotations

from collections.abc import Callable

from kp2d.device.compiler import MAPPED
from kp2d.methods.tpu import CUSTOM_OPERATOR
from kp2d.quantize.flatbuffer import Operator, Tensor
from kp2d.quantize.lowering import needed_version

# What the compiler writes beside an operator that has a reason of its own to stay on the CPU.
UNSUPPORTED = "Operation not supported"
VERSION = "Operation version not supported"
LIMITED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
TYPE = "Operation is working on an unsupported data type"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
CONSTANT = "Filter, bias, or other param is not constant at compile-time"

LARGEST_RESHAPE = 2**19  # bytes of a tensor whose values move; detection heads above are not mapped
LARGEST_RESIZE = 160  # px a side; 128 is known to be mapped, 256 is not
LARGEST_RATIO = 4  # of a resize

# Operators that the Edge TPU has.
SUPPORTED = frozenset(
    (
        *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "RSQRT"),
        *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "LSTM"),
        *("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"),
        *("CONCATENATION", "PACK", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE", "PAD", "TRANSPOSE"),
        *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SPACE_TO_DEPTH", "QUANTIZE", "L2_NORMALIZATION"),
        *("LOGISTIC", "TANH", "SOFTMAX", "RELU", "RELU6", "RELU_N1_TO_1", "PRELU"),
        *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
    )
)
# Newest version of each operator that compiler 16 can read, where it is not 1: those of TensorFlow Lite of
# summer 2021. A newer one stops the compilation, even of an operator that would stay on the CPU.
VERSIONS = {
    **dict.fromkeys(("DEPTHWISE_CONV_2D", "STRIDED_SLICE"), 6),
    **dict.fromkeys(("CONV_2D", "MUL", "SUB", "TRANSPOSE", "SLICE", "GATHER"), 5),
    **dict.fromkeys(("ADD", "PAD", "PADV2", "LSTM", "MAXIMUM", "MINIMUM", "SPLIT", "UNPACK", "ABS"), 4),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "DEQUANTIZE", "BATCH_MATMUL", "SVDF"), 4),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION", "SOFTMAX", "MEAN", "PACK"), 3),
    **dict.fromkeys(("LOGISTIC", "TANH", "RELU", "RELU6", "REDUCE_MAX", "REDUCE_MIN", "TRANSPOSE_CONV"), 3),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "UNIDIRECTIONAL_SEQUENCE_LSTM"), 3),
    **dict.fromkeys(("EQUAL", "NOT_EQUAL", "GATHER_ND", "FILL", "REVERSE_V2", "SPARSE_TO_DENSE", "RNN"), 3),
    **dict.fromkeys(
        ("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "QUANTIZE", "SUM", "SPLIT_V", "SQUEEZE", "RSQRT"), 2
    ),
    **dict.fromkeys(("L2_NORMALIZATION", "SQUARED_DIFFERENCE", "ARG_MAX", "ARG_MIN", "LEAKY_RELU", "DIV"), 2),
    **dict.fromkeys(("TILE", "TOPK_V2", "LOG_SOFTMAX", "MIRROR_PAD", "SELECT", "FLOOR_DIV", "FAKE_QUANT"), 2),
    **dict.fromkeys(("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"), 2),
    "FULLY_CONNECTED": 9,
    "BROADCAST_TO": 3,
}
# Half-pixel centres are version 3, which compiler 15 refused and 16 is known to take in some networks only.
_MAPPED_VERSIONS = {"RESIZE_BILINEAR": 2, "RESIZE_NEAREST_NEIGHBOR": 2}
_REMEDIES = {
    "DEPTH_TO_SPACE": "In int8 networks of kp2d, kp2d compile rewrites it; the integers stay the same.",
    "LEAKY_RELU": "Train with ReLU; networks of kp2d: kp2d train --to-coral.",
    "DEQUANTIZE": "It makes floats; let the model give integers.",
}
_EIGHT_BITS = {"int8", "uint8"}
_NO_ACTIVATION = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION")
# Inputs, by place, that must be in the file: kernels, shapes, axes, sizes.
_CONSTANT = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), (1, 2)),
    "TRANSPOSE_CONV": (0, 1, 3),
    "SPLIT": (0,),
    "PRELU": (1,),
    **dict.fromkeys(("PAD", "RESHAPE", "TRANSPOSE", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), (1,)),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "EXPAND_DIMS"), (1,)),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
}


def judge(operator: Operator) -> tuple[str, str]:
    """Forecasts whether an operator is mapped, if all before it are.

    Args:
        operator: Of a model.

    Returns:
        The compiler's status, and in other words why and what to do (empty if it is mapped).
    """
    name = operator.name
    if name == CUSTOM_OPERATOR.decode():
        return MAPPED, ""
    if operator.custom:
        floats = any(tensor.type == "float32" for tensor in operator.outputs)
        return (TYPE if floats else UNSUPPORTED), "A custom operator, which is meant for the CPU."
    if name not in SUPPORTED:
        floats = any(tensor.type not in _EIGHT_BITS for tensor in operator.outputs)
        known = _REMEDIES.get(name, "Replace it by operators that the Edge TPU has.")
        return (TYPE if floats and name in ("DEQUANTIZE", "ARG_MAX") else UNSUPPORTED), known
    for check in (_version, _types, _rank, _constants):
        found = check(operator)
        if found:
            return found
    why = _RULES[name](operator) if name in _RULES else ""
    if not why and name in _NO_ACTIVATION and operator.options.get("fusedActivationFunction"):
        why = "It has an activation inside."
    return (LIMITED, why) if why else (MAPPED, "")


def too_new(operator: Operator) -> bool:
    """Tells whether compiler 16 cannot read an operator's version, and so gives up the whole model."""
    return not operator.custom and operator.version > VERSIONS.get(operator.name, 1)


def _version(operator: Operator) -> tuple[str, str] | None:
    newest = _MAPPED_VERSIONS.get(operator.name, VERSIONS.get(operator.name, 1))
    needed = needed_version(operator)
    version = max(operator.version, needed or 0)
    if version <= newest:
        return None
    if needed is not None and needed <= newest:
        remedy = "kp2d compile declares it as what it is."
    elif operator.options.get("halfPixelCenters"):
        remedy = "Resize without half-pixel centres."
    else:
        remedy = "It uses what older ones lack."
    return VERSION, f"Version {version}, the compiler takes {newest}. {remedy}"


def _types(operator: Operator) -> tuple[str, str] | None:
    data = (*_data(operator), *operator.outputs)
    other = sorted({tensor.type for tensor in data} - _EIGHT_BITS)
    if not other:
        return None
    if operator.name == "QUANTIZE" and other == ["float32"]:
        return LIMITED, "It quantizes a float input on the CPU; feed integers (kp2d quantize does)."
    return TYPE, f"It works on {', '.join(other)}; quantize all of the model to int8."


def _rank(operator: Operator) -> tuple[str, str] | None:
    shapes = [tensor.shape for tensor in (*_data(operator), *operator.outputs)]
    wide = [shape for shape in shapes if any(side != 1 for side in shape[:-3])]
    return (
        (RANK, f"A tensor of {'x'.join(map(str, wide[0]))}; only the last three sides may exceed 1.")
        if wide
        else None
    )


def _constants(operator: Operator) -> tuple[str, str] | None:
    places = _CONSTANT.get(operator.name, ())
    free = [operator.inputs[place] for place in places if place < len(operator.inputs)]
    free = [tensor.name for tensor in free if not tensor.constant]
    return (CONSTANT, f"{', '.join(free)} is computed.") if free else None


def _data(operator: Operator) -> list[Tensor]:
    """Inputs that are computed, without shapes, sizes and axes."""
    fixed = _CONSTANT.get(operator.name, ())
    return [
        tensor for place, tensor in enumerate(operator.inputs) if place not in fixed and not tensor.constant
    ]


def _dilation(operator: Operator) -> str:
    options = operator.options
    if options.get("dilationWFactor", 1) != options.get("dilationHFactor", 1):
        return "Its dilation differs in x and y."
    if operator.name == "CONV_2D" and operator.inputs[0].shape[3:] != operator.inputs[1].shape[3:]:
        return "It convolves in groups."
    return ""


def _fully_connected(operator: Operator) -> str:
    if operator.options.get("weightsFormat"):
        return "Its weights are not in the default format."
    return "" if set(operator.outputs[0].shape[:-1]) <= {1} else "Its result is more than one vector."


def _concatenation(operator: Operator) -> str:
    constants = [tensor for tensor in operator.inputs if tensor.constant]
    if constants and len(operator.inputs) != 2:
        return "A constant is joined with more than one tensor."
    return "" if all(tensor.zeros for tensor in constants) else "A constant that is not zero is joined."


def _axis_option(operator: Operator) -> str:
    return "" if operator.options.get("axis") else "It packs along the batch."


def _split(operator: Operator) -> str:
    axis = operator.inputs[0].values or (None,)
    return "It splits the batch." if axis[0] in (0, -len(operator.inputs[1].shape)) else ""


def _pad(operator: Operator) -> str:
    values, rank = operator.inputs[1].values, len(operator.inputs[0].shape)
    return "It pads the batch." if rank == 4 and any(values[:2]) else ""


def _reduction(operator: Operator) -> str:
    rank = len(operator.inputs[0].shape)
    axes = {axis % rank for axis in operator.inputs[1].values}
    if rank == 4 and 0 in axes:
        return "It reduces the batch."
    channels = operator.inputs[0].shape[-1]
    if operator.name == "MEAN" and rank - 1 in axes and channels % 4:
        return f"It reduces {channels} channels, not a multiple of 4."
    return ""


def _prelu(operator: Operator) -> str:
    shared = set(operator.inputs[1].shape[:-1]) <= {1}
    return "" if shared else "Its slopes differ from pixel to pixel: share them over axes 1 and 2."


def _resize(operator: Operator) -> str:
    source, result = operator.inputs[0], operator.outputs[0]
    ratio = max(after / before for before, after in zip(source.shape[1:3], result.shape[1:3], strict=True))
    if source.scales != result.scales:
        return "Its result is quantized otherwise than its input."
    if ratio > LARGEST_RATIO:
        return f"It enlarges more than {LARGEST_RATIO} times, which loses precision."
    if max(result.shape[1:3]) > LARGEST_RESIZE:
        return f"Its result has more than {LARGEST_RESIZE} px a side, which may lose precision."
    return ""


def _softmax(operator: Operator) -> str:
    *others, size = operator.inputs[0].shape
    if set(others) - {1}:
        return "It works on more than one vector."
    return "" if size <= 16_000 else "It works on more than 16,000 values."


def _strided_slice(operator: Operator) -> str:
    if set(operator.inputs[3].values) - {1}:
        return "Its strides are not 1."
    masks = operator.options.get("ellipsisMask") or operator.options.get("newAxisMask")
    return "It uses an ellipsis or a new axis." if masks else ""


def _reshape(operator: Operator) -> str:
    """Reshapes that keep the channels, or the order of few values, cost nothing."""
    before, after = operator.inputs[0], operator.outputs[0]
    moved = before.shape[-1:] != after.shape[-1:]
    return "It moves many values." if moved and before.bytes > LARGEST_RESHAPE else ""


_RULES: dict[str, Callable[[Operator], str]] = {
    "CONV_2D": _dilation,
    "DEPTHWISE_CONV_2D": _dilation,
    "FULLY_CONNECTED": _fully_connected,
    "CONCATENATION": _concatenation,
    "PACK": _axis_option,
    "SPLIT": _split,
    "PAD": _pad,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduction),
    "PRELU": _prelu,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    **dict.fromkeys(("RESHAPE", "TRANSPOSE"), _reshape),
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _strided_slice,
}
