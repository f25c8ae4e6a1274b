"""The form of a model for the Edge TPU: the same integers, operators and versions that its compiler knows."""

import numpy as np
import pytest
from shipped_models import prepared, shipped
from small_network import SMALL

from kp2d import images
from kp2d.checks import InputError
from kp2d.data import scenes
from kp2d.methods import networks, runtimes
from kp2d.quantize import convert, rewriting
from kp2d.quantize.flatbuffer import Model, Operator, Tensor

NETWORKS = ("kp2d_nano", "kp2d_tiny_s", "kp2d_tiny_f")
SIZES = ((88, 88), (240, 320), (480, 640))


def heads(data, folder, image, kernels="builtin"):
    path = folder / "model.tflite"
    path.write_bytes(data)
    return runtimes.TFLiteModel(path, threads=1, kernels=kernels).raw_heads(image)


def photo(size):
    return images.resize_image(scenes.photograph("astronaut"), size)[None]


def versions(data):
    return {operator.name: operator.version for operator in Model.parse(data).graph().operators}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_form_for_the_edge_tpu_gives_the_same_integers(name, size, tmp_path):
    before, after = shipped(name, size).pack(), prepared(name, size).pack()
    upsamples = name != "kp2d_nano"
    assert ("DEPTH_TO_SPACE" in versions(before)) == upsamples
    joined = {"MAX_POOL_2D": 2, "CONCATENATION": 2, "TRANSPOSE_CONV": 2} if upsamples else {}
    assert versions(after) == {"CONV_2D": 3, "LOGISTIC": 2, "TANH": 2, **joined}
    for kernels in runtimes.KERNELS:
        wanted, got = (heads(data, tmp_path, photo(size), kernels) for data in (before, after))
        for head in wanted:
            np.testing.assert_array_equal(got[head], wanted[head])
            assert len(np.unique(got[head])) > 50


def test_codes_that_nothing_uses_are_dropped():
    model = prepared()
    codes = model.tables.operatorCodes
    assert (
        {operator.opcodeIndex for _, operator in model.operators()} == set(range(len(codes))) == set(range(6))
    )


def test_a_lowered_model_can_be_made_for_another_size():
    model = prepared(size=(240, 320))
    rewriting.resize(model, (88, 88))
    assert model.pack() == prepared(size=(88, 88)).pack()


def test_a_lowered_model_is_left_as_it_is():
    data = prepared().pack()
    model = Model.parse(data)
    rewriting.for_edgetpu(model)
    assert model.pack() is data


def test_every_value_survives_the_transposed_convolution(tmp_path):
    """Each of the 256 values, in every place of a block, with a zero point that is not 0."""
    from ai_edge_litert import interpreter
    from ai_edge_litert import schema_py_generated as schema

    scale = schema.QuantizationParametersT(scale=np.array([0.37], np.float32), zeroPoint=np.array([-17]))

    def tensor(shape, name):
        return schema.TensorT(
            shape=np.array(shape, np.int32),
            type=schema.TensorType.INT8,
            buffer=0,
            name=name,
            quantization=scale,
        )

    number = schema.BuiltinOperator.DEPTH_TO_SPACE
    operator = schema.OperatorT(
        opcodeIndex=0,
        inputs=np.array([0], np.int32),
        outputs=np.array([1], np.int32),
        builtinOptionsType=schema.BuiltinOptions.DepthToSpaceOptions,
        builtinOptions=schema.DepthToSpaceOptionsT(blockSize=2),
    )
    graph = schema.SubGraphT(
        tensors=[tensor((1, 4, 16, 16), "in"), tensor((1, 8, 32, 4), "out")],
        inputs=np.array([0], np.int32),
        outputs=np.array([1], np.int32),
        operators=[operator],
        name="main",
    )
    code = schema.OperatorCodeT(deprecatedBuiltinCode=number, builtinCode=number, version=2)
    model = Model(
        schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()])
    )
    values = np.random.default_rng(0).permutation(np.tile(np.arange(-128, 128), 4)).astype(np.int8)
    results, before = [], model.pack()
    rewriting.for_edgetpu(model)
    for data in (before, model.pack()):
        engine = interpreter.Interpreter(model_content=data)
        engine.allocate_tensors()
        engine.set_tensor(engine.get_input_details()[0]["index"], values.reshape(1, 4, 16, 16))
        engine.invoke()
        results.append(engine.get_tensor(engine.get_output_details()[0]["index"]))
    np.testing.assert_array_equal(*results)


