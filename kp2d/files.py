"""Owns how files are written and recognized: atomically, with a hash, with clear errors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kp2d import checks


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it takes `path`'s place, on error nothing is left.

    Args:
        path: The file to write; its folder is created.

    Raises:
        InputError: If the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
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
        reason = error.strerror or str(error)
        raise checks.problem(
            f"a writable place for {path}", reason, "Make room there, or choose another folder."
        ) from error


def check_writable(path: Path | str) -> None:
    """Creates the folder of `path` and checks, before the work is done, that the file could be written there.

    Raises:
        InputError: If it could not.
    """
    path = Path(path)
    if path.is_dir():
        raise checks.problem("a file to write", f"the folder {path}")
    with _named_after(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass  # nothing is left behind, whatever happens next


def write_text(path: Path | str, text: str) -> Path:
    """Writes UTF-8 text atomically and returns the path."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
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
