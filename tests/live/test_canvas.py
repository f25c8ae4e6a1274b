"""What is painted over a frame: at any size, where it belongs, in the colours of the other pictures."""

import numpy as np
import pytest

from kp2d.live import canvas
from kp2d.viz import overlay


@pytest.mark.parametrize(
    ("size", "shown"),
    [((100, 100), (500, 500)), ((240, 320), (480, 640)), ((720, 1280), (720, 1280)), ((8, 900), (16, 1800))],
)
def test_everything_can_be_painted_at_any_size(size, shown):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (*size, 3), np.uint8)
    before = frame.copy()
    points = rng.uniform(-5, max(size) + 5, (40, 2))
    trails = points[:, None] + np.arange(20)[:, None]
    trails[::3, 4:] = np.nan
    homography = np.diag([size[1] / 60, size[0] / 80, 1.0])
    for found in (homography, None):
        match = canvas.Match(
            image=np.full((80, 60, 3), 200, np.uint8),
            points0=rng.uniform(0, 60, (40, 2)),
            points1=points,
            inliers=np.arange(40) % 2 == 0,
            homography=found,
        )
        scene = canvas.Scene(
            keypoints=points,
            scores=rng.uniform(0, 1, 40),
            trails=trails,
            match=match,
            title="method",
            rate="9 FPS",
            status=("one", "ä line that is far too long for any of these pictures " * 4),
            message="saved",
            help_lines=("a", "b"),
        )
        painted = canvas.paint(frame, scene)
        assert painted.dtype == np.uint8 and painted.shape[0] == shown[0] and painted.shape[1] > shown[1]
    np.testing.assert_array_equal(frame, before)
    assert canvas.paint(frame, canvas.Scene()).shape == (*shown, 3)


def test_nothing_found_is_painted_as_nothing():
    frame = np.full((480, 640, 3), 77, np.uint8)
    scene = canvas.Scene(keypoints=np.empty((0, 2)), scores=np.empty(0), trails=np.empty((0, 20, 2)))
    np.testing.assert_array_equal(canvas.paint(frame, scene), frame)


def test_a_keypoint_is_painted_where_it_is():
    for mirror, x in ((False, 10), (True, 89)):
        scene = canvas.Scene(keypoints=np.array([[10.0, 20.0]]), scores=np.ones(1), mirror=mirror)
        rows, columns = np.nonzero(canvas.paint(np.zeros((100, 100, 3), np.uint8), scene).sum(axis=2) > 300)
        assert abs(rows.mean() - (20.5 * 5 - 0.5)) < 0.3 and abs(columns.mean() - ((x + 0.5) * 5 - 0.5)) < 0.3


def test_colours_are_those_of_the_other_pictures():
    for name in ("INLIER", "ESTIMATED"):
        assert "#{:02x}{:02x}{:02x}".format(*getattr(canvas, name)) == getattr(overlay, name)
