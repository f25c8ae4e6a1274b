"""Owns the command line: which verbs there are, the room that serves each, errors as one line."""

from __future__ import annotations

import argparse
import codecs
import importlib
import io
import logging
import os
import sys
from collections.abc import Container, Sequence
from typing import NamedTuple

from kp2d import __version__, checks
from kp2d.arguments import Formatter, with_flags, with_place


class Verb(NamedTuple):
    """What the command line knows of a verb before it is used."""

    # of kp2d; it has `add_VERB(parser)`, which adds the arguments, and `run_VERB(options)`, which returns the
    # exit status or None for 0; it is imported when the verb is used or explained
    module: str
    help: str  # what the verb does, in a line
    example: str  # a command that shows it; stands below its help


# Our own signs for terminals whose encoding lacks them.
SIGNS = {
    "✓": "+", "✗": "x", "×": "x", "→": "->", "←": "<-", "–": "-", "—": "-", "−": "-", "…": "...",
    "·": "|", "≥": ">=", "≤": "<=", "±": "+-", "Δ": "change of ", "σ": "sigma", "²": "^2", "³": "^3",
}  # fmt: skip

VERBS = {
    "match": Verb(
        "viz.cli",
        "match two images or more, draw the matches and write them down",
        "kp2d match left.jpg right.jpg --method kp2d_tiny_s:int8 -o matches.png -o matches.csv",
    ),
    "extract": Verb(
        "export.cli",
        "write features of a folder of pictures for hloc, COLMAP or OpenCV",
        "kp2d extract photos/ -o features.h5 --match exhaustive",
    ),
    "demo": Verb(
        "live.cli",
        "see keypoints live, on a camera, a video or pictures",
        "kp2d demo 0 --reference cover.jpg",
    ),
    "evaluate": Verb(
        "evaluate.cli",
        "score a method on a folder in the layout of HPatches",
        "kp2d evaluate --method kp2d_tiny_s --data hpatches --output scores.csv",
    ),
    "train": Verb(
        "train.cli",
        "train a network on a folder of photographs",
        "kp2d train --data ~/photographs -o runs/mine --preset kp2d_tiny_s --steps 20000",
    ),
    "quantize": Verb(
        "quantize.cli",
        "make .tflite models, int8 and others, ONNX and C arrays",
        "kp2d quantize kp2d_tiny_s -o model.tflite model.h --image-size 120x160",
    ),
    "lint": Verb(
        "device.cli",
        "forecast what of a model runs on an Edge TPU",
        "kp2d lint model.tflite --strict",
    ),
    "compile": Verb(
        "device.cli",
        "compile an int8 model for the Edge TPU",
        "kp2d compile kp2d_tiny_s --image-size 240x320",
    ),
    "reproduce": Verb(
        "reproduce.cli",
        "run the notebooks and make every table and picture",
        "kp2d reproduce --profile fast --stages 05,06 -p top_k=300",
    ),
    "sweep": Verb(
        "reproduce.cli",
        "score methods × sizes × seeds, here or on a cluster",
        "kp2d sweep --preset kp2d_tiny_s --precision float32 int8 --image-size 88x88 240x320",
    ),
    "report": Verb(
        "report.cli",
        "make a web site of results, notebooks and matches",
        "kp2d report --profile fast",
    ),
    "prepare": Verb(
        "data.cli",
        "make the sample data set from photographs inside installed packages",
        "kp2d prepare --profile fast",
    ),
    "download": Verb(
        "data.cli",
        "download a data set; resumes, verifies and unpacks",
        "kp2d download hpatches --folder ~/data",
    ),
    "bench": Verb(
        "reproduce.cli",
        "measure speed, memory and training recipes on this machine",
        "kp2d bench latency --preset kp2d_tiny_s --image-size 240x320 --threads 1 4",
    ),
    "readme": Verb(
        "reproduce.cli",
        "fill the tables of README.md, results/README.md and docs/",
        "kp2d readme --check",
    ),
    "doctor": Verb(
        "reproduce.cli",
        "say what is installed, what is missing, and what to do",
        "kp2d doctor --deep",
    ),
}


# Address space that verbs want which load TensorFlow, GiB; the others want less than half of it.
_ADDRESS_SPACE = dict.fromkeys(("train", "quantize", "compile", "reproduce", "sweep", "bench"), 4)
_TAKE_MEMORY = ("image_size", "top_k", "batch_size", "workers", "num_images", "jobs")

