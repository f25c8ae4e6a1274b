"""Owns what must be said to the numeric backend before it is first imported."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def quiet() -> None:
    """Imports TensorFlow, which Keras does on any backend, without its start-up notes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is not None:
        with no_stderr():  # TensorFlow writes some notes before it reads its own log level
            importlib.import_module("tensorflow")


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
