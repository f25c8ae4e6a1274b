"""Owns the command line: `kp2d <verb>`, thin over the library; errors in one line, no traceback."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from kp2d import __version__, arguments, backend, checks, config
from kp2d.data import cli as data_cli
from kp2d.device import cli as edgetpu_cli
from kp2d.live import cli as demo_cli
from kp2d.methods import cli as method_cli
from kp2d.quantize import cli as quantize_cli
from kp2d.report import cli as report_cli
from kp2d.reproduce import bench_cli, doctor_cli, sweep_cli
from kp2d.reproduce import cli as reproduce_cli
from kp2d.train import cli as train_cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        0 on success, 1 if a stage failed or a check found a difference, 2 if an input cannot be used, 130 if
        interrupted.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="kp2d: %(message)s"
    )
    try:
        return options.run(options) or 0
    except checks.InputError as error:
        failure, code = error, 2
    except OSError as error:
        failure, code = error, 2
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        failure, code = checks.problem("work that fits into memory", "a lack of memory", _LESS), 2
    except KeyboardInterrupt:
        print("kp2d: interrupted; finished work is kept", file=sys.stderr)
        return 130
    except checks.RunError as error:
        failure, code = error, 1
    except ModuleNotFoundError as error:
        failure, code = _missing(error), 2
    if options.verbose:
        logging.getLogger(__name__).exception("details")
    print(f"kp2d {options.verb}: error: {failure}", file=sys.stderr)
    return code


_LESS = "Choose a smaller --image-size, --top-k or --batch-size, or fewer --workers."


def _missing(error: ModuleNotFoundError) -> Exception:
    """Says which package a command lacks; the core of kp2d installs few."""
    if (error.name or "kp2d").partition(".")[0] == "kp2d":
        raise error
    package = (error.name or "").partition(".")[0]
    light = package in ("flatbuffers", "ai_edge_litert")
    extra = "litert" if light else "train" if package in ("keras", "tensorflow") else "reproduce"
    instead = ", or add --precision int8" if package == "keras" else ""
    return checks.problem(
        f"the package {package}, which this command needs",
        "none installed",
        f"In the folder of kp2d, run pip install '.[{extra}]'{instead}.",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kp2d",
        description="Learned and classical keypoints for the edge: data, evaluation, reproduction.",
    )
    parser.add_argument("--version", action="version", version=f"kp2d {__version__}")
    parser.set_defaults(verbose=False, run=lambda _: parser.print_help())  # without a verb
    verbs = parser.add_subparsers(
        dest="verb", title="verbs", metavar="VERB", help="kp2d VERB --help explains it"
    )
    for add in (
        *(_add_match, _add_demo, _add_evaluate, _add_train, _add_quantize, _add_lint, _add_compile),
        *(_add_reproduce, _add_sweep, _add_report, _add_prepare, _add_download, _add_bench, _add_readme),
        _add_doctor,
    ):
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, run: Any, description: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=description,
        description=f"{description[:1].upper()}{description[1:]}.",
        epilog=arguments.example(name),
        formatter_class=arguments.Formatter,
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="log what is done, and tracebacks of errors"
    )
    parser.set_defaults(run=run)
    return parser


def _add_match(verbs: Any) -> None:
    parser = _verb(verbs, "match", _match, "match two images and draw the result")
    parser.add_argument("image0", help="first image")
    parser.add_argument("image1", help="second image")
    parser.add_argument("-o", "--output", default="matches.png", help="picture to write (.png or .svg)")
    method_cli.add_arguments(parser)
    parser.add_argument("--top-k", type=int, default=1000, help="keypoints kept an image")
    parser.add_argument(
        "--image-size",
        type=train_cli.image_size,
        metavar="HxW",
        help="size the method sees; default: each image's own",
    )
    parser.add_argument("--ransac-threshold", type=float, default=3.0, help="largest error of an inlier, px")


def _match(options: argparse.Namespace) -> None:
    from kp2d import images
    from kp2d.methods import extractors, registration
    from kp2d.viz import figures, pictures

    figures.check_target(options.output)  # before the work
    protocol = config.protocol(top_k=(options.top_k,), ransac_threshold=options.ransac_threshold)
    extractor = method_cli.extractor_from(options)
    image0, image1 = images.read_image(options.image0), images.read_image(options.image1)
    found = registration.register_images(
        image0,
        image1,
        extractor,
        top_k=options.top_k,
        protocol=protocol,
        image_size=options.image_size,
    )
    inliers = found.estimate.inliers
    facts = f"{inliers.sum()}/{len(inliers)} inliers"
    figure = pictures.draw_matches(
        image0,
        image1,
        found.features0.keypoints,
        found.features1.keypoints,
        found.matches[::-1],  # best first
        inliers=inliers[::-1],
        estimated=found.estimate.homography,
        title=f"{extractors.label(options.method)} {extractor.precision} · {facts}",
    )
    path = figures.save_figure(figure, options.output)
    known = "homography found" if found.estimate.homography is not None else "no homography"
    if found.estimate.homography is not None and not found.estimate.trustworthy:
        known = "a homography not to be trusted (chance finds as many inliers)"
    print(f"{len(found.features0)} and {len(found.features1)} keypoints, {facts}, {known}: {path}")


def _add_demo(verbs: Any) -> None:
    parser = _verb(verbs, "demo", demo_cli.run, "see keypoints live, on a camera, a video or pictures")
    demo_cli.add_arguments(parser)


def _add_evaluate(verbs: Any) -> None:
    parser = _verb(verbs, "evaluate", _evaluate, "score a method on a folder in the layout of HPatches")
    method_cli.add_arguments(parser)
    parser.add_argument("--data", default="sample", help="a folder, or: sample, hpatches")
    parser.add_argument("--profile", default="fast", help="whose `sample` is meant")
    parser.add_argument(
        "--image-size",
        type=train_cli.image_size,
        default="240x320",
        metavar="HxW",
        help="height x width, px",
    )
    parser.add_argument("--top-k", type=int, nargs="+", default=[300, 1000], help="keypoints kept an image")
    parser.add_argument(
        "--protocol", default="kp2d", help="kp2d, or kp2dtiny for the reference code's choices"
    )
    parser.add_argument(
        "--score-threshold", type=float, help="smallest score of a network's keypoint, [0, 1)"
    )
    parser.add_argument(
        "--half-pixel",
        action=argparse.BooleanOptionalAction,
        help="carry homographies through the resize about pixel centres, or by plain scaling",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="0 hands RANSAC the matches in KP2D's order, others shuffle"
    )
    parser.add_argument(
        "--output", type=Path, help="CSV of averages, a row a subset and k; default: print only"
    )
    parser.add_argument("--pairs", type=Path, help="CSV of every pair's scores")
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder that keeps extracted features, to resume; default: results/runs/custom/features",
    )
    parser.add_argument("--workers", type=int, help="threads; default: one a core")


def _evaluate(options: argparse.Namespace) -> None:
    from kp2d import files, paths
    from kp2d.data import datasets
    from kp2d.evaluate import evaluation, tables

    overrides: dict[str, Any] = {
        "half_pixel": options.half_pixel,
        "score_threshold": options.score_threshold,
    }
    protocol = config.protocol(
        options.protocol,
        image_size=options.image_size,
        top_k=tuple(options.top_k),
        seed=options.seed,
        **{name: value for name, value in overrides.items() if value is not None},
    )
    extractor = method_cli.extractor_from(options)
    if options.output and options.output == options.pairs:
        raise checks.problem("two different files for --output and --pairs", str(options.output))
    for target in filter(None, (options.output, options.pairs)):
        files.check_writable(target)
    profile = config.profile(options.profile).name
    sequences = datasets.load_sequences(datasets.resolve(options.data, profile))
    pairs = evaluation.evaluate(
        extractor,
        sequences,
        protocol,
        cache=options.cache or paths.runs("custom") / "features",
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    summary = evaluation.summarize(pairs, drop_unrepeated=protocol.drop_unrepeated)
    rows = tables.evaluation_rows(
        summary,
        extractor,
        protocol,
        profile=profile if options.data == "sample" else "custom",
        dataset=datasets.label(sequences),
    )
    if options.pairs:
        tables.write_csv(options.pairs, pairs)
    if options.output:
        tables.write_csv(options.output, rows)
    counts = ("subset", "top_k", "num_pairs", "num_sequences", "num_failed", "num_skipped")
    print(tables.markdown(tables.with_intervals(rows), (*counts, *tables.METRICS)))


def _add_train(verbs: Any) -> None:
    train_cli.add_arguments(_verb(verbs, "train", _train, "train a network on a folder of photographs"))


def _train(options: argparse.Namespace) -> None:
    backend.quiet()
    from kp2d.train import training

    logging.getLogger("kp2d").setLevel(logging.INFO)  # where it resumes, what it skips
    result = training.train(train_cli.config_from(options), progress=sys.stderr.isatty())
    if result.pairs_per_second:
        waited = f"{result.wait_share:.0%} of the time spent waiting for pairs"
        print(f"{result.pairs_per_second:.1f} pairs/s, {waited}, {len(result.corrupt)} unreadable pictures")
    else:
        print("nothing left to do: this run was finished before")
    print(result.weights_path)


def _add_quantize(verbs: Any) -> None:
    parser = _verb(
        verbs, "quantize", quantize_cli.run, "make .tflite models, int8 and others, ONNX and C arrays"
    )
    quantize_cli.add_arguments(parser)


def _add_lint(verbs: Any) -> None:
    parser = _verb(verbs, "lint", edgetpu_cli.lint, "forecast what of a model runs on an Edge TPU")
    edgetpu_cli.add_lint(parser)


def _add_compile(verbs: Any) -> None:
    parser = _verb(verbs, "compile", edgetpu_cli.compile_model, "compile an int8 model for the Edge TPU")
    edgetpu_cli.add_compile(parser)


def _add_reproduce(verbs: Any) -> None:
    parser = _verb(
        verbs, "reproduce", reproduce_cli.run, "run the notebooks and make every table and picture"
    )
    reproduce_cli.add_arguments(parser)


def _add_sweep(verbs: Any) -> None:
    parser = _verb(verbs, "sweep", sweep_cli.run, "score methods × sizes × seeds, here or on a cluster")
    sweep_cli.add_arguments(parser)


def _add_report(verbs: Any) -> None:
    parser = _verb(verbs, "report", report_cli.run, "make a web site of results, notebooks and matches")
    report_cli.add_arguments(parser)


def _add_prepare(verbs: Any) -> None:
    what = "make the sample data set from photographs inside installed packages"
    data_cli.add_prepare(_verb(verbs, "prepare", data_cli.prepare, what))


def _add_download(verbs: Any) -> None:
    what = "download a data set; resumes, verifies and unpacks"
    data_cli.add_download(_verb(verbs, "download", data_cli.download, what))


def _add_bench(verbs: Any) -> None:
    parser = _verb(
        verbs, "bench", bench_cli.run, "measure speed, memory and training recipes on this machine"
    )
    bench_cli.add_arguments(parser)


def _add_doctor(verbs: Any) -> None:
    parser = _verb(verbs, "doctor", doctor_cli.run, "say what is installed, what is missing, and what to do")
    doctor_cli.add_arguments(parser)


def _add_readme(verbs: Any) -> None:
    parser = _verb(verbs, "readme", _readme, "fill the tables of README.md and results/README.md")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is out of date")


def _readme(options: argparse.Namespace) -> int:
    from kp2d import files, paths
    from kp2d.reproduce import readme

    for document in readme.DOCUMENTS:
        path = paths.home() / document
        text = path.read_text(encoding="utf-8")
        filled = readme.fill(text)
        if options.check and filled != text:
            print(f"{document} differs from results/: run `kp2d readme`", file=sys.stderr)
            return 1
        if filled != text:
            files.write_text(path, filled)
    print(f"{' and '.join(readme.DOCUMENTS)} agree with results/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
