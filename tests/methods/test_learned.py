"""Trained weights as a keypoint method: load, extract, describe on a card."""

import dataclasses
import json

import numpy as np
import pytest
from small_network import SMALL, write_photos

import kp2d
from kp2d import files, geometry, images
from kp2d.checks import InputError
from kp2d.evaluate.feature_store import FeatureStore
from kp2d.methods import decode, extractors, learned, networks, weights
from kp2d.train import training
from kp2d.train.recipes import from_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What two steps of training leave."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.PRESETS, SMALL.name, SMALL)
        settings = {
            "image_size": (32, 48),
            "batch_size": 2,
            "workers": 0,
            "wandb": False,
            "tensorboard": False,
        }
        config = from_recipe(
            "kp2d_plus",
            preset=SMALL.name,
            data=str(write_photos(folder / "photos")),
            output=str(folder / "run"),
            steps=2,
            **settings,
        )
        return training.train(config, progress=False), folder / "run"


@pytest.fixture
def trained(run, small_preset):
    return run


def test_extractor_returns_features_in_pixels(trained):
    result, _ = trained
    extractor = learned.load(result.weights_path)
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    features = extractor.extract(image)
    assert len(features) == 8 * 12
    assert features.descriptors.shape == (8 * 12, 8)
    assert np.all(features.keypoints >= 0) and np.all(features.keypoints <= [55, 39])
    assert np.all(np.diff(features.scores) <= 0)
    again = learned.load(result.weights_path).extract(image)
    np.testing.assert_array_equal(features.keypoints, again.keypoints)
    assert extractor.settings()["sha256"] == files.sha256(result.weights_path)


def test_extractor_refuses_a_size_its_cells_do_not_tile(trained):
    extractor = learned.load(trained[0].weights_path)
    with pytest.raises(InputError, match="divisible by the cell 4"):
        extractor.extract(np.zeros((40, 57, 3), np.uint8))


def test_missing_weights_are_refused(small_preset, tmp_path):
    with pytest.raises(InputError, match="none at"):
        learned.load(tmp_path / "no.weights.h5")
    for name in ("nope.h5", "nope.keras", "nope.onnx", "nope.tflite"):
        with pytest.raises(InputError, match=f"none at .*{name}"):
            learned.load(name)
    with pytest.raises(InputError, match="shipped network"):
        learned.load("kp2d_huge")
    with pytest.raises(InputError, match="precision"):
        learned.load(small_preset, precision="int4")


def test_trained_weights_are_a_method_by_their_path(trained, tmp_path):
    result, run = trained
    by_folder, by_file = extractors.create(str(run)), extractors.create(str(result.weights_path))
    assert by_folder is extractors.create(f"{run}/") and by_file is extractors.create(
        str(result.weights_path)
    )
    assert (by_folder.name, by_folder.cell) == (by_file.name, by_file.cell) == ("run", 4)
    renamed = tmp_path / "mine.weights.h5"
    renamed.write_bytes(result.weights_path.read_bytes())
    (tmp_path / "mine.json").write_text('{"preset": "test_small"}')
    assert extractors.create(str(renamed)).name == "mine"


def test_path_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="output of kp2d train"):
        extractors.create(str(tmp_path / "nowhere"))
    for name in "ab":
        (tmp_path / f"{name}.weights.h5").touch()
    with pytest.raises(InputError, match=r"received a\.weights\.h5, b\.weights\.h5"):
        extractors.create(str(tmp_path))
    with pytest.raises(InputError, match="do not tell one"):
        extractors.create(str(tmp_path / "a.weights.h5"))


