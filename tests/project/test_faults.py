"""Faults in the chain: each ends in a message that says what to do, and the next run goes on from there."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from kp2d import checks, files, paths
from kp2d.methods import learned, weights
from kp2d.reproduce import chain, pipeline

WRITE = "from kp2d import files, paths\nfiles.write_text(paths.results(profile) / 'own.txt', 'done')\n"


def reproduce():
    (outcome,) = pipeline.reproduce("smoke", progress=False)
    return outcome


def pretend(monkeypatch):
    """Lets a stage write its output without a kernel, which takes seconds to start."""

    def execute(stage, profile, *_):
        for name in stage.outputs:
            files.write_text(paths.home() / name.format(profile=profile), "done")
        return 0.1

    monkeypatch.setattr(pipeline, "_execute", execute)


# A killed kernel.


@pytest.mark.slow
def test_a_kernel_that_is_killed_in_the_middle_is_named_and_the_run_resumes(workshop):
    output = workshop("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n" + WRITE)
    with pytest.raises(pipeline.StageError, match=r"07_own: the kernel died.*memory.*07_own\.ipynb"):
        reproduce()
    assert not output.exists() and not (paths.runs("smoke") / "07_own.json").exists()
    workshop(WRITE)
    assert (reproduce().action, output.read_text()) == ("ran", "done")
    assert reproduce().action == "reused"


# A full disk.


@pytest.mark.parametrize("where", ["the record", "the executed copy"])
def test_a_full_disk_is_said_and_the_stage_runs_again(workshop, monkeypatch, where):
    workshop(WRITE)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    with monkeypatch.context() as patch:
        if where == "the record":
            pretend(patch)
            write = Path.write_text

            def write_all_but(path, *arguments, **options):
                return (full if path.name.startswith(".07_own") else write)(path, *arguments, **options)

            patch.setattr(Path, "write_text", write_all_but)
        else:
            patch.setattr("papermill.execute_notebook", full)
        with pytest.raises((checks.InputError, checks.RunError), match=r"No space left.*Make room"):
            reproduce()
    assert not (paths.runs("smoke") / "07_own.json").exists()
    pretend(monkeypatch)
    assert reproduce().action == "ran"
    assert reproduce().action == "reused"


@pytest.mark.parametrize("error", [RuntimeError("Kernel didn't respond in 120 seconds"), KeyError("python3")])
def test_a_kernel_that_does_not_start_is_said(workshop, monkeypatch, error):
    workshop(WRITE)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("papermill.execute_notebook", fail)
    with pytest.raises(pipeline.StageError, match=r"no kernel started.*pip install ipykernel"):
        reproduce()


# A folder that cannot be written.


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named_before_anything_runs(workshop, tmp_path):
    workshop(WRITE)
    (tmp_path / "results").mkdir()
    (tmp_path / "results").chmod(0o500)
    with pytest.raises(checks.InputError, match=r"results.*Permission denied.*another folder"):
        reproduce()


def test_a_read_only_disk_is_named_before_anything_runs(workshop, monkeypatch):
    workshop(WRITE)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(checks.InputError, match=r"results/runs/smoke.*Read-only file system"):
        reproduce()


# Two runs at once.


def test_one_profile_is_run_once_at_a_time(workshop, monkeypatch):
    workshop(WRITE)
    pretend(monkeypatch)
    with (
        files.alone(paths.runs("smoke"), "run"),
        pytest.raises(checks.InputError, match="no other run of the profile smoke"),
    ):
        reproduce()
    assert reproduce().action == "ran"


# A damaged record.


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs": 3}', b"\0" * 50])
def test_a_damaged_record_is_a_reason_to_run_again(workshop, monkeypatch, damage):
    workshop(WRITE)
    pretend(monkeypatch)
    assert reproduce().reason == pipeline.NO_RECORD
    (paths.runs("smoke") / "07_own.json").write_bytes(damage)
    assert reproduce().reason == "07_own.json, its record, is damaged"
    assert reproduce().action == "reused"


# Clocks.


def test_no_clock_decides_what_is_reused(workshop, monkeypatch):
    output = workshop(WRITE)
    pretend(monkeypatch)
    reproduce()
    record = paths.runs("smoke") / "07_own.json"
    for ahead in (-1e9, 1e9):
        for path in (output, record, chain.STAGES[0].notebook):
            os.utime(path, (time.time() + ahead,) * 2)
        assert reproduce().action == "reused"
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert reproduce().action == "reused"
    before = output.stat()
    output.write_text("Done")  # as long as before, and by its time unchanged
    os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reproduce().reason == "output results/smoke/own.txt was changed"


# Weights.


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of what this package ships of KP2DtinyS, to be damaged."""
    folder = (tmp_path / "pretrained").resolve()
    folder.mkdir()
    for path in weights.PRETRAINED.glob("kp2d_tiny_s.*"):
        shutil.copy(path, folder)
    monkeypatch.setattr(weights, "PRETRAINED", folder)
    return folder


@pytest.mark.parametrize(("precision", "suffix"), weights.SUFFIXES.items())
def test_weights_that_are_not_the_published_ones_are_refused(shipped, precision, suffix):
    path = shipped / f"kp2d_tiny_s{suffix}"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1  # a single bit of a weight, which nothing else would notice
    path.write_bytes(data)
    with pytest.raises(checks.InputError, match=r"with sha256 [0-9a-f]{64}; received .*git checkout"):
        learned.load("kp2d_tiny_s", precision=precision)
    own = path.rename(shipped.parent / path.name)
    assert weights.check(own) == files.sha256(own), "weights of one's own are not compared"


def test_missing_weights_and_cards_are_named(shipped):
    with pytest.raises(checks.InputError, match=r"int8\.tflite; received no such file.*Install kp2d again"):
        weights.check(shipped / "kp2d_tiny_f.int8.tflite")
    (shipped / "kp2d_tiny_s.int8.json").write_text("{")
    with pytest.raises(checks.InputError, match=r"the card .*kp2d_tiny_s\.int8\.json"):
        learned.load("kp2d_tiny_s", precision="int8")
    (shipped / "kp2d_tiny_s.int8.tflite").unlink()
    with pytest.raises(checks.InputError, match=r"int8\.tflite; received no such file.*Install kp2d again"):
        learned.load("kp2d_tiny_s", precision="int8")
