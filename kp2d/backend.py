"""Owns what must be said to the numeric backend before it is first imported."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from kp2d import checks

BACKENDS = ("tensorflow", "jax", "torch")  # of Keras, each by the name of its package


def quiet() -> None:
    """Imports TensorFlow, which Keras does on any backend, without its start-up notes.

    Raises:
        InputError: If `KERAS_BACKEND` names no backend, or one that is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _check_chosen()
    if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is not None:
        with no_stderr():  # TensorFlow writes some notes before it reads its own log level
            importlib.import_module("tensorflow")


def _check_chosen() -> None:
    """Refuses a backend that Keras would fail on while it is imported."""
    name = os.environ.get("KERAS_BACKEND")
    if not name or "keras" in sys.modules:
        return
    remedy = "Set the environment variable KERAS_BACKEND to another one, or unset it."
    checks.one_of("backend of Keras", name, BACKENDS)
    if importlib.util.find_spec(name) is None:
        raise checks.problem(f"the package {name}, the backend of Keras", "none installed", remedy)


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
    """Drops what compiled code writes to the standard error stream."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without the stream
        yield
        return
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