def test_every_shipped_network_loads_and_has_an_honest_card():
    for name in weights.shipped():
        extractor = kp2d.load(name)
        card = json.loads((weights.PRETRAINED / f"{name}.json").read_text())
        assert (extractor.name, extractor.sha256) == (name, card["sha256"])
        assert card["training_data"] and "dirty" not in card["git_commit"]
        assert card["cell"] == extractor.cell and card["descriptor_dim"] == extractor.descriptor_dim
        features = extractor.extract(np.zeros((48, 64, 3), np.uint8))
        assert len(features) == (48 // extractor.cell - 2) * (64 // extractor.cell - 2)  # without the border


def scaled_pair(textured):
    """A picture, and its middle twice as large."""
    image = images.resize_image(textured((240, 320), seed=5), (480, 640))
    return images.resize_image(image, (240, 320)), image[120:360, 160:480]


@pytest.mark.parametrize("name", ["kp2d_tiny_s", "kp2d_tiny_s:int8"])
def test_a_pyramid_of_one_level_is_the_network_alone(name, textured):
    plain, image = extractors.create(name), textured((120, 160))
    assert extractors.create(name, pyramid=1) is plain
    assert plain.name == "kp2d_tiny_s" and "pyramid" not in plain.settings()
    heads = (plain.decodable or plain.predict)(decode.pixels(image, plain.cell))
    alone = decode.decode(**heads, cell=plain.cell)
    for field, values in vars(plain.extract(image)).items():
        np.testing.assert_array_equal(values, getattr(alone, field))


@pytest.mark.parametrize("name", ["kp2d_tiny_s", "kp2d_tiny_s:int8", "kp2d_tiny_f:int8"])
def test_a_pyramid_joins_the_levels_in_pixels_of_the_image(name, textured):
    small = textured((64, 80))
    image = small.repeat(2, axis=0).repeat(2, axis=1)  # halved, it is `small` again
    plain, both = (extractors.create(name, pyramid=levels) for levels in (1, 2))
    fine, coarse, joined = plain.extract(image), plain.extract(small), both.extract(image)
    assert len(joined) == len(fine) + len(coarse) and (np.diff(joined.scores) <= 0).all()
    enlarged = geometry.resize_matrix((64, 80), (128, 160))
    # A corner between the pixels 7 and 8 lies between 15 and 16 of the image.
    assert geometry.warp_points(np.array([[7.5, 3.5]]), enlarged).tolist() == [[15.5, 7.5]]
    there = np.concatenate([fine.keypoints, geometry.warp_points(coarse.keypoints, enlarged)])
    assert np.abs(joined.keypoints[:, None] - there).max(axis=-1).min(axis=1).max() < 1e-3
    best = dataclasses.replace(both, top_k=40)
    np.testing.assert_array_equal(best.extract(image).keypoints, joined.keypoints[:40])
    features, spent = best.timed(image)
    assert len(features) == 40 and set(spent) == {"network", "decode"} and min(spent.values()) > 0


@pytest.mark.parametrize("size", [(88, 88), (104, 152), (100, 124)])
def test_levels_that_cells_do_not_tile_are_continued_at_their_edges(size, textured):
    both = extractors.create("kp2d_tiny_s:int8", pyramid=3)
    keypoints = both.extract(textured(size)).keypoints
    assert (keypoints >= 0).all() and (keypoints <= np.array(size[::-1]) - 1).all()


def test_halving_averages_four_pixels_and_repeats_an_odd_edge():
    batch = np.array([[[0, 1, 9], [1, 1, 9], [4, 6, 7]]], np.uint8)[..., None]
    assert learned.halved(batch)[..., 0].tolist() == [[[1, 9], [5, 7]]]


def test_a_pyramid_matches_what_differs_in_scale(textured):
    scores = []
    for levels in (1, 2):
        method = kp2d.load("kp2d_tiny_s:int8", pyramid=levels)
        scores.append(kp2d.match(*scaled_pair(textured), method=method).inliers.sum())
    assert scores[1] > 1.2 * scores[0]


def test_a_pyramid_is_part_of_what_a_method_is(tmp_path, textured):
    methods = [extractors.create(name) for name in ("kp2d_tiny_s:int8", "kp2d_tiny_s+pyramid2:int8")]
    assert methods[1] is extractors.create("kp2d_tiny_s", precision="int8", pyramid=2)
    assert [method.label for method in methods] == ["kp2d_tiny_s int8", "kp2d_tiny_s+pyramid2 int8"]
    path = images.write_image(tmp_path / "a.png", textured())
    counts = [len(FeatureStore(method, (96, 128), tmp_path).get(path).features) for method in methods]
    assert counts[0] < counts[1] and len({str(method.settings()) for method in methods}) == 2


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("kp2d_tiny_s:int8", {"pyramid": 0}, "`pyramid` as a whole number of levels from 1 to 4; received 0"),
        ("kp2d_tiny_s:int8", {"pyramid": 2.0}, r"whole number of levels from 1 to 4; received 2\.0"),
        ("kp2d_tiny_s:int8", {"pyramid": True}, "received True"),
        ("kp2d_tiny_s+pyramid:int8", {}, "received ''"),
        (
            "kp2d_tiny_s+pyramid2:int8",
            {"pyramid": 3},
            "one number of levels of kp2d_tiny_s; received 3 beside",
        ),
        ("sift", {"pyramid": 2}, "a network for `pyramid`; received sift. .*a pyramid of their own"),
        ("orb+pyramid2", {}, "a network for `pyramid`; received orb"),
        ("kp2d_tinys+pyramid2", {}, "Did you mean 'kp2d_tiny_s'"),
    ],
)
def test_pyramids_that_make_no_sense_are_refused(name, options, said):
    with pytest.raises(InputError, match=said):
        extractors.create(name, **options)


def test_an_image_too_small_for_its_smallest_level_is_refused(textured):
    with pytest.raises(InputError, match=r"sides of at least 48 px for `pyramid=3`; received \(44, 64\)"):
        extractors.create("kp2d_tiny_s:int8", pyramid=3).extract(textured((44, 64)))
