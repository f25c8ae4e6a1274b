"""Owns the arguments of `kp2d report` and what it says; `kp2d.cli` adds the verb."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments.

    Args:
        parser: Parser of the verb.
    """
    parser.add_argument("--profile", default="fast", help="whose results are shown: smoke, fast or full")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="a new folder, or that of an earlier report; default: results/runs/PROFILE/report",
    )


def run(options: argparse.Namespace) -> None:
    """Writes the report and says where it is.

    Args:
        options: From a parser with `add_arguments`.

    Raises:
        InputError: As `kp2d.report.site.build`.
    """
    from kp2d.report import site as report

    made = report.build(options.profile, options.output, progress=sys.stderr.isatty())
    lines = [f"missing: {note}" for note in made.notes]
    lines += [
        f"{made.num_pages} pages, {made.num_bytes / 1e6:.1f} MB in {made.seconds:.0f} s: {made.folder}",
        f"open in a browser: {made.index.as_uri()}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
