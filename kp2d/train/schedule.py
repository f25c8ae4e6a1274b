"""Owns what changes over a run: the learning rate and the weight of the corner teacher."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kp2d.train.recipes import LossConfig, TrainConfig


@keras.saving.register_keras_serializable("kp2d")
class RateSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a cosine or repeated halving."""

    def __init__(
        self,
        *,
        peak: float,
        steps: int,
        warmup: int,
        kind: str = "cosine",
        final: float = 0.01,
        halve_every: int = 1,
    ) -> None:
        """Sets the shape.

        Args:
            peak: Largest rate.
            steps: Length of the run.
            warmup: Steps of linear warm-up.
            kind: `"cosine"` or `"halve"`.
            final: Fraction of the peak at the end of the cosine.
            halve_every: Steps between two halvings.
        """
        self._settings = {
            "peak": peak,
            "steps": steps,
            "warmup": warmup,
            "kind": kind,
            "final": final,
            "halve_every": halve_every,
        }

    def __call__(self, step):
        """Rate of a step, counted from 0."""
        s = self._settings
        step = ops.cast(step, "float32")
        if s["kind"] == "halve":
            decay = 0.5 ** ops.floor(step / s["halve_every"])
        else:
            done = ops.clip((step - s["warmup"]) / max(1, s["steps"] - s["warmup"]), 0.0, 1.0)
            decay = s["final"] + (1 - s["final"]) * 0.5 * (1 + ops.cos(np.pi * done))
        return s["peak"] * decay * ops.minimum(1.0, (step + 1) / max(1, s["warmup"]))

    def get_config(self) -> dict:
        """Arguments that rebuild the schedule."""
        return dict(self._settings)


def learning_rate(config: TrainConfig) -> RateSchedule:
    """Schedule of a run.

    Args:
        config: The run.

    Returns:
        The schedule.
    """
    return RateSchedule(
        peak=config.learning_rate,
        steps=config.steps,
        warmup=min(config.warmup, config.steps // 10),
        kind=config.schedule,
        final=config.final_rate,
        halve_every=max(1, round(config.halve_every * config.steps)),
    )


def corner_weight(step: int, steps: int, config: LossConfig) -> float:
    """Present weight of the corner teacher: 1, then falling linearly to 0.

    Args:
        step: Number of the step, from 0.
        steps: Length of the run.
        config: When the fall begins and ends.

    Returns:
        A factor in [0, 1].
    """
    hold, end = config.corner_hold * steps, config.corner_end * steps
    if step < hold:
        return 1.0
    return float(np.clip((end - step) / (end - hold), 0.0, 1.0)) if step < end else 0.0
