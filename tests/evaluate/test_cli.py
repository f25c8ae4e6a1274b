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
    )
    assert code == 0
    rows = tables.read_csv(tmp_path / "t.csv", tables.EVALUATION_COLUMNS)
    assert set(rows["subset"]) == {"viewpoint", "illumination", "all"}
    assert set(rows["top_k"]) == {50, 100}
    assert (rows["d1"] <= rows["d3"]).all()
    assert len(pd.read_csv(tmp_path / "p.csv")) == 2 * rows[rows["subset"] == "all"]["num_pairs"].iloc[0]
    assert "repeatability" in out


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
