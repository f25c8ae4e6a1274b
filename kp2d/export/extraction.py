"""Owns the features of a folder of pictures: extracted once, resumed where a run ended, matched."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import checks, config, files, images, provenance
from kp2d.export import formats
from kp2d.methods import matching, registration
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Extractor

OVERLAP = 10  # pictures that follow by name, with which `sequential` pairs each (COLMAP's default)
RULES = ("exhaustive", "sequential")
ASKED = ("format", "image_size", "method", "precision", "top_k")  # settings by the names that users know
KEPT = 256  # pictures whose features stay in memory while pairs are matched

log = logging.getLogger(__name__)
Progress = Callable[[Iterable, int, str], Iterable]  # items, how many, what they are: the same items, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What an extraction came to."""

    written: tuple[Path, ...]  # the files; none if they were already what was asked for
    pictures: int  # number of pictures in them
    keypoints: int  # number of keypoints of all
    skipped: dict[str, str]  # why each picture that could not be used was left out, by name
    pairs: int = 0  # number of matched pairs
    matches: int = 0  # number of matches of all


def extract_picture(
    image: np.ndarray, extractor: Extractor, *, top_k: int = 1000, image_size: tuple[int, int] | None = None
) -> Features:
    """Finds the features of a picture, uint8 RGB `[H, W, 3]`, of any size, as `kp2d match` does.

    The method sees it at `image_size`, (height, width) px; None takes `registration.seen_size`. The best
    `top_k` are returned, in the picture's own pixels, best first.
    """
    view = registration.view_image(image, extractor, top_k=top_k, image_size=image_size)
    return registration.carried(view.features, view.back)


def find_pictures(folder: str | Path) -> list[str]:
    """Lists the pictures in a folder, as `kp2d.images` does: their paths below it, with "/", in order.

    Raises:
        InputError: If there is no such folder, or no picture in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        received = "which is no folder" if root.exists() else "which does not exist"
        raise checks.problem("a folder of pictures", f"{root}, {received}", "Check the name.")
    names = sorted(path.relative_to(root).as_posix() for path in images.find_pictures(root))
    if not names:
        raise checks.problem(f"pictures ({', '.join(images.SUFFIXES)})", f"none in {root}")
    return names


def pairs_of(rule: str, names: list[str]) -> list[tuple[str, str]]:
    """Lists the pairs to match, of the names of pictures, in order: different ones, each once.

    The rule is one out of `RULES`, or the path of a text with two names a line, as hloc has it; with a tab
    between names that have spaces.

    Raises:
        InputError: If there is no such rule or text, or it names a picture that is not there.
    """
    if rule == "exhaustive":
        return list(itertools.combinations(names, 2))
    if rule == "sequential":
        return [(name, next_) for i, name in enumerate(names) for next_ in names[i + 1 : i + 1 + OVERLAP]]
    path = Path(rule).expanduser()
    if not path.is_file():
        expected = f"{', '.join(RULES)}, or a text file with two names a line"
        raise checks.problem(expected, f"{rule!r}, which is no file", "Check the name.")
    known, pairs = set(names), {}
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")  # as names of files are
    for number, line in enumerate(text.splitlines(), 1):
        pair = line.strip().split("\t" if "\t" in line.strip() else None)
        if len(pair) not in (0, 2):
            received, remedy = (
                f"line {number} of {path}: {line!r}",
                "Put a tab between names that have spaces.",
            )
            raise checks.problem("two names of pictures a line", received, remedy)
        for name in pair:
            checks.one_of(f"picture of line {number} of {path}", name, known)
        if pair and pair[0] != pair[1] and tuple(pair[::-1]) not in pairs:
            pairs[tuple(pair)] = None
    return list(pairs)


def match_pair(features0: Features, features1: Features, extractor: Extractor) -> formats.Matches:
    """Matches two pictures' features as `kp2d match` does: cross-checked, turned if the method steers."""
    turned = registration.turned_to(features0, features1, extractor)
    indices = registration.match_features(turned, features1)
    distances = matching.match_distances(turned.descriptors, features1.descriptors, indices)
    bits = 8 * features0.descriptors.shape[1] if extractor.binary else None
    return formats.Matches(indices=indices, distances=distances, count=len(features0), bits=bits)


