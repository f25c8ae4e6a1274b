"""Owns `kp2d reproduce`, `sweep`, `bench`, `readme` and `doctor`: their arguments and what they mean."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kp2d import __version__, arguments, checks, config
from kp2d.methods import cli as method_cli
from kp2d.reproduce import cluster, jobs

if TYPE_CHECKING:
    import pandas as pd

    from kp2d.reproduce import sweep

_BENCHES = {
    "latency": "milliseconds a method takes: network, decoding, matching; networks beside SIFT and ORB",
    "stages": "what each stage took when kp2d reproduce ran it last: seconds, processor time, memory",
    "train": "pairs a second, and what costs them",
    "recipes": "what each change of the training recipe is worth, trained for the same time",
    "networks": "what candidates for a small network cost in int8, and what they reach with the same steps",
}

# Which of them take an option; the rest take all.
_TAKERS = {
    **dict.fromkeys(("runtime", "use_tpu"), ("latency",)),
    **dict.fromkeys(("image_size", "threads", "repeats"), ("latency", "networks")),
    **dict.fromkeys(("seconds", "variants"), ("recipes",)),
    **dict.fromkeys(("data", "pairs", "output"), ("recipes", "networks")),
    **dict.fromkeys(("preset", "precision"), ("latency", "train", "recipes", "networks")),
    "train_size": ("train", "recipes", "networks"),
    "steps": ("networks",),
}


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d reproduce` to the parser of the verb."""
    parser.add_argument(
        "--profile",
        default="fast",
        help="smoke (seconds), fast (minutes), bench (the pairs that VAL_PATH names), full (HPatches, hours)",
    )
    parser.add_argument("--stages", help="comma-separated numbers or names, as 05,06; default: all")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="[STAGE.]NAME=VALUE",
        help="a notebook parameter, as top_k=300,1000, methods=sift or image_size=240x320; may be repeated",
    )
    parser.add_argument(
        "--trained",
        action=argparse.BooleanOptionalAction,
        help="the network that 02 trains goes on, as trained_here beside the others: quantized in 03, mapped"
        " in 04, scored in 05, set against SIFT in 06; default: in full only",
    )
    parser.add_argument("--force", action="store_true", help="run also what is up to date")
    parser.add_argument(
        "--timeout", type=int, help="seconds a cell may take; default: 3600, no limit for training in full"
    )
    _add_cluster(parser)


