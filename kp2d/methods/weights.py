"""Owns which weights a name or a path means, and that those in this package are the published ones."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kp2d import backend, checks, config, files, paths
from kp2d.methods import tflite_file

if TYPE_CHECKING:
    import keras

    from kp2d.methods import networks

PRETRAINED = paths.PACKAGE / "pretrained"
WEIGHTS, MODEL = ".weights.h5", ".tflite"
# File of each precision; "int8" is the best int8 network there is, "int8_ptq" the one without training.
SUFFIXES = {"float32": WEIGHTS, "int8": f".int8{MODEL}", "int8_ptq": f".int8_ptq{MODEL}"}
_RESTORE = "Install kp2d again, or restore the file from the repository: git checkout -- kp2d/pretrained."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of a network, checked but not yet loaded."""

    path: Path  # the file, absolute
    name: str  # of the method that they are
    preset: str  # which network they are of, a key of `kp2d.methods.networks.PRESETS`
    precision: str  # "float32", "int8" …
    sha256: str  # of the file
    steered: bool = False  # whether the descriptors were trained to turn with their image
    calibration_images: int | None = None  # how many an int8 model says that its ranges were chosen by

    @property
    def is_model(self) -> bool:
        """Tells whether it is a `.tflite` model, not Keras' weights."""
        return self.path.name.endswith(MODEL)

    @property
    def calibration(self) -> str:
        """What the ranges of an int8 network were chosen by, as its card or the file says; else "none"."""
        if not self.precision.startswith("int"):
            return "none"
        card = files.read_json(card_of(self.path)) or {}
        told = card.get("calibration") if card.get("sha256") == self.sha256 else None
        return told or (f"{self.calibration_images} images" if self.calibration_images else "unknown")


def is_path(name: str) -> bool:
    """Tells whether the name of a method is the path of a model or of trained weights ("runs/mine")."""
    return "/" in name or os.sep in name or name.endswith((".h5", ".keras", ".onnx", MODEL))


def check_name(kind: str, name: str, names: Iterable[str]) -> None:
    """Refuses a name that is none of `names`; where a file or folder is called so, says how to name that.

    Of a method, the hint knows precisions too: "kp2d_tiny_s_int8" means "kp2d_tiny_s:int8".
    """
    if name and name not in names and Path(name).exists():
        remedy = f"Write ./{name}, if it holds weights."
        raise checks.problem(f"a {kind} out of {', '.join(names)}, or a path", repr(name), remedy)
    spelled = (f"{network}:{precision}" for network in shipped() for precision in SUFFIXES)
    checks.one_of(kind, name, names, spelled if kind == "method" else ())


def resolve(name: str | Path, precision: str | None = None) -> Weights:
    """Finds the weights that a name or a path means.

    Args:
        name: A network that this package ships, or the path of a `.tflite` model, of a `.weights.h5` file, or
            of the folder of a training run.
        precision: A key of `SUFFIXES`; None takes "float32" of a shipped network, and what a file is.

    Returns:
        The weights. Those of a run or found in a folder are named after that, if their file is named after
        its preset; others after their file.

    Raises:
        InputError: If there are no such weights, they are damaged, it is unknown of which network they are,
            or the precision is another.
    """
    if is_path(str(name)):
        path = find(name)
        if path.name.endswith(MODEL):
            return _of_model(path, precision)
        return _of_training(path, precision, by_folder=Path(name).expanduser().is_dir())
    precision = checks.one_of(f"precision of {name}", precision or "float32", SUFFIXES)
    check_name(f"shipped network in {precision}", str(name), shipped(precision))
    path = shipped_path(str(name), precision)
    sha256 = check(path)
    card = files.read_json(card_of(path)) or {}
    return Weights(
        path=path,
        name=str(name),
        preset=card.get("preset", name),
        precision=precision,
        sha256=sha256,
        steered=card.get("steered", False),
    )


def find(path: str | Path) -> Path:
    """Finds the file, absolute, of a model or of a training run's weights.

    The path is the folder of the run, or the `.weights.h5` or `.tflite` file itself.

    Raises:
        InputError: If there is none, or a folder holds several.
    """
    path = Path(path).expanduser().absolute()
    candidates = sorted(path.glob(f"*{WEIGHTS}")) if path.is_dir() else [path]
    if len(candidates) != 1 or not candidates[0].is_file():
        raise checks.problem(
            "a .weights.h5 or .tflite file, or the folder of a run with one",
            ", ".join(file.name for file in candidates if file != path) or f"none at {path}",
            "Name the output of kp2d train or kp2d quantize.",
        )
    return candidates[0].resolve()


def _of_model(path: Path, precision: str | None) -> Weights:
    data, metadata = tflite_file.open_model(path)
    held = metadata["precision"]
    checks.one_of(f"precision of {path.name}", precision or held, [held])
    name = path.name.removesuffix(MODEL).removesuffix(f".{held}")
    return Weights(
        path=path,
        name=name,
        preset=metadata["preset"],
        precision=held,
        sha256=check(path, data),
        steered=metadata.get("steered", False),
        calibration_images=metadata.get("calibration_images"),
    )


