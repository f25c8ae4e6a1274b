"""Owns what a float network needs before it is quantized: ranges of its tensors, and weights made even.

Ranges are measured on real images, and chosen by where to cut them off. Batch norm is folded and channels are
evened in plain NumPy on weights by name; the network's function stays as it is.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kp2d import images
from kp2d.checks import InputError, fits_cells, one_of, problem
from kp2d.data import datasets
from kp2d.methods.decode import normalized, pixels
from kp2d.methods.networks import LETTERS, NetworkConfig
from kp2d.methods.quantized import PIXEL_SHIFT

Weights = dict[str, np.ndarray]  # "conv1a/kernel" to its values

log = logging.getLogger(__name__)

NUM_IMAGES = 40  # to calibrate with
METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99  # of the values, kept on either side by the method of that name
_BINS = 8192
# Parts of the widest range that `mse` tries; outliers may be far out.
_CANDIDATES = np.geomspace(0.01, 1.0, 140)
_SQUASH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "score_b": lambda x: 1 / (1 + np.exp(-x)),
    "offset_b": np.tanh,
}
_LEAST = 0.01  # of the largest channel: quieter ones are not amplified beyond that


@dataclass
class TensorStatistics:
    """What one tensor held."""

    low: float = np.inf  # smallest value
    high: float = -np.inf  # largest value
    # histogram of the values over [low, high]
    counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))
    channel_high: np.ndarray | None = None  # largest value of each channel `[C]`
    channel_mean: np.ndarray | None = None  # mean of each channel `[C]`

    def centers(self) -> np.ndarray:
        """Middle of each bin of the histogram."""
        edges = np.linspace(self.low, self.high, _BINS + 1)
        return (edges[1:] + edges[:-1]) / 2

    def quantile(self, share: float) -> float:
        """Value below which a share of all values lie, to a bin of the histogram."""
        reached = np.searchsorted(np.cumsum(self.counts), share * self.counts.sum())
        return float(self.centers()[min(reached, _BINS - 1)])

    def count(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Adds values within [low, high] to the histogram."""
        span = max(self.high - self.low, 1e-12)
        bins = ((values.ravel() - self.low) * ((_BINS - 1e-3) / span)).astype(np.int32)
        self.counts += np.bincount(np.clip(bins, 0, _BINS - 1), weights=weights, minlength=_BINS)


def read_images(
    folder: str | Path,
    config: NetworkConfig,
    image_size: tuple[int, int],
    count: int = NUM_IMAGES,
    seed: int = 0,
) -> list[np.ndarray]:
    """Reads photographs to calibrate with, chosen at random.

    Args:
        folder: Searched recursively.
        config: Architecture, whose cell must divide the size.
        image_size: (height, width) px they are resized to.
        count: How many, at most.
        seed: Of the choice.

    Returns:
        Network inputs, float32 `[1, H, W, 3]` in [−1, 1] each.

    Raises:
        InputError: If the folder holds no readable picture, the count is below 1, or the size does not fit.
    """
    fits_cells(image_size, config.cell)
    if seed < 0:
        raise problem("a seed of at least 0", seed)
    if count < 1:
        raise problem("one or more images to calibrate with", count)
    paths = datasets.list_images(folder)
    inputs: list[np.ndarray] = []
    left_out = 0
    for index in np.random.default_rng(seed).permutation(len(paths)):
        try:
            image = images.resize_image(images.read_image(paths[index]), image_size)
        except InputError as error:
            log.warning("left out of the calibration: %s", error)
            left_out += 1
            continue
        inputs.append(normalized(pixels(image, config.cell)))
        if len(inputs) == count:
            break
    if not inputs:
        raise problem("a readable picture to calibrate with", f"none in {folder}")
    if left_out:
        log.warning("calibrated with %d pictures of %s, %d left out", len(inputs), folder, left_out)
    return inputs


def measure(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]], images: Sequence[np.ndarray]
) -> dict[str, TensorStatistics]:
    """Measures every tensor of a network over images.

    Args:
        run: From float32 `[1, H, W, 3]` to the tensors by name, each `[1, h, w, C]`.
        images: Network inputs.

    Raises:
        InputError: If there is no image, or a tensor is not finite.
    """
    if not len(images):
        raise problem("one or more images to calibrate with", "none")
    statistics: dict[str, TensorStatistics] = {}
    for image in images:
        for name, values in run(image).items():
            one = statistics.setdefault(name, TensorStatistics())
            if not np.isfinite(values).all():
                raise problem("finite values in the network", f"NaN or infinity in {name}")
            one.low, one.high = min(one.low, float(values.min())), max(one.high, float(values.max()))
            high, mean = values.max(axis=(0, 1, 2)), values.mean(axis=(0, 1, 2)) / len(images)
            first = one.channel_high is None
            one.channel_high = high if first else np.maximum(one.channel_high, high)
            one.channel_mean = mean if first else one.channel_mean + mean
    for image in images:  # histograms want to know the range first
        for name, values in run(image).items():
            statistics[name].count(values)
    return statistics