def test_newer_versions_are_lowered_and_nothing_else_changes(tmp_path):
    """What a newer converter would write: versions that Edge TPU compiler 16 refuses."""
    model = prepared()
    original = versions(model.pack())
    for code in model.edit().operatorCodes:
        code.version += 1 if code.builtinCode != 3 else 3  # 3 is CONV_2D
    raised = model.pack()
    assert versions(raised)["CONV_2D"] == 6 and versions(raised)["LOGISTIC"] == 3
    rewriting.lower_versions(model)
    lowered = model.pack()
    assert versions(lowered) == original
    for head, values in heads(raised, tmp_path, photo((88, 88))).items():
        np.testing.assert_array_equal(heads(lowered, tmp_path, photo((88, 88)))[head], values)


def operator(name, *types, version=9, options=None, shapes=None, outputs=None, scales=((0.5,),) * 9):
    tensors = [
        Tensor(index=i, name=str(i), type=kind, shape=shape, constant=False, scales=scales[i])
        for i, (kind, shape) in enumerate(zip(types, shapes or ((1, 8, 8, 4),) * len(types), strict=True))
    ]
    return Operator(
        name=name,
        version=version,
        inputs=tuple(tensors),
        outputs=tuple(tensors[:1] if outputs is None else outputs),
        options=options or {},
    )


@pytest.mark.parametrize(
    ("version", "case"),
    [
        (1, operator("CONV_2D", "uint8", "uint8", "int32")),
        (3, operator("CONV_2D", "int8", "int8", "int32")),
        (6, operator("CONV_2D", "int8", "int8", shapes=((1, 8, 8, 4), (4, 3, 3, 2)))),  # in groups
        (2, operator("TRANSPOSE_CONV", "int32", "int8", "int8")),
        (3, operator("TRANSPOSE_CONV", "int32", "int8", "int8", "int32")),
        (4, operator("TRANSPOSE_CONV", "int32", "int8", "int8", options={"fusedActivationFunction": 1})),
        (2, operator("RESIZE_NEAREST_NEIGHBOR", "int8", "int32")),
        (3, operator("RESIZE_NEAREST_NEIGHBOR", "int8", "int32", options={"halfPixelCenters": True})),
        (1, operator("QUANTIZE", "uint8", "int8")),
        (1, operator("QUANTIZE", "float32", "int8")),
        (3, operator("QUANTIZE", "int8", scales=((1.0, 2.0),))),
        (1, operator("LEAKY_RELU", "int8")),
        (None, operator("CONV_2D", "float32", "int8", "float32")),  # hybrid: left alone
        (None, operator("CONV_2D", "int8", "int4", "int32")),
        (None, operator("FULLY_CONNECTED", "int8", "int8", "int32")),  # no operator of a KeypointNet
    ],
    ids=lambda value: value.name if isinstance(value, Operator) else str(value),
)
def test_the_version_that_an_operator_needs(version, case):
    assert rewriting.needed_version(case) == version


def test_a_float_model_is_refused_where_its_depth_to_space_cannot_be_rewritten():
    export = convert.Export(name="small", precision="float32", image_size=(48, 64))
    model = convert.to_tflite(networks.build_network(SMALL), SMALL, export)
    data = model.pack()
    rewriting.lower_versions(model)
    assert model.pack() == data
    with pytest.raises(InputError, match="a depth-to-space in int8; received one in float32"):
        rewriting.for_edgetpu(model)
