"""Owns the examination of an installation: what is there, what is missing, and how to get it."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import kp2d
from kp2d import backend, checks, paths, provenance
from kp2d.data import datasets, locations
from kp2d.device import compiler
from kp2d.methods import learned, runtimes, tpu, weights
from kp2d.reproduce import chain

OK, ABSENT, BROKEN = "ok", "absent", "broken"  # broken: what is needed, or was asked for, does not work
MODEL = "kp2d_nano"  # the smallest one
ROOM = 2 << 30  # bytes on the disk that the profile `fast` may need with everything that it keeps

# Packages by the extra that brings them; NumPy and OpenCV are enough to extract and match.
PACKAGES = {
    "reproduce": (
        *("papermill", "jupyter", "ipykernel", "ipywidgets", "nbconvert", "jinja2", "docutils"),
        *("matplotlib", "pandas", "scikit-image", "scikit-learn"),
    ),
    "train": ("tensorflow", "keras", "ai-edge-litert", "tensorboard", "wandb"),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "cluster": ("dask", "distributed"),
}
MODULES = {"scikit-image": "skimage", "scikit-learn": "sklearn", "ai-edge-litert": "ai_edge_litert"}
OTHER_NAMES = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-macos")}
VARIABLES = (
    *("KP2D_HOME", "VAL_PATH", "TRAIN_PATH", "KERAS_BACKEND", compiler.VARIABLE, tpu.LIBRARY_VARIABLE),
    *("KERAS_HOME", "MATPLOTLIBRC", "MPLCONFIGDIR", "MPLBACKEND"),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str  # what it belongs to ("packages")
    name: str  # what it is
    status: str  # `OK`, `ABSENT` (optional and not there) or `BROKEN`
    value: str  # what was found
    remedy: str = ""  # what to do; empty if nothing is to be done


Fact = tuple[str, ...]  # a finding without its topic: name, status, value and, where there is one, remedy


def examine(*, deep: bool = False) -> list[Finding]:
    """Looks at everything that kp2d uses, and returns what was found, by topic.

    Nothing is written, downloaded or changed. `deep` imports every package and runs every runtime, which
    takes some seconds.
    """
    topics: dict[str, Callable[[], Iterator[Fact]]] = {
        "versions": _versions,
        "packages": lambda: _packages(deep),
        "machine": _machine,
        "runtimes of .tflite models": lambda: _runtimes(deep),
        "Edge TPU": _edge_tpu,
        "shipped weights": _weights,
        "project": _notebooks,
        "data": _data,
        "folders": _folders,
        "configuration files": _configuration,
        "environment variables": _variables,
    }
    return [Finding(topic, *fact) for topic, look in topics.items() for fact in look()]


def report(findings: list[Finding]) -> str:
    """Writes findings as text, a line each: ✓ there, – not there and not needed, ✗ broken."""
    signs, lines, topic = {OK: "✓", ABSENT: "–", BROKEN: "✗"}, [], ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines.append(f"{topic[:1].upper()}{topic[1:]}")
        told = f"{finding.value}. {finding.remedy}" if finding.remedy else finding.value
        lines.append(f"  {signs[finding.status]} {finding.name}: {told}")
    broken = sum(finding.status == BROKEN for finding in findings)
    lines.append(f"{broken} to repair: see ✗" if broken else "Nothing is broken.")
    return "\n".join(lines)


def _versions() -> Iterator[Fact]:
    yield "kp2d", OK, f"{kp2d.__version__}, commit {provenance.git_commit()}"
    yield "Python", OK, platform.python_version()
    yield "system", OK, f"{platform.system()} {platform.release()}, {platform.machine()}"


def _packages(deep: bool) -> Iterator[Fact]:
    import cv2  # without which kp2d itself would not have been imported

    yield "numpy", OK, np.__version__
    yield "opencv", OK, cv2.__version__
    for extra, names in PACKAGES.items():
        for name in names:
            yield _package(name, extra, deep)
    npm = shutil.which("npm")
    remedy = "Install Node.js 18 or newer, which brings it, for the page Try it of kp2d report"
    yield "npm", *((OK, npm) if npm else (ABSENT, "not installed", remedy))


def _package(name: str, extra: str, deep: bool) -> Fact:
    version = next(filter(None, map(provenance.version, OTHER_NAMES.get(name, (name,)))), "")
    if not version:
        remedy = f"pip install '.[{extra}]' in the folder of kp2d, if you need it"
        return name, ABSENT, "not installed", remedy
    try:
        if deep:
            importlib.import_module(MODULES.get(name, name))
    except Exception as error:  # whatever a foreign package does
        again = f"pip install --force-reinstall -c constraints.txt {name}"
        return name, BROKEN, f"{version}, which does not load ({checks.first_line(error)})", again
    return name, OK, version


def _machine() -> Iterator[Fact]:
    yield "cores", OK, str(provenance.workers())
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield "memory", OK, f"{memory / 2**30:.1f} GiB"
    folder = _existing(paths.home())
    free = shutil.disk_usage(folder).free
    told = f"{free / 2**30:.1f} GiB at {folder}"
    full = (BROKEN, told, "Free some, or set KP2D_HOME to another disk")
    yield "free disk", *((OK, told) if free >= ROOM else full)
    gpus = "; ".join(_gpus())
    yield "NVIDIA GPU", *((OK, gpus) if gpus else (ABSENT, "none", "Only long training gains by one"))
    if importlib.util.find_spec("keras") is not None:
        yield _backend()


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _backend() -> Fact:
    """The numeric backend of Keras, without importing any."""
    name = os.environ.get("KERAS_BACKEND") or str(backend.keras_file()[1].get("backend", "tensorflow"))
    if name in backend.BACKENDS and importlib.util.find_spec(name) is not None:
        return "backend of Keras", OK, name
    value = f"{name}, which is {'not installed' if name in backend.BACKENDS else 'none'}"
    remedy = f"Set KERAS_BACKEND to {', '.join(backend.BACKENDS)}, or unset it"
    return "backend of Keras", BROKEN, value, remedy


def _runtimes(deep: bool) -> Iterator[Fact]:
    installed = runtimes.available()
    for name in runtimes.RUNTIMES:
        if name not in installed:
            yield name, ABSENT, "not installed", "" if installed else runtimes.INSTALL[name].rstrip(".")
        elif name == "tensorflow" and not deep:  # seconds to import
            yield name, OK, "installed; --deep runs a model"
        else:
            yield _run_model(name)


def _run_model(runtime: str) -> Fact:
    try:
        model = learned.load(MODEL, precision="int8", runtime=runtime)
        image = np.random.default_rng(0).integers(0, 256, (88, 88, 3), np.uint8)
        started = time.perf_counter()
        count = len(model.extract(image))
    except Exception as error:  # a runtime in C++ fails in ways of its own
        remedy = runtimes.INSTALL[runtime].rstrip(".")
        return runtime, BROKEN, f"fails ({checks.first_line(error)})", remedy
    milliseconds = 1e3 * (time.perf_counter() - started)
    return runtime, OK, f"runs {MODEL} int8: {count} keypoints in {milliseconds:.0f} ms"


def _edge_tpu() -> Iterator[Fact]:
    page = "See docs/devices.md, if you have a Coral stick"
    try:
        program = compiler.find()
        absent = (ABSENT, "not installed", "Only to compile models; Google has it for Linux on x86-64")
        yield "compiler", *((OK, str(program)) if program else absent)
    except checks.InputError as error:
        yield "compiler", BROKEN, str(error)
    try:
        ctypes.CDLL(tpu.library())
        yield "library", OK, tpu.library()
    except OSError as error:
        value = f"{tpu.library()} does not load"
        if tpu.LIBRARY_VARIABLE in os.environ:
            remedy = f"Correct or unset {tpu.LIBRARY_VARIABLE}"
            yield "library", BROKEN, f"{value} ({checks.first_line(error)})", remedy
        else:
            yield "library", ABSENT, value, page
    sticks = tpu.devices()
    for stick in sticks:
        told = f"{stick.kind}, {stick.path}"
        remedy = "sudo usermod -aG plugdev $USER, log in again, plug it in again"
        refused = (BROKEN, f"{told}, without permission", remedy)
        yield "stick", *((OK, told) if stick.usable else refused)
    if not sticks:
        yield "stick", ABSENT, "none seen", page


def _weights() -> Iterator[Fact]:
    for precision in weights.SUFFIXES:
        names = weights.shipped(precision)
        try:
            for name in names:
                weights.check(weights.shipped_path(name, precision))
        except (checks.InputError, OSError) as error:
            yield precision, BROKEN, str(error)
            continue
        yield precision, *((OK, ", ".join(names)) if names else (BROKEN, "none", "Install kp2d again"))


def _notebooks() -> Iterator[Fact]:
    missing = [stage.name for stage in chain.STAGES if not stage.notebook.is_file()]
    if not missing:
        yield "notebooks", OK, f"all {len(chain.STAGES)} in {paths.notebooks()}"
        return
    checkout = (paths.home() / "pyproject.toml").is_file()
    remedy = "Clone the repository, or set KP2D_HOME to a checkout, to reproduce"
    yield "notebooks", BROKEN if checkout else ABSENT, f"no {', '.join(missing)}", remedy


def _data() -> Iterator[Fact]:
    """What profiles measure on and learn from; `bench` takes what `VAL_PATH` names, as `hpatches` does."""
    for name, profile in (("sample", "smoke"), ("sample", "fast"), ("hpatches", "full"), ("coco", "full")):
        made = name == "sample"
        label = f"{name} of {profile}" if made else name
        try:
            folders = ", ".join(map(str, locations.folders(name, profile)))
            count = f": {len(datasets.list_images(folders)):,} pictures" if name == "coco" else ""
            yield label, OK, f"{folders}{count}"
        except checks.InputError as error:
            variable = {"hpatches": locations.VARIABLE, "coco": "TRAIN_PATH"}.get(name, "")
            status = BROKEN if os.environ.get(variable) else ABSENT
            remedy = error.remedy.rstrip(".") + (" (the notebooks make it)" if made else "")
            yield label, status, error.received, remedy or f"Correct or unset the variable {variable}"


def _folders() -> Iterator[Fact]:
    home = paths.home()
    if "KP2D_HOME" in os.environ and not home.is_dir():
        value = f"{home}, which {'is a file' if home.exists() else 'does not exist'}"
        yield "KP2D_HOME", BROKEN, value, "Correct or unset the variable, or make the folder"
        return
    for path in (paths.data(), paths.results(), paths.home() / "figures"):
        existing = _existing(path)
        if existing.is_dir() and os.access(existing, os.W_OK):
            yield path.name, OK, str(path)
        else:
            remedy = "Change its permissions, or set KP2D_HOME to a folder of yours"
            yield path.name, BROKEN, f"{path} cannot be written, because of {existing}", remedy


def _configuration() -> Iterator[Fact]:
    """The user's own files, which other programs share: where they lie, and what in them matters here."""
    path, settings = backend.keras_file()
    if not path.is_file():
        yield "keras.json", ABSENT, f"no {path}"
    elif fault := backend.keras_fault(path, settings) if settings else f"{path}: no settings":
        yield "keras.json", BROKEN, fault, "Correct it, or remove that from it"
    else:
        yield "keras.json", OK, f"{path}: nothing that would change results"
    yield _matplotlibrc()


def _matplotlibrc() -> Fact:
    style = backend.matplotlib_file()
    if style is None:
        return "matplotlibrc", ABSENT, "none"
    try:
        style.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        value = f"{style}, which Matplotlib fails on ({checks.first_line(error)})"
        return "matplotlibrc", BROKEN, value, "Correct or move it"
    where = ", in the working folder" if style == Path("matplotlibrc").absolute() else ""
    return "matplotlibrc", OK, f"{style}{where}: no effect on our pictures, which have a style of their own"


def _variables() -> Iterator[Fact]:
    for name in VARIABLES:
        if name in os.environ:
            inert = " (no effect on our pictures)" if name in ("MATPLOTLIBRC", "MPLBACKEND") else ""
            yield name, OK, f"{os.environ[name]}{inert}"


def _existing(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
