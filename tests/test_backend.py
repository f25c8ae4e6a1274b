"""Numbers depend on our settings alone, and the user's stay as they were."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from kp2d import backend

FEATURES = """
import hashlib
import keras
import numpy as np
import kp2d
image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
features = kp2d.load("kp2d_nano").extract(image)
parts = (features.keypoints, features.scores, features.descriptors)
digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
print(digest, keras.config.floatx(), keras.config.image_data_format())
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_a_valid_keras_json_changes_no_number_and_stays_the_users(seed, tmp_path, capsys):
    """Random valid files; the features are those of this process to the byte."""
    rng = np.random.default_rng(seed)
    settings = {
        "floatx": str(rng.choice(["float16", "float64"])),
        "image_data_format": "channels_first",
        "epsilon": float(10.0 ** -rng.integers(1, 9)),
        "backend": "tensorflow",
    }
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", FEATURES], env=environment, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    features, *theirs = run.stdout.split()
    assert theirs == [settings["floatx"], "channels_first"]
    exec(FEATURES, {})
    assert features == capsys.readouterr().out.split()[0], settings


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"backend": "theano"}, "'theano'"),
        ({"floatx": "bfloat16"}, "floatx bfloat16"),
        ({"epsilon": 1}, "epsilon 1"),
        ({"image_data_format": "NHWC"}, "image_data_format NHWC"),
    ],
)
def test_what_keras_fails_on_is_a_sentence_that_names_the_file(content, told, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text(json.dumps(content))
    with pytest.raises(backend.checks.InputError) as error:
        backend.quiet()
    assert told in str(error.value) and str(tmp_path / "keras.json") in str(error.value)


def test_settings_are_the_users_again_after_the_last_block(monkeypatch):
    monkeypatch.setattr(backend, "_inside", 0)
    before = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        with backend.own_settings():
            with backend.own_settings():
                assert keras.config.floatx() == "float32"
            assert keras.config.floatx() == "float32", "an inner block gives nothing back"
        assert keras.config.floatx() == "float16"
    finally:
        keras.config.set_floatx(before)
