"""Owns `kp2d report`: its arguments and what it says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_report(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d report` to the parser of the verb."""
    parser.add_argument(
        "--profile", default="fast", help="whose results are shown: smoke, fast, bench or full"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="a new folder, or that of an earlier report; default: results/runs/PROFILE/report",
    )
    parser.add_argument(
        "--try",
        dest="only_trial",
        action="store_true",
        help="only the page on which a browser matches two pictures; default: results/runs/try",
    )


def run_report(options: argparse.Namespace) -> None:
    """Writes the report and says where it is.

    Raises:
        InputError: As `kp2d.report.site.build` and `build_trial`.
    """
    from kp2d import paths
    from kp2d.report import site as report

    if options.only_trial:
        made = report.build_trial(options.output or paths.runs("try"))
    else:
        made = report.build(options.profile, options.output, progress=sys.stderr.isatty())
    for note in made.notes:
        print(f"missing: {note}")
    print(f"{made.num_pages} pages, {made.num_bytes / 1e6:.1f} MB in {made.seconds:.0f} s: {made.folder}")
    print(f"open in a browser: {made.index.as_uri()}")
