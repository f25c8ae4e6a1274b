"""Fixtures shared by all tests: the checkout, pictures, a small data set, a project folder to write in."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest

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
    """A project folder to write in (`KP2D_HOME`): notebooks and the paper's numbers, no results."""
    folder = tmp_path / "home"
    shutil.copytree(project / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copytree(project / "results" / "paper", folder / "results" / "paper")
    monkeypatch.setenv("KP2D_HOME", str(folder))
    for name in ("VAL_PATH", "TRAIN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return folder
