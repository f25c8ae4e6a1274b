"""Owns the rules by which the Edge TPU compiler maps an operator, as far as they are known.

They come from the list of supported operations in Coral's documentation, from what users report of compiler
16, and from models that Google published before and after compilation. Whether an operator is mapped also
depends on those before it; see `kp2d.device.edgetpu`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kp2d.device.compiler import MAPPED
from kp2d.methods.tpu import CUSTOM_OPERATOR
from kp2d.quantize.flatbuffer import Operator, Tensor
from kp2d.quantize.rewriting import needed_version

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

COMPILED = CUSTOM_OPERATOR.decode()  # what the compiler makes of all that it maps
_EIGHT_BITS = {"int8", "uint8"}

Limit = tuple[str, Callable[[Operator], object]]  # why an operator is not mapped, and whether that holds


def _axes(it: Operator) -> set[int]:
    return {axis % len(it.inputs[0].shape) for axis in it.inputs[1].values}


def _enlarges(it: Operator) -> bool:
    sides = zip(it.inputs[0].shape[1:3], it.outputs[0].shape[1:3], strict=True)
    return any(after / before > LARGEST_RATIO for before, after in sides)


def _moves_much(it: Operator) -> bool:
    """Reshapes that keep the channels, or the order of few values, cost nothing."""
    return it.inputs[0].shape[-1:] != it.outputs[0].shape[-1:] and it.inputs[0].bytes > LARGEST_RESHAPE


LIMITS: dict[str, Limit] = {
    "activation": ("It has an activation inside.", lambda it: it.options.get("fusedActivationFunction")),
    "axis": ("It packs along the batch.", lambda it: not it.options.get("axis")),
    "batch padded": (
        "It pads the batch.",
        lambda it: len(it.inputs[0].shape) == 4 and any(it.inputs[1].values[:2]),
    ),
    "batch reduced": ("It reduces the batch.", lambda it: len(it.inputs[0].shape) == 4 and 0 in _axes(it)),
    "batch split": (
        "It splits the batch.",
        lambda it: it.inputs[0].values[:1] in ((0,), (-len(it.inputs[1].shape),)),
    ),
    "channels": (
        "It reduces channels, and their number is no multiple of 4.",
        lambda it: len(it.inputs[0].shape) - 1 in _axes(it) and it.inputs[0].shape[-1] % 4,
    ),
    "dilation": (
        "Its dilation differs in x and y.",
        lambda it: it.options.get("dilationWFactor", 1) != it.options.get("dilationHFactor", 1),
    ),
    "format": ("Its weights are not in the default format.", lambda it: it.options.get("weightsFormat")),
    "groups": ("It convolves in groups.", lambda it: it.inputs[0].shape[3:] != it.inputs[1].shape[3:]),
    "joined": (
        "A constant is joined with more than one tensor.",
        lambda it: any(tensor.constant for tensor in it.inputs) and len(it.inputs) != 2,
    ),
    "masks": (
        "It uses an ellipsis or a new axis.",
        lambda it: it.options.get("ellipsisMask") or it.options.get("newAxisMask"),
    ),
    "moved": ("It moves many values.", _moves_much),
    "ones": (
        "A constant that is not zero is joined.",
        lambda it: any(tensor.constant and not tensor.zeros for tensor in it.inputs),
    ),
    "ratio": (f"It enlarges more than {LARGEST_RATIO} times, which loses precision.", _enlarges),
    "rescaled": (
        "Its result is quantized otherwise.",
        lambda it: it.inputs[0].scales != it.outputs[0].scales,
    ),
    "size": (
        f"Its result has more than {LARGEST_RESIZE} px a side, which may lose precision.",
        lambda it: max(it.outputs[0].shape[1:3]) > LARGEST_RESIZE,
    ),
    "slopes": (
        "Its slopes differ from pixel to pixel: share them over axes 1 and 2.",
        lambda it: set(it.inputs[1].shape[:-1]) - {1},
    ),
    "strides": ("Its strides are not 1.", lambda it: set(it.inputs[3].values) - {1}),
    "vectors": ("It makes more than one vector.", lambda it: set(it.outputs[0].shape[:-1]) - {1}),
    "width": ("It works on more than 16,000 values.", lambda it: it.inputs[0].shape[-1] > 16_000),
}


@dataclass(frozen=True)
class Rule:
    """What is known of an operator."""

    # newest that compiler 16 reads: that of TensorFlow Lite of summer 2021. A newer one stops the
    # compilation, even of an operator that would stay on the CPU
    version: int = 1
    constant: tuple[int, ...] = ()  # inputs, by place, that must be in the file: kernels, shapes, axes, sizes
    limits: tuple[str, ...] = ()  # what keeps it on the CPU; keys of `LIMITS`
    mapped_version: int | None = None  # newest that is mapped; None takes `version`
    remedy: str = ""  # what to do where the Edge TPU lacks the operator; "" where it has it


_POOL = Rule(3, (), ("activation",))
_REDUCE = Rule(3, (1,), ("batch reduced",))
# Half-pixel centres are version 3, which compiler 15 refused and 16 is known to take in some networks only.
_RESIZE = Rule(4, (1,), ("rescaled", "ratio", "size"), mapped_version=2)
_ABSENT = "Replace it by operators that the Edge TPU has."
_UNKNOWN = Rule(remedy=_ABSENT)

# Operators of which nothing but the version matters, by version: mapped ones, and those the Edge TPU lacks.
_PLAIN = {
    1: "RELU_N1_TO_1",
    2: "SQUEEZE RSQRT SPACE_TO_DEPTH SPLIT_V QUANTIZE L2_NORMALIZATION SQUARED_DIFFERENCE",
    3: "LOGISTIC TANH RELU RELU6 UNIDIRECTIONAL_SEQUENCE_LSTM",
    4: "ADD MAXIMUM MINIMUM LSTM",
    5: "MUL SUB",
}
_LACKING = {
    2: "ARG_MAX ARG_MIN DIV TILE TOPK_V2 LOG_SOFTMAX SELECT MIRROR_PAD FLOOR_DIV FAKE_QUANT GREATER "
    "GREATER_EQUAL LESS LESS_EQUAL",
    3: "SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND BROADCAST_TO FILL EQUAL NOT_EQUAL GATHER_ND REVERSE_V2 "
    "SPARSE_TO_DENSE RNN",
    4: "PADV2 UNPACK ABS BATCH_MATMUL SVDF",
    5: "GATHER",
}
RULES = {
    **{name: Rule(version) for version, names in _PLAIN.items() for name in names.split()},
    **{name: Rule(version, remedy=_ABSENT) for version, names in _LACKING.items() for name in names.split()},
    "CONV_2D": Rule(5, (1, 2), ("dilation", "groups")),
    "DEPTHWISE_CONV_2D": Rule(6, (1, 2), ("dilation",)),
    "TRANSPOSE_CONV": Rule(3, (0, 1, 3)),
    "FULLY_CONNECTED": Rule(9, (1, 2), ("format", "vectors")),
    "AVERAGE_POOL_2D": _POOL,
    "MAX_POOL_2D": _POOL,
    "REDUCE_MAX": _REDUCE,
    "REDUCE_MIN": _REDUCE,
    "SUM": Rule(2, (1,), ("batch reduced",)),
    "MEAN": Rule(3, (1,), ("batch reduced", "channels")),
    "RESIZE_BILINEAR": _RESIZE,
    "RESIZE_NEAREST_NEIGHBOR": _RESIZE,
    "CONCATENATION": Rule(3, (), ("joined", "ones", "activation")),
    "PACK": Rule(3, (), ("axis",)),
    "SPLIT": Rule(4, (0,), ("batch split",)),
    "SLICE": Rule(5, (1, 2)),
    "STRIDED_SLICE": Rule(6, (1, 2, 3), ("strides", "masks")),
    "PAD": Rule(4, (1,), ("batch padded",)),
    "RESHAPE": Rule(1, (1,), ("moved",)),
    "TRANSPOSE": Rule(5, (1,), ("moved",)),
    "EXPAND_DIMS": Rule(1, (1,)),
    "PRELU": Rule(1, (1,), ("slopes",)),
    "SOFTMAX": Rule(3, (), ("vectors", "width")),
    "DEPTH_TO_SPACE": Rule(
        2, remedy="In int8 networks of kp2d, kp2d compile rewrites it to the same integers."
    ),
    "LEAKY_RELU": Rule(2, remedy="Train with ReLU; networks of kp2d: kp2d train --to-coral."),
    "DEQUANTIZE": Rule(4, remedy="It makes floats; let the model give integers."),
}


def judge(operator: Operator) -> tuple[str, str]:
    """Forecasts whether an operator is mapped, if all before it are.

    Returns the compiler's status, and in other words why and what to do (empty if it is mapped).
    """
    if operator.name == COMPILED:
        return MAPPED, ""
    if operator.custom:
        floats = any(tensor.type == "float32" for tensor in operator.outputs)
        return (TYPE if floats else UNSUPPORTED), "A custom operator, which is meant for the CPU."
    rule = RULES.get(operator.name, _UNKNOWN)
    if rule.remedy:
        other = any(tensor.type not in _EIGHT_BITS for tensor in operator.outputs)
        return (TYPE if other and operator.name in ("DEQUANTIZE", "ARG_MAX") else UNSUPPORTED), rule.remedy
    for check in (_types, _version, _rank, _constants):
        if refused := check(operator, rule):
            return refused
    limits = (LIMITS[name] for name in rule.limits)
    why = next((sentence for sentence, holds in limits if holds(operator)), "")
    return (LIMITED, why) if why else (MAPPED, "")


def too_new(operator: Operator) -> bool:
    """Tells whether compiler 16 cannot read an operator's version, and so gives up the whole model."""
    return not operator.custom and operator.version > RULES.get(operator.name, _UNKNOWN).version


