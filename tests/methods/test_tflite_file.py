"""Model files: what they say of themselves, and what happens to cut off, damaged and foreign ones."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from small_network import SMALL, small_model

from kp2d.checks import InputError
from kp2d.methods import learned, tflite_file
from kp2d.quantize.flatbuffer import Model


@pytest.fixture(scope="module")
def small():
    return small_model(SMALL)


def test_a_c_array_holds_the_bytes(small, tmp_path):
    text = tflite_file.to_c_array(small.data, "88-small")
    body = text[text.index("{") : text.index("}")]
    assert bytes(int(byte, 16) for byte in re.findall(r"0x(..),", body)) == small.data
    assert "g_88_small_len = " in text
    if shutil.which("g++"):
        (tmp_path / "model.h").write_text(text)
        (tmp_path / "main.cc").write_text(
            '#include "model.h"\n'
            f"int main() {{ return g_88_small[4] != 84 || g_88_small_len != {len(small.data)}; }}\n"
        )
        subprocess.run(["g++", "main.cc", "-o", "main"], cwd=tmp_path, check=True)
        assert subprocess.run([tmp_path / "main"], check=False).returncode == 0


def test_a_cut_off_model_is_refused(small, tmp_path):
    path = tmp_path / "cut.tflite"
    for part in (0, 3, 8, 40, 200, 1000, len(small.data) // 2, len(small.data) - 8):
        path.write_bytes(small.data[:part])
        with pytest.raises(InputError, match=r"\.tflite model"):
            learned.load(path)


def test_a_damaged_model_never_ends_in_a_traceback(small, tmp_path):
    path, rng = tmp_path / "damaged.tflite", np.random.default_rng(0)
    for _ in range(200):
        data = np.frombuffer(small.data, np.uint8).copy()
        data[rng.integers(8, 400, 4)] = rng.integers(0, 256, 4)
        try:
            tflite_file.metadata(data.tobytes(), path)
        except InputError:
            continue


def test_foreign_files_are_refused(tmp_path):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def double(x):
        return 2 * x

    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()], double)
    path = tmp_path / "foreign.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(InputError, match=r"made by kp2d; received .*foreign\.tflite, which does not say"):
        learned.load(path)
    path.write_text("not a model at all")
    with pytest.raises(InputError, match="which is none"):
        learned.load(path)
    path.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=r"which is the placeholder of a file in Git LFS\. Fetch the file"):
        learned.load(path)
    with pytest.raises(InputError, match=r"a \.weights\.h5 or \.tflite file.*none at .*no\.tflite"):
        learned.load(tmp_path / "no.tflite")


@pytest.mark.parametrize(
    "change",
    [
        {"cell": 0},
        {"cell": "4"},
        {"image_size": "abc"},
        {"pixel_scale": 0},
        {"pixel_offset": None},
        {"score_sharpness": float("nan")},
    ],
)
def test_metadata_that_cannot_be_is_refused(small, tmp_path, change):
    model = Model.parse(small.data)
    model.set_metadata({**tflite_file.metadata(small.data), **change})
    (tmp_path / "x.tflite").write_bytes(model.pack())
    with pytest.raises(InputError, match="does not say how to feed and decode"):
        model.metadata()
    with pytest.raises(InputError, match="does not say how to feed and decode"):
        learned.load(tmp_path / "x.tflite")
