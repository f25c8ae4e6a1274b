"""Owns the losses of the averaged weights on pairs that never change, from a folder kept apart."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from kp2d.checkpoint import WeightAverage
from kp2d.learner import KeypointLearner
from kp2d.loader import PairSource
from kp2d.networks import NetworkConfig
from kp2d.train_config import TrainConfig

BATCHES = 4
SEED = 20_230_611  # the same pairs in every run, whatever its own seed


class Validation:
    """A fixed set of pairs and a learner that never learns."""

    def __init__(self, config: TrainConfig, network_config: NetworkConfig) -> None:
        """Makes the pairs, at full homography strength.

        Args:
            config: The run; `validation` names the folder.
            network_config: Its architecture.

        Raises:
            InputError: If the folder holds no readable picture.
        """
        # Left out: IO-Net, which belongs to the learner that trains, and the teacher.
        loss = dataclasses.replace(config.loss, inlier=0.0, corner_end=0.0, corner_hold=0.0)
        fixed = dataclasses.replace(
            config,
            data=config.validation,
            seed=SEED,
            loss=loss,
            augment=dataclasses.replace(config.augment, ramp=0.0),
        )
        source = PairSource.from_config(fixed, network_config.cell)
        self._batches = [source.batch(step)[0] for step in range(BATCHES)]
        self._learner = KeypointLearner(network_config, fixed)
        self._learner.compile(jit_compile=keras.backend.backend() == "jax")

    def losses(self, average: WeightAverage) -> dict[str, float]:
        """Measures the averaged weights.

        Args:
            average: The weights.

        Returns:
            `validation_<term>` to its mean over the pairs, and `validation_loss`.
        """
        average.copy_to(self._learner.network)
        rows = []
        for batch in self._batches:
            rows.append(self._learner.test_on_batch(batch, return_dict=True))
        return {f"validation_{name}": float(np.mean([r[name] for r in rows])) for name in rows[0]}
