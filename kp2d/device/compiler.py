"""Owns Google's Edge TPU compiler: finding it, running it under a time limit, and reading what it says.

The compiler is a closed program for Debian and Ubuntu on x86-64, last released in 2021 as version 16. It is
optional: where it is missing, a compilation is skipped and says how to get it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kp2d import files
from kp2d.checks import InputError, RunError, problem
from kp2d.methods import tflite_file

VARIABLE = "EDGETPU_COMPILER"  # environment variable with the path of the program
RELEASE = "16"  # whose options and log are known
COLAB = (
    "https://colab.research.google.com/github/google-coral/tutorials/blob/master/compile_for_edgetpu.ipynb"
)
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
TIME_LIMIT = 180  # seconds; the default of the compiler's own timer

_MODEL = "a model that the Edge TPU compiler takes"
_MACHINE = "a machine that can run the Edge TPU compiler"
_RUN = "the Edge TPU compiler to finish"  # not the user's fault
_AGAIN = "Try again; if it stays so, choose a smaller image size."
_FOREIGN = f"It is a program for x86-64 Linux; compile in Google Colab instead: {COLAB}"
_INVALID = "Make the model anew with kp2d quantize."
_LOADER = "It needs a 64-bit system with glibc, such as Debian or Ubuntu, and its package as a whole."
_OLD = "The compiler knows the operators of TensorFlow 2.6:"
_WITHOUT = "Export the model without this operator."

# Sentence, what it is about, and the remedy; a telling sentence stands before a general one.
_FAILURES = (
    (r"Model not quantized", _MODEL, "Quantize it to int8 first, with every activation."),
    (
        r"Didn't find op for builtin opcode 'DEPTH_TO_SPACE' version '\d+'",
        _MODEL,
        "The Edge TPU has no such operator; kp2d compile and kp2d quantize --target edgetpu rewrite it.",
    ),
    (
        r"Didn't find op for builtin opcode '\w+ ?' version '\d+'",
        _MODEL,
        f"{_OLD} lower the version that the file states, if the operator needs no newer one, or convert with "
        "an older TensorFlow.",
    ),
    (r"Op builtin_code out of range: \d+", _MODEL, f"{_OLD} export the model without newer ones."),
    (r"Encountered unresolved custom op: \w+|'tfl\.\w+' op is not supported on DarwiNN", _MODEL, _WITHOUT),
    (
        r"Attempting to use a delegate that only supports static-sized tensors",
        _MODEL,
        "Give every tensor a fixed size, and the batch the size 1.",
    ),
    (r"due to large activation tensors in model", _MODEL, "Choose a smaller image size."),
    (r"Model failed in Tflite interpreter|Model could not be parsed", _MODEL, _INVALID),
    (r"Registration failed|Invalid model", _MODEL, _INVALID),
    (r"Compilation timeout", _RUN, "Give it more time, or choose a smaller image size."),
    (r"terminating with uncaught exception of type [^\n]+|Internal compiler error", _RUN, _AGAIN),
    (r"Compilation failed!", _RUN, f"It gives no reason. {_AGAIN}"),
    (r"Exec format error|cannot execute binary file", _MACHINE, _FOREIGN),
    (r"error while loading shared libraries: [^\s:]+", _MACHINE, _LOADER),
)
_STARTS = {
    errno.ENOEXEC: _FOREIGN,
    errno.EACCES: "Make the file executable (chmod +x).",
    errno.ENOENT: f"Its loader is missing. {_LOADER}",
}

_VERSION = r"Edge TPU Compiler version (\d[\w.]*)"
_SIZE = r"([\d.]+) ?(?:([KMGT])i)?B\b"
# A line that states something, and its name.
_LINES = {
    "on_chip_bytes": rf"On-chip memory used for caching model parameters: {_SIZE}",
    "streamed_bytes": rf"Off-chip memory used for streaming uncached model parameters: {_SIZE}",
    "total": r"Total number of operations: (\d+)",
    "mapped": r"Number of operations that will run on Edge TPU: (\d+)",
    "unmapped": r"Number of operations that will run on CPU: (\d+)",
}
_ROW = r"^[ \t]*([A-Za-z]\S*)[ \t]+(\d+)[ \t]+(\S.*?)\s*$"


class Operators(NamedTuple):
    """A line of the compiler's table: how many operators of a kind have the same status."""

    name: str  # "CONV_2D"; "CUSTOM" for all that are not built in
    count: int
    status: str  # `MAPPED`, or the reason why not


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compilation:
    """What the compiler did with a model; None where it was skipped.

    The log rounds sizes to two decimals of their unit, so bytes are exact to about half a percent.
    """

    status: str  # "compiled" or "skipped"
    reason: str = ""  # why it was skipped, and what to do
    version: str | None = None  # of the compiler, "16.0.384591198"
    operators: tuple[Operators, ...] = ()
    mapped: int | None = None  # operators on the Edge TPU
    unmapped: int | None = None  # operators on the CPU
    on_chip_bytes: int | None = None  # parameters kept on the chip
    streamed_bytes: int | None = None  # parameters sent at every inference

    @property
    def blockers(self) -> tuple[Operators, ...]:
        """Operators that stay on the CPU for a reason of their own, not for one before them."""
        return tuple(row for row in self.operators if row.status not in (MAPPED, SUBGRAPH))


