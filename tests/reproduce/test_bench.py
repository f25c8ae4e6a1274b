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
        (["networks", "--seconds", "3"], "an option of kp2d bench recipes"),
        (["recipes", "--steps", "3"], "an option of kp2d bench networks"),
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
    assert code == 2 and "one preset for all that is ranked" in err
    code, _, err = command(*("bench", *words[:5]), "--variants", "magic")
    assert code == 2 and "variant" in err
    code, _, err = command("bench", "networks", "--steps", "5")
    assert code == 2 and "--data and --pairs" in err


def test_networks_have_costs_and_metrics_in_one_row(command, monkeypatch, home, tiny_dataset):
    from kp2d.device import latency
    from kp2d.evaluate import ranking

    asked = {}

    def costs(names, *_, **options):
        asked["costs"] = (list(names), options["threads"])
        return pd.DataFrame({"network": names, "kib": 1.5, "ms_240x320_1": 2.0})

    def rank(changes, *_, **options):
        asked["rank"] = (changes, options["steps"], options["precision"])
        rows = [(name, subset) for name in changes for subset in ("all", "viewpoint")]
        return pd.DataFrame(rows, columns=["preset", "subset"]).assign(d3=0.5, changes="")

    monkeypatch.setattr(latency, "network_costs", costs)
    monkeypatch.setattr(ranking, "rank", rank)
    words = ("networks", "--data", home, "--pairs", tiny_dataset, "--threads", "1", "--steps", "7")
    code, out, _ = command("bench", *words, "--preset", "nano_flat", "kp2d_nano")
    table = tables.read_csv(home / "results" / "networks.csv")
    assert (
        code == 0
        and "networks.csv" in out
        and list(table["network"]) == ["nano_flat"] * 2 + ["kp2d_nano"] * 2
    )
    assert list(table.columns) == ["network", "kib", "ms_240x320_1", "subset", "d3"]
    changes, steps, precision = asked["rank"]
    assert (asked["costs"], steps, precision) == ((["nano_flat", "kp2d_nano"], [1]), 7, "float32")
    assert changes["nano_flat"] == {"preset": "nano_flat", **ranking.NETWORK_RUN}


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


def test_latencies_of_another_runtime_are_kept_with_the_sift_they_were_measured_beside(tmp_path):
    ours, theirs = (
        pd.DataFrame({"method": ["s", "sift"], "runtime": [name, "opencv"], "extract_ms": [1.0, 9.0]}).assign(
            threads=1, image_height=88, image_width=88, run=f"{name} 2.0"
        )
        for name in ("litert", "tflite-runtime")
    )
    path = tables.write_csv(tmp_path / "bench_latency.csv", theirs)
    rows = bench.beside_others(ours, path, bench.KEYS["latency"])
    assert list(rows["run"]) == ["tflite-runtime 2.0"] * 2 + ["litert 2.0"] * 2
    assert bench.beside_others(ours, path, ("threads",)).equals(ours)


def test_a_stage_measured_again_has_one_row(tmp_path):
    path = tables.write_csv(
        tmp_path / "s.csv", pd.DataFrame([{"profile": "fast", "stage": "01_prepare_data", "seconds": 9.0}])
    )
    again = pd.DataFrame([{"profile": "fast", "stage": "01_prepare_data", "seconds": 7.0}])
    assert list(bench.beside_others(again, path, bench.KEYS["stages"])["seconds"]) == [7.0]
