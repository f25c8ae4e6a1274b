"""Owns how foreign libraries are set and silenced: Keras' backend, users' settings, what OpenCV prints."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kp2d import checks, files

BACKENDS = ("tensorflow", "jax", "torch")  # of Keras, each by the name of its package
# Keras' global settings under which every number of ours is computed, as keras.json names them.
SETTINGS = {"floatx": "float32", "image_data_format": "channels_last", "epsilon": 1e-7}
_CHOICES = {
    "floatx": ("float16", "float32", "float64"),  # what Keras itself takes
    "image_data_format": ("channels_last", "channels_first"),
}
# What the libraries of PNG, JPEG and TIFF print of a file.
_NOTE = re.compile(rb"libpng (warning|error)|Corrupt JPEG|Premature end of JPEG|TIFF\w*:")
log = logging.getLogger(__name__)
_lock = threading.Lock()
_inside = 0  # how many blocks of `own_settings` are entered
_users: dict[str, Any] = {}  # the user's settings meanwhile


def quiet() -> None:
    """Imports TensorFlow, which Keras does on any backend, without its start-up notes.

    Raises:
        InputError: If `KERAS_BACKEND` or the user's `keras.json` names no backend, or one that is not
            installed, or that file has what Keras fails on.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _check_chosen()
    if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is not None:
        with no_stderr():  # TensorFlow writes some notes before it reads its own log level
            importlib.import_module("tensorflow")


def _check_chosen() -> None:
    """Refuses a backend, or another setting of the user, that Keras would fail on while it is imported."""
    if "keras" in sys.modules or importlib.util.find_spec("keras") is None:  # small devices have none
        return
    path, settings = keras_file()
    if fault := keras_fault(path, settings):
        raise checks.problem("a keras.json that Keras can read", fault, "Correct or delete it.")
    name, instead = os.environ.get("KERAS_BACKEND"), "unset it"
    if not name:
        name, instead = settings.get("backend", BACKENDS[0]), f"change backend in {path}"
    remedy = f"Set the environment variable KERAS_BACKEND to another one, or {instead}."
    if name not in BACKENDS:
        raise checks.problem(f"a backend of Keras out of {', '.join(BACKENDS)}", repr(name), remedy)
    if importlib.util.find_spec(name) is None:
        raise checks.problem(f"the package {name}, the backend of Keras", "none installed", remedy)


def keras_file() -> tuple[Path, dict[str, Any]]:
    """Returns the path of the user's `keras.json` and what it holds; nothing if it cannot be read."""
    path = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    return path, files.read_json(path) or {}


def matplotlib_file() -> Path | None:
    """Returns the user's `matplotlibrc`, where Matplotlib finds it first; None if there is none."""
    linux = sys.platform.startswith(("linux", "freebsd"))
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "matplotlib"
    folder = os.environ.get("MPLCONFIGDIR") or (own if linux else Path.home() / ".matplotlib")
    named = os.environ.get("MATPLOTLIBRC") or ""
    places = ("matplotlibrc", named, Path(named, "matplotlibrc"), Path(folder, "matplotlibrc"))
    return next((Path(place).absolute() for place in places if Path(place).is_file()), None)


def import_matplotlib() -> None:
    """Imports Matplotlib even where `MPLBACKEND` has what it refuses, as a name out of an older version.

    The variable stays as it is, and a backend that Matplotlib knows stays chosen for the user's own figures.

    Raises:
        InputError: If Matplotlib fails on the user's `matplotlibrc`.
    """
    if "matplotlib" in sys.modules:
        return
    chosen = os.environ.pop("MPLBACKEND", None)
    try:
        matplotlib = importlib.import_module("matplotlib")
        with contextlib.suppress(ValueError):
            matplotlib.rcParams.update({"backend": chosen} if chosen else {})
    except UnicodeDecodeError as error:
        received = f"{matplotlib_file()} ({error.reason})"
        raise checks.problem("a matplotlibrc in UTF-8", received, "Correct or move it.") from None
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen


def keras_fault(path: Path, settings: dict[str, Any]) -> str:
    """Returns what Keras would fail on in a `keras.json`; "" for what it can use, which changes no result."""
    with contextlib.suppress(OSError, ValueError):  # what is no JSON is not used
        if not isinstance(json.loads(path.read_text()), dict):
            return f"{path}, which is no JSON object"
    for name, choices in _CHOICES.items():
        if settings.get(name, choices[0]) not in choices:
            return f"{path}: {name} {settings[name]}, which is none of {', '.join(choices)}"
    if not isinstance(settings.get("epsilon", 0.0), float):
        return f"{path}: epsilon {settings['epsilon']}, which is no number with a point"
    return ""


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Sets Keras as `SETTINGS` says, and back to what the user has chosen when the last block is left.

    Layers keep what was set when they were made, so that it is enough around whatever builds or trains one.
    """
    global _inside
    config = importlib.import_module("keras").config
    with _lock:
        if not _inside:
            _users.update({name: getattr(config, name)() for name in SETTINGS}, policy=config.dtype_policy())
            for name, value in SETTINGS.items():
                getattr(config, f"set_{name}")(value)
            config.set_dtype_policy(SETTINGS["floatx"])
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for name in SETTINGS:
                    getattr(config, f"set_{name}")(_users[name])
                config.set_dtype_policy(_users["policy"])


@contextlib.contextmanager
def no_stderr(heard: IO[bytes] | None = None) -> Iterator[None]:
    """Drops what compiled code writes to the standard error stream, or writes it into a file."""
    with contextlib.ExitStack() as after:
        with contextlib.suppress(OSError):  # a process without the stream
            kept = os.dup(2)
            after.callback(os.close, kept)
            nowhere = None if heard else after.enter_context(Path(os.devnull).open("wb"))
            after.callback(os.dup2, kept, 2)
            os.dup2((heard or nowhere).fileno(), 2)
        yield


class QuietOpenCV:
    """Silences OpenCV while threads decode; logs once, with the file's name, what libpng and libjpeg print.

    They write to the error stream at each reading. What others write there meanwhile is passed on.
    """

    def __init__(self, opencv_log: Any) -> None:
        """Takes the module that has OpenCV's `getLogLevel` and `setLogLevel`."""
        self._log = opencv_log
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._depth = self._level = 0
        self._told: set[str] = set()

    @contextlib.contextmanager
    def __call__(self, path: Path) -> Iterator[None]:
        """Silences while the file of a path is decoded."""
        with self._lock:
            if self._depth == 0:
                self._begin()
            self._names.append(str(path))
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    self._end()

    def _begin(self) -> None:
        self._level, self._heard, self._names = self._log.getLogLevel(), None, []
        self._log.setLogLevel(0)
        with contextlib.suppress(OSError):  # no place for the file
            self._heard = tempfile.TemporaryFile()  # noqa: SIM115
            self._silence = no_stderr(self._heard)
            self._silence.__enter__()

    def _end(self) -> None:
        self._log.setLogLevel(self._level)
        if self._heard is None:
            return
        self._silence.__exit__(None, None, None)
        with self._heard as heard:
            heard.seek(0)
            lines = heard.read().splitlines(keepends=True)
        notes = dict.fromkeys(line.decode(errors="replace").strip() for line in lines if _NOTE.match(line))
        if others := b"".join(line for line in lines if not _NOTE.match(line)):
            os.write(2, others)
        names = list(dict.fromkeys(self._names))
        if notes and not self._told.issuperset(names) and len(self._told) < checks.MAX_ASSUMED:
            self._told.update(names)
            log.warning("%s: %s", " or ".join(names), "; ".join(notes))
