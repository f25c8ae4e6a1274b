"""The chain: papermill runs every notebook, a second run reuses all of it, a broken or killed run resumes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import pytest

from kp2d import checks, config, files, paths
from kp2d.evaluate import tables
from kp2d.methods import weights
from kp2d.reproduce import bench, chain, notebook, pipeline, settings


def reproduce(profile="smoke", **options):
    lines = []
    outcomes = pipeline.reproduce(profile, progress=False, report=lines.append, **options)
    return {outcome.stage: outcome for outcome in outcomes}, lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory, project):
    """A project folder in which smoke was run once, with what 02 trains, from another working directory."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KP2D_HOME", str(folder))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        for part in ("notebooks", "results/paper"):  # all that docs/cluster.md says a volume needs
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (folder / part).symlink_to(project / part)
        outcomes, lines = reproduce(trained=True)
        yield folder, outcomes, lines


@pytest.mark.slow
def test_all_notebooks_run_from_any_folder_and_write_what_they_promise(finished):
    folder, outcomes, lines = finished
    assert [outcome.action for outcome in outcomes.values()] == ["ran"] * len(chain.STAGES)
    assert "no record of a finished run" in lines[0]
    for stage in chain.select(None, trained=True):
        for name in chain.filled(stage.outputs, "smoke"):
            if name != chain.DATA:
                assert (folder / name).stat().st_size > 0
    rows = tables.read_csv(folder / "results/smoke/evaluation.csv", tables.EVALUATION_COLUMNS)
    assert set(rows["method"]) == {*config.profile("smoke").methods, "trained_here"}
    assert rows["profile"].eq("smoke").all()


@pytest.mark.slow
def test_what_02_trains_is_a_further_row_of_03_to_06_with_its_own_hash(finished):
    folder, _, _ = finished
    network = paths.trained_here("smoke")
    hashes = {
        precision: files.sha256(network / f"trained_here{suffix}")[:12]
        for precision, suffix in weights.SUFFIXES.items()
    }
    for name in ("quantization", "compile", "latency", "evaluation", "pairs", "estimators", "against_sift"):
        rows = tables.read_csv(folder / f"results/smoke/{name}.csv")
        ours = rows[rows["method"] == "trained_here"]
        held = dict(ours[["precision", "weights_sha256"]].drop_duplicates().to_numpy().tolist())
        expected = {"int8": hashes["int8"]} if name == "estimators" else hashes
        assert {kind: digest for kind, digest in held.items() if kind != "float16"} == expected, name
        assert rows.loc[rows["method"].isin(["sift", "orb"]), "weights_sha256"].isna().all()
        assert not rows.loc[rows["method"] != "trained_here", "weights_sha256"].isin(hashes.values()).any()
    kinds = tables.read_csv(folder / "results/smoke/precisions.csv")["kind"]
    expected = {f"{kind}, trained here" for kind in ("float32", "float16", "int8_ptq", "int8")}
    assert {kind for kind in kinds if kind.endswith("trained here")} == expected


@pytest.mark.slow
def test_a_second_run_reuses_everything_and_says_so(finished):
    outcomes, lines = reproduce(trained=True)
    assert all(outcome.action == "reused" for outcome in outcomes.values())
    assert lines == [f"{stage.name}: reused, nothing changed" for stage in chain.STAGES]


