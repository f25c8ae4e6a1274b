"""Owns the photographs of the `sample` data set: where they are, what licences allow, other views of them."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import cv2
import numpy as np

from kp2d import checks, geometry, images, provenance

PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

_SKIMAGE = "https://scikit-image.org/docs/stable/api/skimage.data.html"
_SKLEARN = {
    "package": "sklearn",
    "licence": "CC BY 2.0",
    "licence_url": "https://creativecommons.org/licenses/by/2.0/",
}
_SUPERSAMPLING = 3  # samples a pixel and axis; their mean is what keeps smaller views from aliasing
_MAX_ROTATION = 35.0  # degrees
_MAX_ZOOM_IN, _MAX_ZOOM_OUT = 1.5, 1 / 0.6
_MAX_JITTER = 0.14  # of the crop's sides, a corner
_MAX_SHIFT = 0.35  # of the crop's sides
_MIN_OVERLAP = 0.5  # of the smaller of both views


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A photograph inside an installed package, and what may be done with it; most are CC0, in skimage."""

    name: str  # short name; the sequences are `v_NAME` and `i_NAME`
    package: str = "skimage"  # import name of the package that holds the file
    file: str  # path inside that package
    kinds: str  # "v" (viewpoint), "i" (illumination) or both, as one string
    title: str  # what it shows
    author: str  # whom to name
    licence: str = "CC0 1.0"  # name of the licence, or what is known about it
    # its text, or where the statement stands
    licence_url: str = "https://creativecommons.org/publicdomain/zero/1.0/"
    source: str = _SKIMAGE  # where the photograph comes from
    redistributable: bool = True  # whether pictures made from it may be committed and shown
    # (x, y) of the crop's centre as fractions of the photograph's width and height
    focus: tuple[float, float] = (0.5, 0.5)


# Licences: docstrings of skimage.data (0.26) and sklearn/datasets/images/README.txt (1.9).
SCENES = (
    Scene(
        name="astronaut",
        file="data/astronaut.png",
        kinds="vi",
        title="Eileen Collins, NASA astronaut",
        author="NASA",
        licence="public domain",
        licence_url=_SKIMAGE,
        source="https://flic.kr/p/r9qvLn",
        focus=(0.5, 0.36),
    ),
    Scene(
        name="brick", file="data/brick.png", kinds="v", title="Brick wall", author="CC0Textures (Bricks25)"
    ),
    Scene(
        name="camera",
        file="data/camera.png",
        kinds="v",
        title="Photographer with a camera",
        author="Lav Varshney",
    ),
    Scene(
        name="chelsea",
        file="data/chelsea.png",
        kinds="i",
        title="Chelsea the cat",
        author="Stefan van der Walt",
    ),
    Scene(
        name="coffee",
        file="data/coffee.png",
        kinds="vi",
        title="Cup of coffee",
        author="Rachel Michetti, Pikolo Espresso Bar",
    ),
    Scene(name="grass", file="data/grass.png", kinds="i", title="Grass", author="linolafett (DeviantArt)"),
    Scene(name="gravel", file="data/gravel.png", kinds="v", title="Gravel", author="CC0Textures (Gravel04)"),
    Scene(
        name="motorcycle",
        file="data/motorcycle_left.png",
        kinds="v",
        title="Motorcycle, left image of a stereo pair",
        author="D. Scharstein et al., Middlebury stereo data 2014",
        licence="not stated",
        licence_url=_SKIMAGE,
        source="https://vision.middlebury.edu/stereo/data/scenes2014/",
        redistributable=False,
    ),
    # The documentation says public domain (2015), the photograph's own page CC BY-NC 2.0:
    # scikit-image issue 5095 is open about it, so pictures of it stay out of the repository.
    Scene(
        name="rocket",
        file="data/rocket.jpg",
        kinds="i",
        title="Launch of Falcon 9 with DSCOVR",
        author="SpaceX",
        licence="public domain by scikit-image, CC BY-NC 2.0 by its page",
        licence_url="https://github.com/scikit-image/scikit-image/issues/5095",
        source="https://www.flickr.com/photos/spacexphotos/16511594820/",
        redistributable=False,
    ),
    Scene(
        name="china",
        file="datasets/images/china.jpg",
        kinds="vi",
        title="Temple in China",
        author="danielbuechele (Flickr)",
        source="https://www.flickr.com/photos/danielbuechele/6061409035/",
        **_SKLEARN,
    ),
    # The README names danielbuechele for this one too, but its links lead to vultilion, the photographer.
    Scene(
        name="flower",
        file="datasets/images/flower.jpg",
        kinds="i",
        title="Flower",
        author="vultilion (Flickr)",
        source="https://www.flickr.com/photos/vultilion/6056698931/",
        **_SKLEARN,
    ),
)


