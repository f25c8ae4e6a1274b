"""Owns the photographs of the `sample` data set: where they are, what their licences allow."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from pathlib import Path

import numpy as np

from kp2d import checks, images

PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

_SKIMAGE = "https://scikit-image.org/docs/stable/api/skimage.data.html"
_SKLEARN = {
    "package": "sklearn",
    "licence": "CC BY 2.0",
    "licence_url": "https://creativecommons.org/licenses/by/2.0/",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A photograph inside an installed package, and what may be done with it; most are CC0 in scikit-image.

    Attributes:
        name: Short name; the sequences are `v_NAME` and `i_NAME`.
        package: Import name of the package that holds the file.
        file: Path inside that package.
        kinds: "v" (viewpoint), "i" (illumination) or both, as one string.
        title: What it shows.
        author: Whom to name.
        licence: Name of the licence, or what is known about it.
        licence_url: Its text, or where the statement stands.
        source: Where the photograph comes from.
        redistributable: Whether pictures made from it may be committed and shown.
        focus: (x, y) of the crop's centre as fractions of the photograph's width and height.
    """

    name: str
    package: str = "skimage"
    file: str
    kinds: str
    title: str
    author: str
    licence: str = "CC0 1.0"
    licence_url: str = "https://creativecommons.org/publicdomain/zero/1.0/"
    source: str = _SKIMAGE
    redistributable: bool = True
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
    try:
        return importlib.metadata.version(PACKAGES[package])
    except importlib.metadata.PackageNotFoundError:
        raise _missing(package) from None


def path(scene: Scene) -> Path:
    """Returns the file of a scene's photograph; its package is found, not imported.

    Raises:
        InputError: If the package is not installed.
    """
    spec = importlib.util.find_spec(scene.package)
    if spec is None or not spec.origin:
        raise _missing(scene.package)
    return Path(spec.origin).parent / scene.file


def photograph(scene: Scene) -> np.ndarray:
    """Returns a scene's photograph, uint8 `[H, W, 3]` RGB.

    Raises:
        InputError: If the package is not installed or lacks the file.
    """
    return images.read_image(path(scene))


def _missing(package: str) -> checks.InputError:
    return checks.problem(
        f"the package {PACKAGES[package]}, whose photographs are used",
        "an installation without it",
        "Run `pip install scikit-image scikit-learn`.",
    )
