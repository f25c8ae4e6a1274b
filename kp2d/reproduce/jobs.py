"""Owns jobs: pieces of work that wait for each other, what became of them and what they took."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from kp2d import checks
from kp2d.data import loader

MEMORY_EACH = 3 * 2**30  # bytes that a job beside another one must find free

Report = Callable[[str], None]  # receives one line of news
# Errors whose text is meant for users.
EXPECTED = (checks.InputError, checks.RunError, OSError, ModuleNotFoundError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work that this process or another one can do."""

    name: str  # unique among the jobs of a run
    work: Callable[..., Any]  # a function of a module, called with the arguments and `report`
    # what it is called with; like the result, they may travel to another machine
    arguments: tuple[Any, ...] = ()
    after: tuple[str, ...] = ()  # names of the jobs that must have succeeded before
    alone: bool = False  # whether nothing may run beside it here, as it measures times
    # called with the arguments, tells whether there is nothing to do, which needs no process; None does not
    # know
    idle: Callable[..., bool] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job."""

    name: str  # the job's
    value: Any = None  # what its work returned
    error: Exception | None = None  # why it failed, if it did
    # name of a job that did not succeed and without which this one was not begun, if there was one
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
    """Does jobs in this process, in their order; after a failure, all that do not wait for what failed."""
    results: dict[str, Result] = {}
    for job in jobs:
        results[job.name] = left_out(job, results, report) or attempt(job, report)
        yield results[job.name]


def side_by_side(jobs: Sequence[Job], report: Report) -> Iterator[Result]:
    """Does jobs like `one_by_one`, but those that do not wait for each other at once, in processes.

    Two at a time, and only where there are two cores, memory for both and no GPU that they would share.
    """
    waiting, succeeded = list(jobs), set[str]()
    while waiting:
        ready = [job for job in waiting if succeeded.issuperset(job.after)]
        beside = _beside(ready)
        for result in _in_processes(beside, report) if beside else [attempt(ready[0], report)]:
            yield result
            if not result.succeeded:
                waiting = []
            succeeded.add(result.name)
        waiting = [job for job in waiting if job.name not in succeeded]


def _beside(ready: Sequence[Job]) -> list[Job]:
    """Returns the two jobs to do at once; none if the first that is ready is to be done by itself."""
    jobs = [job for job in ready if not job.alone]
    if len(jobs) < 2 or jobs[0] is not ready[0] or not _room_for(2):
        return []
    busy = [job for job in jobs if not (job.idle and job.idle(*job.arguments))][:2]
    return busy if len(busy) == 2 and busy[0] is ready[0] else []


def _room_for(count: int) -> bool:
    """Tells whether this machine can do so many jobs at once."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    cores = len(os.sched_getaffinity(0))
    return cores >= count and free >= count * MEMORY_EACH and shutil.which("nvidia-smi") is None


def _in_processes(jobs: Sequence[Job], report: Report) -> Iterator[Result]:
    """Does jobs at once, each in a process that ends with this one."""
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(loader.end_with_parent)  # or the next run would find somebody at work
    with manager, ProcessPoolExecutor(len(jobs), context, initializer=loader.end_with_parent) as pool:
        news = manager.Queue()
        running = {pool.submit(attempt, job, news.put): job for job in jobs}
        pending = set(running)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            while not news.empty():
                report(news.get())
            for future in done:
                name = running[future].name
                try:
                    yield future.result()
                except BrokenProcessPool:
                    lost = checks.RunError(f"{name}: its process was killed, often for want of memory")
                    yield Result(name=name, error=lost)


def raise_failures(results: Iterable[Result], what: str) -> None:
    """Raises the error of the jobs that failed, if any did; together they are called `what` ("stages").

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

    A kernel that is slow to end is killed: what it would write at its very end might never be written. The
    JSON file has `cpu_seconds`, those of its children too, and `peak_memory_mib`, that of the largest
    process.
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
