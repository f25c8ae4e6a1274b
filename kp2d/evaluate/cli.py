"""Owns `kp2d evaluate`: its arguments and what they mean."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kp2d import checks, config
from kp2d.arguments import SIZE
from kp2d.methods import cli as method_cli


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kp2d evaluate` to the parser of the verb."""
    method_cli.add_arguments(parser)
    parser.add_argument("--data", default="sample", help="a folder, or: sample, hpatches")
    parser.add_argument("--profile", default="fast", help="whose `sample` is meant")
    parser.add_argument("--image-size", **SIZE, default="240x320", help="height x width, px")
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
        "--orders",
        type=int,
        default=4,
        help="orders of the matches in which RANSAC and the estimator of kp2d match are compared; 0: none",
    )
    parser.add_argument("--estimators", type=Path, help="CSV of that comparison")
    parser.add_argument(
        "--card", type=Path, help="card of the weights, the JSON file beside them, to add the averages to"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder that keeps extracted features, to resume; default: results/runs/custom/features",
    )
    parser.add_argument("--workers", type=int, help="threads; default: one a core")


def run_evaluate(options: argparse.Namespace) -> None:
    """Scores a method on every image pair and prints the averages.

    Raises:
        InputError: If a value is refused, the data are missing, or a file cannot be written.
    """
    from kp2d import files, paths
    from kp2d.data import locations
    from kp2d.evaluate import comparison, estimators, tables
    from kp2d.train import cards

    protocol = _protocol(options)
    extractor = method_cli.extractor_from(options)
    targets = [path for path in (options.output, options.pairs, options.estimators) if path]
    if len(set(targets)) < len(targets):
        names = "--output, --pairs and --estimators"
        raise checks.problem(f"different files for {names}", ", ".join(map(str, targets)))
    if options.orders < 0 or (options.estimators and not options.orders):
        raise checks.problem("--orders of 1 or more to compare estimators, or 0", options.orders)
    for target in targets:
        files.check_writable(target)
        checks.one_of("suffix of a table", target.suffix, [".csv"])
    if options.card:
        cards.check_card(options.card, extractor.settings().get("sha256"))
    profile = config.profile(options.profile).name
    sequences = locations.load(options.data, profile)
    how = {
        "profile": profile if options.data == "sample" else "custom",
        "cache": options.cache or paths.runs("custom") / "features",
        "workers": options.workers,
        "progress": sys.stderr.isatty(),
    }
    rows, pairs = comparison.evaluate_methods([extractor], sequences, protocol, **how)
    if options.pairs:
        tables.write_csv(options.pairs, pairs)
    if options.output:
        tables.write_csv(options.output, rows)
    if options.card:
        cards.add_metrics(options.card, rows.to_dict("records"))
    several = ("dataset",) if rows["dataset"].nunique() > 1 else ()
    counts = (*several, "subset", "top_k", "num_pairs", "num_sequences", "num_failed", "num_skipped")
    print(tables.markdown(tables.with_intervals(rows), (*counts, *tables.METRICS)))
    if options.orders:
        compared = estimators.study([extractor], sequences, protocol, orders=options.orders, **how)
        if options.estimators:
            tables.write_csv(options.estimators, compared)
        shown = (*several, "subset", "top_k", "estimator", "refine", *estimators.METRICS)
        print(f"\nBy estimator, mean of {options.orders} orders of the matches:\n")
        print(
            tables.markdown(tables.with_intervals(compared, estimators.METRICS), (*shown, *estimators.LUCK))
        )


def _protocol(options: argparse.Namespace) -> config.Protocol:
    """Returns the named protocol with the settings that were given."""
    names = ("half_pixel", "score_threshold")
    overrides = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return config.protocol(
        options.protocol,
        image_size=options.image_size,
        top_k=tuple(options.top_k),
        seed=options.seed,
        **overrides,
    )
