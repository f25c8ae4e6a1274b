"""Owns what the report shows of pictures and trained weights: the gallery and the model cards."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from kp2d import files, paths
from kp2d.evaluate import tables
from kp2d.report.notebooks import smaller
from kp2d.report.tables import Table, lay_out
from kp2d.train import cards

_PICTURES = (".png", ".svg")
_METRICS = ("dataset", "subset", "image_height", "image_width", "top_k", "num_pairs", *tables.METRICS)
_PRECISIONS = {"int8": "int8, trained on its grid", "int8_ptq": "int8, quantized after training"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of the gallery.

    Attributes:
        name: File name without suffix.
        file: The picture in the site.
        caption: What it shows, as Markdown.
        notebook: Number of the notebook that makes it, "05"; "" if nobody knows.
    """

    name: str
    file: str
    caption: str
    notebook: str


def collect_pictures(folder: Path, profile: str) -> list[Picture]:
    """Copies a profile's pictures into the site, in the order of the notebooks that make them.

    Args:
        folder: The site; pictures go to its folder `figures`.
        profile: Whose.
    """
    told = _captions(paths.home() / "figures" / "README.md")
    order = list(told)
    found = [path for path in paths.figures(profile).glob("*") if path.suffix in _PICTURES]
    found.sort(key=lambda path: (order.index(path.name) if path.name in told else len(order), path.name))
    return [_picture(folder, path, *told.get(path.name, ("", ""))) for path in found]


def photograph_credits() -> str:
    """Returns whose photographs are shown, as Markdown; "" where the pictures' README is missing."""
    text = _text(paths.home() / "figures" / "README.md")
    return text.partition("\n## Photographs\n")[2].strip()


def _picture(folder: Path, path: Path, caption: str, notebook: str) -> Picture:
    content, suffix = path.read_bytes(), path.suffix
    if suffix == ".png":
        content, suffix = smaller(content)
    file = f"figures/{path.stem}{suffix}"
    files.write_bytes(folder / file, content)
    return Picture(
        name=path.stem,
        file=file,
        caption=caption or path.stem.replace("_", " "),
        notebook=notebook,
    )


def _captions(readme: Path) -> dict[str, tuple[str, str]]:
    """Returns captions and numbers of notebooks, by file name."""
    rows = re.findall(r"^\| \[([^\]]+)\]\([^)]*\) \| (.*?) \| (\d+) \|$", _text(readme), flags=re.M)
    return {name: (caption, number) for name, caption, number in rows}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """One set of trained weights.

    Attributes:
        name: As for `kp2d.load`.
        precision: "float32", "int8" or "int8_ptq".
        heading: Both, in words.
        facts: What there is to know: name and value.
        stages: The training runs that led to it.
        metrics: What it reaches.
        file: The card in the site.
    """

    name: str
    precision: str
    heading: str
    facts: tuple[tuple[str, str], ...]
    stages: Table | None
    metrics: Table | None
    file: str


def collect_cards(folder: Path) -> list[Card]:
    """Copies the cards of the shipped weights into the site and makes them readable.

    Args:
        folder: The site; the cards go to its folder `cards`.
    """
    return [_card(folder, path, card) for path, card in cards.read_cards().items()]


def _card(folder: Path, path: Path, card: dict[str, Any]) -> Card:
    target = folder / "cards" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    precision = card.get("precision", "float32")
    return Card(
        name=card["name"],
        precision=precision,
        heading=_PRECISIONS.get(precision, precision),
        facts=tuple((name, value) for name, value in _facts(card).items() if value),
        stages=_stages(card.get("stages") or []),
        metrics=_metrics(card.get("metrics") or []),
        file=f"cards/{path.name}",
    )


def _facts(card: dict[str, Any]) -> dict[str, str]:
    """Returns what a card tells, in words; what it does not tell is empty."""
    height, width = card.get("image_size") or (None, None)
    return {  # what is short comes first
        "network": card.get("preset", ""),
        "parameters": f"{card['parameters']:,}" if "parameters" in card else "",
        "descriptor": f"{card['descriptor_dim']} values" if "descriptor_dim" in card else "",
        "cell": f"{card['cell']} px" if "cell" in card else "",
        "size": f"{card['bytes'] / 1e6:.2f} MB" if "bytes" in card else "",
        "image": f"{width}×{height}" if height else "",
        "training pairs": f"{card['pairs']:,}" if "pairs" in card else "",
        "training steps": f"{card['steps']:,}" if "steps" in card else "",
        "training time": f"{card['hours']:.2f} hours" if "hours" in card else "",
        "machine": card.get("device", ""),
        "commit": card.get("git_commit", ""),
        "learned from": card.get("training_data", ""),
        "ranges chosen by": card.get("calibration", ""),
        "SHA-256": card["sha256"],
        "SHA-256 of the float weights": card.get("float_sha256", ""),
    }


def _stages(stages: list[dict[str, Any]]) -> Table | None:
    if not stages:
        return None
    columns = ("recipe", "steps", "pairs", "hours", "batch_size", "learning_rate", "precision", "seed")
    rows = pd.DataFrame([{name: stage.get(name) for name in columns} for stage in stages])
    rows.insert(1, "views", [_size(stage.get("image_size")) for stage in stages])
    rows["learning_rate"] = [f"{rate:g}" if rate else "–" for rate in rows["learning_rate"]]
    return lay_out(rows, name="stages")


def _size(size: list[int] | None) -> str:
    return f"{size[1]}×{size[0]}" if size else "–"


def _metrics(metrics: list[dict[str, Any]]) -> Table | None:
    if not metrics:
        return None
    rows = pd.DataFrame(metrics).reindex(columns=list(_METRICS))
    rows = tables.readable(rows).drop(columns=["image_height", "image_width"])
    rows.insert(2, "size", rows.pop("size"))
    return lay_out(rows, name="metrics")
