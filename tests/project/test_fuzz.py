"""Readers of files on damaged and hostile files: a value or a clear error, never a crash, a hang, a giant."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
import tarfile
import tracemalloc
import zipfile

import cv2
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kp2d import checks, cli, files, images, picture_files, provenance
from kp2d.data import archives, datasets, samples
from kp2d.device import edgetpu
from kp2d.evaluate import tables
from kp2d.methods import learned, networks, runtimes, tflite_file, tflite_verifier, weights
from kp2d.quantize.flatbuffer import Model
from kp2d.reproduce import chain, pipeline
from kp2d.train import checkpoint

CALM = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
MODEL = weights.shipped_path("kp2d_nano", "int8").read_bytes()
LARGE = 64 << 20  # bytes that no reader may need for a file of some kilobytes


def picture(suffix, size=(24, 32)):
    image = np.random.default_rng(0).integers(
        0, 256, (*size, 1 if suffix in (".pgm", ".pbm") else 3), np.uint8
    )
    return cv2.imencode(".jpg" if suffix == ".jfif" else suffix, image)[1].tobytes()


PICTURES = {suffix: picture(suffix) for suffix in images.SUFFIXES}
HOMOGRAPHY = b"1 0 3\n0 1 -2\n0 0 1\n"
TABLE = b"method,d1,num_pairs\nsift,0.5,10\norb,0.25,\n"
LOG = b"step,loss,seconds\n1,0.5,2\n2,0.25,\n"
RECORD = json.dumps({"parameters": {}, "inputs": {"a": "b"}, "outputs": {}, "seconds": 1.5}).encode()
NOTEBOOK = json.dumps(
    {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": "a1",
                "metadata": {"tags": ["parameters"]},
                "outputs": [],
                "source": ["profile = 'fast'  # which\n", "top_k = [300]"],
            }
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
).encode()


@st.composite
def damaged(draw, valid, within=None):
    """A valid file with bits flipped, numbers replaced, parts lost, doubled or put in; or anything."""
    content = bytearray(draw(st.sampled_from(valid)) if isinstance(valid, (list, tuple)) else valid)
    last = min(len(content), within or len(content)) - 1
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(last, 0)))
        kind = draw(st.sampled_from(["flip", "number", "cut", "insert", "repeat", "anything"]))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            number = draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF]))
            content[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            words = [b"\0", b"\xff\xfe", b"nan", b"1e999", b'"', b"[" * 3000, b"-", b"9" * 5000]
            content[at:at] = draw(st.sampled_from(words))
        elif kind == "repeat":
            content += content[at : at + 64]
        else:
            content = bytearray(draw(st.binary(max_size=200)))
        last = min(len(content), within or len(content)) - 1
    return bytes(content)


def outcome(read, *arguments):
    """What a reader makes of a file; any error but a clear one fails the test."""
    try:
        return read(*arguments)
    except checks.InputError:
        return None


@CALM
@given(content=damaged([PICTURES[suffix] for suffix in sorted(PICTURES)], within=200))
def test_pictures(tmp_path, content):
    path = tmp_path / "p.png"
    path.write_bytes(content)
    image = outcome(images.read_image, path)
    if image is not None:
        assert checks.is_image(image).size <= 3 * images.MAX_PIXELS


GIANT = "at most 200,000,000 pixels"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 32768, 32768) + b"\x08\x02\0\0\0", GIANT),
        (b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 32768, -32768), GIANT),
        (
            b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08" + struct.pack(">HH", 65000, 65000) + b"\0" * 20,
            GIANT,
        ),
        (b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 256, 4, 1, 60000, 257, 4, 1, 60000), GIANT),
        # OpenCV refuses these by itself: they hold no more than they say, or cannot say as much.
        (b"P6\n# large\n99999 99999\n255\n" + b"\0" * 99, "readable picture"),
        (b"RIFF\0\0\0\0WEBPVP8X" + b"\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0\xff\x3f\0", "damaged"),
        (b"RIFF\0\0\0\0WEBPVP8L" + b"\0\0\0\0\x2f" + struct.pack("<I", 0x0FFFFFFF), "damaged"),
    ],
    ids=["png", "bmp", "jpeg", "tiff", "ppm", "webp", "webp lossless"],
)
def test_a_picture_that_declares_a_giant_is_refused_before_it_is_unpacked(tmp_path, content, said):
    (tmp_path / "giant").write_bytes(content)
    with pytest.raises(checks.InputError, match=said):
        images.read_image(tmp_path / "giant")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_the_declared_size_is_the_real_one(suffix):
    assert picture_files.declared_size(PICTURES[suffix]) == (24, 32)


@pytest.mark.parametrize("suffix", sorted(PICTURES))
def test_a_giant_is_refused_in_every_format(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 32 - 1)
    (tmp_path / "giant").write_bytes(PICTURES[suffix])
    with pytest.raises(checks.InputError, match="24x32 px"):
        images.read_image(tmp_path / "giant")


@CALM
@given(content=damaged([HOMOGRAPHY, b"1,0,3,0,1,-2,0,0,1"]))
def test_homographies(tmp_path, content):
    path = tmp_path / "H_1_2"
    path.write_bytes(content)
    matrix = outcome(datasets.read_homography, path)
    assert matrix is None or (np.isfinite(matrix).all() and matrix.shape == (3, 3))


@CALM
@given(content=damaged(TABLE))
def test_tables(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    rows = outcome(tables.read_csv, path, ("method",))
    assert rows is None or "method" in rows


@CALM
@given(content=damaged(LOG))
def test_logs_of_training_runs(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    for row in outcome(checkpoint.read_rows, path) or []:
        assert isinstance(row["step"], int)


@CALM
@given(content=damaged(RECORD))
def test_records(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    record = files.read_json(path)
    assert record is None or isinstance(record, dict)
    state = {"parameters": {}, "inputs": {}, "notebook": "", "kp2d": "", "weights": ""}
    assert pipeline._why_run(chain.STAGES[0], "smoke", state, record)


@CALM
@given(content=damaged(NOTEBOOK))
@pytest.mark.filterwarnings("ignore")  # of nbformat, which names what it repairs
def test_notebooks(tmp_path, content):
    path = tmp_path / "01_n.ipynb"
    path.write_bytes(content)
    if outcome(chain.parameters, path) is not None:
        assert len(chain.cells_hash(path)) >= 8
        assert len(provenance.code_hash(source=chain.code(path))) == 12


@CALM
@given(content=damaged(MODEL, within=3000) | damaged(MODEL))
def test_models(tmp_path, content):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    outcome(tflite_file.open_model, path)
    model = outcome(Model.parse, content)
    if isinstance(model, Model):
        outcome(model.summary)
        outcome(edgetpu.lint, model)
    outcome(tflite_verifier.verify, content)


def fields(data, table, number):
    """Where a field of a table lies."""
    return table.at + table._offset(number)


def changed(change):
    """The model after a change of its first subgraph: (bytes, model, subgraph)."""
    data = bytearray(MODEL)
    model = tflite_file.root(MODEL)
    change(data, model, next(model.tables(2)))
    return bytes(data)


def _put(number, table, value, kind="<I"):
    def change(data, model, graph):
        found = {"tensor": lambda: list(graph.tables(0))[5], "operator": lambda: list(graph.tables(3))[3]}[
            table
        ]()
        struct.pack_into(kind, data, fields(data, found, number), value)

    return change


def _shape(value):
    def change(data, model, graph):
        tensor = list(graph.tables(0))[5]
        at = tensor.target(0)
        struct.pack_into("<i", data, at + 4, value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_put(2, "tensor", 9999), "buffer 9999 of"),
        (_shape(-5), r"a tensor of the shape \[-5"),
        (_shape(2**31 - 1), r"a tensor of \d+ bytes"),
        (_shape(7), "a constant of"),
        (lambda d, m, g: struct.pack_into("<i", d, g.target(1) + 4, 4000), "tensor 4000 of"),
        (lambda d, m, g: struct.pack_into("<i", d, next(g.tables(3)).target(1) + 8, -1), "tensor -1 of"),
        (lambda d, m, g: struct.pack_into("<I", d, g.target(0), 2**30), "a vector at"),
        (lambda d, m, g: struct.pack_into("<I", d, 0, 2**31), "the offset at 0"),
        (lambda d, m, g: struct.pack_into("<i", d, next(g.tables(3)).target(1) + 4, -7), "tensor -7 of"),
    ],
    ids=["buffer", "negative", "giant", "constant", "input", "omitted", "vector", "root", "operator"],
)
def test_a_model_that_would_lead_a_runtime_astray_is_refused_before_it(tmp_path, monkeypatch, change, said):
    path = tmp_path / "m.tflite"
    path.write_bytes(changed(change))
    monkeypatch.setattr(runtimes.TFLiteModel, "_open", lambda *_: pytest.fail("handed to the runtime"))
    with pytest.raises(checks.InputError, match=said):
        tflite_verifier.verify(path.read_bytes(), path)
    with pytest.raises(checks.InputError, match=r"\.tflite model"):
        runtimes.TFLiteModel(path)


@pytest.mark.parametrize("name", [b"score", b"offset", b"descriptor"])
def test_a_model_without_one_of_its_heads_is_refused(tmp_path, name):
    path, size = tmp_path / "m.tflite", struct.pack("<I", len(name))
    path.write_bytes(MODEL.replace(size + name + b"\0", size + name[:-1] + b"_\0"))
    with pytest.raises(checks.InputError, match=r"one image and the heads score, offset, descriptor"):
        runtimes.TFLiteModel(path)


def test_a_model_that_fails_while_it_computes_says_so(tmp_path, monkeypatch):
    (tmp_path / "m.tflite").write_bytes(MODEL)
    model = runtimes.TFLiteModel(tmp_path / "m.tflite")

    class Failing:
        def __getattr__(self, name):
            if name == "invoke":
                raise RuntimeError("Node 3 failed to invoke\nmore")
            return lambda *_: None

    monkeypatch.setattr(model, "_interpreter", Failing())
    with pytest.raises(checks.InputError, match=r"a failure \(Node 3 failed to invoke\)"):
        model.heads(np.zeros((1, 240, 320, 3), np.uint8))


@pytest.mark.parametrize(
    ("runtime", "said"),
    [("tflite-runtime", "'numpy<2' tflite-runtime"), ("pycoral", "another program"), ("tensorflow", "train")],
)
def test_the_remedy_is_that_of_the_runtime_asked_for(monkeypatch, runtime, said):
    monkeypatch.setattr(runtimes, "available", lambda: ("litert",))
    with pytest.raises(checks.InputError, match=f"runtime {runtime}; received installed: litert.*{said}"):
        runtimes.choose(runtime, use_tpu=True)


def test_the_models_of_this_package_are_whole():
    for path in weights.PRETRAINED.glob("*.tflite"):
        tflite_verifier.verify(path.read_bytes(), path)


def test_damaged_files_need_no_more_memory_than_whole_ones(tmp_path):
    path, rng = tmp_path / "m.tflite", np.random.default_rng(0)
    tracemalloc.start()
    try:
        for _ in range(100):
            data = np.frombuffer(MODEL, np.uint8).copy()
            data[rng.integers(8, 3000, 8)] = 255
            outcome(Model.parse, data.tobytes())
        for content in (HOMOGRAPHY * 10_000, b"[" * 500_000):
            path.write_bytes(content)
            outcome(datasets.read_homography, path)
            files.read_json(path)
        assert tracemalloc.get_traced_memory()[1] < LARGE
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def tiny():
    from small_network import SMALL

    return networks.build_network(SMALL)


@settings(CALM, max_examples=15)
@given(data=st.data())
def test_weights(tmp_path, tiny, data):
    path = tmp_path / "n.weights.h5"
    if not (tmp_path / "whole.weights.h5").exists():
        tiny.save_weights(tmp_path / "whole.weights.h5")
    path.write_bytes(data.draw(damaged((tmp_path / "whole.weights.h5").read_bytes(), within=4000)))
    outcome(weights.load_weights, tiny, path)


def test_another_format_than_weights_is_never_opened(tmp_path, tiny, monkeypatch):
    """A whole `.keras` model may hold code, in its Lambda layers."""
    monkeypatch.setattr(tiny, "load_weights", lambda *_: pytest.fail("opened"), raising=False)
    (tmp_path / "model.keras").write_bytes(b"PK")
    with pytest.raises(checks.InputError, match=r"ends in \.weights\.h5"):
        weights.load_weights(tiny, tmp_path / "model.keras")


class Learner:
    """What a checkpoint needs of a learner."""

    def __init__(self):
        self.variables = [keras.Variable(np.arange(6.0, dtype=np.float32).reshape(2, 3))]
        self.optimizer, self.corner_weight = self, None
        self.values = [np.ones(3, np.float32)]


@pytest.fixture
def saved(tmp_path):
    return checkpoint.save_checkpoint(tmp_path, 7, Learner(), Learner(), keep=2)


def test_a_checkpoint_comes_back(saved):
    learner = Learner()
    learner.variables[0].assign(np.zeros((2, 3)))
    assert checkpoint.load_checkpoint(saved, learner, learner) == 7
    assert np.array_equal(learner.variables[0], np.arange(6.0).reshape(2, 3))


@CALM
@given(data=st.data())
def test_checkpoints(tmp_path, saved, data):
    path, learner = tmp_path / "damaged.npz", Learner()
    path.write_bytes(data.draw(damaged(saved.read_bytes())))
    outcome(checkpoint.load_checkpoint, path, learner, learner)


def test_a_cut_off_or_hostile_checkpoint_is_named_and_changes_nothing(tmp_path, saved):
    whole = saved.read_bytes()
    hostile = io.BytesIO()
    np.savez(hostile, step=np.array([print], dtype=object))  # a pickle
    for content in (b"", whole[:100], whole[:-30], b"\x80\x04N.", hostile.getvalue()):
        saved.write_bytes(content)
        with pytest.raises(
            checks.InputError, match=r"damaged or cut off.*resumes from the checkpoint before"
        ):
            checkpoint.load_checkpoint(saved, Learner(), Learner())


def archive(kind):
    """A small archive: "zip", zip in other compressions, or tar in some."""
    made, files_in = io.BytesIO(), {"a/1.png": b"pixels" * 40, "a/H_1_2": HOMOGRAPHY}
    if isinstance(kind, int):
        with zipfile.ZipFile(made, "w", kind) as file:
            for name, content in files_in.items():
                file.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
        return made.getvalue()
    with tarfile.open(fileobj=made, mode=f"w:{kind}") as file:
        for name, content in files_in.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return made.getvalue()


ARCHIVES = [
    *(
        archive(kind)
        for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    ),
    *(archive(kind) for kind in ("", "bz2", "xz")),  # gzip writes the time: its bytes differ from run to run
]


@pytest.mark.parametrize("content", ARCHIVES)
def test_a_whole_archive_is_unpacked(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "target").mkdir()
    assert archives.unpack(tmp_path / "a", tmp_path / "target", progress=False) == 2


@CALM
@given(content=damaged(ARCHIVES))
def test_archives(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    target = tmp_path / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with contextlib.suppress(checks.InputError):
        archives.unpack(tmp_path / "a.zip", target, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "target"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind, capsys):
    path = tmp_path / "x.tflite"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    for read in (
        *(images.read_image, datasets.read_homography, tables.read_csv, tflite_file.open_model),
        *(chain.parameters, learned.load),
    ):
        with pytest.raises(checks.InputError, match=r"x\.tflite"):
            read(path)
    assert files.read_json(path) is None and checkpoint.read_rows(path) == []
    assert cli.main(["lint", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "card", ["[]", '{"settings": 3}', '{"settings": {}, "files": 3}', '{"files": [3, null]}']
)
def test_a_damaged_card_of_the_sample_only_means_making_it_again(tmp_path, card):
    (tmp_path / samples.CARD).write_text(card)
    (tmp_path / samples.PLAN).write_text(card)
    made = samples.prepare_samples(
        tmp_path, scenes=["brick"], num_images=2, image_size=(48, 64), progress=False
    )
    assert all((folder / "H_1_2").is_file() for folder in made)


@pytest.mark.parametrize("card", ["", '{"preset": []}', '{"preset": {"a": 1}}', '{"preset": 3}', "[" * 9999])
def test_a_damaged_card_of_weights_is_said(tmp_path, card):
    (tmp_path / "mine.json").write_text(card)
    (tmp_path / "mine.weights.h5").touch()
    with pytest.raises(checks.InputError, match=r"weights of a known network; received .*mine\.weights\.h5"):
        weights.resolve(tmp_path / "mine.weights.h5")
