"""Int8 models as methods: the runtimes feed and decode them, and the shipped ones are near their networks."""

import re

import numpy as np
import pytest
from shipped_models import shipped
from small_network import SIZE, SMALL, random_pixels, small_model

import kp2d
from kp2d import cli, files, images
from kp2d.checks import InputError
from kp2d.data import scenes
from kp2d.methods import learned, runtimes, tflite_file, weights
from kp2d.quantize import quantization
from kp2d.quantize.flatbuffer import Model


@pytest.fixture(scope="module")
def small():
    return small_model(SMALL)


@pytest.fixture
def model_file(small, tmp_path):
    path = tmp_path / "small.tflite"
    path.write_bytes(small.data)
    return path


def photo(name="astronaut", size=(240, 320)):
    return images.resize_image(scenes.photograph(name), size)[None]


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / max(np.square(wanted - got).sum(), 1e-12))


def test_pixels_enter_an_int8_model_exactly(model_file):
    np.testing.assert_array_equal(runtimes.TFLiteModel(model_file)._levels, np.arange(256) - 128)


def test_runtimes_are_refused_by_name(model_file, monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'litert'"):
        learned.load(model_file, runtime="liteer")
    with pytest.raises(InputError, match="kernels"):
        learned.load(model_file, kernels="fast")
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a runtime for \.tflite models; received installed: none"):
        learned.load(model_file)


def test_a_model_file_is_a_method(model_file, tiny_dataset, tmp_path, capsys):
    image = random_pixels((96, 128))[0]
    extractor = learned.load(model_file)
    features = extractor.extract(image)
    assert (extractor.name, extractor.precision, extractor.runtime) == ("small", "int8_ptq", "litert")
    assert len(features) == 22 * 30
    again = learned.load(model_file, precision="int8_ptq").extract(image)
    np.testing.assert_array_equal(features.keypoints, again.keypoints)
    with pytest.raises(InputError, match=r"precision of small\.tflite out of int8_ptq"):
        learned.load(model_file, precision="float32")
    rows = tmp_path / "rows.csv"
    options = ["--data", str(tiny_dataset), "--image-size", "96x128", "--top-k", "50", "--output", str(rows)]
    assert cli.main(["evaluate", "--method", str(model_file), *options, "--cache", str(tmp_path / "c")]) == 0
    assert "small,int8_ptq,litert" in rows.read_text()


def test_equal_int8_scores_keep_the_order_of_the_cells(model_file):
    features = learned.load(model_file).extract(np.full((*SIZE, 3), 128, np.uint8))
    ties = np.flatnonzero(np.diff(features.scores) == 0)
    assert len(ties) > 20
    rows = features.keypoints[:, 1] // 4 * 100 + features.keypoints[:, 0] // 4
    assert len(rows)  # offsets of a constant image are equal, so positions follow the cells
    assert (np.diff(rows)[ties] > 0).mean() > 0.95


def shipped_models():
    return [
        pytest.param(name, precision, id=f"{name}-{precision}")
        for precision in ("int8", "int8_ptq")
        for name in weights.shipped(precision)
    ]


IMAGE_SIZE = (240, 320)


def shipped_file(name, precision):
    return weights.shipped_path(name, precision)


def test_every_shipped_network_has_int8_models():
    assert weights.shipped("int8") == weights.shipped("int8_ptq") == weights.shipped()


def test_every_shipped_model_has_an_honest_card():
    for parameter in shipped_models():
        path = shipped_file(*parameter.values)
        card = files.read_json(path.with_suffix(".json"))
        assert card["sha256"] == files.sha256(path) and card["metrics"] and card["calibration"]
        assert len(card["stages"]) == (card["precision"] == "int8")
        assert tflite_file.open_model(path)[1].items() <= card.items()


LEAST_SQNR = {"score_map": 28, "offset_map": 18, "descriptor_map": 24}  # dB


DEEPER = {"kp2d_baseline": 6}  # dB more of noise, with sums over up to 2304 products


@pytest.mark.parametrize(("name", "precision"), shipped_models())
def test_a_shipped_int8_network_is_near_its_float_network(name, precision):
    model = runtimes.TFLiteModel(shipped_file(name, precision))
    source = quantization.load_float(name)
    *_, last = files.read_json(weights.card_of(weights.shipped_path(name)))["stages"]
    rounded = {part["sha256"] for part in last["of"]} if last["recipe"] == "half" else set()
    assert model.metadata["float_sha256"] in {source.sha256, *rounded}
    assert model.metadata["preset"] == source.config.name and "dirty" not in model.metadata["git_commit"]
    float_network, int8_network = kp2d.load(name), kp2d.load(name, precision=precision)
    pixels = np.concatenate([photo(each, IMAGE_SIZE) for each in ("astronaut", "coffee", "camera")])
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


@pytest.mark.parametrize(("name", "precision"), shipped_models())
def test_shipped_models_are_as_large_as_the_papers(name, precision):
    mebibytes = shipped_file(name, precision).stat().st_size / 2**20
    expected = {"kp2d_nano": 0.147, "kp2d_baseline": 5.1, "kp2d_tiny_f": 1.9, "kp2d_tiny_s": 0.37}
    assert mebibytes == pytest.approx(expected[name], rel=0.1)


@pytest.mark.parametrize(("name", "precision"), shipped_models())
def test_fast_kernels_differ_in_values_but_not_in_keypoints(name, precision):
    fast, exact = (
        learned.load(shipped_file(name, precision), kernels=kernels) for kernels in runtimes.KERNELS
    )
    assert fast.settings() != exact.settings()
    image = photo("coffee", IMAGE_SIZE)[0]
    for head, values in exact.predict(image[None]).items():
        assert sqnr(values, fast.predict(image[None])[head]) > LEAST_SQNR[head], head
    ours, theirs = (each.extract(image).take(slice(150)).keypoints for each in (fast, exact))
    distances = np.linalg.norm(ours[:, None] - theirs[None], axis=-1).min(axis=1)
    assert (distances < 1.0).mean() > 0.85


def test_microcontrollers_compute_the_same(tmp_path, capfd):
    micro = pytest.importorskip("tflite_micro", reason="no wheel for this platform").runtime
    data = shipped("kp2d_tiny_s", (88, 88)).pack()
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
    planned = Model.parse(data).graph().arena_bytes
    assert planned <= arena < planned + 16 * 1024


@pytest.mark.parametrize("size", [(96, 128), (240, 320)])
def test_a_size_for_which_there_is_no_memory_is_a_want_of_memory(size, model_file, monkeypatch):
    model = runtimes.TFLiteModel(model_file)
    allocate, before = model._allocation, tuple(model._input["shape"])

    def little(shape):
        return RuntimeError("failed to prepare") if shape[1:3] == size else allocate(shape)

    monkeypatch.setattr(model, "_allocation", little)
    with pytest.raises(MemoryError, match=f"{size[0]}x{size[1]}"):
        model.heads(np.zeros((1, *size, 3), np.uint8))
    assert tuple(model._input["shape"]) == before
    assert model.heads(np.zeros(before, np.uint8))["score_map"].shape[0] == 1
    monkeypatch.setattr(model, "_allocation", lambda _: RuntimeError("failed to prepare"))
    with pytest.raises(InputError, match=r"failed to prepare.*Take `image_size="):
        model.heads(np.zeros((1, *size, 3), np.uint8))
