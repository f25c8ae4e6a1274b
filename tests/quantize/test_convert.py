"""Converted models: what is in them, and that they compute what the network computes, at any size."""

import sys

import numpy as np
import pytest
from small_network import SIZE, SMALL, SMALL_COARSE, SMALL_CORAL, random_pixels, small_model

from kp2d import images
from kp2d.checks import InputError
from kp2d.data import scenes
from kp2d.device import edgetpu
from kp2d.methods import runtimes, tflite_file
from kp2d.methods.decode import normalized
from kp2d.quantize import convert, flatbuffer, quantization, rewriting
from kp2d.quantize.flatbuffer import Model

JOINED = {"MAX_POOL_2D v2": 2, "CONCATENATION v2": 1}
OPERATORS = {
    SMALL.name: {"CONV_2D v3": 16, "DEPTH_TO_SPACE v2": 1, **JOINED},
    SMALL_CORAL.name: {"CONV_2D v3": 17, "RESIZE_NEAREST_NEIGHBOR v2": 1, **JOINED},
    SMALL_COARSE.name: {"CONV_2D v3": 11},
}
COMMON = {"LOGISTIC v2": 1, "TANH v2": 1}
MODELS = {"small": SMALL, "coral": SMALL_CORAL, "coarse": SMALL_COARSE}


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / max(np.square(wanted - got).sum(), 1e-12))


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def model(request):
    return small_model(request.param)


@pytest.fixture(scope="module")
def coral():
    return small_model(SMALL_CORAL)


def running(data, folder, **options):
    path = folder / "model.tflite"
    path.write_bytes(data)
    return runtimes.TFLiteModel(path, **options)


