"""Model files: what is in them, that they compute what the network computes, and what happens to bad ones."""

import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import kp2d
from kp2d import cli, files, images
from kp2d.checks import InputError
from kp2d.data import datasets, scenes
from kp2d.methods import learned, networks, runtimes, tflite_file
from kp2d.methods.decode import normalized
from kp2d.quantize import convert, flatbuffer, quantization, rewriting
from kp2d.train import cards

SIZE = (48, 64)
ALLOWED = {"CONV_2D", "MAX_POOL_2D", "DEPTH_TO_SPACE", "CONCATENATION", "LOGISTIC", "TANH"}


def photo(name="astronaut", size=(240, 320)):
    (scene,) = [each for each in scenes.SCENES if each.name == name]
    return images.resize_image(scenes.photograph(scene), size)[None]


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / max(np.square(wanted - got).sum(), 1e-12))


@pytest.fixture(scope="module")
def small():
    """A small network, float and quantized, and its int8 model."""
    from small_network import SMALL

    keras.utils.set_random_seed(0)
    network = networks.build_network(SMALL)
    inputs = [
        normalized(np.random.default_rng(seed).integers(0, 256, (1, *SIZE, 3), np.uint8)) for seed in (0, 1)
    ]
    quantized = quantization.post_training(network, SMALL, inputs)
    export = convert.Export(name="test_small", precision="int8_ptq", image_size=SIZE)
    return SMALL, network, quantized, convert.to_tflite(quantized, SMALL, export)


@pytest.fixture
def model_file(small, tmp_path):
    path = tmp_path / "small.tflite"
    path.write_bytes(small[3])
    return path


def random_pixels(size=SIZE, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)


def test_an_int8_model_is_integers_from_end_to_end(small):
    operators = flatbuffer.read_graph(small[3]).operators
    assert {operator.name for operator in operators} == ALLOWED
    types = {tensor.type for operator in operators for tensor in (*operator.inputs, *operator.outputs)}
    assert types == {"int8", "int32"}
    assert [operator.name for operator in operators].count("CONV_2D") == 16


def names(entries):
    return [each.name if isinstance(each.name, str) else each.name.decode() for each in entries]


def test_a_model_says_what_it_is(small, model_file):
    data, about = tflite_file.open_model(model_file)
    assert (about["name"], about["precision"], about["image_size"]) == ("test_small", "int8_ptq", [48, 64])
    assert about["cell"] == 4 and about["git_commit"]
    model = flatbuffer.parse(data)
    (signature,) = model.signatureDefs
    assert names(signature.inputs) == ["image"]
    assert names(signature.outputs) == ["descriptor", "offset", "score"]
    assert {"conv1a", "conv1a/kernel", "conv1a/bias", "score"} <= set(names(model.subgraphs[0].tensors))


def test_constants_are_aligned_for_microcontrollers(small):
    import ai_edge_litert.schema_py_generated as schema

    data = bytearray(small[3])
    model = schema.Model.GetRootAs(data, 0)
    start = np.frombuffer(data, np.uint8).ctypes.data
    for index in range(model.BuffersLength()):
        constant = model.Buffers(index).DataAsNumpy()
        if isinstance(constant, np.ndarray):
            assert (constant.ctypes.data - start) % 16 == 0


def test_the_simulation_is_what_the_model_computes(small, model_file):
    quantized = small[2]
    heads = runtimes.TFLiteModel(model_file, kernels="builtin").heads(random_pixels())
    simulated = quantized(normalized(random_pixels()), training=False)
    for name, head in heads.items():  # a step here or there, which later layers carry on
        assert sqnr(np.asarray(simulated[name]), head) > 15, name


@pytest.mark.parametrize("size", [(24, 32), (88, 88), (48, 64)])
def test_a_model_of_another_size_computes_the_same(small, size, tmp_path):
    config, _, quantized, data = small
    export = convert.Export(name="test_small", precision="int8_ptq", image_size=size)
    converted, resized = convert.to_tflite(quantized, config, export), rewriting.resize(data, size)
    assert tflite_file.metadata(resized)["image_size"] == list(size)
    found = []
    for name, content in (
        ("a", converted),
        ("b", resized),
        ("c", data),
    ):  # the last one resized while running
        (tmp_path / name).write_bytes(content)
        found.append(runtimes.TFLiteModel(tmp_path / name).raw_heads(random_pixels(size)))
    for other in found[1:]:
        for head, values in found[0].items():
            np.testing.assert_array_equal(values, other[head])


