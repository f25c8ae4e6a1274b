"""Owns what a data set is: sequences in the layout of HPatches, and folders of images."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kp2d import checks, files, geometry, images, paths, picture_files

log = logging.getLogger(__name__)

LAYOUT = (
    "one folder a sequence, named v_NAME (viewpoint) or i_NAME (illumination), each with the images"
    " 1.png, 2.png, ... (also ppm, pgm, jpg, tif, bmp, webp) and the text files H_1_2, H_1_3, ..."
    " (3x3 numbers, pixels of image 1 to pixels of image k)"
)
HPATCHES = {"viewpoint": 59, "illumination": 57}  # sequences of the full release, five pairs each
MAX_HOMOGRAPHY = 1 << 16  # bytes of its text file
SUBSETS = {"v": "viewpoint", "i": "illumination"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePair:
    """Image 1 of a sequence, another image of it, and the homography between them."""

    sequence: str  # name of the sequence (its folder)
    subset: str  # "viewpoint", "illumination", or the sequence's own prefix
    index: int  # the k of `H_1_k` and of image k
    path0: Path  # image 1
    path1: Path  # image k
    homography_path: Path  # text file of the homography 0 -> 1

    @property
    def name(self) -> str:
        """The pair's short name, "v_graf 1-3"."""
        return f"{self.sequence} 1-{self.index}"

    def homography(self) -> np.ndarray:
        """Returns the homography 0 -> 1 in pixels of the files as stored, float64 `[3, 3]`.

        Raises:
            InputError: As `read_homography`.
        """
        return read_homography(self.homography_path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a part of a sequence cannot be used; the rest can."""

    sequence: str  # name of the sequence
    what: str  # what is wrong, with the path
    remedy: str  # what to do

    def __str__(self) -> str:
        return f"{self.sequence}: {self.what} {self.remedy}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence:
    """One scene: its usable pairs in order of k, and what could not be used."""

    name: str  # name of the folder
    subset: str  # "viewpoint", "illumination", or the name's own prefix
    pairs: tuple[ImagePair, ...]  # usable pairs; may be empty when there are problems
    problems: tuple[Problem, ...] = ()  # what was left out and why
    images: tuple[Path, ...] = ()  # all images of the folder in order of their number
    root: Path | None = None  # folder of the data set that it belongs to; None if it was not read from one


def load_sequences(root: str | os.PathLike) -> list[Sequence]:
    """Finds the sequences in a folder with the layout of HPatches; reads homographies but no image.

    The folder holds the sequences, or only the folder that does. They are sorted by name; what cannot be used
    is recorded in `Sequence.problems`.

    Raises:
        InputError: If the folder is missing, is a file, is empty, or has no usable pair.
    """
    root = existing_folder(root, f"a data set is {LAYOUT}.")
    folders = subfolders(root)
    if len(folders) == 1 and not is_sequence(folders[0]):
        folders = subfolders(folders[0])
    sequences = [_load_sequence(folder) for folder in folders if is_sequence(folder)]
    if any(sequence.pairs for sequence in sequences):
        _tell_left_out(folders, sequences)
        return sequences
    if is_sequence(root):
        raise checks.problem("a folder of sequences", f"the sequence {root}", "Name the folder above it.")
    problems = [str(problem) for sequence in sequences for problem in sequence.problems]
    received = "; ".join(problems[:3]) if problems else f"{len(folders)} folders, none of them a sequence"
    raise checks.problem(f"at least one image pair in {root}", received.rstrip("."), f"Make it {LAYOUT}.")


def read_homography(path: str | os.PathLike) -> np.ndarray:
    """Reads float64 `[3, 3]` from a text file of nine numbers, as stored (not normalized).

    The text is as for `kp2d.geometry.parse_homography`; what is assumed to read it is noted in the log.

    Raises:
        InputError: If the file is missing or unreadable, has other than nine numbers, or the matrix
            is not finite or has no inverse; the message names the path.
    """
    path = Path(path)
    remedy = "Write three rows of three numbers."
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_HOMOGRAPHY):
            raise checks.problem("a small text file of a homography", str(path), remedy)  # nor a pipe
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise checks.problem("a readable homography file", f"{path} ({reason})", remedy) from error
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell redirects
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        kind = picture_files.kind(content)[0] or "a binary file"
        raise checks.problem("a homography as text", f"{path}, {kind}", remedy) from None
    try:
        homography, assumed = geometry.parse_homography(text)
    except checks.InputError as error:
        raise checks.problem(error.expected, f"{error.received} in {path}", error.remedy) from None
    if assumed:
        checks.assumed(f"{assumed} in {path}")
    return homography


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Lists the pictures in a folder, as `kp2d.images.find_pictures`.

    Raises:
        InputError: If the folder is missing, is a file, or holds no picture.
    """
    folder = existing_folder(folder, "Name a folder of pictures.")
    pictures = images.find_pictures(folder)
    if not pictures:
        raise checks.problem(f"pictures ({', '.join(images.SUFFIXES)})", f"none in {folder}")
    return pictures


def fingerprint(sequences: Iterable[Sequence]) -> str:
    """Returns a sha256 over names, sizes and bytes of all files that the pairs use, for cache keys.

    Where the data set lies does not count, only names below a sequence's folder and the bytes.

    Raises:
        InputError: If a file cannot be read.
    """
    paths_by_name = {}
    for sequence in sequences:
        for pair in sequence.pairs:
            for path in (pair.path0, pair.path1, pair.homography_path):
                paths_by_name[f"{sequence.name}/{path.name}"] = path
    digest = hashlib.sha256()
    for name, path in sorted(paths_by_name.items()):
        digest.update(f"{name}\0{_file_digest(path)}\n".encode())
    return digest.hexdigest()


def label(sequences: Iterable[Sequence]) -> str:
    """Returns the name under which results on sequences, at least one of them with a pair, are reported.

    Results are called "hpatches" only if they are on the whole release, wherever it lies; anything else goes
    by the name of its folder, so that no number can pass for one on HPatches that is not.
    """
    sequences = list(sequences)
    if Counter(sequence.subset for sequence in sequences if len(sequence.pairs) == 5) == HPATCHES:
        return "hpatches"
    folder = next(pair.path0.parent.parent.name for sequence in sequences for pair in sequence.pairs)
    return files.written(f"{folder} (incomplete)" if folder.startswith("hpatches") else folder)


def describe(sequences: Iterable[Sequence]) -> list[dict]:
    """Returns one row a sequence, for a table.

    Columns: sequence, subset, num_images, num_pairs, height, width, num_problems, content. Height
    and width (px) are those of image 1, None where it cannot be read; `content` changes with any byte.
    """
    rows = []
    for sequence in sequences:
        height, width = _size_of_first(sequence)
        rows.append(
            {
                "sequence": sequence.name,
                "subset": sequence.subset,
                "num_images": len(sequence.images),
                "num_pairs": len(sequence.pairs),
                "height": height,
                "width": width,
                "num_problems": len(sequence.problems),
                "content": fingerprint([sequence])[:12],
            }
        )
    return rows


def resolve(name: str | os.PathLike, profile: str) -> Path:
    """Returns the folder of a data set.

    Args:
        name: "sample" (made by this project), "hpatches" (`VAL_PATH` if set), "coco" (`TRAIN_PATH`
            if set), or any folder; a `~` is expanded. `./sample` means a folder of that name.
        profile: The profile whose `sample` is meant.

    Returns:
        An existing folder.

    Raises:
        InputError: If the folder does not exist; the message names the command that makes it.
    """
    variable = {"hpatches": "VAL_PATH", "coco": "TRAIN_PATH"}.get(str(name))
    chosen = os.environ.get(variable) if variable else None
    if name == "sample":
        folder = paths.data(profile) / "sample"
        remedy = f"Run `kp2d prepare --profile {profile}` to make it."
    elif chosen:
        folder, remedy = Path(chosen).expanduser(), f"Correct or unset the variable {variable}."
    elif variable:
        folder = paths.data() / str(name)
        remedy = f"Run `kp2d download {name}`, or set {variable} to the folder where it lies."
    else:
        folder = Path(name).expanduser()
        remedy = "Name an existing folder, or one of: sample, hpatches, coco."
    return existing_folder(folder, remedy)


def existing_folder(folder: str | os.PathLike, remedy: str) -> Path:
    """Returns the folder as a path, or raises an error that ends with the remedy."""
    folder = Path(folder)
    if folder.is_dir():
        return folder
    received = f"the file {folder}" if folder.exists() else f"{folder}, which does not exist"
    raise checks.problem("a folder", received, remedy[:1].upper() + remedy[1:])


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders below, sorted, without hidden ones and what a Mac adds to a zip."""
    skipped = (".", "__MACOSX")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(skipped))


def _numbered_images(folder: Path) -> dict[int, list[Path]]:
    """Returns the files of each image number; more than one is for the caller to report."""
    numbered: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if re.fullmatch(r"[0-9]+", path.stem) and path.suffix.lower() in images.SUFFIXES and path.is_file():
            numbered.setdefault(int(path.stem), []).append(path)
    return dict(sorted(numbered.items()))


def _homography_files(folder: Path) -> dict[int, Path]:
    """Returns the homography file of each k: `H_1_k`, else `H_1_k.txt`, else `H1tokp` (Oxford)."""
    homographies: dict[int, Path] = {}
    for pattern in (r"H1to([0-9]+)p", r"H_1_([0-9]+)\.txt", r"H_1_([0-9]+)"):  # the last one wins
        for path in folder.iterdir():
            match = re.fullmatch(pattern, path.name)
            if match and path.is_file():
                homographies[int(match.group(1))] = path
    return homographies


def is_sequence(folder: Path) -> bool:
    """Tells whether a folder holds numbered images or homographies."""
    return bool(_numbered_images(folder) or _homography_files(folder))


def _subset_of(name: str) -> str:
    prefix, underscore, _ = name.partition("_")
    if not underscore or prefix in ("", "all"):  # "all" is the name of the average over every subset
        return "other"
    return SUBSETS.get(prefix, prefix)


def _load_sequence(folder: Path) -> Sequence:
    """Returns the sequence of one folder; everything that cannot be used becomes a `Problem`."""
    name = files.written(folder.name)  # what tables say of it is found by it again
    subset = _subset_of(name)
    numbered, homographies = _numbered_images(folder), _homography_files(folder)
    problems: list[Problem] = []

    def report(what: str, remedy: str) -> None:
        problems.append(Problem(sequence=name, what=what, remedy=remedy))

    for number, same in numbered.items():
        if len(same) > 1:
            names = " and ".join(path.name for path in same)
            report(f"{folder} has {names} for image {number}.", "Remove all but one.")
    unique = {number: same[0] for number, same in numbered.items() if len(same) == 1}
    pairs = []
    if 1 not in numbered:
        report(f"{folder} has no image 1.", "Add 1.png (or ppm, jpg, ...), the image that H_1_k starts from.")
    elif len(numbered) == 1:
        report(f"{folder} has a single image.", "Add 2.png and H_1_2.")
    elif 1 in unique:
        for number in sorted(unique.keys() - {1}):
            if number not in homographies:
                report(f"{folder} has image {number} but no H_1_{number}.", "Add it, or remove the image.")
                continue
            pair = ImagePair(
                sequence=name,
                subset=subset,
                index=number,
                path0=unique[1],
                path1=unique[number],
                homography_path=homographies[number],
            )
            try:
                pair.homography()
                pairs.append(pair)
            except checks.InputError as error:
                report(error.facts, error.remedy or "Correct the file.")
    for number in sorted(homographies.keys() - numbered.keys()):
        report(f"{homographies[number]} has no image {number}.", f"Add {number}.png, or remove the file.")
    return Sequence(
        name=name,
        subset=subset,
        pairs=tuple(pairs),
        problems=tuple(problems),
        images=tuple(path for same in numbered.values() for path in same),
        root=folder.parent,
    )


def _tell_left_out(folders: list[Path], sequences: list[Sequence]) -> None:
    """Logs folders that are no sequences, and pictures of sequences that no number names."""
    known = {sequence.name: sequence for sequence in sequences}
    by_folder = {folder: known.get(files.written(folder.name)) for folder in folders}
    if others := [files.written(path.name) for path, sequence in by_folder.items() if not sequence]:
        checks.left_out(f"folders without numbered pictures in {folders[0].parent}: {checks.some(others)}")
    for folder, sequence in by_folder.items():
        if sequence is None:
            continue
        pictures = images.find_pictures(folder, below=False)
        if strays := [path.name for path in pictures if path not in sequence.images]:
            checks.left_out(f"pictures whose names are no numbers in {folder}: {checks.some(strays)}")


def _size_of_first(sequence: Sequence) -> tuple[int | None, int | None]:
    """Returns (height, width) of image 1 in px, (None, None) where it cannot be read."""
    path = sequence.pairs[0].path0 if sequence.pairs else next(iter(sequence.images), None)
    if path is None:
        return None, None
    try:
        return images.read_image(path).shape[:2]
    except checks.InputError as error:
        log.warning("%s: %s", sequence.name, error)
        return None, None


def _file_digest(path: Path) -> str:
    """Returns "size sha256" of a file, read in pieces."""
    try:
        return f"{path.stat().st_size} {files.sha256(path)}"
    except OSError as error:
        raise checks.problem(
            "a readable file", f"{path} ({error.strerror})", "Check the data set."
        ) from error