def every_tensor(data, pixels):
    """Name of every tensor of an int8 model to (its integers, its scale), by the built-in kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    engine = Interpreter(
        model_content=data,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    engine.allocate_tensors()
    (image,) = engine.get_input_details()
    engine.set_tensor(image["index"], (pixels.astype(np.int16) - 128).astype(np.int8))
    engine.invoke()
    details = engine.get_tensor_details()
    return {
        tensor["name"]: (engine.get_tensor(tensor["index"]), tensor["quantization"]) for tensor in details
    }


# What is in a file.


def test_an_int8_model_is_integers_from_end_to_end(model):
    summary = Model.parse(model.data).summary()
    assert summary["operators"] == OPERATORS[model.config.name] | COMMON
    assert set(summary["tensors"]) == {"int8", "int32"}


def test_a_model_says_what_it_is(model):
    parsed = Model.parse(model.data)
    about, tables = parsed.metadata(), parsed.tables
    assert about == tflite_file.metadata(model.data)
    assert (about["name"], about["precision"], about["image_size"]) == (
        model.config.name,
        "int8_ptq",
        [48, 64],
    )
    assert about["cell"] == 4 and about["git_commit"]
    (signature,) = tables.signatureDefs
    names = [
        [flatbuffer.text(entry.name) for entry in entries]
        for entries in (signature.inputs, signature.outputs, tables.subgraphs[0].tensors)
    ]
    assert names[:2] == [["image"], ["descriptor", "offset", "score"]]
    assert {"conv1a", "conv1a/kernel", "conv1a/bias", "score"} <= set(names[2])


def test_a_model_is_packed_anew_only_where_it_was_changed(model):
    parsed = Model.parse(model.data)
    assert parsed.pack() is model.data
    parsed.edit()
    assert parsed.pack() == model.data and parsed.pack() is not model.data


def test_constants_are_aligned_for_microcontrollers(model):
    import ai_edge_litert.schema_py_generated as schema

    data = bytearray(model.data)
    tables = schema.Model.GetRootAs(data, 0)
    start = np.frombuffer(data, np.uint8).ctypes.data
    for index in range(tables.BuffersLength()):
        constant = tables.Buffers(index).DataAsNumpy()
        if isinstance(constant, np.ndarray):
            assert (constant.ctypes.data - start) % 16 == 0


# The variant for the Edge TPU.


def test_a_network_of_strided_convolutions_is_mapped_as_it_is():
    report = edgetpu.lint(Model.parse(small_model(SMALL_COARSE).data))
    assert (report.unmapped, report.failure) == ((), "")


def test_the_variant_for_the_edge_tpu_is_mapped_as_a_whole(coral):
    parsed = Model.parse(coral.data)
    report = edgetpu.lint(parsed)
    assert (report.unmapped, report.failure) == ((), "")
    (resize,) = [
        operator.options for operator in parsed.graph().operators if "halfPixelCenters" in operator.options
    ]
    assert (resize["halfPixelCenters"], resize["alignCorners"]) == (False, False)


def test_the_operator_repeats_to_the_bit_and_the_concatenation_copies(coral):
    tensors = every_tensor(coral.data, random_pixels())
    (narrow, grid), (upsampled, same) = tensors["descriptor_narrow"], tensors["descriptor_upsample"]
    assert grid == same and len(np.unique(narrow)) > 20
    np.testing.assert_array_equal(upsampled, narrow.repeat(2, axis=1).repeat(2, axis=2))
    joined, joined_grid = tensors["descriptor_skip"]
    parts = [tensors[name] for name in ("descriptor_b", "conv3b")]
    assert all(part_grid == joined_grid for _, part_grid in parts)
    np.testing.assert_array_equal(joined, np.concatenate([part for part, _ in parts], axis=-1))


# What a file computes.


def test_an_int8_model_is_near_the_simulation_and_the_float_network(model, tmp_path):
    heads = running(model.data, tmp_path, kernels="builtin").heads(random_pixels())
    simulated = model.quantized(normalized(random_pixels()), training=False)
    for head, values in model.network(normalized(random_pixels()), training=False).items():
        assert sqnr(np.asarray(simulated[head]), heads[head]) > 25, head  # a step here or there
        assert sqnr(np.asarray(values), heads[head]) > 18, head


@pytest.mark.parametrize(("precision", "least"), [("float32", 100), ("float16", 45)])
def test_a_float_model_is_the_float_network(model, precision, least, tmp_path):
    export = convert.Export(name="small", precision=precision, image_size=SIZE)
    data = convert.to_tflite(model.network, model.config, export).pack()
    summary = Model.parse(data).summary()
    assert {name.partition(" ")[0] for name in OPERATORS[model.config.name]} <= {
        name.partition(" ")[0] for name in summary["operators"]
    }
    heads = running(data, tmp_path).heads(random_pixels())
    for head, values in model.network(normalized(random_pixels()), training=False).items():
        assert sqnr(np.asarray(values), heads[head]) > least, head
        if precision == "float32":
            np.testing.assert_allclose(heads[head], np.asarray(values), rtol=0, atol=1e-4, err_msg=head)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kp2d_tiny_s", "kp2d_tiny_f"])
def test_shipped_networks_agree_with_their_float_models(name, tmp_path):
    photo = images.resize_image(scenes.photograph("astronaut"), (240, 320))[None]
    source = quantization.load_float(name)
    model = convert.to_tflite(source.network, source.config, convert.Export(name=name, precision="float32"))
    heads = running(model.pack(), tmp_path).heads(photo)
    for head, values in source.network(normalized(photo), training=False).items():
        np.testing.assert_allclose(heads[head], np.asarray(values), atol=3e-4)  # sums in another order


@pytest.mark.parametrize("size", [(24, 32), (88, 88), SIZE])
def test_a_model_of_another_size_is_the_one_converted_for_it(model, size, tmp_path):
    export = convert.Export(name="small", precision="int8_ptq", image_size=size)
    resized, returned = Model.parse(model.data), Model.parse(model.data)
    rewriting.resize(resized, size)
    for there_and_back in (size, SIZE, size):
        rewriting.resize(returned, there_and_back)
    assert resized.metadata()["image_size"] == list(size)
    converted = convert.to_tflite(model.quantized, model.config, export)
    wanted = running(converted.pack(), tmp_path).raw_heads(random_pixels(size))
    for other in (resized, returned):
        heads = running(other.pack(), tmp_path).raw_heads(random_pixels(size))
        for head, values in wanted.items():
            np.testing.assert_array_equal(values, heads[head])
    running_model = running(model.data, tmp_path)  # resized while it runs, unless its size is a constant
    if model.config is not SMALL_CORAL or size == SIZE:
        np.testing.assert_array_equal(
            running_model.raw_heads(random_pixels(size))["descriptor"], wanted["descriptor"]
        )
        return
    before = running_model.heads(random_pixels())
    height, width = size
    with pytest.raises(
        InputError, match=f"an image of 48x64 px for this int8_ptq model; received {height}x{width}"
    ):
        running_model.heads(random_pixels(size))
    np.testing.assert_array_equal(running_model.heads(random_pixels())["score_map"], before["score_map"])


def test_a_uint8_input_changes_no_value(model, tmp_path):
    parsed = Model.parse(model.data)
    rewriting.take_uint8(parsed)
    heads = running(model.data, tmp_path).raw_heads(random_pixels())
    with_pixels = running(parsed.pack(), tmp_path)
    assert with_pixels._input["dtype"] == np.uint8
    np.testing.assert_array_equal(with_pixels._levels, np.arange(256))
    for head, values in with_pixels.raw_heads(random_pixels()).items():
        np.testing.assert_array_equal(values, heads[head])
    with pytest.raises(InputError, match="int8 input; received one with uint8"):
        rewriting.take_uint8(parsed)


def test_onnx_agrees_with_keras():
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small_model(SMALL)
    session = onnxruntime.InferenceSession(convert.to_onnx(model.network, model.config, SIZE))
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    names = [entry.name for entry in session.get_outputs()]
    heads = dict(zip(names, session.run(None, {"image": normalized(random_pixels())}), strict=True))
    for head, values in model.network(normalized(random_pixels()), training=False).items():
        np.testing.assert_allclose(heads[head.removesuffix("_map")], np.asarray(values), atol=1e-4)


# What is refused.


def test_the_network_must_suit_the_precision(model):
    def to_tflite(network, **export):
        convert.to_tflite(network, model.config, convert.Export(name="x", **export))

    with pytest.raises(InputError, match="a quantized network"):
        to_tflite(model.network, precision="int8", image_size=SIZE)
    with pytest.raises(InputError, match="a float network"):
        to_tflite(model.quantized, precision="float32", image_size=SIZE)
    with pytest.raises(InputError, match="divisible by the cell 4"):
        to_tflite(model.quantized, image_size=(50, 64))
    with pytest.raises(InputError, match="Did you mean 'int8'"):
        convert.Export(name="x", precision="int9")


def test_tensorflow_is_asked_for_where_it_is_missing(monkeypatch):
    model = small_model(SMALL)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match="TensorFlow, which converts networks; received none installed"):
        convert.to_onnx(model.network, model.config, SIZE)