@pytest.mark.slow
def test_a_lost_output_or_changed_parameter_reruns_only_what_depends_on_it(finished):
    folder, _, _ = finished
    (folder / "figures/smoke/gallery.png").unlink()
    outcomes, _ = reproduce(trained=True)
    assert {name: outcome.action for name, outcome in outcomes.items()} == {
        "01_prepare_data": "reused",
        "02_train": "reused",
        "03_quantize": "reused",
        "04_compile": "reused",
        "05_evaluate": "reused",
        "06_compare_sift": "ran",
    }
    assert "figures/smoke/gallery.png is missing" in outcomes["06_compare_sift"].reason
    path = folder / "results/smoke/evaluation.csv"
    before = tables.read_csv(path)
    k = int(before["top_k"].max())
    outcomes, _ = reproduce(stages=["05"], parameters={"05.top_k": [k]})
    assert outcomes["05_evaluate"].reason == "parameter trained, top_k changed"
    after = tables.read_csv(path)
    assert set(after["top_k"]) == {k} != set(before["top_k"])
    before = (
        before[(before["top_k"] == k) & (before["method"] != "trained_here")]
        .drop(columns="config_hash")
        .reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(after.drop(columns="config_hash"), before)


WRITE = "from kp2d import files, paths\nfiles.write_text(paths.results(profile) / 'own.txt', str(count))\n"


@pytest.mark.slow
def test_a_failing_cell_is_named_and_its_copy_kept_then_the_run_resumes(workshop):
    output = workshop("# find the answer\n1 / 0")
    with pytest.raises(pipeline.StageError, match=r"07_own failed in cell \[\d\].*ZeroDivisionError"):
        reproduce()
    copy = paths.runs("smoke") / "07_own.ipynb"
    assert "ZeroDivisionError" in copy.read_text()
    workshop(WRITE)
    outcomes, _ = reproduce(parameters={"count": 3})
    assert (outcomes["07_own"].action, output.read_text()) == ("ran", "3")


@pytest.mark.slow
def test_a_promised_output_that_is_not_written_is_an_error(workshop):
    workshop("pass")
    with pytest.raises(pipeline.StageError, match=r"without writing results/smoke/own\.txt"):
        reproduce()


@pytest.mark.slow
def test_a_cell_that_takes_too_long_is_stopped(workshop):
    workshop("import time\ntime.sleep(60)")
    with pytest.raises(pipeline.StageError, match="longer than 1 s"):
        reproduce(cell_timeout=1)


@pytest.mark.slow
def test_a_dead_kernel_is_an_error_not_a_hang(workshop):
    workshop("import os\nos._exit(1)")
    with pytest.raises(pipeline.StageError, match="kernel died"):
        reproduce()


@pytest.mark.slow
def test_a_killed_run_leaves_no_record_and_the_next_one_finishes(workshop):
    output = workshop("import time\ntime.sleep(30)\n" + WRITE)
    code = (
        "from kp2d.reproduce import chain, pipeline\n"
        "chain.STAGES = (chain.Stage(name='07_own', outputs=('results/{profile}/own.txt',)),)\n"
        "pipeline.reproduce('smoke', progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ, stderr=subprocess.DEVNULL)
    copy = paths.runs("smoke") / "07_own.ipynb"
    while not copy.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    workshop(WRITE)
    outcomes, _ = reproduce()
    assert (outcomes["07_own"].action, output.read_text()) == ("ran", "1")


def test_unknown_names_are_refused_before_anything_runs(home):
    with pytest.raises(checks.InputError, match="Did you mean 'smoke'"):
        reproduce("smok")
    with pytest.raises(checks.InputError, match="a stage out of"):
        reproduce(stages=["08"])
    with pytest.raises(checks.InputError, match="Did you mean 'top_k'"):
        reproduce(parameters={"topk": 3})
    with pytest.raises(checks.InputError, match="parameter of 01_prepare_data"):
        reproduce(parameters={"01.top_k": [3]})
    with pytest.raises(checks.InputError, match="Write --profile fast"):
        reproduce(parameters={"profile": "fast"})
    assert not (home / "results" / "runs").exists()


def test_what_02_trains_is_for_the_whole_chain_of_a_profile_that_trains(command, home):
    code, out, err = command("reproduce", "--profile", "bench", "--trained")
    assert code == 2 and "the profile bench, which leaves out notebook 02" in err and out == ""
    with pytest.raises(checks.InputError, match="-p trained=True"):
        reproduce(parameters={"05.trained": True})
    with pytest.raises(checks.InputError, match="trained=True"):
        reproduce(parameters={"trained": "maybe"})
    with pytest.raises(checks.InputError, match="leaves out notebook 02"):
        notebook.begin("bench", {"trained": "True"})
    names = {"trained": "auto"}
    notebook.begin("full", names)
    assert names == {"trained": True} and not config.profile("fast").takes_trained()
    with pytest.raises(checks.InputError, match="kp2d reproduce --profile smoke --trained"):
        settings.evaluation_settings("smoke", trained=True)
    assert pipeline._takes_trained("full", None, {}, None) and pipeline._takes_trained(
        "full", ["05"], {}, True
    )
    assert not pipeline._takes_trained("full", ["05", "06"], {}, None)  # else days of training came along
    stages = pipeline._with_makers(chain.select(["06"], trained=True), "smoke", print, trained=True)
    assert [stage.number for stage in stages] == ["01", "02", "03", "04", "05", "06"]
    assert "02_train" in chain.needed(stages[2], stages)
    assert not (home / "results" / "runs").exists()


def test_stages_that_ran_without_what_02_trains_come_along_to_take_it(home):
    lines, chosen = [], chain.select(["06"], trained=True)
    for name in chain.filled([name for s in chain.select(None, trained=True) for name in s.outputs], "smoke"):
        if name != chain.DATA:
            files.write_text(home / name, "made before")
    stages = pipeline._with_makers(chosen, "smoke", lines.append, trained=True)
    assert [stage.number for stage in stages] == ["01", "03", "04", "05", "06"]
    assert (
        "05_evaluate: comes along, as 06_compare_sift reads what it makes and what is there is" in lines[-1]
    )
    for stage in stages:
        files.write_json(paths.runs("smoke") / f"{stage.name}.json", {"parameters": {"trained": True}})
    stages = pipeline._with_makers(chosen, "smoke", lines.append, trained=True)
    assert [stage.number for stage in stages] == ["01", "06"]


def test_stages_whose_results_are_needed_and_missing_come_along(home):
    lines = []
    stages = pipeline._with_makers(chain.select(["06"]), "smoke", lines.append)
    assert [stage.name.partition("_")[0] for stage in stages] == ["01", "04", "05", "06"]  # neither 02 nor 03
    assert "04_compile: comes along, as 05_evaluate reads what it makes and nothing is there yet" in lines
    for name in chain.filled(chain.select(["05"])[0].outputs, "smoke"):
        files.write_text(home / name, "made before")
    files.write_text(home / "results/smoke/data.csv", "made before")
    stages = pipeline._with_makers(chain.select(["06"]), "smoke", lines.append)
    assert [stage.name for stage in stages] == ["01_prepare_data", "06_compare_sift"]  # the data set itself


def test_a_stage_by_itself_names_the_stage_that_makes_its_input(home):
    with pytest.raises(checks.InputError, match="Run stage 01_prepare_data first"):
        pipeline.run_stage(chain.select(["05"])[0], "smoke", {}, False, None, False, report=print)


def test_a_lost_file_of_the_project_is_named_with_the_way_back(home):
    (home / "results" / "recipes.csv").unlink()
    assert None in pipeline._signatures(chain.select(["02"])[0].optional, "smoke").values()
    lost = dataclasses.replace(chain.select(["02"])[0], inputs=("results/recipes.csv",))
    with pytest.raises(checks.InputError, match=r"git checkout -- results/recipes\.csv"):
        pipeline.run_stage(lost, "smoke", {}, False, None, False, report=print)


def test_the_full_profile_without_data_says_how_to_get_it(home):
    with pytest.raises(checks.InputError, match="kp2d download hpatches"):
        reproduce("full")


def test_a_results_folder_that_cannot_be_written_is_named_before_anything_runs(home):
    (home / "results" / "smoke").write_text("a file in the way")
    with pytest.raises(checks.InputError, match=r"results/smoke/probe"):
        reproduce()


def test_outputs_saved_by_jupyterlab_do_not_make_a_stage_run_again(home):
    notebook = chain.STAGES[0].notebook
    before = chain.cells_hash(notebook)
    content = nbformat.read(notebook, as_version=4)
    cell = next(cell for cell in content.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", text="hello")]
    cell.execution_count = 3
    content.metadata["language_info"] = {"name": "python", "version": "3"}
    nbformat.write(content, notebook)
    assert chain.cells_hash(notebook) == before
    cell.source += "\n"
    nbformat.write(content, notebook)
    assert chain.cells_hash(notebook) != before


def test_numbers_select_stages_in_order():
    assert [stage.name for stage in chain.select(["6", "01"])] == ["01_prepare_data", "06_compare_sift"]


def test_pictures_that_may_not_be_passed_on_stay_out_of_figures():
    stages = chain.select(None, "bench")
    assert [stage.number for stage in stages] == ["01", "03", "04", "05", "06"]
    made = [name for stage in stages for name in chain.filled(stage.outputs, "bench")]
    assert {name.rpartition(".")[2] for name in made if name.startswith("figures/")} == {"svg"}
    assert "results/runs/bench/pictures/gallery.png" in made


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "a notebook in"),
        ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "tagged `parameters`"),
    ],
)
def test_a_damaged_notebook_is_named(tmp_path, content, words):
    (tmp_path / "01_x.ipynb").write_text(content)
    with pytest.raises(checks.InputError, match=words):
        chain.parameters(tmp_path / "01_x.ipynb")


