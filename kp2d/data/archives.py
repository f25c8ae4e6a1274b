"""Owns unpacking of zip and tar archives, so that no entry leaves the folder or fills the disk."""

from __future__ import annotations

import contextlib
import errno
import functools
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from kp2d import checks

CHUNK = 1 << 20  # bytes
# Unpacked bytes an archive byte: photographs hardly shrink, so more is an attack or damage.
MAX_RATIO = 20

# What the readers of archives raise on damage, and the numbers of an OSError that stand for it: gzip gives
# none; the others come from wrong offsets, and from names that no file can have.
_FAILURES = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, struct.error),
    *(EOFError, RuntimeError, ValueError, OverflowError),
)
_DAMAGES = {None, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}


class DiskSpaceError(checks.InputError):
    """Too little free space for what will be written; found before writing it. No other mirror helps."""


def check_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raises `DiskSpaceError` if the disk of an existing folder has no room for so many more bytes."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DiskSpaceError(
            f"expected {num_bytes / 1e9:.2f} GB of free space for {what}; received"
            f" {free / 1e9:.2f} GB in {folder}. Free some space or name another folder,"
            " then run the same again; what has arrived is kept."
        )


def unpack(archive: Path, target: Path, *, progress: bool = True) -> int:
    """Writes the files of a zip or tar (also compressed) below a folder.

    Args:
        archive: The file; its content decides the format.
        target: An existing, empty folder.
        progress: Whether to show a progress bar.

    Returns:
        The number of files.

    Raises:
        InputError: If the archive is damaged, an entry would leave the folder or is a link or a
            device, or more is unpacked than the disk or `MAX_RATIO` allows.
        OSError: If writing fails.
    """
    try:
        num_files = _write_entries(archive, target, progress)
    except FileExistsError as error:
        raise _unsafe(archive, f"two entries for {Path(error.filename).name}") from None
    except checks.InputError:
        raise
    except OSError as error:
        if error.errno in _DAMAGES:
            raise _damaged(archive, error) from error
        raise
    except _FAILURES as error:
        raise _damaged(archive, error) from error
    if not num_files:
        raise _damaged(archive, "no files in it")
    return num_files


def _write_entries(archive: Path, target: Path, progress: bool) -> int:
    """Writes every entry of an archive and returns the number of files; arguments as `unpack`."""
    limit = max(MAX_RATIO * archive.stat().st_size, CHUNK)
    num_files = num_bytes = 0
    with contextlib.closing(_entries(archive)) as entries:
        for name, size, open_entry in tqdm(entries, desc="unpacking", unit="file", disable=not progress):
            if name.startswith("__MACOSX/"):  # what a Mac adds to a zip
                continue
            path = _safe_path(target, name, archive)
            if open_entry is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            if num_bytes + size > limit:  # a reader gives no more than the size that the entry states
                raise _unsafe(archive, f"more than {limit} unpacked bytes")
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_entry() as content, path.open("xb") as file:
                shutil.copyfileobj(content, file, CHUNK)
                num_bytes += file.tell()
            num_files += 1
    return num_files


def _entries(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]] | None]]:
    """Yields name, bytes and opener of every entry, no opener for a folder; links and devices are refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            needed = sum(info.file_size for info in file.infolist())
            check_space(archive.parent, needed, f"unpacking {archive.name}")
            for info in file.infolist():
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _unsafe(archive, f"the link or device {info.filename!r}")
                opener = None if info.is_dir() else functools.partial(file.open, info)
                # The original name: `filename` is already cut at a NUL character.
                yield info.orig_filename, info.file_size, opener
        return
    with tarfile.open(archive) as file:
        for entry in file:
            if not (entry.isfile() or entry.isdir()):
                raise _unsafe(archive, f"the link or device {entry.name!r}")
            opener = None if entry.isdir() else functools.partial(file.extractfile, entry)
            yield entry.name, entry.size, opener


def _safe_path(target: Path, name: str, archive: Path) -> Path:
    """Returns where an entry goes, below `target`."""
    # Backslashes and colons are separators and drives on Windows, and in no name of these data sets.
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or re.search(r"[\\:\0]", name):
        raise _unsafe(archive, f"the entry {name!r}, which would leave the folder")
    return target / pure


def _unsafe(archive: Path, what: str) -> checks.InputError:
    remedy = "Do not use this archive; name another mirror by its url."
    return checks.problem(f"a safe archive {archive}", what, remedy)


def _damaged(archive: Path, reason: object) -> checks.InputError:
    remedy = f"Remove {archive.name} and download again."
    return checks.problem(f"a complete zip or tar file {archive}", reason, remedy)
