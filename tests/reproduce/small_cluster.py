"""A Dask scheduler and its workers as processes on this machine, for the tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


class SmallCluster:
    """A scheduler on a free port of the loopback, and workers without nannies, so that a kill is a kill."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.home = home
        self._folder = folder
        self._file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen] = []
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"
        )
        wait_for(lambda: self._file.exists() and self._file.read_text(encoding="utf-8"))
        self.address = json.loads(self._file.read_text(encoding="utf-8"))["address"]

    def _start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        path = os.pathsep.join([str(TESTS.parent), str(TESTS), str(TESTS / "reproduce")])
        settings = {"KP2D_HOME": str(self.home), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        with (self._folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(self._file)],
                env={**os.environ, **settings, **variables},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def add_worker(self, **variables: str) -> subprocess.Popen:
        """Starts a worker with one thread."""
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "30")
        self.workers.append(self._start("worker", "--host", "127.0.0.1", *options, **variables))
        return self.workers[-1]

    def settle(self, count: int = 2) -> None:
        """Starts and stops workers until there are so many."""
        import distributed

        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < count:
            self.add_worker()
        while len(self.workers) > count:
            stop(self.workers.pop())
        with distributed.Client(self.address, set_as_default=False) as client:
            wait_for(lambda: len(client.nthreads()) == count)

    def close(self) -> None:
        """Ends everything."""
        for process in (*self.workers, self.scheduler):
            stop(process)


def stop(process: subprocess.Popen) -> None:
    """Kills a process and waits for its end."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait()


def wait_for(condition, seconds: float = 60.0):
    """Waits until something holds, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found
