"""Owns the download of HPatches and COCO: which mirrors, which hashes, where they go."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pooch
import requests

from kp2d import checks, files, paths
from kp2d.data import archives, transfer

log = logging.getLogger(__name__)

RECORD = "download.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One place of an archive.

    Attributes:
        url: Address of a zip or tar file (also tar.gz).
        sha256: Hash of the archive; None means that the hash of the first download is recorded and
            used.
        num_bytes: Size of the archive if known.
    """

    url: str
    sha256: str | None = None
    num_bytes: int | None = None

    @property
    def archive(self) -> str:
        """The file name of the archive."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


# The zip is the official place (README of hpatches/hpatches-dataset); the former server answers
# rarely and no hash of its tar.gz is published. COCO's hashes: url_checksums/coco.txt of TensorFlow
# Datasets.
SOURCES = {
    "hpatches": (
        Source(
            url="https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/hpatches-sequences-release.zip",
            sha256="99cf7e1ca167896eb4ca2fe3d903beff6566243a3c0c8e07a13a2596648ad670",
            num_bytes=1_279_545_572,
        ),
        Source(url="http://icvl.ee.ic.ac.uk/vbalnt/hpatches/hpatches-sequences-release.tar.gz"),
    ),
    "coco": (
        Source(
            url="http://images.cocodataset.org/zips/train2017.zip",
            sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            num_bytes=19_336_861_798,
        ),
        Source(
            url="https://s3.amazonaws.com/images.cocodataset.org/zips/train2017.zip",
            sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            num_bytes=19_336_861_798,
        ),
    ),
    "coco-val": (
        Source(
            url="http://images.cocodataset.org/zips/val2017.zip",
            sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            num_bytes=815_585_330,
        ),
        Source(
            url="https://s3.amazonaws.com/images.cocodataset.org/zips/val2017.zip",
            sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            num_bytes=815_585_330,
        ),
    ),
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
    sources = _sources(checks.one_of("data set", name, SOURCES), url, sha256)
    folder = Path(folder).expanduser() if folder is not None else paths.data() / name
    existing = _existing(folder, name)
    if existing:
        log.info("Reusing %s: %s was downloaded before.", existing, name)
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        source, archive, digest = _first_complete(sources, folder, progress)
        record = {"name": name, "url": source.url, "sha256": digest}
        content = _unpack_whole(archive, folder, record, progress)
    except OSError as error:
        raise _disk_problem(error, folder) from error
    if source.sha256 is None:
        # Only now: a damaged archive must not become the measure of the next one.
        trust = _trust(archive)
        files.write_json(trust, (files.read_json(trust) or {}) | {source.url: digest})
    archive.unlink(missing_ok=True)
    transfer.card_path(archive).unlink(missing_ok=True)
    log.info("Unpacked %s to %s.", archive.name, content)
    return folder


def _sources(name: str, url: str | Iterable[str] | None, sha256: str | None) -> list[Source]:
    """Returns the sources to try: the known ones, or those the caller names."""
    if sha256 is not None:
        sha256 = sha256.lower()
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise checks.problem("a sha256 of 64 hexadecimal digits", repr(sha256))
    if url is None:
        return [dataclasses.replace(s, sha256=sha256 or s.sha256) for s in SOURCES[name]]
    urls = [url] if isinstance(url, str) else list(url)
    for address in urls:
        if urlsplit(address).scheme not in ("http", "https") or not Source(url=address).archive:
            raise checks.problem("an http(s) address of an archive", repr(address))
    if not urls:
        raise checks.problem("at least one address", "none")
    return [Source(url=address, sha256=sha256) for address in urls]


def _existing(folder: Path, name: str) -> Path | None:
    """Returns the unpacked content of an earlier download; its record came with the same rename."""
    for path in sorted(folder.glob(f"*/{RECORD}")):
        if (files.read_json(path) or {}).get("name") == name:
            return path.parent
    return None


def _first_complete(sources: list[Source], folder: Path, progress: bool) -> tuple[Source, Path, str]:
    """Returns the first source with a complete and verified archive, that file and its hash."""
    reasons = []
    # A mirror that has already sent something goes first: its transfer can be resumed.
    for source in sorted(sources, key=lambda s: transfer.origin(folder / s.archive).get("url") != s.url):
        archive = folder / source.archive
        try:
            if not archive.exists():
                transfer.fetch(
                    source.url,
                    archive,
                    sure=source.sha256 is not None,
                    num_bytes=source.num_bytes or 0,
                    progress=progress,
                )
            return source, archive, _verify(source, archive)
        except (checks.InputError, requests.RequestException) as error:
            reasons.append(f"{source.url}: {transfer.first_line(error)}")
            log.warning("Mirror failed: %s", reasons[-1])
    kept = sorted(path.name for path in folder.glob("*.part") if path.stat().st_size)
    keep = (
        f" What has arrived is kept ({', '.join(kept)} in {folder}); run the same again to go on."
        if kept
        else ""
    )
    raise checks.problem(
        "a complete archive from at least one mirror",
        "; ".join(reasons).rstrip("."),
        f"Check the connection, or name another mirror by its url.{keep}",
    )


def _trust(archive: Path) -> Path:
    """Returns the file of hashes recorded on first use, by address; it outlives the archive."""
    return archive.with_name(archive.name + ".sha256.json")


def _verify(source: Source, archive: Path) -> str:
    """Returns the archive's sha256; an archive with another one than expected is removed."""
    log.info("Computing the sha256 of %s.", archive.name)
    digest = pooch.file_hash(str(archive), alg="sha256")
    recorded = files.read_json(_trust(archive)) or {}
    expected = source.sha256 or recorded.get(source.url)
    if expected is None:
        log.warning("No hash of %s is known; %s is recorded on first use.", source.url, digest)
    elif digest != expected:
        archive.unlink()
        raise checks.problem(
            f"an archive with sha256 {expected}",
            f"{digest} from {source.url}",
            "The archive was removed; download again, or give the right hash by sha256.",
        )
    return digest


def _unpack_whole(archive: Path, folder: Path, record: dict, progress: bool) -> Path:
    """Unpacks beside the target and renames, so that a folder with a record is complete."""
    temporary = folder / f".{archive.name}.unpacking"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        count = archives.unpack(archive, temporary, progress=progress)
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
        files.write_json(content / RECORD, record | {"num_files": count})
        content.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _disk_problem(error: OSError, folder: Path) -> checks.InputError:
    """Returns the user's error for a failure of the file system."""
    if isinstance(error, archives.DiskSpaceError):
        return checks.InputError(str(error))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return checks.problem(
            f"free space in {folder}",
            "a full disk",
            "Free some space, then run the same again; what has arrived is kept.",
        )
    reason = f"{folder} ({error.strerror or error})"
    return checks.problem("a folder that can be written", reason, "Name another folder.")
