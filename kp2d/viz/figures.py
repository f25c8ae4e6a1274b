"""Owns how every figure looks and how it is saved: one style, one colour a method, the same bytes twice."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import logging
import os
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from kp2d import checks, files, paths

log = logging.getLogger(__name__)

FONT = "DejaVu Sans"  # shipped with Matplotlib: the same picture on every machine
# Fonts of Matplotlib's whose signs are boxes, or formulas at the places of letters.
_NO_LETTERS = ("Last Resort", "STIXNonUnicode", "STIXSize", "cm", "DejaVu Sans Display")
_BACKWARD = ("R", "AL", "NSM")  # signs written from right to left, and what stands above or below one
_MARK = "\u200e"  # "what follows is written from left to right", without a picture of its own
_told: list[str] = []  # missing signs that the log has told of: one name of many is enough
NARROW, WIDE = 3.4, 7.0  # inches: a column and a page
PHOTO_DPI = 150

STYLE: dict[str, Any] = {
    "font.family": FONT,
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
    paths.TRAINED_HERE: {"color": "#117733", "marker": "X"},
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
        """Draws under `style()`, names in any script."""
        with style():
            _find_glyphs(self)
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


def drawable(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Returns a text as the fonts of this machine can draw it.

    Returns:
        The text, in which a sign that no font has is its escape, as `\u5199`, and what follows a name that
        is written from right to left stays where it is; and the names of the fonts that it needs, ours first.
    """
    if text.isascii() and text.isprintable():
        return text, (FONT,)
    fonts, signs, missing = [FONT], [], ""
    for sign in _left_to_right(text):
        font = FONT if sign == "\n" else next((name for name in fonts if _has(name, sign)), _font_of(sign))
        if font is None:
            missing += sign if sign.isprintable() else ""
            sign = sign.encode("unicode_escape").decode()
        elif font not in fonts:
            fonts.append(font)
        signs.append(sign)
    if missing and not _told:
        _told.append(missing)
        escaped = missing.encode("unicode_escape").decode()
        log.warning(
            "no font of this machine has %s: pictures show %s, and likewise what else is missing, "
            "until a font of the script is installed (Noto Sans, Noto Sans CJK)",
            *(missing, escaped),
        )
    return "".join(signs), tuple(fonts)


def _left_to_right(text: str) -> str:
    """Returns a text with marks that keep its parts in order around words written from right to left."""
    text = text.replace(_MARK, "")
    if not any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in text):
        return text
    marked = _MARK
    for place, sign in enumerate(text, start=1):
        following = text[place:].lstrip()[:1]
        ends = bool(following) and unicodedata.bidirectional(following) not in _BACKWARD
        marked += sign + _MARK * (ends and unicodedata.bidirectional(sign) in _BACKWARD)
    return marked


def _find_glyphs(figure: Figure) -> None:
    """Gives each text of a figure the fonts that have its signs; what our own font has stays untouched."""
    for axis in figure.findobj(Axis):  # ticks are labelled anew at each drawing
        labels = [tick.label1.get_text() for tick in axis.get_major_ticks()]
        shown = [drawable(label)[0] for label in labels]
        if shown != labels:
            axis.set_ticks(axis.get_majorticklocs(), labels=shown)
    for text in figure.findobj(Text):
        shown, fonts = drawable(text.get_text())
        if (shown, fonts) != (text.get_text(), (FONT,)):
            text.set(text=shown, family=fonts)


@functools.cache
def _font_of(sign: str) -> str | None:
    """Returns the name of a font that has a sign: ours, else another of this machine, if there is one."""
    names = (FONT, *sorted(_fonts(), key=lambda name: ("Sans" not in name, "Mono" in name, name)))
    return next((name for name in names if _has(name, sign)), None)


@functools.cache
def _fonts() -> dict[str, str]:
    """Returns the files of all fonts with letters by the names of the fonts; upright and regular ones."""
    fonts = font_manager.fontManager
    known = {font.fname for font in fonts.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):  # installed since Matplotlib looked
        with contextlib.suppress(OSError, RuntimeError):
            fonts.addfont(path)
    upright = [font for font in fonts.ttflist if font.style == "normal" and font.size == "scalable"]
    upright.sort(key=lambda font: (abs(font.weight - 400), font.fname), reverse=True)
    others = {font.name: font.fname for font in upright if not font.name.startswith(_NO_LETTERS)}
    return {**others, FONT: font_manager.findfont(FONT)}


@functools.cache
def _has(name: str, sign: str) -> bool:
    try:
        return font_manager.get_font(_fonts()[name]).get_char_index(ord(sign)) != 0
    except (OSError, RuntimeError):  # damaged, or of coloured pictures
        return False


def method_style(method: str, precision: str = "float32") -> dict[str, Any]:
    """Returns the colour, marker and line style of a method for `Axes.plot`, the same in every picture.

    float32 is solid, int8 dashed, another precision dotted; an unknown method is told by its name alone.
    """
    place, color = divmod(zlib.crc32(str(method).encode()), len(_OTHER_COLORS))
    other = {"color": _OTHER_COLORS[color], "marker": _OTHER_MARKERS[place % len(_OTHER_MARKERS)]}
    return {**METHODS.get(method, other), "linestyle": _LINE_STYLES.get(precision, ":")}


def colors(names: Iterable[str]) -> dict[str, str]:
    """Returns a colour for each of some names that are no methods, by their order: neighbours differ."""
    return dict(zip(dict.fromkeys(names), itertools.cycle(_OTHER_COLORS), strict=False))


def method_label(method: str, precision: str = "float32") -> str:
    """Returns how a method is named in pictures; only networks come in several precisions."""
    plain = precision == "float32" and not str(method).startswith(("kp2d", paths.TRAINED_HERE))
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

    The file appears whole or not at all, and a second call writes the same bytes. Missing folders are made.
    Returns the absolute path written.

    Raises:
        InputError: If the suffix is not `.svg`, `.png` or `.jpg`, or the folder cannot be made or written.
    """
    path = Path(path).expanduser().absolute()
    kind = checks.one_of("picture suffix", path.suffix.lower(), (".svg", ".png", ".jpg", ".jpeg"))
    content = _encode(figure, kind[1:])
    with files.atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


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
