"""Tests the viewer without a front-end: choices, redrawing, errors, the static stand-in."""

import base64
import sys
import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from kp2d import checks, images
from kp2d.data import datasets
from kp2d.viz import pictures, viewer

PNG = b"\x89PNG"


class Recorder:
    """A `render` that remembers its calls and fails for the pair "bad"."""

    def __init__(self):
        self.calls = []

    def __call__(self, pair, method, top_k, threshold):
        self.calls.append((pair, method, top_k, threshold))
        if pair == "bad":
            raise ValueError("no <H> found")
        image = np.full((24, 32, 3), 40 * len(self.calls), np.uint8)
        return pictures.compare_keypoints(image, {method: (np.zeros((0, 2)), np.zeros(0))})


@pytest.fixture
def live():
    """A live viewer of two good pairs and a bad one."""
    pytest.importorskip("ipywidgets")
    render = Recorder()
    box = viewer.show_pairs(["a", "bad", "c"], ["sift", "orb"], render, interactive=True)
    controls, message, picture = box.children
    return types.SimpleNamespace(
        render=render,
        box=box,
        controls={control.description: control for control in controls.children},
        message=message,
        picture=picture,
    )


def as_kernel(monkeypatch, names=(), user_ns=()):
    """Makes this process look like a kernel, with these environment variables set."""
    for name in ("JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, "1")
    shell = types.SimpleNamespace(kernel=object(), user_ns=dict.fromkeys(user_ns))
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)


def test_first_picture_is_drawn_at_once(live):
    assert live.render.calls == [("a", "sift", 300, 0.0)]
    assert bytes(live.picture.value).startswith(PNG)


def test_a_saved_notebook_keeps_the_picture(live):
    bundle = live.box._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == bytes(live.picture.value)
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_what_leaves_no_choice_is_not_offered():
    pytest.importorskip("ipywidgets")

    def offered(*choices, **options):
        box = viewer.show_pairs(*choices, Recorder(), interactive=True, **options)
        return [control.description for control in box.children[0].children]

    assert offered(["a", "b"], ["sift", "orb"], score_threshold=False) == ["pair", "method", "top-k"]
    assert offered(["a"], ["sift"]) == ["top-k", "threshold"]
    assert offered(["a"], ["sift", "orb"], top_k=(300,)) == ["method", "threshold"]


def test_two_images_of_ones_own_are_matched_and_drawn(tiny_dataset):
    pair = datasets.load_sequences(tiny_dataset)[0].pairs[0]
    image0, image1 = pair.path0, images.read_image(pair.path1)
    assert isinstance(viewer.show_match(image0, image1, ["orb"], interactive=False), Figure)
    pytest.importorskip("ipywidgets")
    box = viewer.show_match(image0, image1, ["orb", "sift"], top_k=(50, 100), interactive=True)
    before = bytes(box.children[2].value)
    box.children[0].children[0].value = "sift"
    assert before != bytes(box.children[2].value) and not box.children[1].value


def test_each_control_redraws_once_with_its_choice(live):
    first = bytes(live.picture.value)
    for name, value in (("pair", "c"), ("method", "orb"), ("top-k", 1000), ("threshold", 0.5)):
        live.controls[name].value = value
    assert live.render.calls[1:] == [
        ("c", "sift", 300, 0.0),
        ("c", "orb", 300, 0.0),
        ("c", "orb", 1000, 0.0),
        ("c", "orb", 1000, 0.5),
    ]
    assert bytes(live.picture.value).startswith(PNG)
    assert bytes(live.picture.value) != first


def test_sliders_wait_for_the_mouse_to_be_released(live):
    assert not live.controls["top-k"].continuous_update
    assert not live.controls["threshold"].continuous_update


def test_error_replaces_the_picture_and_the_next_choice_recovers(live):
    live.controls["pair"].value = "bad"
    assert "ValueError: no &lt;H&gt; found" in live.message.value
    assert "bad · sift" in live.message.value
    assert live.picture.layout.display == "none"
    live.controls["pair"].value = "c"
    assert live.message.value == "" and live.picture.layout.display is None


def test_static_returns_the_first_figure():
    render = Recorder()
    figure = viewer.show_pairs(["a", "c"], ["orb"], render, top_k=(7,), interactive=False)
    assert isinstance(figure, Figure)
    assert render.calls == [("a", "orb", 7, 0.0)]


def test_auto_is_static_outside_a_kernel(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "left over from the shell")
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert isinstance(viewer.show_pairs(["a"], ["sift"], Recorder()), Figure)


@pytest.mark.parametrize(
    ("names", "user_ns", "expected"),
    [
        ((), (), False),  # papermill, nbclient
        (("JPY_SESSION_NAME",), (), True),
        (("VSCODE_PID",), (), True),
        ((), ("__vsc_ipynb_file__",), True),
    ],
)
def test_front_end_is_recognized(monkeypatch, names, user_ns, expected):
    as_kernel(monkeypatch, names, user_ns)
    assert viewer.has_front_end() is expected


def test_without_ipywidgets_auto_is_static_and_true_is_refused(monkeypatch):
    as_kernel(monkeypatch, ("JPY_SESSION_NAME",))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert isinstance(viewer.show_pairs(["a"], ["sift"], Recorder()), Figure)
    with pytest.raises(checks.InputError, match="pip install ipywidgets"):
        viewer.show_pairs(["a"], ["sift"], Recorder(), interactive=True)


@pytest.mark.parametrize(
    ("pairs", "methods", "options", "match"),
    [
        ([], ["sift"], {}, "pairs"),
        (["a"], [], {}, "methods"),
        (["a"], ["sift"], {"top_k": ()}, "top_k"),
        (["a"], ["sift"], {"interactive": "yes"}, "interactive"),
    ],
)
def test_nothing_to_choose_from_is_an_error(pairs, methods, options, match):
    with pytest.raises(checks.InputError, match=match):
        viewer.show_pairs(pairs, methods, Recorder(), **options)
