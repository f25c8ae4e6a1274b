"""Owns the reproduction: stages as data, run by papermill after those they need, skipped when up to date."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kp2d import checks, config, files, paths, provenance
from kp2d.data import locations
from kp2d.methods import weights
from kp2d.reproduce import chain, jobs, parameters

logger = logging.getLogger(__name__)

CELL_TIMEOUT = 3600  # seconds a cell may take
START_TIMEOUT = 120  # seconds a kernel may take to start
# What a kernel runs first, to tell what it takes. No name is bound that a cell could see.
_TELL_USAGE = "__import__('kp2d.reproduce.jobs').reproduce.jobs.tell_usage({path!r})"
NO_RECORD = "no record of a finished run"
_DECIDING = {"notebook": "the notebook", "kp2d": "the library", "weights": "the shipped weights"}
_RECORDED = ("parameters", "inputs", "outputs")  # parts of a stage's record that are compared by name


class StageError(checks.RunError):
    """A notebook failed; the message names the notebook, the cell, the error and the executed copy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a stage: "ran" or "reused", why, and how long it took in seconds."""

    stage: str
    action: str
    reason: str
    seconds: float


def assign_parameters(stages: Sequence[chain.Stage], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Decides which notebook gets which parameter, by stage.

    Given are values by "NAME" (for every notebook that has it) or "STAGE.NAME" (for one).

    Raises:
        InputError: If no selected notebook, or not the one named, has a parameter of that name, or a value is
            none that it can have.
    """
    declared = {stage.name: chain.parameters(stage.notebook) for stage in stages}
    assigned: dict[str, dict[str, Any]] = {stage.name: {} for stage in stages}
    for key, value in given.items():
        where, _, name = key.rpartition(".")
        if name == "profile":
            raise checks.problem("the profile by itself", f"{key}={value}", f"Write --profile {value}.")
        candidates = [stage.name for stage in chain.select([where])] if where else list(declared)
        for stage in candidates:
            checks.one_of(f"stage that runs, for {key}", stage, declared)
        takers = [stage for stage in candidates if name in declared[stage]]
        if not takers:
            known = sorted({name for stage in candidates for name in declared[stage]})
            checks.one_of(f"parameter of {', '.join(candidates)}", name, known)
        for stage in takers:
            assigned[stage][name] = parameters.read(name, value)
    return assigned


def reproduce(
    profile: str = "fast",
    *,
    stages: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    trained: bool | None = None,
    force: bool = False,
    cell_timeout: int | None = None,
    progress: bool = True,
    report: jobs.Report = logger.info,
    execute: jobs.Execute = jobs.one_by_one,
) -> list[Outcome]:
    """Runs a profile's notebooks in order and reuses the stages whose inputs, code and outputs are unchanged.

    Args:
        profile: A key of `config.PROFILES`.
        stages: Which stages; None runs all of the profile.
        parameters: Notebook parameters by "NAME" or "STAGE.NAME".
        trained: Whether 03 to 06 take the network that 02 trains, as a further one; None leaves that to the
            parameter of that name, and so to the profile, whose choice brings no stage along.
        force: Whether to run stages that are up to date, too.
        cell_timeout: Seconds a cell may take; None gives an hour, and the profile's patient stages all
            they need.
        progress: Whether to show a progress bar of cells.
        report: Receives one line a stage.
        execute: What does the stages: one after another here, `jobs.side_by_side`, or
            `kp2d.reproduce.cluster.Cluster.execute`.

    Returns:
        What became of each stage.

    Raises:
        InputError: If the profile, a stage or a parameter is unknown, an input is missing, a folder for
            results cannot be written, or another run of the profile is under way.
        StageError: If a notebook fails. Stages finished before stay finished.
        RunError: If several fail.
    """
    given = dict(parameters or {})
    trained = _takes_trained(profile, stages, given, trained)
    if config.profile(profile).dataset != "sample":
        locations.folders(config.profile(profile).dataset, profile)  # fails here, not in the first notebook
    chosen = _with_makers(chain.select(stages, profile, trained=trained), profile, report, trained=trained)
    assigned = assign_parameters(chosen, given)
    for stage in chosen:
        if "trained" in chain.parameters(stage.notebook):
            assigned[stage.name]["trained"] = trained
    for folder in (paths.runs(profile), paths.results(profile), paths.figures(profile)):
        files.check_writable(folder / "probe")
    planned = [
        jobs.Job(
            name=stage.name,
            work=run_stage,
            arguments=(stage, profile, assigned[stage.name], force, cell_timeout, progress),
            after=chain.needed(stage, chosen),
            alone=stage.measures_time,
            idle=is_reused,
        )
        for stage in chosen
    ]
    with files.alone(paths.runs(profile), f"run of the profile {profile}"):
        results = {result.name: result for result in execute(planned, report)}
    jobs.raise_failures([results[stage.name] for stage in chosen if stage.name in results], "stages")
    return [results[stage.name].value for stage in chosen]


