"""Owns tracks: the same keypoint followed from frame to frame by its descriptor."""

from __future__ import annotations

import dataclasses

import numpy as np

from kp2d.methods import matching
from kp2d.methods.decode import Features

NEIGHBOURS = 8  # matches around one that must move as it does
MAX_DISTANCE = {"float": 0.6, "binary": 0.25}  # L2 of unit descriptors; fraction of differing bits
MAX_DISPLACEMENT = 0.15  # of a keypoint in a frame, as a fraction of the longer side
PATIENCE = 2  # frames a track outlives without being seen
HISTORY = 20  # places that are kept of a track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracks:
    """All tracks after a frame, the oldest first; T = 0 is valid.

    Convention: (x, y) px of the frame, the centre of the top-left pixel is (0, 0).
    """

    ids: np.ndarray  # int64 `[T]`, never used twice
    lengths: np.ndarray  # int64 `[T]`, frames in which the keypoint was seen
    missed: np.ndarray  # int64 `[T]`, frames since it was last seen; 0 for live tracks
    features: np.ndarray  # int64 `[T]`, index into the frame's features, −1 where it was not seen
    trails: np.ndarray  # float32 `[T, L, 2]` px, its last L places, newest first; NaN before its birth

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: np.ndarray) -> Tracks:
        """Returns the tracks at `index` (an integer or boolean array `[K]` or `[T]`), in that order."""
        return Tracks(**{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)})

    def live(self) -> Tracks:
        """Returns the tracks that were seen in the frame and in one before."""
        return self.take((self.missed == 0) & (self.lengths > 1))

    @property
    def mean_length(self) -> float:
        """Mean number of frames in which the tracks were seen; 0 if there are none."""
        return float(self.lengths.mean()) if len(self) else 0.0


class Tracker:
    """Follows keypoints by mutual nearest descriptors that are alike, near, and move as those around them."""

    def __init__(self) -> None:
        self._next_id = 0  # ids are not used again
        self._tracks: Tracks | None = None
        self._descriptors = np.empty((0, 0), np.float32)

    def update(self, features: Features, image_size: tuple[int, int]) -> Tracks:
        """Continues the tracks into the next frame: some go on, some wait or die, new ones are born.

        The frame, (height, width) px, may have no features. Returned are the tracks, those that wait to be
        seen again among them.

        Raises:
            InputError: If the descriptors are of another kind than those before.
        """
        if self._tracks is None:
            self._tracks = self._born(features, np.zeros(0, np.int64)).take(slice(0))
            self._descriptors = features.descriptors[:0]
        before = self._tracks
        matches = self._matches(features, float(max(image_size)))
        index = np.full(len(before), -1, np.int64)
        index[matches[:, 0]] = matches[:, 1]
        seen = index >= 0
        trails = before.trails.copy()
        trails[seen, 1:] = before.trails[seen, :-1]
        trails[seen, 0] = features.keypoints[index[seen]]
        descriptors = self._descriptors.copy()
        descriptors[seen] = features.descriptors[index[seen]]
        gone_on = Tracks(
            ids=before.ids,
            lengths=before.lengths + seen,
            missed=np.where(seen, 0, before.missed + 1),
            features=index,
            trails=trails,
        )
        kept = gone_on.missed <= PATIENCE
        unmatched = np.setdiff1d(np.arange(len(features)), index)
        parts = gone_on.take(kept), self._born(features, unmatched)
        self._tracks = Tracks(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                for field in dataclasses.fields(Tracks)
            }
        )
        self._descriptors = np.concatenate([descriptors[kept], features.descriptors[unmatched]])
        return self._tracks

    def _born(self, features: Features, index: np.ndarray) -> Tracks:
        """Starts a track at every feature of `index`."""
        count = len(index)
        trails = np.full((count, HISTORY, 2), np.nan, np.float32)
        trails[:, 0] = features.keypoints[index]
        first, self._next_id = self._next_id, self._next_id + count
        return Tracks(
            ids=np.arange(first, first + count),
            lengths=np.ones(count, np.int64),
            missed=np.zeros(count, np.int64),
            features=index,
            trails=trails,
        )

    def _matches(self, features: Features, side: float) -> np.ndarray:
        """Returns int64 `[K, 2]`, (track, feature), of keypoints that were found again."""
        before = self._tracks
        distances = matching.descriptor_distances(self._descriptors, features.descriptors, one_thread=True)
        if 0 in distances.shape:
            return np.empty((0, 2), np.int64)
        start = before.trails[:, 0]
        across, down = (features.keypoints[None, :, axis] - start[:, None, axis] for axis in (0, 1))
        reach = MAX_DISPLACEMENT * side * (1 + before.missed)
        binary = features.descriptors.dtype == np.uint8
        limit = MAX_DISTANCE["binary" if binary else "float"]
        limit *= 8 * features.descriptors.shape[1] if binary else 1
        # What is too far is no rival either: repeated texture elsewhere in the frame takes nothing away.
        far = across**2 + down**2 > reach[:, None] ** 2
        distances[far | (distances > limit)] = np.inf
        matches = matching.mutual(distances)
        matches = matches[np.isfinite(distances[matches[:, 0], matches[:, 1]])]
        start = start[matches[:, 0]]
        steps = features.keypoints[matches[:, 1]] - start
        return matches[_in_company(start, steps, 0.02 * side)]


def _in_company(points: np.ndarray, steps: np.ndarray, tolerance: float) -> np.ndarray:
    """Tells which keypoints `[K, 2]` px move as those around them do; all where there are too few to compare.

    Their steps `[K, 2]` may differ by a tolerance, px, and half of the neighbours' own motion.
    """
    if len(points) <= NEIGHBOURS:
        return np.ones(len(points), bool)
    across, down = (points[:, None, axis] - points[None, :, axis] for axis in (0, 1))
    squared = across**2 + down**2
    np.fill_diagonal(squared, np.inf)
    around = np.argpartition(squared, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    middle = slice((NEIGHBOURS - 1) // 2, NEIGHBOURS // 2 + 1)
    usual = np.sort(steps[around], axis=1)[:, middle].mean(axis=1)  # np.median, but faster
    return np.hypot(*(steps - usual).T) <= tolerance + 0.5 * np.hypot(*usual.T)
