"""Owns the files of features and matches: ours, hloc's (HDF5), COLMAP's database, OpenCV's."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import checks
from kp2d.methods.decode import Features

# The first suffix that fits tells the format, where none is named.
FORMATS = {
    "npz": (".npz",),
    "hloc": (".h5", ".hdf5"),
    "colmap": (".db",),
    "opencv": (".yml", ".yaml", ".npz"),
}
SIZE = 8.0  # px, of a cv2.KeyPoint: our features have no scale, and 0 would not be drawn
ANGLE, OCTAVE, CLASS = -1.0, 0, -1  # OpenCV's values for "not applicable"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """Features of one picture."""

    name: str  # path below the folder, with "/"
    image_size: tuple[int, int]  # (height, width) px
    features: Features  # in the picture's own pixels, the centre of the top-left one at (0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """Matches of a pair."""

    indices: np.ndarray  # int `[K, 2]` into both pictures' features
    distances: np.ndarray  # float32 `[K]`: L2 of unit descriptors, or the Hamming distance
    count: int  # number of features of picture 0
    bits: int | None = None  # of a binary descriptor; None for others

    @property
    def scores(self) -> np.ndarray:
        """float32 `[K]`, 1 for equal descriptors: hloc's (1 + cosine) / 2, or the share of equal bits."""
        worst = self.bits if self.bits else 4.0
        distances = self.distances if self.bits else self.distances**2
        return (1 - distances / worst).astype(np.float32)


def choose(form: str | None, path: Path) -> str:
    """Returns the format of a file, told by its suffix if None is named.

    Raises:
        InputError: If there is no such format, or it has another suffix.
        ModuleNotFoundError: If the package that writes it is not installed.
    """
    suffix = path.suffix.lower()
    if form is None:
        suffixes = {suffix: name for name, known in reversed(FORMATS.items()) for suffix in known}
        form = suffixes[checks.one_of("suffix of features", suffix, suffixes)]
    if form == "hloc":
        importlib.import_module("h5py")  # now, and not after the work
    known = FORMATS[checks.one_of("format", form, FORMATS)]
    if suffix not in known:
        raise checks.problem(f"a file of {form} that ends in {' or '.join(known)}", path, "Name another.")
    return form


def matches_path(path: Path) -> Path:
    """Returns where the matches of a file of features go: `features-matches.h5` beside `features.h5`."""
    return path.with_name(f"{path.stem}-matches{path.suffix}")


def pair_key(pair: tuple[str, str]) -> str:
    """Returns the key of a pair in hloc's files and ours: both names, their "/" replaced by "-"."""
    return "/".join(name.replace("/", "-") for name in pair)


@contextlib.contextmanager
def open_writer(form: str, path: Path) -> Iterator[Any]:
    """Opens a file to write; yields what has `add(picture)` and `add_matches(pair, matches)`."""
    kinds = {"npz": Npz, "hloc": Hloc, "colmap": Colmap, "opencv": OpenCVYaml}
    kind = OpenCVNpz if form == "opencv" and path.suffix.lower() == ".npz" else kinds[form]
    with contextlib.closing(kind(path)) as writer:
        yield writer


