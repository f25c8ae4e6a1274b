"""Owns `kp2d train`: its arguments and what they mean."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from kp2d import backend, checks
from kp2d.arguments import SIZE
from kp2d.config import assignments
from kp2d.train.recipes import RECIPES, TrainConfig, from_recipe, replace


def add_train(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d train` to the parser of the verb; defaults are the recipe's."""
    parser.add_argument("--data", required=True, help="folder of photographs, searched recursively")
    parser.add_argument("-o", "--output", required=True, help="folder of the run; an interrupted run goes on")
    parser.add_argument("--recipe", default="kp2d_plus", choices=sorted(RECIPES), help="where settings start")
    parser.add_argument("--preset", help="network: kp2d_tiny_s, kp2d_tiny_f, kp2d_baseline or kp2d_nano")
    parser.add_argument(
        "--to-coral",
        action="store_true",
        help="its variant for the Coral Edge TPU (PRESET_coral): upsampling for depth-to-space, ReLU only",
    )
    parser.add_argument("--image-size", **SIZE, help="size of a training view, px")
    parser.add_argument("--steps", type=int, help="optimizer steps")
    parser.add_argument("--batch-size", type=int, help="pairs a step")
    parser.add_argument("--seed", type=int, help="of weights and data")
    parser.add_argument("--learning-rate", type=float, help="peak of the schedule")
    parser.add_argument("--precision", help="of the convolutions: float32, or bfloat16 (faster on Intel AMX)")
    parser.add_argument("--initial-weights", help=".weights.h5 file to start from")
    parser.add_argument("--workers", type=int, help="processes that make training pairs")
    parser.add_argument("--devices", type=int, help="devices that share a batch")
    parser.add_argument("--validation", help="folder of photographs for validation losses")
    parser.add_argument("--validate-every", type=int, help="steps between two validations")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help='any setting, as "loss.descriptor=1.0"',
    )
    parser.add_argument("--disable-wandb", action="store_true", help="no Weights & Biases log")
    parser.add_argument(
        "--card",
        nargs="?",
        const="",
        metavar="NOTE",
        help='write a card beside the weights: where they come from; NOTE joins its data, as "research use"',
    )


def run_train(options: argparse.Namespace) -> None:
    """Trains, or goes on where a run stopped, and says how fast that was and where the weights are.

    Raises:
        InputError: If a value is refused, or a folder cannot be used.
        RunError: If the training cannot go on.
    """
    backend.quiet()
    from kp2d.train import cards, training

    logging.getLogger("kp2d").setLevel(logging.INFO)  # where it resumes, what it skips
    config = config_from(options)
    result = training.train(config, progress=sys.stderr.isatty())
    if result.pairs_per_second:
        waited = f"{result.wait_share:.0%} of the time spent waiting for pairs"
        print(f"{result.pairs_per_second:.1f} pairs/s, {waited}, {len(result.corrupt)} unreadable pictures")
    else:
        print("nothing left to do: this run was finished before")
    print(result.weights_path)
    if options.card is not None:
        print(cards.write_card(config.output, note=options.card))


def config_from(options: argparse.Namespace) -> TrainConfig:
    """Reads a run from parsed arguments.

    Raises:
        InputError: If a value is refused, or an assignment cannot be read.
    """
    names = (
        "preset", "image_size", "steps", "batch_size", "seed", "learning_rate", "precision",
        "initial_weights", "workers", "devices", "validation", "validate_every",
    )  # fmt: skip
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    given = assignments(options.set)
    for name in ("data", "output", "recipe", "augment", "loss"):
        if name in given:
            remedy = (
                f"Write --{name}." if name in ("data", "output", "recipe") else f"Write {name}.NAME=VALUE."
            )
            raise checks.problem("a setting that --set can change", name, remedy)
    changes |= given
    if options.disable_wandb:
        changes["wandb"] = False
    folders = {name: str(Path(getattr(options, name)).expanduser()) for name in ("data", "output")}
    config = from_recipe(options.recipe, **folders, **changes)
    if options.to_coral and not config.preset.endswith("_coral"):
        config = replace(config, preset=f"{config.preset}_coral")
    return config
