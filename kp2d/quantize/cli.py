"""Owns `kp2d quantize`: its arguments and what they mean."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kp2d import backend, checks, files, paths
from kp2d.arguments import SIZE, refuse_input_as_output, refuse_unused
from kp2d.config import assignments
from kp2d.methods import extractors, tflite_file, weights

if TYPE_CHECKING:
    from kp2d.quantize.flatbuffer import Model

PRECISIONS = ("int8", "int8_ptq", "float32", "float16")
SUFFIXES = {".tflite": "a model", ".h": "a C array", ".onnx": "ONNX (float32)"}


def add_quantize(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d quantize` to the parser of the verb."""
    kinds = ", ".join(f"{suffix} {kind}" for suffix, kind in SUFFIXES.items())
    parser.add_argument(
        "network",
        help="kp2d_tiny_s or kp2d_tiny_s:int8 …, the weights you trained, or a .tflite model to change",
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
        choices=PRECISIONS,
        help="int8 (the default): trained on its grid; int8_ptq: quantized after training; others to compare",
    )
    parser.add_argument("--image-size", **SIZE, help="of the model, px; default: a model's own, or 240x320")
    parser.add_argument(
        "--target",
        choices=["cpu", "edgetpu"],
        default="cpu",
        help="edgetpu: in operators that the Edge TPU has, with the same results (int8 only)",
    )
    parser.add_argument("--input", choices=["int8", "uint8"], help="of an int8 model's image; default: int8")
    parser.add_argument(
        "--data",
        help="int8: photographs to train on, searched recursively; the run is kept in OUTPUT_training, beside"
        " the output. Shipped networks need none",
    )
    parser.add_argument(
        "--calibration", help="photographs to choose ranges by; default: those of --data, else of `sample`"
    )
    parser.add_argument("--num-images", type=int, help="of them, at most; default: 40")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images, and of the training")
    parser.add_argument("--steps", type=int, help="int8: optimizer steps of the training; default: 400")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="int8: any setting of the training, as learning_rate=1e-4",
    )
    parser.add_argument(
        "--card", action="store_true", help="write a card beside the model: of what it was made, and how"
    )


def run_quantize(options: argparse.Namespace) -> None:
    """Makes the files.

    Raises:
        InputError: If a value is refused, or a package is missing.
    """
    method = extractors.Method.parse(options.network, options.precision)
    options.network = method.name
    if method.precision is not None:
        options.precision = checks.one_of("precision", method.precision, PRECISIONS)
    for path in options.output:
        checks.one_of("suffix of an output", path.suffix, SUFFIXES)
        files.check_writable(path)
        refuse_input_as_output("output", path, [options.network])
    if len(set(options.output)) < len(options.output):
        raise checks.problem("different outputs", ", ".join(map(str, options.output)))
    onnx = [path for path in options.output if path.suffix == ".onnx"]
    models = [path for path in options.output if path.suffix != ".onnx"]
    if onnx and not models:
        refuse_unused(options, (*_TRAINING, "precision", "input"), "an ONNX file, which is float32")
    cards = _check_cards(options)
    content = {path: _onnx(options) for path in onnx}  # nothing is written before everything is made
    model, origin = _model(options) if models else (None, {})
    data = model.pack() if model else b""
    for path in models:
        is_array = path.suffix == ".h"
        content[path] = tflite_file.to_c_array(data, path.stem).encode() if is_array else data
    for path in options.output:
        files.write_bytes(path, content[path])
    _report(options.output, model, data)
    for path in cards:
        from kp2d.train.cards import write_model_card

        print(write_model_card(path, **origin))


_TRAINING = ("data", "calibration", "num_images", "steps", "set")


def _check_cards(options: argparse.Namespace) -> list[Path]:
    """Returns the models that are to have a card; refuses to write one over another file."""
    if not options.card:
        return []
    models = [path for path in options.output if path.suffix == weights.MODEL]
    if not models:
        raise checks.problem(f"a {weights.MODEL} output for --card", ", ".join(map(str, options.output)))
    for card in map(weights.card_of, models):
        files.check_writable(card)
        if card.exists() and not {"sha256", "precision"} <= (files.read_json(card) or {}).keys():
            received = f"{card} beside it, no card of a model, which would be overwritten"
            raise checks.problem("another name for the model", received, "Name one with -o.")
    return models


