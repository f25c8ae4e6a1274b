"""Owns the examination of an installation: what is there, what is missing, and how to get it."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import kp2d
from kp2d import backend, checks, paths, provenance
from kp2d.data import datasets
from kp2d.device import compiler
from kp2d.methods import learned, runtimes, tpu, weights
from kp2d.reproduce import chain

OK, ABSENT, BROKEN = "ok", "absent", "broken"  # broken: what is needed, or was asked for, does not work
MODEL = "kp2d_nano"  # the smallest one
ROOM = 2 << 30  # bytes on the disk that the profile `fast` may need with everything that it keeps

# Packages by the extra that brings them; the first two are enough to extract and match.
PACKAGES = {
    "reproduce": (
        "papermill",
        "jupyter",
        "ipykernel",
        "ipywidgets",
        "nbconvert",
        "jinja2",
        "matplotlib",
        "pandas",
        "scikit-image",
        "scikit-learn",
    ),
    "train": ("tensorflow", "keras", "ai-edge-litert", "tensorboard", "wandb"),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "cluster": ("dask", "distributed"),
}
MODULES = {"scikit-image": "skimage", "scikit-learn": "sklearn", "ai-edge-litert": "ai_edge_litert"}
OTHER_NAMES = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-macos")}
VARIABLES = ("KP2D_HOME", "VAL_PATH", "TRAIN_PATH", "KERAS_BACKEND", compiler.VARIABLE, tpu.LIBRARY_VARIABLE)
TOOLS = {
    "git": "Records name no commit without it: install it with your system's packages.",
    "conda": "Only for environment.yml; `make setup` does the same with pip.",
    "chromium": "Only the tests of the interactive viewer draw with it.",
}
ALSO = {"conda": ("micromamba", "mamba"), "chromium": ("chromium-browser", "google-chrome")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What it belongs to ("packages").
        name: What it is.
        status: `OK`, `ABSENT` (optional and not there) or `BROKEN`.
        value: What was found.
        remedy: What to do; empty if nothing is to be done.
    """

    topic: str
    name: str
    status: str
    value: str
    remedy: str = ""


def examine(*, deep: bool = False) -> list[Finding]:
    """Looks at everything that kp2d uses.

    Args:
        deep: Whether to import every package and run every runtime, which takes some seconds.

    Returns:
        What was found, by topic. Nothing is written, downloaded or changed.
    """
    parts = (
        *(_versions(), _packages(deep), _machine(), _backend(), _runtimes(deep), _edge_tpu(), _tools()),
        *(_weights(), _notebooks(), _data(), _folders(), _variables()),
    )
    return [finding for part in parts for finding in part]


def report(findings: list[Finding]) -> str:
    """Writes findings as text, a line each: ✓ there, – not there and not needed, ✗ broken."""
    signs, lines, topic = {OK: "✓", ABSENT: "–", BROKEN: "✗"}, [], ""
    for one in findings:
        if one.topic != topic:
            topic = one.topic
            lines.append(f"{topic[:1].upper()}{topic[1:]}")
        lines.append(f"  {signs[one.status]} {one.name}: {one.value}{'. ' if one.remedy else ''}{one.remedy}")
    broken = sum(one.status == BROKEN for one in findings)
    lines.append(f"{broken} to repair: see ✗" if broken else "Nothing is broken.")
    return "\n".join(lines)


def _versions() -> Iterator[Finding]:
    topic, commit = "versions", provenance.git_commit()
    yield Finding(topic=topic, name="kp2d", status=OK, value=f"{kp2d.__version__}, commit {commit}")
    yield Finding(topic=topic, name="Python", status=OK, value=platform.python_version())
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield Finding(topic=topic, name="system", status=OK, value=system)


