"""Owns the arguments of `kp2d train` and what they mean; `kp2d.cli` adds the verb."""

from __future__ import annotations

import argparse
from pathlib import Path

from kp2d import checks
from kp2d.config import assignments
from kp2d.train.recipes import RECIPES, TrainConfig, from_recipe, replace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of a training run.

    Args:
        parser: Parser of the verb. Defaults are the recipe's, so that none is repeated here.
    """
    parser.add_argument("--data", required=True, help="folder of photographs, searched recursively")
    parser.add_argument("-o", "--output", required=True, help="folder of the run; an interrupted run goes on")
    parser.add_argument("--recipe", default="kp2d_plus", choices=sorted(RECIPES), help="where settings start")
    parser.add_argument("--preset", help="network: kp2d_tiny_s, kp2d_tiny_f, kp2d_baseline or kp2d_nano")
    parser.add_argument(
        "--to-coral",
        action="store_true",
        help="its variant for the Coral Edge TPU (PRESET_coral): upsampling for depth-to-space, ReLU only",
    )
    parser.add_argument("--image-size", type=image_size, metavar="HxW", help="size of a training view, px")
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


def config_from(options: argparse.Namespace) -> TrainConfig:
    """Reads a run from parsed arguments.

    Args:
        options: From a parser with `add_arguments`.

    Returns:
        The run.

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


def image_size(text: str) -> tuple[int, int]:
    """Reads an argument as HxW.

    Args:
        text: As "240x320".

    Returns:
        (height, width), px.

    Raises:
        ArgumentTypeError: If it is none; argparse shows the message.
    """
    try:
        return checks.is_image_size(text.lower().split("x"))
    except checks.InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