def test_a_uint8_input_changes_no_value(small, tmp_path, model_file):
    path = tmp_path / "uint8.tflite"
    path.write_bytes(rewriting.with_uint8_input(small[3]))
    model = runtimes.TFLiteModel(path)
    assert model._input["dtype"] == np.uint8
    np.testing.assert_array_equal(model._levels, np.arange(256))
    for head, values in runtimes.TFLiteModel(model_file).raw_heads(random_pixels()).items():
        np.testing.assert_array_equal(values, model.raw_heads(random_pixels())[head])
    with pytest.raises(InputError, match="int8 input; received one with uint8"):
        rewriting.with_uint8_input(path.read_bytes())


def test_pixels_enter_an_int8_model_exactly(model_file):
    np.testing.assert_array_equal(runtimes.TFLiteModel(model_file)._levels, np.arange(256) - 128)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kp2d_tiny_s", "kp2d_tiny_f"])
def test_keras_and_float_tflite_agree(name, tmp_path):
    source = quantization.load_float(name)
    data = convert.to_tflite(source.network, source.config, convert.Export(name=name, precision="float32"))
    (tmp_path / "float.tflite").write_bytes(data)
    heads = runtimes.TFLiteModel(tmp_path / "float.tflite").heads(photo())
    for head, values in source.network(normalized(photo()), training=False).items():
        np.testing.assert_allclose(heads[head], np.asarray(values), atol=1e-4)


@pytest.mark.parametrize(("precision", "least"), [("float16", 45), ("int16x8", 18)])
def test_other_precisions_are_near_float(small, precision, least, tmp_path):
    config, network, _, _ = small
    export = convert.Export(name="small", precision=precision, image_size=SIZE)
    inputs = [normalized(random_pixels(seed=seed)) for seed in range(3)]
    (tmp_path / "x.tflite").write_bytes(convert.to_tflite(network, config, export, images=inputs))
    heads = runtimes.TFLiteModel(tmp_path / "x.tflite").heads(random_pixels())
    for head, values in network(normalized(random_pixels()), training=False).items():
        assert sqnr(np.asarray(values), heads[head]) > least, head


def test_the_network_must_suit_the_precision(small):
    config, network, quantized, _ = small
    with pytest.raises(InputError, match="a quantized network"):
        convert.to_tflite(network, config, convert.Export(name="x", precision="int8", image_size=SIZE))
    with pytest.raises(InputError, match="a float network"):
        convert.to_tflite(quantized, config, convert.Export(name="x", precision="float32", image_size=SIZE))
    with pytest.raises(InputError, match="divisible by the cell 4"):
        convert.to_tflite(quantized, config, convert.Export(name="x", image_size=(50, 64)))
    with pytest.raises(InputError, match="Did you mean 'int8'"):
        convert.Export(name="x", precision="int9")


def test_onnx_agrees_with_keras(small, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    config, network, _, _ = small
    session = onnxruntime.InferenceSession(convert.to_onnx(network, config, SIZE))
    assert [one.name for one in session.get_inputs()] == ["image"]
    names = [one.name for one in session.get_outputs()]
    heads = dict(zip(names, session.run(None, {"image": normalized(random_pixels())}), strict=True))
    for head, values in network(normalized(random_pixels()), training=False).items():
        np.testing.assert_allclose(heads[head.removesuffix("_map")], np.asarray(values), atol=1e-4)


def test_a_c_array_holds_the_bytes(small, tmp_path):
    text = tflite_file.to_c_array(small[3], "88-small")
    body = text[text.index("{") : text.index("}")]
    assert bytes(int(byte, 16) for byte in re.findall(r"0x(..),", body)) == small[3]
    assert "g_88_small_len = " in text
    if shutil.which("g++"):
        (tmp_path / "model.h").write_text(text)
        (tmp_path / "main.cc").write_text(
            '#include "model.h"\n'
            f"int main() {{ return g_88_small[4] != 84 || g_88_small_len != {len(small[3])}; }}\n"
        )
        subprocess.run(["g++", "main.cc", "-o", "main"], cwd=tmp_path, check=True)
        assert subprocess.run([tmp_path / "main"], check=False).returncode == 0


# Bad files.


def test_a_cut_off_model_is_refused(small, tmp_path):
    path = tmp_path / "cut.tflite"
    for part in (0, 3, 8, 40, 200, 1000, len(small[3]) // 2, len(small[3]) - 8):
        path.write_bytes(small[3][:part])
        with pytest.raises(InputError, match=r"\.tflite model"):
            learned.load_model(path)


def test_a_damaged_model_never_ends_in_a_traceback(small, tmp_path):
    path, rng = tmp_path / "damaged.tflite", np.random.default_rng(0)
    for _ in range(200):
        data = np.frombuffer(small[3], np.uint8).copy()
        data[rng.integers(8, 400, 4)] = rng.integers(0, 256, 4)
        try:
            tflite_file.metadata(data.tobytes(), path)
        except InputError:
            continue


def test_foreign_files_are_refused(tmp_path):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def double(x):
        return 2 * x

    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()], double)
    path = tmp_path / "foreign.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(InputError, match=r"made by kp2d; received .*foreign\.tflite, which does not say"):
        learned.load_model(path)
    path.write_text("not a model at all")
    with pytest.raises(InputError, match="which is none"):
        learned.load_model(path)
    with pytest.raises(InputError, match=r"a \.tflite model; received .*no\.tflite: No such file"):
        learned.load_model(tmp_path / "no.tflite")


