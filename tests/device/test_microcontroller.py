"""The example for microcontrollers: its C decodes as Python does, its operators are those of our networks."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest
from small_network import SMALL_COARSE, small_model

import kp2d
from kp2d import images
from kp2d.data import scenes
from kp2d.quantize.flatbuffer import Model

SIZE = (88, 88)
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")  # no fused sums, as NumPy


@pytest.fixture(scope="module")
def example(project):
    return project / "docs" / "microcontroller"


@pytest.fixture(scope="module", params=["kp2d_nano", "kp2d_tiny_s", "coarse descriptors"])
def network(request, tmp_path_factory):
    """A network for microcontrollers, as `kp2d quantize` writes it: `s.tflite` and `s.h`."""
    from kp2d import cli

    folder = tmp_path_factory.mktemp("micro")
    source = request.param
    if source == "coarse descriptors":
        source = folder / "coarse.tflite"
        source.write_bytes(small_model(SMALL_COARSE).data)
    outputs = (str(folder / "s.tflite"), str(folder / "s.h"))
    assert cli.main(["quantize", str(source), "--image-size", "88x88", "-o", *outputs]) == 0
    return folder


@pytest.fixture(scope="module")
def program(network, example, project):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    path, source = network / "decode", project / "tests" / "device" / "decode_host.c"
    # C11 for the alignment of the model in s.h
    flags = ("-std=c11", *FLAGS[1:])
    subprocess.run([compiler, *flags, f"-I{example}", f"-I{network}", source, "-o", path, "-lm"], check=True)
    return path


@pytest.mark.parametrize(("top_k", "threshold"), [(150, 0.0), (10**4, 0.5)])
def test_c_finds_the_keypoints_that_python_finds(network, program, top_k, threshold):
    image = images.resize_image(scenes.photograph("astronaut"), SIZE)
    extractor = kp2d.load(str(network / "s.tflite"), kernels="builtin")
    model = extractor.predict.__self__
    raw = model.raw_heads(image[None])
    order = ("score", "offset", "descriptor")
    (network / "heads").write_bytes(b"".join(raw[head].tobytes() for head in order))
    _, rows, columns, _ = raw["score"].shape
    quantization = [
        repr(value) for head in order[1:] for value in model._outputs[head]["quantization"]
    ]  # scale, zero point
    _, *map_size, dim = raw["descriptor"].shape
    words = [rows, columns, dim, top_k, threshold, *quantization, network / "heads", *map_size]
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=True)
    found = np.array([line.split() for line in done.stdout.splitlines()], dtype=np.float32)
    features = dataclasses.replace(extractor, top_k=top_k).extract(image)
    features = features.take(features.scores > threshold)
    assert 20 < len(found) == len(features)
    np.testing.assert_array_equal(found[:, :2], features.keypoints)
    np.testing.assert_array_equal(found[:, 2], features.scores)
    np.testing.assert_allclose(found[:, 3:], features.descriptors, atol=1e-5)


def test_the_decoding_is_c99_and_short(example, tmp_path):
    assert len((example / "kp2d_decode.h").read_text().splitlines()) <= 90
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "one.c"
    source.write_text(
        '#include "kp2d_decode.h"\nint main(void) { return kp2d_keypoints == 0 || kp2d_descriptor == 0; }\n'
    )
    flags = [*FLAGS, "-Wno-address"]
    subprocess.run([compiler, *flags, f"-I{example}", "-c", source, "-o", tmp_path / "o"], check=True)


def test_the_program_registers_the_operators_of_the_network(network, example):
    text = (example / "main.cc").read_text()
    registered = set(re.findall(r"resolver\.Add(\w+)\(\)", text))
    used = {operator.name for operator in Model.parse((network / "s.tflite").read_bytes()).graph().operators}
    spelled = {"".join(part.capitalize() for part in name.split("_")) for name in used}
    spelled = {name.replace("2d", "2D") for name in spelled}
    assert registered >= spelled and f"MutableOpResolver<{len(registered)}>" in text


# What main.cc takes of TensorFlow Lite Micro, whose sources are not here.
MICRO = """
#pragma once
#include <cstddef>
#include <cstdint>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteIntArray { int size; int data[4]; };
struct TfLiteQuantizationParams { float scale; int32_t zero_point; };
union TfLitePtrUnion { int8_t *int8; uint8_t *uint8; };
struct TfLiteTensor { TfLitePtrUnion data; TfLiteIntArray *dims; TfLiteQuantizationParams params; };
namespace tflite {
struct Model;
const Model *GetModel(const void *);
template <unsigned int n> struct MicroMutableOpResolver {
  TfLiteStatus AddConv2D(), AddMaxPool2D(), AddDepthToSpace(), AddConcatenation(), AddLogistic(), AddTanh();
};
struct MicroInterpreter {
  template <class R> MicroInterpreter(const Model *, const R &, uint8_t *, size_t);
  TfLiteStatus AllocateTensors(), Invoke();
  TfLiteTensor *input(size_t), *output(size_t);
};
}
"""


def test_the_program_is_cpp(network, example, tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    text = (example / "main.cc").read_text()
    for name in re.findall(r'#include "(tensorflow/.*)"', text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(MICRO)
    includes = [f"-I{folder}" for folder in (tmp_path, example, network)]
    command = [compiler, "-std=c++17", "-Wall", "-Werror", *includes, "-c", example / "main.cc"]
    subprocess.run([*command, "-o", tmp_path / "main.o"], check=True)


def test_the_page_shows_the_commands_of_the_example(example):
    page = (example.parent / "devices.md").read_text(encoding="utf-8")
    assert "kp2d quantize kp2d_tiny_s --image-size 88x88 -o s.h" in page
    for name in ("kp2d_decode.h", "main.cc"):
        assert f"](microcontroller/{name})" in page and (example / name).is_file()
