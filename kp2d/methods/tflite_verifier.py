"""Owns what must hold of a `.tflite` file before code that trusts it, or a runtime's C++, reads it.

Every offset must stay in the file, every number of a tensor, buffer or operator must exist, and no tensor may
be larger than a picture network's can be. That a model computes what it should is for its sha256 to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from kp2d.checks import problem
from kp2d.methods.tflite_file import DamagedError, Table, root

# Fields of the tables, as numbered in TensorFlow Lite's schema.
_CODES, _SUBGRAPHS, _BUFFERS, _METADATA_BUFFERS, _METADATA, _SIGNATURES = 1, 2, 4, 5, 6, 7
_TENSORS, _INPUTS, _OUTPUTS, _OPERATORS = 0, 1, 2, 3
_SHAPE, _TYPE, _BUFFER, _NAME, _QUANTIZATION, _SPARSITY = 0, 1, 2, 3, 4, 6
_OMITTED = -1  # the number of an optional input that is left out
_RECURRENT = {16, 44, 46}  # operators with optional inputs anywhere; others have one at most, the last

# Bytes of a value by number of its type: float32, float16, int32, uint8, int64, -, bool, int16, complex64,
# int8, float64, complex128, uint64, -, -, uint32, uint16. Others have no fixed width.
_BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 11: 16, 12: 8, 15: 4, 16: 2}
MAX_RANK = 8
MAX_TENSOR = 2**31  # bytes; kp2d_baseline's largest at 1080x1920 px has a fifth of it
MAX_SUBGRAPHS = 1000


def verify(data: bytes, source: object = "the model") -> None:
    """Checks the structure of a model; `source` names the file in the error.

    Raises:
        InputError: If it is damaged, or a tensor is too large to be one of an image.
    """
    try:
        _model(root(data))
    except DamagedError as error:
        raise problem(
            "a whole .tflite model", f"{source}, which is damaged ({error})", "Copy or make it again."
        ) from error


def _model(model: Table) -> None:
    buffers = [_buffer(buffer) for buffer in model.tables(_BUFFERS)]
    codes = [_code(code) for code in model.tables(_CODES)]
    graphs = list(model.tables(_SUBGRAPHS))
    if not 0 < len(graphs) <= MAX_SUBGRAPHS:
        raise DamagedError(f"{len(graphs)} subgraphs")
    counts = [_graph(graph, buffers, codes) for graph in graphs]
    _exist("buffer", model.numbers(_METADATA_BUFFERS, "i"), len(buffers))
    for entry in model.tables(_METADATA):
        _text(entry.bytes(0))
        _exist("buffer", [entry.scalar(1, "I")], len(buffers))
    for signature in model.tables(_SIGNATURES):
        _signature(signature, counts)


def _buffer(buffer: Table) -> int:
    """Returns how many bytes a buffer has; models of more than 2 GB keep them behind the tables."""
    offset, size = buffer.scalar(1, "Q"), buffer.scalar(2, "Q")
    if offset > 1:
        if offset + size > len(buffer.data):
            raise DamagedError(f"a buffer that ends at {offset + size}")
        return size
    return buffer.size(0)


def _code(code: Table) -> int:
    """Returns the number of an operator; old files have it in another field."""
    _text(code.bytes(1))
    return max(code.scalar(0, "b"), code.scalar(3, "i"))


def _graph(graph: Table, buffers: list[int], codes: list[int]) -> int:
    """Checks a subgraph and returns its number of tensors."""
    count = 0
    for count, tensor in enumerate(graph.tables(_TENSORS), start=1):
        _tensor(tensor, buffers)
        if count > len(graph.data) // 8:  # tables that are named again and again
            raise DamagedError("more tensors than bytes for them")
    for number in (_INPUTS, _OUTPUTS):
        _exist("tensor", graph.numbers(number, "i"), count)
    for operator in graph.tables(_OPERATORS):
        _operator(operator, codes, count)
    return count


def _operator(operator: Table, codes: list[int], num_tensors: int) -> None:
    _exist("operator code", [operator.scalar(0, "I")], len(codes))
    inputs = operator.numbers(1, "i")
    if inputs[2:] and inputs[-1] == _OMITTED:  # the bias of a convolution
        inputs = inputs[:-1]
    if codes[operator.scalar(0, "I")] in _RECURRENT:
        inputs = tuple(index for index in inputs if index != _OMITTED)
    _exist("tensor", inputs, num_tensors)
    _exist("tensor", operator.numbers(2, "i"), num_tensors)
    _exist("tensor", (index for index in operator.numbers(8, "i") if index != _OMITTED), num_tensors)
    operator.table(4)
    operator.size(5)


def _tensor(tensor: Table, buffers: list[int]) -> None:
    shape, width = tensor.numbers(_SHAPE, "i"), _BYTES.get(tensor.scalar(_TYPE, "b"))
    _text(tensor.bytes(_NAME))
    if len(shape) > MAX_RANK or min(shape, default=0) < -1:
        raise DamagedError(f"a tensor of the shape {list(shape[: MAX_RANK + 1])}")
    size = math.prod(max(side, 1) for side in shape) * (width or 1)
    if size > MAX_TENSOR:
        raise DamagedError(f"a tensor of {size} bytes")
    number = tensor.scalar(_BUFFER, "I")
    _exist("buffer", [number], len(buffers))
    whole = width is None or tensor.table(_SPARSITY) is not None or min(shape, default=0) < 0
    if buffers[number] and not whole and math.prod(shape) * width != buffers[number]:
        raise DamagedError(f"a constant of {buffers[number]} bytes and the shape {list(shape)}")
    quantization = tensor.table(_QUANTIZATION)
    if quantization is not None:
        _quantization(quantization, shape)


def _quantization(quantization: Table, shape: tuple[int, ...]) -> None:
    scales, points = quantization.numbers(2, "f"), quantization.size(3, 8)
    axis = quantization.scalar(6, "i")
    if not all(math.isfinite(scale) for scale in scales):
        raise DamagedError("a scale that is not finite")
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise DamagedError(f"{len(scales)} scales along axis {axis} of the shape {list(shape)}")
    if points not in (0, 1, len(scales)):
        raise DamagedError(f"{points} zero points beside {len(scales)} scales")


def _signature(signature: Table, counts: list[int]) -> None:
    _text(signature.bytes(2))
    graph = signature.scalar(4, "I")
    _exist("subgraph", [graph], len(counts))
    for field in (0, 1):
        for entry in signature.tables(field):
            _text(entry.bytes(0))
            _exist("tensor", [entry.scalar(1, "I")], counts[graph])


def _text(name: bytes | None) -> None:
    """Checks that a name can be read; the runtimes fail in its middle."""
    try:
        (name or b"").decode()
    except UnicodeDecodeError as error:
        raise DamagedError("a name that is no text") from error


def _exist(what: str, numbers: Iterable[int], count: int) -> None:
    for number in numbers:
        if not 0 <= number < count:
            raise DamagedError(f"{what} {number} of {count}")
