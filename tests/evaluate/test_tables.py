"""Result tables: schema, atomic writes that leave equal results alone, markdown, ours beside the paper's."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from kp2d import checks, config
from kp2d.data import datasets
from kp2d.evaluate import averages, comparison, evaluation, tables
from kp2d.methods import extractors


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


@pytest.mark.parametrize(
    "names", [["001", "1e5"], ["nan", "NA"], ["None", "null"], ["true", "-inf"], ["0x1", " "]]
)
@pytest.mark.parametrize(
    "column", ["sequence", "pair", "dataset", "method", "subset", "config_hash", "content"]
)
def test_text_that_looks_like_a_number_or_nothing_stays_text(column, names, tmp_path):
    path = tables.write_csv(tmp_path / "t.csv", pd.DataFrame({column: names, "d1": [0.5, 1.0]}))
    back = tables.read_csv(path)
    assert list(back[column]) == names and list(back["d1"]) == [0.5, 1.0]
    path.write_text(f"{column},d1\n,1\nx,2\n")
    assert list(tables.read_csv(path)[column].isna()) == [True, False]  # what is missing stays missing


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
    assert set(rows["weights_sha256"]) == {""}  # classical methods have no weights
    assert set(pairs["method"]) == {"sift", "orb"}


def test_rows_say_how_a_network_was_calibrated_and_what_computes_it(tiny_dataset):
    sequences = datasets.load_sequences(tiny_dataset)
    protocol = config.protocol(image_size=(96, 128), top_k=(50,))
    int8 = extractors.create("kp2d_nano", precision="int8")
    scores = evaluation.evaluate(int8, sequences, protocol, progress=False)

    def row(extractor):
        return averages.result_rows(scores, extractor, protocol, profile="p").iloc[0]

    assert row(int8)["calibration"].startswith("100 of 4,870 photographs")
    assert row(extractors.create("sift"))["calibration"] == "none"
    assert row(int8)["device"].startswith("cpu-")
    coral = row(dataclasses.replace(int8, runtime="litert+edgetpu", calibration="unknown"))
    assert coral["device"] == "edgetpu" and coral["calibration"] == "unknown"


def test_score_threshold_is_recorded_only_where_it_has_a_meaning(tiny_dataset):
    sequences = datasets.load_sequences(tiny_dataset)
    protocol = config.protocol("kp2dtiny", image_size=(96, 128), top_k=(50,))
    extractor = extractors.create("sift")
    scores = evaluation.evaluate(extractor, sequences, protocol, progress=False)
    rows = averages.result_rows(scores, extractor, protocol, profile="p")
    assert rows["score_threshold"].eq(0).all()
    assert not rows["half_pixel"].any()


SETTING = {"precision": "float32", "dataset": "d", "subset": "viewpoint", "top_k": 300}
SCORED = ("repeatability", "localization_error", "matching_score", "corner_error")


def result_row(**changes):
    ours = {"method": "sift", "precision": "float32", "image_height": 240, "image_width": 320, "top_k": 300}
    values = {**dict.fromkeys(tables.METRICS, 0.5), **dict.fromkeys(tables.INTERVALS, 0.4)}
    return {**ours, "subset": "all", "dataset": "sample", **values, **changes}


def test_ours_stand_beside_the_paper_with_the_difference():
    beside = tables.beside_results(pd.DataFrame([result_row(), result_row(top_k=77)]))
    known = beside[beside["ours"].notna()]
    assert list(known["metric"]) == list(tables.METRICS)
    d1 = known[known["metric"] == "d1"].iloc[0]
    assert d1["paper"] == 0.622 and d1["low"] == 0.4 and d1["dataset"] == "sample"
    assert d1["difference"] == pytest.approx(0.5 - 0.622)
    assert "KP2Dtiny README" in d1["source"]


def test_every_printed_result_is_there_once_in_the_papers_order():
    beside = tables.beside_results(pd.DataFrame([result_row()]))
    for name in tables.PAPER_RESULTS:
        part, printed = beside[beside["table"] == name], tables.paper(name)
        assert len(part) == len(tables.METRICS) * len(printed)
        assert list(part["method"][:: len(tables.METRICS)]) == list(printed["method"])


def test_the_papers_models_have_our_parameters_and_megabytes():
    models = tables.beside_models().set_index(["model", "quantity"])
    assert models.loc[("kp2d_tiny_s", "parameters"), "ours"] == 387_539
    assert models.loc[("kp2d_tiny_s", "int8_mb"), "difference"] == pytest.approx(0, abs=0.005)
    assert models.loc[("kp2d_tiny_s", "int8_file_mb"), "ours"] > 0.37
    baseline = models.loc[("kp2d_baseline", "parameters")]
    assert (baseline["ours"], baseline["difference"]) == (5_317_219, 219)


def test_whole_numbers_are_written_as_such(tmp_path):
    path = tables.write_csv(tmp_path / "models.csv", tables.beside_models())
    assert "kp2d_baseline,parameters,5317219,5317000,219," in path.read_text(encoding="utf-8")
    joined = pd.concat(
        [pd.DataFrame({"bytes": [1680408]}), pd.DataFrame({"sqnr": [1234.5678, np.inf, 1e300]})]
    )
    written = tables.write_csv(tmp_path / "joined.csv", joined).read_text(encoding="utf-8")
    assert written == "bytes,sqnr\n1680408,\n,1234.57\n,inf\n,1e+300\n"


def test_intervals_stand_beside_their_values():
    rows = pd.DataFrame(
        [result_row(d1=0.75, d1_low=0.6, d1_high=0.875), result_row(d1=np.nan, d3_low=np.nan)]
    )
    shown = tables.with_intervals(rows)
    assert list(shown["d1"]) == ["0.750 (0.600–0.875)", "–"]
    assert shown["d3"].iloc[1] == "0.500"
    assert tables.interval_text(-0.01, 0.004) == "-0.010 to 0.004"  # a dash would look like a sign
    assert tables.interval_text(-0.0004, 0.004) == "0.000–0.004"


def test_unknown_table_of_the_paper_names_the_known_ones():
    with pytest.raises(checks.InputError, match="comparison, hpatches_320x240, models"):
        tables.paper("hpatches")


def test_against_counts_errors_the_right_way_round():
    base = {**SETTING, "status": "ok"}
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
    with pytest.raises(checks.InputError, match="surf among the methods"):
        comparison.against(pd.DataFrame(rows), "surf")


def test_differences_have_an_interval_over_sequences():
    base = {**SETTING, "status": "ok", "index": 2}
    rows = [
        {**base, "method": method, "sequence": f"v_{number}", **dict.fromkeys(SCORED, value)}
        for number, better in enumerate((0.1, 0.2, 0.3))
        for method, value in (("sift", 0.5), ("orb", 0.5 + better))
    ]
    tally = comparison.against(pd.DataFrame(rows)).query("subset == 'all'").set_index("metric")
    row = tally.loc["repeatability"]
    assert row["mean_difference"] == pytest.approx(0.2)
    assert 0.099 < row["difference_low"] < 0.2 < row["difference_high"] < 0.301


def test_failures_are_the_pairs_beyond_the_limit_the_worst_first():
    base = {**SETTING, "status": "ok", "reason": ""}
    counts = {"num_matches": 9, "num_inliers": 5, "repeatability": 0.4, "matching_score": 0.2}
    errors = {"good": 1.0, "worse": 9.0, "lost": np.nan, "bad": 6.0}
    rows = [
        {**base, **counts, "pair": pair, "method": method, "corner_error": error if method == "orb" else 0.5}
        for pair, error in errors.items()
        for method in ("sift", "orb")
    ]
    failed = comparison.failures(pd.DataFrame(rows), "orb", top_k=300)
    assert list(failed["pair"]) == ["lost", "worse", "bad"]
    assert list(failed["sift_corner_error"]) == [0.5, 0.5, 0.5]
    assert comparison.failures(pd.DataFrame(rows), "sift", top_k=300).empty


def test_sizes_are_scored_one_after_the_other_and_pairs_of_one_are_kept(tiny_dataset):
    sequences = datasets.load_sequences(tiny_dataset)
    protocol = config.protocol(image_size=(96, 128), top_k=(50,))
    sizes = [(64, 80), (96, 128)]
    rows, pairs = comparison.evaluate_sizes(
        ["sift", "orb"], sizes, sequences, protocol, profile="p", progress=False
    )
    evaluated = rows[rows["subset"] == "all"][["image_height", "method"]].to_numpy().tolist()
    assert evaluated == [[64, "sift"], [64, "orb"], [96, "sift"], [96, "orb"]]
    alone, scores = comparison.evaluate_methods(
        ["sift", "orb"], sequences, protocol, profile="p", progress=False
    )
    pd.testing.assert_frame_equal(pairs, scores)
    pd.testing.assert_frame_equal(rows[rows["image_height"] == 96].reset_index(drop=True), alone)
    with pytest.raises(checks.InputError, match="among the sizes"):
        comparison.evaluate_sizes(["sift"], sizes[:1], sequences, protocol, profile="p")
    with pytest.raises(checks.InputError, match="sitf"):  # before any image is read
        comparison.evaluate_sizes(["sift", "sitf"], sizes, [], protocol, profile="p")


def test_extremes_run_from_the_greatest_gain_to_the_greatest_loss():
    base = {**SETTING, "status": "ok"}
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
    with pytest.raises(checks.InputError, match="one that 05 has evaluated"):
        comparison.extremes(pd.DataFrame(rows), "orb:int8", top_k=300)


def test_the_reference_codes_rules_are_compared_without_scoring_twice(tiny_dataset, monkeypatch):
    sequences = datasets.load_sequences(tiny_dataset)
    protocol = config.protocol(image_size=(64, 80), top_k=(50,))
    rows, pairs = comparison.evaluate_methods(["sift"], sequences, protocol, profile="p", progress=False)
    calls = []
    scored = comparison.evaluate_methods

    def counted(methods, sequences, rules, **options):
        calls.append(rules)
        return scored(methods, sequences, rules, **options)

    monkeypatch.setattr(comparison, "evaluate_methods", counted)
    both, effect = comparison.compare_protocols(
        rows, pairs, ["sift"], sequences, protocol, profile="p", progress=False
    )
    assert len(calls) == 4 and protocol not in calls
    assert list(both["protocol"].unique()) == [
        *("kp2d", "kp2dtiny", "score_threshold=0.7", "half_pixel=False", "drop_unrepeated=True")
    ]
    assert len(effect) == 4 * len(rows)
    key = ["method", "precision", "subset", "top_k"]
    means = {name: part.set_index(key) for name, part in both.groupby("protocol")}
    for name, part in effect.groupby("protocol"):
        for metric in tables.METRICS:
            expected = means[name][metric] - means["kp2d"][metric]
            assert part.set_index(key)[metric].to_numpy() == pytest.approx(expected.to_numpy(), nan_ok=True)
    moved = effect.groupby("protocol")["localization_error"].agg(lambda change: change.abs().max())
    assert moved["half_pixel=False"] == moved["kp2dtiny"] > 0
    assert moved["score_threshold=0.7"] == 0  # scores of SIFT are no probabilities


def test_the_effect_of_the_rules_is_theirs_minus_ours_with_its_interval():
    identity = {"method": "m", "precision": "float32", "runtime": "r", "subset": "viewpoint", "top_k": 300}
    row = {**identity, "index": 2, "status": "ok"}
    ours = pd.DataFrame(
        [
            {**row, "sequence": name, **dict.fromkeys(tables.METRICS, value)}
            for name, value in zip("abcd", (0, 0.2, 0.4, 1), strict=True)
        ]
    )
    theirs = ours[::-1].assign(
        d1=ours["d1"] + 0.3, d3=[0.0, 0.1, 0.6, 1.0], repeatability=ours["repeatability"]
    )
    rules = config.protocol(drop_unrepeated=True)
    effect = (
        comparison.protocol_effect(theirs, ours, rules, config.protocol()).query("subset == 'all'").iloc[0]
    )
    assert effect[["d1", "d1_low", "d1_high"]].tolist() == pytest.approx([0.3] * 3)  # the same on every pair
    assert effect["d3_low"] < 0 < effect["d3_high"]
    assert effect["repeatability"] == pytest.approx(1.6 / 3 - 1.6 / 4)  # the pair without a point is left out


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
