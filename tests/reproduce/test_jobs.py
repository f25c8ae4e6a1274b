"""Jobs: order, what is left out after a failure, which errors are raised."""

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
