"""Owns the arguments of `kp2d reproduce` and what they mean; `kp2d.cli` adds the verb."""

from __future__ import annotations

import argparse
import sys

from kp2d import checks, config
from kp2d.reproduce import cluster_cli, jobs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments.

    Args:
        parser: Parser of the verb.
    """
    parser.add_argument(
        "--profile", default="fast", help="smoke (seconds), fast (minutes), full (HPatches, hours)"
    )
    parser.add_argument("--stages", help="comma-separated numbers or names, as 05,06; default: all")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="[STAGE.]NAME=VALUE",
        help="a notebook parameter, as top_k=[300]; may be repeated",
    )
    parser.add_argument("--force", action="store_true", help="run also what is up to date")
    parser.add_argument(
        "--timeout", type=int, help="seconds a cell may take; default: 3600, no limit for training in full"
    )
    cluster_cli.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Runs the notebooks and says what became of them.

    Args:
        options: From a parser with `add_arguments`.

    Raises:
        InputError: If a value is refused, or an input or the cluster is missing.
        StageError: If a notebook fails.
        RunError: If several fail, or the cluster is lost.
    """
    from kp2d.reproduce import pipeline

    if options.timeout is not None and options.timeout < 1:
        raise checks.problem("a --timeout of at least 1 s", options.timeout)
    outcomes = pipeline.reproduce(
        options.profile,
        stages=None if options.stages is None else options.stages.split(","),
        parameters=config.assignments(options.parameter),
        force=options.force,
        cell_timeout=options.timeout,
        progress=sys.stderr.isatty() and not options.scheduler,
        report=cluster_cli.say,
        execute=cluster_cli.execute_from(options, jobs.one_by_one),
    )
    ran = sum(outcome.action == "ran" for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    cluster_cli.say(
        f"{ran} of {len(outcomes)} stages ran in {seconds:.0f} s; "
        f"tables: results/{options.profile}, pictures: figures/{options.profile}"
    )