def find() -> Path | None:
    """Finds the compiler: where `EDGETPU_COMPILER` points, else on the PATH; None if there is none.

    Raises:
        InputError: If the variable names no file.
    """
    if chosen := os.environ.get(VARIABLE):
        path = Path(chosen).expanduser()
        if not path.is_file():
            raise problem(f"{VARIABLE} to name the compiler", chosen, "Correct the variable, or unset it.")
        return path.absolute()
    on_path = shutil.which("edgetpu_compiler")
    return Path(on_path).absolute() if on_path else None


def version(compiler: Path) -> str:
    """Asks the compiler for its version, for example "16.0.384591198".

    Raises:
        InputError: If it cannot run here, or is another program.
        RunError: If it crashes or does not answer.
    """
    code, text = _run([str(compiler), "--version"], None, 30)
    if match := re.search(_VERSION, text):
        return match[1]
    if code:
        raise _failure(text, code)
    raise problem("Google's edgetpu_compiler", str(compiler), f"Set {VARIABLE} to the right program.")


def compile_model(path: Path, output: Path, *, time_limit: int = TIME_LIMIT) -> Compilation:
    """Compiles an int8 model, a `.tflite` file with integers from end to end, for the Edge TPU.

    The output appears whole or not at all, its folder is created. Two runs differ in a few bytes: the
    compiler writes a token anew. After the time limit, at least 1 s, the compiler is killed.

    Returns:
        What was done; `status` is "skipped" if there is no compiler.

    Raises:
        InputError: If the model is none or cannot be compiled, the output cannot be written, or the compiler
            cannot run on this machine or is of another release.
        RunError: If the compiler crashes, fails without a reason or takes too long.
    """
    data = tflite_file.read(path)
    if output.resolve() == path.resolve():
        raise problem("another file than the model to write", str(output), "Add _edgetpu to its name.")
    compiler = find()
    if compiler is None:
        return Compilation(status="skipped", reason=f"There is no edgetpu_compiler on the PATH.\n{INSTALL}")
    files.check_writable(output)
    release = version(compiler)
    if release.partition(".")[0] != RELEASE:
        known = f"version {RELEASE} of the Edge TPU compiler, whose options and log are known"
        raise problem(known, f"{release}, {compiler}", f"Install that one.\n{INSTALL}")
    options = ["--show_operations", "--out_dir", "out", "--timeout_sec", str(time_limit)]
    with tempfile.TemporaryDirectory(prefix="kp2d-compiler-") as folder:
        (Path(folder) / "out").mkdir()
        (Path(folder) / "model.tflite").write_bytes(data)  # its own name might look like an option
        code, text = _run([str(compiler), *options, "model.tflite"], folder, time_limit)
        made = Path(folder) / "out" / "model_edgetpu.tflite"
        if code or not made.is_file():
            raise _failure(text, code)
        if made.read_bytes()[4:8] != b"TFL3":
            raise _broke_off("another file than a .tflite model", "Try again.")
        try:
            compilation = read_log(text)
        except InputError as error:
            raise _broke_off(f"a model, but a log that is not as known: {error}", "Try again.") from error
        with files.atomic(output) as temporary:
            shutil.copyfile(made, temporary)
    return compilation


