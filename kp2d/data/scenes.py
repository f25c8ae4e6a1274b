"""Owns the photographs of the `sample` data set: where they are, what their licences allow."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from kp2d import checks, images

PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

_CC0 = ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/")
_CC_BY = ("CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/")
_SKIMAGE = "https://scikit-image.org/docs/stable/api/skimage.data.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A photograph inside an installed package, and what may be done with it.

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
    package: str
    file: str
    kinds: str
    title: str
    author: str
    licence: str
    licence_url: str
    source: str
    redistributable: bool = True
    focus: tuple[float, float] = (0.5, 0.5)


def _skimage(name: str, file: str, kinds: str, title: str, author: str, **rights: Any) -> Scene:
    """Returns a scene out of scikit-image; CC0 unless `rights` say otherwise."""
    rights = {"licence": _CC0[0], "licence_url": _CC0[1], "source": _SKIMAGE} | rights
    return Scene(
        name=name,
        package="skimage",
        file=f"data/{file}",
        kinds=kinds,
        title=title,
        author=author,
        **rights,
    )


def _sklearn(name: str, kinds: str, title: str, author: str, source: str) -> Scene:
    """Returns a scene out of scikit-learn; both are CC BY 2.0 by the README beside them."""
    return Scene(
        name=name,
        package="sklearn",
        file=f"datasets/images/{name}.jpg",
        kinds=kinds,
        title=title,
        author=author,
        licence=_CC_BY[0],
        licence_url=_CC_BY[1],
        source=source,
    )


# Licences: docstrings of skimage.data (0.26) and sklearn/datasets/images/README.txt (1.9).
SCENES = (
    _skimage(
        "astronaut",
        "astronaut.png",
        "vi",
        "Eileen Collins, NASA astronaut",
        "NASA",
        licence="public domain",
        licence_url=_SKIMAGE,
        source="https://flic.kr/p/r9qvLn",
        focus=(0.5, 0.36),
    ),
    _skimage("brick", "brick.png", "v", "Brick wall", "CC0Textures (Bricks25)"),
    _skimage("camera", "camera.png", "v", "Photographer with a camera", "Lav Varshney"),
    _skimage("chelsea", "chelsea.png", "i", "Chelsea the cat", "Stefan van der Walt"),
    _skimage("coffee", "coffee.png", "vi", "Cup of coffee", "Rachel Michetti, Pikolo Espresso Bar"),
    _skimage("grass", "grass.png", "i", "Grass", "linolafett (DeviantArt)"),
    _skimage("gravel", "gravel.png", "v", "Gravel", "CC0Textures (Gravel04)"),
    _skimage(
        "motorcycle",
        "motorcycle_left.png",
        "v",
        "Motorcycle, left image of a stereo pair",
        "D. Scharstein et al., Middlebury stereo data 2014",
        licence="not stated",
        licence_url=_SKIMAGE,
        source="https://vision.middlebury.edu/stereo/data/scenes2014/",
        redistributable=False,
    ),
    # The documentation says public domain (2015), the photograph's own page CC BY-NC 2.0:
    # scikit-image issue 5095 is open about it, so pictures of it stay out of the repository.
    _skimage(
        "rocket",
        "rocket.jpg",
        "i",
        "Launch of Falcon 9 with DSCOVR",
        "SpaceX",
        licence="public domain by scikit-image, CC BY-NC 2.0 by its page",
        licence_url="https://github.com/scikit-image/scikit-image/issues/5095",
        source="https://www.flickr.com/photos/spacexphotos/16511594820/",
        redistributable=False,
    ),
    _sklearn(
        "china",
        "vi",
        "Temple in China",
        "danielbuechele (Flickr)",
        "https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    # The README names danielbuechele for this one too, but its links lead to vultilion, the
    # photographer.
    _sklearn(
        "flower",
        "i",
        "Flower",
        "vultilion (Flickr)",
        "https://www.flickr.com/photos/vultilion/6056698931/",
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
