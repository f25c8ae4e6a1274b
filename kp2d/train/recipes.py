"""Owns the named starting points of a training run."""

from __future__ import annotations

from typing import Any

from kp2d.checks import one_of
from kp2d.data.augment import AugmentConfig
from kp2d.train.train_config import LossConfig, TrainConfig, replace

# KP2D as published (ICLR 2020): triplet descriptors, IO-Net, no teacher, plain augmentation.
# The triplet sees 1200 points, all that the paper's network has at the paper's 240×320.
KP2D = {
    "learning_rate": 1e-3,
    "warmup": 0,
    "schedule": "halve",
    "clip_norm": None,
    "ema": 0.0,
    "dropout": 0.2,
    "loss": LossConfig(
        localization=1.0,
        usp=1.0,
        consistency=2.0,
        consistency_kind="resampled",
        descriptor=2.0,
        descriptor_kind="triplet",
        descriptor_points=1200,
        margin=0.2,
        relax=4.0,
        inlier=1.0,
        corner_offset=0.0,
        corner_score=0.0,
    ),
    "augment": AugmentConfig(
        max_angle=45.0,
        scale=(0.8, 1.25),
        perspective=0.15,
        tilt=0.0,
        gray=0.1,
        channel_swap=0.1,
        exposure=0.0,
        gamma=(1.0, 1.0),
        brightness=0.25,
        contrast=(0.5, 1.5),
        saturation=(0.8, 1.2),
        hue=0.05,
        tint=0.0,
        motion_blur=0,
        jpeg=100,
        shadow=0.0,
    ),
}

# The strongest known: the defaults of the configuration, with homographies that grow.
KP2D_PLUS = {
    "loss": LossConfig(),
    "augment": AugmentConfig(start=0.4, ramp=0.4),
}

# Fine-tuning of a quantized network: it learns to repeat the float network that it was made of.
KP2D_INT8 = {
    "quantized": True,
    "steps": 400,
    "learning_rate": 1e-4,
    "warmup": 10,
    "ema": 0.99,
    "loss": LossConfig(
        localization=0.0,
        usp=0.0,
        consistency=0.0,
        descriptor=0.0,
        corner_offset=0.0,
        corner_score=0.0,
        distillation=1.0,
    ),
    "augment": AugmentConfig(),
}

RECIPES = {"kp2d": KP2D, "kp2d_plus": KP2D_PLUS, "kp2d_int8": KP2D_INT8}


def from_recipe(recipe: str, *, data: str, output: str, **changes: Any) -> TrainConfig:
    """Configures a run from a recipe.

    Args:
        recipe: A key of `RECIPES`.
        data: Folder of photographs.
        output: Folder of the run.
        **changes: Fields to change, as in `kp2d.train.train_config.replace`.

    Returns:
        The run.

    Raises:
        InputError: If the recipe or a field is unknown, or a value is refused.
    """
    settings = RECIPES[one_of("recipe", recipe, RECIPES)]
    return replace(TrainConfig(recipe=recipe, data=data, output=output, **settings), **changes)
