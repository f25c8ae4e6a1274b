"""A keras.json that cannot be used is named, and settings stay the user's."""

import importlib.util
import json
import sys

import keras
import pytest

from kp2d import backend


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"backend": "theano"}, "'theano'"),
        ({"floatx": "bfloat16"}, "floatx bfloat16"),
        ({"epsilon": 1}, "epsilon 1"),
        ([], "no JSON object"),
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


def test_without_keras_nothing_is_asked_of_its_backend(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    find = importlib.util.find_spec
    absent = ("keras", "tensorflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    backend.quiet()  # a small device times its integers


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
