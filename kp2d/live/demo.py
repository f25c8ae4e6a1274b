"""Owns what the live demonstration makes of a frame: keypoints, tracks, a reference, and what each costs."""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
import time
from typing import Any

import cv2
import numpy as np

from kp2d import checks, geometry, images
from kp2d.config import Protocol
from kp2d.live import canvas, tracking, video
from kp2d.methods import matching, refinement, registration
from kp2d.methods.decode import Features
from kp2d.methods.extractors import Extractor

PIXELS = 240 * 320  # what a method sees of a frame if no size is given
SMOOTHED = 15  # frames over which numbers on the screen are averaged
MESSAGE_FRAMES = 40
KEYS = {
    "q": "quit (also Esc)",
    "space": "pause",
    "k": "keypoints on or off",
    "t": "tracks on or off",
    "r": "take this frame as the reference",
    "s": "save a picture",
    "h": "this help",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is looked for, and how it is shown."""

    image_size: tuple[int, int] | None = None  # (height, width) px the method sees; None: see `seen_size`
    top_k: int = 300  # keypoints kept a frame
    score_threshold: float = 0.5  # [0, 1); for networks, whose score is a probability
    mirror: bool = False  # show frames as in a mirror

    def __post_init__(self):
        self.protocol()
        if self.image_size is not None:
            object.__setattr__(self, "image_size", checks.is_image_size(self.image_size))

    def protocol(self) -> Protocol:
        """Returns the settings as those of an evaluation, which also checks them."""
        return Protocol(top_k=(self.top_k,), score_threshold=self.score_threshold)


def seen_size(frame_size: tuple[int, int], cell: int) -> tuple[int, int]:
    """Returns the (height, width) px that a method sees by default: as many pixels as 240x320, not distorted.

    Both are divisible by the cell; a frame of 480x640 is seen at 240x320.
    """
    scale = math.sqrt(PIXELS / (frame_size[0] * frame_size[1]))
    step = max(cell, 8)
    height, width = (max(3, round(side * scale / step)) * step for side in frame_size)
    return height, width


class Demo:
    """Keypoints, tracks and a reference picture over frames that come one after the other.

    Attributes:
        settings: What is looked for.
        extractor: The method, which keeps as many keypoints as the settings say.
        shows: What is switched on: "keypoints", "tracks", "help".
        scene: What was found in the last frame.
        tracks: Those that were seen in it.
    """

    def __init__(
        self, extractor: Extractor, settings: Settings | None = None, *, reference: np.ndarray | None = None
    ) -> None:
        """Looks at the reference, uint8 RGB `[H, W, 3]`, a picture to find in the frames, if there is one.

        Raises:
            InputError: If the reference has too few keypoints, or a size does not fit the method.
        """
        self.settings = settings or Settings()
        extractor = dataclasses.replace(extractor, top_k=self.settings.top_k)
        if self.settings.image_size is not None:
            checks.fits_cells(self.settings.image_size, extractor.cell)
        self.extractor = extractor
        self.shows = {"keypoints": True, "tracks": True, "help": False}
        self._tracker = tracking.Tracker()
        self._reference: tuple[np.ndarray, Features] | None = None
        self._reference_seen: np.ndarray | None = None  # reduced: a photograph may have 12 megapixels
        self._frame_size: tuple[int, int] | None = None
        self._recent: collections.deque[dict[str, float]] = collections.deque(maxlen=SMOOTHED)
        self.tracks: tracking.Tracks | None = None
        self.scene = canvas.Scene(mirror=self.settings.mirror)
        self._frame = np.zeros((images.MIN_SIDE, images.MIN_SIDE, 3), np.uint8)
        self._message, self._message_left = "", 0
        if reference is not None:
            self.refer_to(reference)

    def refer_to(self, image: np.ndarray) -> None:
        """Makes a picture, uint8 RGB `[H, W, 3]`, the reference.

        Raises:
            InputError: If it has too few keypoints to be found again; an earlier reference stays.
        """
        image = images.bounded(image)
        features, _ = self._extract(image)
        if len(features) < registration.MIN_INLIERS:
            raise checks.problem(
                f"a reference picture with at least {registration.MIN_INLIERS} keypoints",
                f"{len(features)} at {'x'.join(map(str, image.shape[:2]))} px",
                "Choose one with more texture, or lower the score threshold.",
            )
        self._reference = image, features
        size = seen_size(image.shape[:2], self.extractor.cell)
        self._reference_seen = images.resize_image(image, size)

    def step(self, frame: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Looks at the next frame, uint8 RGB `[H, W, 3]`.

        One of another size than the first is fitted into that, and a larger one than 4K into
        `images.bounded_size`. Returns the painted frame, and a row of numbers: counts, and milliseconds a
        step.
        """
        self._frame_size = self._frame_size or images.bounded_size(checks.is_image(frame).shape[:2])
        self._frame = video.fitted(frame, self._frame_size)
        features, spent = self._extract(self._frame)
        started = time.perf_counter()
        self.tracks = tracks = self._tracker.update(features, self._frame_size).live()
        match = self._match(features)
        drawing = time.perf_counter()
        row = {
            "keypoints": len(features),
            "tracks": len(tracks),
            "mean_track_length": tracks.mean_length,
            "matches": 0 if match is None else len(match.inliers),
            "inliers": 0 if match is None else int(match.inliers.sum()),
            "found": None if match is None else match.homography is not None,
        }
        self._message_left = max(0, self._message_left - 1)
        self.scene = self._described(features, tracks, match, row)
        painted = self.repaint()
        spent["match"] = 1e3 * (drawing - started)
        spent["draw"] = 1e3 * (time.perf_counter() - drawing)
        return painted, {**row, **{f"{name}_ms": value for name, value in spent.items()}}

    def repaint(self) -> np.ndarray:
        """Returns the last frame painted again, uint8 RGB, after something was switched on or off."""
        scene = dataclasses.replace(
            self.scene,
            keypoints=self.scene.keypoints if self.shows["keypoints"] else None,
            trails=self.scene.trails if self.shows["tracks"] else None,
            help_lines=[f"{key} - {text}" for key, text in KEYS.items()] if self.shows["help"] else (),
            message=self._message if self._message_left else "",
        )
        return canvas.paint(self._frame, scene)

    def press(self, key: str) -> None:
        """Does what a key means: k, t and h switch, r takes the last frame as the reference."""
        switches = {"k": "keypoints", "t": "tracks", "h": "help"}
        if key in switches:
            self.shows[switches[key]] = not self.shows[switches[key]]
        elif key == "r":
            try:
                self.refer_to(self._frame)
                self.say("this frame is the reference")
            except checks.InputError:
                self.say("too few keypoints for a reference")

    def say(self, message: str) -> None:
        """Shows words for a moment."""
        self._message, self._message_left = message, MESSAGE_FRAMES

    def note(self, spent: dict[str, float]) -> None:
        """Takes the milliseconds of a frame, by step and "total", into the averages on the screen."""
        self._recent.append(spent)

    def _extract(self, image: np.ndarray) -> tuple[Features, dict[str, float]]:
        """Returns the best features in the picture's own pixels, and milliseconds a step."""
        own_size = checks.is_image(image).shape[:2]
        image_size = self.settings.image_size or seen_size(own_size, self.extractor.cell)
        features, spent = self.extractor.timed(images.resize_image(image, image_size))
        features = registration.confident(features, self.extractor, self.settings.protocol())
        features = features.take(slice(self.settings.top_k))
        back = geometry.resize_matrix(image_size, own_size)
        keypoints = geometry.warp_points(features.keypoints, back).astype(np.float32)
        return dataclasses.replace(features, keypoints=keypoints), spent

    def _match(self, features: Features) -> canvas.Match | None:
        """Looks for the reference among the features of a frame."""
        if self._reference is None:
            return None
        image, known = self._reference
        known = registration.turned_to(known, features, self.extractor)
        matches = matching.mutual_nearest(known.descriptors, features.descriptors)
        points0, points1 = known.keypoints[matches[:, 0]], features.keypoints[matches[:, 1]]
        scale = math.sqrt(self._frame_size[0] * self._frame_size[1] / PIXELS)  # of pixels to those seen
        estimate = registration.estimate_homography(
            points0, points1, estimator="accurate", ransac_threshold=registration.THRESHOLD * scale
        )
        if estimate.trustworthy:
            own = geometry.resize_matrix(self._reference_seen.shape[:2], image.shape[:2])
            seen0 = geometry.warp_points(points0[estimate.inliers], np.linalg.inv(own))
            alike = refinement.likeness(self._reference_seen, self._frame, seen0, estimate.homography @ own)
            estimate = dataclasses.replace(estimate, likeness=alike)
        found = estimate.trustworthy and plausible(estimate.homography, image.shape[:2], self._frame_size)
        return canvas.Match(
            image=image,
            points0=points0,
            points1=points1,
            inliers=estimate.inliers & found,
            homography=estimate.homography if found else None,
        )

    def _described(
        self, features: Features, tracks: tracking.Tracks, match: canvas.Match | None, row: dict[str, Any]
    ) -> canvas.Scene:
        """Puts a frame's result into words and points."""
        names = self._recent[0] if self._recent else ()
        mean = {name: statistics.fmean(spent[name] for spent in self._recent) for name in names}
        counts = f"{row['keypoints']} keypoints  {row['tracks']} tracks"
        steps = "  ".join(f"{name} {ms:.1f}" for name, ms in mean.items() if name != "total")
        lines = [f"{counts} of {row['mean_track_length']:.1f} frames", f"{steps} ms"]
        if match is not None:
            agree = f"{row['inliers']} of {row['matches']} matches agree"
            lines.insert(1, f"reference: {agree if row['found'] else 'not found'}")
        return canvas.Scene(
            keypoints=features.keypoints,
            scores=features.scores,
            trails=tracks.trails,
            match=match,
            title=self.extractor.label,
            rate=f"{1e3 / mean['total']:.0f} FPS" if mean.get("total") else "",
            status=lines if mean else lines[:-1],
            mirror=self.settings.mirror,
        )


def plausible(homography: np.ndarray, image_size0: tuple[int, int], image_size1: tuple[int, int]) -> bool:
    """Tells whether a homography shows a picture as a camera could: whole, not mirrored, not tiny."""
    corners = np.column_stack([geometry.corners(image_size0), np.ones(4)]) @ homography.T
    if not (corners[:, 2] > 1e-6).all():
        return False
    quad = corners[:, :2] / corners[:, 2:]
    area = cv2.contourArea(quad.astype(np.float32)) / (image_size1[0] * image_size1[1])
    return geometry.is_convex(quad) and 0.002 < area < 100
