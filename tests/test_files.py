"""Files: written whole or not at all, with errors a user can act on."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kp2d import checks, files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_under_its_name_and_suffix(tmp_path):
    target = tmp_path / "deep" / "folder" / "table.csv"
    with files.atomic(str(target)) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".csv" and temporary != target
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new" and names(target.parent) == ["table.csv"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, checks.InputError])
def test_an_error_inside_keeps_the_old_file_and_leaves_nothing_else(tmp_path, error):
    target = files.write_text(tmp_path / "table.csv", "old")

    def write_half():
        with files.atomic(target) as temporary:
            temporary.write_text("half")
            raise error("inside")

    with pytest.raises(error, match="inside"):
        write_half()
    assert target.read_text() == "old" and names(tmp_path) == ["table.csv"]


def test_a_full_disk_is_a_clear_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    target = files.write_text(tmp_path / "table.csv", "old")

    def full(self, *arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(checks.InputError, match=r"table\.csv.*No space left on device.*Make room"):
        files.write_text(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old" and names(tmp_path) == ["table.csv"]


def test_a_failing_rename_leaves_nothing(tmp_path, monkeypatch):
    def denied(self, target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))

    monkeypatch.setattr(Path, "replace", denied)
    with pytest.raises(checks.InputError, match="Permission denied"):
        files.write_text(tmp_path / "table.csv", "new")
    assert names(tmp_path) == []


def test_a_file_where_a_folder_should_be_is_a_clear_error(tmp_path):
    (tmp_path / "results").write_text("I am a file")
    for target in (tmp_path / "results" / "a.csv", tmp_path / "results" / "deep" / "a.csv"):
        for write in (files.check_writable, lambda path: files.write_text(path, "x")):
            with pytest.raises(checks.InputError, match=r"expected a writable place for .*results"):
                write(target)
    assert (tmp_path / "results").read_text() == "I am a file"


def test_a_folder_in_the_place_of_the_file_is_a_clear_error(tmp_path):
    (tmp_path / "a.csv").mkdir()
    for write in (files.check_writable, lambda path: files.write_text(path, "x")):
        with pytest.raises(checks.InputError, match=r"a\.csv"):
            write(tmp_path / "a.csv")
    assert names(tmp_path) == ["a.csv"] and names(tmp_path / "a.csv") == []


def test_a_name_may_be_as_long_as_the_file_system_allows_and_no_longer(tmp_path):
    longest = tmp_path / ("a" * 251 + ".csv")
    files.check_writable(longest)
    files.write_text(longest, "x")
    assert longest.read_text() == "x"
    with pytest.raises(checks.InputError, match="too long"):
        files.check_writable(tmp_path / ("a" * 252 + ".csv"))


def test_check_writable_changes_nothing(tmp_path):
    old = files.write_text(tmp_path / "old.csv", "old")
    for path in (old, tmp_path / "new.csv", tmp_path / "folder" / "new.csv"):
        files.check_writable(path)
    assert old.read_text() == "old" and names(tmp_path) == ["folder", "old.csv"]
    assert names(tmp_path / "folder") == []


@pytest.mark.parametrize(
    ("target", "below", "refused"),
    [
        ("read", True, True), ("read/run", True, True), ("read/a/b", True, True), ("link/run", True, True),
        ("read/../read/x.png", False, True), ("read/a/x.png", False, False), ("reading/x.png", True, False),
        ("x.png", True, False), (".", True, False),
    ],
)  # fmt: skip
def test_an_output_where_pictures_are_searched_is_refused(target, below, refused, tmp_path):
    (tmp_path / "read").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "read")
    said = f"outside of {tmp_path / 'read'}.*by the next run"
    with pytest.raises(checks.InputError, match=said) if refused else contextlib.nullcontext():
        files.check_outside(tmp_path / target, tmp_path / "read", below=below)


def test_text_is_utf8_with_unix_line_ends(tmp_path):
    path = files.write_text(tmp_path / "größe.txt", "π\r\nx\n")
    assert path.read_bytes() == "π\r\nx\n".encode()


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX matter")
def test_permissions_follow_the_umask_also_from_many_threads(tmp_path, monkeypatch):
    before, interval = os.umask(0o027), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        jobs = [
            threading.Thread(
                target=lambda part=part: [files.write_text(tmp_path / f"{part}_{i}", "x") for i in range(40)]
            )
            for part in range(6)
        ]
        [job.start() for job in jobs]
        [job.join() for job in jobs]
    finally:
        sys.setswitchinterval(interval)
        left = os.umask(before)
    assert left == 0o027
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}
    assert len(names(tmp_path)) == 240


def test_json_comes_back_and_is_the_same_for_the_same_content(tmp_path):
    first = files.write_json(tmp_path / "a.json", {"b": [1, 2], "a": Path("x")})
    second = files.write_json(tmp_path / "b.json", {"a": Path("x"), "b": [1, 2]})
    assert first.read_bytes() == second.read_bytes() and first.read_text().endswith("}\n")
    assert files.read_json(first) == {"a": "x", "b": [1, 2]}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a": 1', b"[1, 2]", b"3", b"null", b"\xff\xfe\x00", json.dumps({"a": 1}).encode("utf-16")],
)
def test_a_damaged_or_foreign_record_is_no_record(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    assert files.read_json(tmp_path / "a.json") is None


def test_a_missing_record_is_no_record(tmp_path):
    assert files.read_json(tmp_path / "a.json") is None
    assert files.read_json(tmp_path) is None


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_sha256_is_that_of_the_content(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


# A folder with one run.

HOLD = (
    "import sys, time\nfrom kp2d import files\n"
    "with files.alone(sys.argv[1], 'run'):\n    print('held', flush=True)\n    time.sleep(60)"
)


@pytest.fixture
def other(tmp_path):
    """A second process that holds the lock of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_told_who_holds_the_lock_and_since_when(other, tmp_path):
    said = (
        rf"no other run; received one by process {other.pid} on .*, since \d{{4}}-\d\d-\d\d \d\d:.*Wait until"
    )
    with pytest.raises(checks.InputError, match=said), files.alone(tmp_path, "run"):
        pytest.fail("both run")


def test_a_killed_run_leaves_no_lock(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / files.LOCK).read_text()  # its name is still there, and does no harm
    with files.alone(tmp_path, "run"):
        assert json.loads((tmp_path / files.LOCK).read_text())["pid"] == os.getpid()


def test_a_lock_is_given_back_after_an_error_and_is_held_within_a_process_too(tmp_path):
    def nested():
        with files.alone(tmp_path, "run"), files.alone(tmp_path, "run"):
            pytest.fail("both run")

    with pytest.raises(checks.InputError, match="no other run"):
        nested()
    with files.alone(tmp_path / "other", "run"), files.alone(tmp_path, "run"):
        pass


def test_where_there_are_no_locks_a_run_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def none(_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "_lock", none)
    with files.alone(tmp_path, "run"):
        assert "start no second run there" in caplog.text


@pytest.mark.parametrize("name", [b"v_caf\xe9", b"\xff\xfe", b"i_\x80_\xc3"])
def test_a_name_that_is_no_utf8_loses_no_table(name, tmp_path):
    files.write_text(tmp_path / "table.csv", f"pair,d1\n{os.fsdecode(name)},1\nplain,0\n")
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert text.startswith("pair,d1\n") and text.endswith("\nplain,0\n") and "\\udc" in text
