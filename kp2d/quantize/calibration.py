"""Owns the ranges of a quantized network: what its tensors hold on real images, and where to cut them off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kp2d import images
from kp2d.checks import InputError, fits_cells, one_of, problem
from kp2d.data import datasets
from kp2d.methods.decode import normalized, pixels
from kp2d.methods.networks import NetworkConfig

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


@dataclass
class TensorStatistics:
    """What one tensor held.

    Attributes:
        low: Smallest value.
        high: Largest value.
        counts: Histogram of the values over [low, high].
        channel_high: Largest value of each channel `[C]`.
        channel_mean: Mean of each channel `[C]`.
    """

    low: float = np.inf
    high: float = -np.inf
    counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))
    channel_high: np.ndarray | None = None
    channel_mean: np.ndarray | None = None

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

    Returns:
        Name to its statistics.

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
    """Rounds values to the grid of a range, as TFLite does: 0 lies on it.

    Args:
        values: Any shape.
        low: Smallest value, at most 0.
        high: Largest value, above 0.
        bits: The grid has 2^bits values.

    Returns:
        The same shape.
    """
    scale = (high - low) / (2**bits - 1)
    zero_point = np.clip(np.round(-low / scale), 0, 2**bits - 1)
    return (np.clip(np.round(values / scale) + zero_point, 0, 2**bits - 1) - zero_point) * scale


def bias_correction(kernel: np.ndarray, rounded: np.ndarray, input_mean: np.ndarray) -> np.ndarray:
    """Returns what rounding a kernel adds to the mean of each output channel (Nagel et al., ICCV 2019).

    Args:
        kernel: `[3, 3, C, N]`.
        rounded: The same after rounding.
        input_mean: Mean of each input channel `[C]`.

    Returns:
        `[N]`, to be subtracted from the bias.
    """
    return np.einsum("hwcn,c->n", rounded - kernel, input_mean)


def merged(statistics: Iterable[TensorStatistics]) -> TensorStatistics:
    """Joins the statistics of tensors that share a range; channels are forgotten."""
    parts = list(statistics)
    one = TensorStatistics(low=min(p.low for p in parts), high=max(p.high for p in parts))
    for part in parts:
        one.count(part.centers(), part.counts)
    return one
