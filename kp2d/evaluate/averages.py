"""Owns the averages of pair scores: what one is taken over, its interval, and its row in a result table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from kp2d import provenance
from kp2d.config import Protocol, fingerprint
from kp2d.evaluate import bootstrap, metrics, tables
from kp2d.methods.extractors import Extractor


def result_rows(
    pairs: pd.DataFrame, extractor: Extractor, protocol: Protocol, *, profile: str
) -> pd.DataFrame:
    """Averages the scores of one method into result rows that repeat their whole protocol.

    Args:
        pairs: From `evaluation.evaluate`, of this method alone.
        extractor: The method.
        protocol: How it was scored.
        profile: The profile's name, or "custom".

    Returns:
        The rows with the columns `tables.EVALUATION_COLUMNS`.
    """
    binary = extractor.binary
    summary = summarize(pairs, drop_unrepeated=protocol.drop_unrepeated)
    return summary.assign(
        profile=profile,
        image_height=protocol.image_size[0],
        image_width=protocol.image_size[1],
        bytes_per_keypoint=extractor.descriptor_bytes,
        score_threshold=protocol.score_threshold if extractor.probabilistic else 0.0,
        distance_threshold=protocol.distance_threshold,
        half_pixel=protocol.half_pixel,
        drop_unrepeated=protocol.drop_unrepeated,
        matcher="mutual-hamming" if binary else "mutual-l2",
        estimator="opencv-ransac",
        ransac_threshold=protocol.ransac_threshold,
        ransac_iterations=protocol.ransac_iterations,
        calibration=extractor.calibration,
        seed=protocol.seed,
        device=provenance.device(extractor.runtime),
        config_hash=fingerprint(protocol, extractor.settings()),
        git_commit=provenance.git_commit(),
    )[list(tables.EVALUATION_COLUMNS)]


def summarize(pairs: pd.DataFrame, *, drop_unrepeated: bool = False) -> pd.DataFrame:
    """Averages pair scores into one row a method × precision × runtime × data set × subset × k.

    Localization error is averaged over the pairs that have one; everything else over all pairs that were
    read, failed ones counting 0. Beside each metric stand the ends of its 95 % interval (`d1_low`,
    `d1_high`), from the bootstrap over sequences.

    Args:
        pairs: From `evaluation.evaluate`; several methods may be concatenated.
        drop_unrepeated: Leave pairs without a repeated point out of the repeatability (KP2Dtiny's choice).

    Returns:
        Rows in the order of appearance, each data set's subsets followed by "all".
    """
    return pd.DataFrame(
        [{**setting, **_average(scores, drop_unrepeated)} for setting, scores in by_setting(pairs)]
    )


def by_setting(pairs: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yields what one average is taken over (method, precision, runtime, data set, subset, k) and its pairs.

    Args:
        pairs: From `evaluation.evaluate`; several methods may be concatenated. Without the column `dataset`,
            all pairs belong to one.
    """
    names = [name for name in ("method", "precision", "runtime", "dataset") if name in pairs]
    for key, group in pairs.groupby(names, sort=False):
        for subset in [*sorted(group["subset"].unique(), key=tables.subset_rank), "all"]:
            chosen = group if subset == "all" else group[group["subset"] == subset]
            for top_k, scores in chosen.groupby("top_k", sort=True):
                yield {**dict(zip(names, key, strict=True)), "subset": subset, "top_k": top_k}, scores


def counted(pairs: pd.DataFrame, *, drop_unrepeated: bool = False) -> pd.DataFrame:
    """Returns the metrics of pairs as their means take them: NaN where a pair is left out of one.

    Args:
        pairs: From `evaluation.evaluate`, those that were read.
        drop_unrepeated: Leave pairs without a repeated point out of the repeatability.
    """
    values = pairs[list(tables.METRICS)].astype(float)
    if drop_unrepeated:
        values["repeatability"] = values["repeatability"].where(values["repeatability"] > 0)
    return values


def _average(scores: pd.DataFrame, drop_unrepeated: bool) -> dict[str, Any]:
    read = scores[scores["status"] != "skipped"]
    values = (
        read[[*tables.MMA, *tables.COUNTS]].astype(float).join(counted(read, drop_unrepeated=drop_unrepeated))
    )
    errors = read["corner_error"].to_numpy(dtype=float)
    return {
        "num_pairs": len(read),
        "num_sequences": read["sequence"].nunique(),
        "num_failed": int((read["status"] == "failed").sum()),
        "num_skipped": len(scores) - len(read),
        **values.mean().to_dict(),
        **bootstrap.named_intervals(values[list(tables.METRICS)], read["sequence"]),
        "auc_3": metrics.area_under_curve(errors, 3),
        "auc_5": metrics.area_under_curve(errors, 5),
    }
