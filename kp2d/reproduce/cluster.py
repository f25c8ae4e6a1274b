"""Owns doing jobs on a Dask cluster: reaching it, checking that it shares the project, collecting results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import logging
import os
import secrets
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kp2d import checks, files, paths, provenance
from kp2d.reproduce import jobs

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10  # seconds a scheduler may take to answer
WORKER_TIMEOUT = 300  # seconds the first worker may take to come; queues of batch systems are longer
SHARE_TIMEOUT = 10  # seconds until a new file shows on another machine; network file systems keep lists
PATIENCE = 1  # seconds after which new workers are noticed
_KEPT = "What has finished is kept: run the same again"
_LOST = f"the connection to the scheduler was lost. {_KEPT}"
_VARIABLES = ("VAL_PATH", "TRAIN_PATH")  # decide which data a stage reads
_FOLDER, _CODE = "the project folder", "the code of kp2d"
_REMEDIES = {
    _FOLDER: "Start the workers with the same KP2D_HOME, under which they see the same folder.",
    _CODE: "Install the same commit for the workers, and start them again.",
    **{name: f"Start the workers with the same {name}." for name in _VARIABLES},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project:
    """What a worker must have in common with whoever sends it jobs."""

    facts: Mapping[str, str]  # the folder, the code, the versions and the variables that results depend on
    token: Path  # a file that was written into the folder for this run


@functools.cache
def _own_facts() -> dict[str, str]:
    """Returns the facts of this process; kept, since code that changes later is not what it has imported."""
    versions = provenance.versions()
    return {
        _FOLDER: str(paths.home()),
        _CODE: provenance.code_hash(),
        **{name: os.environ.get(name, "") for name in _VARIABLES},
        **versions,
        "python": versions["python"].rpartition(".")[0],  # releases of one version understand each other
    }


def check_worker(project: Project) -> None:
    """Checks, on a worker, that it works on the same project.

    Raises:
        InputError: If the folder is another one or not shared, or code, versions or variables differ.
    """
    own = _own_facts()
    for name, wanted in project.facts.items():
        if own.get(name, wanted) != wanted:  # a package that only one of them has does nothing in the other
            remedy = _REMEDIES.get(name, f"Install {name} {wanted} for the workers, as in constraints.txt.")
            raise checks.problem(f"{name} to be {wanted or 'unset'}", own[name] or "none", remedy)
    deadline = time.monotonic() + SHARE_TIMEOUT
    while not project.token.is_file():
        if time.monotonic() > deadline:
            raise checks.problem(
                "a project folder that all machines share",
                f"{project.facts[_FOLDER]} without the file {project.token.name}, just written there",
                "Put the project on a file system that the workers mount under the same path.",
            )
        time.sleep(0.2)


def _do(job: jobs.Job, project: Project, topic: str) -> jobs.Result:
    """Does a job on a worker; what cannot travel back as an error does so as its text."""
    import distributed

    def report(line: str) -> None:
        distributed.get_worker().log_event(topic, line)

    try:
        check_worker(project)
    except checks.InputError as error:
        return jobs.Result(name=job.name, error=_unfit(distributed.get_worker().address, error))
    result = jobs.attempt(job, report)
    if isinstance(result.error, (*jobs.EXPECTED, type(None))):
        return result
    logger.error("%s failed", job.name, exc_info=result.error)
    told = checks.RunError(f"{job.name} failed: {type(result.error).__name__}: {result.error}")
    return dataclasses.replace(result, error=told)


def _unfit(address: str, error: BaseException) -> checks.InputError:
    known = isinstance(error, checks.InputError)
    text = str(error) if known else f"{type(error).__name__}: {error}. {_REMEDIES[_CODE]}"
    return checks.InputError(f"the worker {address} does not fit: {text}")


class Cluster:
    """The workers of a Dask scheduler, as something that does jobs."""

    def __init__(self, address: str, *, worker_timeout: float = WORKER_TIMEOUT) -> None:
        """Names the cluster by its scheduler's address, "tcp://host:port"; nothing is sent before `execute`.

        For "tls://…" Dask's own configuration has the certificates. The first worker has `worker_timeout`
        seconds.

        Raises:
            InputError: If that is no address.
        """
        self.address = _checked(address)
        self.worker_timeout = worker_timeout

    def execute(self, work: Sequence[jobs.Job], report: jobs.Report) -> Iterator[jobs.Result]:
        """Does jobs on the workers, those at the same time that do not wait for each other.

        When a worker is lost, its job is done again by another one. A job that fails is not tried again;
        those that wait for it are left out, all others are done. However this ends, what has not begun is
        cancelled.

        Args:
            work: The jobs.
            report: Receives one line of news at a time, from the workers too.

        Yields:
            What became of each, in the order in which they end.

        Raises:
            InputError: If there is no Dask, scheduler or worker, or a worker does not share the project.
            RunError: If the connection to the scheduler is lost, or all workers are.
        """
        distributed = _distributed()
        client = self._connect(distributed)
        topic = f"kp2d-{secrets.token_hex(4)}"
        token = paths.runs("cluster") / topic
        try:
            self._wait_for_workers(distributed, client, report)
            project = Project(facts=_own_facts(), token=files.write_text(token, ""))
            # All that are there now, before any work; later ones are asked by `_do`.
            for worker, answer in client.run(check_worker, project, on_error="return").items():
                if isinstance(answer, BaseException):
                    raise _unfit(worker, answer)
            client.subscribe_topic(topic, lambda event: report(event[1]))
            send = functools.partial(client.submit, _do, project=project, topic=topic, pure=False)
            yield from self._dispatch(distributed, client, send, work, report)
        finally:
            token.unlink(missing_ok=True)
            client.close()

    def _connect(self, distributed: Any) -> Any:
        configured = distributed.security.Security().get_connection_args("client")
        if self.address.startswith("tls://") and not configured.get("ssl_context"):
            raise checks.problem(
                "certificates in Dask's configuration for tls://",
                "none",
                "Set distributed.comm.tls.ca-file, .client.cert and .client.key there, or by the variables "
                "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY.",
            )
        try:
            return distributed.Client(
                self.address, timeout=CONNECT_TIMEOUT, set_as_default=False, name="kp2d"
            )
        except OSError as error:
            raise checks.problem(
                "a Dask scheduler as tcp://HOST:PORT",
                f"{self.address!r}, where none answered within {CONNECT_TIMEOUT} s ({error})",
                "Start one by `dask scheduler`; it says its address.",
            ) from error

    def _wait_for_workers(self, distributed: Any, client: Any, report: jobs.Report) -> None:
        if client.nthreads():
            return
        report(f"{self.address} has no workers yet; waiting up to {self.worker_timeout:g} s")
        try:
            client.wait_for_workers(1, timeout=self.worker_timeout)
        except distributed.TimeoutError:
            raise checks.problem(
                f"a worker at {self.address} within {self.worker_timeout:g} s",
                "none",
                f"Start some by `dask worker {self.address}`, or wait longer by `worker_timeout`.",
            ) from None

    def _dispatch(
        self, distributed: Any, client: Any, send: Any, work: Sequence[jobs.Job], report: jobs.Report
    ) -> Iterator[jobs.Result]:
        """Sends each job as soon as it can begin and a worker is free, and yields what became of it.

        Dask would take all jobs at once with their dependencies, but it gives them to the worker that holds
        what they depend on, and lets others idle: its balance is made for many short tasks, not for few long
        ones.
        """
        waiting = list(work)
        results: dict[str, jobs.Result] = {}
        futures: dict[Any, str] = {}
        last_seen = time.monotonic()
        try:
            while waiting or futures:
                threads = _threads(client)
                last_seen = time.monotonic() if threads else last_seen
                if time.monotonic() - last_seen > self.worker_timeout:
                    raise checks.RunError(f"{self.address} has no workers any more. {_KEPT}")
                for job in [each for each in waiting if all(name in results for name in each.after)]:
                    if result := jobs.left_out(job, results, report):
                        results[job.name] = result
                        yield result
                    elif len(futures) < threads:
                        futures[send(job, key=f"{job.name}-{secrets.token_hex(4)}")] = job.name
                    else:
                        continue
                    waiting.remove(job)
                if not threads and not futures:
                    time.sleep(PATIENCE)
                for future in _finished(distributed, client, futures) if futures else ():
                    result = _result_of(distributed, futures.pop(future), future)
                    results[result.name] = result
                    yield result
        finally:
            with contextlib.suppress(OSError):  # a scheduler that is gone has nothing to cancel
                client.cancel(list(futures), force=True)


def _checked(address: str) -> str:
    """Refuses what is no address: Dask would try it, fail, and take 20 s to clean up."""
    expected = checks.problem(
        "the address of a Dask scheduler, tcp://HOST:PORT or tls://HOST:PORT", repr(address)
    )
    try:
        parts = urllib.parse.urlsplit(address)
        complete = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port
    except ValueError:  # the port is no number
        raise expected from None
    if not complete:
        raise expected
    return address


def _distributed() -> Any:
    """Imports Dask's scheduler, which is an extra."""
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        raise checks.problem(
            "the packages dask and distributed, which a cluster of Dask needs",
            f"no {error.name}",
            "In the folder of kp2d, run pip install '.[cluster]'.",
        ) from None


def _threads(client: Any) -> int:
    """Returns how many jobs the workers that are there now can do at the same time."""
    try:
        return sum(client.nthreads().values())
    except OSError as error:
        raise checks.RunError(_LOST) from error


def _finished(distributed: Any, client: Any, futures: Iterable[Any]) -> list[Any]:
    """Returns those futures that have ended; waits for one, but not longer than new workers should idle."""
    with contextlib.suppress(distributed.TimeoutError, distributed.CancelledError), client.as_current():
        distributed.wait(list(futures), timeout=PATIENCE, return_when="FIRST_COMPLETED")
    return [future for future in futures if future.done()]


def _result_of(distributed: Any, name: str, future: Any) -> jobs.Result:
    if future.status in ("cancelled", "lost"):
        raise checks.RunError(_LOST)
    try:
        return future.result()
    except distributed.scheduler.KilledWorker as error:
        told = f"{name}: every worker that began it was lost, often for want of memory ({error})"
    except Exception as error:  # of Dask itself, as on a worker that came later and has no kp2d
        told = f"{name}: no worker could begin it ({type(error).__name__}: {error})"
    return jobs.Result(name=name, error=checks.RunError(told))
