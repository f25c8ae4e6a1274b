"""The variant for the Edge TPU: it trains, and its int8 model has nothing but operators that are mapped."""

import keras
import numpy as np
import pytest
from small_network import SMALL_CORAL

from kp2d import cli, files
from kp2d.checks import InputError
from kp2d.device import edgetpu
from kp2d.methods import learned, networks, quantized, runtimes, tflite_file
from kp2d.methods.decode import normalized
from kp2d.quantize import convert, flatbuffer, quantization, rewriting

SIZE = (48, 64)
OPERATORS = {
    "CONV_2D v3": 17,
    "MAX_POOL_2D v2": 2,
    "RESIZE_NEAREST_NEIGHBOR v2": 1,
    "CONCATENATION v2": 1,
    "LOGISTIC v2": 1,
    "TANH v2": 1,
}


def random_pixels(size=SIZE, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())


@pytest.fixture(scope="module")
def coral():
    """A small network whose batch norm has seen pictures, the same in integers, and its int8 model."""
    keras.utils.set_random_seed(0)
    network = networks.build_network(SMALL_CORAL)
    inputs = [normalized(random_pixels(seed=seed)) for seed in (0, 1)]
    for _ in range(40):
        network(np.concatenate(inputs), training=True)
    integers = quantization.post_training(network, SMALL_CORAL, inputs)
    export = convert.Export(name="coral", precision="int8_ptq", image_size=SIZE)
    return network, integers, convert.to_tflite(integers, SMALL_CORAL, export)


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
    return {one["name"]: (engine.get_tensor(one["index"]), one["quantization"]) for one in details}


def test_every_operator_is_one_that_the_edge_tpu_has(coral):
    assert flatbuffer.summary(coral[2])["operators"] == OPERATORS
    kinds = flatbuffer.summary(coral[2])["tensors"]
    assert set(kinds) == {"int8", "int32"}
    model = flatbuffer.parse(coral[2])
    (resize,) = [
        each.builtinOptions
        for each in model.subgraphs[0].operators
        if hasattr(each.builtinOptions, "halfPixelCenters")
    ]
    assert (resize.halfPixelCenters, resize.alignCorners) == (False, False)


def test_the_forecast_maps_all_of_it(coral):
    report = edgetpu.lint(coral[2])
    assert (report.unmapped, report.failure) == ((), "")


def test_the_operator_repeats_to_the_bit_and_the_concatenation_copies(coral):
    tensors = every_tensor(coral[2], random_pixels())
    (narrow, grid), (upsampled, same) = tensors["descriptor_narrow"], tensors["descriptor_upsample"]
    assert grid == same and len(np.unique(narrow)) > 20
    np.testing.assert_array_equal(upsampled, narrow.repeat(2, axis=1).repeat(2, axis=2))
    joined, joined_grid = tensors["descriptor_skip"]
    parts = [tensors[name] for name in ("descriptor_b", "conv3b")]
    assert all(part_grid == joined_grid for _, part_grid in parts)
    np.testing.assert_array_equal(joined, np.concatenate([part for part, _ in parts], axis=-1))


def test_the_int8_model_is_near_the_simulation_and_the_float_network(coral, tmp_path):
    network, integers, data = coral
    (tmp_path / "coral.tflite").write_bytes(data)
    heads = runtimes.TFLiteModel(tmp_path / "coral.tflite", kernels="builtin").heads(random_pixels())
    simulated = integers(normalized(random_pixels()), training=False)
    for head, values in network(normalized(random_pixels()), training=False).items():
        assert sqnr(np.asarray(simulated[head]), heads[head]) > 25, head
        assert sqnr(np.asarray(values), heads[head]) > 18, head


