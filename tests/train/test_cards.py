"""Cards made by the command line: where weights come from, field by field, and what they reach."""

import dataclasses

import pytest

from kp2d import cli, files, provenance
from kp2d.checks import InputError
from kp2d.methods.networks import get_preset
from kp2d.train import cards
from kp2d.train.recipes import from_recipe

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def train(photos, small_preset, tmp_path):
    """Two steps by the command line; returns the card."""

    def run(name, *more):
        arguments = ["train", "--data", str(photos), "--output", str(tmp_path / name)]
        arguments += ["--preset", small_preset, "--image-size", "32x48", "--steps", "2", "--batch-size", "2"]
        arguments += ["--workers", "0", "--disable-wandb", "--set", "tensorboard=False", "--card", *more]
        assert cli.main(arguments) == 0
        return tmp_path / name / f"{small_preset}.json"

    return run


def test_a_card_tells_where_weights_come_from(train, small_preset, photos, tmp_path, capsys):
    (photos / "extra_1.png").write_bytes((photos / "photo0.png").read_bytes())
    path = train("first", "blocks of ours")
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    card, weights = files.read_json(path), path.with_name(f"{small_preset}.weights.h5")
    (stage,) = card.pop("stages")
    network = get_preset(small_preset)
    assert card == {
        "name": small_preset,
        "preset": small_preset,
        "cell": 4,
        "descriptor_dim": 8,
        "steered": False,
        "parameters": network.num_parameters,
        "steps": 2,
        "pairs": 4,
        "hours": 0.0,
        "device": provenance.device(),
        "git_commit": provenance.git_commit(),
        "training_data": "5 photographs of photos: photo 4, extra 1; blocks of ours",
        "bytes": weights.stat().st_size,
        "sha256": files.sha256(weights),
        "metrics": [],
    }
    run = dataclasses.asdict(from_recipe("kp2d_plus", data="", output=""))
    assert stage.pop("augment").keys() == run["augment"].keys() and stage.pop("loss") == run["loss"]
    assert stage == {
        "data": "photos",
        "steps": 2,
        "pairs": 4,
        "hours": 0.0,
        "preset": small_preset,
        "recipe": "kp2d_plus",
        "image_size": [32, 48],
        "batch_size": 2,
        "precision": "float32",
        "seed": 0,
        "learning_rate": 0.002,
        "ema": 0.998,
    }
    assert cards.read_cards(path.parent) == {path: files.read_json(path)}


def test_a_card_goes_on_from_that_of_the_initial_weights(train, small_preset, photos, caplog):
    first = train("first")
    weights = first.with_name(f"{small_preset}.weights.h5")
    (photos / "extra_1.png").write_bytes((photos / "photo0.png").read_bytes())
    card = files.read_json(train("second", "--initial-weights", str(weights), "--seed", "1"))
    assert [stage["seed"] for stage in card["stages"]] == [0, 1]
    assert card["stages"][0] == files.read_json(first)["stages"][0]
    assert (card["steps"], card["pairs"]) == (4, 8)
    assert card["training_data"] == (
        "5 photographs of photos: photo 4, extra 1; before them 4 photographs of photos: photo 4"
    )
    files.write_json(first, {**files.read_json(first), "sha256": "of others"})
    card = files.read_json(train("third", "--initial-weights", str(weights)))
    assert len(card["stages"]) == 1 and "has no card" in caplog.text


def test_evaluation_adds_to_the_card_of_the_weights_alone(train, tiny_dataset, tmp_path, capsys):
    path = train("run")
    arguments = ["evaluate", "--method", str(path.parent), "--data", str(tiny_dataset)]
    arguments += ["--image-size", "96x128", "--cache", str(tmp_path / "cache"), "--card", str(path)]
    assert cli.main([*arguments, "--top-k", "30"]) == 0
    before = files.read_json(path)
    assert {row["subset"] for row in before["metrics"]} == {"all", "viewpoint", "illumination"}
    row = before["metrics"][0]
    assert tuple(sorted(row)) == tuple(sorted(cards.METRIC_ROW))
    assert (row["dataset"], row["image_height"], row["image_width"], row["top_k"]) == ("tiny", 96, 128, 30)
    assert 0 <= row["d1"] <= row["d3"] <= row["d5"] <= 1
    assert cli.main([*arguments, "--top-k", "30", "20"]) == 0
    after = files.read_json(path)
    assert after["metrics"][:3] == before["metrics"] and len(after["metrics"]) == 6
    assert files.read_json(train("run")) == after, "the card is written again, for the very same weights"
    capsys.readouterr()
    for method in ("sift", str(train("other", "--seed", "1").parent)):
        arguments[2] = method
        assert cli.main(arguments) == 2
        assert "which tells of other weights" in capsys.readouterr().err


def test_a_folder_without_a_run_and_a_file_that_is_no_card_are_refused(tmp_path):
    with pytest.raises(InputError, match="output of kp2d train"):
        cards.write_card(tmp_path)
    with pytest.raises(InputError, match="which is no card"):
        cards.check_card(tmp_path / "none.json", "abc")
    with pytest.raises(InputError, match="JSON file beside trained weights"):
        cards.add_metrics(tmp_path / "none.json", [])