def _version(operator: Operator, rule: Rule) -> tuple[str, str] | None:
    newest, needed = rule.mapped_version or rule.version, needed_version(operator)
    version = max(operator.version, needed or 0)
    if version <= newest:
        return None
    if needed is not None and needed <= newest:
        remedy = "kp2d compile declares it as what it is."
    elif operator.options.get("halfPixelCenters"):
        remedy = "Resize without half-pixel centres."
    else:
        remedy = "It uses what older ones lack, or was converted by a newer TensorFlow than 2.6."
    return VERSION, f"Version {version}, the compiler takes {newest}. {remedy}"


def _data(operator: Operator, rule: Rule) -> list[Tensor]:
    """Tensors that are computed, without shapes, sizes and axes."""
    inputs = [tensor for index, tensor in enumerate(operator.inputs) if index not in rule.constant]
    return [*(tensor for tensor in inputs if not tensor.constant), *operator.outputs]


def _types(operator: Operator, rule: Rule) -> tuple[str, str] | None:
    other = sorted({tensor.type for tensor in _data(operator, rule)} - _EIGHT_BITS)
    if not other:
        return None
    if operator.name == "QUANTIZE" and other == ["float32"]:
        return LIMITED, "It quantizes a float input on the CPU; feed integers (kp2d quantize does)."
    return TYPE, f"It works on {', '.join(other)}; quantize all of the model to int8."


def _rank(operator: Operator, rule: Rule) -> tuple[str, str] | None:
    for tensor in _data(operator, rule):
        if set(tensor.shape[:-3]) - {1}:
            shape = "x".join(map(str, tensor.shape))
            return RANK, f"A tensor of {shape}; only the last three sides may exceed 1."
    return None


def _constants(operator: Operator, rule: Rule) -> tuple[str, str] | None:
    inputs = [operator.inputs[index] for index in rule.constant if index < len(operator.inputs)]
    computed = [tensor.name for tensor in inputs if not tensor.constant]
    return (CONSTANT, f"{', '.join(computed)} is computed.") if computed else None
