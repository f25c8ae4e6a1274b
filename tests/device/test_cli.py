"""kp2d compile from end to end: with a stand-in for the compiler, without one, and what is refused."""

import stat
import sys

import numpy as np
import pytest
from shipped_models import as_compiled, prepared, restored

from kp2d import cli
from kp2d.device import compiler
from kp2d.methods import runtimes, tflite_file, tpu, weights
from kp2d.quantize.flatbuffer import Model

LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1234 ms.

Input model: {name}.tflite
Input size: 420.00KiB
Output model: {name}_edgetpu.tflite
Output size: 600.00KiB
On-chip memory used for caching model parameters: 400.00KiB
On-chip memory remaining for caching model parameters: 7.30MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 22
Operation log: {name}_edgetpu.log

Operator                       Count      Status

CONV_2D                        22         Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""

PROGRAM = """#!{python}
import sys
if "--version" in sys.argv:
    sys.exit(print("Edge TPU Compiler version 16.0.384591198"))
name = sys.argv[-1].removesuffix(".tflite")
sys.path[:0] = {paths!r}
from shipped_models import as_compiled
open("out/" + name + "_edgetpu.tflite", "wb").write(as_compiled(open(sys.argv[-1], "rb").read()))
print({log!r}.format(name=name))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch, project):
    path = tmp_path / "bin" / "edgetpu_compiler"
    path.parent.mkdir()
    paths = [str(project), str(project / "tests")]
    path.write_text(PROGRAM.format(python=sys.executable, paths=paths, log=LOG))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(compiler.VARIABLE, str(path))


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.delenv(compiler.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")


def test_a_network_is_compiled_into_a_file_that_says_what_it_is(stand_in, tmp_path, capsys):
    output = tmp_path / "s_edgetpu.tflite"
    assert cli.main(["compile", "kp2d_tiny_s", "--image-size", "88x88", "-o", str(output)]) == 0
    told = capsys.readouterr().out
    assert "22 operators on the Edge TPU, 0 on the CPU" in told
    assert f"{output}: compiled by version 16.0.384591198" in told
    data, about = tflite_file.open_model(output)
    assert tpu.is_compiled(data) and about["image_size"] == [88, 88]
    prepared = (tmp_path / "s.tflite").read_bytes()
    assert Model.parse(prepared).summary()["operators"]["TRANSPOSE_CONV v2"] == 1
    (operator,) = Model.parse(data).tables.subgraphs[0].operators
    (made,) = Model.parse(as_compiled(prepared)).tables.subgraphs[0].operators
    np.testing.assert_array_equal(operator.customOptions, made.customOptions)


def test_a_precision_may_be_named_with_the_network(absent, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compile", "kp2d_nano:int8_ptq", "--image-size", "64x80"]) == 0
    assert "kp2d_nano.int8_ptq_64x80_edgetpu.tflite: skipped" in capsys.readouterr().out
    assert cli.main(["lint", "kp2d_nano:int8"]) == 0


def test_without_the_compiler_the_model_is_prepared_and_the_way_told(absent, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compile", "kp2d_tiny_f", "--image-size", "88x88"]) == 0
    told = capsys.readouterr().out
    assert "kp2d_tiny_f_88x88_edgetpu.tflite: skipped. There is no edgetpu_compiler" in told
    assert "sudo apt-get install edgetpu-compiler" in told
    assert "23 operators on the Edge TPU, 0 on the CPU" in told
    assert [path.name for path in tmp_path.iterdir()] == ["kp2d_tiny_f_88x88.tflite"]
    image = np.random.default_rng(0).integers(0, 256, (1, 88, 88, 3), np.uint8)
    assert runtimes.TFLiteModel(tmp_path / "kp2d_tiny_f_88x88.tflite").raw_heads(image)["score"].any()


def test_the_image_may_enter_as_it_is(absent, tmp_path, capsys):
    output = tmp_path / "x_edgetpu.tflite"
    arguments = ["--image-size", "88x88", "--input", "uint8", "-o", str(output)]
    assert cli.main(["compile", "kp2d_tiny_s", *arguments]) == 0
    assert "23 operators on the Edge TPU, 0 on the CPU" in capsys.readouterr().out
    graph = Model.parse((tmp_path / "x.tflite").read_bytes()).graph()
    assert graph.inputs[0].type == "uint8"


def test_quantize_makes_the_same_form(tmp_path, capsys):
    path = tmp_path / "x.tflite"
    arguments = ["--image-size", "88x88", "--target", "edgetpu", "-o", str(path)]
    assert cli.main(["quantize", "kp2d_tiny_s", *arguments]) == 0
    capsys.readouterr()
    assert path.read_bytes() == prepared().pack()
    assert cli.main(["quantize", "kp2d_tiny_s", "--precision", "float16", *arguments]) == 2
    assert "an int8 model for --target edgetpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kp2d_tiny_x"], "shipped network in int8"),
        (["absent.tflite"], "No such file"),
        (["kp2d_tiny_s", "-o", "x.bin"], "an output that ends with _edgetpu.tflite"),
        (["kp2d_tiny_s", "-o", "x.tflite"], "an output that ends with _edgetpu.tflite"),
        (["kp2d_tiny_s", "--image-size", "90x90"], "90"),
        (["compiled_edgetpu.tflite"], "a model that is not compiled yet"),
        (["kp2d_tiny_f", "-o", "mine_edgetpu.tflite"], "another model, which would be overwritten"),
        (["kp2d_tiny_s", "--time-limit", "0"], "a --time-limit of at least 1 s"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_anything_is_written(
    arguments, message, absent, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = prepared(size=(240, 320)).pack()
    (tmp_path / "mine.tflite").write_bytes(data)
    (tmp_path / "compiled_edgetpu.tflite").write_bytes(restored(as_compiled(data), data).pack())
    before = sorted(tmp_path.iterdir())
    assert cli.main(["compile", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_what_needs_no_change_is_its_own_preparation(absent, tmp_path, capsys):
    path = tmp_path / "v1.2.net.tflite"
    path.write_bytes(prepared(size=(240, 320)).pack())
    before = path.read_bytes()
    assert cli.main(["compile", str(path), "-o", str(tmp_path / "v1.2.net_edgetpu.tflite")]) == 0
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [path.name]
    assert "v1.2.net_edgetpu.tflite: skipped" in capsys.readouterr().out


def test_two_models_get_two_names(absent, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("kp2d_tiny_s", str(weights.shipped_path("kp2d_tiny_s", "int8_ptq"))):
        assert cli.main(["compile", name, "--image-size", "88x88"]) == 0
    names = ["kp2d_tiny_s.int8_ptq_88x88.tflite", "kp2d_tiny_s_88x88.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_float_model_is_refused(absent, tmp_path, capsys):
    path = tmp_path / "float.tflite"
    assert cli.main(["quantize", "kp2d_tiny_s", "--precision", "float32", "-o", str(path)]) == 0
    capsys.readouterr()
    assert cli.main(["compile", str(path), "-o", str(tmp_path / "x_edgetpu.tflite")]) == 2
    assert "in int8; received one in float32" in capsys.readouterr().err
