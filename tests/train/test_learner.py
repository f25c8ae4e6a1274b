"""The terms of a whole pair: nothing to pay for a perfect one, exactly the terms that have a weight."""

import numpy as np
import pytest
from keras import ops

from kp2d.train.learner import build_ionet
from kp2d.train.losses import steer
from kp2d.train.recipes import KP2D, LossConfig
from kp2d.train.terms import crowding, loss_terms, term_weights

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
    return {
        "homography": homography,
        "turns": np.zeros(1, np.int32),
        "corners0": corners,
        "corners1": corners,
    }


def terms_of(batch, config, ionet=None, **options):
    heads = {name: ops.convert_to_tensor(head) for name, head in make_heads().items()}
    terms = loss_terms(heads, batch, config, CELL, ionet, **options)
    return {name: float(value) for name, value in terms.items()}


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


def test_scores_decide_which_keypoints_are_placed():
    """A keypoint whose score is near 0 costs nothing wherever it lies; alike scores change nothing."""
    heads = make_heads()
    heads["offset_map"][0, 3, 4] += 0.6
    heads["score_map"][:] = 0.5
    weighted, uniform = (LossConfig(localization_weighting=kind) for kind in ("scores", "uniform"))

    def localization(config):
        tensors = {name: ops.convert_to_tensor(head) for name, head in heads.items()}
        return float(loss_terms(tensors, make_batch(), config, CELL)["localization"])

    assert localization(weighted) == pytest.approx(localization(uniform), abs=1e-6)
    heads["score_map"][0, 3, 4] = 1e-6
    assert localization(weighted) < 1e-3 < localization(uniform)


def test_a_saturated_distance_bounds_what_a_bad_point_costs():
    linear, bounded = (
        terms_of(make_batch((2.5, 1)), LossConfig(localization_saturation=width)) for width in (0.0, 0.5)
    )
    assert 0 < bounded["localization"] < 1.0 < linear["localization"]


def test_associated_positives_are_the_keypoints_of_the_other_view():
    warped, associated = (
        terms_of(make_batch((0.5, 0)), LossConfig(descriptor_positives=kind))["descriptor"]
        for kind in ("warped", "associated")
    )
    assert associated < warped, "the heads of both views are equal, and so are descriptors at their keypoints"


def test_reliability_is_nothing_where_all_or_none_match():
    config = LossConfig(reliability=1.0)
    assert terms_of(make_batch(), config)["reliability"] == pytest.approx(0, abs=0.01)
    assert np.isfinite(terms_of(make_batch((2.5, 1)), config)["reliability"])
    assert terms_of(make_batch((500, 0)), config)["reliability"] == 0


def test_only_the_best_of_the_cells_that_share_a_corner_keeps_its_score():
    """Of two cells that point at one place the worse one is crowded, and so is another within reach."""
    points = np.full((1, 3, 4, 2), 1000.0, np.float32) * np.arange(1, 13).reshape(1, 3, 4, 1)
    points[0, 1, 1] = points[0, 1, 3] = (5, 5)
    points[0, 0, 2] = (6, 5)
    scores = np.full((1, 3, 4, 1), 0.1, np.float32)
    scores[0, 1, 1], scores[0, 1, 3], scores[0, 0, 2] = 0.9, 0.4, 0.4
    crowd = ops.convert_to_numpy(crowding(*map(ops.convert_to_tensor, (points, scores)), 2.0))
    wanted = np.zeros((3, 4))
    wanted[1, 3], wanted[0, 2] = 1.0, 0.5
    np.testing.assert_allclose(crowd.reshape(3, 4), wanted, atol=1e-6)


def test_distinctness_asks_crowded_scores_alone_to_sink():
    heads, interior = make_heads(), (ROWS - 2) * (COLUMNS - 2)
    heads["offset_map"][:] = 0.0

    def distinctness():
        tensors = {name: ops.convert_to_tensor(head) for name, head in heads.items()}
        return float(loss_terms(tensors, make_batch(), LossConfig(distinctness=1.0), CELL)["distinctness"])

    assert distinctness() == 0
    heads["score_map"][:, 3, 4], heads["score_map"][:, 3, 5] = 0.9, 0.5
    heads["offset_map"][:, 3, 4, 0], heads["offset_map"][:, 3, 5, 0] = 1.5 / 3, -2.5 / 3
    assert distinctness() == pytest.approx(2 * 0.5 / interior, rel=1e-3)


def test_descriptors_follow_a_turn():
    batch = make_batch()
    upright = terms_of(batch, LossConfig(), steered=True)["descriptor"]
    assert upright == pytest.approx(terms_of(batch, LossConfig())["descriptor"], abs=1e-6)
    batch["turns"] = np.array([1], np.int32)
    assert terms_of(batch, LossConfig(), steered=True)["descriptor"] > upright + 1


def test_a_steered_descriptor_moves_by_blocks():
    descriptors = np.arange(2 * 1 * 8, dtype=np.float32).reshape(2, 1, 8)
    turned = ops.convert_to_numpy(steer(ops.convert_to_tensor(descriptors), np.array([1, 3], np.int32)))
    assert turned[0, 0].tolist() == np.roll(descriptors[0, 0], 2).tolist()
    assert turned[1, 0].tolist() == np.roll(descriptors[1, 0], 6).tolist()
