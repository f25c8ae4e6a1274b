"""kp2d bench: options without effect, and tables that keep what was not measured again."""

import pandas as pd
import pytest

from kp2d.evaluate import tables
from kp2d.reproduce import bench

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "--threads", "2"],
            "no --threads for kp2d bench train; received an option of kp2d bench",
        ),
        (["train", "--image-size", "88x88"], "no --image-size"),
        (["latency", "--seconds", "3"], "an option of kp2d bench recipes"),
    ],
)
def test_bench_refuses_options_that_would_change_nothing(arguments, said, command):
    code, _, err = command("bench", *arguments)
    assert code == 2 and said in err


def test_bench_recipes_asks_for_what_it_needs(command, tmp_path):
    code, _, err = command("bench", "recipes")
    assert code == 2 and "--data and --pairs" in err
    words = ("recipes", "--data", tmp_path, "--pairs", tmp_path, "--preset", "kp2d_tiny_s", "kp2d_tiny_f")
    code, _, err = command("bench", *words)
    assert code == 2 and "one preset for all recipes" in err


def test_bench_keeps_the_rows_that_were_not_measured_again(tmp_path):
    path = tmp_path / "bench_train.csv"
    ours, theirs = (
        pd.DataFrame({"preset": ["s", "f"], "backend": [name] * 2, "pairs_per_second": [speed, speed]})
        for name, speed in (("tensorflow", 2.0), ("jax", 1.0))
    )
    assert bench.beside_others(ours, path) is ours
    tables.write_csv(path, theirs)
    assert list(bench.beside_others(ours, path)["backend"]) == ["jax", "jax", "tensorflow", "tensorflow"]
    faster = theirs.assign(pairs_per_second=3.0).iloc[:1]
    assert sorted(bench.beside_others(faster, path)["pairs_per_second"]) == [1.0, 3.0]


def test_a_stage_measured_again_has_one_row(tmp_path):
    path = tables.write_csv(
        tmp_path / "s.csv", pd.DataFrame([{"profile": "fast", "stage": "01_prepare_data", "seconds": 9.0}])
    )
    again = pd.DataFrame([{"profile": "fast", "stage": "01_prepare_data", "seconds": 7.0}])
    assert list(bench.beside_others(again, path, bench.KEYS["stages"])["seconds"]) == [7.0]
