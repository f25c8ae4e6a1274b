"""What a result depends on: the code that makes it, all of it and nothing else."""

import platform
import shutil
import sys
from types import SimpleNamespace

import pytest

from kp2d import paths, provenance
from kp2d.reproduce import chain, notebook_file


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
    return provenance.code_hash(source=notebook_file.code(stage.notebook))


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
