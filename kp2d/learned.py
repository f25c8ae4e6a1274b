"""Owns our networks as keypoint methods: the Keras extractor, the shipped weights, their cards."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import backend, files, provenance
from kp2d.checks import one_of, problem
from kp2d.decode import decode, network_input
from kp2d.features import Features

PRETRAINED = Path(__file__).parent / "pretrained"
SUFFIXES = {"float32": ".weights.h5"}  # file of each precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class KerasExtractor:
    """A KeypointNet behind the interface of `kp2d.extractors.Extractor`.

    Attributes:
        name: The method.
        cell: Cell side, px; the sides of an image must be divisible by it.
        descriptor_dim: Length of a descriptor.
        predict: From float32 `[1, H, W, 3]` in [−1, 1] to the three heads as NumPy arrays.
        sha256: Of the weights; tells exported features of other weights apart.
        top_k: Features kept an image; None keeps all.
    """

    name: str
    cell: int
    descriptor_dim: int
    predict: Callable[[np.ndarray], dict[str, np.ndarray]]
    sha256: str
    top_k: int | None = None
    precision: str = "float32"
    runtime: str = "keras"
    concurrent: bool = False
    probabilistic: bool = True

    @property
    def descriptor_bytes(self) -> int:
        """Bytes of one keypoint's descriptor."""
        return 4 * self.descriptor_dim

    def settings(self) -> dict[str, Any]:
        """Returns everything that determines the result."""
        return {"method": self.name, "precision": self.precision, "sha256": self.sha256, "top_k": self.top_k}

    def extract(self, image: np.ndarray) -> Features:
        """Finds keypoints in an image.

        Args:
            image: uint8 RGB `[H, W, 3]`, both sides divisible by the cell.

        Returns:
            Features in the image's own pixels, best score first.

        Raises:
            InputError: If the image is no such array.
        """
        return decode(**self.predict(network_input(image, self.cell)), cell=self.cell, top_k=self.top_k)


def shipped(precision: str = "float32") -> tuple[str, ...]:
    """Returns the names of the networks whose weights come with this package, sorted."""
    suffix = SUFFIXES[precision]
    return tuple(sorted(path.name.removesuffix(suffix) for path in PRETRAINED.glob(f"*{suffix}")))


def load(name: str, *, precision: str = "float32", weights: str | Path | None = None) -> KerasExtractor:
    """Loads a network that this package ships, or one that you trained.

    Args:
        name: A preset, or a shipped variant of one ("kp2d_tiny_s_88").
        precision: A key of `SUFFIXES`.
        weights: A `.weights.h5` file of your own; None takes the shipped one.

    Returns:
        The extractor.

    Raises:
        InputError: If name or precision is unknown, or there are no such weights.
    """
    backend.quiet()
    from kp2d import networks

    one_of(f"precision of {name}", precision, SUFFIXES)
    path = Path(weights) if weights is not None else PRETRAINED / f"{name}{SUFFIXES[precision]}"
    if weights is None:
        one_of("shipped network", name, shipped(precision))
    card = files.read_json(path.with_name(path.name.replace(".weights.h5", ".json"))) or {}
    config = networks.get_preset(card.get("preset", name))
    if not path.is_file():
        raise problem("a .weights.h5 file", f"{path}, which does not exist", "Check the path.")
    network = networks.build_network(config)
    networks.load_weights(network, config, path)
    return KerasExtractor(
        name=name,
        cell=config.cell,
        descriptor_dim=config.descriptor_dim,
        predict=compile_predict(network),
        sha256=files.sha256(path),
    )


def is_path(name: str) -> bool:
    """Tells whether the name of a method is the path of trained weights ("runs/mine", "x.weights.h5")."""
    return "/" in name or os.sep in name or name.endswith(SUFFIXES["float32"])


