"""Owns changes of `.tflite` models that keep every number: names, metadata, the image's size and type.

Also the form that the Edge TPU compiler takes: its operators, in versions that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema

from kp2d.checks import first_line, fits_cells, problem
from kp2d.methods import tflite_file
from kp2d.quantize.flatbuffer import Model, Operator, text, type_name

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


def finish(model: Model, metadata: Mapping[str, Any]) -> None:
    """Gives a converter's model of one input and three heads its signature, short names and our metadata."""
    tables = model.edit()
    (graph,) = tables.subgraphs
    _name_tensors(graph)
    # Converters order and name outputs as they like; their channels tell them apart.
    heads = {1: "score", 2: "offset", metadata["descriptor_dim"]: "descriptor"}
    outputs = {heads[int(graph.tensors[index].shape[-1])]: int(index) for index in graph.outputs}
    for name, index in outputs.items():
        graph.tensors[index].name = name
    graph.tensors[graph.inputs[0]].name = tflite_file.SIGNATURE[0]
    tables.description = "KeypointNet by kp2d"
    tables.signatureDefs = [_signature(int(graph.inputs[0]), outputs)]
    model.set_metadata(metadata)


def resize(model: Model, image_size: tuple[int, int]) -> None:
    """Changes the size (height, width) px of the image that a model of ours takes; no number of it changes.

    The model is of no use after an error.

    Raises:
        InputError: If it is no model of ours, the cell does not divide the size, or it cannot take it.
    """
    about = model.metadata()
    height, width = fits_cells(image_size, about["cell"])
    (graph,) = model.edit().subgraphs
    for size in _sizes(model):
        sides = np.frombuffer(bytes(size.data), "<i4").copy()
        first = 1 if len(sides) == 4 else 0  # behind the batch
        sides[first : first + 2] = sides[first : first + 2] * (height, width) // about["image_size"]
        size.data = np.frombuffer(sides.tobytes(), np.uint8)
    kernels = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:  # the interpreter knows the shapes that follow
        engine = interpreter.Interpreter(model_content=model.pack(), experimental_op_resolver_type=kernels)
        (image,) = engine.get_input_details()
        engine.resize_tensor_input(image["index"], (1, height, width, 3))
        engine.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise problem(
            f"a whole model that can take {height}x{width} px",
            f"one of {about['precision']} that cannot ({first_line(error)})",
            "Choose a smaller size, or convert the weights for that one.",
        ) from error
    for tensor, details in zip(graph.tensors, engine.get_tensor_details(), strict=False):
        tensor.shape = np.asarray(details["shape"], np.int32)  # behind ours are the engine's own
    model.set_metadata({**about, "image_size": [height, width]})


def _sizes(model: Model) -> list[schema.BufferT]:
    """Finds the constants that hold the size of a result, [height, width] or with batch and channels."""
    size_input = {
        schema.BuiltinOperator.TRANSPOSE_CONV: 0,
        schema.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR: 1,
    }
    return [
        model.tables.buffers[graph.tensors[operator.inputs[size_input[kind]]].buffer]
        for graph, operator in model.operators()
        if (kind := model.builtin(operator)) in size_input
    ]


def take_uint8(model: Model) -> None:
    """Makes an int8 model of ours take pixels as they are, by one operator in front: uint8 to int8.

    Raises:
        InputError: If its input is not int8.
    """
    tables = model.edit()
    (graph,) = tables.subgraphs
    inner = graph.tensors[graph.inputs[0]]
    if inner.type != schema.TensorType.INT8:
        raise problem("a model with an int8 input", f"one with {type_name(inner)}", "Convert it to int8.")
    scale, zero_point = inner.quantization.scale, inner.quantization.zeroPoint
    graph.tensors.append(
        schema.TensorT(
            shape=inner.shape,
            type=schema.TensorType.UINT8,
            buffer=model.add_buffer(),
            name=text(inner.name),
            quantization=schema.QuantizationParametersT(scale=scale, zeroPoint=zero_point + 128),
        )
    )
    outer = len(graph.tensors) - 1
    inner.name = "image_int8"
    quantize = schema.OperatorT(
        opcodeIndex=model.add_code(schema.BuiltinOperator.QUANTIZE),
        inputs=[outer],
        outputs=[graph.inputs[0]],
        builtinOptionsType=schema.BuiltinOptions.QuantizeOptions,
        builtinOptions=schema.QuantizeOptionsT(),
    )
    graph.operators.insert(0, quantize)
    graph.inputs = [outer]
    for signature in tables.signatureDefs or []:
        signature.inputs[0].tensorIndex = outer


def restore(model: Model, metadata: Mapping[str, Any]) -> None:
    """Gives a compiled model what the compiler drops: the metadata of its source, and the signature."""
    tables = model.edit()
    (graph,) = tables.subgraphs
    names = {text(graph.tensors[index].name): int(index) for index in graph.outputs}
    tables.signatureDefs = [_signature(int(graph.inputs[0]), names)]
    model.set_metadata(metadata)


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


def needed_version(operator: Operator) -> int | None:
    """Returns the oldest version of an operator's definition that means what it does, on 8-bit tensors.

    None where that is not known, as for floats and operators that no KeypointNet has.
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
    """
    needed: dict[int, list[int | None]] = {}
    for graph, operator in model.operators():
        version = needed_version(model.read(graph, operator))
        needed.setdefault(operator.opcodeIndex, []).append(version)
    for index, versions in needed.items():
        if None not in versions and max(versions) < model.tables.operatorCodes[index].version:
            model.edit().operatorCodes[index].version = max(versions)


def for_edgetpu(model: Model) -> None:
    """Rewrites a model in int8 so that the Edge TPU compiler can map all of it.

    Depth-to-space, for which the Edge TPU has no operator, becomes a transposed convolution with a fixed
    kernel; versions are lowered. The model computes the same integers, for images of its own size only, as a
    transposed convolution has it written in (`resize` changes it).

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
    block = operator.builtinOptions.blockSize
    kernel = copying_kernel(block, int(result.shape[3]))
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


def copying_kernel(block: int, channels: int) -> np.ndarray:
    """Makes the kernel of the transposed convolution that copies what depth-to-space copies.

    Returns:
        int8 `[channels, block, block, block² · channels]`: each row holds a power of two and zeros.
    """
    kernel = np.zeros((channels, block, block, block * block * channels), np.int8)
    for cell in range(block * block):
        for channel in range(channels):
            kernel[channel, cell // block, cell % block, cell * channels + channel] = _ONE
    return kernel


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
