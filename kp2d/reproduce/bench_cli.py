"""Owns `kp2d bench`: its arguments and what they mean."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kp2d import arguments, backend, checks, config
from kp2d.methods import cli as method_cli

if TYPE_CHECKING:
    import pandas as pd

WHAT = {
    "evaluate": "milliseconds an image and a pair, memory",
    "latency": "milliseconds a method takes: network, decoding, matching; networks beside SIFT and ORB",
    "stages": "what every stage of kp2d reproduce takes: seconds, processor time, memory; runs them all",
    "train": "pairs a second, and what costs them",
    "recipes": "what each change of the training recipe is worth, trained for the same time",
}

# Which of them take an option; the rest take all.
TAKERS = {
    **dict.fromkeys(("image_size", "threads", "runtime", "use_tpu"), ("latency",)),
    **dict.fromkeys(("data", "pairs", "seconds", "variants", "output"), ("recipes",)),
    **dict.fromkeys(("preset", "precision"), ("latency", "train", "recipes")),
    "train_size": ("train", "recipes"),
    "repeats": ("evaluate", "latency"),
}

# What makes two rows of `evaluate`, `train` or `recipes` measurements of the same thing.
KEY = (
    *("variant", "preset", "backend", "method", "precision", "runtime", "threads"),
    *("image_height", "image_width", "seconds", "dataset"),
)
KEYS = {
    "latency": ("threads", "image_height", "image_width"),  # such rows are compared within one run
    "stages": ("profile", "stage"),
}


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d bench`.

    Args:
        parser: Parser of the verb.
    """
    told = "; ".join(f"{name}: {text}" for name, text in WHAT.items())
    parser.add_argument("what", choices=list(WHAT), help=told)
    parser.add_argument("--profile", default="fast", help="whose results folder, data and sizes are used")
    parser.add_argument(
        "--repeats",
        type=int,
        help="evaluate: passes over the pairs, of which the fastest counts (3); latency: timed runs (30)",
    )
    parser.add_argument(
        "--preset",
        nargs="+",
        help="latency, train, recipes: networks; default: those that fit; latency also takes .tflite files",
    )
    parser.add_argument(
        "--image-size", type=arguments.image_size, nargs="+", metavar="HxW", help="latency: sizes of an image"
    )
    parser.add_argument("--threads", type=int, nargs="+", help="latency: of the runtime; default: 1 2")
    parser.add_argument(
        "--train-size",
        type=arguments.image_size,
        nargs="+",
        metavar="HxW",
        help="train, recipes: sizes of a view",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        help="train, recipes: float32, or bfloat16 where the processor has AMX; latency: int8, float32 …",
    )
    parser.add_argument("--runtime", help="latency: of the models; default: the best that is installed")
    method_cli.add_tpu(parser)
    parser.add_argument("--data", help="recipes: folder of photographs to train on")
    parser.add_argument("--pairs", type=Path, help="recipes: folder in HPatches layout to measure on")
    parser.add_argument("--seconds", type=float, help="recipes: training time of each variant; default: 150")
    parser.add_argument(
        "--variants", nargs="+", help="recipes: names out of kp2d.evaluate.ranking; default: all"
    )
    parser.add_argument(
        "--output", type=Path, help="recipes: folder for the runs, which a second call reuses"
    )


def run_bench(options: argparse.Namespace) -> None:
    """Measures and writes the table.

    Args:
        options: From a parser with `add_bench`.

    Raises:
        InputError: If a value is refused or missing.
    """
    for name, takers in TAKERS.items():
        if options.what not in takers:
            what, of = f"kp2d bench {options.what}", f"an option of kp2d bench {', '.join(takers)}"
            arguments.refuse_unused(options, (name,), what, of)
    from kp2d import paths
    from kp2d.evaluate import tables

    profile = config.profile(options.profile)
    if options.what == "recipes":
        rows, path = _recipes(options), paths.results() / "recipes.csv"
    else:
        measure = {"evaluate": _evaluate, "latency": _latency, "stages": _stages, "train": _train}[
            options.what
        ]
        rows = measure(options, profile)
        path = paths.results(profile.name) / f"bench_{options.what}.csv"
    rows = _beside_others(rows, path, KEYS.get(options.what, KEY))
    tables.write_csv(path, rows)
    arguments.say(f"{tables.markdown(rows)}\n{path}")


