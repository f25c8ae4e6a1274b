"""Owns the arguments that choose a keypoint method and what runs it, for every verb that takes one."""

from __future__ import annotations

import argparse

from kp2d import checks
from kp2d.methods import extractors, runtimes

DEFAULT = "kp2d_tiny_s:int8"


def add_arguments(
    parser: argparse.ArgumentParser, *, method: str | None = None, precision: str = "float32"
) -> None:
    """Adds the arguments to the parser of a verb.

    Without a method, `DEFAULT` is taken, in the precision that is asked for. `precision` is what the help
    says a network has if none is given; to do so is up to the verb.
    """
    parser.add_argument(
        "--method",
        default=method,
        help="keypoint method: sift, rootsift, orb, a network as kp2d_tiny_s or kp2d_tiny_s:int8, or a file:"
        f" .weights.h5 or .tflite{'' if method else f'; default: {DEFAULT}'}",
    )
    parser.add_argument(
        "--precision",
        help=f"of a network: float32, int8 or int8_ptq; default: {precision}, or that of a .tflite file",
    )
    parser.add_argument(
        "--runtime",
        help=f"of a .tflite model: {', '.join(runtimes.RUNTIMES)}; default: the best that is installed",
    )
    parser.add_argument(
        "--pyramid",
        type=int,
        metavar="LEVELS",
        help="of a network: 2 also looks at the picture at half its size, for pairs that differ in scale;"
        " default: 1, the picture alone",
    )
    add_tpu(parser)


def add_tpu(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that asks for an Edge TPU."""
    parser.add_argument(
        "--use-tpu",
        action="store_true",
        default=None,
        help="run on a Coral Edge TPU, or say what is missing; models that kp2d compile made do so anyway",
    )


def extractor_from(
    options: argparse.Namespace, method: extractors.Method | None = None
) -> extractors.Extractor:
    """Makes the method that was asked for, or the one that is told, with the options of `add_arguments`.

    `threads` counts too, of a verb that has it.

    Raises:
        InputError: As `kp2d.methods.extractors.create`; or if the method does not take the size asked for.
    """
    given = {name: vars(options).get(name) for name in ("runtime", "pyramid", "use_tpu", "threads")}
    extractor = extractors.create(method or method_from(options), **given)
    if size := vars(options).get("image_size"):
        checks.fits_cells(size, extractor.cell)
    return extractor


def method_from(options: argparse.Namespace) -> extractors.Method:
    """Reads which method was asked for.

    Raises:
        InputError: If two precisions are given.
    """
    if options.method is None:
        default = extractors.Method.parse(DEFAULT)
        return extractors.Method(default.name, options.precision or default.precision)
    return extractors.Method.parse(options.method, options.precision)
