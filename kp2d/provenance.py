"""Owns where a result comes from: code, commit, versions and device."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from kp2d import paths

_PACKAGES = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "pandas",
    "matplotlib",
    "papermill",
    "scikit-image",
)


def git_commit() -> str:
    """Returns the checkout's short commit, with "-dirty" if the code differs from it, or "unknown"."""
    checkout = paths.PACKAGE.parent
    if not (checkout / ".git").exists():
        return "unknown"
    try:
        return _commit_of(checkout)
    except (OSError, subprocess.SubprocessError):  # not kept: git may be found the next time
        return "unknown"


@functools.cache
def _commit_of(checkout: Path) -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    changed = git("status", "--porcelain", "--", "kp2d", "notebooks")
    return git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")


def code_hash(*modules: str, source: str | None = None) -> str:
    """Returns 12 hexadecimal digits that change with any line of code that a result depends on.

    Modules go by their full names, `__name__`; what they import counts too, and what that imports. `source`
    is Python code outside the library, such as a notebook's, that depends on what it imports. If nothing is
    named, the whole library counts.
    """
    if modules or source is not None:
        files = {_module_file(name) for name in closure({*modules, *_imported(source or "")})}
    else:
        files = set(paths.PACKAGE.rglob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(paths.PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def closure(modules: Iterable[str]) -> set[str]:
    """Returns those of some modules that belong to the library, and all of it that they need.

    Imports inside functions count, for they decide results as well; packages on the way to a module count as
    files, but what they import does not.
    """
    needed: set[str] = set()
    waiting = [name for name in modules if _module_file(name)]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        path = _module_file(name)
        if path.name != "__init__.py":
            waiting += [other for other in _imported(path.read_text("utf-8")) if _module_file(other)]
    return needed


@functools.lru_cache(maxsize=512)
def _imported(source: str) -> frozenset[str]:
    """Returns the full names of what Python code imports from the library, modules or what may be some."""
    names: set[str] = set()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # whoever runs it says what is wrong with it
        return frozenset()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if name.partition(".")[0] == paths.PACKAGE.name)


def _module_file(name: str) -> Path | None:
    """Returns the file of one of the library's modules; None for anything else."""
    path = paths.PACKAGE.parent.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def device(runtime: str = "keras") -> str:
    """Returns what computes, without naming the machine: "cpu-x86_64", "gpu-nvidia-l4" or "edgetpu".

    The runtime is the method's ("opencv", "litert+edgetpu"); only Keras computes on a GPU.
    """
    if "edgetpu" in runtime:
        return "edgetpu"
    gpu = _gpu() if runtime == "keras" else ""
    return f"gpu-{gpu.lower().replace(' ', '-')}" if gpu else f"cpu-{platform.machine().lower()}"


def _gpu() -> str:
    """Returns the model of the GPU that Keras computes on; "" without one, or while Keras is not loaded."""
    keras = sys.modules.get("keras")
    if keras is None:
        return ""
    name = keras.backend.backend()
    backend = sys.modules[name]
    if name == "tensorflow":
        gpus = backend.config.get_visible_devices("GPU")
        details = backend.config.experimental.get_device_details(gpus[0]) if gpus else {}
        return details.get("device_name", "unknown") if gpus else ""
    if name == "jax":
        return backend.devices()[0].device_kind if backend.default_backend() == "gpu" else ""
    return backend.cuda.get_device_name() if backend.cuda.is_available() else ""


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on."""
    known = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **{name: text for name, text in known.items() if text}}


def version(package: str) -> str:
    """Returns the version of an installed package; "" if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def workers() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
