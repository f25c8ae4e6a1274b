"""Owns the arguments of `kp2d quantize` and what they mean; `kp2d.cli` adds the verb."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kp2d import backend, checks, files, learned, paths, tflite_file
from kp2d.config import assignments
from kp2d.train_cli import image_size

PRECISIONS = ("int8", "int8_ptq", "float32", "float16", "int16x8")
SUFFIXES = {".tflite": "a model", ".h": "a C array", ".onnx": "ONNX (float32)"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments.

    Args:
        parser: Parser of the verb.
    """
    kinds = ", ".join(f"{suffix} {kind}" for suffix, kind in SUFFIXES.items())
    parser.add_argument(
        "network", help="kp2d_tiny_s …, the weights you trained, or a .tflite model to change"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        nargs="+",
        required=True,
        help=f"one or more files; the suffix says what: {kinds}",
    )
    parser.add_argument(
        "--precision",
        default="int8",
        choices=PRECISIONS,
        help="int8: trained on its grid; int8_ptq: quantized after training; the others to compare with",
    )
    parser.add_argument(
        "--image-size", type=image_size, metavar="HxW", help="of the model, px; default: 240x320"
    )
    parser.add_argument("--input", default="int8", choices=["int8", "uint8"], help="of an int8 model's image")
    parser.add_argument(
        "--data", help="int8: photographs to train on, searched recursively; shipped networks need none"
    )
    parser.add_argument(
        "--calibration", help="photographs to choose ranges by; default: those of --data, else of `sample`"
    )
    parser.add_argument("--num-images", type=int, default=40, help="of them, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images, and of the training")
    parser.add_argument("--steps", type=int, help="int8: optimizer steps of the training; default: 400")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="int8: any setting of the training, as learning_rate=1e-4",
    )


def run(options: argparse.Namespace) -> None:
    """Makes the files.

    Args:
        options: From a parser with `add_arguments`.

    Raises:
        InputError: If a value is refused, or a package is missing.
    """
    for path in options.output:
        checks.one_of("suffix of an output", path.suffix, SUFFIXES)
        files.check_writable(path)
    models = [path for path in options.output if path.suffix != ".onnx"]
    if options.input == "uint8" and not options.precision.startswith("int8"):
        raise checks.problem("an int8 model for --input uint8", f"--precision {options.precision}")
    if models:
        data = _model(options)
        if options.input == "uint8":
            from kp2d import flatbuffer

            data = flatbuffer.with_uint8_input(data)
        for path in models:
            _write(path, data)
    for path in options.output:
        if path.suffix == ".onnx":
            _write_onnx(path, options)
    _report(options.output, models[0] if models else None, data if models else b"")


def _model(options: argparse.Namespace) -> bytes:
    """Takes a finished model where there is one, at the size that is wanted; else converts weights."""
    from kp2d import flatbuffer

    finished = None
    if options.network.endswith(learned.MODEL):
        finished = Path(options.network).expanduser()
    elif not learned.is_path(options.network) and not (options.data or options.calibration):
        checks.one_of("shipped network", options.network, learned.shipped())
        if options.precision in ("int8", "int8_ptq") and options.network in learned.shipped(
            options.precision
        ):
            finished = learned.PRETRAINED / f"{options.network}{learned.SUFFIXES[options.precision]}"
    if finished is None:
        return _convert(options)
    data, about = tflite_file.open_model(finished)
    size = options.image_size or tuple(about["image_size"])
    return data if list(size) == about["image_size"] else flatbuffer.resize(data, size)


def _convert(options: argparse.Namespace) -> bytes:
    backend.quiet()
    from kp2d import convert, quantization, samples

    size = options.image_size or (240, 320)
    source = quantization.load_float(options.network)
    checks.fits_cells(size, source.config.cell)
    if options.precision == "int8" and not options.data:
        raise checks.problem(
            f"photographs to train {source.name} on its int8 grid",
            "no --data",
            "Write --data PHOTOGRAPHS, or --precision int8_ptq, which needs no training.",
        )
    export = convert.Export(name=source.name, precision=options.precision, image_size=size)
    about = {"float_sha256": source.sha256}
    if options.precision in ("float32", "float16"):
        return convert.to_tflite(source.network, source.config, export, about=about)
    folder = options.calibration or options.data
    if folder is None:
        folder = samples.training_photographs(paths.data("fast") / "photographs")
    images = quantization.calibration_images(
        folder, source.config, size, count=options.num_images, seed=options.seed
    )
    if options.precision == "int16x8":
        return convert.to_tflite(source.network, source.config, export, images=images, about=about)
    network = quantization.post_training(source.network, source.config, images)
    if options.precision == "int8":
        network = _train(network, source, options)
    return convert.to_tflite(network, source.config, export, about=about)


def _train(network: Any, source: Any, options: argparse.Namespace) -> Any:
    from kp2d import quantization

    given = {"seed": options.seed, **assignments(options.set)}
    if options.steps is not None:
        given["steps"] = options.steps
    folder = options.output[0].with_suffix("")
    folder = folder.with_name(f"{folder.name}_training")
    progress = sys.stderr.isatty()
    trained, _ = quantization.aware_training(
        network, source, data=options.data, output=folder, progress=progress, **given
    )
    return trained


def _write(path: Path, data: bytes) -> None:
    if path.suffix == ".h":
        from kp2d import convert

        files.write_text(path, convert.to_c_array(data, path.stem))
        return
    files.write_bytes(path, data)


def _write_onnx(path: Path, options: argparse.Namespace) -> None:
    backend.quiet()
    from kp2d import convert, quantization

    source = quantization.load_float(options.network)
    data = convert.to_onnx(source.network, source.config, options.image_size or (240, 320))
    files.write_bytes(path, data)


def _report(outputs: list[Path], model: Path | None, data: bytes) -> None:
    lines = []
    if model is not None:
        from kp2d import flatbuffer

        found, about = flatbuffer.summary(data), tflite_file.metadata(data)
        height, width = about["image_size"]
        lines.append(f"{about['name']} {about['precision']} {height}x{width}, {found['bytes']:,} bytes")
        lines.append("operators: " + ", ".join(f"{name} ×{n}" for name, n in found["operators"].items()))
        lines.append("tensors: " + ", ".join(f"{kind} ×{n}" for kind, n in found["tensors"].items()))
    sys.stdout.write("\n".join([*lines, *map(str, outputs)]) + "\n")