def test_runtimes_are_refused_by_name(model_file, monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'litert'"):
        learned.load_model(model_file, runtime="liteer")
    with pytest.raises(InputError, match="kernels"):
        learned.load_model(model_file, kernels="fast")
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a runtime for \.tflite models; received installed: none"):
        learned.load_model(model_file)


def test_tensorflow_is_asked_for_where_it_is_missing(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match="TensorFlow, which converts networks; received none installed"):
        convert.to_onnx(small[1], small[0], SIZE)


@pytest.mark.parametrize(
    "change",
    [
        {"cell": 0},
        {"cell": "4"},
        {"image_size": "abc"},
        {"pixel_scale": 0},
        {"pixel_offset": None},
        {"score_sharpness": float("nan")},
    ],
)
def test_metadata_that_cannot_be_is_refused(small, tmp_path, change):
    model = flatbuffer.parse(small[3])
    rewriting.set_metadata(model, {**tflite_file.metadata(small[3]), **change})
    (tmp_path / "x.tflite").write_bytes(flatbuffer.pack(model))
    with pytest.raises(InputError, match="does not say how to feed and decode"):
        learned.load_model(tmp_path / "x.tflite")


def test_a_model_that_cannot_take_a_size_says_so_and_goes_on(small, tmp_path):
    config, network, _, _ = small
    export = convert.Export(name="small", precision="int16x8", image_size=SIZE)
    path = tmp_path / "x.tflite"
    inputs = [normalized(random_pixels())]
    path.write_bytes(convert.to_tflite(network, config, export, images=inputs))
    model = runtimes.TFLiteModel(path)
    before = model.heads(random_pixels())
    with pytest.raises(InputError, match="an image of 48x64 px for this int16x8 model; received 24x32"):
        model.heads(random_pixels((24, 32)))
    np.testing.assert_array_equal(model.heads(random_pixels())["score_map"], before["score_map"])
    path.write_bytes(rewriting.resize(path.read_bytes(), (24, 32)))
    assert runtimes.TFLiteModel(path).heads(random_pixels((24, 32)))["score_map"].shape == (1, 6, 8, 1)


# A model is a method.


def test_a_model_file_is_a_method(model_file, tiny_dataset, tmp_path, capsys):
    image = random_pixels((96, 128))[0]
    extractor = learned.load_trained(model_file)
    features = extractor.extract(image)
    assert (extractor.name, extractor.precision, extractor.runtime) == ("small", "int8_ptq", "litert")
    assert len(features) == 22 * 30
    again = learned.load_trained(model_file, precision="int8_ptq").extract(image)
    np.testing.assert_array_equal(features.keypoints, again.keypoints)
    with pytest.raises(InputError, match=r"precision of small\.tflite out of int8_ptq"):
        learned.load_trained(model_file, precision="float32")
    rows = tmp_path / "rows.csv"
    options = ["--data", str(tiny_dataset), "--image-size", "96x128", "--top-k", "50", "--output", str(rows)]
    assert cli.main(["evaluate", "--method", str(model_file), *options, "--cache", str(tmp_path / "c")]) == 0
    assert "small,int8_ptq,litert" in rows.read_text()


def test_equal_int8_scores_keep_the_order_of_the_cells(model_file):
    features = learned.load_model(model_file).extract(np.full((*SIZE, 3), 128, np.uint8))
    ties = np.flatnonzero(np.diff(features.scores) == 0)
    assert len(ties) > 20
    rows = features.keypoints[:, 1] // 4 * 100 + features.keypoints[:, 0] // 4
    assert len(rows)  # offsets of a constant image are equal, so positions follow the cells
    assert (np.diff(rows)[ties] > 0).mean() > 0.95


def test_the_card_of_a_model_says_what_the_file_says(model_file, tmp_path):
    card = cards.write_model_card(model_file, [{"d3": 0.5}], calibration="blocks")
    assert card.name == "small.json"
    content = files.read_json(card)
    assert content["sha256"] == files.sha256(model_file) and content["calibration"] == "blocks"
    assert (content["precision"], content["metrics"], content["stages"]) == ("int8_ptq", [{"d3": 0.5}], [])


def test_every_shipped_model_has_an_honest_card():
    for parameter in shipped_models():
        path = shipped_file(*parameter.values)
        card = files.read_json(path.with_suffix(".json"))
        assert card["sha256"] == files.sha256(path) and card["metrics"] and card["calibration"]
        assert len(card["stages"]) == (card["precision"] == "int8")
        assert tflite_file.open_model(path)[1].items() <= card.items()


# The command line.


def test_quantize_makes_every_kind_of_file(small_preset, small, tmp_path, photos, capsys):
    weights = tmp_path / f"{small_preset}.weights.h5"
    small[1].save_weights(weights)
    outputs = [tmp_path / f"out.{suffix}" for suffix in ("tflite", "h", "onnx")]
    common = ["--precision", "int8_ptq", "--image-size", "48x64", "--calibration", str(photos)]
    assert cli.main(["quantize", str(weights), "-o", *map(str, outputs), *common]) == 0
    said = capsys.readouterr().out
    assert "int8_ptq 48x64" in said and "CONV_2D v3 ×16" in said
    assert all(path.stat().st_size > 1000 for path in outputs)
    changed = tmp_path / "changed.tflite"
    assert (
        cli.main(
            ["quantize", str(outputs[0]), "-o", str(changed), "--image-size", "24x32", "--input", "uint8"]
        )
        == 0
    )
    assert tflite_file.open_model(changed)[1]["image_size"] == [24, 32]
    assert "QUANTIZE v1 ×1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kp2d_tiny_x", "-o", "x.tflite"], "shipped network"),
        (["kp2d_tiny_s", "-o", "x.bin"], "suffix of an output out of .tflite, .h, .onnx"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "int8_ptq", "--calibration", "nowhere"], "nowhere"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "int8_ptq", "--calibration", "."], "pictures"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--image-size", "241x320"], "divisible by the cell 4"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "float16", "--input", "uint8"], "--input uint8"),
        (["nowhere.weights.h5", "-o", "x.tflite"], "nowhere.weights.h5"),
        (["nowhere.tflite", "-o", "x.tflite"], "No such file"),
        (["kp2d_tiny_s", "-o", "x.tflite", "x.tflite"], "different outputs"),
        (
            ["kp2d_tiny_s", "-o", "x.tflite", "--steps", "5", "--set", "bogus=1"],
            "no --steps, --set for a shipped",
        ),
        (["kp2d_tiny_s", "-o", "x.onnx", "--precision", "int8"], "no --precision for an ONNX file"),
        (["kp2d_tiny_s", "-o", "x.tflite", "--precision", "float16", "--data", "d"], "no --data for float16"),
    ],
)
def test_quantize_says_what_is_wrong(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["quantize", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.tflite").exists()


def test_training_on_the_grid_brings_the_network_nearer(small_preset, small, tmp_path, photos, eager, capsys):
    weights = tmp_path / f"{small_preset}.weights.h5"
    small[1].save_weights(weights)
    output = tmp_path / "int8.tflite"
    settings = ["batch_size=2", "workers=0", "image_size=(32,48)", "log_every=1", "tensorboard=False"]
    changes = [word for setting in settings for word in ("--set", setting)]
    command = ["quantize", str(weights), "-o", str(output), "--data", str(photos), "--image-size", "48x64"]
    assert cli.main([*command, "--steps", "3", *changes]) == 0
    assert tflite_file.open_model(output)[1]["precision"] == "int8"
    (run,) = [path for path in (tmp_path / "int8_training").iterdir() if path.is_dir()]
    assert files.read_json(run / "config.json")["quantized"] is True
    with pytest.raises(InputError, match="weights in training for int8"):
        learned.load_trained(run)
    assert cli.main(["quantize", str(weights), "-o", str(output), "--precision", "int8"]) == 2
    assert "--data PHOTOGRAPHS" in capsys.readouterr().err
    assert len(datasets.list_images(photos)) == 4


# Other runtimes compute the same. Limits are those of real pictures, with the shipped networks.


def shipped_models():
    return [
        pytest.param(name, precision, id=f"{name}-{precision}")
        for precision in ("int8", "int8_ptq")
        for name in learned.shipped(precision)
    ]


def size_of(name):
    return (88, 88) if name.endswith("_88") else (240, 320)


def shipped_file(name, precision):
    return learned.PRETRAINED / f"{name}{learned.SUFFIXES[precision]}"


def test_every_shipped_network_has_int8_models():
    assert learned.shipped("int8") == learned.shipped("int8_ptq") == learned.shipped()


@pytest.mark.parametrize(("name", "precision"), shipped_models())
def test_a_shipped_int8_network_is_near_its_float_network(name, precision):
    model = runtimes.TFLiteModel(shipped_file(name, precision))
    source = quantization.load_float(name)
    assert model.metadata["float_sha256"] == source.sha256
    assert model.metadata["preset"] == source.config.name and "dirty" not in model.metadata["git_commit"]
    float_network, int8_network = kp2d.load(name), kp2d.load(name, precision=precision)
    pixels = np.concatenate([photo(each, size_of(name)) for each in ("astronaut", "coffee", "camera")])
    wanted, got = [], []
    for image in pixels:
        wanted.append(float_network.predict(image[None]))
        got.append(model.heads(image[None]))
    for head, least in LEAST_SQNR.items():
        ratio = sqnr(*(np.concatenate([heads[head] for heads in each]) for each in (wanted, got)))
        assert ratio > least - DEEPER.get(name, 0), head
    shares = []
    for image in pixels:
        theirs, ours = (n.extract(image).take(slice(150)).keypoints for n in (float_network, int8_network))
        distances = np.linalg.norm(theirs[:, None] - ours[None], axis=-1).min(axis=1)
        shares.append((distances < 1.0).mean())
    assert np.mean(shares) > 0.85  # of the 150 best keypoints, found within a pixel


LEAST_SQNR = {"score_map": 28, "offset_map": 18, "descriptor_map": 24}  # dB
DEEPER = {"kp2d_baseline": 6}  # dB more of noise, with sums over up to 2304 products


@pytest.mark.parametrize(("name", "precision"), shipped_models())
def test_shipped_models_are_as_large_as_the_papers(name, precision):
    mebibytes = shipped_file(name, precision).stat().st_size / 2**20
    expected = {"kp2d_nano": 0.054, "kp2d_baseline": 5.1, "kp2d_tiny_f": 1.9, "kp2d_tiny_s": 0.37}
    assert mebibytes == pytest.approx(expected[name.removesuffix("_88")], rel=0.1)


@pytest.mark.parametrize(("name", "precision"), shipped_models())
def test_fast_kernels_differ_in_values_but_not_in_keypoints(name, precision):
    fast, exact = (
        learned.load_model(shipped_file(name, precision), kernels=kernels) for kernels in runtimes.KERNELS
    )
    assert fast.settings() != exact.settings()
    image = photo("coffee", size_of(name))[0]
    for head, values in exact.predict(image[None]).items():
        assert sqnr(values, fast.predict(image[None])[head]) > LEAST_SQNR[head], head
    ours, theirs = (each.extract(image).take(slice(150)).keypoints for each in (fast, exact))
    distances = np.linalg.norm(ours[:, None] - theirs[None], axis=-1).min(axis=1)
    assert (distances < 1.0).mean() > 0.85


def test_microcontrollers_compute_the_same(tmp_path, capfd):
    micro = pytest.importorskip("tflite_micro", reason="no wheel for this platform").runtime
    data = rewriting.resize(shipped_file("kp2d_tiny_s", "int8").read_bytes(), (88, 88))
    (tmp_path / "small.tflite").write_bytes(data)
    pixels = photo(size=(88, 88))
    interpreter = micro.Interpreter.from_bytes(data)
    interpreter.set_input((pixels.astype(np.int16) - 128).astype(np.int8), 0)
    interpreter.invoke()
    ours = runtimes.TFLiteModel(tmp_path / "small.tflite", kernels="builtin").raw_heads(pixels)
    by_shape = {values.shape: values.astype(int) for values in ours.values()}
    for index in range(3):
        output = interpreter.get_output(index)
        difference = np.abs(by_shape[output.shape] - output)
        assert (difference > 0).mean() < 0.02 and difference.max() <= 8
    interpreter.print_allocations()
    arena = int(re.search(r"Arena allocation total (\d+) bytes", "".join(capfd.readouterr()))[1])
    assert arena < 512 * 1024  # what a large microcontroller has
