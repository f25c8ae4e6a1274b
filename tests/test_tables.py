"""Result tables: schema, atomic writes that leave equal results alone, markdown, ours beside the paper's."""

import numpy as np
import pandas as pd
import pytest

from kp2d import checks, comparison, config, datasets, evaluation, extractors, tables


@pytest.fixture(scope="module")
def small():
    return pd.DataFrame({"method": ["sift", "orb"], "d1": [1 / 3, np.nan], "git_commit": ["aaa", "aaa"]})


def test_csv_round_trip_and_missing_values(small, tmp_path):
    path = tables.write_csv(tmp_path / "new" / "t.csv", small)
    back = tables.read_csv(path, ("method", "d1"))
    assert back["d1"].iloc[0] == pytest.approx(1 / 3, abs=1e-6)
    assert np.isnan(back["d1"].iloc[1])


def test_equal_results_of_another_commit_leave_the_file_alone(small, tmp_path):
    path = tables.write_csv(tmp_path / "t.csv", small)
    tables.write_csv(path, small.assign(git_commit="bbb"))
    assert "aaa" in path.read_text()
    tables.write_csv(path, small.assign(git_commit="bbb", d1=0.5))
    assert "bbb" in path.read_text()


def test_a_damaged_table_is_replaced(small, tmp_path):
    path = tmp_path / "t.csv"
    for damage in (b"", b"\xff\xfe\x00", b'a,b\n"'):
        path.write_bytes(damage)
        tables.write_csv(path, small)
        assert len(tables.read_csv(path)) == 2


