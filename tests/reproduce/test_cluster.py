"""The cluster: a real scheduler and two workers; kills, failures, strangers, the same tables as at home."""

import contextlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cluster_jobs
import nbformat
import pytest
from small_cluster import SmallCluster, stop, wait_for

from kp2d import checks, config, paths
from kp2d.reproduce import chain, cluster, jobs, pipeline

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A scheduler, whose workers each test chooses."""
    folder = tmp_path_factory.mktemp("cluster")
    small = SmallCluster(folder, folder / "home")
    yield small
    small.close()


@pytest.fixture
def shared(running, monkeypatch):
    """The scheduler with two workers, in whose project folder this process works, too."""
    monkeypatch.setenv("KP2D_HOME", str(running.home))
    for name in ("VAL_PATH", "TRAIN_PATH"):
        monkeypatch.delenv(name, raising=False)
    cluster._own_facts.cache_clear()
    running.settle(2)
    yield running
    cluster._own_facts.cache_clear()


def execute(small, work, report=lambda line: None):
    return {result.name: result for result in cluster.Cluster(small.address).execute(work, report)}


def append(name, file, seconds=0.0, after=()):
    return jobs.Job(name=name, work=cluster_jobs.append, arguments=(str(file), name, seconds), after=after)


@pytest.mark.slow
def test_jobs_wait_for_those_they_need_and_their_news_arrive(shared, tmp_path):
    file, lines = tmp_path / "done.txt", []
    work = [append("a", file, 0.3), append("b", file, after=("a",)), append("c", file, after=("a", "b"))]
    results = execute(shared, work, lines.append)
    assert [results[name].value for name in "abc"] == ["a", "b", "c"]
    assert file.read_text().split() == ["a", "b", "c"]
    assert [line.split()[0] for line in lines] == ["a", "b", "c"]
    assert {int(line.split()[-1]) for line in lines} <= {worker.pid for worker in shared.workers}
    assert not list(paths.runs("cluster").iterdir())


@pytest.mark.slow
def test_no_worker_idles_while_a_job_waits(shared, tmp_path):
    file, lines = tmp_path / "done.txt", []
    work = [append("a", file), *(append(f"b{i}", file, 1, after=("a",)) for i in range(4))]
    execute(shared, work, lines.append)
    workers = [line.split()[-1] for line in lines if line.startswith("b")]
    assert sorted(map(workers.count, set(workers))) == [2, 2]


@pytest.mark.slow
def test_a_cluster_that_loses_its_last_worker_is_not_waited_for_for_ever(shared, tmp_path):
    shared.settle(1)
    marker = tmp_path / "marker"
    work = [jobs.Job(name="slow", work=cluster_jobs.once_slow, arguments=(str(marker),))]

    def kill_the_last_one():
        wait_for(marker.exists)
        stop(shared.workers[0])

    impatient = cluster.Cluster(shared.address, worker_timeout=2)
    with meanwhile(kill_the_last_one), pytest.raises(checks.RunError, match="has no workers any more"):
        list(impatient.execute(work, lambda line: None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [("input", checks.InputError, "a number"), ("bug", checks.RunError, "bad failed: ZeroDivisionError: by")],
)
def test_a_failed_job_is_not_tried_again_and_takes_only_its_own_with_it(shared, tmp_path, kind, error, words):
    file, lines = tmp_path / "done.txt", []
    work = [
        jobs.Job(name="bad", work=cluster_jobs.fail, arguments=(kind,)),
        append("after", file, after=("bad",)),
        append("last", file, after=("after",)),
        append("alone", file),
    ]
    results = execute(shared, work, lines.append)
    assert file.read_text() == "alone\n"
    assert (results["after"].missed, results["last"].missed) == ("bad", "after")
    assert "after: not begun, as bad did not succeed" in lines
    with pytest.raises(error, match=words):
        jobs.raise_failures(results.values(), "jobs")


@pytest.mark.slow
def test_a_run_that_is_given_up_cancels_what_has_not_begun(shared, tmp_path):
    file = tmp_path / "done.txt"
    work = [append("first", file), *(append(f"later{i}", file, 0.5) for i in range(8))]
    results = cluster.Cluster(shared.address).execute(work, lambda line: None)
    next(results)
    results.close()
    time.sleep(1.5)
    assert len(file.read_text().split()) <= 4  # what had begun then goes on
    assert not list(paths.runs("cluster").iterdir())


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_is_done_by_another(shared, tmp_path):
    file, marker = tmp_path / "done.txt", tmp_path / "marker"
    work = [
        append("before", file),
        jobs.Job(name="slow", work=cluster_jobs.once_slow, arguments=(str(marker),), after=("before",)),
        append("behind", file, after=("slow",)),
    ]

    def kill_the_slow_one():
        pid = int(wait_for(lambda: marker.exists() and marker.read_text()))
        stop(next(worker for worker in shared.workers if worker.pid == pid))

    with meanwhile(kill_the_slow_one):
        results = execute(shared, work)
    assert [results[job.name].value for job in work] == ["before", "again", "behind"]
    assert file.read_text().split() == ["before", "behind"]


@contextlib.contextmanager
def meanwhile(function):
    """Calls a function in a thread, whose error is raised at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function)
        yield
        future.result()


