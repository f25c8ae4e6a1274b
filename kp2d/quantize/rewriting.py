"""Owns changes of `.tflite` models that keep every number: names, metadata, the image's size and type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema

from kp2d.checks import first_line, fits_cells, problem
from kp2d.methods import tflite_file
from kp2d.quantize.flatbuffer import builtin, pack, parse, text, type_name


def finish(data: bytes, metadata: Mapping[str, Any]) -> bytes:
    """Gives a converted model its signature, short names of tensors and our metadata.

    Args:
        data: From TensorFlow's converter: one subgraph, one input, three heads.
        metadata: JSON object; see `kp2d.methods.tflite_file`.

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
    set_metadata(model, metadata)
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
    for size in _sizes(model):
        sides = np.frombuffer(bytes(size.data), "<i4").copy()
        first = 1 if len(sides) == 4 else 0  # behind the batch
        sides[first : first + 2] = sides[first : first + 2] * (height, width) // about["image_size"]
        size.data = np.frombuffer(sides.tobytes(), np.uint8)
    kernels = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        engine = interpreter.Interpreter(model_content=pack(model), experimental_op_resolver_type=kernels)
        (image,) = engine.get_input_details()
        engine.resize_tensor_input(image["index"], (1, height, width, 3))
        engine.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise problem(
            f"a whole model that can take {height}x{width} px",
            f"one of {about['precision']} that cannot ({first_line(error)})",
            "Choose a smaller size, or convert the weights for that one.",
        ) from error
    for index, details in enumerate(engine.get_tensor_details()[: len(graph.tensors)]):
        graph.tensors[index].shape = np.asarray(details["shape"], np.int32)
    set_metadata(model, {**about, "image_size": [height, width]})
    return pack(model)


def _sizes(model: schema.ModelT) -> list[schema.BufferT]:
    """Finds the constants that hold the size of a result, [height, width] or with batch and channels."""
    place = {
        schema.BuiltinOperator.TRANSPOSE_CONV: 0,
        schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR: 1,
    }
    (graph,) = model.subgraphs
    kinds = [(operator, builtin(model.operatorCodes[operator.opcodeIndex])) for operator in graph.operators]
    inputs = [operator.inputs[place[kind]] for operator, kind in kinds if kind in place]
    return [model.buffers[graph.tensors[index].buffer] for index in inputs]


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
        raise problem("a model with an int8 input", f"one with {type_name(inner)}", "Convert it to int8.")
    scale, zero_point = inner.quantization.scale, inner.quantization.zeroPoint
    model.buffers.append(schema.BufferT())
    graph.tensors.append(
        schema.TensorT(
            shape=inner.shape,
            type=schema.TensorType.UINT8,
            buffer=len(model.buffers) - 1,
            name=text(inner.name),
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
    set_metadata(model, about)
    return pack(model)


def with_metadata(data: bytes, source: bytes) -> bytes:
    """Gives a compiled model what the compiler drops: our metadata and the signature.

    Args:
        data: The compiled file's bytes.
        source: Those of the model that it was made of.

    Returns:
        The same model; what is for the Edge TPU is not touched.

    Raises:
        InputError: If one of them is damaged, or the second is no model of ours.
    """
    model = parse(data)
    (graph,) = model.subgraphs
    names = {text(graph.tensors[index].name): int(index) for index in graph.outputs}
    model.signatureDefs = [_signature(int(graph.inputs[0]), names)]
    set_metadata(model, tflite_file.metadata(source))
    return pack(model)


def _name_tensors(graph: Any) -> None:
    """Names tensors after layers; "net_1/conv1a_act_1/Relu;…" and "tfl.pseudo_qconst3" tell little."""
    for operator in graph.operators:
        tensors = [graph.tensors[index] for index in (*operator.outputs, *operator.inputs[1:2])]
        paths = [text(tensor.name).split(";")[0].split("/") for tensor in tensors]
        path = next((path for path in paths if len(path) > 1), paths[0])
        layer = path[min(1, len(path) - 1)].rsplit("_", 1)[0].removesuffix("_act")
        tensors[0].name = layer
        if len(operator.inputs) == 2 and graph.tensors[operator.inputs[1]].type == schema.TensorType.INT32:
            tensors[1].name = f"{layer}/size"  # of a resized tensor
        if len(operator.inputs) == 3:  # a convolution
            for index, kind in zip(operator.inputs[1:], ("kernel", "bias"), strict=True):
                graph.tensors[index].name = f"{layer}/{kind}"


def _signature(image: int, outputs: Mapping[str, int]) -> schema.SignatureDefT:
    def entry(name: str, index: int) -> schema.TensorMapT:
        return schema.TensorMapT(name=name, tensorIndex=index)

    return schema.SignatureDefT(
        signatureKey="serving_default",
        inputs=[entry(tflite_file.SIGNATURE[0], image)],
        outputs=[entry(name, outputs[name]) for name in sorted(outputs)],
    )


def set_metadata(model: schema.ModelT, content: Mapping[str, Any]) -> None:
    """Writes what a model says of itself, see `kp2d.methods.tflite_file`, in place."""
    values = np.frombuffer(json.dumps(content, sort_keys=True).encode(), np.uint8)
    for entry in model.metadata or []:
        if text(entry.name) == tflite_file.ENTRY:
            model.buffers[entry.buffer].data = values
            return
    model.buffers.append(schema.BufferT(data=values))
    entry = schema.MetadataT(name=tflite_file.ENTRY, buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
