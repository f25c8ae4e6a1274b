"""Owns Google's Edge TPU compiler: finding it, running it under a time limit, and reading its log.

The compiler is a closed program for Debian and Ubuntu on x86-64, last released in 2021. It is optional:
where it is missing, a compilation is skipped and says how to get it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kp2d import files
from kp2d.checks import InputError, RunError, problem
from kp2d.device.compiler_failures import COLAB, cannot_start, failed, failure
from kp2d.methods import tflite_file

VARIABLE = "EDGETPU_COMPILER"  # environment variable with the path of the program
# coral.ai/docs/edgetpu/compiler says the same with apt-key, which Debian 13 no longer has.
INSTALL = f"""\
On Debian or Ubuntu, x86-64:
  sudo mkdir -p /etc/apt/keyrings
  curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg \
| sudo gpg --dearmor -o /etc/apt/keyrings/coral-edgetpu.gpg
  echo "deb [signed-by=/etc/apt/keyrings/coral-edgetpu.gpg] https://packages.cloud.google.com/apt \
coral-edgetpu-stable main" | sudo tee /etc/apt/sources.list.d/coral-edgetpu.list
  sudo apt-get update
  sudo apt-get install edgetpu-compiler
Elsewhere, in Google Colab: {COLAB}
"""

MAPPED = "Mapped to Edge TPU"
SUBGRAPH = "More than one subgraph is not supported"  # could be mapped, but for an operator before it
TIMEOUT = 180  # seconds; the default of the compiler's own timer
GRACE = 30  # seconds beyond that timer before the compiler is killed


class Operator(NamedTuple):
    """A line of the compiler's table: how many operators of a kind have the same status."""

    name: str  # "CONV_2D"; "CUSTOM" for all that are not built in
    count: int
    status: str  # `MAPPED`, or the reason why not


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compilation:
    """What the compiler did with one model; None where its log does not say.

    The log rounds sizes to two decimals of their unit, so bytes are exact to about half a percent.
    """

    status: str  # "compiled" or "skipped"
    reason: str = ""  # why it was skipped, and what to do
    output: Path | None = None  # the compiled model
    version: str | None = None  # of the compiler, "16.0.384591198"
    log: str = ""
    operators: tuple[Operator, ...] = ()
    mapped: int | None = None  # operators on the Edge TPU
    unmapped: int | None = None  # operators on the CPU
    subgraphs: int | None = None  # on the Edge TPU
    milliseconds: float | None = None  # of compiling
    input_bytes: int | None = None
    output_bytes: int | None = None
    on_chip_bytes: int | None = None  # parameters kept on the chip
    on_chip_free_bytes: int | None = None  # left there for parameters
    streamed_bytes: int | None = None  # parameters sent at every inference

    @property
    def blockers(self) -> tuple[Operator, ...]:
        """Operators that stay on the CPU for a reason of their own, not for one before them."""
        return tuple(each for each in self.operators if each.status not in (MAPPED, SUBGRAPH))


def find() -> Path | None:
    """Finds the compiler: where `EDGETPU_COMPILER` points, else on the PATH.

    Returns:
        The program, or None if there is none.

    Raises:
        InputError: If the variable names no file.
    """
    if chosen := os.environ.get(VARIABLE):
        path = Path(chosen).expanduser()
        if not path.is_file():
            raise problem(f"{VARIABLE} to name the compiler", chosen, "Correct the variable, or unset it.")
        return path.absolute()
    found = shutil.which("edgetpu_compiler")
    return Path(found).absolute() if found else None


def version(compiler: Path) -> str:
    """Asks the compiler for its version.

    Args:
        compiler: The program.

    Returns:
        For example "16.0.384591198".

    Raises:
        InputError: If it cannot run here, or is another program.
        RunError: If it crashes or does not answer.
    """
    code, text = _run([str(compiler), "--version"], None, GRACE)
    if found := re.search(_VERSION, text):
        return found[1]
    if code:
        raise failure(text, code)
    raise problem("Google's edgetpu_compiler", str(compiler), f"Set {VARIABLE} to the right program.")