# Packages that are installed by another name than that by which they are imported.
_ON_PYPI = {
    "cv2": "opencv-python",
    "distributed": "'dask[distributed]'",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line, without the program's name; by default the process's own.

    Returns:
        0 on success, 1 if a stage failed or a check found a difference, 2 if an input cannot be used, 130 if
        interrupted.
    """
    words = sys.argv[1:] if arguments is None else arguments
    _write_anything()
    os.environ.pop("MPLBACKEND", None)  # of another program; ours opens no window of Matplotlib's
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # or a random.py in the working folder stops our workers
    _warn_of_limit(words)
    options = parser_for(words).parse_args(words)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="kp2d: %(message)s"
    )
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        print("kp2d: interrupted; finished work is kept", file=sys.stderr)
        return 130
    except Exception as error:
        failure = _lack_of_memory(options) if checks.lacks_memory(error) else _explained(error, options.verb)
        if failure is None:
            raise
        if options.verbose:
            logging.getLogger(__name__).exception("details")
    print(f"kp2d {options.verb}: error: {with_flags(with_place(failure, options), options)}", file=sys.stderr)
    return 1 if isinstance(failure, checks.RunError) else 2


def _write_anything() -> None:
    """Lets both streams take any name and any sign, whatever the terminal's encoding."""
    codecs.register_error("kp2d", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="kp2d")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Replaces what an encoding lacks: our own signs by ASCII, the rest by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    escaped = (SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return "".join(escaped), error.end


def _explained(error: Exception, verb: str) -> Exception | None:
    """Returns what a user is told of an error; None for a fault of the program, which needs its traceback."""
    if isinstance(error, (checks.InputError, checks.RunError, OSError)):
        return error
    if isinstance(error, ModuleNotFoundError):
        return _missing(error, verb)
    return None


def _lack_of_memory(options: argparse.Namespace) -> checks.InputError:
    """Returns what a user is told whose work does not fit, with the options of this verb that help."""
    given = [f"--{name.replace('_', '-')}" for name in _TAKE_MEMORY if hasattr(options, name)]
    limit = _limit()
    received = f"a lack of memory{f', of which ulimit -v allows {limit:.1f} GiB' if limit else ''}"
    smaller = f"Choose a smaller {' or '.join(given)}" if given else "Close other programs"
    more = "; or allow more by ulimit -v unlimited." if limit else ", or a machine with more memory."
    return checks.problem("work that fits into memory", received, smaller + more)


def _limit() -> float | None:
    """Returns how much address space the system lets this process have, GiB; None if any."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit / 2**30


def _warn_of_limit(words: Sequence[str]) -> None:
    """Says before the work that it may not fit: libraries in C++ end the process where memory ends."""
    verb = next((word for word in words if word in VERBS), "")
    limit, wanted = _limit(), _ADDRESS_SPACE.get(verb, 1.2)
    if limit and limit < wanted:
        told = (
            f"ulimit -v allows {limit:.1f} GiB of memory, kp2d {verb} wants {wanted:g}: it may end without a"
        )
        print(f"kp2d: {told} word; ulimit -v unlimited allows more", file=sys.stderr)


def _missing(error: ModuleNotFoundError, verb: str) -> Exception | None:
    """Says which package a command lacks; the core of kp2d installs few."""
    package = (error.name or "kp2d").partition(".")[0]
    if package == "kp2d":
        return None
    light = package in ("flatbuffers", "ai_edge_litert")
    extra = "litert" if light else "train" if package in ("keras", "tensorflow") else "reproduce"
    instead = ", or add --precision int8" if package == "keras" and verb != "train" else ""
    name = _ON_PYPI.get(package, package.replace("_", "-"))
    return checks.problem(
        f"the package {package}, which this command needs",
        "none installed",
        f"Run pip install {name}, or, in a clone of kp2d, pip install '.[{extra}]'{instead}.",
    )


def parser_for(words: Container[str]) -> argparse.ArgumentParser:
    """Returns the parser of the command line, in which the verbs among some words have their arguments.

    The words are a command line, or `VERBS` for a parser of all verbs.
    """
    parser = argparse.ArgumentParser(
        prog="kp2d",
        description="Learned and classical keypoints for the edge: data, evaluation, reproduction.",
    )
    parser.add_argument("--version", action="version", version=f"kp2d {__version__}")
    parser.set_defaults(verbose=False, run=lambda _: parser.print_help())  # without a verb
    verbs = parser.add_subparsers(
        dest="verb", title="verbs", metavar="VERB", help="kp2d VERB --help explains it"
    )
    for name, verb in VERBS.items():
        of_verb = verbs.add_parser(
            name,
            help=verb.help,
            description=f"{verb.help[:1].upper()}{verb.help[1:]}.",
            epilog=f"example: {verb.example}",
            formatter_class=Formatter,
        )
        if name in words:
            _add_arguments(of_verb, name, verb)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, name: str, verb: Verb) -> None:
    module = importlib.import_module(f"kp2d.{verb.module}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="log what is done, and tracebacks of errors"
    )
    getattr(module, f"add_{name}")(parser)
    parser.set_defaults(run=getattr(module, f"run_{name}"))


if __name__ == "__main__":
    sys.exit(main())
