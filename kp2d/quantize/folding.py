"""Owns changes of a network's weights that leave its function as it is: batch norm folded, channels evened.

Both are plain NumPy on weights by name, and give what `kp2d.methods.quantized` takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from kp2d.methods.networks import LETTERS, NetworkConfig
from kp2d.methods.quantized import PIXEL_SHIFT

Weights = dict[str, np.ndarray]  # "conv1a/kernel" to its values
_LEAST = 0.01  # of the largest channel: quieter ones are not amplified beyond that


def fold(weights: Mapping[str, np.ndarray], *, epsilon: float = 1e-3) -> Weights:
    """Folds every batch normalization into the convolution before it.

    Args:
        weights: Of a float network, by path: "conv1a/kernel", "conv1a_bn/gamma" …
        epsilon: Of the batch normalization (Keras' default).

    Returns:
        Kernel and bias of every convolution, for images that enter as (p − 127) / 127.5;
        and a sharpness of 1.
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
            factor = gamma / np.sqrt(variance + epsilon)
            kernel, bias = kernel * factor, beta + (bias - mean) * factor
        if layer == "conv1a":
            bias = bias - PIXEL_SHIFT * kernel.sum(axis=(0, 1, 2))
        folded[f"{layer}/kernel"] = np.asarray(kernel, np.float32)
        folded[f"{layer}/bias"] = np.asarray(bias, np.float32)
    return folded


def consumers(config: NetworkConfig) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Tells who reads the output of each convolution that an activation follows.

    Args:
        config: Architecture.

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
    """Returns the mean of each input channel of a convolution; that max pooling raises it is left out.

    Args:
        layer: The convolution.
        means: Tensor to the mean of each of its channels `[C]`, measured.
        config: Architecture.

    Returns:
        `[inputs]`.
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
