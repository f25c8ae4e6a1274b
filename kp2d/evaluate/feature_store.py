"""Owns loop 1 of the evaluation: every image's features, extracted once and kept.

Features are kept by content: the same image, size and method are never extracted twice, so a run that was
killed goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kp2d import checks, files, images, provenance
from kp2d.config import fingerprint
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Extractor

logger = logging.getLogger(__name__)

# On Python 3.11, two threads that parse literals (the headers of arrays are some) may raise a SystemError.
_reading = threading.Lock()

# Best ones kept an image, as SIFT and ORB keep 2000: a network at 640×480 has 19,200, nearly all of them far
# below the k best of any view. At 320×240 nothing is left out.
MAX_KEYPOINTS = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """Features of one image at evaluation size, and the image's own size (height, width) px."""

    features: Features
    own_size: tuple[int, int]


class FeatureStore:
    """Exported features of one method at one size, one file an image, or in memory without a folder."""

    def __init__(self, extractor: Extractor, image_size: tuple[int, int], cache: Path | None = None):
        self.extractor = extractor
        self.image_size = checks.fits_cells(image_size, extractor.cell)
        self._memory: dict[Path, Exported | checks.InputError] = {}
        self._folder = None
        if cache is not None:
            code = provenance.code_hash(__name__)
            settings = {"image_size": image_size, "code": code, **extractor.settings()}
            self._folder = Path(cache) / f"{extractor.name}-{extractor.precision}-{fingerprint(settings)}"
            files.write_json(self._folder / "settings.json", settings)

    def get(self, path: Path) -> Exported:
        """Returns an image's features: from the store, else extracted now and stored.

        Raises:
            InputError: If the image cannot be read.
        """
        kept = self._memory.get(path)
        if kept is None:
            try:
                kept = self._load_or_extract(path)
            except checks.InputError as error:
                kept = error
            if self._folder is None or isinstance(kept, checks.InputError):
                self._memory[path] = kept
        if isinstance(kept, checks.InputError):
            raise kept
        return kept

    def _load_or_extract(self, path: Path) -> Exported:
        if self._folder is None:
            return self._extract(path)
        if not path.is_file():
            raise checks.problem("an image file", str(path))
        file = self._folder / f"{files.sha256(path)[:32]}.npz"
        try:
            with _reading, file.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
                features = Features(
                    **{field: arrays[field] for field in ("keypoints", "scores", "descriptors")}
                )
                return Exported(features=features, own_size=tuple(int(n) for n in arrays["own_size"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
            logger.warning("%s is damaged; extracting %s again", file, path)
        exported = self._extract(path)
        with files.atomic(file) as temporary:
            np.savez(temporary, **dataclasses.asdict(exported.features), own_size=exported.own_size)
        return exported

    def _extract(self, path: Path) -> Exported:
        image = images.read_image(path)
        features = self.extractor.extract(images.resize_image(image, self.image_size))
        return Exported(
            features=features.take(np.arange(min(len(features), MAX_KEYPOINTS))), own_size=image.shape[:2]
        )


def parallel(function: Callable, items: Iterable, workers: int, description: str, progress: bool) -> list:
    """Maps a function over items in threads, with a progress bar; returns the results in the items' order.

    Raises:
        BaseException: The first error of any call; calls not yet started are then cancelled.
    """
    items = list(items)
    with (
        tqdm(total=len(items), desc=description, disable=not progress, leave=False) as bar,
        ThreadPoolExecutor(max_workers=workers) as pool,
    ):
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]