def choose_range(
    name: str, statistics: TensorStatistics, *, method: str = "mse", bits: int = 8
) -> tuple[float, float]:
    """Chooses the range of a tensor.

    Args:
        name: The tensor; for the inputs of sigmoid and tanh, `mse` looks at what comes out of them, and most
            at high scores.
        statistics: What it held.
        method: `"minmax"` cuts nothing off, `"percentile"` the outermost values, `"mse"` what makes the mean
            squared error of rounding and cutting off smallest.
        bits: Of the grid.

    Returns:
        (smallest, largest), 0 between them.

    Raises:
        InputError: If the method is unknown.
    """
    one_of("calibration method", method, METHODS)
    low, high = min(statistics.low, 0.0), max(statistics.high, 1e-6)
    if method == "minmax":
        return low, high
    centers, counts = statistics.centers(), statistics.counts
    if method == "percentile":
        cut = 1 - PERCENTILE / 100
        return min(statistics.quantile(cut), 0.0), max(statistics.quantile(1 - cut), 1e-6)
    squash = _SQUASH.get(name, lambda x: x)
    wanted = squash(centers)
    weights = counts * wanted**2 if name == "score_b" else counts  # high scores decide what is kept

    def error(ends: tuple[float, float]) -> float:
        return float((weights * (squash(round_to_grid(centers, *ends, bits)) - wanted) ** 2).sum())

    if low == 0.0:
        return min(((0.0, high * part) for part in _CANDIDATES), key=error)
    best = (low, high)
    for _ in range(2):  # one end after the other
        best = min(((best[0], high * part) for part in _CANDIDATES), key=error)
        best = min(((low * part, best[1]) for part in _CANDIDATES), key=error)
    return best


def round_to_grid(values: np.ndarray, low: float, high: float, bits: int = 8) -> np.ndarray:
    """Rounds values of any shape to the 2^bits of a range, as TFLite does: 0 lies on the grid."""
    scale = (high - low) / (2**bits - 1)
    zero_point = np.clip(np.round(-low / scale), 0, 2**bits - 1)
    return (np.clip(np.round(values / scale) + zero_point, 0, 2**bits - 1) - zero_point) * scale


def merged(statistics: Iterable[TensorStatistics]) -> TensorStatistics:
    """Joins the statistics of tensors that share a range; channels are forgotten."""
    parts = list(statistics)
    one = TensorStatistics(low=min(p.low for p in parts), high=max(p.high for p in parts))
    for part in parts:
        one.count(part.centers(), part.counts)
    return one