def run_reproduce(options: argparse.Namespace) -> None:
    """Runs the notebooks and says what became of them.

    Raises:
        InputError: If a value is refused, or an input or the cluster is missing.
        StageError: If a notebook fails.
        RunError: If several fail, or the cluster is lost.
    """
    from kp2d.data import locations
    from kp2d.reproduce import pipeline

    locations.hold_anywhere()
    if options.timeout is not None and options.timeout < 1:
        raise checks.problem("a --timeout of at least 1 s", options.timeout)
    outcomes = pipeline.reproduce(
        options.profile,
        stages=None if options.stages is None else options.stages.split(","),
        parameters=config.assignments(options.parameter),
        trained=options.trained,
        force=options.force,
        cell_timeout=options.timeout,
        progress=sys.stderr.isatty() and not options.scheduler,
        report=arguments.say,
        execute=_execute_from(options, jobs.side_by_side),
    )
    ran = sum(outcome.action == "ran" for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    arguments.say(
        f"{ran} of {len(outcomes)} stages ran in {seconds:.0f} s; "
        f"tables: results/{options.profile}, pictures: figures/{options.profile}"
    )


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d sweep` to the parser of the verb."""
    parser.add_argument(
        "--preset",
        nargs="*",
        default=["kp2d_tiny_f", "kp2d_tiny_s"],
        help="shipped networks, as kp2d_tiny_s, or kp2d_tiny_s:int8 in that precision only",
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
        **arguments.SIZE,
        nargs="+",
        default=[(240, 320)],
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
    _add_cluster(parser)


def run_sweep(options: argparse.Namespace) -> None:
    """Computes all combinations, writes both tables and says what failed.

    Raises:
        InputError: If a combination cannot be computed; before any work.
        RunError: If some failed, or the cluster is lost; everything else is kept.
    """
    from kp2d import files
    from kp2d.evaluate import tables
    from kp2d.reproduce import sweep

    checks.one_of("suffix of a table", options.output.suffix, [".csv"])
    wanted = _sweep_from(options)
    if options.dry_run:
        for combination in sweep.combinations(wanted):
            arguments.say(f"{combination.name}: {sweep.changed(combination) or 'done, nothing changed'}")
        return
    output = options.output
    summary_path = output.with_name(f"{output.stem}_summary{output.suffix}")
    for path in (output, summary_path):
        files.check_writable(path)
    execute = _execute_from(options, jobs.keep_going)
    rows, unfinished = sweep.run(wanted, report=arguments.say, execute=execute)
    if len(rows):
        summary = sweep.summarize(rows)
        tables.write_csv(output, rows)
        tables.write_csv(summary_path, summary)
        arguments.say(
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
        methods=(
            *sweep.shipped_networks(options.preset, options.precision),
            *map(sweep.absolute, options.method),
        ),
        image_sizes=tuple(options.image_size),
        seeds=tuple(options.seed),
        protocol=config.protocol(options.protocol, top_k=tuple(options.top_k)),
        data=datasets.resolve(options.data, profile).resolve(),
        profile=profile if options.data == "sample" else "custom",
        progress=sys.stderr.isatty() and not options.scheduler,
    )


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d bench` to the parser of the verb."""
    told = "; ".join(f"{name}: {text}" for name, text in _BENCHES.items())
    parser.add_argument("what", choices=list(_BENCHES), help=told)
    parser.add_argument("--profile", default="fast", help="whose results folder, data and sizes are used")
    parser.add_argument("--repeats", type=int, help="latency, networks: timed runs; default: 30 and 100")
    parser.add_argument(
        "--preset",
        nargs="+",
        help="networks, of all but stages; default: those that fit; latency also takes .tflite files",
    )
    parser.add_argument(
        "--image-size", **arguments.SIZE, nargs="+", help="latency, networks: sizes of an image"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", help="latency, networks: of the runtime; default: 1 2"
    )
    parser.add_argument(
        "--train-size", **arguments.SIZE, nargs="+", help="train, recipes, networks: sizes of a view"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        help="of a training: float32, or bfloat16 where the processor has AMX; latency: int8, float32 …",
    )
    parser.add_argument("--runtime", help="latency: of the models; default: the best that is installed")
    method_cli.add_tpu(parser)
    parser.add_argument("--data", help="recipes, networks: folder of photographs to train on")
    parser.add_argument(
        "--pairs", type=Path, help="recipes, networks: folder in HPatches layout to measure on"
    )
    parser.add_argument("--steps", type=int, help="networks: of each training; default: 1000")
    parser.add_argument("--seconds", type=float, help="recipes: training time of each variant; default: 150")
    parser.add_argument(
        "--variants", nargs="+", help="recipes: names out of kp2d.evaluate.ranking; default: all"
    )
    parser.add_argument(
        "--output", type=Path, help="recipes, networks: folder for the runs, which a second call reuses"
    )


def run_bench(options: argparse.Namespace) -> None:
    """Measures and writes the table.

    Raises:
        InputError: If a value is refused or missing.
    """
    for name, takers in _TAKERS.items():
        if options.what not in takers:
            what, of = f"kp2d bench {options.what}", f"an option of kp2d bench {', '.join(takers)}"
            arguments.refuse_unused(options, (name,), what, of)
    from kp2d import paths
    from kp2d.evaluate import tables
    from kp2d.reproduce import bench

    profile = config.profile(options.profile).name
    path = paths.results(profile) / f"bench_{options.what}.csv"
    if options.what in ("recipes", "networks"):
        path = paths.results() / f"{options.what}.csv"
    rows = bench.beside_others(_measured(options, profile), path, bench.KEYS.get(options.what, bench.KEY))
    tables.write_csv(path, rows)
    arguments.say(f"{tables.markdown(rows)}\n{path}")


def _measured(options: argparse.Namespace, profile: str) -> pd.DataFrame:
    """Returns the rows of what was asked for; what was not given takes the measurement's default."""
    from kp2d.reproduce import bench

    given = {name: getattr(options, name) for name in _TAKERS}
    given = {name: value for name, value in given.items() if value is not None}
    if options.what == "latency":
        return bench.latencies(**given)
    if options.what == "stages":
        return bench.stages(profile)
    if options.what == "train":
        return bench.training(**given)
    if options.data is None or options.pairs is None:
        remedy = "Name photographs to train on and image pairs to measure on."
        raise checks.problem("--data and --pairs", f"{options.data} and {options.pairs}", remedy)
    ranking = bench.recipes if options.what == "recipes" else bench.networks
    return ranking(progress=sys.stderr.isatty(), **given)


def add_readme(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d readme` to the parser of the verb."""
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is out of date")


def run_readme(options: argparse.Namespace) -> int:
    """Fills the tables of the documents, or compares them with the results.

    Returns 1 if a table is out of date and that was to be checked, else 0.
    """
    from kp2d import files, paths
    from kp2d.reproduce import readme

    for document in readme.documents():
        path = paths.home() / document
        if not path.is_file():
            raise checks.problem(f"the document {path}", "no such file", "Set KP2D_HOME to a checkout.")
        text = path.read_text(encoding="utf-8")
        filled = readme.fill(text)
        if options.check and filled != text:
            print(f"{document} differs from results/: run `kp2d readme`", file=sys.stderr)
            return 1
        if filled != text:
            files.write_text(path, filled)
    print("the tables of README.md, results/README.md and docs/ agree with results/")
    return 0


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d doctor` to the parser of the verb."""
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--deep", action="store_true", help="import every package and run every runtime; takes some seconds"
    )


def run_doctor(options: argparse.Namespace) -> int:
    """Examines the installation and prints what was found.

    Returns 1 if something is broken, else 0; what is merely not there breaks nothing.
    """
    from kp2d.reproduce import doctor

    findings = doctor.examine(deep=options.deep)
    healthy = all(finding.status != doctor.BROKEN for finding in findings)
    if options.json:
        content = {
            "kp2d": __version__,
            "healthy": healthy,
            "findings": list(map(dataclasses.asdict, findings)),
        }
        print(json.dumps(content, indent=1))
    else:
        print(doctor.report(findings))
    return int(not healthy)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that choose where jobs are done: here or on a cluster."""
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster that shares the project's folder, as tcp://host:8786; default: this process",
    )
    parser.add_argument(
        "--worker-timeout",
        type=float,
        default=cluster.WORKER_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for the cluster's first worker",
    )


def _execute_from(options: argparse.Namespace, here: jobs.Execute) -> jobs.Execute:
    """Returns what does the jobs: the cluster that was asked for, or else what does them `here`."""
    if not options.worker_timeout > 0:
        raise checks.problem("a positive --worker-timeout", options.worker_timeout)
    if not options.scheduler:
        return here
    if not options.verbose:
        # It logs tracebacks of a connection that is lost; the error that follows says so in a line.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
    return cluster.Cluster(options.scheduler, worker_timeout=options.worker_timeout).execute
