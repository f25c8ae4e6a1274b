"""Owns how a float network becomes an int8 one: quantized after training, or by training on the grid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kp2d import backend, files
from kp2d.checks import one_of, problem
from kp2d.methods.extractors import Method
from kp2d.methods.learned import compile_predict
from kp2d.methods.networks import NetworkConfig
from kp2d.methods.quantized import (
    FLOAT,
    INT8,
    Scheme,
    assign_by_name,
    build_inspector,
    build_quantized_network,
    quantize_kernel,
)
from kp2d.methods.weights import MODEL, load_network, resolve
from kp2d.quantize import calibration
from kp2d.train import checkpoint
from kp2d.train.recipes import from_recipe

NUM_EXAMPLES = 4  # of them, to refine ranges with
_REFINED_PARTS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.22, 0.16)  # of a range
# So many of the logits of scores are to be below so much: sigmoid(5) is two of 256 steps below the largest.
HIGHEST_SCORES, HIGHEST_LOGIT = 0.9999, 5.0


@dataclass(frozen=True, kw_only=True)
class FloatNetwork:
    """Trained float weights."""

    name: str  # of the method
    method: str  # as for `kp2d.methods.extractors.create`
    network: keras.Model  # from `kp2d.methods.networks.build_network`
    config: NetworkConfig  # its architecture
    sha256: str  # of the weights' file
    steered: bool = False  # whether the descriptors turn with their image


def load_float(name: str) -> FloatNetwork:
    """Loads float weights: a network that this package ships, or the path of trained weights.

    Raises:
        InputError: If there are no such weights.
    """
    if name.endswith(MODEL):
        raise problem("float weights, a .weights.h5 file", name)
    told = Method.parse(name)
    weights = resolve(
        told.name, one_of(f"precision of {told.name}", told.precision or "float32", ["float32"])
    )
    network, config = load_network(weights.preset, weights.path)
    return FloatNetwork(
        name=weights.name,
        method=name,
        network=network,
        config=config,
        sha256=weights.sha256,
        steered=weights.steered,
    )


@dataclass(frozen=True, kw_only=True)
class PostTraining:
    """How weights and ranges are chosen without training."""

    method: str = "mse"  # of `kp2d.quantize.calibration.choose_range`
    # strength of `kp2d.quantize.calibration.equalize`; None leaves the channels as they are
    equalize: float | None = 0.5
    # whether score logits are divided so that good keypoints do not share one int8 score; what reads the
    # model multiplies them again (`kp2d.methods.decode.sharpen`)
    spread_scores: bool = True
    correct_bias: bool = True  # whether the mean error of rounded kernels is taken out of the biases
    # whether the hidden tensors of the heads are cut off where the heads' outputs are nearest to the float
    # network's: what is rare and large there often ends where sigmoid and tanh are flat
    refine: bool = True

    def __post_init__(self) -> None:
        one_of("calibration method", self.method, calibration.METHODS)
        if self.equalize is not None and not 0 <= self.equalize <= 1:
            raise problem("a strength of equalization in [0, 1], or None", self.equalize)


def post_training(
    network: keras.Model,
    config: NetworkConfig,
    images: Sequence[np.ndarray],
    *,
    options: PostTraining | None = None,
) -> keras.Model:
    """Quantizes a trained float network without training.

    Args:
        network: From `kp2d.methods.networks.build_network`.
        config: Its architecture.
        images: Network inputs to calibrate with, float32 `[1, H, W, 3]` each.
        options: How; None takes the best known.

    Raises:
        InputError: If there is no image, or the network is not finite.
    """
    options = options or PostTraining()
    calibrated = calibrate(
        network, config, images, equalize=options.equalize, spread_scores=options.spread_scores
    )
    return quantize(calibrated, config, options)


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A float network ready to be quantized."""

    # kernels and biases, batch norm folded, channels evened, scores spread; and the sharpness
    weights: calibration.Weights
    statistics: dict[str, calibration.TensorStatistics]  # what its tensors held on the images
    # a few of the images, each with the float network's outputs
    examples: list[tuple[np.ndarray, dict[str, np.ndarray]]]