def fold(weights: Mapping[str, np.ndarray]) -> Weights:
    """Folds every batch normalization of a float network into the convolution before it.

    Weights go by path: "conv1a/kernel", "conv1a_bn/gamma" … Returns kernel and bias of every convolution, for
    images that enter as (p − 127) / 127.5; and a sharpness of 1.
    """
    folded = {"score_sharpen/sharpness": np.float32(1)}
    for path, kernel in weights.items():
        layer, _, kind = path.rpartition("/")
        if kind != "kernel":
            continue
        bias = weights.get(f"{layer}/bias", np.zeros(kernel.shape[-1]))
        if f"{layer}_bn/gamma" in weights:
            gamma, beta, mean, variance = (
                np.asarray(weights[f"{layer}_bn/{name}"], np.float64)
                for name in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            factor = gamma / np.sqrt(variance + 1e-3)  # Keras' default
            kernel, bias = kernel * factor, beta + (bias - mean) * factor
        if layer == "conv1a":
            bias = bias - PIXEL_SHIFT * kernel.sum(axis=(0, 1, 2))
        folded[f"{layer}/kernel"] = np.asarray(kernel, np.float32)
        folded[f"{layer}/bias"] = np.asarray(bias, np.float32)
    return folded


def consumers(config: NetworkConfig) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Tells who reads the output of each convolution that an activation follows.

    Returns:
        Layer to its readers; each with the index `[inputs]` of the producer's channel behind each of the
        reader's input channels, −1 where another layer's.
    """
    own = {name: np.arange(channels) for name, (channels, _) in config.encoder.items()}
    readers = {name: [(after, own[name])] for name, after in itertools.pairwise(own)}
    last = next(reversed(own))
    readers[last] = [(f"{head}_a", own[last]) for head in ("score", "offset", "descriptor")]
    hidden = np.arange(config.head_channels)
    readers |= {"score_a": [("score_b", hidden)], "offset_a": [("offset_b", hidden)]}
    if config.descriptor_blocks:
        names = [f"descriptor_{end}" for end in (*LETTERS[: len(config.descriptor_blocks)], "map")]
        for width, (name, after) in zip(config.descriptor_blocks, itertools.pairwise(names), strict=True):
            readers[name] = [(after, np.arange(width))]
        return readers
    upsampled, skip = config.upsampled_channels, own["conv3b"].size
    readers["conv3b"].append(("descriptor_c", np.r_[np.full(upsampled, -1), own["conv3b"]]))
    readers["descriptor_a"] = [("descriptor_b", hidden)]
    if config.upsampling == "nearest":
        readers["descriptor_a"] = [("descriptor_narrow", hidden)]
        readers["descriptor_narrow"] = [("descriptor_b", np.arange(upsampled))]
        joined = np.r_[np.arange(upsampled), np.full(skip, -1)]
        readers["descriptor_b"] = [("descriptor_c", joined)]
    readers["descriptor_c"] = [("descriptor_map", np.arange(config.merge_channels))]
    return readers


def equalize(
    weights: Mapping[str, np.ndarray],
    largest: Mapping[str, np.ndarray],
    config: NetworkConfig,
    *,
    strength: float = 0.5,
) -> Weights:
    """Evens out the channels of every activation, the next kernels taking up the difference.

    ReLU lets positive factors through, so a channel may be divided by s and what reads it multiplied by s
    (cross-layer equalization; Nagel et al., ICCV 2019). Kernels have a scale per output channel, so what is
    traded is the range of an activation's channel against that of the columns which read it.

    Args:
        weights: From `fold`.
        largest: Layer to the largest value of each of its channels `[C]`, measured.
        config: Architecture.
        strength: 1 makes the channels of an activation equally large, 0 the columns that read them.

    Returns:
        Weights of the same function. The two activations that are concatenated get one largest value.
    """
    changed = {path: value.astype(np.float64) for path, value in weights.items()}
    factors = {}
    for layer, readers in consumers(config).items():
        reach = np.maximum(np.asarray(largest[layer], np.float64), _LEAST * np.max(largest[layer]) + 1e-12)
        columns = np.zeros_like(reach)
        for reader, source in readers:
            own = np.abs(changed[f"{reader}/kernel"]).max(axis=(0, 1, 3))
            np.maximum.at(columns, source[source >= 0], own[source >= 0])
        columns = np.maximum(columns, _LEAST * columns.max() + 1e-12)
        factor = (reach / reach.max()) ** strength / (columns / columns.max()) ** (1 - strength)
        factors[layer] = factor * reach.max() / (reach / factor).max()
        _divide(changed, layer, readers, factors[layer])
    if config.joined:
        _match_joined(changed, largest, factors, config)
    return {path: value.astype(np.float32) for path, value in changed.items()}


def _divide(weights: Weights, layer: str, readers, factor: np.ndarray) -> None:
    weights[f"{layer}/kernel"] = weights[f"{layer}/kernel"] / factor
    weights[f"{layer}/bias"] = weights[f"{layer}/bias"] / factor
    for reader, source in readers:
        columns = np.where(source >= 0, factor[source], 1.0)
        weights[f"{reader}/kernel"] = weights[f"{reader}/kernel"] * columns[:, None]


def _match_joined(weights: Weights, largest, factors, config: NetworkConfig) -> None:
    """Scales the upsampled descriptor so that it is as large as the skip that it is joined to."""
    skip, descriptor = (
        float((np.asarray(largest[name]) / factors.get(name, 1.0)).max())
        for name in ("conv3b", "descriptor_b")
    )
    upsampled, channels = config.upsampled_channels, weights["descriptor_b/bias"].size
    factor = np.full(channels, max(descriptor, 1e-12) / skip)
    source = np.r_[np.arange(upsampled), np.full(config.encoder["conv3b"][0], -1)]
    _divide(weights, "descriptor_b", [("descriptor_c", source)], factor)


def input_mean(layer: str, means: Mapping[str, np.ndarray], config: NetworkConfig) -> np.ndarray:
    """Returns the mean of each input channel `[inputs]` of a convolution; that pooling raises it is left out.

    Measured is, of each tensor, the mean of each of its channels `[C]`.
    """
    if layer == "conv1a":
        return means["image"]
    if layer == "descriptor_c" and config.joined:
        upsampled = means["descriptor_b"].reshape(-1, config.upsampled_channels)
        return np.concatenate([upsampled.mean(axis=0), means["conv3b"]])
    for producer, readers in consumers(config).items():
        if layer in [reader for reader, _ in readers]:
            return means[producer]
    raise KeyError(layer)
