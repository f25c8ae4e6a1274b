"""Keypoint methods: one form of result for every one of them, on any image, without surprises."""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import kp2d
from kp2d import files
from kp2d.checks import InputError
from kp2d.evaluate import tables
from kp2d.methods import extractors, weights
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Method

METHODS = {"sift": (np.float32, 128), "rootsift": (np.float32, 128), "orb": (np.uint8, 32)}


def same(first, second):
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("keypoints", "scores", "descriptors")
    )


def test_every_method_is_tested_here():
    assert set(extractors.methods()) == {*METHODS, *weights.shipped()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(120, 200), (200, 120)])
def test_features_have_the_promised_form(method, size, textured):
    extractor = extractors.create(method)
    features = extractor.extract(textured(size))
    kind, width = METHODS[method]
    count = len(features)
    assert count > 100
    assert features.keypoints.shape == (count, 2) and features.keypoints.dtype == np.float32
    assert features.scores.shape == (count,) and features.scores.dtype == np.float32
    assert features.descriptors.shape == (count, width) and features.descriptors.dtype == kind
    assert (np.diff(features.scores) <= 0).all()
    assert (features.keypoints >= -0.5).all() and (features.keypoints <= np.array(size[::-1]) - 0.5).all()
    # x runs along the width: a swap would leave the longer side half empty
    assert (features.keypoints.max(axis=0) > 0.7 * np.array(size[::-1])).all()
    assert (extractor.name, extractor.precision, extractor.runtime) == (method, "float32", "opencv")
    assert extractor.width == width and extractor.binary == (kind == np.uint8)


@pytest.mark.parametrize(("method", "tolerance"), [("sift", 0.02), ("rootsift", 1e-5)])
def test_float_descriptors_have_unit_length(method, tolerance, textured):
    descriptors = extractors.create(method).extract(textured()).descriptors
    assert np.linalg.norm(descriptors, axis=1) == pytest.approx(np.ones(len(descriptors)), abs=tolerance)
    assert (descriptors >= 0).all()


def test_rootsift_is_the_square_root_of_sift_at_the_same_places(textured):
    sift, root = (extractors.create(method).extract(textured()) for method in ("sift", "rootsift"))
    assert np.array_equal(sift.keypoints, root.keypoints)
    shares = sift.descriptors / sift.descriptors.sum(axis=1, keepdims=True)
    assert root.descriptors**2 == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize("method", ["sift", "rootsift"])
@pytest.mark.parametrize("centre", [(90, 50), (60.3, 44.7)])
def test_a_blob_is_found_where_it_is(method, centre):
    y, x = np.mgrid[:101, :141]
    blob = 30 + 190 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 3**2))
    image = np.repeat(blob.round().astype(np.uint8)[..., None], 3, axis=2)
    best = extractors.create(method).extract(image).keypoints[0]
    # OpenCV's SIFT is off by a quarter of a pixel in x and y unless told `enable_precise_upscale`.
    assert np.abs(best - centre).max() < 0.3


def test_orb_finds_the_corners_of_a_square():
    y, x = np.mgrid[:101, :141]
    square = np.where((abs(x - 90) < 12.5) & (abs(y - 50) < 12.5), 220, 30).astype(np.uint8)
    keypoints = extractors.create("orb").extract(np.repeat(square[..., None], 3, axis=2)).keypoints
    for corner in [(78, 38), (78, 62), (102, 38), (102, 62)]:
        assert np.hypot(*(keypoints - corner).T).min() < 2  # found in a smaller level of the pyramid


