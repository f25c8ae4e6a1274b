"""Owns unpacking of zip and tar archives, so that no entry leaves the folder or fills the disk."""

from __future__ import annotations

import contextlib
import dataclasses
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


class DiskSpaceError(OSError):
    """Too little free space for what will be written; found before writing it."""


def check_space(folder: Path, num_bytes: int, what: str) -> None:
    """Checks that the disk of a folder has free space.

    Args:
        folder: An existing folder.
        num_bytes: Bytes that will be written.
        what: What they are, for the message.

    Raises:
        DiskSpaceError: If there is less.
    """
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
        DiskSpaceError: If a zip says that it needs more than there is.
        OSError: If writing fails.
    """
    limit = max(MAX_RATIO * archive.stat().st_size, CHUNK)
    count = written = 0
    try:
        with contextlib.closing(_members(archive)) as members:
            for member in tqdm(members, desc="unpacking", unit="file", disable=not progress):
                if member.name.startswith("__MACOSX/"):  # what a Mac adds to a zip
                    continue
                path = _safe_path(target, member.name, archive)
                if member.is_folder:
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, path.open("xb") as file:
                    while chunk := source.read(CHUNK):
                        written += len(chunk)
                        if written > limit:
                            raise _unsafe(archive, f"more than {limit} unpacked bytes")
                        file.write(chunk)
                count += 1
    except FileExistsError as error:
        raise _unsafe(archive, f"two entries for {Path(error.filename).name}") from None
    except (checks.InputError, DiskSpaceError):
        raise
    except OSError as error:
        if error.errno in _DAMAGES:
            raise _damaged(archive, error) from error
        raise
    except _FAILURES as error:
        raise _damaged(archive, error) from error
    if not count:
        raise _damaged(archive, "no files in it")
    return count


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Member:
    """One entry of an archive: its name, whether it is a folder, and a way to open it."""

    name: str
    is_folder: bool
    open: Callable[[], IO[bytes]]


def _members(archive: Path) -> Iterator[_Member]:
    """Yields the entries of a zip or tar; links and devices are refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            needed = sum(info.file_size for info in file.infolist())
            check_space(archive.parent, needed, f"unpacking {archive.name}")
            for info in file.infolist():
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _unsafe(archive, f"the link or device {info.filename!r}")
                # The original name: `filename` is already cut at a NUL character.
                name, opener = info.orig_filename, functools.partial(file.open, info)
                yield _Member(name=name, is_folder=info.is_dir(), open=opener)
        return
    with tarfile.open(archive) as file:
        for entry in file:
            if not (entry.isfile() or entry.isdir()):
                raise _unsafe(archive, f"the link or device {entry.name!r}")
            opener = functools.partial(file.extractfile, entry)
            yield _Member(name=entry.name, is_folder=entry.isdir(), open=opener)


def _safe_path(target: Path, name: str, archive: Path) -> Path:
    """Returns where an entry goes, below `target`."""
    # Backslashes and colons are separators and drives on Windows, and in no name of these data
    # sets.
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
