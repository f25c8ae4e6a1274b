"""Owns the viewer: matched pairs to click through, or one picture where nobody can click."""

from __future__ import annotations

import base64
import html
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.figure import Figure

import kp2d
from kp2d import checks
from kp2d.methods import extractors
from kp2d.viz import figures

if TYPE_CHECKING:
    import ipywidgets
    import numpy as np

Render = Callable[[str, str, int, float], Figure]  # pair, method, top_k, score threshold in [0, 1]


def show_match(
    image0: np.ndarray | str | os.PathLike,
    image1: np.ndarray | str | os.PathLike,
    methods: Sequence[str],
    *,
    top_k: Sequence[int] = (150, 300, 1000),
    interactive: bool | Literal["auto"] = "auto",
) -> ipywidgets.VBox | Figure:
    """Shows two images as `kp2d.match` matches them, the method and the number of keypoints to choose.

    Arguments as for `kp2d.match` and `show_pairs`, which says what is returned and raised.
    """

    def render(_pair: str, method: str, top_k: int, _threshold: float) -> Figure:
        return kp2d.match(image0, image1, method, top_k).figure()

    return show_pairs(
        ["both images"], methods, render, top_k=top_k, score_threshold=False, interactive=interactive
    )


def show_pairs(
    pairs: Sequence[str],
    methods: Sequence[str],
    render: Render,
    *,
    top_k: Sequence[int] = (150, 300, 1000),
    score_threshold: bool = True,
    interactive: bool | Literal["auto"] = "auto",
) -> ipywidgets.VBox | Figure:
    """Shows matched pairs to click through, or the first pair as a figure when nobody can click.

    The picture follows every choice. What `render` raises is shown in place of the picture, so that
    one bad pair does not end the session.

    Args:
        pairs: Names of the pairs to choose from.
        methods: Names of the methods to choose from.
        render: Draws one choice.
        top_k: Numbers of keypoints to choose from; the middle one is chosen at first.
        score_threshold: Whether to offer a threshold; pass False where no method's score is a probability.
        interactive: "auto" is live only with ipywidgets and a front-end that drives the kernel;
            papermill and nbclient have none, so a batch run gets the figure. True, False override.

    Returns:
        The widget, or the figure of the first pair, the first method and the middle `top_k`.

    Raises:
        InputError: If nothing is there to choose from, `interactive` is another value, or True
            without ipywidgets installed.
    """
    pairs, methods, top_k = list(pairs), list(methods), list(top_k)
    for name, choices in (("pairs", pairs), ("methods", methods), ("top_k", top_k)):
        if not choices:
            raise checks.problem(f"at least one value in {name}", "an empty list")
    if interactive not in (True, False, "auto"):
        raise checks.problem('interactive as True, False or "auto"', repr(interactive))
    middle = top_k[len(top_k) // 2]
    has_widgets = importlib.util.find_spec("ipywidgets") is not None
    live = has_widgets and has_front_end() if interactive == "auto" else interactive
    if not live:
        return render(pairs[0], methods[0], middle, 0.0)
    if not has_widgets:
        remedy = "Install it (pip install ipywidgets), or pass interactive=False."
        raise checks.problem("ipywidgets for the interactive viewer", "no such package", remedy)
    return _viewer(pairs, methods, render, top_k, middle, score_threshold)


def has_front_end() -> bool:
    """Tells whether somebody looks at this kernel through JupyterLab, Notebook, VS Code or Colab.

    jupyter_server names the session of each kernel it starts; VS Code leaves its process id, or
    the notebook's path among the variables. A kernel started by papermill or nbclient has none of
    these, unless they were themselves started from a live notebook: pass `interactive=False` there.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    if os.environ.get("JPY_SESSION_NAME") or os.environ.get("VSCODE_PID"):
        return True
    return "__vsc_ipynb_file__" in shell.user_ns or "google.colab" in sys.modules


def _viewer(
    pairs: list[str],
    methods: list[str],
    render: Render,
    top_k: list[int],
    middle: int,
    score_threshold: bool,
) -> ipywidgets.VBox:
    """Builds the widget: up to four controls, the picture, and a line for errors."""
    import ipywidgets as widgets

    class Viewer(widgets.VBox):
        """The controls and the picture; where no kernel is left to drive them, the picture alone."""

        def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
            bundle = super()._repr_mimebundle_(**kwargs)
            return {**bundle, "image/png": base64.b64encode(picture.value).decode()}

    wide = {"layout": widgets.Layout(width="340px")}
    controls = (
        widgets.Dropdown(options=pairs, description="pair", **wide),
        widgets.Dropdown(
            options=[(extractors.label(name), name) for name in methods], description="method", **wide
        ),
        widgets.SelectionSlider(
            options=top_k, value=middle, description="top-k", continuous_update=False, **wide
        ),
        widgets.FloatSlider(
            min=0.0, max=1.0, step=0.01, description="threshold", continuous_update=False, **wide
        ),
    )
    message = widgets.HTML()
    picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", width="1050px", margin="0"))

    def refresh(_change: Any = None) -> None:
        chosen = [control.value for control in controls]
        try:
            content = figures.to_png(render(*chosen))
        except Exception as error:  # whatever a user's render raises belongs on the screen
            picture.layout.display = "none"  # an old picture beside new choices would mislead
            message.value = _error_text(chosen, error)
        else:
            picture.value, message.value = content, ""
            picture.layout.display = None

    for control in controls:
        control.observe(refresh, names="value")
    refresh()
    *choices, threshold = controls
    # One pair or one method is no choice.
    shown = [control for control in choices if len(control.options) > 1]
    shown += [threshold] if score_threshold else []
    wrapping = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
    return Viewer([widgets.Box(shown, layout=wrapping), message, picture])


def _error_text(chosen: list[Any], error: Exception) -> str:
    """Returns the line shown in place of a picture, as HTML with everything foreign escaped."""
    pair, method, top_k, threshold = chosen
    choice = html.escape(f"{pair} · {method} · top-k {top_k} · threshold {threshold:.2f}")
    reason = html.escape(f"{type(error).__name__}: {error}")
    return f"<b>{choice}</b><br><span style='color:#b00020'>{reason}</span>"
