"""Models on an Edge TPU: the way through the runtimes with a fake library, and what is missing without."""

import ctypes.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import shipped_models
from shipped_models import as_compiled, restored

import kp2d
from kp2d import cli
from kp2d.checks import InputError
from kp2d.methods import extractors, runtimes, tflite_file, tpu
from kp2d.quantize import flatbuffer
from kp2d.quantize.flatbuffer import Model

SIZE = (88, 88)


@pytest.fixture(scope="module")
def prepared():
    return shipped_models.prepared("kp2d_tiny_s", SIZE).pack()


@pytest.fixture
def compiled(prepared, tmp_path):
    path = tmp_path / "kp2d_tiny_s_88x88_edgetpu.tflite"
    path.write_bytes(restored(as_compiled(prepared), prepared).pack())
    return path


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a C compiler on Linux makes the fake libedgetpu")
    path = tmp_path_factory.mktemp("fake") / "libedgetpu.so.1"
    source = Path(__file__).with_name("fake_edgetpu.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, source], check=True)
    return path


@pytest.fixture
def stick(fake_library, monkeypatch):
    monkeypatch.setenv(tpu.LIBRARY_VARIABLE, str(fake_library))
    return fake_library


def image(value=100):
    return np.full((1, *SIZE, 3), value, np.uint8)


@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_a_compiled_model_runs_through_the_delegate(compiled, stick, runtime):
    model = runtimes.TFLiteModel(compiled, runtime=runtime, threads=1)
    assert model.runtime == f"{runtime}+edgetpu"
    raw = model.raw_heads(image(100))
    assert {name: values.shape for name, values in raw.items()} == {
        "score": (1, 22, 22, 1),
        "offset": (1, 22, 22, 2),
        "descriptor": (1, 44, 44, 32),
    }
    assert all((values == -28).all() for values in raw.values())  # the fake one repeats the first byte
    assert model.heads(image(100))["score_map"].dtype == np.float32


def test_the_device_is_handed_to_the_library(compiled, stick, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_EDGETPU_LOG", str(tmp_path / "log"))
    runtimes.TFLiteModel(compiled, device="usb:0", use_tpu=True)
    assert (tmp_path / "log").read_text() == "device=usb:0\n"


def test_a_compiled_model_is_a_method(compiled, stick):
    extractor = extractors.create(str(compiled), use_tpu=True)
    assert (extractor.name, extractor.precision) == ("kp2d_tiny_s_88x88_edgetpu", "int8")
    assert extractor.runtime.endswith("+edgetpu")
    features = extractor.extract(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    assert len(features) == 20 * 20
    with pytest.raises(InputError, match="an image of 88x88 px, for which this model is compiled"):
        extractor.extract(np.zeros((96, 128, 3), np.uint8))


def test_a_compiled_model_has_no_pyramid(compiled, stick, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_EDGETPU_LOG", str(tmp_path / "log"))
    with pytest.raises(InputError, match=r"images of any size for `pyramid`; received .* on Edge TPU"):
        kp2d.load(str(compiled), device="usb:0", pyramid=2)
    assert (tmp_path / "log").read_text() == "device=usb:0\n"  # opened once: a stick serves one at a time


def test_load_takes_a_compiled_model(compiled, stick):
    assert kp2d.load(str(compiled), threads=1).runtime == "litert+edgetpu"
    assert kp2d.load("kp2d_tiny_s", precision="int8", runtime="tensorflow").runtime == "tensorflow"


def test_pycoral_is_asked_first_where_it_is_installed(compiled, prepared, monkeypatch):
    from ai_edge_litert import interpreter

    asked = []

    def make_interpreter(model, device=None, delegate=None):
        asked.append((tpu.is_compiled(model), device))
        return interpreter.Interpreter(model_content=prepared)  # computes what the stick would

    module = types.ModuleType("pycoral.utils.edgetpu")
    module.make_interpreter = make_interpreter
    monkeypatch.setitem(sys.modules, "pycoral.utils.edgetpu", module)
    monkeypatch.setattr(tpu, "has_pycoral", lambda: True)
    model = runtimes.TFLiteModel(compiled, device="usb")
    assert (model.runtime, asked) == ("pycoral+edgetpu", [(True, "usb")])
    pixels = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    path = compiled.with_name("prepared.tflite")
    path.write_bytes(prepared)
    wanted = runtimes.TFLiteModel(path).raw_heads(pixels)
    for head, values in model.raw_heads(pixels).items():
        np.testing.assert_array_equal(values, wanted[head])


def test_another_package_named_pycoral_is_not_taken_for_it(monkeypatch):
    def broken(name):
        raise RuntimeError("another program")

    monkeypatch.setattr(tpu.importlib.util, "find_spec", broken)
    assert not tpu.has_pycoral()


# What is missing.


def test_no_library_is_said_so_with_the_command_that_works(compiled, monkeypatch):
    monkeypatch.setenv(tpu.LIBRARY_VARIABLE, "libedgetpu_absent.so.1")
    with pytest.raises(InputError) as caught:
        runtimes.TFLiteModel(compiled)
    message = str(caught.value)
    assert "through libedgetpu_absent.so.1; received no such library" in message
    assert "libedgetpu1-std" in message
    assert "On the CPU: `method='kp2d_tiny_s'` `precision='int8'`, without `use_tpu=True`." in message


def test_another_library_is_said_to_be_one(compiled, monkeypatch):
    monkeypatch.setenv(tpu.LIBRARY_VARIABLE, ctypes.util.find_library("m") or "libm.so.6")
    with pytest.raises(InputError, match="is another library") as caught:
        runtimes.TFLiteModel(compiled)
    assert "EDGETPU_LIBRARY names it" in str(caught.value)


def test_your_own_model_is_not_taken_for_a_shipped_one(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv(tpu.LIBRARY_VARIABLE, "libedgetpu_absent.so.1")
    model = Model.parse(as_compiled(prepared))
    model.set_metadata({**tflite_file.metadata(prepared), "git_commit": "another"})
    (tmp_path / "mine_edgetpu.tflite").write_bytes(model.pack())
    with pytest.raises(InputError, match="On the CPU: the model before compilation"):
        runtimes.TFLiteModel(tmp_path / "mine_edgetpu.tflite")


def test_no_stick_is_said_so(compiled, stick, monkeypatch):
    monkeypatch.setenv("FAKE_EDGETPU_ABSENT", "1")
    monkeypatch.setattr(tpu, "devices", lambda root=None: [])
    with pytest.raises(InputError, match=r"received none plugged in\. Plug it in"):
        runtimes.TFLiteModel(compiled)


@pytest.fixture
def system(tmp_path):
    """A root folder as Linux has it with a stick at bus 2, device 5."""
    entry = tmp_path / "sys/bus/usb/devices/2-1"
    entry.mkdir(parents=True)
    for name, value in {"idVendor": "1a6e", "idProduct": "089a", "busnum": "2", "devnum": "5"}.items():
        (entry / name).write_text(f"{value}\n")
    other = tmp_path / "sys/bus/usb/devices/1-1"
    other.mkdir()
    (other / "idVendor").write_text("046d\n")
    node = tmp_path / "dev/bus/usb/002/005"
    node.parent.mkdir(parents=True)
    node.write_text("")
    return tmp_path


def test_a_stick_is_found_by_its_usb_identity(system):
    (device,) = tpu.devices(system)
    assert (device.kind, device.path, device.usable) == ("usb", system / "dev/bus/usb/002/005", True)


def test_a_card_is_found_by_its_driver(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/apex_0").write_text("")
    assert [(device.kind, device.path.name) for device in tpu.devices(tmp_path)] == [("pci", "apex_0")]


def test_no_permission_names_the_group(system, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    message = str(tpu.explained(ValueError("Failed to load delegate"), system))
    assert "no permission for" in message and "sudo usermod -aG plugdev $USER" in message


def test_a_stick_that_does_not_answer_is_not_called_missing(system):
    message = str(tpu.explained(ValueError("Failed to load delegate from libedgetpu.so.1"), system))
    assert "one that does not answer (Failed to load delegate" in message and "in again" in message


def test_the_edge_tpu_is_not_asked_to_run_what_is_not_compiled(prepared, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(prepared)
    with pytest.raises(InputError, match="a model compiled for the Edge TPU") as caught:
        runtimes.TFLiteModel(path, use_tpu=True)
    assert "Run kp2d compile kp2d_tiny_s, and name what it makes, or leave `use_tpu` out." in str(
        caught.value
    )
    with pytest.raises(InputError, match=r"a runtime out of litert, tflite-runtime, tensorflow; .*'pycoral'"):
        runtimes.TFLiteModel(path, runtime="pycoral")


def test_a_compiled_model_is_not_run_on_the_cpu(compiled):
    with pytest.raises(InputError, match=r"a model for the CPU; received .*compiled for the Edge TPU"):
        runtimes.TFLiteModel(compiled, use_tpu=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "sift", "--use-tpu"], "a network for the Edge TPU; received sift"),
        (
            ["--method", "kp2d_tiny_s", "--use-tpu"],
            "Run kp2d compile kp2d_tiny_s, and name what it makes, or leave --use-tpu out.",
        ),
        (
            ["--method", "kp2d_tiny_s", "--precision", "float32", "--use-tpu"],
            "an int8 network for the Edge TPU; received kp2d_tiny_s in float32. Take --precision int8.",
        ),
        (["--method", "kp2d_tiny_s", "--runtime", "litert"], "runtime of kp2d_tiny_s in float32"),
    ],
)
def test_the_command_line_says_why_not(arguments, message, tiny_dataset, capsys):
    pictures = [str(tiny_dataset / "v_a" / f"{k}.png") for k in (1, 2)]
    assert cli.main(["match", *pictures, *arguments, "--image-size", "88x88"]) == 2
    assert message in capsys.readouterr().err


def test_match_runs_on_the_stick(compiled, stick, tiny_dataset, tmp_path, capsys):
    pictures = [str(tiny_dataset / "v_a" / f"{k}.png") for k in (1, 2)]
    output = tmp_path / "matches.png"
    arguments = ["--method", str(compiled), "--use-tpu", "--image-size", "88x88", "-o", str(output)]
    assert cli.main(["match", *pictures, *arguments]) == 0
    assert output.is_file() and "400 and 400 keypoints" in capsys.readouterr().out


# What the compiler drops.


def test_what_is_for_the_edge_tpu_is_not_touched(prepared):
    after = Model.parse(restored(as_compiled(prepared), prepared).pack())
    (operator,) = after.tables.subgraphs[0].operators
    assert bytes(operator.customOptions) == bytes(range(256))
    assert after.metadata() == tflite_file.metadata(prepared)
    assert [flatbuffer.text(entry.name) for entry in after.tables.signatureDefs[0].outputs] == [
        "descriptor",
        "offset",
        "score",
    ]


def test_a_model_compiled_by_hand_is_understood_beside_its_source(prepared, tmp_path, stick):
    path = tmp_path / "mine_edgetpu.tflite"
    path.write_bytes(as_compiled(prepared))
    with pytest.raises(InputError, match="does not say how to feed and decode it") as caught:
        runtimes.TFLiteModel(path)
    assert "mine.tflite" in str(caught.value)
    (tmp_path / "mine.tflite").write_bytes(prepared)
    assert runtimes.TFLiteModel(path).metadata["name"] == "kp2d_tiny_s"
