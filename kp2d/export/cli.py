"""Owns `kp2d extract`: its arguments and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from kp2d.arguments import SIZE
from kp2d.methods import cli as method_cli


def add_extract(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d extract` to the parser of the verb."""
    parser.add_argument("folder", help="pictures, searched with all folders in it")
    parser.add_argument(
        "-o",
        "--output",
        default="features.npz",
        help="file to write; a run that was broken off goes on, a finished file stays if nothing has changed",
    )
    parser.add_argument(
        "--format",
        help="npz: ours; hloc: HDF5; colmap: a database; opencv: .yml or .npz of cv2.KeyPoint's fields;"
        " default: by the suffix (.npz, .h5, .db, .yml)",
    )
    parser.add_argument(
        "--match",
        metavar="RULE",
        help="match pairs too: exhaustive (all), sequential (each with the next ten by name), or a text file"
        " with two names a line; into OUTPUT-matches beside the output, of colmap into the database",
    )
    method_cli.add_arguments(parser)
    parser.add_argument("--top-k", type=int, default=1000, help="keypoints kept a picture")
    parser.add_argument(
        "--image-size",
        **SIZE,
        help="size the method sees; default: each picture's own, reduced to a megapixel if it is larger",
    )


def run_extract(options: argparse.Namespace) -> None:
    """Extracts, matches and says what came out of it.

    Raises:
        InputError: If a value is refused, or a file cannot be used.
    """
    from kp2d.export import extraction

    summary = extraction.extract_folder(
        options.folder,
        options.output,
        method_cli.extractor_from(options),
        form=options.format,
        match=options.match,
        top_k=options.top_k,
        image_size=options.image_size,
        progress=_bar,
    )
    facts = f"{summary.keypoints} keypoints in {summary.pictures} pictures"
    if options.match:
        facts += f", {summary.matches} matches in {summary.pairs} pairs"
    if summary.skipped:
        facts += f"; {len(summary.skipped)} left out ({', '.join(summary.skipped)})"
    where = ", ".join(map(str, summary.written)) or f"nothing has changed since {options.output} was made"
    print(f"{facts}: {where}")


def _bar(items: Iterable, count: int, what: str) -> Iterable:
    """Shows a progress bar where tqdm is installed; a small device need not have it."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return items
    return tqdm(items, total=count, desc=what, leave=False)
