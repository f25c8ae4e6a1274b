"""Owns the question of what int8 costs: variants of the quantization side by side, errors layer by layer."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from kp2d import files, images, provenance
from kp2d.config import Protocol, fingerprint
from kp2d.data import datasets
from kp2d.evaluate import averages, comparison, evaluation, tables
from kp2d.methods import extractors
from kp2d.methods.decode import normalized
from kp2d.methods.learned import NetworkExtractor, compile_predict
from kp2d.methods.quantized import FLOAT, INT8, PARTS, Scheme, quantize_kernel
from kp2d.quantize import calibration, convert, quantization
from kp2d.quantize.quantization import Calibrated, FloatNetwork, PostTraining

HEADS = ("score", "offset", "descriptor")
_COMPARED = (*tables.METRICS, "auc_3")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to quantize."""

    group: str  # which question it belongs to
    name: str  # what it changes
    num_images: int = calibration.NUM_IMAGES  # to calibrate with
    data: str = "photographs"  # `"photographs"`, or `"noise"`, pixels drawn evenly at random
    # of `kp2d.quantize.quantization.post_training`
    options: PostTraining = field(default_factory=PostTraining)
    scheme: Scheme = INT8  # what is quantized
    score_threshold: float = 0.0  # of the evaluation


def variants(num_images: int = calibration.NUM_IMAGES, most_images: int = 500) -> list[Variant]:
    """Lists the variants of the study, those of one question together.

    They calibrate with `num_images`, but for those that change it, up to `most_images`.
    """
    plain = {"correct_bias": False, "equalize": None, "spread_scores": False, "refine": False}

    def variant(group: str, name: str, **changes: Any) -> Variant:
        return Variant(**{"group": group, "name": name, "num_images": num_images, **changes})

    counts = [count for count in (1, 5, 20, 100, 500) if count <= most_images]
    without = {part: tuple(other for other in PARTS if other != part) for part in PARTS}
    return [
        variant("all int8", "post-training"),
        *(variant("calibration images", f"{count}", num_images=count) for count in counts),
        variant("calibration data", "noise", data="noise"),
        variant("ranges", "smallest to largest", options=PostTraining(method="minmax", refine=False)),
        variant("ranges", "percentiles", options=PostTraining(method="percentile")),
        variant("corrections", "none", options=PostTraining(**plain)),
        variant("corrections", "channels not evened", options=PostTraining(equalize=None)),
        variant("corrections", "biases as they are", options=PostTraining(correct_bias=False)),
        variant("corrections", "scores not spread", options=PostTraining(spread_scores=False)),
        variant("corrections", "ranges not refined", options=PostTraining(refine=False)),
        variant("corrections", "none, smallest to largest", options=PostTraining(method="minmax", **plain)),
        variant("kernels", "one scale each", scheme=Scheme(per_channel=False)),
        variant("kernels", "4 bits", scheme=Scheme(weight_bits=4)),
        *(variant("float32 again", part, scheme=Scheme(parts=without[part])) for part in PARTS),
        *(variant("descriptor bits", f"{bits}", scheme=Scheme(descriptor_bits=bits)) for bits in (6, 4, 2)),
        *(variant("score threshold", f"{limit}", score_threshold=limit) for limit in (0.3, 0.5, 0.7)),
    ]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What every variant is measured with."""

    source: FloatNetwork  # the float network
    photographs: Path  # folder to calibrate with
    sequences: Sequence[datasets.Sequence]  # image pairs to measure on
    protocol: Protocol  # how to score
    seeds: int = 1  # orders in which RANSAC gets the matches; their mean counts
    cache: Path | None = None  # folder for exported features

    def run(self, chosen: Sequence[Variant], *, progress: bool = True) -> pd.DataFrame:
        """Measures the float network and every variant.

        Returns:
            One row a variant: group, variant, the metrics over all pairs, `delta_<metric>` against the float
            network under the same score threshold, most with the ends of their 95 % interval, and
            `sqnr_<head>` in dB on images of the pairs.

        Raises:
            InputError: If data is missing.
        """
        plain = compile_predict(self.source.network)
        inputs = self.inputs()
        wanted = [plain(image) for image in inputs]
        float_scores = functools.cache(lambda limit: self._scores(plain, self.source.sha256, limit))
        calibrated = functools.cache(self._calibrate)

        def row(group: str, name: str, scored: _Scores, limit: float) -> dict[str, Any]:
            base = float_scores(limit)
            deltas = {f"delta_{metric}": scored.means[metric] - base.means[metric] for metric in _COMPARED}
            return {"group": group, "variant": name, **scored.means, **deltas, **scored.delta_intervals(base)}

        rows = [row("float32", "", float_scores(0.0), 0.0)]
        for variant in tqdm(chosen, desc="variants", disable=not progress, leave=False):
            options, limit = variant.options, variant.score_threshold
            ready = calibrated(variant.data, variant.num_images, options.equalize, options.spread_scores)
            network = quantization.quantize(ready, self.source.config, options, variant.scheme)
            predict = compile_predict(network)
            scored = self._scores(predict, _digest(network, variant.scheme), limit)
            noise = _head_noise(wanted, [predict(image) for image in inputs])
            rows.append({**row(variant.group, variant.name, scored, limit), **noise})
        return pd.DataFrame(rows)

    def inputs(self) -> list[np.ndarray]:
        """Returns eight images of the pairs, if there are so many, as inputs, float32 `[1, H, W, 3]` each."""
        paths = sorted({pair.path0 for sequence in self.sequences for pair in sequence.pairs})
        chosen = paths[:: max(1, len(paths) // 8)][:8]
        read = (images.resize_image(images.read_image(path), self.protocol.image_size) for path in chosen)
        return [normalized(image[None]) for image in read]

    def compare(
        self, models: Mapping[str, str | NetworkExtractor], *, profile: str
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Measures the float network and models made of it.

        The models are how each is made to its extractor, or to its name as for
        `kp2d.methods.extractors.create`; the profile's name is for the rows.

        Returns:
            Result rows (`kp2d.evaluate.tables.EVALUATION_COLUMNS`), and one row a model: kind, precision,
            bytes, weights_sha256, `sqnr_<head>` in dB on images of the pairs, and for all pairs the
            differences `delta_<metric>` from the float network, most with the ends of their 95 % interval.

        Raises:
            InputError: If a model is not there.
        """
        plain = compile_predict(self.source.network)
        inputs = self.inputs()
        wanted = [plain(image) for image in inputs]
        parts, facts = [], []
        for kind, model in {"float32": self.source.method, **models}.items():
            extractor = extractors.as_extractor(model)
            rows, pairs = comparison.evaluate_methods(
                [extractor], self.sequences, self.protocol, profile=profile, cache=self.cache, progress=False
            )
            parts.append(rows.assign(kind=kind))
            scores = _average_of_all(pairs)
            if kind == "float32":
                base, base_pairs = scores, pairs
            got = [extractor.predict(np.round((image + 1) * 127.5).astype(np.uint8)) for image in inputs]
            facts.append(
                {
                    "kind": kind,
                    "precision": extractor.precision,
                    "bytes": extractor.bytes,
                    "weights_sha256": extractors.weights_hash(extractor),
                    **_head_noise(wanted, got),
                    **{f"delta_{name}": scores[name] - base[name] for name in _COMPARED},
                    **_delta_intervals(pairs, base_pairs, top_k=max(self.protocol.top_k)),
                }
            )
        return pd.concat(parts, ignore_index=True), pd.DataFrame(facts)

    def _calibrate(self, data: str, count: int, equalize: float | None, spread_scores: bool) -> Calibrated:
        size = self.protocol.image_size
        if data == "noise":
            rng = np.random.default_rng(0)
            inputs = [normalized(rng.integers(0, 256, (1, *size, 3), np.uint8)) for _ in range(count)]
        else:
            inputs = calibration.read_images(self.photographs, self.source.config, size, count=count)
        return quantization.calibrate(
            self.source.network, self.source.config, inputs, equalize=equalize, spread_scores=spread_scores
        )

    def _scores(self, predict: Callable, key: str, score_threshold: float) -> _Scores:
        config = self.source.config
        extractor = NetworkExtractor(
            name=self.source.name,
            cell=config.cell,
            descriptor_dim=config.descriptor_dim,
            predict=lambda pixels: predict(normalized(pixels)),
            sha256=key,
            steered=self.source.steered,
            runtime="keras",
        )
        rows, values = [], []
        for seed in range(self.seeds):
            protocol = replace(self.protocol, seed=seed, score_threshold=score_threshold)
            pairs = evaluation.evaluate(extractor, self.sequences, protocol, cache=self.cache, progress=False)
            rows.append(_average_of_all(pairs))
            read = pairs[(pairs["status"] != "skipped") & (pairs["top_k"] == max(protocol.top_k))]
            values.append(read[list(tables.METRICS)].to_numpy(float))
        means = {name: float(np.mean([row[name] for row in rows])) for name in _COMPARED}
        mean_values = pd.DataFrame(
            np.mean(values, axis=0), columns=[f"delta_{name}" for name in tables.METRICS]
        )
        return _Scores(means=means, values=mean_values, sequences=tuple(read["sequence"]))