def _takes_trained(
    profile: str, stages: Sequence[str] | None, given: dict[str, Any], asked: bool | None
) -> bool:
    """Takes `trained` out of the parameters and decides; it is of the chain, not of a stage."""
    if one := next((key for key in given if key.endswith(".trained")), None):
        remedy = "Write --trained, or -p trained=True: what a stage takes, those before it have to make."
        raise checks.problem("trained for all stages", one, remedy)
    told = parameters.read("trained", given.pop("trained", "auto"))
    told = told if asked is None else asked
    if not config.profile(profile).takes_trained(told):
        return False
    chosen = chain.select(stages, profile)
    made = {name for stage in chosen for name in (*stage.outputs, *stage.trained_outputs)}
    lacking = {name for stage in chosen for name in stage.trained_inputs} - made
    return told is True or None not in _signatures(sorted(lacking), profile).values()


def _with_makers(
    chosen: Sequence[chain.Stage], profile: str, report: jobs.Report, *, trained: bool = False
) -> list[chain.Stage]:
    """Adds the stages that make what is missing for those chosen, so that a new checkout can run any."""
    every = {stage.name: stage for stage in chain.select(None, trained=trained)}
    added: dict[str, str] = {}  # stage to why
    waiting = list(chosen)
    while waiting:
        stage = waiting.pop()
        known = {*added, *(other.name for other in chosen)}
        signatures = _signatures(stage.inputs, profile)
        for maker in chain.needed(stage, list(every.values())):
            made = set(chain.filled(every[maker].outputs, profile))
            state = ""
            if any(signatures[name] is None for name in made & set(signatures)):
                state = "nothing is there yet"
            elif trained and _is_without_trained(every[maker], profile):
                state = "what is there is without what 02 trains"
            if maker not in known and state:
                added[maker] = f"as {stage.name} reads what it makes and {state}"
                waiting.append(every[maker])
    for maker, why in sorted(added.items()):
        report(f"{maker}: comes along, {why}")
    return [stage for stage in every.values() if stage in chosen or stage.name in added]


def _is_without_trained(stage: chain.Stage, profile: str) -> bool:
    """Tells whether a stage that can take the network that 02 trains has not, the last time it ran."""
    record = files.read_json(paths.runs(profile) / f"{stage.name}.json") or {}
    before = record.get("parameters")
    took = isinstance(before, dict) and before.get("trained") is True
    return "trained" in chain.parameters(stage.notebook) and not took


def run_stage(
    stage: chain.Stage,
    profile: str,
    parameters: Mapping[str, Any],
    force: bool,
    cell_timeout: int | None,
    progress: bool,
    *,
    report: jobs.Report,
) -> Outcome:
    """Runs one stage, or reuses it; any process that sees the project's folder can do so.

    The parameters are its notebook's; other arguments are as for `reproduce`.

    Raises:
        InputError: If an input is missing.
        StageError: If the notebook fails, or does not write what it promises.
    """
    settings = _settings(stage, profile, parameters)
    state = _state(stage, profile, settings)
    record_path = paths.runs(profile) / f"{stage.name}.json"
    reason = _why_run(stage, profile, state, files.read_json(record_path))
    if reason == NO_RECORD and record_path.exists():
        reason = f"{record_path.name}, its record, is damaged"
    if not reason and not force:
        report(f"{stage.name}: reused, nothing changed")
        return Outcome(stage=stage.name, action="reused", reason="nothing changed", seconds=0.0)
    reason = reason or "forced"
    report(f"{stage.name}: running ({reason})")
    record_path.unlink(missing_ok=True)
    endless = stage.number in config.profile(profile).patient_stages
    timeout = cell_timeout or (None if endless else CELL_TIMEOUT)
    usage_path = record_path.with_suffix(".usage.json")
    seconds = _execute(stage, profile, settings, timeout, progress, usage_path)
    outputs = _signatures(stage.outputs, profile)
    missing = [name for name, signature in outputs.items() if signature is None]
    if missing:
        raise StageError(f"{stage.name} ended without writing {', '.join(missing)}")
    files.write_json(record_path, {**state, "outputs": outputs, **_facts_of_run(seconds, usage_path)})
    report(f"{stage.name}: done in {seconds:.0f} s")
    return Outcome(stage=stage.name, action="ran", reason=reason, seconds=seconds)


def is_reused(
    stage: chain.Stage, profile: str, parameters: Mapping[str, Any], force: bool, *_others: Any
) -> bool:
    """Tells whether `run_stage` would reuse what a stage made; the same arguments."""
    try:
        state = _state(stage, profile, _settings(stage, profile, parameters))
    except checks.InputError:
        return False
    record = files.read_json(paths.runs(profile) / f"{stage.name}.json")
    return not force and not _why_run(stage, profile, state, record)


def _settings(stage: chain.Stage, profile: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**parameters, "profile": profile}
    if "interactive" in chain.parameters(stage.notebook):
        settings.setdefault("interactive", False)
    return settings


