"""The sweep: every combination once, kept and reused, means over seeds, the same here and on a cluster."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest
from small_cluster import SmallCluster, stop

from kp2d import checks, cli, config, paths
from kp2d.data import datasets
from kp2d.evaluate import averages, evaluation, tables
from kp2d.methods import extractors
from kp2d.reproduce import cluster, jobs, sweep


@pytest.fixture
def wanted(home, tiny_dataset):
    """Two methods under two seeds at one size."""
    return sweep.Sweep(
        methods=("sift", "orb"),
        image_sizes=((96, 128),),
        seeds=(0, 1),
        protocol=config.protocol(top_k=(50, 100)),
        data=tiny_dataset,
    )


def run(wanted, **options):
    lines = []
    rows, unfinished = sweep.run(wanted, report=lines.append, **options)
    return rows, unfinished, lines


def test_rows_are_those_of_an_evaluation_and_a_second_run_computes_nothing(wanted, monkeypatch):
    rows, unfinished, lines = run(wanted)
    assert unfinished == []
    assert list(rows.columns) == list(tables.EVALUATION_COLUMNS)
    assert len(rows) == 2 * 2 * 3 * 2  # methods, seeds, subsets, k
    assert list(rows["seed"].unique()) == [0, 1]
    assert sum(line.endswith("extracting features") for line in lines) == 2

    pairs = evaluation.evaluate(
        extractors.create("orb"),
        datasets.load_sequences(wanted.data),
        config.protocol(image_size=(96, 128), top_k=(50, 100), seed=1),
        progress=False,
    )
    expected = averages.summarize(pairs)
    mine = rows[(rows["method"] == "orb") & (rows["seed"] == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine[list(expected.columns)], expected)

    monkeypatch.setattr(evaluation, "evaluate", None)
    again, _, lines = run(wanted)
    assert all(line.endswith("reused, nothing changed") for line in lines)
    pd.testing.assert_frame_equal(again, rows)


def test_only_what_changed_is_computed_again_and_says_why(wanted, tiny_dataset):
    first = sweep.combinations(wanted)[0]
    assert sweep.changed(first) == "not computed before"
    run(wanted)
    assert sweep.changed(first) == ""
    record = json.loads(first.record.read_text())
    for key, words in (("config", "settings or weights"), ("data", "the data set"), ("kp2d", "the library")):
        first.record.write_text(json.dumps({**record, key: "other"}))
        assert sweep.changed(first) == f"{words} changed"
    first.record.write_text("{")
    assert sweep.changed(first) == "its record is damaged"
    _, _, lines = run(wanted)
    assert [line for line in lines if line.endswith("done")] == ["sift 96x128 seed 0: done"]
    (tiny_dataset / "v_a" / "2.png").write_bytes((tiny_dataset / "v_a" / "3.png").read_bytes())
    assert {sweep.changed(each) for each in sweep.combinations(wanted)} == {"the data set changed"}


def test_a_failing_combination_does_not_take_the_others_with_it(wanted, monkeypatch):
    extract = sweep.extract

    def fail_for_sift(combination, *arguments, report):
        if combination.method == "sift":
            raise checks.InputError("sift is out of order")
        extract(combination, *arguments, report=report)

    monkeypatch.setattr(sweep, "extract", fail_for_sift)
    rows, unfinished, _ = run(wanted)
    assert set(rows["method"]) == {"orb"}
    assert [(each.name, each.missed) for each in unfinished] == [
        ("sift 96x128 features", ""),
        ("sift 96x128 seed 0", "sift 96x128 features"),
        ("sift 96x128 seed 1", "sift 96x128 features"),
    ]
    with pytest.raises(checks.InputError, match="out of order"):
        jobs.raise_failures(unfinished, "parts")


def test_the_summary_has_mean_and_spread_over_seeds():
    same = dict.fromkeys(tables.EVALUATION_COLUMNS, 0.5) | {"method": "sift", "top_k": 50}
    same |= {"image_height": 96, "image_width": 128, "subset": "all", "precision": "float32"}
    rows = pd.DataFrame([{**same, "seed": 0, "d3": 0.5}, {**same, "seed": 1, "d3": 0.7, "d3_low": 0.6}])
    (row,) = sweep.summarize(rows).to_dict("records")
    assert (row["num_seeds"], row["d1_std"]) == (2, 0)
    assert row["d3_mean"] == pytest.approx(0.6, abs=1e-12)
    assert row["d3_std"] == pytest.approx(0.1414, abs=1e-4)
    assert (row["d3_low"], row["d3_high"]) == (pytest.approx(0.55), 0.5)
    (line,) = sweep.readable(sweep.summarize(rows)).to_dict("records")
    assert (line["size"], line["seeds"], line["d1"], line["d3"]) == ("128×96", 2, "0.500", "0.600 ± 0.141")
    assert sweep.summarize(rows[:1])["d3_std"].item() == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ()}, "one or more methods"),
        ({"methods": ("sfit",)}, "Did you mean 'sift'"),
        ({"methods": ("kp2d_tiny_s:int8",), "image_sizes": ((97, 128),)}, "divisible by the cell 4"),
        ({"seeds": (-1,)}, "a seed as a whole number"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_any_work(wanted, changes, words):
    with pytest.raises(checks.InputError, match=words):
        run(dataclasses.replace(wanted, **changes))
    assert not paths.runs("sweep").exists()


def test_two_trainings_of_one_name_are_not_averaged(wanted, tmp_path):
    twins = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for path in paths.PACKAGE.glob("pretrained/kp2d_tiny_s.int8.*"):
            shutil.copy(path, tmp_path / name)
        twins.append(str(tmp_path / name / "kp2d_tiny_s.int8.tflite"))
    with pytest.raises(checks.InputError, match="different names or precisions"):
        run(dataclasses.replace(wanted, methods=tuple(twins)))


def command(capsys, *arguments):
    code = cli.main(["sweep", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_writes_both_tables_and_a_dry_run_none(home, tiny_dataset, tmp_path, capsys):
    output = tmp_path / "tables" / "sweep.csv"
    chosen = ("--preset", "--method", "sift", "--data", tiny_dataset, "--image-size", "96x128")
    chosen += ("--seed", 0, 1, "--top-k", 50, "-o", output)
    code, out, _ = command(capsys, *chosen, "--dry-run")
    assert code == 0
    assert out.splitlines() == [f"sift 96x128 seed {seed}: not computed before" for seed in (0, 1)]
    assert not output.parent.exists()
    code, out, _ = command(capsys, *chosen)
    assert code == 0
    assert "| sift | float32 | 128×96 | viewpoint | 50 | 2 |" in out
    rows = tables.read_csv(output, tables.EVALUATION_COLUMNS)
    assert len(rows) == 6
    summary = tables.read_csv(output.with_name("sweep_summary.csv"), ("d3_mean", "d3_std", "num_seeds"))
    assert len(summary) == 3
    before = output.stat().st_mtime_ns
    assert command(capsys, *chosen)[0] == 0
    assert output.stat().st_mtime_ns == before
    _, out, _ = command(capsys, *chosen, "--dry-run")
    assert "sift 96x128 seed 0: done, nothing changed" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preset", "kp2d_tiny_x"), "a preset with shipped weights in float32"),
        (("--precision", "int4"), "precision"),
        (("--data", "nowhere"), "nowhere"),
        (("--preset", "--method", "runs/none"), "none at"),
    ],
)
def test_wrong_arguments_are_one_clear_line(home, capsys, arguments, words):
    code, _, error = command(capsys, *arguments)
    assert code == 2
    assert words in error


def test_what_failed_is_told_at_the_end_with_code_1(home, tiny_dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "score", lambda *_, report: 1 / 0)
    chosen = ("--preset", "--method", "orb", "--data", tiny_dataset, "--image-size", "96x128")
    code, _, error = command(capsys, *chosen, "--seed", 0, 1, "-o", tmp_path / "sweep.csv")
    assert code == 1
    assert "2 of the parts of the sweep failed" in error
    assert "orb 96x128 seed 1: division by zero" in error


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_tables(
    wanted, home, tmp_path_factory, monkeypatch, tmp_path
):
    pytest.importorskip("distributed")
    wanted = dataclasses.replace(wanted, methods=("sift", "orb", "kp2d_tiny_s:int8"), seeds=(0, 1, 2))
    expected, _, _ = run(wanted)
    tables.write_csv(tmp_path / "here.csv", expected)
    shutil.rmtree(wanted.folder)
    cluster._own_facts.cache_clear()
    small = SmallCluster(tmp_path_factory.mktemp("cluster"), home)
    lines = []

    def kill_at_first_news(line):
        lines.append(line)
        if line.endswith("extracting features") and all(worker.poll() is None for worker in small.workers):
            stop(small.workers[0])

    try:
        small.settle(2)
        rows, unfinished = sweep.run(
            wanted, report=kill_at_first_news, execute=cluster.Cluster(small.address).execute
        )
    finally:
        small.close()
        cluster._own_facts.cache_clear()
    assert unfinished == []
    assert small.workers[0].returncode == -9
    tables.write_csv(tmp_path / "there.csv", rows)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert len(list(wanted.folder.glob("*.json"))) == 9
