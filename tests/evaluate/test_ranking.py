"""The training benchmark reports shares that add up."""

import pytest

from kp2d.evaluate.ranking import bench_train, textures


def test_bench_row(small_run):
    with textures() as data:
        row = bench_train(small_run(data=data, precision="bfloat16", workers=1), timed_steps=2)
    shares = [row[f"{part}_share"] for part in ("network", "loss", "data")]
    assert sum(shares) == pytest.approx(1) and min(shares) >= 0
    assert row["pairs_per_second"] > 0 and row["seconds_per_batch_made"] > 0
    assert row["precision"] == "bfloat16"
    assert (row["image_height"], row["image_width"]) == (32, 48)
