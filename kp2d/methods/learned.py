"""Owns our networks as keypoint methods: the extractor, and what loads it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import backend
from kp2d.checks import one_of, problem
from kp2d.methods import runtimes
from kp2d.methods.decode import Features, QuantizedMap, decode, normalized, pixels
from kp2d.methods.weights import Weights, is_path, load_network, resolve

OPTIONS = ("runtime", "threads", "kernels", "use_tpu", "device")  # of `kp2d.methods.runtimes.TFLiteModel`
PYRAMID = "+pyramid"  # in the name of a method, before the number of its levels
MAX_LEVELS = 4
Run = Callable[[np.ndarray], dict[str, np.ndarray | QuantizedMap]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkExtractor:
    """A KeypointNet behind the interface of `kp2d.methods.extractors.Extractor`.

    Attributes:
        name: The method; "kp2d_tiny_s+pyramid2" with a pyramid of two levels.
        cell: Cell side, px; the sides of an image must be divisible by it.
        descriptor_dim: Length of a descriptor.
        predict: From uint8 RGB `[1, H, W, 3]` to the three heads as float32 NumPy arrays.
        decodable: As `predict`, with a descriptor map that may still be in integers; None takes `predict`.
        sha256: Of the weights; tells exported features of other weights apart.
        bytes: Of the file.
        top_k: Features kept an image; None keeps all.
        kernels: Those of a TFLite runtime; see `kp2d.methods.runtimes.KERNELS`.
        calibration: See `kp2d.methods.extractors.Extractor`.
        steered: Whether descriptors turn with their image (`kp2d.methods.matching.turn`).
        smaller: What runs the network on each further level of an image pyramid, as `decodable` on the image;
            each holds the tensors of one size, which would be allocated anew if one took turns.
    """

    name: str
    cell: int
    descriptor_dim: int
    predict: Callable[[np.ndarray], dict[str, np.ndarray]]
    sha256: str
    decodable: Run | None = None
    bytes: int = 0
    top_k: int | None = None
    precision: str = "float32"
    runtime: str = "keras"
    kernels: str = "default"
    calibration: str = "none"
    concurrent: bool = False
    probabilistic: bool = True
    binary: bool = False
    steered: bool = False
    smaller: tuple[Run, ...] = ()

    @property
    def label(self) -> str:
        """See `kp2d.methods.extractors.Extractor`."""
        return f"{self.name} {self.precision}{' on Edge TPU' if 'edgetpu' in self.runtime else ''}"

    @property
    def descriptor_bytes(self) -> int:
        """Bytes of one keypoint's descriptor."""
        return 4 * self.descriptor_dim

    def settings(self) -> dict[str, Any]:
        """Returns everything that determines the result."""
        settings: dict[str, Any] = {
            "method": self.name,
            "precision": self.precision,
            "sha256": self.sha256,
            "top_k": self.top_k,
        }
        if self.runtime != "keras":
            settings |= {"runtime": self.runtime, "kernels": self.kernels}
        if self.smaller:
            settings["pyramid"] = 1 + len(self.smaller)
        return settings

    def extract(self, image: np.ndarray) -> Features:
        """Finds keypoints in uint8 RGB `[H, W, 3]`, both sides divisible by the cell; best score first.

        Raises:
            InputError: If the image is no such array, or too small for the smallest level of the pyramid.
        """
        return self.timed(image)[0]

    def heads(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network: the first half of `extract`."""
        return self.predict(pixels(image, self.cell))

    def decode(self, heads: dict[str, np.ndarray | QuantizedMap]) -> Features:
        """Turns the network's heads into features: the second half of `extract`."""
        return decode(**heads, cell=self.cell, top_k=self.top_k)

    def timed(self, image: np.ndarray) -> tuple[Features, dict[str, float]]:
        """See `kp2d.methods.extractors.Extractor.timed`; "decode" has all that is not the network."""
        started, network = time.perf_counter(), 0.0
        seen, found = pixels(image, self.cell), []
        for run, level in zip(
            (self.decodable or self.predict, *self.smaller), self._levels(seen), strict=True
        ):
            before = time.perf_counter()
            heads = run(level)
            network += time.perf_counter() - before
            found.append(self.decode(heads))
        features = self._joined(found, seen.shape[1:3]) if self.smaller else found[0]
        return features, {"network": 1e3 * network, "decode": 1e3 * (time.perf_counter() - started - network)}

    def _levels(self, seen: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the pixels of each level of the pyramid, those of the image first."""
        least = 3 * self.cell << len(self.smaller)
        if min(seen.shape[1:3]) < least:
            expected = f"sides of at least {least} px for `pyramid={1 + len(self.smaller)}`"
            raise problem(expected, seen.shape[1:3], "Take fewer levels, or a larger image.")
        yield seen
        for _ in self.smaller:
            seen = halved(seen)
            missing = [(0, -side % self.cell) for side in seen.shape[1:3]]
            yield np.pad(seen, ((0, 0), *missing, (0, 0)), mode="edge")

    def _joined(self, found: Sequence[Features], image_size: tuple[int, int]) -> Features:
        """Returns the best features of all levels in pixels of the image; of equal scores the finer first."""
        # A pixel's centre lies half a pixel off its edge at every level.
        places = [level.keypoints * 2**step + (2**step - 1) / 2 for step, level in enumerate(found)]
        features = Features(
            keypoints=np.clip(np.concatenate(places), 0, np.array(image_size[::-1]) - 1).astype(np.float32),
            scores=np.concatenate([level.scores for level in found]),
            descriptors=np.concatenate([level.descriptors for level in found]),
        )
        return features.take(np.argsort(-features.scores, kind="stable")[: self.top_k])


def halved(batch: np.ndarray) -> np.ndarray:
    """Halves images: a pixel is the rounded mean of four; of an odd side the last row or column is repeated.

    From uint8 `[B, H, W, C]` to `[B, ⌈H/2⌉, ⌈W/2⌉, C]`.
    """
    height, width = batch.shape[1:3]
    even = np.pad(batch, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rows = even[:, ::2].astype(np.uint16) + even[:, 1::2]
    return ((rows[:, :, ::2] + rows[:, :, 1::2] + 2) >> 2).astype(np.uint8)


def load(
    name: str | Path, *, precision: str | None = None, pyramid: int = 1, **running: Any
) -> NetworkExtractor:
    """Loads a network that this package ships, a model, or float weights that you trained.

    Args:
        name: As for `kp2d.methods.weights.resolve`.
        precision: A key of `kp2d.methods.weights.SUFFIXES`; None takes "float32" of a shipped network ("int8"
            for an Edge TPU), and what a file is.
        pyramid: Levels of an image pyramid: the network also sees the image at half its size, and so on, and
            the best keypoints of all levels are kept. For pairs that differ in scale; 1 is the image alone.
        **running: Of a `.tflite` model: one of `OPTIONS`.

    Returns:
        The extractor.

    Raises:
        InputError: If there are no such weights, the precision is another, there is nothing to run them, or
            `pyramid` is no whole number of levels or for an Edge TPU, whose models have one size.
    """
    levels = checked_levels(pyramid)
    if precision is None and running.get("use_tpu") and not is_path(str(name)):
        precision = "int8"
    for option in running:
        one_of(f"option of {name}", option, (*OPTIONS, "pyramid"))
    weights = resolve(name, precision)
    run = functools.partial(_run_model if weights.is_model else _run_keras, weights, **running)
    extractor = run()
    if levels == 1:
        return extractor
    if "edgetpu" in extractor.runtime:
        remedy = "Leave `pyramid` out, or run the network on the CPU."
        raise problem("a network that takes images of any size for `pyramid`", extractor.label, remedy)
    smaller = [run() for _ in range(1, levels)]
    return dataclasses.replace(
        extractor,
        name=f"{weights.name}{PYRAMID}{levels}",
        smaller=tuple(level.decodable or level.predict for level in smaller),
    )


def checked_levels(pyramid: Any) -> int:
    """Returns the number of levels of an image pyramid.

    Raises:
        InputError: If it is no whole number from 1 to `MAX_LEVELS`.
    """
    if isinstance(pyramid, bool) or not isinstance(pyramid, int) or not 1 <= pyramid <= MAX_LEVELS:
        raise problem(f"`pyramid` as a whole number of levels from 1 to {MAX_LEVELS}", repr(pyramid))
    return pyramid


def _run_model(weights: Weights, **running: Any) -> NetworkExtractor:
    model = runtimes.TFLiteModel(weights.path, **running)
    return NetworkExtractor(
        name=weights.name,
        cell=model.metadata["cell"],
        descriptor_dim=model.metadata["descriptor_dim"],
        predict=model.heads,
        decodable=model.decodable,
        sha256=model.sha256,
        bytes=weights.path.stat().st_size,
        precision=weights.precision,
        runtime=model.runtime,
        kernels=running.get("kernels", "default"),
        calibration=weights.calibration,
        steered=weights.steered,
    )


def _run_keras(weights: Weights, **running: Any) -> NetworkExtractor:
    _only_keras(f"{weights.name} in {weights.precision}", **running)
    if importlib.util.find_spec("keras") is None:
        remedy = "Take `precision='int8'`, or run pip install '.[train]' in the folder of kp2d."
        raise problem("Keras, which runs networks in float32", "none installed", remedy)
    backend.quiet()
    network, config = load_network(weights.preset, weights.path)
    predict = compile_predict(network)
    return NetworkExtractor(
        name=weights.name,
        cell=config.cell,
        descriptor_dim=config.descriptor_dim,
        predict=lambda image: predict(normalized(image)),
        sha256=weights.sha256,
        bytes=weights.path.stat().st_size,
        steered=weights.steered,
    )


def _only_keras(
    name: str,
    *,
    runtime: str | None = None,
    use_tpu: bool | None = None,
    threads: int | None = None,
    **_: Any,
) -> None:
    one_of(f"runtime of {name}", runtime or "keras", ["keras"])
    if use_tpu:
        raise problem("an int8 network for the Edge TPU", name, "Take `precision='int8'`.")
    if threads is not None:
        raise problem(f"no number of threads for {name}", threads, "They are for .tflite models.")


def compile_predict(network: Any) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Makes a function of NumPy arrays from a network, compiled where the backend can.

    It goes from float32 `[B, H, W, 3]` in [−1, 1] to the network's outputs by name.
    """
    import keras
    from keras import ops

    def forward(x: np.ndarray) -> dict[str, Any]:
        return network(x, training=False)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        forward = tf.function(forward, reduce_retracing=True)
    return lambda x: {name: ops.convert_to_numpy(head) for name, head in forward(x).items()}
