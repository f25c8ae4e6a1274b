"""Owns the arguments of `kp2d sweep` and what they mean; `kp2d.cli` adds the verb."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kp2d import checks, config
from kp2d.methods import learned
from kp2d.reproduce import cluster_cli, jobs
from kp2d.train import cli as train_cli

if TYPE_CHECKING:
    from kp2d.reproduce import sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments.

    Args:
        parser: Parser of the verb.
    """
    parser.add_argument(
        "--preset", nargs="*", default=["kp2d_tiny_f", "kp2d_tiny_s"], help="networks with shipped weights"
    )
    parser.add_argument(
        "--precision", nargs="+", default=["float32", "int8"], help="of the networks: float32, int8, int8_ptq"
    )
    parser.add_argument(
        "--method",
        nargs="+",
        default=[],
        help="methods with one precision: sift, rootsift, orb, a .weights.h5 or .tflite file, runs/mine",
    )
    parser.add_argument(
        "--image-size",
        type=train_cli.image_size,
        nargs="+",
        default=[(240, 320)],
        metavar="HxW",
        help="sizes the methods see, height x width, px",
    )
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of RANSAC")
    parser.add_argument("--top-k", type=int, nargs="+", default=[300, 1000], help="keypoints kept an image")
    parser.add_argument("--protocol", default="kp2d", help="kp2d, or kp2dtiny for the reference code's rules")
    parser.add_argument(
        "--data", default="sample", help="a folder in the layout of HPatches, or: sample, hpatches"
    )
    parser.add_argument("--profile", default="fast", help="whose `sample` is meant")
    parser.add_argument("-o", "--output", type=Path, default=Path("sweep.csv"), help="CSV of all rows")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the combinations and which are done, compute nothing"
    )
    cluster_cli.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Computes all combinations, writes both tables and says what failed.

    Args:
        options: From a parser with `add_arguments`.

    Raises:
        InputError: If a combination cannot be computed; before any work.
        RunError: If some failed, or the cluster is lost; everything else is kept.
    """
    from kp2d import files
    from kp2d.evaluate import tables
    from kp2d.reproduce import sweep

    wanted = _sweep_from(options)
    if options.dry_run:
        for each in sweep.combinations(wanted):
            cluster_cli.say(f"{each.name}: {sweep.changed(each) or 'done, nothing changed'}")
        return
    output = options.output
    summary_path = output.with_name(f"{output.stem}_summary{output.suffix}")
    for path in (output, summary_path):
        files.check_writable(path)
    rows, unfinished = sweep.run(
        wanted,
        report=cluster_cli.say,
        execute=cluster_cli.execute_from(options, jobs.keep_going),
        progress=sys.stderr.isatty() and not options.scheduler,
    )
    if len(rows):
        summary = sweep.summarize(rows)
        tables.write_csv(output, rows)
        tables.write_csv(summary_path, summary)
        cluster_cli.say(
            f"{tables.markdown(sweep.readable(summary))}\n{len(rows)} rows: {output}, {summary_path}"
        )
    failed = [result for result in unfinished if result.error is not None]
    if failed:
        raise checks.RunError(jobs.tell_failures(failed, "parts of the sweep"))


def _sweep_from(options: argparse.Namespace) -> sweep.Sweep:
    from kp2d.data import datasets
    from kp2d.reproduce import sweep

    profile = config.profile(options.profile).name
    return sweep.Sweep(
        methods=(*_networks(options), *map(_absolute, options.method)),
        image_sizes=tuple(options.image_size),
        seeds=tuple(options.seed),
        protocol=config.protocol(options.protocol, top_k=tuple(options.top_k)),
        data=datasets.resolve(options.data, profile).resolve(),
        profile=profile if options.data == "sample" else "custom",
    )


def _networks(options: argparse.Namespace) -> list[str]:
    for precision in options.precision:
        checks.one_of("precision", precision, learned.SUFFIXES)
        shipped = learned.shipped(precision)
        for preset in options.preset:
            if preset not in shipped:
                raise checks.problem(
                    f"a preset with shipped weights in {precision}: {', '.join(shipped)}",
                    repr(preset),
                    "Train others by kp2d train and name their run: --method runs/mine.",
                )
    return [f"{preset}:{precision}" for preset in options.preset for precision in options.precision]


def _absolute(method: str) -> str:
    """Returns a path as workers find it, which have another working directory."""
    return str(learned.find_weights(method)) if learned.is_path(method) else method
