"""Owns where a result comes from: code, commit, versions and device."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess

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


@functools.cache
def git_commit() -> str:
    """Returns the checkout's short commit, with "-dirty" if the code differs from it, or "unknown"."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.PACKAGE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    if not (paths.PACKAGE.parent / ".git").exists():
        return "unknown"
    try:
        changed = git("status", "--porcelain", "--", "kp2d", "notebooks")
        return git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def code_hash(*modules: str) -> str:
    """Returns 12 hexadecimal digits over Python files of the library; they change with any line of them.

    Args:
        *modules: Names of modules; none takes the whole library.
    """
    chosen = [paths.PACKAGE / f"{name}.py" for name in modules] or paths.PACKAGE.rglob("*.py")
    digest = hashlib.sha256()
    for path in sorted(chosen):
        digest.update(str(path.relative_to(paths.PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def device() -> str:
    """Returns what computes, without naming the machine: "cpu-x86_64"."""
    return f"cpu-{platform.machine().lower()}"


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def workers() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
