"""`kp2d doctor`: what it finds, what it says to do, and that it works where hardly anything is installed."""

import json
import shutil
import subprocess
import sys

import pytest
from heavy_packages import HEAVY

from kp2d import checks, cli
from kp2d.device import compiler
from kp2d.methods import learned, runtimes, tpu, weights
from kp2d.reproduce import doctor


def findings(topic, **options):
    return {one.name: one for one in doctor.examine(**options) if one.topic == topic}


@pytest.fixture(autouse=True)
def healthy(home, monkeypatch):
    """A project folder of its own, in no particular environment."""
    for name in (compiler.VARIABLE, tpu.LIBRARY_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_a_healthy_installation_is_told_line_by_line(capsys, home):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Nothing is broken."
    for start in (
        *("  ✓ kp2d: ", "  ✓ Python: ", "  ✓ numpy: ", "  ✓ opencv: ", "  ✓ cores: ", "  ✓ free disk: "),
        *("  ✓ litert: runs kp2d_nano int8: ", "  ✓ int8: ", f"  ✓ notebooks: all 6 in {home}"),
        *("  – sample of fast: ", "  ✓ results: ", "  ✓ KP2D_HOME: "),
    ):
        assert any(line.startswith(start) for line in lines), start


def test_it_changes_nothing(home):
    before = sorted(home.rglob("*"))
    doctor.examine()
    assert sorted(home.rglob("*")) == before


def test_json_says_the_same(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["healthy"] and {one["status"] for one in content["findings"]} <= {"ok", "absent"}
    assert {"topic", "name", "status", "value", "remedy"} == set(content["findings"][0])


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("VAL_PATH", "/nowhere", "hpatches: /nowhere, which does not exist. Correct or unset the variable"),
        (
            "VAL_PATH",
            "{0}/a/near:{0}/b/near",
            "hpatches: {0}/a/near and {0}/b/near. Rename one of the folders",
        ),
        (
            "VAL_PATH",
            "{0}/empty",
            "hpatches: {0}/empty with 0 folders, none of them a sequence. Correct or unset",
        ),
        ("TRAIN_PATH", "{0}/empty", "coco: none in {0}/empty. Correct or unset the variable TRAIN_PATH"),
        ("KERAS_BACKEND", "foo", "backend of Keras: foo, which is none. Set KERAS_BACKEND to tensorflow"),
        (tpu.LIBRARY_VARIABLE, "/nowhere.so", "library: /nowhere.so does not load"),
        (compiler.VARIABLE, "/nowhere/compiler", "compiler: expected"),
    ],
)
def test_a_wrong_environment_variable_is_broken(
    monkeypatch, capsys, tmp_path, tiny_dataset, variable, value, said
):
    for name in ("a", "b"):
        shutil.copytree(tiny_dataset, tmp_path / name / "near")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(variable, value.format(tmp_path))
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"✗ {said.format(tmp_path)}" in out and "1 to repair: see ✗" in out


