"""The Edge TPU compiler: its log, its failures with remedies, and runs of a stand-in for it."""

import os
import re
import sys
import time
from pathlib import Path

import pytest

from kp2d.checks import InputError, RunError
from kp2d.device import compiler

LOGS = Path(__file__).parent / "edgetpu_logs"
V16 = "16.0.384591198"
MODEL = b"\x1c\0\0\0TFL3 a model"
COMPILED = b"\x1c\0\0\0TFL3 compiled"


def text_of(name):
    return (LOGS / f"{name}.log").read_text(encoding="utf-8")


# Logs of finished compilations.


@pytest.mark.parametrize(
    ("name", "mapped", "unmapped", "on_chip", "streamed", "rows"),
    [
        ("mapped_v16", 41, 0, 7.58 * 2**20, 3.41 * 2**20, 7),
        ("partly_v16", 264, 3, 4.21 * 2**20, 0, 11),
        ("unmapped_v16", 0, 9, 0, 0, 5),
        ("without_table_v16", 15, 353, 18 * 1024, 0, 0),
    ],
)
def test_a_log_is_read(name, mapped, unmapped, on_chip, streamed, rows):
    read = compiler.read_log(text_of(name))
    assert (read.status, read.version) == ("compiled", V16)
    assert (read.mapped, read.unmapped, len(read.operators)) == (mapped, unmapped, rows)
    assert (read.on_chip_bytes, read.streamed_bytes) == (round(on_chip), round(streamed))
    if rows:
        assert sum(row.count for row in read.operators) == mapped + unmapped


def test_operators_on_the_cpu_say_why():
    assert compiler.read_log(text_of("mapped_v16")).operators[-1] == ("CONV_2D", 20, "Mapped to Edge TPU")
    why = "Operation is working on an unsupported data type"
    text = text_of("partly_v16")
    assert compiler.read_log(text).blockers == (("CUSTOM", 1, why), ("DEQUANTIZE", 2, why))
    behind = compiler.read_log(text.replace(why, compiler.SUBGRAPH))  # behind another, they do not block
    assert behind.blockers == () and behind.unmapped == 3


