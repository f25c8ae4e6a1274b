"""What a result depends on: the code that makes it, all of it and nothing else."""

import dataclasses
import functools
import platform
import shutil
import sys
from types import SimpleNamespace

import pytest

from kp2d import paths, provenance
from kp2d.reproduce import chain, pipeline


@pytest.fixture
def package(tmp_path, monkeypatch, project):
    """A copy of the library whose lines a test may change."""
    copy = tmp_path / "kp2d"
    shutil.copytree(paths.PACKAGE, copy, ignore=shutil.ignore_patterns("pretrained", "__pycache__"))
    monkeypatch.setenv("KP2D_HOME", str(project))  # for the notebooks
    monkeypatch.setattr(paths, "PACKAGE", copy)
    return copy


def notebook_hash(number):
    (stage,) = chain.select([number])
    return provenance.code_hash(source=chain.code(stage.notebook))


def change(path):
    path.write_text(path.read_text(encoding="utf-8") + "\n# another line\n", encoding="utf-8")


@pytest.mark.parametrize(
    "module",
    ["kp2d.evaluate.feature_store", "kp2d.evaluate.sensitivity", "kp2d.train.trials", "kp2d.reproduce.sweep"],
)
def test_what_decides_a_result_changes_its_hash_and_the_rest_does_not(package, module):
    before = provenance.code_hash(module), notebook_hash("05")
    change(package / "live" / "canvas.py")
    assert (provenance.code_hash(module), notebook_hash("05")) == before
    change(package / "methods" / "decode.py")
    assert provenance.code_hash(module) != before[0] and notebook_hash("05") != before[1]


def test_stages_run_again_for_code_that_they_use_and_for_no_other(package):
    stages = [dataclasses.replace(stage, inputs=(), outputs=()) for stage in chain.STAGES]

    def run_again(records):
        states = {stage.name: pipeline._state(stage, "smoke", {}) for stage in stages}
        reasons = {
            stage.number: pipeline._why_run(stage, "smoke", states[stage.name], records[stage.name])
            for stage in stages
        }
        return {number for number, reason in reasons.items() if reason == "the library changed"}

    records = {stage.name: pipeline._state(stage, "smoke", {}) | {"outputs": {}} for stage in stages}
    assert run_again(records) == set()
    change(package / "live" / "canvas.py")
    assert run_again(records) == set()
    change(package / "viz" / "network_charts.py")
    assert run_again(records) == {"02", "03"}
    change(package / "methods" / "decode.py")
    assert run_again(records) == {stage.number for stage in stages}


def test_imports_inside_functions_count_and_circles_end(package):
    (package / "first.py").write_text("def f():\n    from kp2d import second\n")
    (package / "second.py").write_text("import kp2d.first\nimport numpy, kp2d.missing\n")
    assert provenance.closure(["kp2d.first"]) == {"kp2d", "kp2d.first", "kp2d.second"}


def test_the_whole_library_is_meant_where_nothing_is_named(package):
    before = provenance.code_hash()
    change(package / "live" / "canvas.py")
    assert provenance.code_hash() != before


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Keras on PyTorch, as it is where there is a GPU."""
    backend = SimpleNamespace(backend=lambda: "torch")
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "NVIDIA L4")
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(backend=backend))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    return cuda


def test_the_device_is_that_which_computes(on_a_gpu):
    processor = f"cpu-{platform.machine().lower()}"
    assert provenance.device() == provenance.device("keras") == "gpu-nvidia-l4"
    assert provenance.device("litert") == provenance.device("opencv") == processor
    assert provenance.device("pycoral+edgetpu") == "edgetpu"
    on_a_gpu.is_available = lambda: False
    assert provenance.device() == processor


def test_a_commit_that_git_could_not_tell_is_asked_for_again(monkeypatch, project):
    monkeypatch.setattr(provenance, "_commit_of", functools.cache(provenance._commit_of.__wrapped__))
    with monkeypatch.context() as without_git:
        without_git.setenv("PATH", "")
        assert provenance.git_commit() == "unknown"
    assert (provenance.git_commit() != "unknown") == (project / ".git").exists()
