"""Owns the arguments of `kp2d lint` and `kp2d compile` and what they mean; `kp2d.cli` adds the verbs."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from kp2d import checks, files
from kp2d.methods import learned, tflite_file, tpu
from kp2d.methods.tflite_file import COMPILED
from kp2d.train.cli import image_size


def add_lint(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d lint`.

    Args:
        parser: Parser of the verb.
    """
    parser.add_argument(
        "model", help="any .tflite file, compiled or not, or a shipped network as kp2d_tiny_s"
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    parser.add_argument(
        "--strict", action="store_true", help="fail with exit status 1 unless every operator is mapped"
    )


def lint(options: argparse.Namespace) -> int:
    """Forecasts which operators of a model the Edge TPU would compute.

    Args:
        options: From a parser with `add_lint`.

    Returns:
        1 if something stays on the CPU and that was to fail, else 0.

    Raises:
        InputError: If there is no such model, or it is damaged.
    """
    from kp2d.device import edgetpu

    report = edgetpu.lint(tflite_file.read(_path(options.model)))
    text = json.dumps(report.to_dict(), indent=1) if options.json else report.text()
    sys.stdout.write(f"{text}\n")
    return int(options.strict and bool(report.unmapped or report.failure))


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d compile`.

    Args:
        parser: Parser of the verb.
    """
    parser.add_argument("model", help="an int8 .tflite model, or a shipped network as kp2d_tiny_s")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help=f"compiled model to write; default: NAME_HxW{COMPILED}.tflite here. What the compiler gets is"
        f" kept beside it, without {COMPILED}",
    )
    parser.add_argument(
        "--image-size", type=image_size, metavar="HxW", help="of the model, px; default: a model's own"
    )
    parser.add_argument("--input", choices=["int8", "uint8"], help="of the model's image; default: int8")
    parser.add_argument("--time-limit", type=int, default=300, help="seconds the compiler may take")


def compile_model(options: argparse.Namespace) -> None:
    """Rewrites a model for the Edge TPU and runs Google's compiler on it, where that is installed.

    Args:
        options: From a parser with `add_compile`.

    Raises:
        InputError: If the model cannot be compiled or a file not be written.
        RunError: If the compiler fails.
    """
    from kp2d.device import compiler, edgetpu
    from kp2d.quantize import lowering, rewriting

    if options.time_limit < 1:
        raise checks.problem("a --time-limit of at least 1 s", options.time_limit)
    path = _path(options.model)
    data, about = tflite_file.open_model(path)
    if tpu.is_compiled(data):
        raise checks.problem("a model that is not compiled yet", str(path), "Name the one it was made of.")
    size = options.image_size or tuple(about["image_size"])
    output = options.output or _default_output(path, size)
    if not output.name.endswith(f"{COMPILED}{learned.MODEL}"):
        raise checks.problem(f"an output that ends with {COMPILED}{learned.MODEL}", str(output))
    prepared = output.with_name(f"{output.stem.removesuffix(COMPILED)}{learned.MODEL}")
    for target in (output, prepared):
        files.check_writable(target)
    if list(size) != about["image_size"]:
        data = rewriting.resize(data, size)
    data = lowering.for_edgetpu(data)
    if options.input == "uint8":
        data = rewriting.with_uint8_input(data)
    report = edgetpu.lint(data)
    if report.failure:
        raise checks.problem("a model that the Edge TPU compiler takes", f"{path}: {report.failure}")
    if prepared.exists() and prepared.read_bytes() != data:
        received = f"{prepared} beside it, another model, which would be overwritten"
        raise checks.problem(f"another output than {output}", received, "Name one with -o.")
    files.write_bytes(prepared, data)
    sys.stdout.write(f"{report.text()}\n\n{prepared}: for the compiler\n")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / output.name
        found = compiler.compile_model(
            prepared, made, timeout=options.time_limit, limit=float(options.time_limit)
        )
        if found.status == "skipped":
            sys.stdout.write(f"{output}: skipped. {found.reason}\n")
            return
        files.write_bytes(output, rewriting.with_metadata(tflite_file.read(made), data))
    where = f"{found.mapped} operators on the Edge TPU, {found.unmapped} on the CPU"
    sys.stdout.write(f"{output}: compiled by version {found.version}, {where}\n")
    for one in found.blockers:
        sys.stdout.write(f"  {one.count} {one.name}: {one.status}\n")


def _default_output(path: Path, size: tuple[int, int]) -> Path:
    stem, ending = path.stem.removesuffix(".int8"), f"_{size[0]}x{size[1]}"
    return Path(f"{stem.removesuffix(ending)}{ending}{COMPILED}{learned.MODEL}")


def _path(model: str) -> Path:
    """Finds a model by its path or a shipped network's name."""
    if learned.is_path(model):
        return Path(model).expanduser()
    checks.one_of("shipped network in int8", model, learned.shipped("int8"))
    return learned.PRETRAINED / f"{model}{learned.SUFFIXES['int8']}"
