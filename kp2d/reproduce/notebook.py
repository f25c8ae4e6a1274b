"""Owns what every notebook does first and last: state its settings, show its tables, check its results."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, clear_output

from kp2d import backend, checks, config, images, paths, provenance
from kp2d.data import datasets, locations, samples, scenes
from kp2d.evaluate import tables
from kp2d.methods import learned
from kp2d.train.recipes import RECIPES

if TYPE_CHECKING:
    from kp2d.evaluate.sensitivity import Study, Variant
    from kp2d.quantize.quantization import FloatNetwork


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
    def models(self) -> Path:
        """Returns the folder for models in other precisions."""
        return paths.runs(self.profile.name) / "models"

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


SCORES = ("method", "precision", "top_k", "num_pairs", "num_failed", *tables.METRICS)


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
    return TrainingSettings(
        steps=dict(zip(chosen, counts, strict=True)),
        image_size=tuple(image_size) or run.profile.train_size,
        photographs=photographs_of(run, photographs),
        sequences=sequences,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Int8Settings:
    """How a network is quantized and on what the cost is measured.

    Attributes:
        photographs: Folder to calibrate with and to train on.
        image_size: (height, width) px.
        num_images: To calibrate with.
        steps: Of training on the int8 grid.
        variants: What the study compares.
        sequences: Image pairs to measure on.
        protocol: How to score.
    """

    photographs: Path
    image_size: tuple[int, int]
    num_images: int
    steps: int
    variants: list[Variant]
    sequences: list[datasets.Sequence]
    protocol: config.Protocol

    @property
    def training(self) -> dict[str, Any]:
        """Returns the settings of `kp2d.quantize.quantization.aware_training`."""
        return {"steps": self.steps, "batch_size": 4, "image_size": self.image_size, "log_every": 4}

    def study(self, source: FloatNetwork, cache: Path) -> Study:
        """Returns what measures a network's variants; features are kept in the folder `cache`."""
        from kp2d.evaluate.sensitivity import Study

        return Study(
            source=source,
            photographs=self.photographs,
            sequences=self.sequences,
            protocol=self.protocol,
            cache=cache,
        )


def int8_settings(
    run: Run,
    *,
    image_size: Sequence[int] = (),
    num_images: int = 0,
    steps: int = 0,
    questions: Sequence[str] = (),
    photographs: str = "",
) -> Int8Settings:
    """Turns a notebook's parameters into settings; whatever is empty or 0 comes from the profile.

    Of the data set `sample`, two scenes are measured on, of which no photograph is learned from, and all
    others are calibrated with.

    Raises:
        InputError: If a value is out of range, or there are no photographs.
    """
    backend.quiet()
    from kp2d.evaluate import sensitivity

    sequences = load_data(run)
    if run.profile.dataset == "sample":
        sequences = [s for s in sequences if s.name.partition("_")[2] in samples.HELD_OUT]
    folder = photographs_of(run, photographs)
    size = tuple(image_size) or run.profile.int8_size
    most = len(datasets.list_images(folder))
    count = num_images or min(run.profile.int8_images, most)
    variants = sensitivity.variants(count, most)
    known = list(dict.fromkeys(variant.group for variant in variants))
    asked = tuple(questions) or (known[:3:2] if run.profile.name == "smoke" else known)
    for question in asked:
        checks.one_of("question of the study", question, known)
    top_k = max(run.profile.top_k) if min(size) >= 240 else 150
    return Int8Settings(
        photographs=folder,
        image_size=size,
        num_images=count,
        steps=steps or run.profile.int8_steps,
        variants=[variant for variant in variants if variant.group in asked],
        sequences=sequences,
        protocol=config.protocol(image_size=size, top_k=(top_k,)),
    )


def shipped_models(network: str) -> dict[str, Any]:
    """Returns the int8 models that come with the package for a network, none for weights of your own.

    Returns:
        What each is called in a table to its method; of the best one also with the built-in kernels, which
        repeat to the bit on every machine.
    """
    found: dict[str, Any] = {
        f"{kind}, shipped": f"{network}:{kind}"
        for kind in ("int8_ptq", "int8")
        if network in learned.shipped(kind)
    }
    if "int8, shipped" in found:
        path = learned.PRETRAINED / f"{network}{learned.SUFFIXES['int8']}"
        found["int8, shipped, built-in kernels"] = learned.load_model(path, kernels="builtin")
    return found


MAPPING = (
    *("method", "precision", "size", "num_unmapped_before", "num_unmapped", "parameter_kib", "gmacs"),
    *("compute_ms", "transfer_ms", "least_ms", "compiler", "compiled_unmapped"),
)
TIMES = (
    *("method", "precision", "size", "threads", "network_ms", "decode_ms", "extract_ms", "extract_ms_p90"),
    *("match_ms", "times_as_fast_as_float32", "times_as_fast_as_sift"),
)


def device_sizes(run: Run, image_sizes: Sequence[Sequence[int]] = ()) -> list[tuple[int, int]]:
    """Turns a notebook's sizes into (height, width) px; none takes the profile's.

    Raises:
        InputError: If one is no size.
    """
    return [checks.is_image_size(size) for size in image_sizes or run.profile.device_sizes]


def photograph(image_sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns a photograph of `sample`, uint8 RGB, as high and wide as the largest of some sizes, px."""
    image_size = max(size[0] for size in image_sizes), max(size[1] for size in image_sizes)
    (scene,) = [scene for scene in scenes.SCENES if scene.name == samples.HELD_OUT[0]]
    return images.resize_image(scenes.photograph(scene), image_size)


def photographs_of(run: Run, photographs: str) -> Path:
    """Returns the folder of photographs to learn from: the one named, else the profile's.

    Raises:
        InputError: If there are none.
    """
    if photographs:
        folder = Path(photographs).expanduser()
    elif run.profile.dataset == "sample":
        folder = samples.training_photographs(paths.data(run.profile.name) / "photographs")
    else:
        folder = datasets.resolve("coco", run.profile.name)
    datasets.list_images(folder)  # none at all fails here rather than after the first pictures
    return folder


def begin(profile: str, **settings: Any) -> Run:
    """Starts a notebook.

    Args:
        profile: Name of the profile.
        **settings: What else should be stated.

    Raises:
        InputError: If the profile is unknown.
    """
    logging.getLogger("asyncio").addFilter(_is_of_the_notebook)
    return Run(profile=config.profile(profile), settings=settings)


def _is_of_the_notebook(record: logging.LogRecord) -> bool:
    """Leaves out what a kernel says that is shut down in the middle of its housekeeping."""
    return not str(record.msg).startswith("Task was destroyed but it is pending")


def prepare_data(run: Run, *, seed: int = 0) -> list[datasets.Sequence]:
    """Returns the sequences of the run's data sets; `sample` is made if it is not there."""
    return samples.prepare_profile(run.profile, seed=seed)


def load_data(run: Run) -> list[datasets.Sequence]:
    """Returns the sequences of the run's data set.

    Raises:
        InputError: If the data is missing; the message says how to get it.
    """
    return locations.load(run.profile.dataset, run.profile.name)


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Removes progress bars from the cell once its result is shown; a saved notebook keeps none."""
    yield
    clear_output(wait=True)


def show(rows: pd.DataFrame, columns: Sequence[str] = ()) -> Markdown:
    """Returns a table (or some of its columns) for display, formatted as in the README."""
    if rows.empty:
        return Markdown("*No rows: nothing in this run belongs into this table.*")
    return Markdown(tables.markdown(tables.readable(rows), columns))


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
