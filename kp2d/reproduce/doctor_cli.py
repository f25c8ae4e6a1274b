"""Owns the arguments of `kp2d doctor` and what they mean; `kp2d.cli` adds the verb."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from kp2d import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments.

    Args:
        parser: Parser of the verb.
    """
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--deep", action="store_true", help="import every package and run every runtime; takes some seconds"
    )


def run(options: argparse.Namespace) -> int:
    """Examines the installation and prints what was found.

    Args:
        options: From a parser with `add_arguments`.

    Returns:
        1 if something is broken, else 0; what is merely not there breaks nothing.
    """
    from kp2d.reproduce import doctor

    findings = doctor.examine(deep=options.deep)
    healthy = all(finding.status != doctor.BROKEN for finding in findings)
    if options.json:
        content = {
            "kp2d": __version__,
            "healthy": healthy,
            "findings": list(map(dataclasses.asdict, findings)),
        }
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
    else:
        sys.stdout.write(doctor.report(findings) + "\n")
    return int(not healthy)
