"""The same numbers on every backend, and on one device or two."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kp2d.methods.networks import build_network

pytestmark = pytest.mark.slow  # each process compiles the network anew

HERE = Path(__file__).parent


def probe(script, backend, *arguments):
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent))),
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        # Compiling takes far longer than what is compiled.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
    }
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{script} failed on {backend}:\n{done.stderr[-3000:]}")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Weights, and what TensorFlow makes of them."""
    folder = tmp_path_factory.mktemp("parity")
    # With this seed no unit is within 1e-5 of ReLU's kink, where rounding would change the gradient.
    keras.utils.set_random_seed(12)
    weights = folder / "weights.npz"
    np.savez(weights, **{v.path: v.numpy() for v in build_network("kp2d_tiny_s").weights})
    probe("backend_probe.py", "tensorflow", weights, folder / "tensorflow.npz")
    return weights, dict(np.load(folder / "tensorflow.npz"))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backends_agree(backend, reference, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    weights, expected = reference
    probe("backend_probe.py", backend, weights, tmp_path / "other.npz")
    other = dict(np.load(tmp_path / "other.npz"))
    assert other.keys() == expected.keys()
    trained = len(build_network("kp2d_tiny_s").trainable_weights)
    assert sum(name.startswith("grad/") for name in other) == trained
    for name, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(other[name] / scale, value / scale, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_two_devices_share_a_batch(backend, photos, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    probe("parallel_probe.py", backend, photos, tmp_path)
    losses = []
    for devices in ("1", "2"):
        with (tmp_path / devices / "log.csv").open() as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-3)
