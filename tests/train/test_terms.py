"""The equations of notebook 02 and the code say the same: every formula beside a NumPy reference of it."""

import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from keras import ops

from kp2d import geometry
from kp2d.methods import decode
from kp2d.train.recipes import RECIPES, LossConfig
from kp2d.train.terms import HEADS, TERMS, loss_terms, term_weights

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "02_train.ipynb"
CELL, GRID, DIM = 4, (24, 30), 8  # enough points for every limit on their number to leave some out
FINER = (2 * GRID[0], 2 * GRID[1])  # of the descriptors
SIZE = (GRID[0] * CELL, GRID[1] * CELL)


def stated():
    """Bold names of terms, or of kinds of one, in notebook 02, each with the formula that follows or None."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    _, *parts = re.split(r"\*\*`(\w+)`\*\*", text)
    formulas = [re.search(r"\$\$(.+?)\$\$", body, flags=re.S) for body in parts[1::2]]
    return {name: formula and formula[1] for name, formula in zip(parts[::2], formulas, strict=True)}


@pytest.fixture(scope="module")
def example():
    """Heads and batch of two pairs whose views are nearly alike, a teacher's heads, and a critic of pairs."""
    rng = np.random.default_rng(0)
    shapes = {"score_map": (*GRID, 1), "offset_map": (*GRID, 2), "descriptor_map": (*FINER, DIM)}
    heads = {}
    for name, shape in shapes.items():
        first = rng.uniform(-0.9, 0.9, (2, *shape))
        heads[name] = np.concatenate([first, first + rng.uniform(-0.1, 0.1, first.shape)])
        heads[f"wanted_{name}"] = heads[name] + rng.uniform(-0.1, 0.1, heads[name].shape)
    for name in ("score_map", "wanted_score_map"):
        heads[name] = 0.5 + heads[name] / 2.4
    batch = {"turns": np.zeros(2, np.int32)}
    shift = np.array([[1.02, 0.03, 0.6], [-0.02, 0.98, -0.5], [1e-4, -2e-4, 1.0]])
    batch["homography"] = np.stack([shift, np.linalg.inv(shift)]).astype(np.float32)
    for name in ("corners0", "corners1"):
        batch[name] = rng.uniform(0, 1, (2, *GRID, 4)).astype(np.float32)
    heads = {name: head.astype(np.float32) for name, head in heads.items()}
    return SimpleNamespace(heads=heads, batch=batch, ionet=lambda pairs: pairs[..., 0] + pairs[..., 4])


def pair_of(example, index, points):
    """What the formulas speak of, by their letters, of one pair; at most `points` in K."""
    views = {name: example.heads[name][index::2] for name in HEADS}
    corners = np.stack([example.batch[name][index] for name in ("corners0", "corners1")])
    p, q = decode.keypoint_map(views["offset_map"], CELL).reshape(2, -1, 2)
    s, t = views["score_map"].reshape(2, -1)
    w = geometry.warp_points(p, example.batch["homography"][index])
    distances = np.linalg.norm(w[:, None] - q, axis=-1)
    n, d = distances.argmin(axis=1), distances.min(axis=1)
    inner = decode.interior_mask(GRID).ravel()
    visible = inner & geometry.inside(w, SIZE)
    best = np.flatnonzero(visible)[np.argsort(-s[visible])][:points]

    def read(view, where, name="descriptor_map"):
        values = decode.sample_bilinear(views[name][view, None], where[None], SIZE)[0]
        return values if name == "score_map" else decode.normalize(values)

    return SimpleNamespace(
        p=p, q=q, s=s, t=t, w=w, n=n, d=d, I=inner, V=visible, C=visible & (d < 4), K=best, read=read,
        N=np.abs(w[best][:, None] - w[best]).max(axis=-1) > 4, f=read(0, p[best]), g=read(1, w[best]),
        o=views["offset_map"], scores=views["score_map"][..., 0], ionet=example.ionet,
        o_star=corners[..., :2], sigma=corners[..., 2], s_star=corners[..., 3],
    )  # fmt: skip


