"""Owns what changes over a run: the learning rate and the weight of the corner teacher."""

from __future__ import annotations

import numpy as np
from keras import ops
from keras.optimizers import schedules

from kp2d.train.recipes import LossConfig, TrainConfig


class WarmUp(schedules.LearningRateSchedule):
    """Another schedule under a linear rise that ends with the last step of the warm-up."""

    # CosineDecay(warmup_target=…) arrives a step later, and no other schedule of Keras warms up at all.

    def __init__(
        self, schedule: schedules.LearningRateSchedule, warmup: int, *, delayed: bool = False
    ) -> None:
        """Joins both.

        Args:
            schedule: The full rate of a step.
            warmup: Steps of the rise.
            delayed: Whether the schedule begins after the rise, not beneath it.
        """
        self._schedule, self._warmup, self._delay = schedule, warmup, warmup if delayed else 0

    def __call__(self, step):
        """Rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        rise = ops.minimum(1.0, (step + 1.0) / max(1, self._warmup))
        return self._schedule(ops.maximum(step - self._delay, 0.0)) * rise


def learning_rate(config: TrainConfig) -> WarmUp:
    """Schedule of a run.

    Args:
        config: The run.

    Returns:
        The schedule.
    """
    peak, warmup = config.learning_rate, min(config.warmup, config.steps // 10)
    if config.schedule == "halve":
        every = max(1, round(config.halve_every * config.steps))
        return WarmUp(schedules.ExponentialDecay(peak, every, 0.5, staircase=True), warmup)
    falling = max(1, config.steps - warmup)
    return WarmUp(schedules.CosineDecay(peak, falling, alpha=config.final_rate), warmup, delayed=True)


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
