"""Owns the download of HPatches and COCO: mirrors, hashes, transfers that go on where they were cut off."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from kp2d import checks, files, paths
from kp2d.data import archives

log = logging.getLogger(__name__)

RECORD = "download.json"  # in the unpacked folder: a folder with it is complete
CHUNK = 1 << 20  # bytes; a cut-off loses at most one chunk
TIMEOUT = 60  # seconds without a byte
PAUSE = 2.0  # seconds before a cut-off transfer goes on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirror:
    """One address of an archive."""

    url: str  # address of a zip or tar file (also tar.gz)
    # hash of the archive; None means that the hash of the first download is recorded and used
    sha256: str | None = None

    @property
    def archive(self) -> str:
        """The file name of the archive."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


def _coco(archive: str, sha256: str) -> tuple[Mirror, ...]:
    """Returns both official addresses; hashes are those of TensorFlow Datasets, url_checksums/coco.txt."""
    hosts = ("http://images.cocodataset.org", "https://s3.amazonaws.com/images.cocodataset.org")
    return tuple(Mirror(url=f"{host}/zips/{archive}", sha256=sha256) for host in hosts)


# HPatches: the zip is the official one (README of hpatches/hpatches-dataset); the former server answers
# rarely and no hash of its tar.gz is published.
MIRRORS = {
    "hpatches": (
        Mirror(
            url="https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/hpatches-sequences-release.zip",
            sha256="99cf7e1ca167896eb4ca2fe3d903beff6566243a3c0c8e07a13a2596648ad670",
        ),
        Mirror(url="http://icvl.ee.ic.ac.uk/vbalnt/hpatches/hpatches-sequences-release.tar.gz"),
    ),
    "coco": _coco("train2017.zip", "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
    "coco-val": _coco("val2017.zip", "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
}


def download(
    name: str,
    folder: str | os.PathLike | None = None,
    *,
    url: str | Iterable[str] | None = None,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Downloads and unpacks a data set; what is already complete is reused.

    A cut-off transfer stays as `*.part` and goes on from there the next time. The mirrors are tried
    in turn. The archive is removed once it is unpacked.

    Args:
        name: "hpatches" (1.3 GB), "coco" (train2017, 19 GB) or "coco-val" (val2017, 0.8 GB).
        folder: Where to put it; None means the folder where `datasets.resolve` looks.
        url: One or several addresses to use instead of the known ones, in that order.
        sha256: Hash that the archive must have, instead of the known one.
        progress: Whether to show progress bars.

    Returns:
        The folder that holds the unpacked data set.

    Raises:
        InputError: If the name is unknown, no mirror gives a complete archive with the right hash,
            the disk is too small, or the archive is damaged or unsafe; the message names the
            address and what to do.
    """
    mirrors = _mirrors(checks.one_of("data set", name, MIRRORS), url, sha256)
    folder = Path(folder).expanduser() if folder is not None else paths.data() / name
    for record in sorted(folder.glob(f"*/{RECORD}")):
        if (files.read_json(record) or {}).get("name") == name:
            log.info("Reusing %s: %s was downloaded before.", record.parent, name)
            return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mirror, archive, digest = _first_complete(mirrors, folder, progress)
        record = {"name": name, "url": mirror.url, "sha256": digest}
        content = _unpack_whole(archive, folder, record, progress)
    except OSError as error:
        raise _disk_problem(error, folder) from error
    if mirror.sha256 is None:
        # Only now: a damaged archive must not become the measure of the next one.
        trusted = _beside(archive, ".sha256.json")
        files.write_json(trusted, (files.read_json(trusted) or {}) | {mirror.url: digest})
    archive.unlink(missing_ok=True)
    _beside(archive, ".json").unlink(missing_ok=True)
    log.info("Unpacked %s to %s.", archive.name, content)
    return folder


def _mirrors(name: str, url: str | Iterable[str] | None, sha256: str | None) -> list[Mirror]:
    """Returns the mirrors to try: the known ones, or those the caller names."""
    if sha256 is not None:
        sha256 = sha256.lower()
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise checks.problem("a sha256 of 64 hexadecimal digits", repr(sha256))
    if url is None:
        return [dataclasses.replace(mirror, sha256=sha256 or mirror.sha256) for mirror in MIRRORS[name]]
    urls = [url] if isinstance(url, str) else list(url)
    for address in urls:
        if urlsplit(address).scheme not in ("http", "https") or not Mirror(url=address).archive:
            raise checks.problem("an http(s) address of an archive", repr(address))
    if not urls:
        raise checks.problem("at least one address", "none")
    return [Mirror(url=address, sha256=sha256) for address in urls]


def _first_complete(mirrors: list[Mirror], folder: Path, progress: bool) -> tuple[Mirror, Path, str]:
    """Returns the first mirror with a complete and verified archive, that file and its hash."""
    reasons = []
    # A mirror that has already sent something goes first: its transfer can be resumed.
    for mirror in sorted(mirrors, key=lambda mirror: _origin(folder / mirror.archive)[0] != mirror.url):
        archive = folder / mirror.archive
        try:
            if not archive.exists():
                _fetch(mirror, archive, progress)
            return mirror, archive, _verify(mirror, archive)
        except archives.DiskSpaceError:
            raise
        except (checks.InputError, requests.RequestException) as error:
            reasons.append(f"{mirror.url}: {_reason(error)}")
            log.warning("Mirror failed: %s", reasons[-1])
    remedy = "Check the connection, or name another mirror by its url."
    kept = sorted(path.name for path in folder.glob("*.part") if path.stat().st_size)
    if kept:
        remedy += f" What has arrived is kept ({', '.join(kept)} in {folder}); run the same again to go on."
    received = "; ".join(reasons).rstrip(".")
    raise checks.problem("a complete archive from at least one mirror", received, remedy)


def _verify(mirror: Mirror, archive: Path) -> str:
    """Returns the archive's sha256; an archive with another one than expected is removed."""
    log.info("Computing the sha256 of %s.", archive.name)
    digest = files.sha256(archive)
    # Hashes recorded on first use, by address; the file outlives the archive.
    trusted = files.read_json(_beside(archive, ".sha256.json")) or {}
    expected = mirror.sha256 or trusted.get(mirror.url)
    if expected is None:
        log.warning("No hash of %s is known; %s is recorded on first use.", mirror.url, digest)
    elif digest != expected:
        archive.unlink()
        raise checks.problem(
            f"an archive with sha256 {expected}",
            f"{digest} from {mirror.url}",
            "The archive was removed; download again, or give the right hash by sha256.",
        )
    return digest


def _beside(archive: Path, suffix: str) -> Path:
    """Returns a file that accompanies an archive: `.part`, `.json` (its origin) or `.sha256.json`."""
    return archive.with_name(archive.name + suffix)


def _origin(archive: Path) -> tuple[str | None, str | None]:
    """Returns the address an archive or its part comes from, and the server's validator of that file."""
    card = files.read_json(_beside(archive, ".json")) or {}
    return card.get("url"), card.get("validator")


def _fetch(mirror: Mirror, archive: Path, progress: bool) -> None:
    """Transfers an archive to `*.part`, goes on after cut-offs while bytes arrive, and renames it.

    Raises:
        requests.RequestException: If the server refuses, or the transfer gets no further; the part is kept.
        DiskSpaceError: If the disk is too small.
        OSError: If writing fails.
    """
    part = _beside(archive, ".part")
    part.touch()
    while True:
        before = part.stat().st_size
        try:
            _receive(mirror, archive, part, progress)
            break
        except requests.RequestException as error:
            size = part.stat().st_size
            # A part that was dropped is begun anew once; else each try must get further than the one before.
            if size <= before and not (before and size == 0):
                raise
            log.warning("Cut off after %d bytes (%s); going on.", size, _reason(error))
            time.sleep(PAUSE)
    part.replace(archive)


def _receive(mirror: Mirror, archive: Path, part: Path, progress: bool) -> None:
    """Makes one request for what is missing of a part, and appends what comes; arguments as `_fetch`."""
    kept = part.stat().st_size
    url, validator = _origin(archive)
    headers = {"Accept-Encoding": "identity"}
    # Only the same file is gone on with: its hash must be known, or the server say whether it has changed.
    if kept and url == mirror.url and (validator or mirror.sha256):
        headers |= {"Range": f"bytes={kept}-"} | ({"If-Range": validator} if validator else {})
    with requests.get(mirror.url, headers=headers, timeout=TIMEOUT, stream=True) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range") == f"bytes */{kept}":
                return  # it was complete: a kill came before the renaming
            os.truncate(part, 0)
            raise requests.ConnectionError("the kept part did not fit; it was dropped")
        response.raise_for_status()
        if response.status_code == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {kept}-"):
                raise requests.ConnectionError("the server sent another range than was asked for")
            log.info("Going on with %s at byte %d.", part.name, kept)
        else:
            if kept:
                log.info("Beginning %s anew: the server resumes nothing, or has another file.", part)
            os.truncate(part, 0)
            kept = 0
            card = {"url": mirror.url, "validator": _validator(response)}
            files.write_json(_beside(archive, ".json"), card)
        length = int(response.headers.get("Content-Length", 0))
        total = kept + length if length else None
        # Photographs unpack to about their archive's size; unpacking checks the exact need.
        archives.check_space(part.parent, kept + 2 * length, mirror.url)
        options = {"unit": "B", "unit_scale": True, "desc": archive.name, "disable": not progress}
        with part.open("ab") as file, tqdm(total=total, initial=kept, **options) as bar:
            for chunk in response.iter_content(CHUNK):
                bar.update(file.write(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        if size > total:
            os.truncate(part, 0)
        raise requests.ConnectionError(f"{size} of {total} bytes arrived")


def _validator(response: requests.Response) -> str | None:
    """Returns what identifies the server's file in `If-Range`: a strong ETag, else its date."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    """Returns what an error of ours says, of others the first line without the layers around it."""
    if isinstance(error, checks.InputError):
        return str(error)
    while reason := getattr(error.args[0] if error.args else None, "reason", None):
        error = reason
    text = checks.first_line(error)
    return "this host has no known address" if "Failed to resolve" in text else text


def _disk_problem(error: OSError, folder: Path) -> checks.InputError:
    """Returns the user's error for a failure of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return checks.problem(
            f"free space in {folder}",
            "a full disk",
            "Free some space, then run the same again; what has arrived is kept.",
        )
    reason = f"{folder} ({error.strerror or error})"
    return checks.problem(
        "a folder that can be written", reason, "Name another by `folder`, or by KP2D_HOME for all data."
    )


def _unpack_whole(archive: Path, folder: Path, record: dict, progress: bool) -> Path:
    """Unpacks beside the target and renames, so that a folder with a record is complete."""
    temporary = folder / f".{archive.name}.unpacking"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        num_files = archives.unpack(archive, temporary, progress=progress)
        inner = list(temporary.iterdir())
        single = len(inner) == 1 and inner[0].is_dir()
        content = inner[0] if single else temporary
        target = folder / (content.name if single else archive.name.split(".")[0])
        if target.exists():
            raise checks.problem(
                f"no folder {target} before unpacking",
                "one without a record of a download",
                "Use it as it is by its path, move it away, or download to another folder.",
            )
        files.write_json(content / RECORD, record | {"num_files": num_files})
        content.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
