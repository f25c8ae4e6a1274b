"""Owns the cards of trained weights: where they come from, what they reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kp2d import files, provenance
from kp2d.checks import problem
from kp2d.methods import learned, tflite_file


def write_card(
    runs: Sequence[str | Path],
    weights: str | Path,
    metrics: Sequence[dict[str, Any]] = (),
    *,
    training_data: str = "",
) -> Path:
    """Writes the card of trained weights beside them: where they come from and what they reach.

    Args:
        runs: Folders of the training runs that led to the weights, first to last; each but the
            first started from the weights of the one before.
        weights: The `.weights.h5` file the card describes.
        metrics: Rows of results.
        training_data: What the photographs are and where they come from.

    Returns:
        The card, a JSON file.

    Raises:
        InputError: If a folder holds no run.
    """
    from kp2d.methods import networks

    weights = Path(weights)
    stages = [_stage(Path(run)) for run in runs]
    preset = networks.get_preset(stages[-1]["preset"])
    card = {
        "name": weights.name.removesuffix(".weights.h5"),
        "preset": preset.name,
        "cell": preset.cell,
        "descriptor_dim": preset.descriptor_dim,
        "parameters": preset.num_parameters,
        **{total: sum(stage[total] for stage in stages) for total in ("steps", "pairs")},
        "hours": round(sum(stage["hours"] for stage in stages), 2),
        "device": provenance.device(),
        "git_commit": provenance.git_commit(),
        "training_data": training_data,
        "bytes": weights.stat().st_size,
        "sha256": files.sha256(weights),
        "stages": stages,
        "metrics": list(metrics),
    }
    return files.write_json(weights.with_name(f"{card['name']}.json"), card)


def write_model_card(
    model: str | Path,
    metrics: Sequence[dict[str, Any]] = (),
    *,
    calibration: str = "",
    run: str | Path | None = None,
) -> Path:
    """Writes the card of an int8 model beside it.

    Args:
        model: The `.tflite` file.
        metrics: Rows of results.
        calibration: What its ranges were chosen by.
        run: Folder of its training on the int8 grid, if there was one.

    Returns:
        The card, a JSON file.

    Raises:
        InputError: If the file is no model of ours, or the folder holds no run.
    """
    model = Path(model)
    data, about = tflite_file.open_model(model)
    stages = [] if run is None else [_stage(Path(run))]
    card = {
        **about,
        "bytes": len(data),
        "sha256": files.sha256(model),
        "calibration": calibration,
        "device": provenance.device(),
        "stages": stages,
        "metrics": list(metrics),
    }
    return files.write_json(model.with_name(f"{model.name.removesuffix('.tflite')}.json"), card)


def read_cards(folder: str | Path = learned.PRETRAINED) -> dict[Path, dict[str, Any]]:
    """Reads the cards of a folder of weights, those of the package if none is named.

    Args:
        folder: Where the cards lie, beside the weights.

    Returns:
        Path of a card to its content, sorted by name; files that are no cards are left out.
    """
    found = {path: files.read_json(path) for path in sorted(Path(folder).glob("*.json"))}
    return {path: card for path, card in found.items() if card and {"name", "sha256"} <= set(card)}


def _stage(run: Path) -> dict[str, Any]:
    """One training run as its card tells it; folders by their last name only."""
    from kp2d.train.runlog import read_rows

    config, rows = files.read_json(run / "config.json"), read_rows(run / "log.csv")
    if config is None or not rows:
        raise problem("the folder of a training run", str(run), "Name the output of kp2d train.")
    told = (
        *("preset", "recipe", "image_size", "batch_size", "precision", "seed", "learning_rate", "ema"),
        *("loss", "augment"),
    )
    return {
        "steps": rows[-1]["step"],
        "pairs": rows[-1]["step"] * config["batch_size"],
        "hours": round((rows[-1].get("seconds") or 0) / 3600, 2),
        "data": Path(config["data"]).name,
        **{name: config[name] for name in told if name in config},
    }
