"""Fixtures shared by all tests: the checkout, pictures, a small data set, a project folder, a network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # threads of one process that wait for work would slow the other down
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import settings

from kp2d import cli

# The same examples on every machine and in every run; `pytest --hypothesis-profile search` looks further.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("search", deadline=None, max_examples=3000)
settings.load_profile("repeatable")

mpl.use("Agg")  # in this process only: kernels started by a test choose their own


@pytest.fixture(scope="session")
def project() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]


def _textured(size: tuple[int, int] = (96, 128), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.uniform(0, 255, (*size, 3)).astype(np.float32), (0, 0), 2)
    image = 128 + 4 * (image - image.mean())
    for _ in range(max(12, size[0] * size[1] // 700)):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        height, width = rng.integers(5, 25, 2)
        image[top : top + height, left : left + width] += rng.uniform(-90, 90, 3)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.7), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def textured():
    """A function (size, seed) -> uint8 RGB image with corners and blobs everywhere."""
    return _textured


@pytest.fixture
def tiny_dataset(tmp_path) -> Path:
    """A folder in HPatches layout: `v_a` and `i_b`, three images of 96x128 px each, exact homographies."""
    root, (height, width) = tmp_path / "tiny", (96, 128)
    views = [  # scene (192x256) to view
        np.array([[1, 0, -60], [0, 1, -45], [0, 0, 1.0]]),
        np.array([[1.02, 0.06, -66], [-0.05, 1.03, -38], [0, 0, 1.0]]),
        np.array([[1.05, -0.08, -50], [0.07, 0.98, -50], [2e-4, -1e-4, 1.0]]),
    ]
    scene = _textured((192, 256), seed=1)
    for name in ("v_a", "i_b"):
        (root / name).mkdir(parents=True)
        for k in (1, 2, 3):
            view = views[k - 1] if name == "v_a" else views[0]
            image = cv2.warpPerspective(scene, view, (width, height)).astype(np.float32)
            if name == "i_b":
                image = 255 * (image / 255) ** (1 + 0.25 * (k - 1))
            image = cv2.cvtColor(image.round().astype(np.uint8), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(root / name / f"{k}.png"), image)
            if k > 1:
                np.savetxt(root / name / f"H_1_{k}", view @ np.linalg.inv(views[0]))
    return root


@pytest.fixture
def home(tmp_path, monkeypatch, project) -> Path:
    """A project folder to write in (`KP2D_HOME`): the notebooks, the numbers of the paper and the recipes."""
    folder = tmp_path / "home"
    shutil.copytree(project / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copytree(project / "results" / "paper", folder / "results" / "paper")
    shutil.copy(project / "results" / "recipes.csv", folder / "results")
    monkeypatch.setenv("KP2D_HOME", str(folder))
    for name in ("VAL_PATH", "TRAIN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def command(capsys):
    """A function that runs one command; returns its exit status, what it printed, and the errors."""

    def run(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def photos(tmp_path):
    """Four pictures of coloured blocks."""
    from small_network import write_photos

    return write_photos(tmp_path / "photos")


@pytest.fixture
def small_preset(monkeypatch):
    """A network like TinyS with a sixteenth of its channels; "_coral" at the end names its variant."""
    from small_network import SMALL, SMALL_CORAL

    from kp2d.methods import networks

    for config in (SMALL, SMALL_CORAL):
        monkeypatch.setitem(networks.PRESETS, config.name, config)
    return SMALL.name


@pytest.fixture
def small_run(photos, small_preset, tmp_path):
    """Configuration of a run that takes seconds."""
    from kp2d.train.recipes import from_recipe

    def configure(**changes):
        settings = {
            "preset": small_preset,
            "image_size": (32, 48),
            "batch_size": 2,
            "steps": 6,
            "warmup": 2,
            "workers": 0,
            "log_every": 1,
            "checkpoint_every": 3,
            "wandb": False,
            "tensorboard": False,
            "data": str(photos),
            "output": str(tmp_path / "run"),
        }
        return from_recipe("kp2d_plus", **(settings | changes))

    return configure


@pytest.fixture
def eager(request):
    """Skip tracing, which takes longer than a few steps of a small network."""
    import keras

    if keras.backend.backend() != "tensorflow" or request.node.get_closest_marker("compiled"):
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def _executed_notebook(name, picture):
    """A notebook with outputs of every kind that ours have, and of some that they must not have."""
    from nbformat import v4

    outputs = [
        v4.new_output(
            "display_data", {"text/markdown": "| a | b |\n|---|---|\n| 1 | 2 |", "text/plain": "a"}
        ),
        v4.new_output("display_data", {"image/png": picture, "text/plain": "<Figure>"}),
        v4.new_output("display_data", {"text/html": "<script>alert(1)</script>", "text/plain": "stand-in"}),
        v4.new_output("display_data", {"application/javascript": "alert(2)", "text/plain": "a script"}),
        v4.new_output("stream", name="stderr", text="\x1b[31mred\x1b[0m <b>not bold</b>"),
    ]
    title = f"# {name[:2]} · Made up\n\n**Does it show?**\n\nNext: [02](02_train.ipynb), [all](../README.md)."
    code = v4.new_code_cell("print('x < y')  # a comment", outputs=outputs)
    part = (
        "## A *part*\n\nOf $x_i$, a sum:\n\n$$"
        + " + ".join(f"\\frac{{x_{{{n}}}}}{{{n}}}" for n in range(1, 40))
        + "$$"
    )
    return v4.new_notebook(cells=[v4.new_markdown_cell(title), v4.new_markdown_cell(part), code])


@pytest.fixture(scope="session")
def report_home(project, tmp_path_factory):
    """A project folder with a bit of everything that a report shows, in the profile `smoke`.

    Notebook 01 ran to its end, 02 did not, the others never ran.
    """
    import base64

    import nbformat

    from kp2d import config, files
    from kp2d.data import samples
    from kp2d.evaluate import comparison, tables

    folder = tmp_path_factory.mktemp("report") / "home"
    shutil.copytree(project / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for part in ("results/paper", "results/bench"):
        shutil.copytree(project / part, folder / part)
    for part in ("results/README.md", "figures/README.md"):
        (folder / part).parent.mkdir(exist_ok=True)
        shutil.copyfile(project / part, folder / part)
    noise = np.random.default_rng(0).integers(
        0, 256, (300, 300, 3), np.uint8
    )  # a PNG that WebP makes smaller
    picture = cv2.imencode(".png", noise)[1].tobytes()
    files.write_bytes(folder / "figures/smoke/matches.png", picture)
    files.write_text(
        folder / "figures/smoke/latency.svg",
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 20"><rect width="9" height="9"/></svg>',
    )
    runs = folder / "results" / "runs" / "smoke"
    for name in ("01_prepare_data", "02_train"):
        notebook = _executed_notebook(name, base64.b64encode(picture).decode())
        files.write_text(runs / f"{name}.ipynb", nbformat.writes(notebook))
    files.write_json(runs / "01_prepare_data.json", {"seconds": 12.3, "commit": "abc"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KP2D_HOME", str(folder))
        profile = config.profile("smoke")
        sequences = samples.prepare_profile(profile, progress=False)
        rules = config.protocol(image_size=profile.image_size, top_k=profile.top_k)
        rows, pairs = comparison.evaluate_methods(
            profile.methods, sequences, rules, profile="smoke", progress=False
        )
        tables.write_csv(folder / "results/smoke/evaluation.csv", rows)
        tables.write_csv(folder / "results/smoke/pairs.csv", pairs)
    nasty = "<script>alert(1)</script>,<b>&amp;\n<img src=x onerror=alert(1)>,2\n"
    files.write_text(folder / "results/smoke/nasty.csv", nasty)
    return folder


@pytest.fixture(scope="session")
def report_site(report_home):
    """A report of that project."""
    from kp2d.report import site as report

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KP2D_HOME", str(report_home))
        return report.build("smoke", report_home.parent / "site", progress=False)


@pytest.fixture
def two_datasets(tiny_dataset, tmp_path, monkeypatch) -> Path:
    """A folder of two data sets, which VAL_PATH names, and of one that is none."""
    folder = tmp_path / "both"
    for name in ("near", "far"):
        shutil.copytree(tiny_dataset, folder / name)
        for sequence in (folder / name).iterdir():
            sequence.rename(sequence.with_name(f"{sequence.name}_{name}"))
    (folder / "papers").mkdir()
    monkeypatch.setenv("VAL_PATH", str(folder))
    return folder


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A project folder with one stage of its own, whose notebook a test can write."""
    import nbformat

    from kp2d import config
    from kp2d.reproduce import chain

    monkeypatch.setenv("KP2D_HOME", str(tmp_path))
    monkeypatch.setattr(config, "PROFILES", {"smoke": config.PROFILES["smoke"]})
    stage = chain.Stage(name="07_own", outputs=("results/{profile}/own.txt",))
    monkeypatch.setattr(chain, "STAGES", (stage,))

    def write(code, parameters='profile = "fast"  # which\ncount = 1  # how many'):
        cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code)]
        cells[0].metadata["tags"] = ["parameters"]
        stage.notebook.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), stage.notebook)
        return tmp_path / "results/smoke/own.txt"

    return write
