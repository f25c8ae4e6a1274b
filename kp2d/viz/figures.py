"""Owns how every figure looks and how it is saved: one style, one colour a method, the same bytes twice."""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kp2d import checks, files

NARROW, WIDE = 3.4, 7.0  # inches: a column and a page
PHOTO_DPI = 150

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # shipped with Matplotlib: the same picture on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#666666",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 7),
    **dict.fromkeys(("xtick.color", "ytick.color"), "#666666"),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "#333333"),
    "text.color": "#222222",
    "text.parse_math": False,  # a name with $ in it is no formula
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    "lines.linewidth": 1.3,
    "lines.markeredgecolor": "white",
    "lines.markeredgewidth": 0.5,
    "lines.markersize": 4.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.facecolor": "white",  # explicit: a dark page must not shine through
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": PHOTO_DPI,
    "text.hinting": "no_hinting",  # text as wide as its outlines say, so that fitted text fits
    "svg.hashsalt": "kp2d",
    "svg.fonttype": "path",
}


def _settings() -> dict[str, Any]:
    """Returns all settings of Matplotlib, ours first, but for those of windows, which stay the user's."""
    settings = mpl.rcParamsDefault.copy()
    settings.update(STYLE)
    return {
        key: settings[key] for key in settings if not key.startswith(("backend", "interactive", "toolbar"))
    }


_SETTINGS = _settings()

# Lightness rises from 9 to 76 (CIE L*) in steps, so that gray prints keep the methods apart;
# pairwise Lab distance stays above 20 under simulated deuteranopia, protanopia and tritanopia.
METHODS: dict[str, dict[str, str]] = {
    "sift": {"color": "#1a1a1a", "marker": "s"},
    "rootsift": {"color": "#a0a0a0", "marker": "D"},
    "orb": {"color": "#efaf1f", "marker": "^"},
    "kp2d_tiny_s": {"color": "#0a6fb5", "marker": "o"},
    "kp2d_tiny_f": {"color": "#8c1d57", "marker": "v"},
    "kp2d_baseline": {"color": "#c9642b", "marker": "P"},
    "kp2d_nano": {"color": "#782de1", "marker": "*"},
}
_OTHER_COLORS = ("#117733", "#56b4e9", "#7a5c00", "#d08ab0", "#44aa99")
_OTHER_MARKERS = ("X", "p", "h", "<", ">")
_LINE_STYLES: dict[str, Any] = {"float32": "-", "int8": (0, (3.2, 1.4))}


class StyledFigure(Figure):
    """A figure that keeps the house style whenever it is drawn, and shows itself in a notebook.

    Matplotlib reads its settings at drawing time too (ticks are made late), and shows a plain
    `Figure` in a notebook only after pyplot was imported; neither may depend on the caller.
    """

    def draw(self, renderer):
        """Draws under `style()`."""
        with style():
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return to_png(self)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Applies the house style to everything drawn inside the `with` block, and nothing after it.

    It starts from Matplotlib's own defaults, so that no `matplotlibrc` and no `rcParams` of the
    caller's changes a picture.
    """
    with mpl.rc_context():
        # Past the checks of `RcParams`: these values are checked already, and every drawing comes here.
        dict.update(mpl.rcParams, _SETTINGS)
        yield


def method_style(method: str, precision: str = "float32") -> dict[str, Any]:
    """Returns the colour, marker and line style of a method, the same in every picture.

    Args:
        method: Name of a method; an unknown one gets a colour and marker from its name alone.
        precision: float32 (solid), int8 (dashed) or another (dotted).

    Returns:
        Keyword arguments for `Axes.plot`: `color`, `marker`, `linestyle`.
    """
    place, color = divmod(zlib.crc32(str(method).encode()), len(_OTHER_COLORS))
    other = {"color": _OTHER_COLORS[color], "marker": _OTHER_MARKERS[place % len(_OTHER_MARKERS)]}
    return {**METHODS.get(method, other), "linestyle": _LINE_STYLES.get(precision, ":")}


def method_label(method: str, precision: str = "float32") -> str:
    """Returns how a method is named in pictures; only networks come in several precisions."""
    plain = precision == "float32" and not str(method).startswith("kp2d")
    return str(method) if plain else f"{method} {precision}"


def to_png(figure: Figure) -> bytes:
    """Returns the figure as PNG bytes at 150 dpi; the same figure gives the same bytes."""
    return _encode(figure, "png")


def to_array(figure: Figure) -> np.ndarray:
    """Returns the figure at 150 dpi as an image, uint8 RGB `[H, W, 3]`."""
    with style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Writes a figure, SVG for charts or PNG (150 dpi) for photographs, or JPEG, as the suffix says.

    The file appears whole or not at all, and a second call writes the same bytes. Missing folders
    are made.

    Args:
        figure: Any Matplotlib figure.
        path: Where to; must end in `.svg`, `.png` or `.jpg`.

    Returns:
        The absolute path written.

    Raises:
        InputError: If the suffix is another, or the folder cannot be made or written.
    """
    path = Path(path).expanduser().absolute()
    content = _encode(figure, _kind(path))
    with files.atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


def check_target(path: str | os.PathLike) -> None:
    """Raises an `InputError` now if `save_figure` could not write `path` later, when the work is done."""
    path = Path(path).expanduser().absolute()
    _kind(path)
    files.check_writable(path)


def _kind(path: Path) -> str:
    return checks.one_of("picture suffix", path.suffix.lower(), (".svg", ".png", ".jpg", ".jpeg"))[1:]


def _encode(figure: Figure, kind: str) -> bytes:
    """Returns the bytes of a PNG, SVG or JPEG file, without date or version."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {
        "svg": {"metadata": {"Date": None}},
        "png": {"metadata": {"Software": None}},
    }.get(kind, {"pil_kwargs": {"quality": 92}})
    with style():
        figure.savefig(buffer, format=kind, dpi=PHOTO_DPI, **metadata)
    return buffer.getvalue()