@backend.own_settings()
def calibrate(
    network: keras.Model,
    config: NetworkConfig,
    images: Sequence[np.ndarray],
    *,
    equalize: float | None = PostTraining.equalize,
    spread_scores: bool = PostTraining.spread_scores,
) -> Calibrated:
    """Folds a float network and measures it; the part of `post_training` that takes time, with its options.

    Raises:
        InputError: If there is no image, or the network is not finite.
    """
    weights = calibration.fold(read_weights(network))
    inspector = build_inspector(config, scheme=FLOAT)
    run = compile_predict(inspector)

    def measured() -> dict[str, calibration.TensorStatistics]:
        assign_by_name(inspector, _with_ranges(inspector, weights))
        return calibration.measure(run, images)

    statistics = measured()
    if equalize is not None:
        largest = {name: one.channel_high for name, one in statistics.items()}
        weights = calibration.equalize(weights, largest, config, strength=equalize)
    sharpness = 1.0
    if spread_scores:
        sharpness = max(1.0, statistics["score_b"].quantile(HIGHEST_SCORES) / HIGHEST_LOGIT)
    for kind in ("kernel", "bias"):
        weights[f"score_b/{kind}"] = weights[f"score_b/{kind}"] / np.float32(sharpness)
    weights["score_sharpen/sharpness"] = np.float32(sharpness)
    plain = compile_predict(network)
    examples = [(image, plain(image)) for image in images[:NUM_EXAMPLES]]
    return Calibrated(weights=weights, statistics=measured(), examples=examples)


@backend.own_settings()
def quantize(
    calibrated: Calibrated, config: NetworkConfig, options: PostTraining, scheme: Scheme = INT8
) -> keras.Model:
    """Chooses ranges and corrects biases; see `post_training`."""
    weights = calibrated.weights
    if options.correct_bias:
        weights = _correct_biases(weights, calibrated.statistics, config, scheme)
    chosen = ranges(calibrated.statistics, options.method, scheme, config.joined)
    network = quantized_from(config, weights, chosen, scheme)
    if options.refine:
        _refine(network, calibrated.examples)
    return network


def _refine(network: keras.Model, examples: Sequence[tuple[np.ndarray, dict[str, np.ndarray]]]) -> None:
    """Cuts off the hidden tensor of each head where the head's output is best; no head sees another's."""
    predict = compile_predict(network)
    highs = {head: network.get_layer(f"{head}_a_range").high for head in ("score", "offset", "descriptor")}
    widest = {head: float(ops.convert_to_numpy(high)) for head, high in highs.items()}
    errors: dict[str, dict[float, float]] = {head: {} for head in highs}
    for part in _REFINED_PARTS:
        for head, high in highs.items():
            high.assign(widest[head] * part)
        pairs = [(predict(image), wanted) for image, wanted in examples]
        for head, found in errors.items():
            found[part] = sum(_head_error(f"{head}_map", *pair) for pair in pairs)
    for head, high in highs.items():
        high.assign(widest[head] * min(errors[head], key=errors[head].get))


