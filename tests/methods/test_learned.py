"""Trained weights as a keypoint method: load, extract, describe on a card."""

import json

import numpy as np
import pytest
from small_network import SMALL, write_photos

import kp2d
from kp2d import files
from kp2d.checks import InputError
from kp2d.methods import extractors, learned, networks, weights
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
