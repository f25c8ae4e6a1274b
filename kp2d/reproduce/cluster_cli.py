"""Owns the arguments that choose where jobs are done, for every verb that has some: here or on a cluster."""

from __future__ import annotations

import argparse
import logging
import sys

from kp2d import checks
from kp2d.reproduce import cluster, jobs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments.

    Args:
        parser: Parser of a verb.
    """
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster that shares the project's folder, as tcp://host:8786; default: this process",
    )
    parser.add_argument(
        "--worker-timeout",
        type=float,
        default=cluster.WORKER_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for the cluster's first worker",
    )


def execute_from(options: argparse.Namespace, here: jobs.Execute) -> jobs.Execute:
    """Returns what does the jobs, as was asked for.

    Args:
        options: From a parser with `add_arguments`.
        here: What does them without a cluster.

    Returns:
        The function.

    Raises:
        InputError: If the time to wait is not positive.
    """
    if not options.worker_timeout > 0:
        raise checks.problem("a positive --worker-timeout", options.worker_timeout)
    if not options.scheduler:
        return here
    if not options.verbose:
        # It logs tracebacks of a connection that is lost; the error that follows says so in a line.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
    return cluster.Cluster(options.scheduler, worker_timeout=options.worker_timeout).execute


def say(line: str) -> None:
    """Prints a line of news at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