def _average_of_all(pairs: pd.DataFrame) -> pd.Series:
    """Returns the means over all pairs, those of several data sets together, at the largest k."""
    summary = averages.summarize(pairs.drop(columns="dataset"))
    return summary[summary["subset"] == "all"].iloc[-1]


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Means over all pairs, and metrics pair by pair as `delta_<metric>`, both averaged over the seeds."""

    means: dict[str, float]
    values: pd.DataFrame
    sequences: tuple[str, ...]

    def delta_intervals(self, base: _Scores) -> dict[str, float]:
        return averages.named_intervals(self.values, self.sequences, minus=base.values)


def _delta_intervals(pairs: pd.DataFrame, float_pairs: pd.DataFrame, *, top_k: int) -> dict[str, float]:
    """Returns the ends of the intervals of `delta_<metric>`; the area under the curve is no mean of pairs."""
    joined = comparison.paired(pairs, float_pairs)
    joined = joined[joined["top_k"] == top_k]
    deltas = comparison.differences(joined, tables.METRICS).add_prefix("delta_")
    return averages.named_intervals(deltas, joined["sequence"])


def _head_noise(
    wanted: Sequence[Mapping[str, np.ndarray]], got: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Returns `sqnr_<head>`, signal to quantization noise of each head over images, in dB."""
    maps = {head: [[heads[f"{head}_map"] for heads in images] for images in (wanted, got)] for head in HEADS}
    return {f"sqnr_{head}": sqnr(*both) for head, both in maps.items()}


