"""Owns `.tflite` models as objects: reading and writing them, their operators and tensors.

Needs the schema that comes with LiteRT; running a model does not need this module.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kp2d.checks import problem
from kp2d.methods import tflite_file, tflite_verifier

_ALIGNMENT = 16  # bytes, which the schema demands of constants and its Python writer forgets
_OPERATORS = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
_TYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if name[0] != "_"}
_BYTES = {"float32": 4, "float16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8, "int16": 2}


def parse(data: bytes) -> schema.ModelT:
    """Reads a model.

    Args:
        data: The file's bytes.

    Returns:
        The model as an object.

    Raises:
        InputError: If it is damaged.
    """
    tflite_verifier.verify(data)  # the generated reader follows any offset, and would take any time
    try:
        return schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    except Exception as error:  # the generated reader has no error of its own
        raise problem("a whole .tflite model", f"damaged bytes ({type(error).__name__})") from error


def pack(model: schema.ModelT) -> bytes:
    """Writes a model as the bytes of a file."""
    builder = _AlignedBuilder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns constants."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        constant = elemSize == 1 and alignment == 1
        return super().StartVector(elemSize, numElems, _ALIGNMENT if constant else alignment)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a model.

    Attributes:
        index: Its number in the file.
        name: As the file says.
        type: "int8", "float32" …
        shape: Of an image of the model's own size.
        constant: Whether its values are in the file.
        scales: Of its quantization: none, one, or one a channel.
        values: Of a constant with at most 16 whole numbers, as axes and sizes are; else empty.
        zeros: Whether it is a constant that stands for nothing but zeros.
        open: Whether a side other than the batch is left open.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    constant: bool
    scales: tuple[float, ...] = ()
    values: tuple[int, ...] = ()
    zeros: bool = False
    open: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of its values; what is smaller than a byte counts as one."""
        return math.prod(self.shape) * _BYTES.get(self.type, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator of a model.

    Attributes:
        name: "CONV_2D", or the name of a custom operator.
        version: Of its definition; newer ones take more types or options.
        inputs: Its tensors, those that are left out excepted.
        outputs: Its tensors.
        options: Name to value, in the schema's words.
        custom: Whether it is not one of TFLite's own.
    """

    name: str
    version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    custom: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """A model as operators in the order of computation.

    Attributes:
        operators: Of the first subgraph.
        inputs: Tensors that the model takes.
        outputs: Tensors that it gives.
        num_subgraphs: Others belong to control flow.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    num_subgraphs: int


def read_graph(data: bytes) -> Graph:
    """Reads a model as operators and tensors.

    Args:
        data: The file's bytes, of any TFLite model.

    Returns:
        The graph.

    Raises:
        InputError: If the file is damaged.
    """
    model = parse(data)
    try:
        graph = model.subgraphs[0]
        return Graph(
            operators=tuple(operator_of(model, graph, one) for one in graph.operators or []),
            inputs=_tensors(model, graph, graph.inputs),
            outputs=_tensors(model, graph, graph.outputs),
            num_subgraphs=len(model.subgraphs),
        )
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise problem("a whole .tflite model", f"damaged bytes ({type(error).__name__})") from error


def operator_of(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT) -> Operator:
    """Describes an operator of a model."""
    code = model.operatorCodes[operator.opcodeIndex]
    number, custom = builtin(code), text(code.customCode or "")
    return Operator(
        name=custom or _OPERATORS.get(number, str(number)),
        version=int(code.version),
        inputs=_tensors(model, graph, operator.inputs),
        outputs=_tensors(model, graph, operator.outputs),
        options=dict(vars(operator.builtinOptions)) if operator.builtinOptions is not None else {},
        custom=bool(custom),
    )


def _tensors(model: schema.ModelT, graph: schema.SubGraphT, indices: Any) -> tuple[Tensor, ...]:
    return tuple(
        _tensor(model, int(index), graph.tensors[index])
        for index in ([] if indices is None else indices)
        if index >= 0
    )


def _tensor(model: schema.ModelT, index: int, tensor: schema.TensorT) -> Tensor:
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    values = model.buffers[tensor.buffer].data
    constant = values is not None and len(values) > 0
    whole = constant and tensor.type == schema.TensorType.INT32 and len(values) <= 64
    points = tensor.quantization.zeroPoint if tensor.quantization is not None else None
    zero = int(points[0]) % 256 if points is not None and len(points) == 1 else 0
    signature = [] if tensor.shapeSignature is None else list(tensor.shapeSignature)
    return Tensor(
        index=index,
        name=text(tensor.name or ""),
        type=type_name(tensor),
        shape=() if tensor.shape is None else tuple(int(side) for side in tensor.shape),
        constant=constant,
        scales=() if scales is None else tuple(float(scale) for scale in scales),
        values=tuple(int(one) for one in np.asarray(values).view("<i4")) if whole else (),
        zeros=constant and bool((np.asarray(values, np.uint8) == zero).all()),
        open=-1 in signature[1:],
    )


def builtin(code: schema.OperatorCodeT) -> int:
    """Returns which of TFLite's operators a code means; old files have it in another field."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def type_name(tensor: schema.TensorT) -> str:
    """Returns the type of a tensor, "int8"."""
    return _TYPES[tensor.type]


def summary(data: bytes) -> dict[str, Any]:
    """Summarizes a model: its operators with versions and counts, its number of tensors by type.

    Args:
        data: The file's bytes.

    Returns:
        `operators` ("CONV_2D v3" to count), `tensors` (type to count) and `bytes`.
    """
    graph = read_graph(data)
    counts = Counter(f"{operator.name} v{operator.version}" for operator in graph.operators)
    tensors = {tensor.index: tensor.type for one in graph.operators for tensor in (*one.inputs, *one.outputs)}
    return {"operators": dict(counts), "tensors": dict(Counter(tensors.values())), "bytes": len(data)}


def describe(path: str | Path) -> dict[str, Any]:
    """Returns the `summary` of a model file; raises as `kp2d.methods.tflite_file.read` does."""
    return summary(tflite_file.read(path))


def text(value: str | bytes) -> str:
    """Returns a string; strings are bytes or text, depending on the version of the schema."""
    return value.decode() if isinstance(value, bytes) else value