def read_log(text: str) -> Compilation:
    """Reads what version 16 prints of a model that it compiled; lines of other programs between do no harm.

    Raises:
        InputError: If it is no such log, or its numbers contradict each other.
    """
    table = re.split(r"^\s*Operator\s+Count\s+Status\s*$", text, maxsplit=1, flags=re.M)[1:]
    rows = re.findall(_ROW, "".join(table), re.M)
    operators = tuple(Operators(name, int(count), status) for name, count, status in rows)
    stated: dict[str, int] = {}
    for name, pattern in _LINES.items():
        if match := re.search(rf"^\s*{pattern}", text, re.M):
            unit = match[2] if name.endswith("_bytes") else None
            stated[name] = round(float(match[1]) * 1024 ** " KMGT".index(unit or " "))
    release = re.search(_VERSION, text)
    if release is None or not stated.keys() >= {"total", "on_chip_bytes", "streamed_bytes"}:
        raise problem("a whole log of the Edge TPU compiler about a model that it made", repr(text[:80]))
    total = stated["total"]
    # The compiler says nothing of where they run if all are mapped.
    mapped, unmapped = stated.get("mapped", total), stated.get("unmapped", 0)
    counts = sum(row.count for row in operators), sum(r.count for r in operators if r.status == MAPPED)
    if mapped + unmapped != total or (operators and counts != (total, mapped)):
        received = (
            f"{total} operators, {mapped} mapped and {unmapped} not, and a table of {counts[0]}, {counts[1]}"
        )
        raise problem("a whole log whose counts of operators agree", received)
    return Compilation(
        status="compiled",
        version=release[1],
        operators=operators,
        mapped=mapped,
        unmapped=unmapped,
        on_chip_bytes=stated["on_chip_bytes"],
        streamed_bytes=stated["streamed_bytes"],
    )


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
        remedy = _STARTS.get(error.errno or 0, "Install it again.")
        raise problem(_MACHINE, f"{command[0]}: {error.strerror or error}", remedy) from error
    with process:
        try:
            text, _ = process.communicate(timeout=limit)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its children: the compiler does its work in one
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            remedy = "It was killed and nothing is left. Give it more time, or choose a smaller image size."
            raise _broke_off(f"no end within {limit:g} s", remedy) from None
    return process.returncode, text


def _failure(text: str, code: int) -> InputError | RunError:
    """Names what went wrong in a run of some exit status (negative for a signal), and a remedy.

    It is an InputError if the model or the machine does not fit, a RunError if the compiler broke off.
    """
    for pattern, expected, remedy in _FAILURES:
        if match := re.search(pattern, text):
            received = f"its answer '{match[0].strip()}'"
            return _broke_off(received, remedy) if expected is _RUN else problem(expected, received, remedy)
    number = -code if code < 0 else code - 128  # a shell around the program adds 128
    if number in {known.value for known in signal.Signals}:
        return _broke_off(f"a crash by {signal.Signals(number).name}", _AGAIN)
    last = (text.strip().splitlines() or ["nothing"])[-1].strip()
    return _broke_off(f"no model, exit status {code} and at last '{last}'", _AGAIN)


def _broke_off(received: str, remedy: str) -> RunError:
    """Builds a RunError in the form of `kp2d.checks.problem`."""
    return RunError(f"expected {_RUN}; received {received}. {remedy}")
