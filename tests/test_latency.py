"""The latency table: every precision, size and number of threads, compared within one run."""

import pytest

from kp2d import latency
from kp2d.checks import InputError


def test_every_precision_is_timed_in_the_same_run():
    precisions = ("float32", "int8")
    rows = latency.bench_latency(["kp2d_tiny_s"], [(88, 88)], threads=[1], precisions=precisions, repeats=2)
    assert rows["precision"].tolist() == list(precisions)
    assert (rows["network_ms"] > 0).all() and (rows["network_ms_p90"] >= rows["network_ms"] * 0.5).all()
    assert rows["times_as_fast_as_float32"].iloc[0] == 1
    assert set(rows["image_height"]) == {88} and set(rows["threads"]) == {1}


def test_only_shipped_networks_are_timed():
    with pytest.raises(InputError, match="shipped network"):
        latency.bench_latency(["kp2d_tiny_x"], [(88, 88)])
