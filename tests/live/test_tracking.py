"""Tracks: the same keypoint keeps its number, and nothing else gets it."""

import numpy as np
import pytest

from kp2d import checks
from kp2d.live import tracking
from kp2d.live.tracking import Tracker
from kp2d.methods.decode import Features

SIZE = (240, 320)


def make(points, codes, binary=False):
    """Features whose descriptors depend on a code only, so that equal codes are one keypoint."""
    codes = np.asarray(codes, int)
    drawn = [np.random.default_rng(int(code)).standard_normal(64) for code in codes]
    descriptors = np.array(drawn, np.float32).reshape(-1, 64)
    if binary:
        descriptors = np.packbits(descriptors > 0, axis=1)
    else:
        descriptors = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    points = np.asarray(points, np.float32).reshape(-1, 2)
    return Features(keypoints=points, scores=np.ones(len(codes), np.float32), descriptors=descriptors)


@pytest.fixture
def points():
    return np.random.default_rng(3).uniform((40, 40), (280, 200), (30, 2))


@pytest.mark.parametrize("binary", [False, True])
def test_a_keypoint_keeps_its_number_in_whatever_order_it_is_found(points, binary, monkeypatch):
    monkeypatch.setattr(tracking, "HISTORY", 4)
    tracker, rng = Tracker(), np.random.default_rng(0)
    for step in range(6):
        order = rng.permutation(30)
        tracks = tracker.update(make((points + 2.5 * step)[order], order, binary), SIZE)
        codes = order[tracks.features]
        if step == 0:
            first = dict(zip(tracks.ids.tolist(), codes.tolist(), strict=True))
        assert dict(zip(tracks.ids.tolist(), codes.tolist(), strict=True)) == first
    assert (tracks.lengths == 6).all() and tracks.mean_length == 6 and len(tracks.live()) == 30
    steps = tracks.trails[:, :-1] - tracks.trails[:, 1:]
    np.testing.assert_allclose(steps, 2.5, atol=1e-4)  # newest first, the last four places


def test_a_first_frame_has_no_live_tracks_yet(points):
    tracks = Tracker().update(make(points, range(30)), SIZE)
    assert (len(tracks), len(tracks.live()), tracks.live().mean_length) == (30, 0, 0.0)
    assert np.isnan(tracks.trails[:, 1:]).all()


def test_a_track_outlives_an_empty_frame_but_not_many(points):
    tracker, nothing = Tracker(), make([], [])
    ids = tracker.update(make(points, range(30)), SIZE).ids
    for _ in range(2):
        assert len(tracker.update(nothing, SIZE).live()) == 0
    tracks = tracker.update(make(points + 1, range(30)), SIZE)
    np.testing.assert_array_equal(tracks.ids, ids)
    assert (tracks.lengths == 2).all() and (tracks.missed == 0).all()
    for _ in range(3):
        tracks = tracker.update(nothing, SIZE)
    assert len(tracks) == 0
    again = tracker.update(make(points, range(30)), SIZE)
    assert not set(again.ids.tolist()) & set(ids.tolist())


def test_nothing_at_all_is_no_track():
    tracker = Tracker()
    for _ in range(2):
        tracks = tracker.update(make([], []), SIZE)
    assert (len(tracks), tracks.mean_length, tracks.trails.shape) == (0, 0.0, (0, 20, 2))


def test_what_jumps_too_far_is_born_anew(points):
    tracker = Tracker()
    tracker.update(make(points[:5], range(5)), SIZE)
    moved = points[:5].copy()
    moved[4] += (50, 0)  # more than 0.15 of 320
    tracks = tracker.update(make(moved, range(5)), SIZE)
    assert sorted(tracks.lengths[tracks.missed == 0]) == [1, 2, 2, 2, 2]


def test_what_looks_different_is_no_match(points):
    tracker = Tracker()
    tracker.update(make(points, range(30)), SIZE)
    tracks = tracker.update(make(points, range(100, 130)), SIZE)
    assert len(tracks.live()) == 0 and len(tracks) == 60


def test_who_moves_against_all_around_is_not_believed(points):
    tracker = Tracker()
    tracker.update(make(points, range(30)), SIZE)
    moved = points + np.array((3, 0))
    moved[7] = points[7] - np.array((30, 0))
    tracks = tracker.update(make(moved, range(30)), SIZE)
    assert len(tracks.live()) == 29 and 7 not in tracks.live().ids


def test_descriptors_of_another_kind_are_refused(points):
    tracker = Tracker()
    tracker.update(make(points, range(30)), SIZE)
    with pytest.raises(checks.InputError, match="one method only"):
        tracker.update(make(points, range(30), binary=True), SIZE)
