"""Owns that the weights in this package are the published ones: their cards name their sha256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kp2d import checks, config, files, paths

PRETRAINED = paths.PACKAGE / "pretrained"
ENDINGS = (".weights.h5", ".tflite")
_REMEDY = "Install kp2d again, or restore the file from the repository: git checkout -- kp2d/pretrained."


def card_of(path: Path) -> Path:
    """Returns where the card of weights lies: beside them."""
    stem = path.name
    for ending in ENDINGS:
        stem = stem.removesuffix(ending)
    return path.with_name(f"{stem}.json")


def check(path: str | Path, data: bytes | None = None) -> str:
    """Checks weights, if this package ships them, before anything interprets them.

    Args:
        path: Any file of weights; those that are not shipped have nothing to be compared with.
        data: What was read from it, if it was.

    Returns:
        The sha256 of the file, 64 hexadecimal digits.

    Raises:
        InputError: If shipped weights are missing or not those that their card describes.
    """
    path = Path(path)
    shipped = path.parent.resolve() == PRETRAINED
    if data is None and shipped and not path.is_file():
        raise checks.problem(f"the shipped weights {path}", "no such file", _REMEDY)
    digest = files.sha256(path) if data is None else hashlib.sha256(data).hexdigest()
    if not shipped:
        return digest
    wanted = (files.read_json(card_of(path)) or {}).get("sha256")
    if wanted is None:
        raise checks.problem(f"the card {card_of(path)} with a sha256", "none", _REMEDY)
    if digest != wanted:
        raise checks.problem(f"the shipped weights {path} with sha256 {wanted}", digest, _REMEDY)
    return digest


def shipped_hash() -> str:
    """Returns 12 hexadecimal digits that change with any of the weights in this package, by their cards."""
    cards = {path.name: (files.read_json(path) or {}).get("sha256") for path in PRETRAINED.glob("*.json")}
    return config.fingerprint(cards)