@pytest.mark.parametrize("method", METHODS)
def test_the_result_repeats_also_from_several_threads(method, textured):
    extractor, images = extractors.create(method), [textured(seed=seed) for seed in range(4)]
    assert extractor.concurrent
    once = [extractor.extract(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(extractor.extract, images * 3))
    assert all(same(first, second) for first, second in zip(once * 3, again, strict=True))
    assert not same(once[0], once[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_image_is_left_as_it_was(method, textured):
    image = textured()
    image.setflags(write=False)
    crop = image[10:80, 20:100]  # not contiguous
    assert same(extractors.create(method).extract(crop), extractors.create(method).extract(crop.copy()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(8, 8), (8, 300), (60, 80)])
def test_a_constant_image_has_no_keypoints_but_the_right_widths(method, size):
    features = extractors.create(method).extract(np.full((*size, 3), 77, np.uint8))
    kind, width = METHODS[method]
    assert len(features) == 0 and features.keypoints.shape == (0, 2) and features.scores.shape == (0,)
    assert features.descriptors.shape == (0, width) and features.descriptors.dtype == kind


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(8, 8), (8, 40), (33, 9)])
def test_small_images_work(method, size, textured):
    extractors.create(method).extract(textured(size))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 1), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint16),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((300, 1, 3), np.uint8),
        "image.png",
        None,
    ],
    ids=lambda image: f"{image.dtype}{list(image.shape)}" if hasattr(image, "dtype") else str(image),
)
def test_other_images_are_refused(method, image):
    with pytest.raises(InputError, match="image"):
        extractors.create(method).extract(image)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (["sfit"], {}, "a method out of .*'sfit'.*Did you mean 'sift'"),
        (["akaze"], {}, "a method out of sift, rootsift, orb, .*; received 'akaze'"),
        (["sift"], {"precision": "float23"}, "precision of sift .*Did you mean 'float32'"),
        (["orb"], {"precision": "int8"}, "precision of orb out of float32; received 'int8'"),
        (["sift"], {"runtime": "opencvv"}, "runtime of sift .*Did you mean 'opencv'"),
        (["kp2d_tiny_s:int8"], {"thread": 5}, "option of kp2d_tiny_s .*Did you mean 'threads'"),
        (["kp2d_tiny_s"], {"threads": 5}, "no number of threads for kp2d_tiny_s in float32"),
        (["orb"], {"nfeature": 5}, "option of orb .*Did you mean 'nfeatures'"),
        (["sift"], {"fastThreshold": 5}, "option of sift .*'fastThreshold'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(arguments, options, said):
    with pytest.raises(InputError, match=said):
        extractors.create(*arguments, **options)


def test_a_name_may_carry_its_precision():
    assert extractors.create("orb").name == "orb"
    assert extractors.create("sift:float32").precision == "float32"
    for wrong in ("sift:", "sift:int8", ":float32", "", "sift:float32:x"):
        with pytest.raises(InputError):
            extractors.create(wrong)
    with pytest.raises(InputError, match=r"precision of kp2d_tiny_s .*'int9'.*Did you mean 'int8'"):
        extractors.create("kp2d_tiny_s:int9")
    with pytest.raises(InputError, match=r"a method out of .*'kp2d_tinys'.*Did you mean 'kp2d_tiny_s'"):
        extractors.create("kp2d_tinys:int8")


def test_a_method_is_read_and_written_alike():
    for text in ("sift", "kp2d_tiny_s:int8", "runs/mine", "mine:.tflite"):
        assert str(Method.parse(text)) == text
    assert Method.parse("kp2d_tiny_s", "int8") == Method.parse("kp2d_tiny_s:int8", "int8")
    assert Method.parse("runs/mine", "float32") == Method("runs/mine", "float32")
    with pytest.raises(InputError, match=r"one precision of kp2d_tiny_s; received int8 .*int8_ptq beside"):
        Method.parse("kp2d_tiny_s:int8", "int8_ptq")


@pytest.mark.parametrize("name", ["sift", "rootsift", "orb", "kp2d_tiny_s:int8"])
def test_load_takes_every_method_and_shares_none(name, textured):
    loaded, created = kp2d.load(name), extractors.create(name)
    assert same(loaded.extract(textured((120, 200))), created.extract(textured((120, 200))))
    assert loaded.settings() == created.settings()
    if name.startswith("kp2d"):
        assert created is extractors.create(Method.parse(name)) is not loaded


@pytest.mark.parametrize("name", ["orb", "kp2d_tiny_s:int8"])
def test_fewer_features_are_the_best_of_all(name, textured):
    extractor = extractors.create(name)
    best = dataclasses.replace(extractor, top_k=7).extract(textured((120, 200)))
    assert same(best, extractor.extract(textured((120, 200))).take(slice(7)))
    assert dataclasses.replace(extractor, top_k=7).settings() != extractor.settings()


def test_pictures_show_a_network_in_one_precision():
    names = ["sift", "kp2d_tiny_s", "kp2d_tiny_s:int8_ptq", "orb", "kp2d_tiny_s:int8"]
    assert extractors.one_precision(names) == ["sift", "orb", "kp2d_tiny_s:int8"]
    assert extractors.label("kp2d_tiny_s:int8") == "kp2d_tiny_s int8"


def test_a_path_is_named_in_tables_and_pictures_as_its_weights_are(tmp_path):
    suffixes = [weights.SUFFIXES[precision] for precision in ("float32", "int8")]
    names = [
        str(shutil.copy(weights.shipped_path("kp2d_nano", kind), tmp_path / f"mine{suffix}"))
        for kind, suffix in zip(("float32", "int8"), suffixes, strict=True)
    ]
    shutil.copy(weights.card_of(weights.shipped_path("kp2d_nano")), tmp_path / "mine.json")
    assert [extractors.Method.parse(name).in_tables() for name in names] == [
        extractors.Method("mine", "float32"),
        extractors.Method("mine", "int8"),
    ]
    assert extractors.one_precision(["sift", *names]) == ["sift", names[1]]
    assert list(map(extractors.label, names)) == ["mine", "mine int8"]
    rows = pd.DataFrame({"method": ["mine", "mine", "sift"], "precision": ["float32", "int8", "float32"]})
    assert [list(tables.of_method(rows, name).index) for name in (*names, "sift")] == [[0], [1], [2]]


def test_weights_are_told_by_the_first_digits_of_their_hash():
    path = weights.shipped_path("kp2d_nano", "int8")
    assert extractors.weights_hash(extractors.create("kp2d_nano:int8")) == files.sha256(path)[:12]
    assert extractors.weights_hash(extractors.create("sift")) == ""


def test_options_replace_the_defaults_and_are_part_of_the_settings(textured):
    few = extractors.create("sift", nfeatures=20)
    assert (
        len(few.extract(textured((200, 200))))
        <= 21
        < len(extractors.create("sift").extract(textured((200, 200))))
    )
    assert few.settings() == {**extractors.create("sift").settings(), "nfeatures": 20}
    settings = [str(extractors.create(method).settings()) for method in METHODS]
    assert len(set(settings)) == len(METHODS)
    assert extractors.create("sift").settings()["nfeatures"] == 2000  # the recipe itself is untouched


def test_best_first_puts_the_later_of_equal_scores_first(textured):
    keypoints = np.arange(8, dtype=np.float32).reshape(4, 2)
    scores = np.array([1, 2, 1, 2], np.float32)
    features = Features(
        keypoints=keypoints, scores=scores, descriptors=np.zeros((4, 1), np.float32)
    ).by_score()
    assert features.keypoints[:, 0].tolist() == [6, 2, 4, 0] and len(features) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": np.zeros((2, 3), np.float32)},
        {"keypoints": np.full((2, 2), np.nan, np.float32)},
        {"scores": np.zeros(3, np.float32)},
        {"scores": np.zeros((2, 1), np.float32)},
        {"descriptors": np.zeros((3, 8), np.float32)},
        {"descriptors": np.zeros(2, np.float32)},
    ],
)
def test_features_that_do_not_fit_together_are_refused(change):
    parts = {"keypoints": np.zeros((2, 2), np.float32), "scores": np.zeros(2, np.float32)}
    parts["descriptors"] = np.zeros((2, 8), np.float32)
    Features(**parts)
    with pytest.raises(InputError):
        Features(**{**parts, **change})


def test_a_folder_without_a_slash_is_told_how_to_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"or a path; received 'mine'. Write ./mine"):
        extractors.create("mine")
