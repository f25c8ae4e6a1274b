"""Owns batches of pairs from a folder of photographs, made ahead of time in worker processes.

Sample i of step s draws from `Generator([seed, s, i])`, so that a batch depends on the seed and
the step alone: not on the number of workers, nor on where a run was interrupted.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields

import cv2
import numpy as np

from kp2d import images
from kp2d.checks import InputError, RunError, problem
from kp2d.data.augment import AugmentConfig, ViewPair, make_view_pair

MAX_ATTEMPTS = 20  # photographs tried for one sample before the folder is declared unusable

log = logging.getLogger(__name__)


def read_photo(path: str, max_side: int) -> np.ndarray:
    """Reads a picture as RGB, uint8 `[h, w, 3]`, its longer side shrunk to at most `max_side` px.

    Raises:
        InputError: If the file is no complete picture.
    """
    photo = images.read_image(path)
    factor = max_side / max(photo.shape[:2])
    if factor < 1:
        size_wh = [max(16, round(side * factor)) for side in photo.shape[1::-1]]
        photo = cv2.resize(photo, size_wh, interpolation=cv2.INTER_AREA)
    return photo


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """A folder seen as an endless, seeded sequence of batches."""

    paths: tuple[str, ...]  # photographs
    image_size: tuple[int, int]  # (height, width) px of a view
    cell: int  # cell side of the network, px
    batch_size: int  # pairs a batch
    seed: int  # seed of the whole sequence
    steps: int  # length of the run, which paces the homography's growth
    augment: AugmentConfig  # ranges

    def batch(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Makes the batch of one step, counted from 0.

        Returns:
            The fields of `ViewPair`, each stacked along a first axis; and the paths that could not be
            read and were replaced by other photographs, with why.

        Raises:
            InputError: If no photograph can be read.
        """
        corrupt: dict[str, str] = {}
        pairs = [self._pair(step, index, corrupt) for index in range(self.batch_size)]
        names = [field.name for field in fields(ViewPair)]
        stacked = {name: np.stack([getattr(pair, name) for pair in pairs]) for name in names}
        return stacked, corrupt

    def _pair(self, step: int, index: int, corrupt: dict[str, str]) -> ViewPair:
        """Makes one pair of a batch; adds to `corrupt` what could not be read, and why."""
        rng = np.random.default_rng([self.seed, step, index])
        max_side = int(1.5 * self.augment.zoom[1] * max(self.image_size))
        for _ in range(MAX_ATTEMPTS):
            path = self.paths[rng.integers(len(self.paths))]
            try:
                photo = read_photo(path, max_side)
            except InputError as error:
                corrupt[path] = str(error)
                continue
            strength = self._strength(step)
            return make_view_pair(photo, self.image_size, self.cell, self.augment, rng, strength)
        raise problem(
            "readable pictures",
            f"{MAX_ATTEMPTS} unreadable ones in a row, the last being {path!r}",
            "Remove or repair the files.",
        )

    def _strength(self, step: int) -> float:
        """Returns the strength of the homographies at a step, growing to 1 during the ramp."""
        start, ramp = self.augment.start, self.augment.ramp * self.steps
        return 1.0 if step >= ramp else start + (1 - start) * step / ramp


class PairLoader:
    """Iterates over the batches of a `PairSource`, keeping some ready.

    Attributes:
        corrupt: Paths that could not be read so far, and why.
        wait_seconds: Time the consumer has waited for batches so far.
    """

    def __init__(self, source: PairSource, *, workers: int = 1, first_step: int = 0) -> None:
        """Starts the worker processes; 0 of them make each batch on demand in this process."""
        self.corrupt: dict[str, str] = {}
        self.wait_seconds = 0.0
        self._source = source
        self._step = first_step
        self._pending: deque[Future] = deque()
        self._pool = _start_pool(source, workers) if workers else None
        for _ in range(2 * workers + 1 if workers else 0):
            self._submit()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch; never ends."""
        start = time.perf_counter()
        if self._pool is None:
            batch, corrupt = self._source.batch(self._step)
            self._step += 1
        else:
            try:
                batch, corrupt = self._pending.popleft().result()
                self._submit()
            except BrokenProcessPool as error:
                raise RunError(
                    "expected every worker to live; one was killed, often for want of memory, "
                    'or a script trains outside of `if __name__ == "__main__":`. '
                    "Call train again, with fewer workers: it goes on from the last checkpoint."
                ) from error
        self.wait_seconds += time.perf_counter() - start
        for path in sorted(corrupt.keys() - self.corrupt.keys()):
            log.warning("Skipped the picture %s: %s", path, corrupt[path])
        self.corrupt.update(corrupt)
        return batch

    def __enter__(self) -> PairLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        self._pending.append(self._pool.submit(_worker_batch, self._step))
        self._step += 1


def check_main_guard() -> None:
    """Refuses to train while a worker imports the script that started it, which would never end.

    Raises:
        RunError: If that is so.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RunError(
            "expected a script that may be imported, as every worker does; it trains at once. "
            'Put what it does below `if __name__ == "__main__":`, or train with workers=0.'
        )


def _start_pool(source: PairSource, workers: int) -> ProcessPoolExecutor:
    # Never fork: the parent may run TensorFlow, whose threads do not survive it.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(source,))


_worker_source: PairSource | None = None


def _start_worker(source: PairSource) -> None:
    global _worker_source
    _worker_source = source
    cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's business
    end_with_parent()


def end_with_parent() -> None:
    """Has this process end when the one that started it does, also when that is killed and cannot say so."""
    sentinel = multiprocessing.parent_process().sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _worker_batch(step: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    return _worker_source.batch(step)