@pytest.mark.slow
def test_a_lost_scheduler_is_an_error_not_a_hang(shared, tmp_path):
    small = SmallCluster(tmp_path, shared.home)
    try:
        small.settle(2)
        file = tmp_path / "done.txt"
        work = [append("first", file), append("second", file, 60), append("third", file, 60)]
        results = cluster.Cluster(small.address).execute(work, lambda line: None)
        assert next(results).value == "first"
        stop(small.scheduler)
        with pytest.raises(checks.RunError, match="connection to the scheduler was lost"):
            next(results)
    finally:
        small.close()


MAKE = """from kp2d import files, paths
files.write_text(paths.results(profile) / "data.csv", f"count\\n{count}\\n")"""
# The first time, it is in the midst of its pictures for an hour.
EXTRACT = """import os, time
from pathlib import Path
import numpy as np
from kp2d import files, images, paths
from kp2d.evaluate import feature_store
from kp2d.methods import extractors
store = feature_store.FeatureStore(extractors.create("orb"), (64, 96), paths.runs(profile) / "features")
found = []
for index in range(4):
    picture = paths.runs(profile) / f"{index}.png"
    noise = np.random.default_rng(index).integers(0, 255, (64, 96, 3), np.uint8)
    images.write_image(picture, noise)
    found.append(len(store.get(picture).features))
    marker = paths.runs(profile) / "marker"
    if index == 2 and not marker.exists():
        files.write_text(marker, f"{os.getppid()} {os.getpid()}")
        time.sleep(3600)
files.write_text(paths.results(profile) / "table.csv", f"{found}\\n")"""
GATHER = """from kp2d import files, paths
rows = [(paths.results(profile) / name).read_text() for name in ("data.csv", "table.csv")]
files.write_text(paths.results(profile) / "last.csv", "".join(rows))"""
ALONE = """from kp2d import files, paths
files.write_text(paths.results(profile) / "alone.csv", "alone\\n")"""

CHAIN = (
    chain.Stage(name="01_make", outputs=("results/{profile}/data.csv",)),
    chain.Stage(
        name="02_extract", inputs=("results/{profile}/data.csv",), outputs=("results/{profile}/table.csv",)
    ),
    chain.Stage(name="03_alone", outputs=("results/{profile}/alone.csv",)),
    chain.Stage(
        name="04_gather",
        inputs=("results/{profile}/data.csv", "results/{profile}/table.csv"),
        outputs=("results/{profile}/last.csv",),
    ),
)


def write_notebooks(**changes):
    """Writes the notebooks of `CHAIN` into the project folder, some of them with other code."""
    codes = {"01_make": MAKE, "02_extract": EXTRACT, "03_alone": ALONE, "04_gather": GATHER} | changes
    for stage in CHAIN:
        cells = [
            nbformat.v4.new_code_cell('profile = "fast"\ncount = 1', id="parameters"),
            nbformat.v4.new_code_cell(codes[stage.name], id="body"),
        ]
        cells[0].metadata["tags"] = ["parameters"]
        stage.notebook.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), stage.notebook)


def tables(home):
    return {path.name: path.read_bytes() for path in sorted((home / "results" / "smoke").glob("*.csv"))}


@pytest.fixture
def small_chain(monkeypatch):
    monkeypatch.setattr(chain, "STAGES", CHAIN)
    monkeypatch.setattr(config, "PROFILES", {"smoke": config.PROFILES["smoke"]})


def reproduce(**options):
    lines = []
    outcomes = pipeline.reproduce("smoke", progress=False, report=lines.append, **options)
    return {outcome.stage: outcome.action for outcome in outcomes}, lines


def test_stages_wait_for_those_that_make_what_they_read():
    needs = {stage.name: chain.needed(stage, chain.STAGES) for stage in chain.STAGES}
    assert needs == {
        "01_prepare_data": (),
        "02_train": ("01_prepare_data",),
        "03_quantize": ("01_prepare_data",),
        "04_compile": (),
        "05_evaluate": ("01_prepare_data", "04_compile"),
        "06_compare_sift": ("01_prepare_data", "05_evaluate"),
    }


@pytest.mark.slow
def test_a_chain_loses_nothing_with_a_worker_and_gives_the_tables_of_a_local_run(
    shared, small_chain, tmp_path, monkeypatch
):
    write_notebooks()
    marker, features = paths.runs("smoke") / "marker", paths.runs("smoke") / "features"
    written = {}

    def kill_the_extracting_one():
        worker, kernel = map(int, wait_for(lambda: marker.exists() and marker.read_text()).split())
        written.update({path: path.stat().st_mtime_ns for path in features.rglob("*.npz")})
        stop(next(process for process in shared.workers if process.pid == worker))
        wait_for(lambda: not alive(kernel))

    with meanwhile(kill_the_extracting_one):
        outcomes, lines = reproduce(execute=cluster.Cluster(shared.address).execute)
    assert outcomes == dict.fromkeys([stage.name for stage in CHAIN], "ran")
    assert sum(line.startswith("02_extract: running") for line in lines) == 2
    assert len(written) == 3
    assert {path: path.stat().st_mtime_ns for path in written} == written
    made = tables(shared.home)

    outcomes, _ = reproduce()  # here, where the records of the workers hold as well
    assert set(outcomes.values()) == {"reused"}

    monkeypatch.setenv("KP2D_HOME", str(tmp_path))
    write_notebooks(**{"02_extract": EXTRACT.replace("3600", "0")})
    reproduce()
    assert tables(tmp_path) == made
    assert len(made) == 4