def _head_error(name: str, heads: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """Squared error of a head, by the float network's score where the map has its resolution."""
    error = np.square(heads[name] - wanted[name], dtype=np.float64)
    return float((error * wanted["score_map"]).sum() if name != "descriptor_map" else error.sum())


@backend.own_settings()
def aware_training(
    network: keras.Model,
    source: FloatNetwork,
    *,
    data: str | Path,
    output: str | Path,
    progress: bool = True,
    **settings: Any,
) -> tuple[keras.Model, Path]:
    """Trains a quantized network to repeat its float network on the grid on which it will compute.

    Args:
        network: From `post_training`.
        source: The float network.
        data: Folder of photographs.
        output: Folder for runs; an interrupted one goes on, a finished one is not repeated.
        progress: Whether to show a progress bar.
        **settings: Changes of the recipe `kp2d_int8`, as in `kp2d.train.recipes.from_recipe` (`steps=400`).

    Returns:
        The trained network, and the folder of its run.

    Raises:
        InputError: If a setting or the folder does not work.
        DivergenceError: If a loss stops being finite.
    """
    from kp2d.train.training import train

    for name in ("data", "output", "recipe", "preset", "quantized", "teacher", "initial_weights"):
        if name in settings:
            raise problem("a setting that the training on the int8 grid leaves open", name)
    start, teacher = (Path(output) / f"{name}.weights.h5" for name in ("start", "teacher"))
    files.check_writable(start)
    checkpoint.save_weights(network, start)
    checkpoint.save_weights(source.network, teacher)
    values = b"".join(value.tobytes() for value in read_weights(network).values())
    run = Path(output) / hashlib.sha256(values).hexdigest()[:12]  # other weights never resume this run
    fixed = {"preset": source.config.name, "initial_weights": str(start), "teacher": str(teacher)}
    run_config = from_recipe(
        "kp2d_int8", data=str(data), output=str(run), **{"wandb": False, **settings, **fixed}
    )
    return train(run_config, progress=progress).network, run


def read_weights(network: keras.Model) -> calibration.Weights:
    """Returns the weights of a network by path."""
    return {variable.path: ops.convert_to_numpy(variable) for variable in network.weights}


def ranges(
    statistics: Mapping[str, calibration.TensorStatistics],
    method: str,
    scheme: Scheme,
    joined: Sequence[str],
) -> dict[str, tuple[float, float]]:
    """Chooses the range of every tensor; those that are joined (`NetworkConfig.joined`) share one, "skip"."""
    statistics = dict(statistics)
    if joined:
        statistics["skip"] = calibration.merged([statistics.pop(name) for name in joined])
    chosen = {}
    for name, one in statistics.items():
        bits = scheme.descriptor_bits if name == "descriptor_map" else scheme.activation_bits
        chosen[name] = calibration.choose_range(name, one, method=method, bits=bits)
    return chosen


def chosen_ranges(network: keras.Model) -> dict[str, tuple[float, float]]:
    """Returns (smallest, largest) of every tensor of a quantized network, by name."""
    ends = {path: float(value) for path, value in read_weights(network).items() if "_range/" in path}
    tensors = {path.partition("_range/")[0] for path in ends}
    found = {name: (ends[f"{name}_range/low"], ends[f"{name}_range/high"]) for name in tensors}
    if "skip" in found:
        found |= dict.fromkeys(("conv3b", "descriptor_b"), found.pop("skip"))
    return found


def quantized_from(
    config: NetworkConfig,
    weights: Mapping[str, np.ndarray],
    chosen: Mapping[str, tuple[float, float]],
    scheme: Scheme = INT8,
) -> keras.Model:
    """Builds a quantized network of given kernels, biases and ranges; prescribed ranges stay as they are."""
    network = build_quantized_network(config, scheme=scheme)
    for variable in network.weights:
        layer, _, kind = variable.path.rpartition("/")
        tensor = layer.removesuffix("_range")
        if tensor == layer:
            variable.assign(weights[variable.path])
        elif tensor in chosen and network.get_layer(layer).fixed != "both":
            variable.assign(chosen[tensor][kind == "high"])
    return network


def inspect(
    config: NetworkConfig, weights: Mapping[str, np.ndarray], scheme: Scheme
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Makes a function from an image to every stored tensor of a network with these weights, by name."""
    inspector = build_inspector(config, scheme=scheme)
    assign_by_name(inspector, _with_ranges(inspector, weights))
    return compile_predict(inspector)


def _with_ranges(network: keras.Model, weights: Mapping[str, np.ndarray]) -> dict[str, object]:
    return {variable.path: weights.get(variable.path, variable) for variable in network.weights}


def _correct_biases(weights, statistics, config: NetworkConfig, scheme: Scheme):
    corrected = dict(weights)
    means = {name: tensor.channel_mean for name, tensor in statistics.items()}
    for path, kernel in weights.items():
        layer, _, kind = path.rpartition("/")
        if kind == "kernel" and scheme.quantizes(layer):
            rounded = quantize_kernel(
                ops.convert_to_tensor(kernel), scheme.weight_bits, per_channel=scheme.per_channel
            )
            mean = calibration.input_mean(layer, means, config)
            # What rounding adds to the mean of each output channel (Nagel et al., ICCV 2019).
            error = np.einsum("hwcn,c->n", ops.convert_to_numpy(rounded) - kernel, mean)
            corrected[f"{layer}/bias"] = (weights[f"{layer}/bias"] - error).astype(np.float32)
    return corrected
