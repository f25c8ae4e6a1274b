"""Owns sweeps: methods × image sizes × seeds, each combination scored once and kept, and means over seeds."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kp2d import checks, config, files, paths, provenance
from kp2d.data import datasets
from kp2d.evaluate import comparison, evaluation, tables
from kp2d.methods import extractors, weights
from kp2d.reproduce import jobs

logger = logging.getLogger(__name__)

GROUP = ("method", "precision", "runtime", "dataset", "subset", "image_height", "image_width", "top_k")
_STATE = {"config": "settings or weights", "data": "the data set", "kp2d": "the library"}
# Workers with several threads share a network within a process, and its runtime computes one image at a time.
_one_at_a_time = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is combined with what, and on which data."""

    methods: tuple[str, ...]  # as for `extractors.create`: "sift", "kp2d_tiny_s:int8", a path
    image_sizes: tuple[tuple[int, int], ...]  # (height, width), px
    seeds: tuple[int, ...]  # of RANSAC
    protocol: config.Protocol  # everything else about the scoring; its size and seed are replaced
    data: Path  # folder of the data set
    profile: str = "custom"  # the profile that the rows name
    # where features and finished combinations are kept
    folder: Path = dataclasses.field(default_factory=lambda: paths.runs("sweep"))
    progress: bool = False  # whether to show progress bars

    def __post_init__(self) -> None:
        for field in ("methods", "image_sizes", "seeds"):
            values = tuple(dict.fromkeys(getattr(self, field)))  # named twice is meant once
            if not values:
                raise checks.problem(f"one or more {field.replace('_', ' ')}", "none")
            object.__setattr__(self, field, values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """One method at one size under one seed."""

    method: str  # as for `extractors.create`
    protocol: config.Protocol  # with the size and the seed
    state: dict[str, str]  # what its result depends on; a kept one with another state is not taken
    record: Path  # file in which its rows are kept

    @property
    def features(self) -> str:
        """Returns the name of what all seeds share: the features of a method at a size."""
        return f"{self.method.replace(':', ' ')} {_by(self.protocol.image_size)}"

    @property
    def name(self) -> str:
        """Returns what it is called: "kp2d_tiny_s int8 240x320 seed 0"."""
        return f"{self.features} seed {self.protocol.seed}"


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def shipped_networks(presets: Sequence[str], precisions: Sequence[str]) -> list[str]:
    """Returns the methods that networks with shipped weights are in some precisions, or in that they name.

    Raises:
        InputError: If there are no such weights.
    """
    networks = [extractors.Method.parse(preset) for preset in presets]
    chosen = {
        f"{network.name}:{precision}": (network.name, precision)
        for network in networks
        for precision in ([network.precision] if network.precision else precisions)
    }
    for precision in (*precisions, *(precision for _, precision in chosen.values())):
        checks.one_of("precision", precision, weights.SUFFIXES)
    for preset, precision in chosen.values():
        shipped = weights.shipped(precision)
        if preset not in shipped:
            raise checks.problem(
                f"a preset with shipped weights in {precision}: {', '.join(shipped)}",
                repr(preset),
                "Train others by kp2d train and name their run: --method runs/mine.",
            )
    return list(chosen)


def absolute(method: str) -> str:
    """Returns a method; if it is a path, one that holds in the other working directory of a worker, too."""
    return str(extractors.Method.parse(method).absolute())


def combinations(sweep: Sweep) -> list[Combination]:
    """Returns all combinations, after checking that each of them can be computed.

    Raises:
        InputError: If a method is unknown, has no weights in its precision, or does not take a size; or if
            there is no data.
    """
    methods = {name: extractors.create(name) for name in sweep.methods}
    _check_names(methods)
    for extractor, size in itertools.product(methods.values(), sweep.image_sizes):
        checks.fits_cells(size, extractor.cell)
    data = datasets.fingerprint(datasets.load_sequences(sweep.data))[:16]
    code = provenance.code_hash(__name__)
    found = []
    for method, size, seed in itertools.product(sweep.methods, sweep.image_sizes, sweep.seeds):
        protocol = dataclasses.replace(sweep.protocol, image_size=size, seed=seed)
        extractor = methods[method]
        state = {"config": config.fingerprint(protocol, extractor.settings()), "data": data, "kp2d": code}
        place = config.fingerprint(method, str(sweep.data), sweep.profile, _by(protocol.top_k))
        stem = f"{extractor.name}-{extractor.precision}-{_by(size)}-seed{seed}-{place}"
        record = sweep.folder / f"{stem}.json"
        found.append(Combination(method=method, protocol=protocol, state=state, record=record))
    return found


def _check_names(methods: Mapping[str, extractors.Extractor]) -> None:
    """Refuses methods that a table could not tell apart, as two runs of one preset."""
    found: dict[tuple[str, str], str] = {}
    for method, extractor in methods.items():
        other = found.setdefault((extractor.name, extractor.precision), method)
        if other != method:
            raise checks.problem(
                "methods with different names or precisions",
                f"{other} and {method}, both {extractor.name} {extractor.precision}",
                "Sweep them one after another.",
            )


def changed(combination: Combination) -> str:
    """Says why a combination must be computed, or "" if what is kept of it still holds."""
    record = files.read_json(combination.record)
    if record is None or not isinstance(record.get("rows"), list):
        return "not computed before" if not combination.record.exists() else "its record is damaged"
    found = [what for key, what in _STATE.items() if record.get(key) != combination.state[key]]
    return f"{', '.join(found)} changed" if found else ""


def run(
    sweep: Sweep,
    *,
    report: jobs.Report = logger.info,
    execute: jobs.Execute = jobs.keep_going,
) -> tuple[pd.DataFrame, list[jobs.Result]]:
    """Computes what is not kept from an earlier run, and gathers all rows.

    Features are extracted once a method and size, then scored under each seed. What fails does not keep the
    others from being computed.

    Args:
        sweep: What to compute.
        report: Receives one line a combination.
        execute: What does the work: one after another here, or `kp2d.reproduce.cluster.Cluster.execute`.

    Returns:
        The rows of all combinations that succeeded, in their order, with the columns
        `tables.EVALUATION_COLUMNS`; and what became of those jobs that did not succeed.

    Raises:
        InputError: If a combination cannot be computed, or a folder cannot be written; before any work.
        RunError: If a cluster is lost.
    """
    every = combinations(sweep)
    files.check_writable(sweep.folder / "probe")
    reasons = {each.name: changed(each) for each in every}
    for name, reason in reasons.items():
        report(f"{name}: {reason or 'reused, nothing changed'}")
    todo = [each for each in every if reasons[each.name]]
    results = {result.name: result for result in execute(plan(sweep, todo), report)} if todo else {}
    rows: list[dict[str, Any]] = []
    for each in every:
        if not reasons[each.name]:
            rows += files.read_json(each.record)["rows"]
        elif each.name in results and results[each.name].succeeded:
            # Not read from the file: another machine's may take a minute to show here.
            rows += results[each.name].value
    table = pd.DataFrame(rows, columns=list(tables.EVALUATION_COLUMNS))
    return table, [result for result in results.values() if not result.succeeded]


def plan(sweep: Sweep, todo: Sequence[Combination]) -> list[jobs.Job]:
    """Returns the jobs of some combinations: features of each method and size, then scores of each seed."""
    planned: dict[str, jobs.Job] = {}
    for each in todo:
        extraction = f"{each.features} features"
        arguments = (each, sweep)
        planned.setdefault(extraction, jobs.Job(name=extraction, work=extract, arguments=arguments))
        after = (extraction,)
        planned[each.name] = jobs.Job(name=each.name, work=score, arguments=arguments, after=after)
    return list(planned.values())


def extract(combination: Combination, sweep: Sweep, *, report: jobs.Report) -> None:
    """Extracts the features that a combination shares with others, where they are not kept yet.

    Raises:
        InputError: If the method or the data set is missing.
    """
    report(f"{combination.features}: extracting features")
    with _one_at_a_time:
        evaluation.export_features(
            extractors.create(combination.method),
            [pair for sequence in datasets.load_sequences(sweep.data) for pair in sequence.pairs],
            combination.protocol.image_size,
            cache=sweep.folder / "features",
            progress=sweep.progress,
        )


def score(combination: Combination, sweep: Sweep, *, report: jobs.Report) -> list[dict[str, Any]]:
    """Scores one combination; keeps its rows, together with what they depend on, and returns them.

    Raises:
        InputError: If the data set is missing, or the rows cannot be written.
    """
    with _one_at_a_time:
        table, _ = comparison.evaluate_methods(
            [combination.method],
            datasets.load_sequences(sweep.data),
            combination.protocol,
            profile=sweep.profile,
            cache=sweep.folder / "features",
            progress=sweep.progress,
        )
    rows = table.to_dict("records")
    files.write_json(combination.record, {**combination.state, "rows": rows})
    report(f"{combination.name}: done")
    return rows


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Averages rows of `run` that differ in their seed only.

    Returns:
        One row a method × precision × size × subset × k: `num_seeds`, and of each metric the mean and the
        standard deviation over the seeds (`d3_mean`, `d3_std`; 0 for one seed), and the ends of its 95 %
        interval from the bootstrap over sequences, averaged over the seeds too (`d3_low`, `d3_high`).
    """
    found = []
    for key, group in rows.groupby(list(GROUP), sort=False):
        row = dict(zip(GROUP, key, strict=True)) | {"num_seeds": group["seed"].nunique()}
        for metric in tables.METRICS:
            row[f"{metric}_mean"] = group[metric].mean()
            row[f"{metric}_std"] = group[metric].std(ddof=min(1, len(group) - 1))
            row |= {name: group[name].mean() for name in tables.end_names(metric)}
        found.append(row)
    return pd.DataFrame(found)


def readable(summary: pd.DataFrame) -> pd.DataFrame:
    """Returns a summary for reading: each metric as "0.733 ± 0.012", or the mean alone if all seeds agree."""
    short = tables.readable(summary)
    for metric in tables.METRICS:
        both = zip(summary[f"{metric}_mean"], summary[f"{metric}_std"], strict=True)
        short[metric] = [f"{mean:.3f} ± {std:.3f}" if std >= 5e-4 else f"{mean:.3f}" for mean, std in both]
    short = short.rename(columns={"num_seeds": "seeds"})
    return short[["method", "precision", "size", "subset", "top_k", "seeds", *tables.METRICS]]