@pytest.mark.parametrize(("precision", "least"), [("float32", 100), ("int16x8", 18)])
def test_other_precisions_upsample_by_the_same_operator(coral, precision, least, tmp_path):
    export = convert.Export(name="coral", precision=precision, image_size=SIZE)
    inputs = [normalized(random_pixels(seed=seed)) for seed in range(3)]
    data = convert.to_tflite(coral[0], SMALL_CORAL, export, images=inputs)
    (tmp_path / "coral.tflite").write_bytes(data)
    assert "RESIZE_NEAREST_NEIGHBOR" in {one.name for one in flatbuffer.read_graph(data).operators}
    heads = runtimes.TFLiteModel(tmp_path / "coral.tflite").heads(random_pixels())
    for head, values in coral[0](normalized(random_pixels()), training=False).items():
        assert sqnr(np.asarray(values), heads[head]) > least, head
        if precision == "float32":
            np.testing.assert_allclose(heads[head], np.asarray(values), rtol=0, atol=1e-4, err_msg=head)


@pytest.mark.parametrize("size", [(24, 32), (88, 88)])
def test_a_model_of_another_size_is_the_one_converted_for_it(coral, size, tmp_path):
    _, integers, data = coral
    export = convert.Export(name="coral", precision="int8_ptq", image_size=size)
    contents = {
        "converted": convert.to_tflite(integers, SMALL_CORAL, export),
        "resized": rewriting.resize(data, size),
        "there and back": rewriting.resize(rewriting.resize(rewriting.resize(data, size), SIZE), size),
    }
    found = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        found.append(runtimes.TFLiteModel(tmp_path / name).raw_heads(random_pixels(size)))
    for other in found[1:]:
        for head, values in found[0].items():
            np.testing.assert_array_equal(values, other[head])
    (tmp_path / "fixed").write_bytes(data)  # the upsampled size is a constant in the file
    with pytest.raises(InputError, match="an image of 48x64 px for this int8_ptq model"):
        runtimes.TFLiteModel(tmp_path / "fixed").heads(random_pixels(size))


def test_gradients_reach_every_kernel_of_both_networks():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with TensorFlow's tape")
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    image = normalized(random_pixels())
    for network in (networks.build_network(SMALL_CORAL), quantized.build_quantized_network(SMALL_CORAL)):
        kernels = {v.path: v.value for v in network.trainable_variables if v.path.endswith("kernel")}
        with tf.GradientTape() as tape:
            heads = network(image, training=True)
            loss = sum(tf.reduce_sum(tf.square(head)) for head in heads.values())
        found = tape.gradient(loss, kernels)
        assert len(found) == 17 and all(np.abs(each).max() > 0 for each in found.values())


@pytest.mark.usefixtures("eager")
def test_it_is_trained_and_quantized_from_the_command_line(photos, small_preset, tmp_path, capsys):
    folder, size = tmp_path / "run", ["--image-size", "32x48"]
    settings = ["batch_size=2", "workers=0", "log_every=1", "tensorboard=False"]
    changes = [word for setting in settings for word in ("--set", setting)]
    train = [
        "train",
        "--data",
        str(photos),
        "--output",
        str(folder),
        "--preset",
        small_preset,
        *size,
        *changes,
    ]
    assert cli.main([*train, "--to-coral", "--steps", "2", "--disable-wandb"]) == 0
    weights = folder / f"{SMALL_CORAL.name}.weights.h5"
    assert capsys.readouterr().out.splitlines()[-1] == str(weights)
    assert files.read_json(folder / "config.json")["preset"] == SMALL_CORAL.name
    assert cli.main([*train, "--steps", "2", "--disable-wandb"]) == 2  # without the option, another run
    assert "preset" in capsys.readouterr().err
    assert len(learned.load_trained(folder).extract(random_pixels()[0])) > 0
    model = tmp_path / "int8.tflite"
    quantize = ["quantize", str(folder), "-o", str(model), "--data", str(photos), "--image-size", "48x64"]
    quantize += ["--num-images", "1"]
    assert cli.main([*quantize, "--steps", "1", *changes, "--set", "image_size=(32,48)"]) == 0
    assert flatbuffer.describe(model)["operators"] == OPERATORS
    about = tflite_file.open_model(model)[1]
    assert (about["preset"], about["precision"]) == (SMALL_CORAL.name, "int8")
