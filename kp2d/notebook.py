"""Owns what every notebook does first and last: state its settings, show its tables, check its results."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, clear_output

from kp2d import checks, config, datasets, extractors, paths, provenance, samples, tables
from kp2d.recipes import RECIPES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The settings and folders of one run of a notebook; shown as a table at the end of a cell.

    Attributes:
        profile: The profile.
        settings: Other settings, for the record.
    """

    profile: config.Profile
    settings: Mapping[str, Any]

    @property
    def results(self) -> Path:
        """Returns the folder for tables."""
        return paths.results(self.profile.name)

    @property
    def figures(self) -> Path:
        """Returns the folder for pictures."""
        return paths.figures(self.profile.name)

    @property
    def cache(self) -> Path:
        """Returns the folder for exported features; what lies there is reused."""
        return paths.runs(self.profile.name) / "features"

    @property
    def trained(self) -> Path:
        """Returns the folder for training runs; what lies there goes on or is reused."""
        return paths.runs(self.profile.name) / "training"

    def _repr_markdown_(self) -> str:
        kept = len(list(self.cache.glob("*/[!.]*.npz"))) if self.cache.is_dir() else 0
        facts = {
            "profile": f"{self.profile.name} ({self.profile.purpose})",
            "data set": self.profile.dataset,
            **self.settings,
            "reused": f"features of {kept} image and method pairs" if kept else "nothing yet",
            "device": provenance.device(),
            "commit": provenance.git_commit(),
            **provenance.versions(),
        }
        lines = [f"| {name.replace('_', ' ')} | {_plain(value)} |" for name, value in facts.items()]
        return "\n".join(["| setting | value |", "|---|---|", *lines])


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


SCORES = ("method", "top_k", "num_pairs", "num_failed", *tables.METRICS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is evaluated and how.

    Attributes:
        methods: As for `extractors.from_name`.
        protocol: The rules.
    """

    methods: tuple[str, ...]
    protocol: config.Protocol

    @property
    def probabilistic(self) -> bool:
        """Tells whether any method's scores are probabilities, so that a score threshold does something."""
        return any(extractors.from_name(name).probabilistic for name in self.methods)


def evaluation_settings(
    profile: str,
    *,
    protocol: str = "kp2d",
    methods: Sequence[str] = (),
    image_size: Sequence[int] = (),
    top_k: Sequence[int] = (),
    seed: int = 0,
) -> EvaluationSettings:
    """Turns a notebook's parameters into settings; whatever is empty comes from the profile.

    Raises:
        InputError: If the profile, the protocol or a method is unknown, or a value is out of range.
    """
    defaults = config.profile(profile)
    chosen = tuple(methods) or defaults.methods
    for name in chosen:
        extractors.from_name(name)
    rules = config.protocol(
        protocol,
        image_size=tuple(image_size) or defaults.image_size,
        top_k=tuple(top_k) or defaults.top_k,
        seed=seed,
    )
    return EvaluationSettings(methods=chosen, protocol=rules)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What is trained, on what.

    Attributes:
        steps: Recipe to its steps.
        image_size: (height, width) px of a training view.
        photographs: Folder to learn from.
        sequences: Image pairs to measure on; nothing of them is learned from.
    """

    steps: Mapping[str, int]
    image_size: tuple[int, int]
    photographs: Path
    sequences: list[datasets.Sequence]


def training_settings(
    run: Run,
    *,
    recipes: Sequence[str] = (),
    steps: Sequence[int] = (),
    image_size: Sequence[int] = (),
    photographs: str = "",
) -> TrainingSettings:
    """Turns a notebook's parameters into settings; whatever is empty comes from the profile.

    Of the data set `sample`, some scenes are learned from and others are measured on. Any other data set is
    measured on as a whole, and the photographs are COCO, or the folder that `TRAIN_PATH` names.

    Raises:
        InputError: If a value is out of range, or there are no photographs.
    """
    chosen = tuple(recipes) or tuple(run.profile.train_steps)
    for name in chosen:
        checks.one_of("recipe", name, RECIPES)
    counts = tuple(steps) or tuple(run.profile.train_steps.get(name, 0) for name in chosen)
    if len(counts) != len(chosen) or min(counts) < 1:
        raise checks.problem(f"a number of steps for each of {', '.join(chosen)}", repr(list(counts)))
    sequences = load_data(run)
    if run.profile.dataset == "sample":
        sequences = [s for s in sequences if s.name.partition("_")[2] in samples.HELD_OUT]
    if photographs:
        folder = Path(photographs).expanduser()
    elif run.profile.dataset == "sample":
        folder = samples.training_photographs(paths.data(run.profile.name) / "photographs")
    else:
        folder = datasets.resolve("coco", run.profile.name)
    datasets.list_images(folder)  # none at all fails here rather than after the first pictures
    return TrainingSettings(
        steps=dict(zip(chosen, counts, strict=True)),
        image_size=tuple(image_size) or run.profile.train_size,
        photographs=folder,
        sequences=sequences,
    )


def begin(profile: str, **settings: Any) -> Run:
    """Starts a notebook.

    Args:
        profile: Name of the profile.
        **settings: What else should be stated.

    Raises:
        InputError: If the profile is unknown.
    """
    return Run(profile=config.profile(profile), settings=settings)


def prepare_data(run: Run, *, seed: int = 0) -> Path:
    """Returns the folder of the run's data set; `sample` is made if it is not there."""
    return samples.prepare_profile(run.profile, seed=seed)


def load_data(run: Run) -> list[datasets.Sequence]:
    """Returns the sequences of the run's data set.

    Raises:
        InputError: If the data is missing; the message says how to get it.
    """
    return datasets.load_sequences(datasets.resolve(run.profile.dataset, run.profile.name))


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Removes progress bars from the cell once its result is shown; a saved notebook keeps none."""
    yield
    clear_output(wait=True)


def show(rows: pd.DataFrame, columns: Sequence[str] = ()) -> Markdown:
    """Returns a table (or some of its columns) for display, formatted as in the README."""
    return Markdown(tables.markdown(rows, columns))


def check(**claims: bool) -> Markdown:
    """Checks what a notebook claims about its results.

    Args:
        **claims: Whether each claim holds, the claim as a name ("d1_at_most_d3").

    Returns:
        The list of claims, for display.

    Raises:
        InputError: If a claim does not hold; all that fail are named.
    """
    broken = [claim.replace("_", " ") for claim, holds in claims.items() if not holds]
    if broken:
        raise checks.problem("every check to hold", f"not so: {'; '.join(broken)}")
    return Markdown("\n".join(f"- ✓ {claim.replace('_', ' ')}" for claim in claims))