def _model(options: argparse.Namespace) -> tuple[Model, dict[str, Any]]:
    """Takes a finished model where there is one, at the size that is wanted; else converts weights.

    Returns the model, and its origin, as `kp2d.train.cards.write_model_card` takes it.
    """
    precision, finished = options.precision or "int8", None
    asked = {"--input uint8": options.input == "uint8", "--target edgetpu": options.target == "edgetpu"}
    for option in (option for option, given in asked.items() if given):
        if not precision.startswith("int8"):
            raise checks.problem(f"an int8 model for {option}", f"--precision {precision}")
    if options.network.endswith(weights.MODEL):
        finished = Path(options.network).expanduser()
        refuse_unused(options, _TRAINING, "a finished model")
    elif not weights.is_path(options.network):
        weights.check_name("shipped network", options.network, weights.shipped())
        shipped = precision in ("int8", "int8_ptq") and options.network in weights.shipped(precision)
        if shipped and not (options.data or options.calibration):
            finished = weights.shipped_path(options.network, precision)
            refuse_unused(options, _TRAINING, "a shipped model, which is taken as it is")
    if finished is None:
        model, origin = _convert(options, precision)
    else:
        model, origin = _finished(finished, options), {"source": finished}
    from kp2d.quantize import rewriting

    if options.target == "edgetpu":
        rewriting.for_edgetpu(model)
    if options.input == "uint8":
        rewriting.take_uint8(model)
    return model, origin


def _finished(path: Path, options: argparse.Namespace) -> Model:
    from kp2d.quantize import rewriting
    from kp2d.quantize.flatbuffer import Model

    data, about = tflite_file.open_model(path)
    if options.precision is not None:
        checks.one_of(f"precision of {path.name}", options.precision, [about["precision"]])
    model = Model.parse(data)
    size = options.image_size or tuple(about["image_size"])
    if list(size) != about["image_size"]:
        rewriting.resize(model, size)
    return model


def _convert(options: argparse.Namespace, precision: str) -> tuple[Model, dict[str, Any]]:
    backend.quiet()
    from kp2d.data import datasets, samples
    from kp2d.quantize import calibration, convert, quantization

    convert.require_tensorflow()  # now rather than after the training
    size = options.image_size or (240, 320)
    source = quantization.load_float(options.network)
    checks.fits_cells(size, source.config.cell)
    export = convert.Export(name=source.name, precision=precision, image_size=size, steered=source.steered)
    about: dict[str, Any] = {"float_sha256": source.sha256}
    if precision in ("float32", "float16"):
        refuse_unused(options, _TRAINING, f"{precision}, which needs no photographs")
        model = convert.to_tflite(source.network, source.config, export, about=about)
        return model, {"calibration": "none"}
    if precision != "int8":
        refuse_unused(options, ("steps", "set"), f"{precision}, which is not trained")
    elif not options.data:
        raise checks.problem(
            f"photographs to train {source.name} on its int8 grid",
            "no --data",
            "Write --data PHOTOGRAPHS, or --precision int8_ptq, which needs no training.",
        )
    else:
        files.check_outside(_run_folder(options), options.data)
    folder = options.calibration or options.data
    if folder is None:
        folder = samples.training_photographs(paths.data("fast") / "photographs")
    count = calibration.NUM_IMAGES if options.num_images is None else options.num_images
    images = calibration.read_images(folder, source.config, size, count=count, seed=options.seed)
    network, run = quantization.post_training(source.network, source.config, images), None
    if precision == "int8":
        network, run = _train(network, source, options)
    about["calibration_images"] = len(images)
    model = convert.to_tflite(network, source.config, export, about=about)
    total, name = len(datasets.list_images(folder)), Path(folder).resolve().name
    told = f"{len(images)} of {total:,} photographs of {name} at {size[1]}×{size[0]}"
    return model, {"calibration": told, "run": run}


def _train(network: Any, source: Any, options: argparse.Namespace) -> tuple[Any, Path]:
    from kp2d.quantize import quantization

    given = {"seed": options.seed, **assignments(options.set)}
    if options.steps is not None:
        given["steps"] = options.steps
    return quantization.aware_training(
        network,
        source,
        data=options.data,
        output=_run_folder(options),
        progress=sys.stderr.isatty(),
        **given,
    )


def _run_folder(options: argparse.Namespace) -> Path:
    """Returns the folder that keeps the training, beside the output."""
    folder = options.output[0].with_suffix("")
    return folder.with_name(f"{folder.name}_training")


def _onnx(options: argparse.Namespace) -> bytes:
    backend.quiet()
    from kp2d.quantize import convert, quantization

    convert.require_tensorflow()
    source = quantization.load_float(options.network)
    return convert.to_onnx(source.network, source.config, options.image_size or (240, 320))


def _report(outputs: list[Path], model: Model | None, data: bytes) -> None:
    if model:
        content, about = model.summary(), model.metadata()
        height, width = about["image_size"]
        print(f"{about['name']} {about['precision']} {height}x{width}, {len(data):,} bytes")
        if "calibration_images" in about:
            print(f"calibrated with {about['calibration_images']} images")
        print("operators:", ", ".join(f"{name} ×{n}" for name, n in content["operators"].items()))
        print("tensors:", ", ".join(f"{kind} ×{n}" for kind, n in content["tensors"].items()))
    for path in outputs:
        print(f"{path} (float32)" if path.suffix == ".onnx" else path)
