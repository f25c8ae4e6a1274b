"""The terms of a whole pair: nothing to pay for a perfect one, exactly the terms that have a weight."""

import numpy as np
import pytest
from keras import ops

from kp2d.ionet import build_ionet
from kp2d.learner import loss_terms, term_weights
from kp2d.recipes import KP2D
from kp2d.train_config import LossConfig

ROWS, COLUMNS, CELL, DIM = 6, 9, 4, 32


def make_heads(seed=0):
    """Heads of one image, twice: offsets that keep points apart, descriptors that tell them apart."""
    rng = np.random.default_rng(seed)
    heads = {
        "score_map": rng.uniform(0.1, 0.9, (1, ROWS, COLUMNS, 1)),
        "offset_map": rng.uniform(-0.2, 0.2, (1, ROWS, COLUMNS, 2)),
        "descriptor_map": rng.normal(size=(1, 2 * ROWS, 2 * COLUMNS, DIM)),
    }
    return {name: np.concatenate([head, head]).astype(np.float32) for name, head in heads.items()}


def make_batch(shift=(0.0, 0.0)):
    homography = np.eye(3, dtype=np.float32)[None].copy()
    homography[0, :2, 2] = shift
    corners = np.zeros((1, ROWS, COLUMNS, 4), np.float32)
    return {"homography": homography, "corners0": corners, "corners1": corners}


def terms_of(batch, config, ionet=None):
    heads = {name: ops.convert_to_tensor(head) for name, head in make_heads().items()}
    return {name: float(value) for name, value in loss_terms(heads, batch, config, CELL, ionet).items()}


def test_equal_views_cost_nothing_and_shifted_ones_do():
    config = LossConfig(consistency_kind="associated")
    equal, shifted = terms_of(make_batch(), config), terms_of(make_batch((2.5, 1.0)), config)
    assert equal["localization"] == pytest.approx(0, abs=1e-3)
    assert equal["consistency"] == pytest.approx(0, abs=1e-8)
    for name in ("localization", "consistency", "descriptor"):
        assert shifted[name] > equal[name] + 1e-3


def test_only_visible_interior_points_count():
    nowhere = terms_of(make_batch((500.0, 0.0)), LossConfig())
    assert nowhere["localization"] == nowhere["usp"] == nowhere["descriptor"] == 0


@pytest.mark.parametrize("limit", [None, 10, 10_000])
def test_descriptor_points_may_be_limited(limit):
    assert np.isfinite(terms_of(make_batch((0.5, 0)), LossConfig(descriptor_points=limit))["descriptor"])


def test_terms_are_those_with_a_weight():
    for config in (LossConfig(), KP2D["loss"], LossConfig(usp=0, corner_end=0, corner_hold=0)):
        assert terms_of(make_batch(), config, build_ionet()).keys() == term_weights(config).keys()
    assert set(term_weights(KP2D["loss"])) == {"localization", "usp", "consistency", "descriptor", "inlier"}
    assert "usp" not in term_weights(LossConfig(usp=0))