def usp(x):
    return np.mean((x.s + x.t[x.n])[x.C] * (x.d[x.C] - x.d[x.C].mean()))


def triplet(x):
    between = np.linalg.norm(x.f[:, None] - x.g, axis=-1)
    hardest = [row[negative].min() for row, negative in zip(between, x.N, strict=True)]
    return np.mean(np.maximum(0, 1 / 5 + between.diagonal() - hardest))


def dual_softmax(x):
    likely = np.exp(20 * x.f.astype(float) @ x.g.T)
    true = likely.diagonal()
    forward, backward = (true / (true + np.sum(likely * x.N, axis=axis)) for axis in (1, 0))
    return -np.sum(np.log(forward) + np.log(backward)) / (2 * len(true))


def inlier(x):
    lowest, other = (np.flatnonzero(x.I)[np.argsort(scores[x.I])][:300] for scores in (x.s, x.t))
    between = np.linalg.norm(x.read(0, x.p[lowest])[:, None] - x.read(1, x.q[other]), axis=-1)
    matched, half = x.q[other][between.argmin(axis=1)], (np.array(SIZE[::-1]) - 1) / 2
    r = x.ionet(np.column_stack([x.p[lowest] / half - 1, matched / half - 1, between.min(axis=1)]))
    y = np.where(np.linalg.norm(x.w[lowest] - matched, axis=1) < 4, 1, -1)
    assert 10 < (y == 1).sum() < len(y) == 300
    return np.mean((r - y) ** 2)


def corner_offset(x):
    missed = x.sigma * ((x.o - x.o_star) ** 2).sum(axis=-1)
    return np.mean(missed.sum(axis=(1, 2)) / x.sigma.sum(axis=(1, 2)))


def reliability(x):
    likely = np.exp(20 * x.f.astype(float) @ x.g.T)
    near = np.abs(x.w[x.K][:, None] - x.w[x.K]).max(axis=-1) <= 3
    m = np.prod([np.sum(likely * near, axis=axis) / np.sum(likely, axis=axis) for axis in (0, 1)], axis=0)
    return np.mean((x.s + x.t[x.n])[x.K] * (m.mean() - m))


def distinctness(x):
    total = 0.0
    for points, scores in ((x.p, x.s), (x.q, x.t)):
        closeness = np.maximum(0, 1 - np.linalg.norm(points[:, None] - points, axis=-1) / 2)
        crowd = np.where(scores > scores[:, None], closeness, 0).max(axis=1)
        total += np.mean((scores * crowd)[x.I])
    return total


def distillation(heads):
    s, o, f = (heads[name] for name in HEADS)
    s_, o_, f_ = (heads[f"wanted_{name}"] for name in HEADS)
    cosine = (decode.normalize(f) * decode.normalize(f_)).sum(axis=-1)
    return 10 * np.mean((s - s_) ** 2) + np.mean(s_ / s_.mean() * (o - o_) ** 2) + np.mean(1 - cosine)


