"""Cards made by the command line: where weights come from, field by field, and what they reach."""

import dataclasses

import numpy as np
import pytest

from kp2d import cli, files, provenance
from kp2d.checks import InputError
from kp2d.methods import weights
from kp2d.methods.networks import get_preset
from kp2d.train import cards, checkpoint
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
    card, trained = files.read_json(path), path.with_name(f"{small_preset}.weights.h5")
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
        "bytes": trained.stat().st_size,
        "sha256": files.sha256(trained),
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
    start = first.with_name(f"{small_preset}.weights.h5")
    (photos / "extra_1.png").write_bytes((photos / "photo0.png").read_bytes())
    card = files.read_json(train("second", "--initial-weights", str(start), "--seed", "1"))
    assert [stage["seed"] for stage in card["stages"]] == [0, 1]
    assert card["stages"][0] == files.read_json(first)["stages"][0]
    assert (card["steps"], card["pairs"]) == (4, 8)
    told = "5 photographs of photos: photo 4, extra 1; before them 4 photographs of photos: photo 4"
    assert card["training_data"] == told
    again = files.read_json(
        train("again", "--initial-weights", str(first.parents[1] / "second" / start.name))
    )
    assert again["training_data"] == told, "the same photographs are told of once"
    files.write_json(first, {**files.read_json(first), "sha256": "of others"})
    card = files.read_json(train("third", "--initial-weights", str(start)))
    assert len(card["stages"]) == 1 and "has no card" in caplog.text


def test_the_mean_of_networks_tells_of_its_parts(train, small_preset, tmp_path):
    first = train("first", "--seed", "3")
    start = str(first.with_name(f"{small_preset}.weights.h5"))
    second = train("second", "--initial-weights", start, "--set", "augment.turn=0.5")
    path = cards.write_mean({first.parent: 0.25, second.parent: 0.75}, tmp_path / "mean")
    card, part = files.read_json(path), files.read_json(second)
    *stages, mean = card["stages"]
    assert stages == part["stages"] and (card["steps"], card["pairs"], card["steered"]) == (4, 8, True)
    assert mean["recipe"] == "mean" and [each["share"] for each in mean["of"]] == [0.25, 0.75]
    assert [each["sha256"] for each in mean["of"]] == [files.read_json(first)["sha256"], part["sha256"]]
    found = weights.resolve(path.parent)
    assert (found.sha256, found.steered) == (card["sha256"], True)
    one, two, both = (
        weights.load_network(small_preset, weights.resolve(run.parent).path)[0].get_weights()
        for run in (first, second, path)
    )
    for ours, theirs, mixed in zip(one, two, both, strict=True):
        np.testing.assert_allclose(mixed, 0.25 * ours + 0.75 * theirs, rtol=1e-6, atol=1e-7)
    cards.write_mean({first.parent: 0.5, start: 0.5}, tmp_path / "same")  # two names of the same file
    same, _ = weights.load_network(small_preset, weights.resolve(tmp_path / "same").path)
    for ours, mixed in zip(one, same.get_weights(), strict=True):
        np.testing.assert_allclose(mixed, ours, rtol=1e-6, atol=1e-7)


def test_half_precision_takes_fewer_bytes_and_tells_of_it(train, small_preset, tmp_path):
    run = train("run").parent
    path = cards.write_half(run, tmp_path / "half")
    card, whole = files.read_json(path), files.read_json(run / path.name)
    *stages, half = card["stages"]
    assert stages == whole["stages"] and (card["steps"], card["pairs"]) == (2, 4)
    assert half["recipe"] == "half" and half["of"] == [{"sha256": whole["sha256"], "share": 1.0}]
    found = [weights.resolve(folder) for folder in (run, path.parent)]
    assert found[1].sha256 == card["sha256"] and card["bytes"] == found[1].path.stat().st_size
    assert card["bytes"] < whole["bytes"]
    ours, theirs = (weights.load_network(small_preset, each.path)[0].get_weights() for each in found)
    for rounded, exact in zip(theirs, ours, strict=True):
        assert rounded.dtype == exact.dtype and np.array_equal(rounded, exact.astype(np.float16))


def test_weights_that_half_precision_does_not_hold_are_refused(train, small_preset, tmp_path):
    run = train("run").parent
    path = run / f"{small_preset}.weights.h5"
    network, _ = weights.load_network(small_preset, path)
    network.set_weights([np.full_like(value, 7e4) for value in network.get_weights()])
    checkpoint.save_weights(network, path)
    with pytest.raises(InputError, match="weights of at most 65504; received larger ones in"):
        checkpoint.save_half(path, tmp_path / "half.weights.h5")
    assert not (tmp_path / "half.weights.h5").exists()


def test_what_has_no_mean_is_refused(train, small_preset, tmp_path):
    run = train("run").parent
    for shares in ({}, {run: 0.5}, {run: 2.0, weights.shipped_path("kp2d_nano"): -1.0}):
        with pytest.raises(InputError, match="positive shares that sum to 1"):
            cards.write_mean(shares, tmp_path / "mean")
    with pytest.raises(InputError, match=f"weights of one network; received .*{small_preset}"):
        cards.write_mean({run: 0.5, weights.shipped_path("kp2d_nano"): 0.5}, tmp_path / "mean")
    (run / f"{small_preset}.json").unlink()
    for write in (cards.write_half, lambda weights, output: cards.write_mean({weights: 1.0}, output)):
        with pytest.raises(InputError, match="weights with a card"):
            write(run, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


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
