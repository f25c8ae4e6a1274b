"""Owns how the parameters of a notebook become its settings: whatever is empty comes from the profile."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kp2d import backend, checks, config, images, paths
from kp2d.data import datasets, locations, samples, scenes
from kp2d.methods import extractors, weights
from kp2d.train.recipes import RECIPES

if TYPE_CHECKING:
    from kp2d.evaluate.sensitivity import Study, Variant
    from kp2d.quantize.quantization import FloatNetwork


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is evaluated and how."""

    methods: tuple[str, ...]  # as for `extractors.create`
    protocol: config.Protocol  # the rules; its size is that of the pictures
    # all sizes that are evaluated, (height, width) px, that of the protocol among them
    image_sizes: tuple[tuple[int, int], ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Returns what a run states about itself."""
        names = [extractors.label(name) if weights.is_path(name) else name for name in self.methods]
        return {"methods": names, "sizes": self.image_sizes, **vars(self.protocol)}

    @property
    def probabilistic(self) -> bool:
        """Tells whether any method's scores are probabilities, so that a score threshold does something."""
        return any(extractors.create(name).probabilistic for name in self.methods)

    def at_top_k(self, top_k: int = 0) -> config.Protocol:
        """Returns the rules with one k; 0 takes 300, or the largest that is evaluated.

        Raises:
            InputError: If it is none of those evaluated.
        """
        known = self.protocol.top_k
        chosen = top_k or (300 if 300 in known else known[-1])
        checks.one_of("k that is evaluated", str(chosen), [str(k) for k in known])
        return dataclasses.replace(self.protocol, top_k=(chosen,))


def evaluation_settings(
    profile: str,
    *,
    protocol: str = "kp2d",
    methods: Sequence[str] = (),
    image_size: Sequence[int] = (),
    image_sizes: Sequence[Sequence[int]] = (),
    top_k: Sequence[int] = (),
    seed: int = 0,
    trained: bool = False,
) -> EvaluationSettings:
    """Returns the settings of 05 and 06. An `image_size` without `image_sizes` is the only size.

    With `trained`, the network that 02 trained comes after the other methods.

    Raises:
        InputError: If the profile, the protocol or a method is unknown, or a value is out of range.
    """
    defaults = config.profile(profile)
    chosen = (*(methods or defaults.methods), *trained_methods(profile, trained))
    cells = [extractors.create(name).cell for name in chosen]
    rules = config.protocol(
        protocol,
        image_size=tuple(image_size) or defaults.image_size,
        top_k=tuple(top_k) or defaults.top_k,
        seed=seed,
    )
    sizes = [checks.is_image_size(size) for size in image_sizes]
    if image_size:  # the study of pyramids has its own networks
        checks.fits_cells(rules.image_size, max(extractors.create(name).cell for name in defaults.pyramids))
    for cell in cells:
        checks.fits_cells(rules.image_size, cell)
        for size in sizes:
            checks.fits_cells(size, cell, "image_sizes")
    if not sizes and not image_size:
        sizes = list(defaults.image_sizes)
    return EvaluationSettings(
        methods=chosen, protocol=rules, image_sizes=tuple(sorted({rules.image_size, *sizes}))
    )


def trained_methods(profile: str, trained: bool) -> tuple[str, ...]:
    """Returns the network that 02 trained and 03 quantized, as a method in each precision, if it is taken.

    Raises:
        InputError: If a file of it is missing.
    """
    if not trained:
        return ()
    suffixes = [weights.SUFFIXES[precision] for precision in ("float32", "int8_ptq", "int8")]
    found = [paths.trained_here(profile) / f"{paths.TRAINED_HERE}{suffix}" for suffix in suffixes]
    for path in found:
        if not path.is_file():
            remedy = f"Run kp2d reproduce --profile {profile} --trained, or leave it out: trained = False."
            raise checks.problem(f"the network trained here, {path}", "no such file", remedy)
    return tuple(map(str, found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What is trained, on what."""

    steps: Mapping[str, int]  # recipe to its steps
    image_size: tuple[int, int]  # (height, width) px of a training view
    photographs: Path  # folder to learn from
    sequences: list[datasets.Sequence]  # image pairs to measure on; nothing of them is learned from

    @property
    def facts(self) -> dict[str, str]:
        """Returns what a run states of them."""
        return {"photographs": _counted(self.photographs)}


def training_settings(
    profile: str,
    preset: str = "",
    *,
    recipes: Sequence[str] = (),
    steps: Sequence[int] = (),
    image_size: Sequence[int] = (),
    photographs: str = "",
) -> TrainingSettings:
    """Returns the settings of 02; the size is checked against the network of a preset, if one is named.

    Raises:
        InputError: If a value is out of range, or there are no image pairs or photographs.
    """
    defaults = config.profile(profile)
    chosen = [checks.one_of("recipe", name, RECIPES) for name in recipes or defaults.train_steps]
    counts = list(steps) or [defaults.train_steps.get(name, 0) for name in chosen]
    if len(counts) != len(chosen) or min(counts) < 1:
        raise checks.problem(f"a number of steps for each of {', '.join(chosen)}", repr(counts))
    size = tuple(image_size) or defaults.train_size
    if preset:
        backend.quiet()
        from kp2d.methods import networks

        checks.fits_cells(size, networks.get_preset(preset).cell, "train_size")
    return TrainingSettings(
        steps=dict(zip(chosen, counts, strict=True)),
        image_size=size,
        photographs=photographs_folder(defaults, photographs),
        sequences=held_out(defaults),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Int8Settings:
    """How a network is quantized and on what the cost is measured."""

    photographs: Path  # folder to calibrate with and to train on
    image_size: tuple[int, int]  # (height, width) px
    num_images: int  # to calibrate with
    steps: int  # of training on the int8 grid
    variants: list[Variant]  # what the study compares
    sequences: list[datasets.Sequence]  # image pairs to measure on
    protocol: config.Protocol  # how to score

    @property
    def facts(self) -> dict[str, str]:
        """Returns what a run states of them."""
        return {"photographs": f"{_counted(self.photographs)}, at most {self.num_images} to calibrate with"}

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

    def compare_trained(self, profile: str, trained: bool, cache: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Quantizes the network that 02 trained, for 04 to 06, and measures the models.

        Unless it is wanted (`trained`), the tables are empty. They are those of
        `kp2d.evaluate.sensitivity.Study.compare`; each kind says that it was trained here.

        Raises:
            InputError: If 02 has left no weights, or a file cannot be written.
        """
        if not trained:
            return pd.DataFrame(columns=["kind"]), pd.DataFrame(columns=["kind"])
        from kp2d.evaluate import sensitivity
        from kp2d.quantize import calibration, quantization

        folder = paths.trained_here(profile)
        source = quantization.load_float(str(folder / f"{paths.TRAINED_HERE}{weights.WEIGHTS}"))
        inputs = calibration.read_images(
            self.photographs, source.config, self.image_size, count=self.num_images
        )
        post_training = quantization.post_training(source.network, source.config, inputs)
        on_grid, _ = quantization.aware_training(
            post_training, source, data=self.photographs, output=folder / "training", **self.training
        )
        made = {"int8_ptq": post_training, "int8": on_grid}
        models = sensitivity.write_models(
            source, made, folder, image_size=self.image_size, made_as=paths.TRAINED_HERE
        )
        rows, facts = self.study(source, cache).compare(models, profile=profile)
        for table in (rows, facts):
            table["kind"] = table["kind"].str.removesuffix(", here") + ", trained here"
        return rows, facts


def int8_settings(
    profile: str,
    *,
    image_size: Sequence[int] = (),
    num_images: int = 0,
    steps: int = 0,
    questions: Sequence[str] = (),
    photographs: str = "",
) -> Int8Settings:
    """Returns the settings of 03.

    Raises:
        InputError: If a value is out of range, or there are no image pairs or photographs.
    """
    defaults = config.profile(profile)
    folder = photographs_folder(defaults, photographs)
    most_images = len(datasets.list_images(folder))
    calibrated_with = num_images or min(defaults.int8_images, most_images)
    size = tuple(image_size) or defaults.int8_size
    return Int8Settings(
        photographs=folder,
        image_size=size,
        num_images=calibrated_with,
        steps=steps or defaults.int8_steps,
        variants=_variants_of(questions or defaults.int8_questions, calibrated_with, most_images),
        sequences=held_out(defaults),
        protocol=config.protocol(image_size=size, top_k=max(defaults.top_k) if min(size) >= 240 else 150),
    )


def _variants_of(questions: Sequence[str], num_images: int, most_images: int) -> list[Variant]:
    """Returns the variants of the study that answer some questions; all if none is asked."""
    backend.quiet()
    from kp2d.evaluate import sensitivity

    variants = sensitivity.variants(num_images, most_images)
    known = list(dict.fromkeys(variant.group for variant in variants))
    for question in questions:
        checks.one_of("question of the study", question, known)
    return [variant for variant in variants if variant.group in (questions or known)]


def shipped_models(network: str) -> dict[str, Any]:
    """Returns the int8 models that come with the package for a network, none for weights of your own.

    Returns:
        What each is called in a table to its method; of the best one also with the built-in kernels, which
        repeat to the bit on every machine.
    """
    models: dict[str, Any] = {
        f"{precision}, shipped": f"{network}:{precision}"
        for precision in ("int8_ptq", "int8")
        if network in weights.shipped(precision)
    }
    if "int8, shipped" in models:
        built_in = extractors.load(network, precision="int8", kernels="builtin")
        models["int8, shipped, built-in kernels"] = built_in
    return models


def device_sizes(profile: str, image_sizes: Sequence[Sequence[int]] = ()) -> list[tuple[int, int]]:
    """Returns the sizes of 04, (height, width) px.

    Raises:
        InputError: If one is no size.
    """
    return [checks.is_image_size(size) for size in image_sizes or config.profile(profile).device_sizes]


def photograph(image_sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns a photograph of `sample`, uint8 RGB, as high and wide as the largest of some sizes, px."""
    image_size = max(size[0] for size in image_sizes), max(size[1] for size in image_sizes)
    return images.resize_image(scenes.photograph(samples.HELD_OUT[0]), image_size)


def photographs_folder(profile: config.Profile, folder: str = "") -> Path:
    """Returns the folder of photographs to learn from and to calibrate with: that named, or the profile's.

    Raises:
        InputError: If there are none.
    """
    if folder:
        chosen = Path(folder).expanduser()
    elif profile.photographs == "sample":
        chosen = samples.training_photographs(paths.data(profile.name) / "photographs")
    else:
        chosen = datasets.resolve(profile.photographs, profile.name)
    datasets.list_images(chosen)  # none at all fails here rather than after the first pictures
    return chosen


def _counted(folder: Path) -> str:
    return f"{len(datasets.list_images(folder)):,} in the folder {folder.name}"


def held_out(profile: config.Profile) -> list[datasets.Sequence]:
    """Returns the sequences of a profile of whose photographs none is learned from.

    Raises:
        InputError: If the data set is missing.
    """
    sequences = locations.load(profile.dataset, profile.name)
    if profile.dataset != "sample":
        return sequences
    return [sequence for sequence in sequences if sequence.name.partition("_")[2] in samples.HELD_OUT]