def extract_folder(
    folder: str | Path,
    output: str | Path,
    extractor: Extractor,
    *,
    form: str | None = None,
    match: str | None = None,
    top_k: int = 1000,
    image_size: tuple[int, int] | None = None,
    progress: Progress = lambda items, _count, _what: items,
) -> Summary:
    """Writes the features of a folder of pictures to one file, and matches if they are asked for.

    Features of a run that was broken off lie in a folder beside the output and are taken from there. A
    finished file that has what is asked for, by the record beside it, stays as it is; where pictures or
    pairs have changed, it is made again; one of another method or other settings is not replaced.

    Args:
        folder: Searched with all folders in it.
        output: The file; matches go beside it (`formats.matches_path`), of COLMAP into it.
        extractor: Any method.
        form: A key of `formats.FORMATS`; None tells it by the suffix.
        match: As for `pairs_of`; None leaves matches out.
        top_k: Keypoints kept a picture.
        image_size: As for `extract_picture`.
        progress: Shows how far the work is.

    Raises:
        InputError: If something cannot be used; said before the work where possible.
    """
    config.protocol(top_k=(top_k,))  # refuses what makes no sense
    if image_size is not None:
        checks.fits_cells(image_size, extractor.cell)
    output = Path(output).expanduser()
    form = formats.choose(form, output)
    names = find_pictures(folder)
    pairs = pairs_of(match, names) if match else []
    if form != "colmap":
        _check_keys(pairs)
    files.check_writable(output)
    digests = {name: files.sha256(Path(folder).expanduser() / name) for name in names}
    settings = {
        "extractor": extractor.settings(),
        "top_k": top_k,
        "image_size": image_size,
        "code": provenance.code_hash(__name__),
    }
    written = (output,) if match is None or form == "colmap" else (output, formats.matches_path(output))
    wanted = {"settings": settings, "format": form, "pictures": digests, "pairs": pairs if match else None}
    record, key = Path(f"{output}.json"), config.fingerprint(wanted)
    made = files.read_json(record) or {}
    if made.get("key") == key and all(path.is_file() for path in written):
        return Summary(written=(), **made["summary"])
    partial = output.with_name(f"{output.name}.partial")
    if not partial.exists():  # else the last run was broken off, maybe between files and record
        _refuse_other(written, made, wanted)
    with files.alone(partial, f"kp2d extract to {output}"):
        store = _Store(Path(folder).expanduser(), digests, extractor, settings, partial)
        skipped = store.fill(progress)
        pairs = [pair for pair in pairs if not skipped.keys() & set(pair)]
        names = [name for name in names if name not in skipped]
        if not names:
            raise checks.problem("a picture that can be read", "; ".join(skipped.values()))
        counts = _write(written, form, store, names, pairs, progress)
        content = {"pictures": len(names), "skipped": skipped, "pairs": len(pairs), **counts}
        files.write_json(
            record, {"key": key, "commit": provenance.git_commit(), "summary": content, **wanted}
        )
    shutil.rmtree(partial)
    return Summary(written=written, **content)


def _check_keys(pairs: list[tuple[str, str]]) -> None:
    """Refuses pairs that a file of matches would hold as one: "a/b.png" and "a-b.png" have one name there."""
    known: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        other = known.setdefault(formats.pair_key(pair), pair)
        if other != pair:
            expected = 'pairs of pictures whose names differ by more than "/" and "-"'
            raise checks.problem(expected, f"{other} and {pair}", "Rename a picture or a folder.")


