"""Owns where the numbers of a run go: CSV always, TensorBoard and Weights & Biases when wanted."""

from __future__ import annotations

import csv
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Any

from kp2d import files
from kp2d.checks import problem

log = logging.getLogger(__name__)


class RunLog:
    """Writes rows of scalars, keyed by step, to every destination of a run."""

    def __init__(
        self,
        folder: Path,
        *,
        first_step: int,
        tensorboard: bool,
        wandb: bool,
        name: str,
        config: dict[str, Any],
    ) -> None:
        """Opens the destinations.

        Args:
            folder: Folder of the run.
            first_step: Steps done; later rows of an interrupted run are dropped.
            tensorboard: Write event files to `folder/tensorboard`.
            wandb: Log to Weights & Biases, offline when there is no account or no network.
            name: Display name of the run.
            config: The run's settings.
        """
        self._path = folder / "log.csv"
        self._rows = read_rows(self._path, first_step)
        self._rewrite()
        self._events = _open_tensorboard(folder) if tensorboard else None
        self._wandb = _open_wandb(folder, name, config) if wandb else None

    @property
    def rows(self) -> list[dict[str, float]]:
        """All rows so far, those of earlier parts of the run included."""
        return [dict(row) for row in self._rows]

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one row.

        Args:
            step: Steps done.
            values: Names to numbers.
        """
        row = {"step": step, **values}
        known = set(self._rows[0]) if self._rows else set()
        self._rows.append(row)
        if set(row) <= known:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, list(self._rows[0])).writerow(row)
        else:
            self._rewrite()
        if self._events is not None:
            _write_events(self._events, step, values)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def close(self) -> None:
        """Flushes and closes every destination."""
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _rewrite(self) -> None:
        """Writes the whole file, after a new column appeared or rows were dropped."""
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        self._rows[:1] = [{name: row.get(name, "") for name in names} for row in self._rows[:1]]
        with files.atomic(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self._rows)


def read_rows(path: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """Reads a log.

    Args:
        path: A `log.csv`; a missing one has no rows, and damaged lines count as missing.
        last_step: Rows after this step are left out; None reads all.

    Returns:
        Column to number, or to "" where a row has no value.

    Raises:
        InputError: If it is no table at all.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            rows = [row for row in map(_numbers, csv.DictReader(file)) if row is not None]
        except csv.Error as error:
            raise problem("the log of a training run", f"{path} ({error})", "Remove it.") from error
    return [row for row in rows if last_step is None or row["step"] <= last_step]


def _numbers(row: dict[str | None, Any]) -> dict[str, Any] | None:
    """Returns the numbers of a line; None for one that a kill cut short or a disk garbled."""
    if None in row or None in row.values():
        return None
    try:
        numbers = {name: float(value) if value else "" for name, value in row.items()}
        return {**numbers, "step": int(numbers["step"])}
    except (KeyError, OverflowError, ValueError):
        return None


def _open_tensorboard(folder: Path) -> Any:
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        log.warning("TensorBoard is not installed; its log is skipped (pip install tensorboard).")
        return None
    return EventFileWriter(str(folder / "tensorboard"))


def _write_events(writer: Any, step: int, values: dict[str, float]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))


def _open_wandb(folder: Path, name: str, config: dict[str, Any]) -> Any:
    """Starts a Weights & Biases run without ever asking, waiting long, or failing."""
    try:
        import wandb
    except ImportError:
        log.warning("Weights & Biases is not installed; its log is skipped (pip install wandb).")
        return None
    run = {"project": "kp2d", "name": name, "dir": str(folder), "config": config}
    run["settings"] = {"silent": True, "init_timeout": 20}  # s
    try:  # whatever a foreign service does, training goes on
        mode = os.environ.get("WANDB_MODE")
        if mode != "offline" and (mode or wandb.login(prompt=False, verify=False)):
            identity = folder / "wandb_id.txt"  # a resumed run goes on in the same place
            if not identity.exists():
                files.write_text(identity, secrets.token_hex(4))
            return wandb.init(mode=mode or "online", id=identity.read_text().strip(), resume="allow", **run)
    except Exception as error:
        log.warning("Weights & Biases cannot be reached: %s", error)
    try:
        log.info("Weights & Biases: offline, in %s (no account or no network).", folder)
        return wandb.init(mode="offline", **run)
    except Exception as error:  # likewise
        log.warning("Weights & Biases did not start; its log is skipped: %s", error)
        return None
