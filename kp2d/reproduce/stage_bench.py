"""Owns what each stage of the reproduction takes on this machine: time, processor time, memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import pandas as pd
from tqdm import tqdm

from kp2d import checks, provenance
from kp2d.reproduce import chain

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; what systems count memory in


def bench_stages(profile: str, *, stages: Sequence[str] | None = None, progress: bool = True) -> pd.DataFrame:
    """Runs stages one after another, each in a process of its own, also where they are up to date.

    Args:
        profile: Name of the profile.
        stages: Which, by name or number; None runs all.
        progress: Whether to show a progress bar.

    Returns:
        One row a stage: seconds; processor seconds of all its processes; the memory (MiB) of the largest of
        them at its peak; cores and device.

    Raises:
        InputError: If the system cannot tell what a process took.
        RunError: If a stage fails.
    """
    if not hasattr(os, "wait4"):
        raise checks.problem("a system that counts what a process takes", sys.platform, "Use Linux or macOS.")
    rows = []
    for stage in tqdm(chain.select(stages), desc="stages", disable=not progress, leave=False):
        command = [sys.executable, "-m", "kp2d", "reproduce", "--profile", profile, "--force"]
        started = time.perf_counter()
        with subprocess.Popen([*command, "--stages", stage.name], stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise checks.RunError(f"{stage.name} failed: run kp2d reproduce --stages {stage.name[:2]}")
        rows.append(
            {
                "stage": stage.name,
                "profile": profile,
                "seconds": round(time.perf_counter() - started, 1),
                "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
                "peak_memory_mib": round(usage.ru_maxrss * _RSS_UNIT / 2**20),
                "cores": provenance.workers(),
                "device": provenance.device(),
            }
        )
    return pd.DataFrame(rows)
