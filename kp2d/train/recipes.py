"""Owns the settings of a training run, as frozen dataclasses with units and checks, and their recipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from kp2d.checks import one_of
from kp2d.config import check_types, require
from kp2d.data.augment import AugmentConfig


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and constants of the loss terms (`kp2d.train.losses`); a term of weight 0 is not computed.

    Attributes:
        localization: Weight of the localization distance.
        localization_weighting: Which pairs of keypoints count for it: `"uniform"`, all alike (KP2D), or
            `"scores"`, each by the product of its two scores, for most cells hold nothing to locate.
        localization_saturation: Distance at which it counts half of what it can count at most, px; 0 lets
            it grow on (KP2D).
        usp: Weight of the UnsuperPoint score term.
        consistency: Weight of the score consistency.
        consistency_kind: What the score of a point should equal: `"resampled"`, the other view's
            score map read at the warped point (KP2D; smooths the map), or `"associated"`, the
            score of the nearest keypoint of the other view (lets one cell stand out).
        descriptor: Weight of the descriptor term.
        descriptor_kind: `"triplet"` (KP2D) or `"dual_softmax"`.
        descriptor_positives: Where the other view's descriptor is read: at the `"warped"` point (KP2D), or
            at the `"associated"` keypoint, if there is one within 3 px, as at matching.
        descriptor_points: Best-scored points a view that enter the descriptor term; None: all.
        reliability: Weight of the score term that foretells correct matches.
        distinctness: Weight of the score term that leaves one of the cells that share a corner its score.
        distinct_radius: Distance within which a better keypoint is felt, px; nearer than half of it, only the
            better one is a correspondence.
        margin: Triplet margin (KP2D 0.2, LANet 1.0).
        relax: Radius within which a point is no negative, px (KP2D 4, LANet 8).
        temperature: Of the dual softmax.
        other_pictures: Pictures of the batch that lend negatives to the dual softmax.
        inlier: Weight of IO-Net's term.
        inlier_points: Lowest-scored points a view that IO-Net sees.
        distillation: Weight of the distance from the outputs of the run's `teacher`.
        corner_offset: Weight of the corner teacher's offset term.
        corner_score: Weight of the corner teacher's score term.
        corner_hold: Fraction of the steps with the corner teacher at full weight.
        corner_end: Fraction of the steps at which its linear decay arrives at 0.
    """

    localization: float = 2.0
    localization_weighting: str = "uniform"
    localization_saturation: float = 0.0
    usp: float = 1.5
    consistency: float = 2.0
    consistency_kind: str = "associated"
    descriptor: float = 0.5
    descriptor_kind: str = "dual_softmax"
    descriptor_positives: str = "warped"
    descriptor_points: int | None = 512
    reliability: float = 0.0
    distinctness: float = 0.0
    distinct_radius: float = 2.0
    margin: float = 0.2
    relax: float = 4.0
    temperature: float = 0.05
    other_pictures: int = 0
    inlier: float = 0.0
    inlier_points: int = 300
    distillation: float = 0.0
    corner_offset: float = 3.0
    corner_score: float = 1.5
    corner_hold: float = 0.25
    corner_end: float = 0.5

    def __post_init__(self) -> None:
        check_types(self, "loss")
        for name, kinds in (
            ("descriptor_kind", ("triplet", "dual_softmax")),
            ("descriptor_positives", ("warped", "associated")),
            ("consistency_kind", ("resampled", "associated")),
            ("localization_weighting", ("uniform", "scores")),
        ):
            value = getattr(self, name)
            require(value in kinds, f"loss.{name} in {kinds}", repr(value))
        require(
            0 <= self.corner_hold <= self.corner_end <= 1,
            "0 <= loss.corner_hold <= loss.corner_end <= 1",
            (self.corner_hold, self.corner_end),
        )
        require(
            self.descriptor > 0 or not self.reliability,
            "loss.descriptor > 0 with loss.reliability, which reads its points",
            self.descriptor,
        )
        for name in ("temperature", "distinct_radius"):
            require(getattr(self, name) > 0, f"loss.{name} > 0", getattr(self, name))
        for name in (
            *("localization", "localization_saturation", "usp", "consistency", "descriptor", "reliability"),
            *("distinctness", "inlier", "distillation"),
        ):
            require(getattr(self, name) >= 0, f"loss.{name} >= 0", getattr(self, name))

    @property
    def corners(self) -> bool:
        """Whether the corner teacher takes part at all."""
        return self.corner_end > 0 and self.corner_offset + self.corner_score > 0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run.

    Attributes:
        recipe: Name of the recipe that these values started from.
        preset: Network, a key of `kp2d.methods.networks.PRESETS`.
        data: Folder of photographs, searched recursively.
        output: Folder of this run: checkpoints, logs, weights.
        image_size: (height, width) px of a training view.
        batch_size: Pairs a step.
        steps: Optimizer steps.
        seed: Of weights and data.
        learning_rate: Peak.
        warmup: Steps of linear warm-up, at most a tenth of all.
        schedule: `"cosine"` to `final_rate`, or `"halve"` every `halve_every` steps.
        final_rate: Fraction of the peak at the end of the cosine.
        halve_every: Fraction of the steps between two halvings.
        clip_norm: Largest global gradient norm; None turns clipping off.
        ema: Decay a step of the weight average that is evaluated and saved; 0 turns it off.
        dropout: Of the network while training.
        precision: `"float32"`, or `"bfloat16"` where the processor multiplies that (Intel AMX,
            recent GPUs): faster, all but as accurate.
        quantized: Train the network of `kp2d.methods.quantized`, which rounds as its int8 form will; its
            `initial_weights` are those of such a network.
        teacher: Float `.weights.h5` file of the same preset, whose outputs are learned to repeat where
            `loss.distillation` has a weight.
        initial_weights: `.weights.h5` file to start from; None starts from scratch.
        workers: Processes that make pairs; 0 makes them in this process.
        devices: Devices that share a batch.
        log_every: Steps between two log rows.
        checkpoint_every: Steps between two checkpoints.
        validation: Folder of photographs for the validation losses; None leaves them out.
        validate_every: Steps between two validations; 0 turns validation off.
        keep: Checkpoints kept.
        jit: Compile the step with XLA; None decides by backend.
        wandb: Log to Weights & Biases too.
        tensorboard: Log to TensorBoard too.
        augment: How pairs are made.
        loss: Terms and weights.
    """

    recipe: str = "kp2d_plus"
    preset: str = "kp2d_tiny_s"
    data: str
    output: str
    image_size: tuple[int, int] = (240, 320)
    batch_size: int = 8
    steps: int = 20_000
    seed: int = 0
    learning_rate: float = 2e-3
    warmup: int = 200
    schedule: str = "cosine"
    final_rate: float = 0.01
    halve_every: float = 0.8
    clip_norm: float | None = 1.0
    ema: float = 0.998
    dropout: float = 0.0
    precision: str = "float32"
    quantized: bool = False
    teacher: str | None = None
    initial_weights: str | None = None
    workers: int = 1
    devices: int = 1
    log_every: int = 50
    checkpoint_every: int = 500
    validation: str | None = None
    validate_every: int = 500
    keep: int = 2
    jit: bool | None = None
    wandb: bool = True
    tensorboard: bool = True
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        check_types(self, "train")
        for name in ("batch_size", "steps", "log_every", "checkpoint_every", "keep", "devices"):
            require(getattr(self, name) >= 1, f"train.{name} >= 1", getattr(self, name))
        for name in ("warmup", "workers", "validate_every", "seed", "final_rate"):
            require(getattr(self, name) >= 0, f"train.{name} >= 0", getattr(self, name))
        schedules = ("cosine", "halve")
        require(self.schedule in schedules, f"train.schedule in {schedules}", self.schedule)
        for name in ("learning_rate", "halve_every"):
            require(getattr(self, name) > 0, f"train.{name} > 0", getattr(self, name))
        require(
            not self.quantized or (self.precision == "float32" and not self.dropout),
            "train.precision float32 and no train.dropout for a quantized network",
            (self.precision, self.dropout),
        )
        require(0 <= self.ema < 1, "train.ema in [0, 1)", self.ema)
        require(
            self.batch_size % self.devices == 0,
            "train.batch_size divisible by train.devices",
            (self.batch_size, self.devices),
        )


def replace(config: TrainConfig, **changes: Any) -> TrainConfig:
    """Changes fields of a run, nested ones by a dotted name: `steps=100`, `**{"loss.descriptor": 1.0}`.

    Raises:
        InputError: If a name is unknown (the nearest one is named) or a value is refused.
    """
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in ("augment", "loss")]
    for part in ("augment", "loss"):
        names += [f"{part}.{f.name}" for f in dataclasses.fields(getattr(config, part))]
    nested: dict[str, dict[str, Any]] = {"augment": {}, "loss": {}}
    direct: dict[str, Any] = {}
    for name, value in changes.items():
        if name in nested:
            direct[name] = value
            continue
        part, _, key = one_of("training setting", name, names).rpartition(".")
        (nested[part] if part else direct)[key] = value
    for part, values in nested.items():
        if values:
            direct[part] = dataclasses.replace(direct.get(part, getattr(config, part)), **values)
    return dataclasses.replace(config, **direct)


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
    """Configures a run from a recipe, a key of `RECIPES`, with changes as in `replace`.

    Raises:
        InputError: If the recipe or a field is unknown, or a value is refused.
    """
    settings = RECIPES[one_of("recipe", recipe, RECIPES)]
    return replace(TrainConfig(recipe=recipe, data=data, output=output, **settings), **changes)
