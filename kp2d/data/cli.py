"""Owns `kp2d prepare` and `kp2d download`: their arguments and what they mean."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kp2d import config


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d prepare` to the parser of the verb."""
    parser.add_argument("--profile", default="fast", help="smoke or fast")
    parser.add_argument("--seed", type=int, default=0, help="seed of views and lighting")


def run_prepare(options: argparse.Namespace) -> None:
    """Makes the data set `sample` of a profile, or reuses it.

    Raises:
        InputError: If the profile has no such data set, or its folder cannot be written.
    """
    from kp2d.data import samples

    profile = config.profile(options.profile)
    sequences = samples.prepare_profile(profile, seed=options.seed, progress=sys.stderr.isatty())
    count = sum(len(sequence.pairs) for sequence in sequences)
    folders = dict.fromkeys(str(sequence.root) for sequence in sequences)
    print(f"{len(sequences)} sequences, {count} pairs: {', '.join(folders)}")


def add_download(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d download` to the parser of the verb."""
    parser.add_argument("name", help="hpatches, coco or coco-val")
    parser.add_argument("--folder", type=Path, help="where to put it; default: data/ in the project")
    parser.add_argument(
        "--url", action="append", help="another address, tried in the order given; may be repeated"
    )
    parser.add_argument("--sha256", help="expected checksum of the archive")


def run_download(options: argparse.Namespace) -> None:
    """Downloads a data set.

    Raises:
        InputError: If there is no such data set, or no mirror has it.
    """
    from kp2d.data import download

    folder = download.download(options.name, options.folder, url=options.url, sha256=options.sha256)
    print(folder)