def _state(stage: chain.Stage, profile: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns everything that decides a stage's outcome, and checks that its inputs exist."""
    inputs = _signatures(stage.inputs, profile)
    for name, signature in inputs.items():
        if signature is None:
            makers = [
                each.name
                for each in chain.select(None, trained=True)
                if name in chain.filled(each.outputs, profile)
            ]
            remedy = f"Run stage {makers[0]} first." if makers else f"Restore it: git checkout -- {name}"
            raise checks.problem(f"the input of {stage.name}, {name}", "nothing there", remedy)
    return {
        "parameters": settings,
        "notebook": chain.cells_hash(stage.notebook),
        "kp2d": provenance.code_hash(source=chain.code(stage.notebook)),
        "weights": weights.shipped_hash(),
        "inputs": inputs | _signatures(stage.optional, profile),
    }


def _signatures(names: Sequence[str], profile: str) -> dict[str, str | None]:
    """Returns a signature of each file or data set by name; None for one that is missing."""
    return {name: _signature(name, profile) for name in chain.filled(names, profile)}


def _signature(name: str, profile: str) -> str | None:
    if name != chain.DATA:
        path = paths.home() / name
        return files.sha256(path)[:16] if path.is_file() else None
    try:
        roots = locations.folders(config.profile(profile).dataset, profile)
    except checks.InputError:
        return None
    # Names, sizes and times of change: reading gigabytes to find nothing changed would defeat the purpose.
    listing = sorted(
        (str(path.relative_to(root.parent)), path.stat().st_size, path.stat().st_mtime_ns)
        for root in roots
        for path in root.rglob("*")
        if path.is_file()
    )
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]


def _why_run(stage: chain.Stage, profile: str, state: dict[str, Any], record: dict[str, Any] | None) -> str:
    """Returns why a stage must run, or "" if its record shows that it need not."""
    if record is None or not all(isinstance(record.get(part), dict) for part in _RECORDED):
        return NO_RECORD
    for part, name in (("parameters", "parameter"), ("inputs", "input")):
        before, now = record[part], state[part]
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if changed:
            return f"{name} {', '.join(changed)} changed"
    for part in _DECIDING:
        if record.get(part) != state[part]:
            return f"{_DECIDING[part]} changed"
    for name, signature in _signatures(stage.outputs, profile).items():
        if signature != record["outputs"].get(name):
            return f"output {name} {'is missing' if signature is None else 'was changed'}"
    return ""


def _facts_of_run(seconds: float, usage: Path) -> dict[str, Any]:
    """Returns what a run took, and on what; what its kernel did not tell is None."""
    told = files.read_json(usage) or {}
    usage.unlink(missing_ok=True)
    return {
        "seconds": round(seconds, 1),
        **{name: told.get(name) for name in ("cpu_seconds", "peak_memory_mib")},
        "cores": provenance.workers(),
        "device": provenance.device(),
        "commit": provenance.git_commit(),
        "versions": provenance.versions(),
    }


def _execute(
    stage: chain.Stage,
    profile: str,
    settings: dict[str, Any],
    cell_timeout: int | None,
    progress: bool,
    usage: Path,
) -> float:
    """Runs a notebook in a kernel of this Python; the executed copy is kept, also of a failed run."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    copy = paths.runs(profile) / f"{stage.name}.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            str(stage.notebook),
            str(copy),
            parameters=settings,
            kernel_name="python3",
            language="python",
            progress_bar=progress,
            start_timeout=START_TIMEOUT,
            execution_timeout=cell_timeout,
            cwd=str(paths.notebooks()),
            extra_arguments=[
                # What a kernel says of transports and of its end is not for our users; cells report errors.
                "--log-level=CRITICAL",
                f"--IPKernelApp.exec_lines={_TELL_USAGE.format(path=str(usage))}",
            ],
        )
    except papermill.PapermillExecutionError as error:
        first = next((line for line in error.source.splitlines() if line.strip()), "")
        raise StageError(
            f"{stage.name} failed in cell [{error.exec_count}] ({first.strip()}): "
            f"{error.ename}: {error.evalue}\n"
            f"The executed copy is {copy}"
        ) from error
    except CellTimeoutError as error:
        raise StageError(
            f"{stage.name}: a cell took longer than {cell_timeout} s. Raise `timeout`, or look at {copy}"
        ) from error
    except DeadKernelError as error:
        raise StageError(
            f"{stage.name}: the kernel died, often for want of memory. The executed copy is {copy}"
        ) from error
    except OSError as error:  # of the executed copy, which is written after every cell
        raise StageError(
            f"{stage.name}: {copy} cannot be written ({error.strerror or error}). "
            "Make room there, or choose another folder by KP2D_HOME, then run the same again"
        ) from error
    except (RuntimeError, KeyError) as error:  # no kernel answered, or none of that name is installed
        raise StageError(
            f"{stage.name}: no kernel started ({error}). "
            "Run pip install ipykernel in this Python, or try again on a machine with less load"
        ) from error
    return time.perf_counter() - started
