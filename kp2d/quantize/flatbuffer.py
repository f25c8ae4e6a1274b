"""Owns `.tflite` models as objects: each is parsed once, changed in place and packed once.

Needs the schema that comes with LiteRT; running a model does not need this module.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kp2d.checks import InputError, problem
from kp2d.methods import tflite_file, tflite_verifier

_ALIGNMENT = 16  # bytes, which the schema demands of constants and its Python writer forgets
_OPERATORS = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
_TYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if name[0] != "_"}
_BYTES = {"float32": 4, "float16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8, "int16": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a model."""

    index: int  # its number in the file
    name: str  # as the file says
    type: str  # "int8", "float32" …
    shape: tuple[int, ...]  # of an image of the model's own size
    constant: bool  # whether its values are in the file
    scales: tuple[float, ...] = ()  # of its quantization: none, one, or one a channel
    # of a constant with at most 16 whole numbers, as axes and sizes are; else empty
    values: tuple[int, ...] = ()
    zeros: bool = False  # whether it is a constant that stands for nothing but zeros
    open: bool = False  # whether a side other than the batch is left open
    open_batch: bool = False  # whether its first side is

    @property
    def bytes(self) -> int:
        """Bytes of its values; what is smaller than a byte counts as one."""
        return math.prod(self.shape) * _BYTES.get(self.type, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator of a model."""

    name: str  # "CONV_2D", or the name of a custom operator
    version: int  # of its definition; newer ones take more types or options
    inputs: tuple[Tensor, ...]  # its tensors, those that are left out excepted
    outputs: tuple[Tensor, ...]  # its tensors
    options: Mapping[str, Any]  # name to value, in the schema's words
    custom: bool = False  # whether it is not one of TFLite's own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """A model as operators in the order of computation."""

    operators: tuple[Operator, ...]  # of the first subgraph
    inputs: tuple[Tensor, ...]  # tensors that the model takes
    outputs: tuple[Tensor, ...]  # tensors that it gives

    @property
    def arena_bytes(self) -> int:
        """Bytes of the tensors that are needed at once, at the most.

        TensorFlow Lite Micro plans its arena so, and adds about ten kilobytes of its own.
        """
        alive, most = {tensor.index: tensor.bytes for tensor in self.outputs}, 0
        for operator in reversed(self.operators):
            tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if not tensor.constant]
            alive.update({tensor.index: tensor.bytes for tensor in tensors})
            most = max(most, sum(alive.values()))
            for tensor in operator.outputs:  # before it is computed, nothing holds it
                del alive[tensor.index]
        return most


class Model:
    """A model that may be changed in place, as `kp2d.quantize.rewriting` does.

    Attributes:
        tables: What the file holds, in the schema's words, to look at; `edit` gives them to be changed.
    """

    def __init__(self, tables: schema.ModelT, data: bytes | None = None) -> None:
        self.tables = tables
        self._data = data

    @classmethod
    def parse(cls, data: bytes) -> Model:
        """Reads any TFLite model.

        Raises:
            InputError: If it is damaged.
        """
        tflite_verifier.verify(data)  # the generated reader follows any offset, and would take any time
        try:
            return cls(schema.ModelT.InitFromPackedBuf(bytearray(data), 0), data)
        except Exception as error:  # the generated reader has no error of its own
            raise _damaged(error) from error

    def pack(self) -> bytes:
        """Returns the bytes of a file; the very ones that were read, if nothing was changed since."""
        if self._data is not None:
            return self._data
        builder = _AlignedBuilder(1 << 20)
        builder.Finish(self.tables.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def edit(self) -> schema.ModelT:
        """Returns the tables, which the caller changes."""
        self._data = None
        return self.tables

    def metadata(self) -> dict[str, Any]:
        """Returns what a model of ours says of itself; raises as `kp2d.methods.tflite_file.metadata` does."""
        entry = self._entry()
        values = None if entry is None else self.tables.buffers[entry.buffer].data
        return tflite_file.parse_metadata(None if values is None else bytes(values))

    def set_metadata(self, content: Mapping[str, Any]) -> None:
        """Writes what a model says of itself, see `kp2d.methods.tflite_file`."""
        values = np.frombuffer(json.dumps(content, sort_keys=True).encode(), np.uint8)
        tables, entry = self.edit(), self._entry()
        if entry is not None:
            tables.buffers[entry.buffer].data = values
            return
        entry = schema.MetadataT(name=tflite_file.ENTRY, buffer=self.add_buffer(values))
        tables.metadata = [*(tables.metadata or []), entry]

    def _entry(self) -> schema.MetadataT | None:
        entries = self.tables.metadata or []
        return next((entry for entry in entries if text(entry.name) == tflite_file.ENTRY), None)

    def add_buffer(self, values: np.ndarray | None = None) -> int:
        """Adds a buffer of uint8 values, or an empty one, and returns its number."""
        self.edit().buffers.append(schema.BufferT(data=values))
        return len(self.tables.buffers) - 1

    def add_code(self, builtin: int, version: int = 1) -> int:
        """Adds the code of one of TFLite's operators and returns its number."""
        code = schema.OperatorCodeT(deprecatedBuiltinCode=builtin, builtinCode=builtin, version=version)
        self.edit().operatorCodes.append(code)
        return len(self.tables.operatorCodes) - 1

    def operators(self) -> Iterator[tuple[schema.SubGraphT, schema.OperatorT]]:
        """Yields every operator with its subgraph."""
        for graph in self.tables.subgraphs:
            for operator in graph.operators or []:
                yield graph, operator

    def builtin(self, operator: schema.OperatorT) -> int:
        """Returns which of TFLite's operators one is, as a `BuiltinOperator`."""
        return _builtin(self.tables.operatorCodes[operator.opcodeIndex])

    def read(self, graph: schema.SubGraphT, operator: schema.OperatorT) -> Operator:
        """Returns an operator with its tensors, to look at."""
        code = self.tables.operatorCodes[operator.opcodeIndex]
        custom = text(code.customCode or "")
        return Operator(
            name=custom or _OPERATORS.get(_builtin(code), str(_builtin(code))),
            version=int(code.version),
            inputs=self._tensors(graph, operator.inputs),
            outputs=self._tensors(graph, operator.outputs),
            options=dict(vars(operator.builtinOptions)) if operator.builtinOptions is not None else {},
            custom=bool(custom),
        )

    def _tensors(self, graph: schema.SubGraphT, indices: Any) -> tuple[Tensor, ...]:
        return tuple(
            _tensor(self.tables, int(index), graph.tensors[index])
            for index in ([] if indices is None else indices)
            if index >= 0
        )

    def graph(self) -> Graph:
        """Returns the operators and tensors of the first subgraph, to look at.

        Raises:
            InputError: If an operator lacks what it needs.
        """
        graph = self.tables.subgraphs[0]
        try:
            return Graph(
                operators=tuple(self.read(graph, operator) for operator in graph.operators or []),
                inputs=self._tensors(graph, graph.inputs),
                outputs=self._tensors(graph, graph.outputs),
            )
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(error) from error

    def summary(self) -> dict[str, Any]:
        """Returns `operators` ("CONV_2D v3" to count) and `tensors` (type to count)."""
        operators = self.graph().operators
        counts = Counter(f"{operator.name} v{operator.version}" for operator in operators)
        types = {
            tensor.index: tensor.type
            for operator in operators
            for tensor in (*operator.inputs, *operator.outputs)
        }
        return {"operators": dict(counts), "tensors": dict(Counter(types.values()))}


def describe(path: str | Path) -> dict[str, Any]:
    """Returns the `Model.summary` of a file and its `bytes`.

    Raises:
        InputError: If there is no such file, or it is damaged.
    """
    data = tflite_file.read(path)
    return {**Model.parse(data).summary(), "bytes": len(data)}


def _damaged(error: Exception) -> InputError:
    return problem("a whole .tflite model", f"damaged bytes ({type(error).__name__})")


def _tensor(tables: schema.ModelT, index: int, tensor: schema.TensorT) -> Tensor:
    quantization = tensor.quantization or schema.QuantizationParametersT()
    scales, points = quantization.scale, quantization.zeroPoint
    values = tables.buffers[tensor.buffer].data
    constant = values is not None and len(values) > 0
    whole = constant and tensor.type == schema.TensorType.INT32 and len(values) <= 64
    zero = int(points[0]) % 256 if points is not None and len(points) == 1 else 0
    signature = [] if tensor.shapeSignature is None else list(tensor.shapeSignature)
    return Tensor(
        index=index,
        name=text(tensor.name or ""),
        type=type_name(tensor),
        shape=() if tensor.shape is None else tuple(int(side) for side in tensor.shape),
        constant=constant,
        scales=() if scales is None else tuple(float(scale) for scale in scales),
        values=tuple(np.asarray(values).view("<i4").tolist()) if whole else (),
        zeros=constant and bool((np.asarray(values, np.uint8) == zero).all()),
        open=-1 in signature[1:],
        open_batch=-1 in signature[:1],
    )


def _builtin(code: schema.OperatorCodeT) -> int:
    """Returns which of TFLite's operators a code means; old files have it in another field."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def type_name(tensor: schema.TensorT) -> str:
    """Returns the type of a tensor, "int8"."""
    return _TYPES[tensor.type]


def text(value: str | bytes) -> str:
    """Returns a string; strings are bytes or text, depending on the version of the schema."""
    return value.decode() if isinstance(value, bytes) else value


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns constants."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        constant = elemSize == 1 and alignment == 1
        return super().StartVector(elemSize, numElems, _ALIGNMENT if constant else alignment)
