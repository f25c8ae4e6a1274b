"""Owns our networks as keypoint methods: the extractor, and which weights a name or path means."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import backend, files
from kp2d.checks import one_of, problem
from kp2d.methods import integrity, runtimes
from kp2d.methods.decode import decode, normalized, pixels
from kp2d.methods.features import Features

PRETRAINED = integrity.PRETRAINED
WEIGHTS, MODEL = ".weights.h5", ".tflite"
# File of each precision; "int8" is the best int8 network there is, "int8_ptq" the one without training.
SUFFIXES = {"float32": WEIGHTS, "int8": f".int8{MODEL}", "int8_ptq": f".int8_ptq{MODEL}"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkExtractor:
    """A KeypointNet behind the interface of `kp2d.methods.extractors.Extractor`.

    Attributes:
        name: The method.
        cell: Cell side, px; the sides of an image must be divisible by it.
        descriptor_dim: Length of a descriptor.
        predict: From uint8 RGB `[1, H, W, 3]` to the three heads as float32 NumPy arrays.
        sha256: Of the weights; tells exported features of other weights apart.
        bytes: Of the file.
        top_k: Features kept an image; None keeps all.
        kernels: Those of a TFLite runtime; see `kp2d.methods.runtimes.KERNELS`.
        calibration: See `kp2d.methods.extractors.Extractor`.
    """

    name: str
    cell: int
    descriptor_dim: int
    predict: Callable[[np.ndarray], dict[str, np.ndarray]]
    sha256: str
    bytes: int = 0
    top_k: int | None = None
    precision: str = "float32"
    runtime: str = "keras"
    kernels: str = "default"
    calibration: str = "none"
    concurrent: bool = False
    probabilistic: bool = True

    @property
    def descriptor_bytes(self) -> int:
        """Bytes of one keypoint's descriptor."""
        return 4 * self.descriptor_dim

    def settings(self) -> dict[str, Any]:
        """Returns everything that determines the result."""
        chosen = {
            "method": self.name,
            "precision": self.precision,
            "sha256": self.sha256,
            "top_k": self.top_k,
        }
        return (
            chosen
            if self.runtime == "keras"
            else {**chosen, "runtime": self.runtime, "kernels": self.kernels}
        )

    def extract(self, image: np.ndarray) -> Features:
        """Finds keypoints in an image.

        Args:
            image: uint8 RGB `[H, W, 3]`, both sides divisible by the cell.

        Returns:
            Features in the image's own pixels, best score first.

        Raises:
            InputError: If the image is no such array.
        """
        return self.decode(self.heads(image))

    def heads(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network: the first half of `extract`."""
        return self.predict(pixels(image, self.cell))

    def decode(self, heads: dict[str, np.ndarray]) -> Features:
        """Turns the network's heads into features: the second half of `extract`."""
        return decode(**heads, cell=self.cell, top_k=self.top_k)


def shipped(precision: str = "float32") -> tuple[str, ...]:
    """Returns the names of the networks whose weights come with this package, sorted.

    Weights that have been lost are among them, by their cards: loading them then says what to do.
    """
    suffix = SUFFIXES[precision]
    found = {path.name.removesuffix(suffix) for path in PRETRAINED.glob(f"*{suffix}")}
    card = integrity.card_of(Path(suffix)).name
    found |= {path.name.removesuffix(card) for path in PRETRAINED.glob(f"*{card}")}
    return tuple(sorted(name for name in found if "." not in name))


def load(
    name: str,
    *,
    precision: str = "float32",
    weights: str | Path | None = None,
    **running: Any,
) -> NetworkExtractor:
    """Loads a network that this package ships, or float weights that you trained.

    Args:
        name: A preset, or a shipped variant of one ("kp2d_tiny_s_88").
        precision: A key of `SUFFIXES`.
        weights: A `.weights.h5` file of your own; None takes the shipped ones.
        **running: Of an int8 network: `runtime`, `threads`, `kernels`, `use_tpu`, `device`; see
            `kp2d.methods.runtimes.TFLiteModel`.

    Returns:
        The extractor.

    Raises:
        InputError: If name or precision is unknown, or there are no such weights, or nothing to run them.
    """
    one_of(f"precision of {name}", precision, SUFFIXES)
    if weights is None:
        one_of(f"shipped network in {precision}", name, shipped(precision))
    path = Path(weights) if weights is not None else PRETRAINED / f"{name}{SUFFIXES[precision]}"
    if weights is None and not path.is_file():
        integrity.check(path)  # says that it is lost, and how to get it back
    if path.name.endswith(MODEL):
        return dataclasses.replace(load_model(path, **running), name=name)
    _only_keras(f"{name} in {precision}", **running)
    if importlib.util.find_spec("keras") is None:
        remedy = "Take `precision='int8'`, or run pip install '.[train]' in the folder of kp2d."
        raise problem("Keras, which runs networks in float32", "none installed", remedy)
    backend.quiet()
    from kp2d.methods import networks

    card = files.read_json(path.with_name(path.name.replace(WEIGHTS, ".json"))) or {}
    config = networks.get_preset(card.get("preset", name))
    if not path.is_file():
        raise problem("a .weights.h5 file", f"{path}, which does not exist", "Check the path.")
    digest = integrity.check(path)
    network = networks.build_network(config)
    networks.load_weights(network, network, path)
    predict = compile_predict(network)
    return NetworkExtractor(
        name=name,
        cell=config.cell,
        descriptor_dim=config.descriptor_dim,
        predict=lambda image: predict(normalized(image)),
        sha256=digest,
        bytes=path.stat().st_size,
    )


def _only_keras(name: str, *, runtime: str | None = None, use_tpu: bool | None = None, **_: Any) -> None:
    one_of(f"runtime of {name}", runtime or "keras", ["keras"])
    if use_tpu:
        raise problem("an int8 network for the Edge TPU", name, "Take `precision='int8'`.")


def load_model(path: str | Path, **running: Any) -> NetworkExtractor:
    """Loads a `.tflite` model made by kp2d; the file says which network it is.

    Args:
        path: The file.
        **running: `runtime`, `threads`, `kernels`, `use_tpu`, `device`; see
            `kp2d.methods.runtimes.TFLiteModel`.

    Returns:
        The extractor, named and with the precision as the file says.

    Raises:
        InputError: If the file is no such model or there is nothing to run it.
    """
    model = runtimes.TFLiteModel(path, **running)
    return NetworkExtractor(
        name=model.metadata["name"],
        cell=model.metadata["cell"],
        descriptor_dim=model.metadata["descriptor_dim"],
        predict=model.heads,
        sha256=model.sha256,
        bytes=Path(path).stat().st_size,
        precision=model.metadata["precision"],
        runtime=model.runtime,
        kernels=running.get("kernels", "default"),
        calibration=_calibration(Path(path), model.metadata["precision"]),
    )


def _calibration(model: Path, precision: str) -> str:
    """Returns what a model's ranges were chosen by, as the card beside it says."""
    if not precision.startswith("int"):
        return "none"
    return (files.read_json(integrity.card_of(model)) or {}).get("calibration") or "unknown"


def is_path(name: str) -> bool:
    """Tells whether the name of a method is the path of a model or of trained weights ("runs/mine")."""
    return "/" in name or os.sep in name or name.endswith((WEIGHTS, MODEL))


def find_weights(path: str | Path) -> Path:
    """Finds a model, or the weights of a training run.

    Args:
        path: The folder of the run, or the `.weights.h5` or `.tflite` file itself.

    Returns:
        The file, absolute.

    Raises:
        InputError: If there is none, or a folder holds several.
    """
    path = Path(path).expanduser().resolve()
    found = sorted(path.glob(f"*{WEIGHTS}")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        received = ", ".join(file.name for file in found if file != path) or f"none at {path}"
        raise problem(
            "a .weights.h5 or .tflite file, or the folder of a run with one",
            received,
            "Name the output of kp2d train or kp2d quantize.",
        )
    return found[0]


def preset_of(weights: Path) -> str:
    """Returns which network a `.weights.h5` file is of: run, card or file name tell.

    Raises:
        InputError: If they do not.
    """
    stem = weights.name.removesuffix(WEIGHTS)
    run = files.read_json(weights.with_name("config.json")) or {}
    card = files.read_json(weights.with_name(f"{stem}.json")) or {}
    preset = run.get("preset") or card.get("preset") or stem
    backend.quiet()
    from kp2d.methods import networks

    if not isinstance(preset, str) or preset not in networks.PRESETS:
        raise problem(
            "weights of a known network",
            f"{weights}, whose name, card and run do not tell one",
            "Keep the file in the folder of its run, or name it after its preset: kp2d_tiny_s.weights.h5.",
        )
    if run.get("quantized"):
        raise problem(
            "float weights, or a .tflite model",
            f"{weights}, weights in training for int8",
            "Name the .tflite file that kp2d quantize made of them.",
        )
    return preset


def load_trained(path: str | Path, *, precision: str | None = None, **running: Any) -> NetworkExtractor:
    """Loads a model, or weights that you trained.

    Args:
        path: As for `find_weights`.
        precision: What it must be; None takes what it is.
        **running: As for `load`.

    Returns:
        The extractor, named after the folder of the run (or the file, if that is not named after a preset).

    Raises:
        InputError: If there are no such weights, or it is unknown of which network they are, or the precision
            is another.
    """
    weights = find_weights(path)
    if weights.name.endswith(MODEL):
        extractor = load_model(weights, **running)
        stem = weights.name.removesuffix(MODEL).removesuffix(f".{extractor.precision}")
        extractor = dataclasses.replace(extractor, name=stem)
        one_of(f"precision of {weights.name}", precision or extractor.precision, [extractor.precision])
        return extractor
    one_of(f"precision of {weights.name}", precision or "float32", ["float32"])
    stem = weights.name.removesuffix(WEIGHTS)
    preset = preset_of(weights)
    extractor = load(preset, weights=weights, **running)
    return dataclasses.replace(extractor, name=weights.parent.name if stem == preset else stem)


def compile_predict(network: Any) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Makes a function of NumPy arrays from a network, compiled where the backend can.

    Args:
        network: From `kp2d.methods.networks.build_network`.

    Returns:
        From float32 `[B, H, W, 3]` in [−1, 1] to the network's outputs by name.
    """
    import keras
    from keras import ops

    def forward(x: np.ndarray) -> dict[str, Any]:
        return network(x, training=False)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        forward = tf.function(forward, reduce_retracing=True)
    return lambda x: {name: ops.convert_to_numpy(head) for name, head in forward(x).items()}
