"""Owns one transfer over HTTP: an archive arrives whole, and what a cut-off has left is used."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm

from kp2d import checks, files
from kp2d.data import archives

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes; a cut-off loses at most one chunk
TIMEOUT = 60  # seconds without a byte
PAUSE = 2.0  # seconds before a cut-off transfer goes on


def fetch(url: str, archive: Path, *, sure: bool, num_bytes: int = 0, progress: bool = True) -> None:
    """Transfers an archive to `*.part`, goes on after cut-offs while bytes arrive, and renames it.

    Args:
        url: Its http(s) address.
        archive: Where it goes; the folder exists.
        sure: Whether the hash is known, so that a part may be continued even where the server does
            not say which version of the file it has.
        num_bytes: Size of the archive if known, else 0.
        progress: Whether to show a progress bar.

    Raises:
        requests.RequestException: If the server refuses, or the transfer gets no further;
            the part is kept.
        DiskSpaceError: If the disk is too small.
        OSError: If writing fails.
    """
    part = archive.with_name(archive.name + ".part")
    while True:
        before = part.stat().st_size if part.exists() else 0
        transfer = _Transfer(url, part, sure=sure, num_bytes=num_bytes, progress=progress)
        try:
            transfer.run()
            break
        except requests.HTTPError:
            raise
        except requests.RequestException as error:
            size = part.stat().st_size if part.exists() else 0
            # A part that was dropped is begun anew once; else each try must get further than the
            # one before.
            if size <= before and not (before and size == 0):
                raise
            log.warning("Cut off after %d bytes (%s); going on.", size, first_line(error))
            time.sleep(PAUSE)
    part.replace(archive)


def card_path(archive: Path) -> Path:
    """Returns the file that says where an archive, or its part, comes from."""
    return archive.with_name(archive.name + ".json")


def origin(archive: Path) -> dict:
    """Returns the address and validator of an archive or its part; empty if unknown."""
    return files.read_json(card_path(archive)) or {}


class _Transfer:
    """One HTTP request into a part file, through pooch; resumed only if the file is the same."""

    def __init__(self, url: str, part: Path, *, sure: bool, num_bytes: int, progress: bool):
        self.url = url
        self.part = part
        self.sure = sure
        self.num_bytes = num_bytes
        self.archive = part.with_suffix("")
        self.progress = progress
        self.total: int | None = None
        self.bar: Any = None
        self.file: Any = None
        self.response: Any = None

    def run(self) -> None:
        """Raises RequestException (also if bytes are missing) or OSError (also if space is)."""
        downloader = pooch.HTTPDownloader(
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers={"Accept-Encoding": "identity"} | self._range(),
            hooks={"response": self._on_response},
        )
        self.bar = tqdm(unit="B", unit_scale=True, desc=self.archive.name, disable=not self.progress)
        with self.part.open("ab") as self.file, contextlib.closing(self.bar):
            try:
                downloader(self.url, self, None)
            except requests.HTTPError as error:
                self._on_unsatisfied_range(error)
            finally:
                if self.response is not None:
                    self.response.close()  # pooch leaves the connection open when a transfer breaks
        size = self.part.stat().st_size
        if self.total is not None and size != self.total:
            if size > self.total:
                self.part.unlink()
            raise requests.ConnectionError(f"{size} of {self.total} bytes arrived")

    def _on_unsatisfied_range(self, error: requests.HTTPError) -> None:
        """Accepts a part that was complete (a kill came before the renaming); drops any other."""
        if error.response is None or error.response.status_code != 416:
            raise error
        if error.response.headers.get("Content-Range") == f"bytes */{self.file.tell()}":
            return
        self.file.truncate(0)
        raise requests.ConnectionError("the kept part did not fit; it was dropped") from error

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes; `write` and `flush` make this object a file to pooch."""
        self.file.write(chunk)
        self.bar.update(len(chunk))

    def flush(self) -> None:
        """Hands the bytes on to the system."""
        self.file.flush()

    def _range(self) -> dict[str, str]:
        """Returns the headers that ask for the rest, if it is certain that the rest will fit."""
        size = self.part.stat().st_size if self.part.exists() else 0
        card = origin(self.archive)
        same = card.get("url") == self.url
        validator = card.get("validator")
        if not size or not same or not (validator or self.sure):
            return {}
        return {"Range": f"bytes={size}-"} | ({"If-Range": validator} if validator else {})

    def _on_response(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Looks at the answer before any byte is written; redirects and errors pass."""
        self.response = response
        if response.status_code not in (200, 206):
            return
        length = response.headers.get("Content-Length")
        kept = self.file.tell()
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not span or int(span[1]) != kept:
                raise requests.ConnectionError("the server sent another range than was asked for")
            self.total = int(span[2]) if span[2] != "*" else kept + int(length) if length else None
            log.info("Going on with %s at byte %d.", self.part.name, kept)
        else:
            if kept:
                log.info(
                    "Beginning %s anew: the server resumes no transfers, or has another file.",
                    self.part,
                )
            self.file.truncate(0)
            kept = 0
            self.total = int(length) if length else None
            files.write_json(card_path(self.archive), {"url": self.url, "validator": _validator(response)})
        self.bar.total = self.total
        self.bar.update(kept)
        # Photographs unpack to about their archive's size; unpacking checks the exact need.
        total = self.total or self.num_bytes
        archives.check_space(self.part.parent, 2 * total - kept, self.url)


def _validator(response: requests.Response) -> str | None:
    """Returns what identifies the server's file in `If-Range`: a strong ETag, else its date."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, without the layers around it; else its type."""
    while reason := getattr(error.args[0] if error.args else None, "reason", None):
        error = reason
    text = checks.first_line(error)
    return "this host has no known address" if "Failed to resolve" in text else text
