"""Owns the cards of trained weights: where they come from, what they reach."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kp2d import files, provenance
from kp2d.checks import problem
from kp2d.data import datasets
from kp2d.methods import tflite_file
from kp2d.methods.weights import PRETRAINED, WEIGHTS, card_of, load_network, resolve
from kp2d.train.checkpoint import read_rows, save_half, save_weights

SOURCES = 20  # kinds of photographs that a card names at most
METRIC_ROW = (  # columns of a result table that a card repeats; the first five tell its rows apart
    *("dataset", "subset", "image_height", "image_width", "top_k", "num_pairs", "num_failed"),
    *("repeatability", "localization_error", "d1", "d3", "d5", "matching_score"),
)
_ROW_KEY = METRIC_ROW[:5]
_STAGE = (  # of a run's configuration, what its stage repeats
    *("preset", "recipe", "image_size", "batch_size", "precision", "seed", "learning_rate", "ema"),
    *("loss", "augment"),
)
_UNTRAINED = {"steps": 0, "pairs": 0, "hours": 0.0}  # of a stage that trains nothing

log = logging.getLogger(__name__)


def write_card(run: str | Path, *, note: str = "") -> Path:
    """Writes the card of a run's weights beside them: where they come from.

    Its stages are those of the card beside the run's `initial_weights`, if there is one, and then the run's
    own. Metrics that an earlier card of the very same weights has are kept.

    Args:
        run: Folder of the training run.
        note: More about its photographs, as "research use".

    Returns:
        The card, a JSON file named after the preset.

    Raises:
        InputError: If the folder holds no run with weights.
    """
    from kp2d.methods import networks

    run = Path(run)
    stage, config = _stage(run)
    preset = networks.get_preset(stage["preset"])
    weights = run / f"{preset.name}{WEIGHTS}"
    sha256 = files.sha256(weights)
    before = _card_of(config.get("initial_weights"))
    stages = [*before.get("stages", []), stage]
    path = run / f"{preset.name}.json"
    old = files.read_json(path) or {}
    card = {
        "name": preset.name,
        "preset": preset.name,
        "cell": preset.cell,
        "descriptor_dim": preset.descriptor_dim,
        "steered": stage["augment"].get("turn", 0) > 0,
        "parameters": preset.num_parameters,
        "training_data": _training_data(config["data"], note, before.get("training_data", "")),
        **_totals(stages),
        **_made(weights),
        "metrics": old.get("metrics", []) if old.get("sha256") == sha256 else [],
    }
    return files.write_json(path, card)


def write_mean(shares: Mapping[str | Path, float], output: str | Path) -> Path:
    """Writes the weighted mean of trained networks, as if it were a run's result, and its card.

    Of networks that went on from one another the mean may place and repeat keypoints better than any of them
    (Wortsman et al., "Model soups", ICML 2022); it costs no training and no time of the network.

    Args:
        shares: Weights as for `kp2d.methods.weights.resolve`, all of one preset and with cards, to their
            share of the mean; shares are positive and sum to 1.
        output: Folder for the weights and their card.

    Returns:
        The card. It has every stage of the parts once, and then one of the recipe "mean" that names them.

    Raises:
        InputError: If weights are not found, have no card, or are of different networks, or if shares do not
            sum to 1.
    """
    if not shares or min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise problem("positive shares that sum to 1", repr(list(shares.values())))
    parts = [resolve(name) for name in shares]
    preset, *others = {part.preset for part in parts}
    if others:
        raise problem("weights of one network", ", ".join([preset, *others]))
    known = [_known_card(part.path) for part in parts]
    networks = [load_network(preset, part.path)[0] for part in parts]
    weights = zip(*(network.get_weights() for network in networks), strict=True)
    mean = [
        sum(share * value for share, value in zip(shares.values(), values, strict=True)) for values in weights
    ]
    networks[0].set_weights(mean)
    path = Path(output) / f"{preset}{WEIGHTS}"
    save_weights(networks[0], path)
    stages = [stage for card in known for stage in card["stages"]]
    stages = [stage for number, stage in enumerate(stages) if stage not in stages[:number]]
    of = [{"sha256": part.sha256, "share": share} for part, share in zip(parts, shares.values(), strict=True)]
    longest = max(known, key=lambda card: len(card["stages"]))
    own = {"recipe": "mean", "preset": preset, "of": of, **_UNTRAINED}
    card = {
        **longest,
        "steered": any(card.get("steered") for card in known),
        **_totals([*stages, own]),
        **_made(path),
        "metrics": [],
    }
    return files.write_json(card_of(path), card)


def write_half(weights: str | Path, output: str | Path) -> Path:
    """Writes trained weights in half precision, in half as many bytes, and their card.

    Keras reads them as any others; the network computes in the precision that it always did.

    Args:
        weights: As for `kp2d.methods.weights.resolve`, with a card.
        output: Folder for the weights and their card.

    Returns:
        The card. It has one stage more, of the recipe "half", that names what was rounded.

    Raises:
        InputError: If the weights are not found, have no card, or hold numbers that half precision does not.
    """
    whole = resolve(weights)
    known = _known_card(whole.path)
    path = Path(output) / f"{whole.preset}{WEIGHTS}"
    save_half(whole.path, path)
    own = {"recipe": "half", "preset": whole.preset, "of": [{"sha256": whole.sha256, "share": 1.0}]}
    stages = [*known["stages"], {**own, **_UNTRAINED}]
    return files.write_json(card_of(path), {**known, **_totals(stages), **_made(path), "metrics": []})


def write_model_card(
    model: str | Path,
    *,
    calibration: str = "",
    run: str | Path | None = None,
    source: str | Path | None = None,
) -> Path:
    """Writes the card of a `.tflite` model beside it.

    Args:
        model: The file.
        calibration: What its ranges were chosen by, "none" for a model in float; "" takes what is known.
        run: Folder of its training on the int8 grid, if there was one.
        source: The `.tflite` file that it was made of, if there was one: its card tells calibration, stages,
            and the metrics too if both files are equal.

    Returns:
        The card, a JSON file.

    Raises:
        InputError: If the file is no model of ours, or the folder holds no run.
    """
    model = Path(model)
    data, about = tflite_file.open_model(model)
    before = {} if source is None else _card_of(source)
    sha256 = files.sha256(model)
    card = {
        **about,
        "bytes": len(data),
        "sha256": sha256,
        "calibration": calibration or resolve(source or model).calibration,
        "device": provenance.device(),
        "stages": before.get("stages", []) if run is None else [_stage(Path(run))[0]],
        "metrics": before.get("metrics", []) if before.get("sha256") == sha256 else [],
    }
    return files.write_json(card_of(model), card)


def check_card(path: str | Path, sha256: str | None) -> None:
    """Refuses a file that is no card of weights with a sha256; None, of a method without weights, has none.

    Raises:
        InputError: If there is no such card, or it describes other weights.
    """
    card = files.read_json(path) or {}
    if sha256 is None or card.get("sha256") != sha256:
        raise problem(
            "the card of the weights that are evaluated",
            f"{path}, which {'tells of other weights' if card.get('sha256') else 'is no card'}",
            "Write it by kp2d train --card or kp2d quantize --card, and name its weights as the method.",
        )


def add_metrics(path: str | Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Adds rows of a result table to a card; those on the same images at the same size and k are replaced.

    Raises:
        InputError: If there is no such card.
    """
    card = files.read_json(path)
    if card is None:
        raise problem("a card, the JSON file beside trained weights", str(path))
    metrics = {tuple(row.get(name) for name in _ROW_KEY): row for row in card.get("metrics", [])}
    for row in rows:
        told = {name: _rounded(row[name]) for name in METRIC_ROW}
        metrics[tuple(told[name] for name in _ROW_KEY)] = told
    return files.write_json(path, {**card, "metrics": list(metrics.values())})


