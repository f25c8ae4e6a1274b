"""Owns what every notebook does first and last: state its settings, show its tables, check its results."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, clear_output

from kp2d import backend, checks, config, paths, provenance
from kp2d.data import datasets, locations, samples
from kp2d.evaluate import tables
from kp2d.reproduce import parameters

SCORES = ("method", "precision", "top_k", "num_pairs", "num_failed", *tables.METRICS)
MAPPING = (
    *("method", "precision", "size", "num_unmapped_before", "num_unmapped", "parameter_kib", "gmacs"),
    *("transfer_ms", "least_ms", "compiler", "compiled_unmapped"),
)
PRECISIONS = (
    *("kind", "bytes", "weights_sha256", "sqnr_score", "sqnr_offset", "sqnr_descriptor"),
    *("delta_repeatability", "delta_localization_error", "delta_matching_score"),
)
AGAINST = (
    *("method", "precision", "dataset", "metric", "num_pairs", "num_better", "num_equal", "num_worse"),
    *("num_compared", "mean_difference", "difference_low", "difference_high"),
)
TIMES = (
    *("method", "precision", "size", "threads", "network_ms", "decode_ms", "extract_ms", "extract_ms_p90"),
    *("match_ms", "bfmatcher_ms", "times_as_fast_as_float32", "times_as_fast_as_sift"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The settings and folders of one run of a notebook; shown as a table at the end of a cell."""

    profile: config.Profile  # the profile
    settings: Mapping[str, Any]  # other settings, for the record

    def stating(self, **settings: Any) -> Run:
        """Returns the run with further settings, for the record."""
        return dataclasses.replace(self, settings={**self.settings, **settings})

    @property
    def results(self) -> Path:
        """Returns the folder for tables."""
        return paths.results(self.profile.name)

    @property
    def figures(self) -> Path:
        """Returns the folder for charts."""
        return paths.figures(self.profile.name)

    @property
    def pictures(self) -> Path:
        """Returns the folder for pictures of photographs: `figures` only if those may be passed on."""
        return paths.home() / self.profile.picture_folder

    @property
    def cache(self) -> Path:
        """Returns the folder for exported features; what lies there is reused."""
        return paths.runs(self.profile.name) / "features"

    @property
    def models(self) -> Path:
        """Returns the folder for models in other precisions."""
        return paths.runs(self.profile.name) / "models"

    @property
    def trained(self) -> Path:
        """Returns the folder for training runs; what lies there goes on or is reused."""
        return paths.runs(self.profile.name) / "training"

    @property
    def trained_here(self) -> Path:
        """Returns the folder of the network that 02 trained last, and of what 03 makes of it."""
        return paths.trained_here(self.profile.name)

    def _repr_markdown_(self) -> str:
        kept = len(list(self.cache.glob("*/[!.]*.npz"))) if self.cache.is_dir() else 0
        facts = {
            "profile": f"{self.profile.name} ({self.profile.purpose})",
            "data set": self.profile.dataset,
            **self.settings,
            "reused": f"features of {kept} image and method pairs" if kept else "nothing yet",
            "device": provenance.device(),
            "commit": provenance.git_commit(),
            **provenance.versions(),
        }
        lines = [f"| {name.replace('_', ' ')} | {_plain(value)} |" for name, value in facts.items()]
        return "\n".join(["| setting | value |", "|---|---|", *lines])


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def begin(
    profile: str, names: MutableMapping[str, Any] | None = None, *, keras: bool = False, **settings: Any
) -> Run:
    """Starts a notebook: reads its parameters, and keeps what is imported next from telling its start.

    Args:
        profile: Name of the profile.
        names: The notebook's `globals()`, whose parameters may have any form of `parameters.read`, as
            papermill hands them over; they are put into the form that its cells take, `trained` into a bool.
        keras: Whether it computes with Keras itself; others load it where a method of theirs needs it.
        **settings: What else should be stated.

    Raises:
        InputError: If the profile is unknown, or a parameter is none that it can be.
    """
    if keras:
        backend.quiet()
    if names is not None:
        parameters.settle(names)
        if "trained" in names:
            names["trained"] = config.profile(profile).takes_trained(names["trained"])
        settings = {name: names.get(name, value) for name, value in settings.items()}
    logging.getLogger("asyncio").addFilter(_is_of_the_notebook)
    return Run(profile=config.profile(profile), settings=settings)


def _is_of_the_notebook(record: logging.LogRecord) -> bool:
    """Leaves out what a kernel says that is shut down in the middle of its housekeeping."""
    return not str(record.msg).startswith("Task was destroyed but it is pending")


def prepare_data(run: Run, *, seed: int = 0) -> list[datasets.Sequence]:
    """Returns the sequences of the run's data sets; `sample` is made if it is not there."""
    return samples.prepare_profile(run.profile, seed=seed)


def load_data(run: Run) -> list[datasets.Sequence]:
    """Returns the sequences of the run's data set.

    Raises:
        InputError: If the data is missing; the message says how to get it.
    """
    return locations.load(run.profile.dataset, run.profile.name)


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Removes progress bars from the cell once its result is shown; a saved notebook keeps none."""
    yield
    clear_output(wait=True)


def show(rows: pd.DataFrame, columns: Sequence[str] = ()) -> Markdown:
    """Returns a table (or some of its columns) for display, formatted as in the README, intervals too."""
    if rows.empty:
        return Markdown("*No rows: nothing in this run belongs into this table.*")
    with_ends = [name for name in columns if {*tables.end_names(name)} <= {*rows}]
    rows = tables.with_intervals(rows, with_ends, form=tables.STACKED)
    return Markdown(tables.markdown(tables.readable(rows), columns))


def check(**claims: bool) -> Markdown:
    """Lists, for display, what a notebook claims about its results, each as a name ("d1_at_most_d3").

    Raises:
        InputError: If a claim does not hold; all that fail are named.
    """
    broken = [claim.replace("_", " ") for claim, holds in claims.items() if not holds]
    if broken:
        raise checks.problem("every check to hold", f"not so: {'; '.join(broken)}")
    return Markdown("\n".join(f"- ✓ {claim.replace('_', ' ')}" for claim in claims))