PAPER, PLUS = RECIPES["kp2d"]["loss"], RECIPES["kp2d_plus"]["loss"]
# Name of a term or its kind → its formula in notebook 02, that in NumPy for a pair, the term, its settings.
FORMULAS = {
    "localization": (
        r"L = \frac{1}{|C|} \sum_{i \in C} d_i",
        lambda x: np.mean(x.d[x.C]),
        "localization",
        PAPER,
    ),
    "usp": (r"L = \frac{1}{|C|} \sum_{i \in C} (s_i + t_{n(i)})\,(d_i - \bar d)", usp, "usp", PAPER),
    "resampled": (
        r"L = \frac{1}{|V|} \sum_{i \in V} (s_i - t(w_i))^2",
        lambda x: np.mean((x.s[x.V] - x.read(1, x.w[x.V], "score_map")[:, 0]) ** 2),
        "consistency",
        PAPER,
    ),
    "associated": (
        r"L = \frac{1}{|C|} \sum_{i \in C} (s_i - t_{n(i)})^2",
        lambda x: np.mean((x.s - x.t[x.n])[x.C] ** 2),
        "consistency",
        PLUS,
    ),
    "triplet": (
        r"L = \frac{1}{|K|} \sum_{i \in K} \max\Bigl(0,\ \tfrac{1}{5} + \lVert f_i - g_i \rVert "
        r"- \min_{k \in N_i} \lVert f_i - g_k \rVert\Bigr)",
        triplet,
        "descriptor",
        PAPER,
    ),
    "dual_softmax": (
        r"L = -\frac{1}{2|K|} \sum_{i \in K} \Bigl("
        r"\log \frac{e^{20 f_i \cdot g_i}}{\sum_{k \in N_i \cup \{i\}} e^{20 f_i \cdot g_k}} "
        r"+ \log \frac{e^{20 f_i \cdot g_i}}{\sum_{k \in N_i \cup \{i\}} e^{20 f_k \cdot g_i}}\Bigr)",
        dual_softmax,
        "descriptor",
        PLUS,
    ),
    "inlier": (r"L = \frac{1}{|M|} \sum_{i \in M} (r_i - y_i)^2", inlier, "inlier", PAPER),
    "corner_offset": (
        r"L = \frac{\sum_c \sigma_c \lVert o_c - o^*_c \rVert^2}{\sum_c \sigma_c}",
        corner_offset,
        "corner_offset",
        PLUS,
    ),
    "corner_score": (
        r"L = \frac{1}{n} \sum_c (s_c - s^*_c)^2",
        lambda x: np.mean((x.scores - x.s_star) ** 2),
        "corner_score",
        PLUS,
    ),
    "reliability": (
        r"L = \frac{1}{|K|} \sum_{i \in K} (s_i + t_{n(i)})\,(\bar m - m_i)",
        reliability,
        "reliability",
        LossConfig(reliability=1.0),
    ),
    "distinctness": (
        r"L = \frac{1}{|I|} \sum_{i \in I} s_i \max_{k : s_k > s_i} "
        r"\max\bigl(0,\ 1 - \lVert p_i - p_k \rVert / 2\bigr)",
        distinctness,
        "distinctness",
        LossConfig(distinctness=1.0),
    ),
}
DISTILLATION = (
    r"L = 10\,\overline{(s - s')^2} + \overline{(s' / \bar{s'})\,(o - o')^2} + \overline{1 - f \cdot f'}"
)


def by_library(example, name, config):
    heads = {key: ops.convert_to_tensor(head) for key, head in example.heads.items()}
    return float(loss_terms(heads, example.batch, config, CELL, example.ionet)[name])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_term_that_a_recipe_weighs_has_a_formula(recipe):
    formulas, config = stated(), RECIPES[recipe]["loss"]
    for term in term_weights(config):
        kind = getattr(config, f"{term}_kind", term)
        assert term in formulas and formulas[kind], f"{term} as {kind}"


def test_every_formula_is_of_a_term_and_every_term_is_named():
    formulas = {name for name, formula in stated().items() if formula}
    assert formulas == {*FORMULAS, "distillation"}
    assert set(TERMS) <= set(stated())
    assert {term for _, _, term, _ in FORMULAS.values()} == set(TERMS) - {"distillation"}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_and_the_library_agree(name, example):
    """Who changes a formula in the notebook, or a constant of a recipe, changes the reference beside it."""
    formula, reference, term, config = FORMULAS[name]
    assert stated()[name] == formula
    values = [reference(pair_of(example, index, config.descriptor_points)) for index in (0, 1)]
    assert abs(values[0] - values[1]) > 1e-5 and min(map(abs, values)) > 1e-5
    assert by_library(example, term, config) == pytest.approx(np.mean(values), rel=1e-3, abs=2e-6)


def test_the_formula_of_distillation_and_the_library_agree(example):
    assert stated()["distillation"] == DISTILLATION
    value = by_library(example, "distillation", RECIPES["kp2d_int8"]["loss"])
    assert value == pytest.approx(distillation(example.heads), rel=1e-4)