def _refuse_other(written: tuple[Path, ...], made: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses to replace what is not ours, or was made by another method or with other settings."""
    existing = [path for path in written if path.exists()]
    if not existing:
        return
    remedy = f"Name another file, or remove {existing[0]}."
    if "settings" not in made:
        received = f"{existing[0]}, which has no record of that beside it"
        raise checks.problem("a new file, or one that kp2d extract has made", received, remedy)
    was, now = (
        {**record["settings"]["extractor"], **record["settings"], "format": record["format"]}
        for record in (made, wanted)
    )
    names = sorted((was.keys() | now.keys()) - {"extractor", "code"})
    differ = [
        name for name in names if config.fingerprint(was.get(name)) != config.fingerprint(now.get(name))
    ]
    if differ:
        plain = [name for name in differ if name in ASKED] or differ  # another method has other details, too
        received = ", ".join(f"{name} {now.get(name)} in place of {was.get(name)}" for name in plain)
        raise checks.problem(f"the method and settings of {existing[0]}", received, remedy)


class _Store:
    """Features of pictures, a file each, by what the picture and the settings are."""

    def __init__(
        self,
        root: Path,
        digests: dict[str, str],
        extractor: Extractor,
        settings: dict[str, Any],
        folder: Path,
    ):
        self.root, self.digests, self.extractor, self.folder = root, digests, extractor, folder
        self.top_k, self.image_size = settings["top_k"], settings["image_size"]
        self._key = config.fingerprint(settings)
        self.get = functools.lru_cache(maxsize=KEPT)(self._read)

    def fill(self, progress: Progress) -> dict[str, str]:
        """Extracts what is missing; returns why pictures were skipped, by name."""
        skipped = {}
        for name in progress(self.digests, len(self.digests), "extract"):
            try:
                self._read(name)
            except checks.InputError as error:
                skipped[name] = str(error)
                log.warning("%s is left out: %s", name, error)
        return skipped

    def _read(self, name: str) -> formats.Picture:
        file = self.folder / f"{self.digests[name][:32]}-{self._key}.npz"
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
            file.open("rb") as handle,
            np.load(handle, allow_pickle=False) as arrays,
        ):
            features = Features(**{part: arrays[part] for part in ("keypoints", "scores", "descriptors")})
            height, width = (int(side) for side in arrays["image_size"])
            return formats.Picture(name=name, image_size=(height, width), features=features)
        image = images.read_image(self.root / name)
        features = extract_picture(image, self.extractor, top_k=self.top_k, image_size=self.image_size)
        with files.atomic(file) as temporary:
            np.savez(temporary, **vars(features), image_size=image.shape[:2])
        return formats.Picture(name=name, image_size=image.shape[:2], features=features)


def _write(
    written: tuple[Path, ...],
    form: str,
    store: _Store,
    names: list[str],
    pairs: list[tuple[str, str]],
    progress: Progress,
) -> dict[str, int]:
    """Writes the files, all or none; returns the numbers of keypoints and of matches."""
    counts = {"keypoints": 0, "matches": 0}
    written_as = {name: name.encode("utf-8", "backslashreplace").decode() for name in names}
    if escaped := [plain for name, plain in written_as.items() if plain != name]:
        log.warning("names that are not UTF-8, as these files are, are written as %s", checks.some(escaped))
    with contextlib.ExitStack() as renamed:
        temporary = [renamed.enter_context(files.atomic(path)) for path in written]
        with _writers(form, temporary) as (features_to, matches_to):
            for name in names:
                picture = store.get(name)
                counts["keypoints"] += len(picture.features)
                features_to.add(dataclasses.replace(picture, name=written_as[name]))
            for pair in progress(pairs, len(pairs), "match") if pairs else ():
                matches = match_pair(*(store.get(name).features for name in pair), store.extractor)
                counts["matches"] += len(matches.indices)
                matches_to.add_matches((written_as[pair[0]], written_as[pair[1]]), matches)
    return counts


@contextlib.contextmanager
def _writers(form: str, paths: list[Path]) -> Iterator[tuple[Any, Any]]:
    with contextlib.ExitStack() as opened:
        writers = [opened.enter_context(formats.open_writer(form, path)) for path in paths]
        yield writers[0], writers[-1]