class Npz:
    """NumPy's archive: of each picture `NAME/keypoints`, `NAME/scores` …; of each pair `A/B/matches` …."""

    def __init__(self, path: Path):
        self._archive = zipfile.ZipFile(path, "w")
        self._names: dict[str, list] = {}

    def add(self, picture: Picture) -> None:
        """Writes keypoints, scores, descriptors and image_size (height, width) of a picture."""
        self._write("names", picture.name, {**vars(picture.features), "image_size": picture.image_size})

    def add_matches(self, pair: tuple[str, str], matches: Matches) -> None:
        """Writes matches `[K, 2]` and distances `[K]` of a pair."""
        arrays = {"matches": matches.indices, "distances": matches.distances}
        self._write("pairs", pair, arrays)

    def close(self) -> None:
        """Writes the names, `names` or `pairs`, and ends the archive."""
        with self._archive:
            for kind, names in self._names.items():
                self._array(kind, np.array(names))

    def _write(self, kind: str, name: str | tuple[str, str], arrays: dict[str, Any]) -> None:
        self._names.setdefault(kind, []).append(name)
        key = name if isinstance(name, str) else pair_key(name)
        for part, values in arrays.items():
            self._array(f"{key}/{part}", np.asarray(values))

    def _array(self, key: str, values: np.ndarray) -> None:
        with self._archive.open(f"{key}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, values, allow_pickle=False)


class OpenCVNpz(Npz):
    """NumPy's archive with the fields of `cv2.KeyPoint` and `cv2.DMatch`."""

    def add(self, picture: Picture) -> None:
        """Writes pt, size, angle, response, octave, class_id and descriptors of a picture."""
        features = picture.features
        count = len(features)
        arrays = {
            "pt": features.keypoints,
            "size": np.full(count, SIZE, np.float32),
            "angle": np.full(count, ANGLE, np.float32),
            "response": features.scores,
            "octave": np.full(count, OCTAVE, np.int32),
            "class_id": np.full(count, CLASS, np.int32),
            "descriptors": features.descriptors,
        }
        self._write("names", picture.name, arrays)

    def add_matches(self, pair: tuple[str, str], matches: Matches) -> None:
        """Writes queryIdx, trainIdx and distance of a pair."""
        query, train = matches.indices.T
        self._write("pairs", pair, {"queryIdx": query, "trainIdx": train, "distance": matches.distances})


class Hloc:
    """hloc's HDF5: a group a picture or pair; (0, 0) is the centre of the top-left pixel, as here."""

    def __init__(self, path: Path):
        import h5py

        self._file = h5py.File(path, "w", libver="latest")

    def add(self, picture: Picture) -> None:
        """Writes keypoints `[N, 2]`, descriptors `[D, N]`, scores `[N]`, image_size (width, height)."""
        features = picture.features
        group = self._file.create_group(picture.name)
        group["keypoints"] = features.keypoints
        group["keypoints"].attrs["uncertainty"] = 1.0  # px
        group["descriptors"] = features.descriptors.T
        group["scores"] = features.scores
        group["image_size"] = np.array(picture.image_size[::-1])

    def add_matches(self, pair: tuple[str, str], matches: Matches) -> None:
        """Writes matches0 `[N]`, the partner of each keypoint of picture 0 or −1, and scores."""
        partner, scores = np.full(matches.count, -1, np.int32), np.zeros(matches.count, np.float16)
        partner[matches.indices[:, 0]] = matches.indices[:, 1]
        scores[matches.indices[:, 0]] = matches.scores
        group = self._file.create_group(pair_key(pair))
        group["matches0"], group["matching_scores0"] = partner, scores

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


_SCHEMA = """
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, params BLOB, prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE,
    camera_id INTEGER NOT NULL, prior_qw REAL, prior_qx REAL, prior_qy REAL, prior_qz REAL,
    prior_tx REAL, prior_ty REAL, prior_tz REAL, CHECK(image_id >= 0 and image_id < 2147483647),
    FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE UNIQUE INDEX index_name ON images(name);
CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL,
    data BLOB, FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL,
    data BLOB, FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL,
    data BLOB);
CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
    cols INTEGER NOT NULL, data BLOB, config INTEGER NOT NULL, F BLOB, E BLOB, H BLOB, qvec BLOB, tvec BLOB);
"""


class Colmap:
    """COLMAP's database: (0, 0) is the corner of the top-left pixel there, so that keypoints move by 0.5.

    It gets a camera a picture, with COLMAP's first guess of a focal length (1.2 times the longer side), and
    no descriptors: COLMAP compares those of SIFT only.
    """

    SIMPLE_RADIAL = 2
    PAIRS = 2147483647  # COLMAP's pair_id is image_id0 · PAIRS + image_id1, the smaller first

    def __init__(self, path: Path):
        self._database = sqlite3.connect(path)
        self._database.executescript(_SCHEMA)
        self._ids: dict[str, int] = {}

    def add(self, picture: Picture) -> None:
        """Writes camera, image and keypoints of a picture."""
        number = self._ids[picture.name] = len(self._ids) + 1
        height, width = picture.image_size
        params = np.array([1.2 * max(height, width), width / 2, height / 2, 0.0])
        camera = (number, self.SIMPLE_RADIAL, width, height, params.tobytes(), 0)
        keypoints = (picture.features.keypoints + 0.5).astype(np.float32)
        execute = self._database.execute
        execute("INSERT INTO cameras VALUES (?, ?, ?, ?, ?, ?)", camera)
        execute(
            "INSERT INTO images (image_id, name, camera_id) VALUES (?, ?, ?)", (number, picture.name, number)
        )
        execute("INSERT INTO keypoints VALUES (?, ?, ?, ?)", (number, *keypoints.shape, keypoints.tobytes()))

    def add_matches(self, pair: tuple[str, str], matches: Matches) -> None:
        """Writes the matches of a pair, which COLMAP is still to verify."""
        number0, number1 = (self._ids[name] for name in pair)
        indices = matches.indices if number0 < number1 else matches.indices[:, ::-1]
        indices = np.ascontiguousarray(indices, np.uint32)
        key = min(number0, number1) * self.PAIRS + max(number0, number1)
        self._database.execute(
            "INSERT INTO matches VALUES (?, ?, ?, ?)", (key, *indices.shape, indices.tobytes())
        )

    def close(self) -> None:
        """Ends the file."""
        self._database.commit()
        self._database.close()


class OpenCVYaml:
    """`cv::FileStorage`: `images`, or `pairs`, with vectors of KeyPoint or DMatch that C++ reads by `>>`."""

    def __init__(self, path: Path):
        import cv2

        self._sequence, self._flow = cv2.FileNode_SEQ, cv2.FileNode_SEQ | cv2.FileNode_FLOW
        self._map = cv2.FileNode_MAP
        self._storage = cv2.FileStorage(str(path), cv2.FileStorage_WRITE)
        self._open = ""

    def add(self, picture: Picture) -> None:
        """Writes name, width, height, keypoints and descriptors of a picture."""
        height, width = picture.image_size
        self._begin("images", {"name": picture.name, "width": width, "height": height})
        features = picture.features
        rows = (
            (float(x), float(y), SIZE, ANGLE, float(score), OCTAVE, CLASS)
            for (x, y), score in zip(features.keypoints, features.scores, strict=True)
        )
        self._vector("keypoints", rows)
        self._storage.write("descriptors", np.ascontiguousarray(features.descriptors))
        self._storage.endWriteStruct()

    def add_matches(self, pair: tuple[str, str], matches: Matches) -> None:
        """Writes image0, image1 and matches of a pair."""
        self._begin("pairs", {"image0": pair[0], "image1": pair[1]})
        rows = (
            (int(query), int(train), 0, float(distance))
            for (query, train), distance in zip(matches.indices, matches.distances, strict=True)
        )
        self._vector("matches", rows)
        self._storage.endWriteStruct()

    def close(self) -> None:
        """Ends the file."""
        if self._open:
            self._storage.endWriteStruct()
        self._storage.release()

    def _begin(self, kind: str, values: dict[str, Any]) -> None:
        if not self._open:
            self._storage.startWriteStruct(kind, self._sequence)
            self._open = kind
        self._storage.startWriteStruct("", self._map)
        for name, value in values.items():
            self._storage.write(name, value)

    def _vector(self, name: str, rows: Iterator[tuple]) -> None:
        self._storage.startWriteStruct(name, self._sequence)
        for row in rows:
            self._storage.startWriteStruct("", self._flow)
            for value in row:
                self._storage.write("", value)
            self._storage.endWriteStruct()
        self._storage.endWriteStruct()
