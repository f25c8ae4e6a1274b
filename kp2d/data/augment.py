"""Owns how one photograph becomes a pair of views: homography, photometric change, corner targets.

Everything is a function of a `numpy.random.Generator`; OpenCV and NumPy only.

Convention: homographies act on column vectors (x, y, 1), (x, y) px, centre of the top-left pixel
= (0, 0). `image_size` is (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kp2d.config import check_types, require
from kp2d.methods.decode import offset_reach
from kp2d.methods.matching import TURNS


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How one photograph becomes a pair of views. Ranges are symmetric unless two values stand.

    Attributes:
        max_angle: In-plane rotation, degrees.
        turn: Probability of a further turn of the second view by 0, 90, 180 or 270 degrees. The descriptors
            learn to turn along: by a quarter turn their blocks move on by one (`kp2d.train.losses.steer`).
        scale: Zoom of the second view against the first (smallest, largest), log-uniform.
        perspective: Displacement of each corner, fraction of the side.
        tilt: Rotation of the second camera out of the plane, degrees.
        translation: Shift, fraction of the side.
        zoom: Photograph pixels per pixel of the first view (smallest, largest).
        flip: Probability of a left-right flip of both views.
        gray: Probability of gray views (each on its own).
        channel_swap: Probability of reordering the colour channels of both views.
        exposure: Stops of gain in linear light.
        gamma: Exponent (smallest, largest), log-uniform.
        brightness: Additive, fraction of full scale.
        contrast: Factor (smallest, largest).
        saturation: Factor (smallest, largest).
        hue: Shift, fraction of the circle.
        tint: Gain of each channel, fraction.
        noise: Largest standard deviation, fraction of full scale.
        blur: Largest Gaussian kernel, px (odd; 0 turns blur off).
        motion_blur: Largest length, px (0 turns it off).
        jpeg: Lowest quality (100 turns compression off).
        shadow: Probability of a soft-edged shadow.
        start: Strength of the homography at step 0; it grows linearly to 1.
        ramp: Fraction of the steps until full strength (0: from the first step).
    """

    max_angle: float = 45.0
    turn: float = 0.0
    scale: tuple[float, float] = (0.6, 1.67)
    perspective: float = 0.12
    tilt: float = 35.0
    translation: float = 0.1
    zoom: tuple[float, float] = (0.6, 2.0)
    flip: float = 0.5
    gray: float = 0.1
    channel_swap: float = 0.0
    exposure: float = 1.5
    gamma: tuple[float, float] = (0.5, 2.0)
    brightness: float = 0.12
    contrast: tuple[float, float] = (0.6, 1.4)
    saturation: tuple[float, float] = (0.5, 1.4)
    hue: float = 0.03
    tint: float = 0.1
    noise: float = 0.03
    blur: int = 5
    motion_blur: int = 5
    jpeg: int = 40
    shadow: float = 0.3
    start: float = 1.0
    ramp: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "augment")
        for name in ("scale", "zoom", "gamma", "contrast", "saturation"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"augment.{name} with 0 < smallest <= largest", (low, high))
        for name in ("turn", "flip", "gray", "channel_swap", "shadow", "start", "ramp"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name} in [0, 1]", value)
        require(0 <= self.tilt < 70, "augment.tilt in [0, 70) degrees", self.tilt)
        require(0 <= self.perspective < 0.45, "augment.perspective in [0, 0.45)", self.perspective)
        require(1 <= self.jpeg <= 100, "augment.jpeg in [1, 100]", self.jpeg)


@dataclass(frozen=True, kw_only=True)
class ViewPair:
    """Two views of one photograph."""

    image0: np.ndarray  # uint8 RGB `[H, W, 3]`
    image1: np.ndarray  # uint8 RGB `[H, W, 3]`
    homography: np.ndarray  # float32 `[3, 3]`, pixels of image0 to pixels of image1
    # int32 scalar, quarter turns within the homography, 0 to 3, that the descriptors follow
    turns: np.ndarray
    # float32 `[Hc, Wc, 4]` from `corner_targets`, of the view before the photometric change, so that the
    # teacher knows what the changed picture hides
    corners0: np.ndarray
    corners1: np.ndarray  # the same of the second view