def _beside_others(rows: pd.DataFrame, path: Path, names: tuple[str, ...] = KEY) -> pd.DataFrame:
    """Keeps the rows of a table that were not measured again, as those of another backend or variant."""
    import pandas as pd

    from kp2d.evaluate import tables

    key = [name for name in names if name in rows]
    if not key or not path.is_file():
        return rows
    before = tables.read_csv(path)
    if list(before.columns) != list(rows.columns):
        return rows
    again = pd.MultiIndex.from_frame(before[key]).isin(pd.MultiIndex.from_frame(rows[key]))
    return pd.concat([before[~again], rows], ignore_index=True) if not again.all() else rows


def _evaluate(options: argparse.Namespace, profile: config.Profile) -> pd.DataFrame:
    from kp2d.reproduce import bench

    return bench.bench_evaluate(profile, repeats=3 if options.repeats is None else options.repeats)


def _latency(options: argparse.Namespace, _profile: config.Profile) -> pd.DataFrame:
    backend.quiet()
    from kp2d.device import latency
    from kp2d.methods import learned

    return latency.bench_latency(
        options.preset or [name for name in learned.shipped() if not name.endswith("_88")],
        options.image_size or [(88, 88), (240, 320)],
        threads=options.threads or [1, 2],
        precisions=options.precision,
        repeats=30 if options.repeats is None else options.repeats,
        runtime=options.runtime,
        use_tpu=options.use_tpu,
    )


def _stages(_options: argparse.Namespace, profile: config.Profile) -> pd.DataFrame:
    from kp2d.reproduce import stage_bench

    return stage_bench.bench_stages(profile.name, progress=sys.stderr.isatty())


def _train(options: argparse.Namespace, _profile: config.Profile) -> pd.DataFrame:
    backend.quiet()
    import pandas as pd

    from kp2d.train import bench as train_bench
    from kp2d.train import recipes

    choices = itertools.product(
        options.preset or ["kp2d_tiny_s", "kp2d_tiny_f"],
        options.train_size or [(120, 160), (240, 320)],
        options.precision or ["float32", "bfloat16"],
    )
    names = ("preset", "image_size", "precision")
    with train_bench.textures() as data:
        configs = [
            recipes.from_recipe("kp2d_plus", data=data, output="", **dict(zip(names, choice, strict=True)))
            for choice in choices
        ]
        return pd.DataFrame([train_bench.bench_train(each) for each in configs])


def _recipes(options: argparse.Namespace) -> pd.DataFrame:
    backend.quiet()
    from kp2d import paths
    from kp2d.data import datasets
    from kp2d.evaluate import ranking

    if options.data is None or options.pairs is None:
        remedy = "Name photographs to train on and image pairs to measure on."
        raise checks.problem("--data and --pairs", f"{options.data} and {options.pairs}", remedy)
    chosen = {}
    for name, given, default in (
        ("preset", options.preset, "kp2d_tiny_s"),
        ("image_size", options.train_size, (120, 160)),
        ("precision", options.precision, "float32"),
    ):
        if given and len(given) > 1:
            raise checks.problem(f"one {name} for all recipes", repr(given))
        chosen[name] = given[0] if given else default
    logging.getLogger("kp2d").setLevel(logging.INFO)  # which variant it is at
    sequences = datasets.load_sequences(options.pairs)
    return ranking.rank(
        options.variants or list(ranking.VARIANTS),
        sequences,
        data=options.data,
        output=options.output or paths.runs("recipes"),
        protocol=config.protocol(top_k=(1000,)),
        seconds=150.0 if options.seconds is None else options.seconds,
        dataset=datasets.label(sequences),
        progress=sys.stderr.isatty(),
        wandb=False,
        **chosen,
    )