def test_reading_names_what_is_wrong(tmp_path):
    with pytest.raises(checks.InputError, match="no such file"):
        tables.read_csv(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(checks.InputError, match="the columns d1"):
        tables.read_csv(tmp_path / "t.csv", ("a", "d1"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(checks.InputError, match="a table in"):
        tables.read_csv(tmp_path / "empty.csv")


def test_markdown_formats_numbers_and_gaps():
    rows = pd.DataFrame({"name": ["a", "b", "c"], "top_k": [300, 1000, 1], "d1": [1.0, np.nan, -1e-9]})
    assert tables.markdown(rows, ["name", "top_k", "d1"]).splitlines() == [
        "| name | k | d1 |",
        "|---|---:|---:|",
        "| a | 300 | 1.000 |",
        "| b | 1000 | – |",
        "| c | 1 | 0.000 |",
    ]


def test_markers_are_filled_and_missing_ones_named():
    text = "x\n<!-- table:a -->\nold\n<!-- /table:a -->\ny"
    filled = tables.fill_markers(text, {"a": r"new \1"})
    assert filled == "x\n<!-- table:a -->\nnew \\1\n<!-- /table:a -->\ny"
    assert tables.fill_markers(filled, {"a": r"new \1"}) == filled
    with pytest.raises(checks.InputError, match="table:b"):
        tables.fill_markers(text, {"b": ""})


def test_rows_repeat_their_protocol(tiny_dataset):
    sequences = datasets.load_sequences(tiny_dataset)
    protocol = config.protocol(image_size=(96, 128), top_k=(50,), seed=7)
    rows, pairs = comparison.evaluate_methods(
        ["sift", "orb"], sequences, protocol, profile="smoke", progress=False
    )
    assert tuple(rows.columns) == tables.EVALUATION_COLUMNS
    assert rows[rows["method"] == "orb"]["bytes_per_keypoint"].eq(32).all()
    assert rows[rows["method"] == "sift"]["bytes_per_keypoint"].eq(512).all()
    assert rows["seed"].eq(7).all()
    assert rows["config_hash"].nunique() == 2
    assert set(pairs["method"]) == {"sift", "orb"}


def test_score_threshold_is_recorded_only_where_it_has_a_meaning(tiny_dataset):
    sequences = datasets.load_sequences(tiny_dataset)
    protocol = config.protocol("kp2dtiny", image_size=(96, 128), top_k=(50,))
    extractor = extractors.create("sift")
    scores = evaluation.evaluate(extractor, sequences, protocol, progress=False)
    rows = tables.evaluation_rows(evaluation.summarize(scores), extractor, protocol, profile="p", dataset="d")
    assert rows["score_threshold"].eq(0).all()
    assert not rows["half_pixel"].any()


def test_ours_stand_beside_the_paper_with_the_difference():
    ours = {"method": "sift", "precision": "float32", "image_height": 240, "image_width": 320, "top_k": 300}
    row = {**ours, "subset": "all", "dataset": "sample", **dict.fromkeys(tables.METRICS, 0.5)}
    elsewhere = {**row, "top_k": 77}
    beside = tables.beside_paper(pd.DataFrame([row, elsewhere]))
    assert list(beside["metric"]) == list(tables.METRICS)
    d1 = beside[beside["metric"] == "d1"].iloc[0]
    assert d1["paper"] == 0.622
    assert d1["difference"] == pytest.approx(0.5 - 0.622)
    assert "KP2Dtiny README" in d1["source"]


def test_unknown_table_of_the_paper_names_the_known_ones():
    with pytest.raises(checks.InputError, match="comparison, hpatches_320x240, models"):
        tables.paper("hpatches")


def test_against_counts_errors_the_right_way_round():
    base = {"precision": "float32", "subset": "viewpoint", "top_k": 300, "status": "ok"}
    values = {"repeatability": 0.5, "localization_error": 1.0, "matching_score": 0.5, "corner_error": 1.0}
    better = {"repeatability": 0.6, "localization_error": 0.9, "matching_score": 0.6, "corner_error": np.nan}
    rows = [
        {**base, **values, "method": "sift", "sequence": "v_a", "index": 2},
        {**base, **better, "method": "orb", "sequence": "v_a", "index": 2},
        {**base, **values, "method": "sift", "sequence": "v_a", "index": 3},
        {**base, **values, "method": "orb", "sequence": "v_a", "index": 3},
    ]
    table = comparison.against(pd.DataFrame(rows)).query("subset == 'all'").set_index("metric")
    tally = table[["num_better", "num_equal", "num_worse"]]
    assert tally.loc["repeatability"].tolist() == [1, 1, 0]
    assert tally.loc["localization_error"].tolist() == [1, 1, 0]
    assert tally.loc["corner_error"].tolist() == [0, 1, 1]
    with pytest.raises(checks.InputError, match="reference method"):
        comparison.against(pd.DataFrame(rows), "surf")


def test_extremes_run_from_the_greatest_gain_to_the_greatest_loss():
    base = {"precision": "float32", "subset": "viewpoint", "top_k": 300, "status": "ok"}
    errors = {
        "a": (1, 5),
        "b": (5, 1),
        "c": (2, 2),
        "d": (np.nan, 3),
        "e": (4, np.nan),
        "f": (np.nan, np.nan),
    }
    rows = [
        {**base, "pair": pair, "method": method, "corner_error": error}
        for pair, both in errors.items()
        for method, error in zip(("sift", "orb"), both, strict=True)
    ]
    table = comparison.extremes(pd.DataFrame(rows), "orb", top_k=300)
    assert list(table["pair"]) == ["d", "b", "c", "a", "e"]
    assert list(table.columns) == ["pair", "subset", "sift", "orb", "difference"]
    assert list(comparison.extremes(pd.DataFrame(rows), "orb", top_k=300, count=1)["pair"]) == ["d", "e"]
    with pytest.raises(checks.InputError, match="other than SIFT"):
        comparison.extremes(pd.DataFrame(rows), "sift", top_k=300)


def test_the_reference_codes_rules_are_compared_without_scoring_twice(tiny_dataset, monkeypatch):
    sequences = datasets.load_sequences(tiny_dataset)
    protocol = config.protocol(image_size=(64, 80), top_k=(50,))
    rows, _ = comparison.evaluate_methods(["sift"], sequences, protocol, profile="p", progress=False)
    calls = []
    scored = comparison.evaluate_methods

    def counted(methods, sequences, rules, **options):
        calls.append(rules)
        return scored(methods, sequences, rules, **options)

    monkeypatch.setattr(comparison, "evaluate_methods", counted)
    both = comparison.compare_protocols(rows, ["sift"], sequences, protocol, profile="p", progress=False)
    assert [rules.half_pixel for rules in calls] == [False]
    effect = comparison.protocol_effect(both)
    assert len(effect) == len(rows)
    assert effect["localization_error"].abs().max() > 0


def test_the_effect_of_the_rules_is_theirs_minus_ours():
    row = {"method": "m", "precision": "float32", "subset": "all", "top_k": 300}
    values = [dict.fromkeys(tables.METRICS, value) for value in (0.5, 0.8)]
    both = [
        {"protocol": name, **row, **value} for name, value in zip(("kp2d", "kp2dtiny"), values, strict=True)
    ]
    assert comparison.protocol_effect(pd.DataFrame(both))["d1"].item() == pytest.approx(0.3)


def test_a_lone_method_has_nothing_to_be_compared_with():
    row = {
        "method": "sift",
        "precision": "float32",
        "status": "ok",
        "sequence": "v_a",
        "index": 2,
        "top_k": 300,
    }
    with pytest.raises(checks.InputError, match="beside sift"):
        comparison.against(pd.DataFrame([row]))
