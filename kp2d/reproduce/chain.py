"""Owns the chain: the notebooks as stages, what each reads and makes, and so which needs which."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kp2d import checks, paths

DATA = "data set"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One notebook of the reproduction.

    Inputs and outputs are files relative to the project, `{profile}` filled in, or `DATA`, the data set.
    """

    name: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    patient: bool = False  # whether a cell of the profile `full` may take as long as it needs

    @property
    def notebook(self) -> Path:
        """Returns the notebook's path."""
        return paths.notebooks() / f"{self.name}.ipynb"


STAGES = (
    Stage(
        name="01_prepare_data",
        outputs=(DATA, "results/{profile}/data.csv", "figures/{profile}/data.png"),
    ),
    Stage(
        name="02_train",
        inputs=(DATA, "results/{profile}/data.csv", "results/recipes.csv"),
        outputs=(
            "results/{profile}/training.csv",
            "results/{profile}/training_losses.csv",
            "figures/{profile}/training_pairs.png",
            "figures/{profile}/training_losses.svg",
            "figures/{profile}/learning.png",
            "figures/{profile}/learning_matches.png",
            "figures/{profile}/recipes.svg",
        ),
        patient=True,
    ),
    Stage(
        name="03_quantize",
        inputs=(DATA, "results/{profile}/data.csv"),
        outputs=(
            "results/{profile}/quantization.csv",
            "results/{profile}/precisions.csv",
            "results/{profile}/layer_errors.csv",
            "results/{profile}/sensitivity.csv",
            "figures/{profile}/activations.svg",
            "figures/{profile}/layer_errors.svg",
            "figures/{profile}/sensitivity.svg",
        ),
        patient=True,
    ),
    Stage(
        name="04_compile",
        outputs=(
            "results/{profile}/compile.csv",
            "results/{profile}/latency.csv",
            "figures/{profile}/latency.svg",
        ),
    ),
    Stage(
        name="05_evaluate",
        inputs=(DATA, "results/{profile}/data.csv", "results/{profile}/latency.csv"),
        outputs=(
            "results/{profile}/evaluation.csv",
            "results/{profile}/pairs.csv",
            "results/{profile}/robustness.csv",
            "results/{profile}/protocols.csv",
            "results/{profile}/paper_comparison.csv",
            "results/{profile}/paper_models.csv",
            "figures/{profile}/matching_accuracy.svg",
            "figures/{profile}/correctness.svg",
            "figures/{profile}/repeatability.svg",
            "figures/{profile}/speed.svg",
            "figures/{profile}/size.svg",
            "figures/{profile}/robustness.svg",
        ),
    ),
    Stage(
        name="06_compare_sift",
        inputs=(DATA, "results/{profile}/data.csv", "results/{profile}/pairs.csv"),
        outputs=(
            "results/{profile}/against_sift.csv",
            "results/{profile}/failures.csv",
            "figures/{profile}/against_sift.svg",
            "figures/{profile}/keypoints.png",
            "figures/{profile}/matches.png",
            "figures/{profile}/gallery.png",
            "figures/{profile}/failures.png",
        ),
    ),
)


def select(names: Sequence[str] | None) -> list[Stage]:
    """Returns the stages with these names or numbers ("05" or "05_evaluate"), in order; None gives all.

    Raises:
        InputError: If there is no such stage.
    """
    if names is None:
        return list(STAGES)
    known = [stage.name for stage in STAGES]
    by_number = {name.split("_")[0]: name for name in known}
    chosen = {checks.one_of("stage", by_number.get(name.zfill(2), name), known) for name in names}
    return [stage for stage in STAGES if stage.name in chosen]


def needed(stage: Stage, others: Sequence[Stage]) -> tuple[str, ...]:
    """Returns the names of those stages that make what a stage reads."""
    return tuple(other.name for other in others if set(other.outputs) & set(stage.inputs))


def filled(names: Sequence[str], profile: str) -> list[str]:
    """Returns names of files with the profile in its place."""
    return [name.format(profile=profile) for name in names]
