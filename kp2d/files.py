"""Owns how files are written and recognized, with a hash and clear errors, and that a folder has one run."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import secrets
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kp2d import checks, paths

WRITABLE = "a writable place for"  # how errors about a file that cannot be written begin
LOCK = ".lock"  # in a folder; it stays there, as removing it would let two runs in at once
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}  # what systems answer where another holds the lock
_FAR = 1 << 30  # Windows forbids reading what is locked: a byte behind the text is

log = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it takes `path`'s place, on error nothing is left.

    The folder is created.

    Raises:
        InputError: If the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}")
    with _named_after(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()  # a folder that cannot be written shows now, not after the work
            yield temporary
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _named_after(path: Path) -> Iterator[None]:
    """Turns what the system says about a temporary file into an error about the file that was wanted."""
    try:
        yield
    except OSError as error:
        reason, own = error.strerror or str(error), Path(path).absolute().is_relative_to(paths.home())
        remedy = f"Make room there, or choose another folder{' by KP2D_HOME' if own else ''}."
        raise checks.problem(f"{WRITABLE} {path}", reason, remedy) from error


def check_writable(path: Path | str) -> None:
    """Creates the folder of `path` and checks, before the work is done, that the file could be written there.

    Raises:
        InputError: If it could not.
    """
    path = Path(path)
    with _named_after(path):
        if path.is_dir():  # an error, where the name is too long
            raise checks.problem("a file to write", f"the folder {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass  # nothing is left behind, whatever happens next


def written(name: str) -> str:
    r"""Returns a name as tables hold it: no UTF-8 and no line end but their escapes, `\udce9` and `\r`."""
    unwritable = {sign for sign in name if unicodedata.category(sign) in ("Cc", "Cs")}
    return "".join(sign.encode("unicode_escape").decode() if sign in unwritable else sign for sign in name)


def check_outside(path: Path | str, folder: Path | str, *, below: bool = True) -> None:
    """Checks that an output does not lie where pictures are searched: the next run would read it as one.

    They are searched in the folder and, if `below`, in all folders in it.

    Raises:
        InputError: If it does.
    """
    target, folder = Path(path).expanduser().resolve(), Path(folder).expanduser().resolve()
    if target.is_relative_to(folder) if below else target.parent == folder:
        remedy = "Choose another `output`: what lies there would be read as pictures by the next run."
        raise checks.problem(f"an output outside of {folder}, where pictures are searched", target, remedy)


def write_text(path: Path | str, text: str) -> Path:
    """Writes UTF-8 text atomically and returns the path; bytes of names that are none come out escaped."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return Path(path)


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Writes bytes atomically and returns the path."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_json(path: Path | str, content: Any) -> Path:
    """Writes JSON atomically, sorted and indented, and returns the path."""
    return write_text(path, json.dumps(content, indent=1, sort_keys=True, default=str) + "\n")


def read_json(path: Path | str) -> dict | None:
    """Reads a JSON object; a missing, damaged or foreign file is no record at all and gives None."""
    path = Path(path)
    try:
        # To open a pipe would wait for its other end.
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):  # the last: brackets within brackets, thousands deep
        return None
    return content if isinstance(content, dict) else None


def sha256(path: Path | str) -> str:
    """Returns a file's SHA-256 as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        digest = hashlib.sha256()
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


@contextlib.contextmanager
def alone(folder: Path | str, what: str) -> Iterator[None]:
    """Keeps other runs out of a folder, on this machine and on others that share its disk.

    The operating system holds the lock and drops it when its process ends, however that ends: a killed run
    leaves nothing to clean up. The file only tells others who it is. The folder is created; messages say what
    is to run alone ("kp2d reproduce --profile fast").

    Raises:
        InputError: If another run holds the lock, or the folder cannot be written.
    """
    path = Path(folder) / LOCK
    check_writable(path)
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _TAKEN:
                remedy = "Wait until it has finished, or stop it; what it has finished is then reused."
                raise checks.problem(f"no other {what}", _holder(path), remedy) from None
            # Some network file systems have no locks.
            log.warning("%s cannot be locked (%s): start no second run there.", folder, error)
        _sign(file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the name of a run that has ended misleads nobody
                file.truncate(0)


def _holder(path: Path) -> str:
    """Says who holds a lock, as "one by process 4711 on workstation, since 2026-01-31 12:00:00"."""
    owner = read_json(path) or {}
    known = all(key in owner for key in ("pid", "host", "since"))
    return "one by process {pid} on {host}, since {since}".format(**owner) if known else "one that runs"


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
