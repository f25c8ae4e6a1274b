"""The light installation: NumPy, OpenCV and one TFLite runtime, in environments that `make test` builds."""

import subprocess

import numpy as np
import pytest
from heavy_packages import HEAVY

import kp2d
from kp2d import images
from kp2d.data import scenes
from kp2d.methods import weights

RUNTIMES = ("litert", "tflite-runtime")


def photo(name="astronaut", size=(240, 320)):
    return images.resize_image(scenes.photograph(name), size)


@pytest.fixture
def light(request, project, tmp_path):
    """A function that runs Python with arguments in one of the environments, from an empty folder."""
    python = project / f".venv-{request.param}" / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"`make test` installs {request.param}; tflite-runtime only up to Python 3.11")
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*arguments):
        command = [str(python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)

    run.runtime = request.param
    return run


def probe(light, model, kernels, image, folder, project):
    np.save(folder / "pixels.npy", image)
    done = light(
        project / "tests" / "project" / "light_probe.py",
        model,
        kernels,
        folder / "pixels.npy",
        folder / "heads.npz",
    )
    assert done.returncode == 0, done.stderr
    runtime, version, *modules = done.stdout.split()
    assert runtime == light.runtime
    assert not set(modules) & {*HEAVY, "cv2"}, "a network in integers needs none of these"
    assert light.runtime != "tflite-runtime" or version.startswith("1.")
    with np.load(folder / "heads.npz") as found:
        return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("light", RUNTIMES, indirect=True)
@pytest.mark.parametrize(
    "model", [f"{name}:{kind}" for kind in ("int8", "int8_ptq") for name in weights.shipped(kind)]
)
def test_integers_are_the_same_on_a_small_device(light, model, tmp_path, project):
    image = photo()
    theirs = probe(light, model, "builtin", image, tmp_path, project)
    ours = kp2d.load(model, kernels="builtin", runtime="litert")
    for head, values in ours.heads(image).items():
        np.testing.assert_array_equal(theirs[head], values)
    features = ours.extract(image)
    np.testing.assert_allclose(theirs["keypoints"], features.keypoints, atol=1e-4)
    np.testing.assert_allclose(theirs["descriptors"], features.descriptors, atol=1e-5)


@pytest.mark.parametrize("light", RUNTIMES, indirect=True)
def test_the_fast_kernels_run_there_too(light, tmp_path, project):
    found = probe(light, "kp2d_tiny_s:int8", "default", photo(), tmp_path, project)
    assert found["keypoints"].shape == (58 * 78, 2)


@pytest.mark.parametrize("light", RUNTIMES, indirect=True)
def test_the_doctor_finds_nothing_broken_there(light):
    done = light("-m", "kp2d", "doctor", "--deep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"✓ {light.runtime}: runs kp2d_nano int8" in done.stdout
    assert "– tensorflow: not installed" in done.stdout


@pytest.mark.parametrize("light", RUNTIMES, indirect=True)
def test_what_is_missing_there_is_said_in_a_line(light):
    """float32 needs Keras, `match` draws with Matplotlib."""
    done = light("-m", "kp2d", "evaluate", "--method", "kp2d_tiny_s", "--data", "absent")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("kp2d evaluate: error: expected the package")
    assert light("-m", "kp2d", "--version").stdout.startswith("kp2d ")
