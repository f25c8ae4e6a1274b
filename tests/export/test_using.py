"""The page on using features elsewhere: its code runs on two sample views and prints what stands below it."""

from __future__ import annotations

import re
import sys
import types

import numpy as np
import pytest
from stereo import two_views

from kp2d import images

BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", flags=re.M | re.S)


@pytest.fixture
def page(project):
    """Each block of code of the page, with what it prints."""
    return BLOCK.findall((project / "docs" / "using.md").read_text(encoding="utf-8"))


@pytest.fixture
def views(tmp_path, monkeypatch):
    for name, view in zip(("a", "b"), two_views(), strict=True):
        images.write_image(tmp_path / "photos" / f"{name}.png", view)
    monkeypatch.chdir(tmp_path)


def numbers(text):
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


@pytest.mark.parametrize("what", ["hloc_configuration", "Feature2D", "adapters.lightglue", "pycolmap"])
def test_code_prints_what_stands_below_it(what, page, views, command, capsys):
    if what == "pycolmap":
        pytest.importorskip("pycolmap")
        for name, method in (("colmap", "kp2d_tiny_s:int8"), ("sift", "sift")):
            words = ("photos", "-o", f"{name}.db", "--match", "exhaustive", "--method", method)
            assert command("extract", *words)[0] == 0
    ((code, shown),) = [block for block in page if what in block[0] and block[1]]
    exec(compile(code, "docs/using.md", "exec"), {})
    printed = capsys.readouterr().out.strip().splitlines()
    for line, expected in zip(printed, shown.strip().splitlines(), strict=True):
        assert re.sub(r"[\d.]+", "#", line) == re.sub(r"[\d.]+", "#", expected)
        # Another processor or build of OpenCV may tip some matches.
        np.testing.assert_allclose(numbers(line), numbers(expected), rtol=0.03, atol=0.05)


def test_hloc_s_extractor_returns_what_hloc_expects(page, monkeypatch, textured):
    """Neither hloc nor torch is installed: what the code takes of them stands here."""

    class Model:
        def __init__(self, conf):
            self.conf = conf
            self._init(conf)

    class Tensor(np.ndarray):
        def cpu(self):
            return self

        def numpy(self):
            return np.asarray(self)

    torch, base = types.ModuleType("torch"), types.ModuleType("hloc.utils.base_model")
    torch.from_numpy, base.BaseModel = np.asarray, Model
    for name, module in (("torch", torch), ("hloc.utils.base_model", base)):
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("hloc", "hloc.utils", "hloc.extractors"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    (code,) = [code for code, _ in page if "class KP2D" in code]
    names = {"__name__": "hloc.extractors.kp2d", "__package__": "hloc.extractors"}
    exec(compile(code, "hloc/extractors/kp2d.py", "exec"), names)
    model = names["KP2D"](names["KP2D"].default_conf | {"method": "kp2d_nano:int8"})
    image = (textured((97, 130)).transpose(2, 0, 1)[None] / np.float32(255)).view(Tensor)
    prediction = model._forward({"image": image})
    count = prediction["keypoints"].shape[1]
    assert prediction["descriptors"].shape == (1, 32, count) and prediction["scores"].shape == (1, count)