def version(package: str) -> str:
    """Returns the version of the distribution that brings a package of photographs.

    Raises:
        InputError: If it is not installed.
    """
    if found := provenance.version(PACKAGES[package]):
        return found
    raise _missing(package)


def path(scene: Scene) -> Path:
    """Returns the file of a scene's photograph; its package is found, not imported.

    Raises:
        InputError: If the package is not installed.
    """
    spec = importlib.util.find_spec(scene.package)
    if spec is None or not spec.origin:
        raise _missing(scene.package)
    return Path(spec.origin).parent / scene.file


def photograph(scene: Scene | str) -> np.ndarray:
    """Returns the photograph of a scene, or of the one of a name, uint8 `[H, W, 3]` RGB.

    Raises:
        InputError: If there is no such scene, or its package is not installed or lacks the file.
    """
    if isinstance(scene, str):
        known = {one.name: one for one in SCENES}
        scene = known[checks.one_of("scene", scene, known)]
    return images.read_image(path(scene))


def _missing(package: str) -> checks.InputError:
    return checks.problem(
        f"the package {PACKAGES[package]}, whose photographs are used",
        "an installation without it",
        "Run `pip install scikit-image scikit-learn`.",
    )


def sample_view(image: np.ndarray, matrix: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Looks at a photograph through a homography, averaging over each pixel's area.

    Convention: pixel centres at integers on both sides, so a pixel covers its centre +- 1/2.

    Args:
        image: `[H, W, 3]`, uint8.
        matrix: `[3, 3]`, pixels of the view to pixels of the photograph.
        image_size: (height, width) of the view, px.

    Returns:
        float32 `[height, width, 3]`, 0 to 255.
    """
    height, width = image_size
    step = _SUPERSAMPLING
    # Fine pixel u has its centre at (u + 1/2) / step - 1/2 of the view.
    offset = 0.5 / step - 0.5
    fine = np.array([[1 / step, 0, offset], [0, 1 / step, offset], [0, 0, 1]])
    warped = cv2.warpPerspective(
        image.astype(np.float32),
        matrix @ fine,
        (width * step, height * step),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)


def crop(
    photograph_size: tuple[int, int],
    image_size: tuple[int, int],
    fraction: float,
    focus: tuple[float, float],
) -> np.ndarray:
    """Cuts an image out of a photograph, as near to the focus as the photograph's edges allow.

    Args:
        photograph_size: (height, width) px.
        image_size: (height, width) px, whose aspect ratio the crop has.
        fraction: Sides of the crop as a fraction of those of the largest that fits.
        focus: (x, y) of the crop's centre as fractions of the photograph's width and height.

    Returns:
        float64 `[4, 2]`, its corners, clockwise, px of the photograph.
    """
    height, width = photograph_size
    scale = fraction * min(height / image_size[0], width / image_size[1])
    half = np.array([image_size[1], image_size[0]]) * scale / 2
    last = np.array([width - 1, height - 1])
    centre = np.clip(focus * last, half - 0.5, last + 0.5 - half)
    return centre + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


def to_photograph(quad: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Returns `[3, 3]`, view to photograph; the view's edges (half a pixel out) go to the quad."""
    height, width = image_size
    edges = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5
    rows, values = [], []
    # Eight linear equations in float64: cv2.getPerspectiveTransform takes only float32 corners.
    for (x, y), (u, v) in zip(edges, quad, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1).reshape(3, 3)


def sample_quad(
    first: np.ndarray, photograph_size: tuple[int, int], strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws another view of a photograph: inside of it, overlapping the first view, not mirrored.

    Args:
        first: `[4, 2]` px, corners of the first view.
        photograph_size: (height, width) px.
        strength: Multiplies rotation, zoom, corner displacement and shift, in [0, 1].
        rng: Source of randomness.

    Returns:
        float64 `[4, 2]`, corners of the other view, px of the photograph.

    Raises:
        InputError: If the photograph has no room for one.
    """
    centre, sides = first.mean(axis=0), first[2] - first[0]
    upper = np.array([photograph_size[1], photograph_size[0]]) - 1.5
    easier = 1.0
    for attempt in range(1, 100_000):
        if attempt % 100 == 0:
            easier *= 0.95  # where there is little room, a milder view rather than none
        amount = strength * easier
        angle = np.deg2rad(_MAX_ROTATION) * amount * rng.uniform(0.5, 1) * rng.choice([-1, 1])
        zoom = rng.choice([1 / _MAX_ZOOM_IN, _MAX_ZOOM_OUT]) ** (amount * rng.uniform(0.3, 1))
        jitter = rng.uniform(-1, 1, (4, 2)) * _MAX_JITTER * amount * sides
        shift = rng.uniform(-1, 1, 2) * _MAX_SHIFT * amount * sides
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        quad = centre + shift + zoom * ((first - centre + jitter) @ rotation.T)
        inside = (quad >= 0.5).all() and (quad <= upper).all()
        if inside and geometry.is_convex(quad) and _overlap(first, quad) >= _MIN_OVERLAP:
            return quad
    raise checks.problem("room for another view", f"a photograph of {photograph_size} px")


def _overlap(quad0: np.ndarray, quad1: np.ndarray) -> float:
    """Returns the shared area as a fraction of the smaller of two convex quadrilaterals."""
    quad0, quad1 = quad0.astype(np.float32), quad1.astype(np.float32)
    shared, _ = cv2.intersectConvexConvex(quad0, quad1)
    return shared / min(cv2.contourArea(quad0), cv2.contourArea(quad1))


def new_camera(view: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Returns the view with slightly other exposure, white balance and sensor noise, uint8."""
    gamma = 1 + 0.12 * strength * rng.uniform(-1, 1)
    gain = 1 + 0.06 * strength * rng.uniform(-1, 1, 3) + 0.08 * strength * rng.uniform(-1, 1)
    noise = (1.0 + 1.5 * strength) * rng.standard_normal(view.shape)
    return _to_uint8(255 * (view / 255) ** gamma * gain + noise)


def new_light(view: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Returns the view under another light: colour, shadow, vignette, bloom, noise; uint8."""
    height, width = view.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j][..., None]
    stops = 2.0 * strength * rng.uniform(0.6, 1) * rng.choice([-1, 1])
    warmth = 0.35 * strength * rng.uniform(-1, 1)
    light = 2.0**stops * np.exp(warmth * np.array([1, 0, -1]))
    angle, position, softness = (
        rng.uniform(0, 2 * np.pi),
        rng.uniform(-0.5, 0.5),
        rng.uniform(0.05, 0.3),
    )
    side = (x * np.cos(angle) + y * np.sin(angle) - position) / softness
    shadow = 1 - 0.7 * strength * rng.uniform(0.5, 1) / (1 + np.exp(-np.clip(side, -30, 30)))
    vignette = 1 - 0.5 * strength * rng.uniform(0, 1) * (x**2 + y**2) / 2
    linear = (np.clip(view, 0, 255) / 255) ** 2.2 * light * shadow * vignette
    # What exceeds the sensor's range is cut and spills over into the neighbourhood.
    spill = cv2.GaussianBlur(np.clip(linear - 1, 0, None), (0, 0), 0.02 * width)
    linear = np.clip(linear + 0.5 * spill, 0, 1)
    deviation = (0.0004 + 0.0016 * strength) + (0.006 + 0.014 * strength) * np.sqrt(linear)
    linear = np.clip(linear + deviation * rng.standard_normal(linear.shape), 0, 1)
    gamma = 1 / 2.2 * (1 + 0.15 * strength * rng.uniform(-1, 1))
    contrast = 1 + 0.3 * strength * rng.uniform(-1, 1)
    return _to_uint8(255 * (0.5 + contrast * (linear**gamma - 0.5)))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
