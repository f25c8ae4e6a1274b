"""Owns that only one run works in a folder at a time: the lock, and who holds it."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kp2d import checks, files

logger = logging.getLogger(__name__)

NAME = ".lock"  # of the file in the folder; it stays there, as removing it would let two runs in at once
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}  # what systems answer where another holds the lock
_FAR = 1 << 30  # Windows forbids reading what is locked: a byte behind the text is


@contextlib.contextmanager
def alone(folder: Path | str, what: str) -> Iterator[None]:
    """Keeps other runs out of a folder, on this machine and on others that share its disk.

    The operating system holds the lock and drops it when its process ends, however that ends: a killed run
    leaves nothing to clean up. The file only tells others who it is.

    Args:
        folder: The folder; it is created.
        what: What is to run alone, for the message ("kp2d reproduce --profile fast").

    Raises:
        InputError: If another run holds the lock, or the folder cannot be written.
    """
    path = Path(folder) / NAME
    files.check_writable(path)
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _TAKEN:
                raise checks.problem(f"no other {what}", holder(path), _REMEDY) from None
            # Some network file systems have no locks.
            logger.warning("%s cannot be locked (%s): start no second run there.", folder, error)
        _sign(file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the name of a run that has ended misleads nobody
                file.truncate(0)


_REMEDY = "Wait until it has finished, or stop it; what it has finished is then reused."


def holder(path: Path) -> str:
    """Says who holds a lock.

    Args:
        path: The file.

    Returns:
        As "one by process 4711 on workstation, since 2026-01-31 12:00:00".
    """
    found = files.read_json(path) or {}
    known = all(key in found for key in ("pid", "host", "since"))
    return "one by process {pid} on {host}, since {since}".format(**found) if known else "one that runs"


def _sign(file: IO[str]) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        file.flush()


def _lock(file: IO[str]) -> None:
    """Locks a file for this process, or fails at once."""
    if os.name == "nt":
        import msvcrt

        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            file.seek(0)
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