def _packages(deep: bool) -> Iterator[Finding]:
    import cv2  # without which kp2d itself would not have been imported

    topic = "packages"
    for name, version in (("numpy", np.__version__), ("opencv", cv2.__version__)):
        yield Finding(topic=topic, name=name, status=OK, value=version)
    for extra, names in PACKAGES.items():
        for name in names:
            remedy = f"pip install '.[{extra}]' in the folder of kp2d, if you need it"
            version = _version(name)
            if version is None:
                yield Finding(topic=topic, name=name, status=ABSENT, value="not installed", remedy=remedy)
                continue
            error = _import_error(MODULES.get(name, name)) if deep else ""
            value = f"{version}, which does not load ({error})" if error else version
            again = f"pip install --force-reinstall -c constraints.txt {name}" if error else ""
            yield Finding(topic=topic, name=name, status=BROKEN if error else OK, value=value, remedy=again)


def _version(name: str) -> str | None:
    for distribution in OTHER_NAMES.get(name, (name,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _import_error(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a foreign package does
        return checks.first_line(error)
    return ""


def _machine() -> Iterator[Finding]:
    topic = "machine"
    yield Finding(topic=topic, name="cores", status=OK, value=str(provenance.workers()))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding(topic=topic, name="memory", status=OK, value=f"{memory / 2**30:.1f} GiB")
    place = _existing(paths.home())
    free = shutil.disk_usage(place).free
    remedy = "" if free >= ROOM else "Free some, or set KP2D_HOME to another disk"
    yield Finding(
        topic=topic,
        name="free disk",
        status=OK if free >= ROOM else BROKEN,
        value=f"{free / 2**30:.1f} GiB at {place}",
        remedy=remedy,
    )
    gpus = _gpus()
    yield Finding(
        topic=topic,
        name="NVIDIA GPU",
        status=OK if gpus else ABSENT,
        value="; ".join(gpus) or "none",
        remedy="" if gpus else "Only long training gains by one",
    )


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _backend() -> Iterator[Finding]:
    """The numeric backend of Keras, without importing any."""
    if importlib.util.find_spec("keras") is None:
        return
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    known = name in backend.BACKENDS and importlib.util.find_spec(name) is not None
    yield Finding(
        topic="machine",
        name="backend of Keras",
        status=OK if known else BROKEN,
        value=name
        if known
        else f"{name}, which is {'not installed' if name in backend.BACKENDS else 'none'}",
        remedy="" if known else f"Set KERAS_BACKEND to {', '.join(backend.BACKENDS)}, or unset it",
    )


def _runtimes(deep: bool) -> Iterator[Finding]:
    topic, installed = "runtimes of .tflite models", runtimes.available()
    for name in runtimes.RUNTIMES:
        if name not in installed:
            remedy = runtimes.INSTALL[name].rstrip(".") if not installed else ""
            yield Finding(topic=topic, name=name, status=ABSENT, value="not installed", remedy=remedy)
        elif name == "tensorflow" and not deep:  # seconds to import
            yield Finding(topic=topic, name=name, status=OK, value="installed; --deep runs a model")
        else:
            yield _run_model(topic, name)


def _run_model(topic: str, runtime: str) -> Finding:
    try:
        model = learned.load(MODEL, precision="int8", runtime=runtime)
        image = np.random.default_rng(0).integers(0, 256, (88, 88, 3), np.uint8)
        started = time.perf_counter()
        count = len(model.extract(image))
    except Exception as error:  # a runtime in C++ fails in ways of its own
        remedy = runtimes.INSTALL[runtime].rstrip(".")
        return Finding(
            topic=topic,
            name=runtime,
            status=BROKEN,
            value=f"fails ({checks.first_line(error)})",
            remedy=remedy,
        )
    value = f"runs {MODEL} int8: {count} keypoints in {1e3 * (time.perf_counter() - started):.0f} ms"
    return Finding(topic=topic, name=runtime, status=OK, value=value)


def _edge_tpu() -> Iterator[Finding]:
    topic, page = "Edge TPU", "See docs/devices.md, if you have a Coral stick"
    program, error = None, ""
    try:
        program = compiler.find()
    except checks.InputError as refused:
        error = str(refused)
    yield Finding(
        topic=topic,
        name="compiler",
        status=OK if program else BROKEN if error else ABSENT,
        value=str(program or error or "not installed"),
        remedy="" if program or error else "Only to compile models; Google has it for Linux on x86-64",
    )
    try:
        ctypes.CDLL(tpu.library())
        yield Finding(topic=topic, name="library", status=OK, value=tpu.library())
    except OSError as missing:
        named = tpu.LIBRARY_VARIABLE in os.environ
        value = f"{tpu.library()} does not load" + (f" ({checks.first_line(missing)})" if named else "")
        remedy = f"Correct or unset {tpu.LIBRARY_VARIABLE}" if named else page
        status = BROKEN if named else ABSENT
        yield Finding(topic=topic, name="library", status=status, value=value, remedy=remedy)
    found = tpu.devices()
    for device in found:
        value = f"{device.kind}, {device.path}{'' if device.usable else ', without permission'}"
        remedy = "" if device.usable else "sudo usermod -aG plugdev $USER, log in again, plug it in again"
        status = OK if device.usable else BROKEN
        yield Finding(topic=topic, name="stick", status=status, value=value, remedy=remedy)
    if not found:
        yield Finding(topic=topic, name="stick", status=ABSENT, value="none seen", remedy=page)


def _tools() -> Iterator[Finding]:
    for name, use in TOOLS.items():
        found = next(filter(None, map(shutil.which, (name, *ALSO.get(name, ())))), None)
        status = OK if found else ABSENT
        remedy = "" if found else use.rstrip(".")
        yield Finding(topic="tools", name=name, status=status, value=found or "not found", remedy=remedy)


def _weights() -> Iterator[Finding]:
    for precision in weights.SUFFIXES:
        names = weights.shipped(precision)
        try:
            for name in names:
                weights.check(weights.shipped_path(name, precision))
            status, value, remedy = OK, ", ".join(names), ""
        except (checks.InputError, OSError) as error:
            status, value, remedy = BROKEN, str(error), ""
        if not names:
            status, value, remedy = BROKEN, "none", "Install kp2d again"
        yield Finding(topic="shipped weights", name=precision, status=status, value=value, remedy=remedy)


def _notebooks() -> Iterator[Finding]:
    missing = [stage.name for stage in chain.STAGES if not stage.notebook.is_file()]
    checkout = (paths.home() / "pyproject.toml").is_file()
    yield Finding(
        topic="project",
        name="notebooks",
        status=OK if not missing else BROKEN if checkout else ABSENT,
        value=f"all {len(chain.STAGES)} in {paths.notebooks()}"
        if not missing
        else f"no {', '.join(missing)}",
        remedy="Clone the repository, or set KP2D_HOME to a checkout, to reproduce" if missing else "",
    )


def _data() -> Iterator[Finding]:
    for name, profile in (("sample", "smoke"), ("sample", "fast"), ("hpatches", "full"), ("coco", "full")):
        label = f"{name} of {profile}" if name == "sample" else name
        try:
            folder = datasets.resolve(name, profile)
        except checks.InputError as error:
            variable = {"hpatches": "VAL_PATH", "coco": "TRAIN_PATH"}.get(name)
            status = BROKEN if variable and os.environ.get(variable) else ABSENT
            remedy = error.remedy.rstrip(".") + (
                " (the notebooks make it themselves)" if name == "sample" else ""
            )
            yield Finding(topic="data", name=label, status=status, value=error.received, remedy=remedy)
            continue
        yield Finding(topic="data", name=label, status=OK, value=str(folder))


def _folders() -> Iterator[Finding]:
    for path in (paths.data(), paths.results(), paths.home() / "figures"):
        place = _existing(path)
        writable = os.access(place, os.W_OK) and place.is_dir()
        yield Finding(
            topic="folders",
            name=path.name,
            status=OK if writable else BROKEN,
            value=f"{path}{'' if writable else f' cannot be written, because of {place}'}",
            remedy="" if writable else "Change its permissions, or set KP2D_HOME to a folder of yours",
        )


def _variables() -> Iterator[Finding]:
    for name in VARIABLES:
        if name in os.environ:
            yield Finding(topic="environment variables", name=name, status=OK, value=os.environ[name])


def _existing(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
