"""`kp2d train`: arguments become a configuration, or a clear refusal."""

import argparse
import re

import pytest

from kp2d import cli
from kp2d.checks import InputError
from kp2d.train.cli import add_train, config_from
from kp2d.train.recipes import from_recipe


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_train(parser)
    return config_from(parser.parse_args(["--data", "d", "-o", "o", *arguments]))


def test_defaults_are_the_recipes():
    assert parse() == from_recipe("kp2d_plus", data="d", output="o")
    assert parse("--recipe", "kp2d") == from_recipe("kp2d", data="d", output="o")


def test_arguments_override():
    config = parse("--image-size", "88x96", "--steps", "7", "--disable-wandb", "--set", "loss.descriptor=2.5",
                   "--set", "schedule=halve", "--set", "augment.scale=(0.5, 2)")  # fmt: skip
    assert (config.image_size, config.steps, config.wandb) == ((88, 96), 7, False)
    assert (config.loss.descriptor, config.schedule, config.augment.scale) == (2.5, "halve", (0.5, 2))


@pytest.mark.parametrize("recipe", ["kp2d", "kp2d_plus"])
def test_to_coral_changes_the_preset_and_nothing_else(recipe):
    for preset in ("kp2d_tiny_s", "kp2d_tiny_f", "kp2d_tiny_f_coral"):
        wanted = f"{preset.removesuffix('_coral')}_coral"
        config = parse("--to-coral", "--recipe", recipe, "--preset", preset)
        assert config == from_recipe(recipe, data="d", output="o", preset=wanted)
    assert parse("--to-coral").preset == "kp2d_tiny_s_coral"
    assert parse("--to-coral", "--set", "preset=kp2d_baseline").preset == "kp2d_baseline_coral"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "steps"], "NAME=VALUE"),
        (["--set", "step=3"], "steps"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        parse(*arguments)


def test_size_that_is_none_is_refused_by_the_parser(capsys):
    with pytest.raises(SystemExit):
        parse("--image-size", "240")
    assert "240x320" in capsys.readouterr().err


@pytest.mark.usefixtures("eager")
def test_train_verb_says_how_fast_it_was_and_where_the_weights_are(photos, small_preset, tmp_path, capsys):
    arguments = ["train", "--data", str(photos), "--output", str(tmp_path / "run"), "--preset", small_preset]
    arguments += ["--image-size", "32x48", "--steps", "2", "--batch-size", "2", "--workers", "0"]
    arguments += ["--disable-wandb", "--set", "tensorboard=False"]
    assert cli.main(arguments) == 0
    speed, weights = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"[\d.]+ pairs/s, \d+% of the time spent waiting for pairs, 0 unreadable pictures", speed
    )
    assert weights == str(tmp_path / "run" / "test_small.weights.h5")
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "nothing left to do: this run was finished before",
        weights,
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps=abc", "train.steps as a whole number"),
        ("learning_rate=inf", "train.learning_rate as a number"),
        ("image_size=64x96", "train.image_size as two numbers"),
        ("augment.scale=2", "augment.scale as two numbers"),
        ("loss.descriptor=abc", "loss.descriptor as a number"),
        ("loss.localization=-1", "loss.localization >= 0"),
        ("seed=-1", "train.seed >= 0"),
        ("halve_every=0", "train.halve_every > 0"),
        ("tensorboard=maybe", "train.tensorboard as True or False"),
        ("loss=1", "loss.NAME=VALUE"),
        ("data=elsewhere", "Write --data"),
        ("recipe=kp2d", "Write --recipe"),
        ("name=x", "training setting"),
    ],
)
def test_settings_of_the_wrong_type_are_refused_by_name(setting, message):
    with pytest.raises(InputError, match=message):
        parse("--set", setting)