def make_view_pair(
    photo: np.ndarray,
    image_size: tuple[int, int],
    cell: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> ViewPair:
    """Makes two views of a photograph.

    Args:
        photo: uint8 RGB `[h, w, 3]` of any size.
        image_size: (height, width) px of a view.
        cell: Cell side of the network, px.
        config: Ranges.
        rng: Source of all randomness.
        strength: Multiplies the extent of the homography, in [0, 1].
    """
    if rng.random() < config.flip:
        photo = np.ascontiguousarray(photo[:, ::-1])
    if rng.random() < config.channel_swap:
        photo = np.ascontiguousarray(photo[..., rng.permutation(3)])
    turns = int(rng.integers(TURNS)) if config.turn and rng.random() < config.turn else 0
    homography = sample_homography(image_size, config, rng, strength, turns)
    placement = _place_views(photo, image_size, homography, config.zoom, rng)
    view0 = _render(photo, placement, image_size)
    view1 = _render(photo, homography @ placement, image_size)
    return ViewPair(
        image0=change_appearance(view0, config, rng),
        image1=change_appearance(view1, config, rng),
        homography=homography.astype(np.float32),
        turns=np.int32(turns),
        corners0=corner_targets(view0, cell),
        corners1=corner_targets(view1, cell),
    )


def sample_homography(
    image_size: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
    strength: float = 1.0,
    turns: int = 0,
) -> np.ndarray:
    """Draws a homography: tilt of the camera, rotation, zoom, corner displacement, shift.

    Args:
        image_size: (height, width) px of both views.
        config: Ranges.
        rng: Source of randomness.
        strength: Multiplies angles, displacements and the logarithm of the zoom.
        turns: Further quarter turns, x towards y, whole at any strength.

    Returns:
        float64 `[3, 3]`, first view to second view.
    """
    height, width = image_size
    size = np.array([width, height], float)
    center = (size - 1) / 2
    to_center, from_center = _shift(-center), _shift(center)
    angle = np.deg2rad(config.max_angle) * strength * rng.uniform(-1, 1) + turns * np.pi / 2
    zoom = np.exp(strength * rng.uniform(*np.log(config.scale)))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    similarity = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    tilt = np.deg2rad(config.tilt) * strength * np.sqrt(rng.random())
    axis = rng.uniform(0, 2 * np.pi)
    rotation, _ = cv2.Rodrigues(tilt * np.array([np.cos(axis), np.sin(axis), 0.0]))
    # The plane turns about its centre, seen by a camera 1.2 image sides away.
    tilted = np.column_stack([rotation[:, 0], rotation[:, 1], [0, 0, 1]])
    tilted[2, :2] /= 1.2 * size.max()
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (size - 1)
    moved = corners + strength * config.perspective * rng.uniform(-1, 1, (4, 2)) * size
    bent = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    shift = _shift(strength * config.translation * rng.uniform(-1, 1, 2) * size)
    homography = shift @ from_center @ similarity @ tilted @ to_center @ bent
    return homography / homography[2, 2]


def change_appearance(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Changes light, colour and sharpness of uint8 RGB `[H, W, 3]`; geometry stays."""
    x = image.astype(np.float32) / 255
    if rng.random() < config.gray:
        x = np.repeat(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    else:
        x = _change_color(x, config, rng)
    if rng.random() < config.shadow:
        x = x * _shadow(image.shape[:2], rng)[..., None]
    if config.exposure and rng.random() < 0.6:
        # Gain in linear light with clipping, as a sensor does it; 2.2 is the display gamma.
        x = np.minimum(x, 1) ** 2.2 * 2 ** (config.exposure * rng.uniform(-1, 1))
        x = np.minimum(x, 1) ** (1 / 2.2)
    if rng.random() < 0.6:
        x = np.clip(x, 0, 1) ** np.exp(rng.uniform(*np.log(config.gamma)))
    mean = float(x.mean())
    x = (x - mean) * rng.uniform(*config.contrast) + mean
    x = x + config.brightness * rng.uniform(-1, 1)
    x = _blur(x, config, rng)
    if config.noise and rng.random() < 0.5:
        sigma = config.noise * rng.random()
        x = x + rng.standard_normal(x.shape, np.float32) * np.float32(sigma)
    result = np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)
    if config.jpeg < 100 and rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(config.jpeg, 96))]
        _, data = cv2.imencode(".jpg", result, quality)
        result = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return result


def corner_targets(image: np.ndarray, cell: int) -> np.ndarray:
    """Finds the strongest Shi-Tomasi corner within the reach of every cell, to sub-pixel accuracy.

    The response is the smaller eigenvalue of the structure tensor of the square root of gray (so
    that dark parts have corners too). The saliency is the response over its 90 % quantile. The
    wanted score is the saliency, fading to 0 where the corner belongs to a neighbouring cell: one
    corner, one keypoint.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        cell: Cell side, px.

    Returns:
        float32 `[H/cell, W/cell, 4]`: offset (x, y) in [−1, 1], saliency and score in [0, 1].
    """
    gray = np.sqrt(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255)
    gray = cv2.GaussianBlur(gray, (0, 0), 0.7)
    response = cv2.cornerMinEigenVal(gray, blockSize=3, ksize=3)
    response = cv2.GaussianBlur(response, (0, 0), 0.7)
    rows, columns = image.shape[0] // cell, image.shape[1] // cell
    window = 2 * int(offset_reach(cell))  # pixels whose centre is within reach
    before = (window - cell) // 2
    padded = cv2.copyMakeBorder(response, *[before + 1] * 4, cv2.BORDER_CONSTANT, value=-1.0)
    blocks = np.lib.stride_tricks.sliding_window_view(padded, (window, window))
    blocks = blocks[1 : 1 + rows * cell : cell, 1 : 1 + columns * cell : cell]
    blocks = blocks.reshape(rows, columns, -1)
    best = blocks.argmax(axis=-1)
    peak = np.take_along_axis(blocks, best[..., None], axis=-1)[..., 0]
    y, x = np.divmod(best, window)
    row = np.arange(rows)[:, None] * cell + y + 1
    column = np.arange(columns)[None] * cell + x + 1
    dx = _parabola(padded[row, column - 1], peak, padded[row, column + 1])
    dy = _parabola(padded[row - 1, column], peak, padded[row + 1, column])
    middle = (window - 1) / 2
    offset = np.stack([x + dx - middle, y + dy - middle], axis=-1)
    saliency = np.clip(peak / (np.quantile(peak, 0.9) + 1e-9), 0, 1)
    score = saliency * np.clip(2.5 - 4 / cell * np.abs(offset).max(axis=-1), 0, 1)
    offset = np.clip(offset / offset_reach(cell), -1, 1)
    targets = np.concatenate([offset, saliency[..., None], score[..., None]], axis=-1)
    return targets.astype(np.float32)


def _place_views(
    photo: np.ndarray,
    image_size: tuple[int, int],
    homography: np.ndarray,
    zoom: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Places both views in the photograph, so that neither sees its edge if that is possible.

    Returns the matrix from pixels of the photograph to pixels of the first view.
    """
    height, width = image_size
    corners = np.array([[[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]], float)
    second = cv2.perspectiveTransform(corners, np.linalg.inv(homography))
    both = np.concatenate([corners[0], second[0]])
    low, high = both.min(axis=0), both.max(axis=0)
    size = np.array([photo.shape[1], photo.shape[0]], float) - 1
    fit = float((size / (high - low)).min())
    scale = min(max(fit, zoom[0]), np.exp(rng.uniform(*np.log(zoom))))
    slack = size - scale * (high - low)
    origin = np.where(slack > 0, rng.random(2) * slack, slack / 2) - scale * low
    return np.array([[1, 0, -origin[0]], [0, 1, -origin[1]], [0, 0, scale]]) / scale


def _render(photo: np.ndarray, matrix: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Warps the photograph, first blurring it as much as the view shrinks its centre."""
    height, width = image_size
    inverse = np.linalg.inv(matrix)
    center = np.array([[[width / 2, height / 2], [width / 2 + 1, height / 2]]])
    step = np.diff(cv2.perspectiveTransform(center, inverse)[0], axis=0)
    shrink = float(np.hypot(*step[0]))
    if shrink > 1.2:
        photo = cv2.GaussianBlur(photo, (0, 0), 0.5 * np.sqrt(shrink**2 - 1))
    return cv2.warpPerspective(
        photo, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def _change_color(x: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    saturation = rng.uniform(*config.saturation)
    gray = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = gray + (x - gray) * np.float32(saturation)
    if config.hue:
        x = x @ _hue_rotation(2 * np.pi * config.hue * rng.uniform(-1, 1)).T
    tint = 1 + config.tint * rng.uniform(-1, 1, 3)
    return np.clip(x * tint.astype(np.float32), 0, 1)


def _hue_rotation(angle: float) -> np.ndarray:
    """Rotation of RGB about the gray axis."""
    rotation, _ = cv2.Rodrigues(np.full(3, angle / np.sqrt(3)))
    return rotation.astype(np.float32)


def _shadow(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Darkens one side of a random line, with a soft edge."""
    height, width = size
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[:height, :width]
    side = np.cos(angle) * (x / width - rng.uniform(0.2, 0.8))
    side = side + np.sin(angle) * (y / height - rng.uniform(0.2, 0.8))
    weight = 1 / (1 + np.exp(np.clip(-side / rng.uniform(0.01, 0.1), -30, 30)))
    return (1 - rng.uniform(0.2, 0.7) * weight).astype(np.float32)


def _blur(x: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    if config.blur >= 3 and kind < 0.35:
        side = 2 * int(rng.integers(1, config.blur // 2 + 1)) + 1
        return cv2.GaussianBlur(x, (side, side), 0)
    if config.motion_blur >= 3 and kind > 0.85:
        length = int(rng.integers(3, config.motion_blur + 1))
        kernel = np.zeros((config.motion_blur, config.motion_blur), np.float32)
        middle = config.motion_blur // 2
        angle = rng.uniform(0, np.pi)
        end = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(np.round(middle + sign * end).astype(int).tolist()) for sign in (-1, 1)]
        cv2.line(kernel, *ends, 1.0)
        return cv2.filter2D(x, -1, kernel / kernel.sum())
    return x


def _parabola(left: np.ndarray, peak: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Vertex of the parabola through three samples, within half a pixel of the middle one."""
    curvature = left - 2 * peak + right
    vertex = (left - right) / np.where(curvature < 0, 2 * curvature, 1)
    return np.where(curvature < 0, np.clip(vertex, -0.5, 0.5), 0)


def _shift(vector: np.ndarray) -> np.ndarray:
    return np.array([[1, 0, vector[0]], [0, 1, vector[1]], [0, 0, 1.0]])
