"""Owns the `sample` data set: photographs inside packages become HPatches-like sequences."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from kp2d import checks, files, images, paths
from kp2d.config import Profile
from kp2d.data import datasets, locations, scenes
from kp2d.data.scenes import PACKAGES, SCENES, Scene, version

log = logging.getLogger(__name__)

RECIPE = 1  # raise it whenever the same settings give other bytes
CARD = "card.json"
PLAN = "card.partial.json"
HELD_OUT = ("astronaut", "coffee")  # scenes that the training demonstration is measured on
VIEW_CROP, LIGHT_CROP = 0.75, 0.96  # sides of image 1 as a fraction of those of the largest crop


def prepare_samples(
    folder: str | os.PathLike,
    *,
    scenes: Iterable[str] | None = None,
    num_images: int = 6,
    image_size: tuple[int, int] = (360, 480),
    seed: int = 0,
    progress: bool = True,
) -> list[Path]:
    """Writes the `sample` data set in the layout of HPatches; same settings give the same bytes.

    A folder whose card matches and whose files have the recorded hashes is reused; else everything
    is made again, and files of earlier settings are removed.

    Args:
        folder: Where the sequences go.
        scenes: Names out of `SCENES`; None means all.
        num_images: Images a sequence, at least 2.
        image_size: (height, width) of every image, px.
        seed: A non-negative integer.
        progress: Whether to show a progress bar.

    Returns:
        The folders of the sequences, sorted.

    Raises:
        InputError: If a name is unknown, a number is out of range, a package with photographs is
            missing, or the folder cannot be written.
    """
    folder = Path(folder)
    chosen = _choose(scenes)
    settings = {
        "recipe": RECIPE,
        "seed": _at_least("seed", seed, 0),
        "num_images": _at_least("num_images", num_images, 2),
        "image_size": list(checks.is_image_size(image_size)),
        "scenes": [scene.name for scene in chosen],
        "versions": {PACKAGES[package]: version(package) for package in {scene.package for scene in chosen}},
    }
    sequences = sorted((f"{kind}_{scene.name}", scene) for scene in chosen for kind in scene.kinds)
    result = [folder / name for name, _ in sequences]
    if _reusable(folder, settings):
        return result
    names = [f"{name}/{file}" for name, _ in sequences for file in _file_names(num_images)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _start(folder, names)
        for name, scene in tqdm(
            sequences, desc="sample sequences", unit="sequence", leave=False, disable=not progress
        ):
            _write_sequence(folder / name, scene, name[0], settings)
        _finish(folder, settings, chosen, names)
    except OSError as error:
        reason = error.strerror or str(error)
        raise checks.problem(
            "a folder that can be written",
            f"{folder} ({reason})",
            "Choose one with 100 MB of free space by KP2D_HOME; what is done will be completed.",
        ) from error
    return result


def _choose(names: Iterable[str] | None) -> list[Scene]:
    known = {scene.name: scene for scene in SCENES}
    if names is None:
        return list(SCENES)
    wanted = {checks.one_of("scene", name, known) for name in names}
    if not wanted:
        raise checks.problem("at least one scene", "none", f"Choose out of {', '.join(known)}.")
    return [scene for scene in SCENES if scene.name in wanted]


def _at_least(name: str, value: int, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < lowest:
        raise checks.problem(f"{name} as an integer of at least {lowest}", repr(value))
    return int(value)


def _file_names(num_images: int) -> list[str]:
    pictures = [f"{k}.png" for k in range(1, num_images + 1)]
    return pictures + [f"H_1_{k}" for k in range(2, num_images + 1)]


def _write_sequence(folder: Path, scene: Scene, kind: str, settings: dict) -> None:
    """Writes one sequence; every draw depends on the seed and the sequence's name only."""
    picture = scenes.photograph(scene)
    size, count = tuple(settings["image_size"]), settings["num_images"]
    name_key = int.from_bytes(hashlib.sha256(folder.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng([settings["seed"], name_key])
    fraction = VIEW_CROP if kind == "v" else LIGHT_CROP
    first = scenes.crop(picture.shape[:2], size, fraction, scene.focus)
    to_photograph = [scenes.to_photograph(first, size)]
    for k in range(1, count):
        quad = scenes.sample_quad(first, picture.shape[:2], k / (count - 1), rng) if kind == "v" else first
        to_photograph.append(scenes.to_photograph(quad, size))
    for k, matrix in enumerate(to_photograph):
        view, strength = scenes.sample_view(picture, matrix, size), k / (count - 1)
        change = scenes.new_camera if kind == "v" else scenes.new_light
        images.write_image(folder / f"{k + 1}.png", change(view, strength, rng))
        if k:
            homography = np.linalg.inv(matrix) @ to_photograph[0] if kind == "v" else np.eye(3)
            text = "\n".join(
                " ".join(f"{value:.17g}" for value in row) for row in homography / homography[2, 2]
            )
            files.write_text(folder / f"H_1_{k + 1}", text + "\n")


def _reusable(folder: Path, settings: dict) -> bool:
    """Tells whether the folder has these settings and undamaged files, and logs the answer."""
    card = files.read_json(folder / CARD)
    if card is None:
        return False
    before, kept = card.get("settings"), card.get("files")
    if not isinstance(before, dict) or not isinstance(kept, dict):
        return False
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        log.info("Rebuilding %s: %s changed.", folder, ", ".join(changed))
        return False
    for name, digest in kept.items():
        if not (folder / name).is_file() or files.sha256(folder / name) != digest:
            log.info("Rebuilding %s: %s is missing or changed.", folder, name)
            return False
    log.info("Reusing %s: settings and files are unchanged.", folder)
    return True


def _start(folder: Path, names: list[str]) -> None:
    """Records what will be written, and removes what earlier settings have left behind."""
    earlier: set[str] = set()
    for record in (CARD, PLAN):
        listed = (files.read_json(folder / record) or {}).get("files")
        if isinstance(listed, (list, dict)):  # a damaged record has anything there
            earlier |= {name for name in listed if isinstance(name, str)}
    # The plan names old and new files until the old ones are gone: a kill here must not orphan any.
    files.write_json(folder / PLAN, {"files": sorted(earlier | set(names))})
    (folder / CARD).unlink(missing_ok=True)
    for name in earlier - set(names):
        # Only names that this module writes: a card from elsewhere must not delete anything else.
        if re.fullmatch(r"[vi]_[a-z0-9]+/([0-9]+\.png|H_1_[0-9]+)", name):
            (folder / name).unlink(missing_ok=True)
    for sequence in folder.glob("[vi]_*"):
        if sequence.is_dir() and not any(sequence.iterdir()):
            sequence.rmdir()
    files.write_json(folder / PLAN, {"files": names})


def _finish(folder: Path, settings: dict, chosen: list[Scene], names: list[str]) -> None:
    """Writes the card, last of all: a folder with a card is complete."""
    for name in {name.split("/")[0] for name in names}:
        for leftover in (folder / name).glob(".[0-9H]*-*"):  # of a killed run
            if time.time() - leftover.stat().st_mtime > 600:
                leftover.unlink(missing_ok=True)
    card = {
        "settings": settings,
        "made_with": {"opencv": cv2.__version__, "numpy": np.__version__},
        "scenes": [dataclasses.asdict(scene) for scene in chosen],
        "files": {name: files.sha256(folder / name) for name in names},
    }
    files.write_json(folder / CARD, card)
    (folder / PLAN).unlink(missing_ok=True)


def prepare_profile(profile: Profile, *, seed: int = 0, progress: bool = True) -> list[datasets.Sequence]:
    """Returns the sequences of a profile's data sets; `sample` is made if it is not there.

    Raises:
        InputError: If `sample` cannot be made, or another data set is missing.
    """
    if profile.dataset == "sample":
        folder = paths.data(profile.name) / "sample"
        prepare_samples(
            folder, scenes=profile.scenes, num_images=profile.num_images, seed=seed, progress=progress
        )
    return locations.load(profile.dataset, profile.name)


def training_photographs(folder: str | os.PathLike) -> Path:
    """Copies the photographs of `sample` that a demonstration may learn from to a folder, and returns it.

    The scenes in `HELD_OUT` stay out, so that there is something to measure on that was never seen, and so do
    those whose licence does not allow to show them.

    Raises:
        InputError: If a package with photographs is missing, or the folder cannot be written.
    """
    folder = Path(folder)
    files.check_writable(folder / "photograph")
    for scene in SCENES:
        if scene.redistributable and scene.name not in HELD_OUT:
            source = scenes.path(scene)
            target = folder / f"{scene.name}{source.suffix}"
            if not target.is_file():
                with files.atomic(target) as partial:
                    shutil.copyfile(source, partial)
    return folder


def redistributable() -> frozenset[str]:
    """Returns the names of the scenes whose pictures may be committed and shown."""
    return frozenset(scene.name for scene in SCENES if scene.redistributable)