def write_models(
    source: FloatNetwork,
    made: Mapping[str, keras.Model],
    folder: Path,
    *,
    image_size: tuple[int, int],
    made_as: str = "made_here",
) -> dict[str, str]:
    """Writes models to compare: the float network in other precisions, and int8 networks made of it.

    Args:
        source: The float network.
        made: Quantized networks by precision, "int8_ptq" and "int8".
        folder: Where to; returned is how each was made ("float16", "int8, here") to its file.
        image_size: (height, width) px.
        made_as: Name of the method that those made of it are.

    Raises:
        InputError: If a file cannot be written.
    """
    networks = {"float16": source.network, **made}
    written = {}
    for precision, network in networks.items():
        here = precision in made
        name = made_as if here else source.name
        export = convert.Export(name=name, precision=precision, image_size=image_size, steered=source.steered)
        data = convert.to_tflite(network, source.config, export).pack()
        path = files.write_bytes(folder / f"{name}.{precision}.tflite", data)
        written[f"{precision}, here" if here else precision] = str(path)
    return written


def layer_errors(
    source: FloatNetwork,
    network: keras.Model,
    statistics: Mapping[str, calibration.TensorStatistics],
    inputs: Sequence[np.ndarray],
) -> pd.DataFrame:
    """Measures the error of int8 in every tensor and kernel of a quantized network on network inputs.

    The statistics are what its tensors held in the calibration.

    Returns:
        One row a tensor in the order of computation: its range, the share of values beyond it, and signal to
        quantization noise in dB: of the kernel's rounding, of the tensor's own rounding, and of the tensor as
        the whole network before it has made it.
    """
    weights = quantization.read_weights(network)
    # The float network with the kernels of the quantized one, which may be scaled and trained further.
    run_float = quantization.inspect(source.config, weights, FLOAT)
    run_int8 = quantization.inspect(source.config, weights, INT8)
    chosen = quantization.chosen_ranges(network)
    pairs = [(run_float(image), run_int8(image)) for image in inputs]
    rows = []
    for name in pairs[0][0]:
        low, high = chosen[name]
        exact = [tensors[name] for tensors, _ in pairs]
        row = {"tensor": name, "low": low, "high": high, "beyond": _beyond(statistics[name], low, high)}
        kernel = weights.get(f"{name}/kernel")
        if kernel is not None:
            row["sqnr_kernel"] = sqnr([kernel], [np.asarray(quantize_kernel(kernel, 8))])
        rounded = [calibration.round_to_grid(values, low, high) for values in exact]
        row["sqnr_rounding"] = sqnr(exact, rounded)
        row["sqnr_network"] = sqnr(exact, [tensors[name] for _, tensors in pairs])
        rows.append(row)
    return pd.DataFrame(rows)


def sqnr(wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    """Returns the signal to quantization noise ratio of arrays, in dB; at most 120."""
    signal = sum(float(np.square(values, dtype=np.float64).sum()) for values in wanted)
    noise = sum(
        float(np.square(np.subtract(a, b, dtype=np.float64)).sum()) for a, b in zip(wanted, got, strict=True)
    )
    return float(min(120.0, 10 * np.log10(max(signal, 1e-12) / max(noise, 1e-12 * max(signal, 1e-12)))))


def _beyond(statistics: calibration.TensorStatistics, low: float, high: float) -> float:
    centers = statistics.centers()
    outside = (centers < low) | (centers > high)
    return float(statistics.counts[outside].sum() / max(statistics.counts.sum(), 1))


def _digest(network: keras.Model, scheme: Scheme) -> str:
    digest = hashlib.sha256(fingerprint(scheme, provenance.code_hash(__name__)).encode())
    for value in quantization.read_weights(network).values():
        digest.update(value.tobytes())
    return digest.hexdigest()
