"""Jobs: order, what is left out after a failure, which errors are raised."""

import dataclasses

import cluster_jobs
import pytest

from kp2d import checks
from kp2d.reproduce import jobs


def job(name, *arguments, after=(), work=cluster_jobs.append):
    return jobs.Job(name=name, work=work, arguments=arguments, after=after)


@pytest.fixture
def family(tmp_path):
    """A job, one that fails after it, one that waits for that, one that waits for nobody."""
    file = str(tmp_path / "done.txt")
    return [
        job("a", file, "a"),
        job("b", "input", after=("a",), work=cluster_jobs.fail),
        job("c", file, "c", after=("b",)),
        job("d", file, "d", after=("c",)),
        job("e", file, "e"),
    ]


def test_one_by_one_stops_at_the_first_failure(family, tmp_path):
    results = list(jobs.one_by_one(family, lambda line: None))
    assert [(result.name, result.succeeded) for result in results] == [("a", True), ("b", False)]
    assert (tmp_path / "done.txt").read_text() == "a\n"


@pytest.fixture
def roomy(monkeypatch):
    """A machine that has room for two jobs, whatever this one has."""
    monkeypatch.setattr(jobs, "_room_for", lambda count: True)


def test_jobs_that_do_not_wait_for_each_other_run_at_once(tmp_path, roomy):
    meeting, lines = str(tmp_path), []
    work = [
        job("first", str(tmp_path / "done.txt"), "first"),
        job("left", meeting, "left", "right", after=("first",), work=cluster_jobs.meet),
        job("right", meeting, "right", "left", after=("first",), work=cluster_jobs.meet),
        job("last", str(tmp_path / "done.txt"), "last", after=("left", "right")),
    ]
    results = list(jobs.side_by_side(work, lines.append))
    assert all(result.succeeded for result in results) and results[-1].name == "last"
    assert {result.name for result in results[1:3]} == {"left", "right"}
    assert {"left: met right", "right: met left"} <= set(lines)


def test_what_measures_time_and_what_has_nothing_to_do_runs_in_this_process(tmp_path, roomy, monkeypatch):
    monkeypatch.setattr(jobs, "_in_processes", None)  # would fail
    work = [job(name, str(tmp_path / "done.txt"), name) for name in "abc"]
    for changed in ({"alone": True}, {"idle": lambda *_: True}):
        changed_work = [work[0], *(dataclasses.replace(other, **changed) for other in work[1:])]
        assert [result.name for result in jobs.side_by_side(changed_work, print)] == ["a", "b", "c"]


def test_a_failure_side_by_side_begins_nothing_more(family, tmp_path, roomy):
    results = {result.name: result for result in jobs.side_by_side(family, lambda line: None)}
    assert results["b"].error is not None and not {"c", "d"} & set(results)
    assert isinstance(results["b"].error, checks.InputError)


def test_a_process_that_is_killed_is_named(tmp_path, roomy):
    work = [job("a", work=cluster_jobs.die), job("b", work=cluster_jobs.die)]
    results = list(jobs.side_by_side(work, lambda line: None))
    assert "its process was killed" in str(results[0].error)


def test_what_does_not_wait_for_a_failure_can_be_done_all_the_same(family, tmp_path):
    lines = []
    results = {result.name: result for result in jobs.keep_going(family, lines.append)}
    assert {name for name, result in results.items() if result.succeeded} == {"a", "e"}
    assert (results["c"].missed, results["d"].missed) == ("b", "c")
    assert (tmp_path / "done.txt").read_text() == "a\ne\n"
    assert "c: not begun, as b did not succeed" in lines


def test_one_error_is_raised_as_it_is_and_several_together():
    broken = jobs.Result(name="b", error=checks.InputError("no number"))
    other = jobs.Result(name="c", error=ZeroDivisionError("by zero"))
    left_out = jobs.Result(name="d", missed="c")
    jobs.raise_failures([jobs.Result(name="a", value=3), left_out], "stages")
    with pytest.raises(checks.InputError, match=r"^no number$"):
        jobs.raise_failures([broken, left_out], "stages")
    with pytest.raises(checks.RunError, match=r"2 of the stages failed:\n- b: no number\n- c: by zero"):
        jobs.raise_failures([broken, other, left_out], "stages")


def test_an_interruption_is_no_result():
    def interrupt(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(jobs.keep_going([jobs.Job(name="a", work=interrupt)], lambda line: None))