@pytest.mark.parametrize("kind", ["missing", "a file", "read-only"])
def test_a_project_folder_that_cannot_be_used_is_broken(kind, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    if kind == "a file":
        folder.touch()
    elif kind == "read-only":
        folder.mkdir()
        monkeypatch.setattr("os.access", lambda path, _: not str(path).startswith(str(folder)))
    monkeypatch.setenv("KP2D_HOME", str(folder))
    broken = [one for one in findings("folders").values() if one.status == doctor.BROKEN]
    assert broken and all(
        str(folder) in one.value and "KP2D_HOME" in f"{one.name} {one.remedy}" for one in broken
    )


def test_what_the_page_try_it_needs_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = findings("packages")["npm"]
    assert found.status == doctor.ABSENT and "Node.js 18" in found.remedy


def test_damaged_weights_and_missing_notebooks_are_broken(tmp_path, home, monkeypatch):
    folder = (tmp_path / "pretrained").resolve()
    shutil.copytree(weights.PRETRAINED, folder)
    monkeypatch.setattr(weights, "PRETRAINED", folder)
    with (folder / "kp2d_tiny_s.int8.tflite").open("ab") as file:
        file.write(b"more")
    (home / "notebooks" / "03_quantize.ipynb").unlink()
    assert findings("project")["notebooks"].status == doctor.ABSENT, "an installed package has none"
    (home / "pyproject.toml").touch()
    missing = findings("project")["notebooks"]
    assert (missing.status, missing.value) == (doctor.BROKEN, "no 03_quantize")
    damaged = findings("shipped weights")["int8"]
    assert damaged.status == doctor.BROKEN and "with sha256" in damaged.value


def test_a_runtime_that_fails_is_broken_and_none_is_not(monkeypatch):
    def fail(*_, **__):
        raise ImportError("numpy.core.multiarray failed to import\nmore")

    monkeypatch.setattr(learned, "load", fail)
    found = findings("runtimes of .tflite models")["litert"]
    assert (found.status, found.value) == (
        doctor.BROKEN,
        "fails (numpy.core.multiarray failed to import)",
    )
    monkeypatch.setattr(runtimes, "available", lambda: ())
    found = findings("runtimes of .tflite models")
    assert {one.status for one in found.values()} == {doctor.ABSENT}
    assert "pip install ai-edge-litert" in found["litert"].remedy


def test_a_package_that_does_not_load_is_found_in_the_deep(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", {"reproduce": ("scikit-image", "no-such-package")})
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert findings("packages")["scikit-image"].status == doctor.OK
    found = findings("packages", deep=True)
    assert found["scikit-image"].status == doctor.BROKEN
    assert (
        found["no-such-package"].status == doctor.ABSENT
        and "'.[reproduce]'" in found["no-such-package"].remedy
    )


def test_a_full_disk_is_broken(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20})())
    assert findings("machine")["free disk"].status == doctor.BROKEN


def test_a_folder_that_cannot_be_written_is_broken(home, monkeypatch):
    (home / "figures").write_text("a file in the way")
    found = findings("folders")["figures"]
    assert found.status == doctor.BROKEN and "KP2D_HOME" in found.remedy


def test_numpy_and_opencv_are_enough(home):
    """As on a device without any runtime: whatever else is imported, fails."""
    blocked = [*HEAVY, "ai_edge_litert", "flatbuffers", "yaml"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "from kp2d import cli\nfrom kp2d.methods import runtimes\n"
        "runtimes.available = tuple\nsys.exit(cli.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "– litert: not installed" in done.stdout


def test_lost_weights_are_broken_and_loading_them_says_what_to_do(tmp_path, monkeypatch):
    folder = tmp_path / "pretrained"
    shutil.copytree(weights.PRETRAINED, folder)
    (folder / "kp2d_tiny_s.int8.tflite").unlink()
    monkeypatch.setattr(weights, "PRETRAINED", folder)
    assert "kp2d_tiny_s" in weights.shipped("int8")
    broken = [one for one in findings("shipped weights").values() if one.status == doctor.BROKEN]
    assert [finding.name for finding in broken] == ["int8"] and "kp2d_tiny_s.int8.tflite" in broken[0].value
    with pytest.raises(checks.InputError, match="git checkout"):
        learned.load("kp2d_tiny_s", precision="int8")


def test_own_configuration_files_are_named_with_what_in_them_matters(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert {one.status for one in findings("configuration files").values()} == {doctor.ABSENT}
    (tmp_path / "matplotlibrc").write_bytes(b"# caf\xe9")
    assert findings("configuration files")["matplotlibrc"].status == doctor.BROKEN
    (tmp_path / "matplotlibrc").write_text("axes.grid: True")
    (tmp_path / "keras.json").write_text('{"floatx": "float32", "backend": "tensorflow", "epsilon": 1e-07}')
    assert {one.status for one in findings("configuration files").values()} == {doctor.OK}
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "matplotlibrc").touch()  # Matplotlib takes it before all others
    monkeypatch.chdir(tmp_path / "here")
    assert "in the working folder: no effect" in findings("configuration files")["matplotlibrc"].value
    (tmp_path / "keras.json").write_text('{"floatx": "float16", "backend": "theano"}')
    assert findings("configuration files")["keras.json"].status == doctor.OK, "it changes no number"
    (tmp_path / "keras.json").write_text('{"floatx": "bfloat16", "backend": "theano"}')
    broken = findings("configuration files")["keras.json"]
    assert broken.status == doctor.BROKEN and f"{tmp_path / 'keras.json'}: floatx bfloat16" in broken.value
    assert findings("machine")["backend of Keras"].value == "theano, which is none"
    (tmp_path / "keras.json").write_text("{")
    assert findings("configuration files")["keras.json"].status == doctor.BROKEN
