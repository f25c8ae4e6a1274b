"""Confidence intervals: whole sequences are drawn, missing values left out, the same ends every time."""

import numpy as np
import pytest

from kp2d import checks
from kp2d.evaluate import averages


def test_equal_values_have_an_interval_of_no_width():
    low, high = averages.intervals(np.full((6, 2), 0.25), ["a", "a", "b", "b", "c", "c"])
    assert low == pytest.approx([0.25, 0.25]) and high == pytest.approx([0.25, 0.25])


def test_the_interval_of_independent_values_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3.0, 2.0, (400, 1))
    low, high = averages.intervals(values, list(range(400)))
    half = 1.96 * values.std() / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.03)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.03)


def test_pairs_of_a_sequence_are_drawn_together():
    scenes = np.random.default_rng(2).uniform(size=10)
    values, groups = np.repeat(scenes, 8)[:, None], np.repeat(np.arange(10), 8)
    together = np.subtract(*averages.intervals(values, groups.tolist())[::-1])
    alone = np.subtract(*averages.intervals(values, list(range(80)))[::-1])
    assert together[0] > 2 * alone[0]  # sqrt(8) times, about


def test_missing_values_are_left_out():
    values = np.array([[1.0, np.nan], [1.0, 2.0], [1.0, 2.0]])
    low, high = averages.intervals(values, ["a", "b", "c"])
    assert low.tolist() == high.tolist() == [1.0, 2.0]


def test_values_of_one_sequence_alone_have_no_interval():
    values, groups = np.array([[np.nan], [5.0], [7.0]]), ["a", "b", "b"]
    assert np.isnan(averages.intervals(values, groups)).all()
    assert np.isnan(averages.intervals(np.ones((3, 1)), groups, minus=values)).all()


def test_a_difference_is_that_of_the_means_draw_by_draw():
    values = np.random.default_rng(4).normal(size=(12, 1))
    groups = np.repeat(list("abcd"), 3).tolist()
    low, high = averages.intervals(values + 0.25, groups, minus=values)
    assert low[0] == pytest.approx(0.25) and high[0] == pytest.approx(0.25)


@pytest.mark.parametrize("groups", [[], ["a"], ["a", "a"]])
def test_one_sequence_tells_nothing_about_others(groups):
    low, high = averages.intervals(np.ones((len(groups), 1)), groups)
    assert np.isnan(low).all() and np.isnan(high).all()


def test_order_of_rows_and_names_of_groups_do_not_matter():
    values = np.arange(12.0)[:, None]
    groups = np.repeat(["a", "b", "c", "d"], 3)
    order = np.random.default_rng(3).permutation(12)
    mixed = averages.intervals(values[order], groups[order].tolist())
    np.testing.assert_allclose(mixed, averages.intervals(values, groups.tolist()))


@pytest.mark.parametrize(("values", "groups"), [(np.ones(3), ["a"] * 3), (np.ones((3, 1)), ["a"] * 2)])
def test_bad_input_is_named(values, groups):
    with pytest.raises(checks.InputError, match="expected"):
        averages.intervals(values, groups)