@pytest.mark.parametrize("name", ["mapped_v16", "partly_v16", "unmapped_v16"])
def test_lines_of_other_programs_in_between_do_no_harm(name):
    other = "WARNING: something else speaks here: 3 of 4"
    noisy = "\n".join(part for line in text_of(name).splitlines() for part in (line + "\r", other, ""))
    assert compiler.read_log(noisy) == compiler.read_log(text_of(name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CONV_2D                        102", "CONV_2D                        101"),
        ("MAX_POOL_2D                    14         Mapped to Edge TPU\n", ""),
        ("run on CPU: 3", "run on CPU: 4"),
        ("run on Edge TPU: 264", "run on Edge TPU: 265"),
        ("operations: 267", "operations: 268"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(old, new):
    text = text_of("partly_v16")
    assert old in text
    with pytest.raises(InputError, match="counts of operators agree"):
        compiler.read_log(text.replace(old, new))


@pytest.mark.parametrize("text", ["", "hello\nworld", "Operator Count Status\nCONV_2D 3 Mapped to Edge TPU"])
def test_another_text_is_no_log(text):
    with pytest.raises(InputError, match="a whole log of the Edge TPU compiler"):
        compiler.read_log(text)


def test_a_cut_log_is_refused():
    lines = text_of("partly_v16").splitlines()
    for end in ("Number of Edge TPU subgraphs: 1", "Number of operations that will run on CPU: 3"):
        with pytest.raises(InputError, match="a whole log"):
            compiler.read_log("\n".join(lines[: lines.index(end)]))


@pytest.mark.parametrize(
    ("size", "num_bytes"), [("0.00B", 0), ("1.00KiB", 1024), ("6.89MiB", 7224689), ("1.50GiB", 1610612736)]
)
def test_sizes_are_read_in_every_unit(size, num_bytes):
    text = text_of("mapped_v16").replace("7.58MiB", size)
    assert compiler.read_log(text).on_chip_bytes == num_bytes


# Failures.

FAILURES = {
    "not_quantized": (InputError, "Model not quantized", "Quantize it"),
    "version": (InputError, "'CONV_2D' version '6'", "lower the version"),
    "depth_to_space": (InputError, "'DEPTH_TO_SPACE' version '2'", "has no such operator"),
    "operator_range": (InputError, "Op builtin_code out of range: 151", "without newer ones"),
    "dynamic": (InputError, "static-sized tensors", "fixed size"),
    "custom": (InputError, "unresolved custom op: Atan'", "without this operator"),
    "interpreter": (InputError, "Model failed in Tflite interpreter", "kp2d quantize"),
    "large": (InputError, "large activation tensors in model", "smaller image size"),
    "unsupported": (InputError, "'tfl.strided_slice' op is not supported", "without this operator"),
    "invalid": (InputError, "Model could not be parsed", "kp2d quantize"),
    "timer": (RunError, "Compilation timeout", "more time"),
    "exception": (RunError, "uncaught exception of type std::out_of_range: vector", "Try again"),
    "internal": (RunError, "Internal compiler error", "Try again"),
    "no_reason": (RunError, "Compilation failed!", "gives no reason"),
}


def test_every_failure_has_a_fixture():
    texts = [text_of(f"fails_{name}") for name in FAILURES]
    for pattern, expected, _ in compiler._FAILURES:
        if expected != compiler._MACHINE:
            assert any(re.search(pattern, text) for text in texts), pattern


# Runs, with a stand-in for the compiler.

STAND_IN = """\
#!{python}
import os, pathlib, signal, subprocess, sys, time
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("Edge TPU Compiler version {version}")
    sys.exit()
pathlib.Path({record!r}).write_text("\\n".join(arguments))
out = pathlib.Path(arguments[arguments.index("--out_dir") + 1])
made = out / (pathlib.Path(arguments[-1]).stem + "_edgetpu.tflite")
def say(name):
    print((pathlib.Path({logs!r}) / (name + ".log")).read_text(), flush=True)
{body}
"""
SUCCEED = f"made.write_bytes({COMPILED!r}); say('partly_v16')"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that puts a program of the compiler's name on the PATH; it returns the program."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.delenv(compiler.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def write(body, version=V16):
        names = {"python": sys.executable, "logs": str(LOGS), "record": str(tmp_path / "arguments")}
        program = folder / "edgetpu_compiler"
        program.write_text(STAND_IN.format(body=body, version=version, **names))
        program.chmod(0o755)
        return program

    return write


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "efficientdet_coral_v2.tflite"
    path.write_bytes(MODEL)
    return path


@pytest.fixture
def output(tmp_path):
    return tmp_path / "made" / "compiled.tflite"


def arguments_of(tmp_path):
    return (tmp_path / "arguments").read_text().split("\n")


def left_in(folder):
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


def test_a_model_is_compiled(stand_in, model, output, tmp_path):
    stand_in(SUCCEED)
    made = compiler.compile_model(model, output, time_limit=240)
    assert output.read_bytes() == COMPILED and left_in(output.parent) == ["compiled.tflite"]
    assert (made.status, made.reason, made.mapped, made.unmapped) == ("compiled", "", 264, 3)
    *options, name = arguments_of(tmp_path)
    assert name == "model.tflite" and "--show_operations" in options
    assert options[options.index("--timeout_sec") + 1] == "240"
    assert model.read_bytes() == MODEL


@pytest.mark.parametrize("release", ["15.0.340273435", "2.0.267685300", "17.0"])
def test_another_release_is_refused_by_its_version(stand_in, model, output, tmp_path, release):
    stand_in(SUCCEED, version=release)
    with pytest.raises(InputError, match=f"version 16 of .* received {release}") as caught:
        compiler.compile_model(model, output)
    assert compiler.INSTALL.strip() in str(caught.value)
    assert not (tmp_path / "arguments").exists() and left_in(output.parent) == []


@pytest.mark.parametrize("name", ["-o.tflite", "a b.tflite", "x_edgetpu.tflite", "ü.tflite"])
def test_names_of_files_do_no_harm(stand_in, output, tmp_path, name):
    stand_in(SUCCEED)
    (tmp_path / name).write_bytes(MODEL)
    assert compiler.compile_model(tmp_path / name, output).status == "compiled"
    assert output.read_bytes() == COMPILED and not arguments_of(tmp_path)[-1].startswith("-")


def test_a_missing_compiler_skips_and_says_how_to_get_it(model, output, tmp_path, monkeypatch):
    monkeypatch.delenv(compiler.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    skipped = compiler.compile_model(model, output)
    assert skipped.status == "skipped" and compiler.INSTALL in skipped.reason
    assert skipped.mapped is skipped.version is None and not output.parent.exists()


def test_the_way_to_install_is_whole():
    assert "sudo apt-get install edgetpu-compiler" in compiler.INSTALL
    assert "coral-edgetpu-stable main" in compiler.INSTALL and "apt-key add" not in compiler.INSTALL
    (keyring,) = set(re.findall(r"/etc/apt/keyrings/[\w-]+\.gpg", compiler.INSTALL))
    assert f"--dearmor -o {keyring}" in compiler.INSTALL and f"[signed-by={keyring}]" in compiler.INSTALL
    assert "colab.research.google.com" in compiler.INSTALL


def test_the_variable_goes_before_the_path(stand_in, tmp_path, monkeypatch):
    on_path = stand_in(SUCCEED)
    assert compiler.find() == on_path
    other = tmp_path / "other"
    on_path.rename(other)
    monkeypatch.setenv(compiler.VARIABLE, str(other))
    assert compiler.find() == other and compiler.version(other) == V16
    monkeypatch.setenv(compiler.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="EDGETPU_COMPILER to name the compiler"):
        compiler.find()


@pytest.mark.parametrize("name", [*FAILURES, "silently"])
def test_a_failed_run_leaves_nothing(stand_in, model, output, name):
    stand_in(f"say('fails_{name}'); sys.exit(1)")
    kind, sentence, remedy = FAILURES.get(name, (RunError, "exit status 1", "Try again"))
    with pytest.raises(kind, match=re.escape(sentence)) as caught:
        compiler.compile_model(model, output)
    assert remedy in str(caught.value) and left_in(output.parent) == []


def test_a_failed_run_keeps_an_older_output(stand_in, model, output):
    stand_in(f"made.write_bytes({COMPILED!r}); say('fails_large'); sys.exit(1)")
    output.parent.mkdir()
    output.write_bytes(b"older")
    with pytest.raises(InputError, match="large activation"):
        compiler.compile_model(model, output)
    assert output.read_bytes() == b"older" and left_in(output.parent) == [output.name]


def alive(pid):
    """A killed child may wait for its new parent as a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a process lives")
def test_a_run_that_takes_too_long_is_killed_with_its_children(stand_in, model, output, tmp_path):
    pids = tmp_path / "pids"
    stand_in(
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "say('fails_silently'); child.wait()"
    )
    with pytest.raises(RunError, match="within 2 s"):
        compiler.compile_model(model, output, time_limit=2)
    assert left_in(output.parent) == []
    deadline = time.monotonic() + 5  # the kernel ends a killed process in its own time
    while any(alive(pid) for pid in pids.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [alive(pid) for pid in pids.read_text().split()] == [False, False]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("sys.exit(139)", "SIGSEGV"),  # as a shell around the program says it
        ("print('odd words'); sys.exit(3)", "exit status 3 and at last 'odd words'"),
        ("say('partly_v16')", "exit status 0"),  # success without a file
        ("made.write_bytes(b'half'); say('partly_v16')", "another file"),
        (f"made.write_bytes({COMPILED!r}); print('done')", "a log that is not as known"),
    ],
)
def test_a_crash_or_a_lie_leaves_nothing(stand_in, model, output, body, words):
    stand_in(body)
    with pytest.raises(RunError, match=re.escape(words)):
        compiler.compile_model(model, output)
    assert left_in(output.parent) == []


@pytest.mark.parametrize(
    ("content", "mode", "remedy"),
    [
        (b"\x7fELF for another machine", 0o755, "Google Colab"),
        (b"#!/bin/sh\n", 0o644, "chmod"),
        (b"#!/no/such/loader\n", 0o755, "loader is missing"),
        (b"#!/bin/sh\necho 'x: Exec format error' >&2; exit 126\n", 0o755, "Google Colab"),
        (
            b"#!/bin/sh\necho 'x: error while loading shared libraries: libc.so: no' >&2; exit 127\n",
            0o755,
            "glibc",
        ),
        (b"#!/bin/sh\necho another program\n", 0o755, "EDGETPU_COMPILER"),
    ],
)
def test_a_program_that_cannot_run_here_says_what_to_do(
    model, output, tmp_path, monkeypatch, content, mode, remedy
):
    program = tmp_path / "edgetpu_compiler"
    program.write_bytes(content)
    program.chmod(mode)
    monkeypatch.setenv(compiler.VARIABLE, str(program))
    with pytest.raises(InputError, match=remedy):
        compiler.compile_model(model, output)
    assert left_in(output.parent) == []


def test_wrong_wishes_are_refused_before_any_work(stand_in, model, output, tmp_path):
    stand_in(SUCCEED)
    with pytest.raises(InputError, match=r"a \.tflite model"):
        compiler.compile_model(tmp_path / "missing.tflite", output)
    with pytest.raises(InputError, match="another file"):
        compiler.compile_model(model, model)
    with pytest.raises(InputError, match="a file to write"):
        compiler.compile_model(model, tmp_path)
    assert not (tmp_path / "arguments").exists()
