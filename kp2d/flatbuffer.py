"""Owns `.tflite` models as objects: their operators and tensors, and changes that keep every number.

Needs the schema that comes with LiteRT (or TensorFlow); running a model does not need this module.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema

from kp2d import tflite_file
from kp2d.checks import fits_cells, problem

_ALIGNMENT = 16  # bytes, which the schema demands of constants and its Python writer forgets
_OPERATORS = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
_TYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if name[0] != "_"}


def parse(data: bytes) -> schema.ModelT:
    """Reads a model.

    Args:
        data: The file's bytes.

    Returns:
        The model as an object.

    Raises:
        InputError: If it is damaged.
    """
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


def operators(data: bytes) -> list[dict[str, Any]]:
    """Lists the operators of a model in the order of computation.

    Args:
        data: The file's bytes.

    Returns:
        One dictionary each: name ("CONV_2D"), version, and the types and shapes of inputs and outputs.

    Raises:
        InputError: If the file is damaged.
    """
    model = parse(data)
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            custom = _text(code.customCode or "")
            ends = {
                kind: [graph.tensors[index] for index in indices if index >= 0]
                for kind, indices in (("inputs", operator.inputs), ("outputs", operator.outputs))
            }
            found.append(
                {
                    "name": custom or _OPERATORS.get(number, str(number)),
                    "version": code.version,
                    **{kind: [_TYPES[tensor.type] for tensor in tensors] for kind, tensors in ends.items()},
                    "output_shapes": [tuple(map(int, tensor.shape)) for tensor in ends["outputs"]],
                }
            )
    return found


def summary(data: bytes) -> dict[str, Any]:
    """Summarizes a model: its operators with versions and counts, its number of tensors by type.

    Args:
        data: The file's bytes.

    Returns:
        `operators` ("CONV_2D v3" to count), `tensors` (type to count) and `bytes`.
    """
    counts = Counter(f"{operator['name']} v{operator['version']}" for operator in operators(data))
    types = Counter(_TYPES[tensor.type] for graph in parse(data).subgraphs for tensor in graph.tensors)
    return {"operators": dict(counts), "tensors": dict(types), "bytes": len(data)}


def describe(path: str | Path) -> dict[str, Any]:
    """Returns the `summary` of a model file; raises an InputError where `kp2d.tflite_file.read` does."""
    return summary(tflite_file.read(path))


def finish(data: bytes, metadata: Mapping[str, Any]) -> bytes:
    """Gives a converted model its signature, short names of tensors and our metadata.

    Args:
        data: From TensorFlow's converter: one subgraph, one input, three heads.
        metadata: JSON object; see `kp2d.tflite_file`.

    Returns:
        The same computation.
    """
    model = parse(data)
    (graph,) = model.subgraphs
    _name_tensors(graph)
    # Converters order and name outputs as they like; their channels tell them apart.
    heads = {1: "score", 2: "offset", metadata["descriptor_dim"]: "descriptor"}
    outputs = {heads[int(graph.tensors[index].shape[-1])]: int(index) for index in graph.outputs}
    for name, index in outputs.items():
        graph.tensors[index].name = name
    graph.tensors[graph.inputs[0]].name = tflite_file.SIGNATURE[0]
    model.description = "KeypointNet by kp2d"
    model.signatureDefs = [_signature(int(graph.inputs[0]), outputs)]
    _set_metadata(model, metadata)
    return pack(model)


def resize(data: bytes, image_size: tuple[int, int]) -> bytes:
    """Changes the size of the image that a model of ours takes; no number of it changes.

    Args:
        data: The file's bytes.
        image_size: (height, width) px.

    Returns:
        The model for that size.

    Raises:
        InputError: If the file is no model of ours, or the cell does not divide the size.
    """
    about = tflite_file.metadata(data)
    height, width = fits_cells(image_size, about["cell"])
    model = parse(data)
    (graph,) = model.subgraphs
    for size in _constant_sizes(model):  # of upsampled tensors
        sides = size.data.view(np.int32) * (height, width) // about["image_size"]
        size.data = sides.astype(np.int32).view(np.uint8)
    builtin = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        engine = interpreter.Interpreter(model_content=pack(model), experimental_op_resolver_type=builtin)
        (image,) = engine.get_input_details()
        engine.resize_tensor_input(image["index"], (1, height, width, 3))
        engine.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise problem(
            f"a whole model that can take {height}x{width} px",
            f"one of {about['precision']} that cannot",
            "Convert the weights for that size, or choose a smaller one.",
        ) from error
    for index, details in enumerate(engine.get_tensor_details()[: len(graph.tensors)]):
        graph.tensors[index].shape = np.asarray(details["shape"], np.int32)
    _set_metadata(model, {**about, "image_size": [height, width]})
    return pack(model)


def with_uint8_input(data: bytes) -> bytes:
    """Makes a model of ours take pixels as they are, by one operator in front: uint8 to int8.

    Args:
        data: An int8 model's bytes.

    Returns:
        The model with a uint8 input.

    Raises:
        InputError: If the file is no model of ours, or its input is not int8.
    """
    about = tflite_file.metadata(data)
    model = parse(data)
    (graph,) = model.subgraphs
    inner = graph.tensors[graph.inputs[0]]
    if inner.type != schema.TensorType.INT8:
        raise problem("a model with an int8 input", f"one with {_TYPES[inner.type]}", "Convert it to int8.")
    scale, zero_point = inner.quantization.scale, inner.quantization.zeroPoint
    model.buffers.append(schema.BufferT())
    graph.tensors.append(
        schema.TensorT(
            shape=inner.shape,
            type=schema.TensorType.UINT8,
            buffer=len(model.buffers) - 1,
            name=_text(inner.name),
            quantization=schema.QuantizationParametersT(scale=scale, zeroPoint=zero_point + 128),
        )
    )
    outer, number = len(graph.tensors) - 1, schema.BuiltinOperator.QUANTIZE
    inner.name = "image_int8"
    model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=number, builtinCode=number))
    quantize = schema.OperatorT(
        opcodeIndex=len(model.operatorCodes) - 1,
        inputs=[outer],
        outputs=[graph.inputs[0]],
        builtinOptionsType=schema.BuiltinOptions.QuantizeOptions,
        builtinOptions=schema.QuantizeOptionsT(),
    )
    graph.operators.insert(0, quantize)
    graph.inputs = [outer]
    for signature in model.signatureDefs or []:
        signature.inputs[0].tensorIndex = outer
    _set_metadata(model, about)
    return pack(model)


def _name_tensors(graph: Any) -> None:
    """Names tensors after layers; "net_1/conv1a_act_1/Relu;…" and "tfl.pseudo_qconst3" tell little."""
    for operator in graph.operators:
        tensors = [graph.tensors[index] for index in (*operator.outputs, *operator.inputs[1:2])]
        paths = [_text(tensor.name).split(";")[0].split("/") for tensor in tensors]
        path = next((path for path in paths if len(path) > 1), paths[0])
        layer = path[min(1, len(path) - 1)].rsplit("_", 1)[0].removesuffix("_act")
        tensors[0].name = layer
        if len(operator.inputs) == 2 and graph.tensors[operator.inputs[1]].type == schema.TensorType.INT32:
            tensors[1].name = f"{layer}/size"  # of a resized tensor
        if len(operator.inputs) == 3:  # a convolution
            for index, kind in zip(operator.inputs[1:], ("kernel", "bias"), strict=True):
                graph.tensors[index].name = f"{layer}/{kind}"


def _constant_sizes(model: schema.ModelT) -> list[schema.BufferT]:
    """Finds the constants (height, width) that operators which resize a tensor take."""
    (graph,) = model.subgraphs
    kind = schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR
    resizing = [one for one in graph.operators if model.operatorCodes[one.opcodeIndex].builtinCode == kind]
    return [model.buffers[graph.tensors[one.inputs[1]].buffer] for one in resizing]


def _signature(image: int, outputs: Mapping[str, int]) -> schema.SignatureDefT:
    def entry(name: str, index: int) -> schema.TensorMapT:
        return schema.TensorMapT(name=name, tensorIndex=index)

    return schema.SignatureDefT(
        signatureKey="serving_default",
        inputs=[entry(tflite_file.SIGNATURE[0], image)],
        outputs=[entry(name, outputs[name]) for name in sorted(outputs)],
    )


def _set_metadata(model: schema.ModelT, content: Mapping[str, Any]) -> None:
    text = np.frombuffer(json.dumps(content, sort_keys=True).encode(), np.uint8)
    for entry in model.metadata or []:
        if _text(entry.name) == tflite_file.ENTRY:
            model.buffers[entry.buffer].data = text
            return
    model.buffers.append(schema.BufferT(data=text))
    entry = schema.MetadataT(name=tflite_file.ENTRY, buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]


def _text(value: str | bytes) -> str:
    """Strings are bytes or text, depending on the version of the schema."""
    return value.decode() if isinstance(value, bytes) else value