def find_weights(path: str | Path) -> Path:
    """Finds the weights of a training run.

    Args:
        path: The folder of the run, or the `.weights.h5` file itself.

    Returns:
        The file, absolute.

    Raises:
        InputError: If there is none, or a folder holds several.
    """
    path = Path(path).expanduser().resolve()
    found = sorted(path.glob(f"*{SUFFIXES['float32']}")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        received = ", ".join(file.name for file in found if file != path) or f"none at {path}"
        raise problem(
            "a .weights.h5 file, or the folder of a run with one", received, "Name the output of kp2d train."
        )
    return found[0]


def load_trained(path: str | Path, *, precision: str = "float32") -> KerasExtractor:
    """Loads weights that you trained; run, card or file name tell which network they are of.

    Args:
        path: As for `find_weights`.
        precision: A key of `SUFFIXES`.

    Returns:
        The extractor, named after the folder of the run (or the file, if that is not named after a preset).

    Raises:
        InputError: If there are no such weights, or it is unknown of which network they are.
    """
    weights = find_weights(path)
    stem = weights.name.removesuffix(SUFFIXES["float32"])
    run = files.read_json(weights.with_name("config.json")) or {}
    card = files.read_json(weights.with_name(f"{stem}.json")) or {}
    preset = run.get("preset") or card.get("preset") or stem
    backend.quiet()
    from kp2d import networks

    if preset not in networks.PRESETS:
        raise problem(
            "weights of a known network",
            f"{weights}, whose name, card and run do not tell one",
            "Keep the file in the folder of its run, or name it after its preset: kp2d_tiny_s.weights.h5.",
        )
    extractor = load(preset, precision=precision, weights=weights)
    return dataclasses.replace(extractor, name=weights.parent.name if stem == preset else stem)


def compile_predict(network: Any) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Makes a function of NumPy arrays from a network, compiled where the backend can.

    Args:
        network: From `kp2d.networks.build_network`.

    Returns:
        From float32 `[B, H, W, 3]` to the three heads.
    """
    import keras
    from keras import ops

    def forward(x: np.ndarray) -> dict[str, Any]:
        return network(x, training=False)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        forward = tf.function(forward, reduce_retracing=True)
    return lambda x: {name: ops.convert_to_numpy(head) for name, head in forward(x).items()}


def write_card(
    runs: Sequence[str | Path],
    weights: str | Path,
    metrics: Sequence[dict[str, Any]] = (),
    *,
    training_data: str = "",
) -> Path:
    """Writes the card of trained weights beside them: where they come from and what they reach.

    Args:
        runs: Folders of the training runs that led to the weights, first to last; each but the
            first started from the weights of the one before.
        weights: The `.weights.h5` file the card describes.
        metrics: Rows of results.
        training_data: What the photographs are and where they come from.

    Returns:
        The card, a JSON file.

    Raises:
        InputError: If a folder holds no run.
    """
    from kp2d import networks

    weights = Path(weights)
    stages = [_stage(Path(run)) for run in runs]
    preset = networks.get_preset(stages[-1]["preset"])
    card = {
        "name": weights.name.removesuffix(".weights.h5"),
        "preset": preset.name,
        "cell": preset.cell,
        "descriptor_dim": preset.descriptor_dim,
        "parameters": preset.num_parameters,
        **{total: sum(stage[total] for stage in stages) for total in ("steps", "pairs")},
        "hours": round(sum(stage["hours"] for stage in stages), 2),
        "device": provenance.device(),
        "git_commit": provenance.git_commit(),
        "training_data": training_data,
        "bytes": weights.stat().st_size,
        "sha256": files.sha256(weights),
        "stages": stages,
        "metrics": list(metrics),
    }
    return files.write_json(weights.with_name(f"{card['name']}.json"), card)


def _stage(run: Path) -> dict[str, Any]:
    """One training run as its card tells it; folders by their last name only."""
    from kp2d.runlog import read_rows

    config, rows = files.read_json(run / "config.json"), read_rows(run / "log.csv")
    if config is None or not rows:
        raise problem("the folder of a training run", str(run), "Name the output of kp2d train.")
    told = (
        *("preset", "recipe", "image_size", "batch_size", "precision", "seed", "learning_rate", "ema"),
        *("loss", "augment"),
    )
    return {
        "steps": rows[-1]["step"],
        "pairs": rows[-1]["step"] * config["batch_size"],
        "hours": round((rows[-1].get("seconds") or 0) / 3600, 2),
        "data": Path(config["data"]).name,
        **{name: config[name] for name in told if name in config},
    }
