"""Owns `kp2d match`: its arguments and what they mean."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kp2d import checks, files, images
from kp2d.arguments import SIZE, refuse_input_as_output, say
from kp2d.methods import cli as method_cli
from kp2d.methods import registration
from kp2d.viz import matched


def add_match(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d match` to the parser of the verb."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="two or more pictures, folders of them, or patterns in quotes; each is matched with the first",
    )
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        metavar="FILE",
        help=f"a picture ({', '.join(matched.PICTURES)}) or the matches ({', '.join(matched.TABLES)}); may be"
        " repeated. Of more than two pictures, each output gets the other picture's name: m.csv becomes"
        " m_NAME.csv, a folder gets NAME.png; default: matches.png, or the folder matches",
    )
    method_cli.add_arguments(parser)
    parser.add_argument("--top-k", type=int, default=1000, help="keypoints kept an image")
    parser.add_argument(
        "--image-size",
        **SIZE,
        help="size the method sees; default: each image's own, reduced to a megapixel if it is larger",
    )
    parser.add_argument(
        "--ransac-threshold",
        type=float,
        default=registration.THRESHOLD,
        help="largest error of an inlier, px at the size that the method sees",
    )
    parser.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refine the homography by the pictures themselves, to a fraction of a pixel",
    )


def run_match(options: argparse.Namespace) -> int:
    """Matches the first image with each of the others, writes what was asked for and says what was found.

    Returns 1 if some of several images could not be read and were left out, else 0.

    Raises:
        InputError: If a value is refused, or a file cannot be used; of images only the first, or all others.
    """
    first, *others = _pictures(options.images)
    targets = _targets(options.output, others)
    for target in (target for own in targets for target in own):
        matched.check_output(target)
        _check_unread(target, options.images)
        refuse_input_as_output("output", target, (first, *others))
    extractor = method_cli.extractor_from(options)
    seeing = {"top_k": options.top_k, "image_size": options.image_size}
    rules = {"ransac_threshold": options.ransac_threshold, "refine": options.refine}
    view0 = registration.view_image(images.read_image(first), extractor, **seeing)
    unreadable = 0
    for path, own in zip(others, targets, strict=True):
        try:
            view1 = registration.view_image(images.read_image(path), extractor, **seeing)
        except checks.InputError as error:
            if len(others) == 1:
                raise
            print(f"kp2d match: left out: {error}", file=sys.stderr)
            unreadable += 1
            continue
        found = matched.match_views(view0, view1, extractor, names=(str(first), str(path)), **rules)
        written = ", ".join(str(found.save(target)) for target in own)
        say(f"{f'{path}: ' if len(others) > 1 else ''}{found.story}: {written}")
    if unreadable == len(others):
        raise checks.problem("a picture to match with the first", "none that can be read")
    if unreadable:
        print(f"kp2d match: {unreadable} of {len(others)} pictures left out", file=sys.stderr)
    return int(unreadable > 0)


def _pictures(names: Sequence[str]) -> list[Path]:
    """Returns the pictures that files, folders and patterns name, in order, the first not once more.

    Raises:
        InputError: If a folder or pattern holds none, or there are fewer than two.
    """
    pictures: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            held = images.find_pictures(path, below=False)
        elif not path.exists() and glob.has_magic(name):
            named = sorted(_matching(path))
            images.tell_unread(named, name)
            held = [child for child in named if images.is_picture(child)]
        else:
            if not path.exists():
                raise checks.problem("an existing picture file or folder", f"{name}, which does not exist")
            pictures.append(path)  # its content decides, not its suffix
            continue
        if not held:
            remedy = f"Name pictures ({', '.join(images.SUFFIXES)})."
            raise checks.problem("a folder or pattern with pictures", name, remedy)
        known = {picture.resolve() for picture in pictures}
        pictures += [child for child in held if child.resolve() not in known]
    if len(pictures) < 2:
        remedy = "Name a second picture, or a folder with some."
        raise checks.problem("two pictures or more", f"only {pictures[0]}", remedy)
    return pictures


def _check_unread(target: Path, names: Sequence[str]) -> None:
    """Refuses a picture that the folders and patterns that were named would hold the next time."""
    for path in (Path(name).expanduser() for name in names if target.suffix.lower() in images.SUFFIXES):
        pattern = glob.has_magic(str(path)) and not path.exists()
        if path.is_dir() or (pattern and target.absolute().match(str(path.absolute()))):
            files.check_outside(target, path if path.is_dir() else target.parent, below=False)


def _matching(pattern: Path) -> Iterator[Path]:
    """Returns what a pattern matches, be it relative or absolute."""
    anchor = Path(pattern.anchor)
    return anchor.glob(str(pattern.relative_to(anchor)))


def _targets(outputs: Sequence[str] | None, others: Sequence[Path]) -> list[list[Path]]:
    """Returns the files to write for each picture that is matched with the first."""
    several = len(others) > 1
    stems = [path.stem for path in others]
    # Those of two folders, or a.jpg and a.png, are told apart by their place.
    names = [f"{at}_{stem}" if stems.count(stem) > 1 else stem for at, stem in enumerate(stems, 1)]
    targets: list[list[Path]] = [[] for _ in others]
    for output in outputs or ["matches/" if several else "matches.png"]:
        path = Path(output).expanduser()
        folder = path.is_dir() or output.endswith(("/", os.sep))
        if not (folder or path.suffix):
            suffixes = ", ".join((*matched.PICTURES, *matched.TABLES))
            remedy = f"Write {output}/, if a folder is meant."
            raise checks.problem(f"an output that ends in {suffixes}", repr(output), remedy)
        for own, name in zip(targets, names, strict=True):
            if folder:
                own.append(path / f"{name}.png")
            else:
                own.append(path.with_name(f"{path.stem}_{name}{path.suffix}") if several else path)
    if len(set(targets[0])) < len(targets[0]):
        raise checks.problem("different outputs", ", ".join(outputs or []), "Name each once.")
    return targets