def compile_model(
    path: str | Path,
    output: str | Path,
    *,
    timeout: int = TIMEOUT,
    limit: float | None = None,
    arguments: Sequence[str] = (),
) -> Compilation:
    """Compiles an int8 model for the Edge TPU.

    The output appears whole or not at all. Two runs differ in a few bytes: the compiler writes a token anew.

    Args:
        path: A `.tflite` model with integers from end to end.
        output: The compiled model to write; its folder is created.
        timeout: Seconds for the compiler's own timer, which counts each try of `--search_delegate` anew.
        limit: Seconds for everything, after which the compiler is killed; `timeout` and `GRACE` by default.
        arguments: Further options of the compiler, such as "--search_delegate".

    Returns:
        What was done; `status` is "skipped" if there is no compiler.

    Raises:
        InputError: If the model is none or cannot be compiled, the output cannot be written, or the compiler
            cannot run on this machine.
        RunError: If the compiler crashes, fails without a reason or takes too long.
    """
    path, output = Path(path).expanduser(), Path(output).expanduser()
    data = tflite_file.read(path)
    limit = timeout + GRACE if limit is None else limit
    if min(timeout, limit) < 1:
        raise problem("time limits of at least 1 second", f"timeout {timeout}, limit {limit}")
    if output.resolve() == path.resolve():
        raise problem("another file than the model to write", str(output), "Add _edgetpu to its name.")
    compiler = find()
    if compiler is None:
        return Compilation(status="skipped", reason=f"There is no edgetpu_compiler on the PATH.\n{INSTALL}")
    files.check_writable(output)
    command = [str(compiler), "--show_operations", "--out_dir", "out"]
    if int(version(compiler).split(".")[0]) >= 16:  # older ones have no timer
        command += ["--timeout_sec", str(timeout)]
    with tempfile.TemporaryDirectory(prefix="kp2d-compiler-") as folder:
        out = Path(folder) / "out"
        out.mkdir()
        copy = Path(folder) / (path.name.lstrip("-") or "model.tflite")  # a name must not look like an option
        copy.write_bytes(data)
        code, text = _run([*command, *arguments, copy.name], folder, limit)
        made = _made(out, text, code)
        compilation = _read_own_log(made, text)
        with files.atomic(output) as temporary:
            shutil.copyfile(made, temporary)
    return dataclasses.replace(compilation, output=output, log=text)


def _made(folder: Path, text: str, code: int) -> Path:
    """Returns the one model that the compiler made; raises its failure if it made none."""
    made = sorted(folder.glob("*_edgetpu.tflite"))
    if code or not made:
        raise failure(text, code)
    if len(made) > 1:
        raise problem("options that make one model", f"{len(made)} segments", "Leave out --num_segments.")
    if made[0].read_bytes()[4:8] != b"TFL3":
        raise RunError(
            "expected a .tflite model from the Edge TPU compiler; received another file. Try again."
        )
    return made[0]


def _read_own_log(made: Path, text: str) -> Compilation:
    """Reads what the compiler printed, completed by the file that it writes."""
    beside = made.with_suffix(".log")
    written = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""
    try:
        return parse_logs(f"{text}\n{written}")[-1]  # a search for a delegate may print some before the last
    except InputError as error:
        raise RunError(f"the Edge TPU compiler made a model, but its log is not as known: {error}") from error


def _run(command: Sequence[str], folder: str | None, limit: float) -> tuple[int, str]:
    """Runs a program in a group of its own, which is killed as a whole; returns its status and its words."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise cannot_start(command[0], error) from error
    with process:
        try:
            text, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise RunError(
                f"expected the Edge TPU compiler to finish within {limit:g} s; received no end by then. "
                "It was killed and nothing is left. Give it more time, or choose a smaller image size."
            ) from None
        except BaseException:
            _kill(process)
            raise
    return process.returncode, text


def _kill(process: subprocess.Popen) -> None:
    """Kills a program and its children: the compiler does its work in one."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


_VERSION = r"Edge TPU Compiler version (\d[\w.]*)"
_SIZE = r"([\d.]+) ?([KMGT]i)?B\b"
# A line that states something, and the field that it fills.
_LINES = {
    "milliseconds": r"Models? compiled successfully in ([\d.]+) ?ms",
    "output": r"Output(?: model)?: (.+)",
    "input_bytes": rf"Input size: {_SIZE}",
    "output_bytes": rf"Output size: {_SIZE}",
    "on_chip_bytes": rf"On-chip memory used for caching model parameters: {_SIZE}",
    "on_chip_free_bytes": rf"On-chip memory remaining for caching model parameters: {_SIZE}",
    "streamed_bytes": rf"Off-chip memory used for streaming uncached model parameters: {_SIZE}",
    "subgraphs": r"Number of Edge TPU subgraphs: (\d+)",
    "total": r"Total number of operations: (\d+)",
    "mapped": r"Number of operations that will run on Edge TPU: (\d+)",
    "unmapped": r"Number of operations that will run on CPU: (\d+)",
}
_START = r"Input(?: model)?: "
_HEADER = r"Operator\s+Count\s+Status$"
_ROW = r"([A-Za-z]\S*)\s+(\d+)\s+(\S.*)"