def read_cards(folder: str | Path = PRETRAINED) -> dict[Path, dict[str, Any]]:
    """Reads the cards beside the weights of a folder: path to content, sorted by name."""
    contents = {path: files.read_json(path) for path in sorted(Path(folder).glob("*.json"))}
    return {path: card for path, card in contents.items() if card and {"name", "sha256"} <= set(card)}


def _totals(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """What all stages took together, and the stages."""
    sums = {name: sum(stage[name] for stage in stages) for name in ("steps", "pairs", "hours")}
    return {**sums, "hours": round(sums["hours"], 2), "stages": stages}


def _made(weights: Path) -> dict[str, Any]:
    """Which file a card tells of, and what made it."""
    return {
        "device": provenance.device(),
        "git_commit": provenance.git_commit(),
        "bytes": weights.stat().st_size,
        "sha256": files.sha256(weights),
    }


def _stage(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """One training run as its card tells it, folders by their last name only; and its configuration."""
    config, rows = files.read_json(run / "config.json"), read_rows(run / "log.csv")
    if config is None or not rows:
        raise problem("the folder of a training run", str(run), "Name the output of kp2d train.")
    stage = {
        "steps": rows[-1]["step"],
        "pairs": rows[-1]["step"] * config["batch_size"],
        "hours": round((rows[-1].get("seconds") or 0) / 3600, 2),
        "data": Path(config["data"]).name,
        **{name: config[name] for name in _STAGE if name in config},
    }
    return stage, config


def _card_of(weights: str | Path | None) -> dict[str, Any]:
    """The card beside some weights; an empty one if there is none, or none of these very weights."""
    if weights is None:
        return {}
    path = Path(weights)
    card = files.read_json(card_of(path)) or {}
    if path.is_file() and card.get("sha256") == files.sha256(path):
        return card
    log.warning("%s has no card: what it was trained by is not known to the new one.", path)
    return {}


def _known_card(weights: Path) -> dict[str, Any]:
    """The card beside some weights; refuses those without."""
    card = _card_of(weights)
    if not card:
        raise problem("weights with a card", str(weights), "Train with kp2d train --card.")
    return card


def _training_data(folder: str, note: str, before: str) -> str:
    """Says how many photographs of which sources a run has seen, and then those before it."""
    paths = datasets.list_images(folder)
    # "bsds500_00004.jpg" is one of bsds500.
    counts = Counter(path.stem.rstrip("0123456789").rstrip("_-. ") or "unnamed" for path in paths)
    sources = ", ".join(f"{source} {count:,}" for source, count in counts.most_common(SOURCES))
    rest = len(paths) - sum(count for _, count in counts.most_common(SOURCES))
    others = f", others {rest:,}" if rest else ""
    told = f"{len(paths):,} photographs of {Path(folder).resolve().name}: {sources}{others}"
    told = f"{told}; {note}" if note else told
    if before.startswith(told):
        return before
    return f"{told}; before them {before}" if before else told


def _rounded(value: Any) -> Any:
    """A number as cards have it; None for one that is not finite."""
    if not isinstance(value, float):
        return value
    return round(value, 4) if math.isfinite(value) else None
