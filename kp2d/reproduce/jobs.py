"""Owns jobs: pieces of work that wait for each other, what became of them and what they took."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kp2d import checks

Report = Callable[[str], None]  # receives one line of news
# Errors whose text is meant for users.
EXPECTED = (checks.InputError, checks.RunError, OSError, ModuleNotFoundError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work that this process or another one can do.

    Attributes:
        name: Unique among the jobs of a run.
        work: A function of a module, called with the arguments and `report`.
        arguments: What it is called with; like the result, they may travel to another machine.
        after: Names of the jobs that must have succeeded before.
    """

    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job.

    Attributes:
        name: The job's.
        value: What its work returned.
        error: Why it failed, if it did.
        missed: Name of a job that did not succeed and without which this one was not begun, if there was one.
    """

    name: str
    value: Any = None
    error: Exception | None = None
    missed: str = ""

    @property
    def succeeded(self) -> bool:
        """Tells whether there is a value."""
        return self.error is None and not self.missed


# Does all jobs, each after those that it waits for, and yields each result once it is known.
Execute = Callable[[Sequence[Job], Report], Iterable[Result]]


def attempt(job: Job, report: Report) -> Result:
    """Does one job and returns what became of it; an error is a result, too."""
    try:
        return Result(name=job.name, value=job.work(*job.arguments, report=report))
    except Exception as error:  # whatever goes wrong in one job must not take the others with it
        return Result(name=job.name, error=error)


def left_out(job: Job, results: Mapping[str, Result], report: Report) -> Result | None:
    """Returns the result of a job that one of those it waits for lets not begin, and says so; else None."""
    failed = next((name for name in job.after if not results[name].succeeded), None)
    if failed is None:
        return None
    report(f"{job.name}: not begun, as {failed} did not succeed")
    return Result(name=job.name, missed=failed)


def one_by_one(jobs: Sequence[Job], report: Report) -> Iterator[Result]:
    """Does jobs like `keep_going`, but stops at the first that fails."""
    for result in keep_going(jobs, report):
        yield result
        if not result.succeeded:
            return


def keep_going(jobs: Sequence[Job], report: Report) -> Iterator[Result]:
    """Does jobs in this process, in their order; after a failure, all that do not wait for what failed.

    Args:
        jobs: The jobs, each behind those that it waits for.
        report: Receives one line of news at a time.

    Yields:
        What became of each.
    """
    results: dict[str, Result] = {}
    for job in jobs:
        results[job.name] = left_out(job, results, report) or attempt(job, report)
        yield results[job.name]


def raise_failures(results: Iterable[Result], what: str) -> None:
    """Raises the error of the jobs that failed, if any did.

    Args:
        results: What became of the jobs.
        what: What they are called together, in the plural ("stages").

    Raises:
        Exception: The error of the only job that failed.
        RunError: If several failed; the message holds those of all.
    """
    failed = [result for result in results if result.error is not None]
    if len(failed) == 1:
        raise failed[0].error
    if failed:
        raise checks.RunError(tell_failures(failed, what))


def tell_failures(failed: Sequence[Result], what: str) -> str:
    """Returns a text on jobs that failed; `what` as for `raise_failures`."""
    told = "\n".join(f"- {result.name}: {result.error}" for result in failed)
    return f"{len(failed)} of the {what} failed:\n{told}"


def tell_usage(path: str) -> None:
    """Has a kernel write after every cell what it took so far, where the system counts that (not on Windows).

    A kernel that is slow to end is killed: what it would write at its very end might never be written.

    Args:
        path: JSON file with `cpu_seconds`, those of its children too, and `peak_memory_mib`, that of the
            largest process.
    """
    try:
        import resource
    except ImportError:
        return
    from IPython import get_ipython

    unit = 1 if sys.platform == "darwin" else 1024  # bytes; what systems count memory in

    def write(_result: Any) -> None:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        peak = max(_own_peak() or own.ru_maxrss * unit, children.ru_maxrss * unit)
        usage = {
            "cpu_seconds": round(sum(used.ru_utime + used.ru_stime for used in (own, children)), 1),
            "peak_memory_mib": round(peak / 2**20),
        }
        Path(path).write_text(json.dumps(usage), encoding="utf-8")

    get_ipython().events.register("post_run_cell", write)


def _own_peak() -> int | None:
    """Returns the most memory of this process, bytes; None where the system has no such file.

    What `getrusage` says starts with the memory of whoever started the process.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