def parse_logs(text: str) -> tuple[Compilation, ...]:
    """Reads all models of a log: what the compiler prints, with or without the table, or its `.log` file.

    Args:
        text: The log; lines of other programs in between do no harm. Two parts about the same output, as
            printed and as written to the file, complete each other.

    Returns:
        One for each model, in order; `output` is the name in the log, `log` the whole text.

    Raises:
        InputError: If it is no such log, its numbers contradict each other, or it ends in a refused model.
        RunError: If it ends in a failure of the compiler.
    """
    found: dict[str, dict[str, Any]] = {}
    shared: dict[str, Any] = {}
    record: dict[str, Any] = {}
    in_table = False
    for raw in text.splitlines():
        line = re.sub(r"^[>\s]+", "", raw).rstrip()  # logs are often quoted
        if match := re.match(_VERSION, line):
            shared, record, in_table = {"version": match[1]}, {}, False
        elif match := re.match(_LINES["milliseconds"], line):
            shared["milliseconds"] = float(match[1])
        elif re.match(_START, line):
            record, in_table = dict(shared), False
        elif re.match(_HEADER, line):
            in_table, record["operators"] = True, ()
        elif in_table and (match := re.match(_ROW, line)):
            record["operators"] += (Operator(match[1], int(match[2]), match[3]),)
        elif stated := _stated(line):
            record |= stated
        name = Path(record.get("output", "")).name
        if name and found.get(name) is not record:
            record = found[name] = found.get(name, {}) | record
    if not found:
        raise _no_log(text)
    return tuple(_checked(each, text) for each in found.values())


def parse_log(text: str) -> Compilation:
    """Reads the log of one model; see `parse_logs`.

    Raises:
        InputError: If it is no such log, is about several models, its numbers contradict each other, or it
            ends in a refused model.
        RunError: If it ends in a failure of the compiler.
    """
    found = parse_logs(text)
    if len(found) > 1:
        raise problem("the log of one model", f"{len(found)} models", "Read it with parse_logs.")
    return found[0]


def _stated(line: str) -> dict[str, Any]:
    """Returns the field that a line fills, if any."""
    for field, pattern in _LINES.items():
        if match := re.match(pattern, line):
            if field.endswith("_bytes"):
                return {field: round(float(match[1]) * 1024 ** " KMGT".index((match[2] or " ")[0]))}
            return {field: Path(match[1]) if field == "output" else int(match[1])}
    return {}


def _no_log(text: str) -> InputError | RunError:
    """Says why a text holds no finished compilation."""
    if failed(text):
        return failure(text)
    first = (text.strip().splitlines() or ["nothing"])[0][:80]
    remedy = "Give all that it printed, or its .log file."
    return problem("a log of the Edge TPU compiler about a model that it made", repr(first), remedy)


def _checked(record: Mapping[str, Any], text: str) -> Compilation:
    """Completes the counts of a model; refuses those that contradict each other."""
    operators = record.get("operators", ())
    total, mapped, unmapped = (record.get(key) for key in ("total", "mapped", "unmapped"))
    if operators:
        counted = sum(each.count for each in operators)
        on_chip = sum(each.count for each in operators if each.status == MAPPED)
        counts = {"total": counted, "mapped": on_chip, "unmapped": counted - on_chip}
    elif total is not None and mapped is None:  # the compiler says nothing where all are mapped
        counts = {"total": total, "mapped": total, "unmapped": 0}
    else:
        counts = {"total": total, "mapped": mapped, "unmapped": unmapped}
    stated = {"total": total, "mapped": mapped, "unmapped": unmapped}
    wrong = {key: value for key, value in stated.items() if value not in (None, counts[key])}
    if wrong or None in counts.values() or counts["mapped"] + counts["unmapped"] != counts["total"]:
        received = f"a log that states {stated} and whose table has {counts}"
        raise problem("a whole log whose counts of operators agree", received, "Save it again, uncut.")
    fields = {each.name for each in dataclasses.fields(Compilation)}
    kept = {key: value for key, value in record.items() if key in fields}
    kept |= {"mapped": counts["mapped"], "unmapped": counts["unmapped"]}
    return Compilation(**kept, status="compiled", log=text)