def alive(pid):
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.slow
def test_a_failed_stage_is_named_as_at_home_and_independent_ones_finish(shared, small_chain):
    write_notebooks(**{"01_make": "1 / 0"})
    for path in (shared.home / "results").rglob("*.csv"):
        path.unlink()
    lines = []
    with pytest.raises(pipeline.StageError, match=r"01_make failed in cell \[\d\].*ZeroDivisionError"):
        pipeline.reproduce(
            "smoke",
            progress=False,
            report=lines.append,
            force=True,
            execute=cluster.Cluster(shared.address).execute,
        )
    assert list(tables(shared.home)) == ["alone.csv"]
    assert {"02_extract: not begun, as 01_make did not succeed"} < set(lines)


@pytest.mark.slow
def test_a_worker_that_does_not_fit_is_refused_before_any_work(shared, tmp_path, monkeypatch):
    file = tmp_path / "done.txt"
    monkeypatch.setenv("KP2D_HOME", str(tmp_path))
    cluster._own_facts.cache_clear()
    with pytest.raises(checks.InputError, match=r"worker tcp.* does not fit.*project folder.*KP2D_HOME"):
        execute(shared, [append("a", file)])
    monkeypatch.setenv("KP2D_HOME", str(shared.home))
    cluster._own_facts.cache_clear()
    changed = {**cluster._own_facts(), cluster._CODE: "0" * 12}
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "_own_facts", lambda: changed)
        with pytest.raises(checks.InputError, match=r"code of kp2d to be 000000000000.*start them again"):
            execute(shared, [append("a", file)])
    assert not file.exists()


def project(**changes):
    return cluster.Project(facts={**cluster._own_facts(), **changes}, token=paths.runs("cluster") / "token")


def test_versions_and_variables_must_agree_and_the_folder_must_be_shared(home, monkeypatch):
    cluster._own_facts.cache_clear()
    monkeypatch.setattr(cluster, "SHARE_TIMEOUT", 0)
    with pytest.raises(checks.InputError, match=r"numpy to be 1\.0.*Install numpy 1\.0"):
        cluster.check_worker(project(numpy="1.0"))
    with pytest.raises(checks.InputError, match="VAL_PATH to be /data; received none"):
        cluster.check_worker(project(VAL_PATH="/data"))
    with pytest.raises(checks.InputError, match=r"all machines share.*token"):
        cluster.check_worker(project())
    project().token.parent.mkdir(parents=True)
    project().token.touch()
    cluster.check_worker(project(a_package_only_here="3"))
    cluster._own_facts.cache_clear()


REPRODUCE = ("reproduce", "--profile", "smoke", "--stages", "04", "--scheduler")


def test_a_scheduler_that_does_not_answer_is_named(home, monkeypatch, command):
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 0.5)
    code, _, error = command(*REPRODUCE, "tcp://127.0.0.1:9")
    assert code == 2
    assert "expected a Dask scheduler" in error
    assert "tcp://127.0.0.1:9" in error
    code, _, error = command(*REPRODUCE, "tls://127.0.0.1:9")
    assert code == 2
    assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in error


@pytest.mark.parametrize(
    "address", ["pigeon://roof:1", "127.0.0.1:8786", "tcp://127.0.0.1", "tcp://a:b", "tcp"]
)
def test_what_is_no_address_is_refused_at_once(address):
    with pytest.raises(checks.InputError, match=r"tcp://HOST:PORT or tls://HOST:PORT; received"):
        cluster.Cluster(address)


@pytest.mark.slow
def test_a_scheduler_without_workers_is_waited_for_but_not_for_ever(shared, tmp_path):
    shared.settle(0)
    lines = []
    patient = cluster.Cluster(shared.address, worker_timeout=0.5)
    with pytest.raises(checks.InputError, match=r"a worker at tcp.*; received none.*`worker_timeout`"):
        list(patient.execute([append("a", tmp_path / "done.txt")], lines.append))
    assert lines == [f"{shared.address} has no workers yet; waiting up to 0.5 s"]


def test_without_dask_the_command_to_install_it_is_named(home, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, error = command(*REPRODUCE, "tcp://127.0.0.1:8786")
    assert code == 2
    assert "pip install '.[cluster]'" in error
    code, _, error = command("reproduce", "--worker-timeout", "0")
    assert code == 2
    assert "positive --worker-timeout" in error
