"""Work that the tests send to the workers of a cluster, which import this module, too."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kp2d import checks


def append(file: str, text: str, seconds: float = 0.0, *, report) -> str:
    """Writes a line to a file, after a while."""
    report(f"{text} begins in {os.getpid()}")
    time.sleep(seconds)
    with Path(file).open("a", encoding="utf-8") as lines:
        lines.write(f"{text}\n")
    return text


def once_slow(file: str, *, report) -> str:
    """Takes an hour the first time, and says which process does."""
    first = not Path(file).exists()
    if first:
        Path(f"{file}.part").write_text(str(os.getpid()), encoding="utf-8")
        Path(f"{file}.part").replace(file)
        time.sleep(3600)
    return "again"


def fail(kind: str, *, report) -> None:
    """Fails as users may read it, or not."""
    raise {"input": checks.problem("a number", "a word"), "bug": ZeroDivisionError("by zero")}[kind]


def meet(folder: str, name: str, other: str, *, report) -> None:
    """Ends when the other one has begun, too."""
    (Path(folder) / name).touch()
    give_up = time.monotonic() + 60
    while not (Path(folder) / other).exists():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{other} did not begin")
        time.sleep(0.05)
    report(f"{name}: met {other}")


def die(*, report) -> None:
    """Takes its process with it."""
    os._exit(1)