def _of_training(path: Path, precision: str | None, *, by_folder: bool) -> Weights:
    checks.one_of(f"precision of {path.name}", precision or "float32", ["float32"])
    if not path.name.endswith(WEIGHTS):
        raise checks.problem(
            "a .weights.h5 or .tflite file", str(path), "Name the output of kp2d train or kp2d quantize."
        )
    stem, run = path.name.removesuffix(WEIGHTS), files.read_json(path.with_name("config.json")) or {}
    preset = _preset_of(path, run)
    name = path.parent.name if stem == preset and (run or by_folder) else stem
    return Weights(
        path=path,
        name=name,
        preset=preset,
        precision="float32",
        sha256=check(path),
        steered=_is_steered(path, run),
    )


def _is_steered(path: Path, run: dict) -> bool:
    """Tells whether a `.weights.h5` file was trained with turns: its run or its card tells."""
    if "augment" in run:
        return bool(run["augment"].get("turn"))
    return bool((files.read_json(card_of(path)) or {}).get("steered"))


def _preset_of(path: Path, run: dict) -> str:
    """Returns which network a `.weights.h5` file is of: its run, its card or its name tells."""
    stem = path.name.removesuffix(WEIGHTS)
    card = files.read_json(card_of(path)) or {}
    preset = run.get("preset") or card.get("preset") or stem
    backend.quiet()
    from kp2d.methods import networks

    if not isinstance(preset, str) or preset not in networks.PRESETS:
        raise checks.problem(
            "weights of a known network",
            f"{path}, whose name, card and run do not tell one",
            "Keep the file in the folder of its run, or name it after its preset: kp2d_tiny_s.weights.h5.",
        )
    if run.get("quantized"):
        raise checks.problem(
            "float weights, or a .tflite model",
            f"{path}, weights in training for int8",
            "Name the .tflite file that kp2d quantize made of them.",
        )
    return preset


def shipped(precision: str = "float32") -> tuple[str, ...]:
    """Returns the names of the networks whose weights come with this package, sorted.

    Weights that have been lost are among them, by their cards: loading them then says what to do.
    """
    suffix = SUFFIXES[precision]
    card = card_of(Path(suffix)).name
    names = {
        path.name.removesuffix(ending) for ending in (suffix, card) for path in PRETRAINED.glob(f"*{ending}")
    }
    return tuple(sorted(name for name in names if "." not in name))


def shipped_path(name: str, precision: str = "float32") -> Path:
    """Returns where the weights of a network lie that this package ships."""
    return PRETRAINED / f"{name}{SUFFIXES[precision]}"


def shipped_hash() -> str:
    """Returns 12 hexadecimal digits that change with any of the weights in this package, by their cards."""
    cards = {path.name: (files.read_json(path) or {}).get("sha256") for path in PRETRAINED.glob("*.json")}
    return config.fingerprint(cards)


def card_of(path: Path) -> Path:
    """Returns where the card of weights lies: beside them."""
    return path.with_name(f"{path.name.removesuffix(WEIGHTS).removesuffix(MODEL)}.json")


def check(path: str | Path, data: bytes | None = None) -> str:
    """Checks weights, if this package ships them, before anything interprets them.

    `data` is what was read from the file, if it was. Files that are not shipped have nothing to be compared
    with. Returns the file's sha256, 64 hexadecimal digits.

    Raises:
        InputError: If shipped weights are missing or not those that their card describes.
    """
    path = Path(path)
    ours = path.parent.resolve() == PRETRAINED
    if data is None and ours and not path.is_file():
        raise checks.problem(f"the shipped weights {path}", "no such file", _RESTORE)
    digest = files.sha256(path) if data is None else hashlib.sha256(data).hexdigest()
    if not ours:
        return digest
    published = (files.read_json(card_of(path)) or {}).get("sha256")
    if published is None:
        raise checks.problem(f"the card {card_of(path)} with a sha256", "none", _RESTORE)
    if digest != published:
        raise checks.problem(f"the shipped weights {path} with sha256 {published}", digest, _RESTORE)
    return digest


def load_network(preset: str, path: str | Path) -> tuple[keras.Model, networks.NetworkConfig]:
    """Builds a preset's network for images of any size, with the weights of a file; see `load_weights`."""
    from kp2d.methods import networks

    config = networks.get_preset(preset)
    network = networks.build_network(config)
    load_weights(network, path)
    return network, config


def load_weights(network: keras.Model, path: str | Path) -> None:
    """Overwrites the weights of a network with those of a `.weights.h5` file.

    The format holds arrays only, and no other is accepted: nothing in such a file is ever executed.

    Raises:
        InputError: If there is no such file, or it holds another architecture.
    """
    if not str(path).endswith(".weights.h5"):
        raise checks.problem("a file that ends in .weights.h5", str(path), "Name the output of kp2d train.")
    try:
        network.load_weights(path)
    except Exception as error:  # the readers of HDF5 have no error of their own for damaged files
        raise checks.problem(
            f"a .weights.h5 file of {network.name}",
            f"{str(path)!r} ({checks.first_line(error)})",
            "Check the path and the preset.",
        ) from error