def test_a_computed_parameter_is_refused(workshop):
    workshop("pass", parameters='profile = "fast"\ncount = 1 + len("a")')
    with pytest.raises(checks.InputError, match="name = literal"):
        chain.parameters(chain.STAGES[0].notebook)


@pytest.mark.parametrize("damage", ["", "[]", "{", json.dumps({"parameters": 3, "inputs": None})])
def test_a_damaged_record_only_means_running_again(workshop, damage):
    workshop(WRITE)
    record = paths.runs("smoke") / "07_own.json"
    files.write_text(record, damage)
    state = {"parameters": {}, "inputs": {}, "notebook": "", "kp2d": ""}
    assert pipeline._why_run(chain.STAGES[0], "smoke", state, files.read_json(record))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="this system does not tell what a process took")
def test_a_stage_records_what_it_took(workshop):
    with pytest.raises(checks.InputError, match="kp2d reproduce --profile smoke"):
        bench.stages("smoke")
    workshop(WRITE + "block = bytearray(300 << 20)\n[sum(range(10**6)) for _ in range(40)][0]\n")
    reproduce()
    (row,) = bench.stages("smoke").to_dict("records")
    assert (row["stage"], row["profile"]) == ("07_own", "smoke")
    assert 0.5 < row["cpu_seconds"] < 60 and row["seconds"] > 0.5
    assert 300 < row["peak_memory_mib"] < 1000
