"""Owns what `kp2d.match` returns: two matched images, and how they are told, drawn and written."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import __version__, backend, checks, files, images
from kp2d.methods import matching, registration
from kp2d.methods.extractors import Extractor

PICTURES = (".png", ".jpg", ".jpeg", ".svg")
TABLES = (".csv", ".json", ".npz")
COLUMNS = ("x0", "y0", "x1", "y1", "score0", "score1", "distance", "inlier")  # of a match


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Match(registration.Registration):
    """Two matched images: everything in their own pixels, the centre of the top-left pixel is (0, 0).

    Attributes:
        method: What found the keypoints, as "kp2d_tiny_s:int8".
        names: Of both images: their paths, or "image 0" and "image 1".
        view0: Image 0, and how the method saw it.
        view1: Likewise of image 1.
        features0, features1, matches, estimate: See `kp2d.methods.registration.Registration`.
    """

    method: str
    names: tuple[str, str]
    view0: registration.View
    view1: registration.View

    @property
    def keypoints0(self) -> np.ndarray:
        """Returns all kept keypoints of image 0, float32 `[N, 2]`, (x, y) px, best first."""
        return self.features0.keypoints

    @property
    def keypoints1(self) -> np.ndarray:
        """Returns all kept keypoints of image 1, float32 `[M, 2]`, (x, y) px, best first."""
        return self.features1.keypoints

    @property
    def scores(self) -> np.ndarray:
        """Returns the scores of the matched keypoints in both images, float32 `[K, 2]`, larger is better."""
        ends = self.features0.scores[self.matches[:, 0]], self.features1.scores[self.matches[:, 1]]
        return np.stack(ends, axis=1)

    @property
    def distances(self) -> np.ndarray:
        """Returns the distances of matched descriptors, float32 `[K]`: L2, or Hamming of binary ones."""
        pair = self.features0.descriptors, self.features1.descriptors
        return matching.match_distances(*pair, self.matches)

    @property
    def homography(self) -> np.ndarray | None:
        """Returns the estimate from image 0 to image 1, float64 `[3, 3]`, or None if none was found."""
        return self.estimate.homography

    @property
    def inliers(self) -> np.ndarray:
        """Returns which matches agree with the homography, bool `[K]`."""
        return self.estimate.inliers

    @property
    def verdict(self) -> str:
        """Returns in some words what became of the homography."""
        if self.homography is None:
            return "no homography"
        doubt = self.estimate.doubt
        return f"a homography not to be trusted ({doubt})" if doubt else "homography found"

    @property
    def story(self) -> str:
        """Returns in a line what was found, and at which size where pictures were reduced for the method."""
        counts = f"{len(self.keypoints0)} and {len(self.keypoints1)} keypoints"
        facts = f"{self.inliers.sum()}/{len(self.inliers)} inliers"
        views = (self.view0, self.view1)
        sizes = " and ".join(f"{view.seen.shape[1]}x{view.seen.shape[0]}" for view in views)
        reduced = any(view.image.size > 1.1 * view.seen.size for view in views)
        return f"{counts}, {facts}, {self.verdict}{f' (seen at {sizes} px)' if reduced else ''}"

    def __repr__(self) -> str:
        return f"<kp2d.match of {' and '.join(self.names)} by {self.method}: {self.story}>"

    def figure(self) -> Any:
        """Returns the picture of the matches as a Matplotlib figure; its title says what to doubt.

        Raises:
            InputError: If Matplotlib is not installed.
        """
        require_drawing()
        from kp2d.viz import pictures

        facts = f"{self.inliers.sum()}/{len(self.inliers)} inliers"
        trusted = self.estimate.trustworthy
        return pictures.draw_matches(
            self.view0.image,
            self.view1.image,
            self.keypoints0,
            self.keypoints1,
            self.matches,
            inliers=self.inliers,
            estimated=self.homography if trusted else None,
            title=f"{self.method.replace(':', ' ')} · {facts}{'' if trusted else f' · {self.verdict}'}",
        )

    def _repr_png_(self) -> bytes | None:
        if importlib.util.find_spec("matplotlib") is None:
            return None  # a notebook then shows the line
        from kp2d.viz import figures

        return figures.to_png(self.figure())

    def draw(self, path: str | os.PathLike | None = None) -> np.ndarray:
        """Draws both images, the matches, and the frame of image 0 in image 1, as uint8 RGB `[H, W, 3]`.

        With a path the picture is saved there, too: `.png`, `.jpg` or `.svg`.

        Raises:
            InputError: If the suffix is another, the file cannot be written, or Matplotlib is not installed.
        """
        if path is not None:
            checks.one_of("picture suffix", Path(path).suffix.lower(), PICTURES)
        figure = self.figure()
        from kp2d.viz import figures

        if path is not None:
            figures.save_figure(figure, path)
        return figures.to_array(figure)

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the picture or the matches, as the suffix says; docs/matching.md has columns and names.

        The path ends in one of `PICTURES` or `TABLES`; missing folders are made. Returns it, absolute.

        Raises:
            InputError: If the suffix is another, or the file cannot be written.
        """
        path = Path(path).expanduser().absolute()
        suffix = checks.one_of("suffix of an output", path.suffix.lower(), (*PICTURES, *TABLES))
        if suffix in PICTURES:
            figure = self.figure()
            from kp2d.viz import figures

            return figures.save_figure(figure, path)
        return files.write_bytes(path, {".csv": self._csv, ".json": self._json, ".npz": self._npz}[suffix]())

    def rows(self) -> list[tuple[float | bool, ...]]:
        """Returns the matches as rows of `COLUMNS`, best first."""
        ends = self.keypoints0[self.matches[:, 0]], self.keypoints1[self.matches[:, 1]]
        numbers = np.concatenate([*ends, self.scores, self.distances[:, None]], axis=1)
        # Seven digits say what a float32 holds: 512.3, not 512.2999877929688.
        plain = [[float(f"{value:.7g}") for value in row] for row in numbers]
        return [(*row, bool(inlier)) for row, inlier in zip(plain, self.inliers, strict=True)]

    def _csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:-1], int(row[-1])) for row in self.rows())
        return text.getvalue().encode()

    def _json(self) -> bytes:
        views, counts = (self.view0, self.view1), (len(self.keypoints0), len(self.keypoints1))
        sides = [
            {
                "name": name,
                "height": view.image.shape[0],
                "width": view.image.shape[1],
                "num_keypoints": count,
            }
            for name, view, count in zip(self.names, views, counts, strict=True)
        ]
        content = {
            "kp2d": __version__,
            "method": self.method,
            "image0": sides[0],
            "image1": sides[1],
            "homography": None if self.homography is None else self.homography.tolist(),
            "trustworthy": self.estimate.trustworthy,
            "doubt": self.estimate.doubt,
            "num_inliers": int(self.inliers.sum()),
            "matches": [dict(zip(COLUMNS, row, strict=True)) for row in self.rows()],
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()

    def _npz(self) -> bytes:
        arrays = {
            "keypoints0": self.keypoints0,
            "keypoints1": self.keypoints1,
            "scores0": self.features0.scores,
            "scores1": self.features1.scores,
            "matches": self.matches,
            "distances": self.distances,
            "inliers": self.inliers,
        }
        if self.homography is not None:
            arrays["homography"] = self.homography
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        return content.getvalue()


def match_views(
    view0: registration.View,
    view1: registration.View,
    extractor: Extractor,
    *,
    names: tuple[str, str] = ("image 0", "image 1"),
    **rules: Any,
) -> Match:
    """Matches two images whose keypoints an extractor found, from `registration.view_image`.

    The rules are `ransac_threshold` and `refine` of `kp2d.methods.registration.register_views`.
    """
    registered = registration.register_views(view0, view1, extractor, **rules)
    method = f"{extractor.name}:{extractor.precision}" if extractor.probabilistic else extractor.name
    fields = {field.name: getattr(registered, field.name) for field in dataclasses.fields(registered)}
    return Match(**fields, method=method, names=names, view0=view0, view1=view1)


def image_of(image: np.ndarray | str | os.PathLike, name: str) -> tuple[np.ndarray, str]:
    """Returns an image that is given as an array or a path, and what it is called."""
    if isinstance(image, (str, os.PathLike)):
        return images.read_image(Path(image).expanduser()), os.fspath(image)
    return checks.is_image(image, name.replace(" ", "")), name


def check_output(path: str | os.PathLike) -> None:
    """Raises an `InputError` now if `Match.save` could not write a file later, when the work is done."""
    path = Path(path).expanduser()
    suffix = checks.one_of("suffix of an output", path.suffix.lower(), (*PICTURES, *TABLES))
    files.check_writable(path)
    if suffix in PICTURES:
        require_drawing()


def require_drawing() -> None:
    """Raises an `InputError` where Matplotlib, which draws, is not installed or cannot be imported."""
    if importlib.util.find_spec("matplotlib") is None:
        remedy = f"Run pip install matplotlib, or write the matches as {', '.join(TABLES)}."
        raise checks.problem("Matplotlib, which draws the matches", "none installed", remedy)
    backend.import_matplotlib()
