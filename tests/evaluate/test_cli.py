"""kp2d evaluate: the tables it writes, and what it refuses before the work."""

import pandas as pd
import pytest

from kp2d.evaluate import tables

pytestmark = pytest.mark.usefixtures("home")


def test_evaluate_writes_the_documented_table(tiny_dataset, tmp_path, command):
    code, out, _ = command(
        *("evaluate", "--method", "sift", "--precision", "float32", "--data", tiny_dataset),
        *("--image-size", "96x128", "--top-k", 50, 100, "--output", tmp_path / "t.csv"),
        *("--pairs", tmp_path / "p.csv", "--cache", tmp_path / "cache"),
        *("--orders", 2, "--estimators", tmp_path / "e.csv"),
    )
    assert code == 0
    rows = tables.read_csv(tmp_path / "t.csv", tables.EVALUATION_COLUMNS)
    assert set(rows["subset"]) == {"viewpoint", "illumination", "all"}
    assert set(rows["top_k"]) == {50, 100}
    assert (rows["d1"] <= rows["d3"]).all()
    assert len(pd.read_csv(tmp_path / "p.csv")) == 2 * rows[rows["subset"] == "all"]["num_pairs"].iloc[0]
    assert "repeatability" in out and "opencv-usac-accurate" in out
    by_estimator = tables.read_csv(tmp_path / "e.csv").set_index(["subset", "estimator", "refine"])
    assert set(by_estimator["orders"]) == {2} and set(by_estimator["top_k"]) == {100}
    assert ("all", "opencv-ransac", False) in by_estimator.index


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["--orders", "-1"], "--orders of 1 or more"),
        (["--orders", "0", "--estimators", "e.csv"], "--orders of 1 or more"),
        (["--output", "e.csv", "--estimators", "e.csv"], "different files"),
        (["--estimators", "e.txt"], ".csv"),
    ],
)
def test_a_comparison_of_estimators_that_cannot_be_is_refused_before_the_work(
    tiny_dataset, monkeypatch, command, given, match
):
    monkeypatch.setattr("kp2d.evaluate.evaluation.evaluate", lambda *_, **__: pytest.fail("evaluated first"))
    code, _, err = command("evaluate", "--method", "orb", "--data", tiny_dataset, *given)
    assert code == 2 and match in err


def test_without_orders_estimators_are_not_compared(tiny_dataset, monkeypatch, command):
    monkeypatch.setattr("kp2d.evaluate.estimators.study", lambda *_, **__: pytest.fail("compared"))
    arguments = ("evaluate", "--method", "orb", "--data", tiny_dataset, "--image-size", "96x128")
    code, out, _ = command(*arguments, "--top-k", 50, "--orders", 0)
    assert code == 0 and "repeatability" in out


def test_other_prefixes_are_a_subset_of_their_own(tiny_dataset, tmp_path, command):
    (tiny_dataset / "v_a").rename(tiny_dataset / "night_a")
    code, _, _ = command(
        *("evaluate", "--data", tiny_dataset, "--image-size", "96x128", "--top-k", 50),
        *("--output", tmp_path / "t.csv"),
    )
    rows = tables.read_csv(tmp_path / "t.csv").set_index("subset")
    assert code == 0
    assert (
        rows.loc["night", "num_pairs"] + rows.loc["illumination", "num_pairs"] == rows.loc["all", "num_pairs"]
    )


def test_an_unwritable_output_is_refused_before_the_work(tiny_dataset, tmp_path, monkeypatch, command):
    monkeypatch.setattr("kp2d.evaluate.evaluation.evaluate", lambda *_, **__: pytest.fail("evaluated first"))
    (tmp_path / "file").write_text("in the way")
    for target in (tmp_path / "file" / "t.csv", tmp_path):
        code, _, err = command("evaluate", "--data", tiny_dataset, "--output", target)
        assert code == 2
        assert str(target) in err


def test_no_workers_is_an_error(tiny_dataset, command):
    code, _, err = command("evaluate", "--data", tiny_dataset, "--workers", 0)
    assert (code, "one or more workers" in err) == (2, True)
