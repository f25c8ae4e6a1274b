"""Downloads from a real HTTP server on loopback: complete, cut off, damaged, unsafe, too large."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import io
import json
import logging
import re
import shutil
import stat
import tarfile
import threading
import zipfile
from collections import namedtuple

import numpy as np
import pytest
import requests

from kp2d import checks, files
from kp2d.data import archives, datasets, download

PICTURE = np.random.default_rng(0).bytes(400_000)  # hardly compressible, as photographs are
FILES = {f"hpatches-sequences-release/v_a/{name}": PICTURE for name in ("1.ppm", "2.ppm")}
FILES["hpatches-sequences-release/v_a/H_1_2"] = b"1 0 0 0 1 0 0 0 1"


def make_zip(contents, compression=zipfile.ZIP_STORED) -> bytes:
    """Returns a zip file of names and bytes, with fixed dates."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in contents.items():
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            file.writestr(info, content, compression)
    return stream.getvalue()


def make_tar(contents, *extra: tarfile.TarInfo) -> bytes:
    """Returns a tar.gz of names and bytes, and further entries without content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in extra:
            file.addfile(info)
    return stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.contents`; cuts the first `server.cuts` answers off half way."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.contents.get(self.path)
        if body is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        start, wanted = 0, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and server.ranges and self.headers.get("If-Range", etag) == etag:
            start = int(wanted[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.etags:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(rest[: len(rest) // 2])
            self.close_connection = True
            return
        with contextlib.suppress(ConnectionError):
            self.wfile.write(rest)

    def log_message(self, *_):
        """Keeps the test output clean."""


@pytest.fixture
def server(monkeypatch):
    """A server in a thread; no pause between tries, and no proxy in between."""
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(archives, "CHUNK", 1 << 14)
    monkeypatch.setattr(download, "CHUNK", 1 << 14)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.contents, server.redirects, server.requests = {}, {}, []
        server.cuts, server.ranges, server.etags = 0, True, True
        server.handle_error = lambda *_: None  # a client that hangs up is part of these tests
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server, folder, path="/a.zip", **options):
    """Downloads `path` of the server as "hpatches", quietly."""
    return download.download("hpatches", folder, url=server.url + path, progress=False, **options)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_complete_and_then_reused(server, tmp_path, make):
    name = "/a.zip" if make is make_zip else "/a.tar.gz"
    server.contents[name] = make(FILES)
    folder = fetch(server, tmp_path / "h", name, sha256=sha256(server.contents[name]).upper())
    assert folder == tmp_path / "h"
    (sequence,) = datasets.load_sequences(folder)
    assert sequence.name == "v_a"
    assert len(sequence.pairs) == 1
    content = folder / "hpatches-sequences-release"
    assert all((folder / name).read_bytes() == data for name, data in FILES.items())
    record = json.loads((content / download.RECORD).read_text())
    assert record["num_files"] == 3
    assert record["url"] == server.url + name
    assert [path.name for path in folder.iterdir()] == [content.name], "archive and parts are gone"
    fetch(server, tmp_path / "h", name)
    assert len(server.requests) == 1


@pytest.mark.parametrize("etags", [True, False])
def test_cut_off_goes_on_by_range(server, tmp_path, etags, caplog):
    server.contents["/a.zip"] = body = make_zip(FILES)
    server.cuts, server.etags = 2, etags
    with caplog.at_level(logging.INFO, "kp2d"):
        fetch(server, tmp_path, sha256=sha256(body))
    first, *ranges = [wanted for _, wanted in server.requests]
    starts = [int(wanted[len("bytes=") : -1]) for wanted in ranges]
    assert first is None
    assert len(starts) == 2
    # Whole pieces are kept; of each answer half of the rest was sent.
    assert 0.4 * len(body) < starts[0] <= 0.5 * len(body)
    assert 0.6 * len(body) < starts[1] <= 0.75 * len(body)
    assert "Going on with" in caplog.text


FULL = OSError(errno.ENOSPC, "No space left on device")
ENDS = [(KeyboardInterrupt(), KeyboardInterrupt, None), (FULL, checks.InputError, "full disk")]


@pytest.mark.parametrize(("error", "raised", "words"), ENDS)
def test_what_has_arrived_is_kept_however_it_ends(server, tmp_path, monkeypatch, error, raised, words):
    server.contents["/a.zip"] = make_zip(FILES)
    whole = requests.Response.iter_content

    def broken(self, size):
        for _, chunk in zip(range(5), whole(self, size), strict=False):
            yield chunk
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(requests.Response, "iter_content", broken)
        with pytest.raises(raised, match=words):
            fetch(server, tmp_path)
    assert (tmp_path / "a.zip.part").stat().st_size == 5 << 14
    fetch(server, tmp_path)
    assert server.requests[1:] == [("/a.zip", f"bytes={5 << 14}-")]
    assert len(datasets.load_sequences(tmp_path)) == 1


@pytest.mark.parametrize(("error", "raised", "words"), ENDS)
def test_the_archive_is_kept_however_unpacking_ends(server, tmp_path, monkeypatch, error, raised, words):
    server.contents["/a.zip"] = make_zip(FILES)

    def broken(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", broken)
        with pytest.raises(raised, match=words):
            fetch(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [], "nothing that looks finished"
    fetch(server, tmp_path)
    assert len(server.requests) == 1
    assert len(datasets.load_sequences(tmp_path)) == 1


def test_cut_off_without_range_support_begins_anew(server, tmp_path, caplog):
    server.contents["/a.zip"] = body = make_zip(FILES)
    server.ranges, server.cuts = False, 1
    with caplog.at_level(logging.INFO, "kp2d"):
        fetch(server, tmp_path, sha256=sha256(body))
    assert len(server.requests) == 2
    assert "anew" in caplog.text


def test_cut_off_again_and_again_fails_and_keeps_the_part(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    server.ranges, server.cuts = False, 100
    with pytest.raises(checks.InputError, match=r"bytes arrived|IncompleteRead|Connection broken") as error:
        fetch(server, tmp_path)
    assert f"{server.url}/a.zip" in str(error.value)
    assert "a.zip.part" in str(error.value)
    assert len(server.requests) == 2
    assert (tmp_path / "a.zip.part").stat().st_size > 0


def test_changed_file_on_the_server_begins_anew(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    (tmp_path / "a.zip.part").write_bytes(b"old" * 1000)
    files.write_json(tmp_path / "a.zip.json", {"url": server.url + "/a.zip", "validator": '"old"'})
    fetch(server, tmp_path)
    assert server.requests == [("/a.zip", "bytes=3000-")]
    assert len(datasets.load_sequences(tmp_path)) == 1


def test_part_of_unknown_origin_is_not_trusted(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    (tmp_path / "a.zip.part").write_bytes(b"old" * 1000)
    fetch(server, tmp_path)
    assert server.requests == [("/a.zip", None)]


@pytest.mark.parametrize("extra", [b"", b"too long"])
def test_complete_or_too_long_part_is_settled(server, tmp_path, extra):
    server.contents["/a.zip"] = body = make_zip(FILES)
    (tmp_path / "a.zip.part").write_bytes(body + extra)
    files.write_json(tmp_path / "a.zip.json", {"url": server.url + "/a.zip", "validator": None})
    fetch(server, tmp_path, sha256=sha256(body))
    assert len(server.requests) == (2 if extra else 1)
    assert len(datasets.load_sequences(tmp_path)) == 1


def test_corrupt_archives_are_refused(server, tmp_path):
    flipped = bytearray(make_zip(FILES))
    flipped[len(flipped) // 2] ^= 255
    for name, body in [
        ("/flipped.zip", bytes(flipped)),
        ("/short.tar.gz", make_tar(FILES)[:-500]),
        ("/words.zip", b"<html>Sign in first</html>"),
        ("/empty.zip", make_zip({})),
    ]:
        server.contents[name] = body
        with pytest.raises(checks.InputError, match="download again") as error:
            fetch(server, tmp_path / name[1:], name)
        assert name[1:] in str(error.value)
        assert not [p for p in (tmp_path / name[1:]).iterdir() if p.is_dir()]


def test_wrong_checksum_removes_the_archive(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    with pytest.raises(checks.InputError, match="sha256 0000") as error:
        fetch(server, tmp_path, sha256="0" * 64)
    assert f"{server.url}/a.zip" in str(error.value)
    assert not list(tmp_path.glob("*.zip"))


def test_first_use_is_recorded_and_compared(server, tmp_path, caplog):
    server.contents["/a.zip"] = make_zip(FILES)
    with caplog.at_level(logging.INFO, "kp2d"):
        fetch(server, tmp_path)
    assert "recorded on first use" in caplog.text
    shutil.rmtree(tmp_path / "hpatches-sequences-release")
    server.contents["/a.zip"] = make_zip(FILES | {"hpatches-sequences-release/new": b""})
    with pytest.raises(checks.InputError, match="sha256"):
        fetch(server, tmp_path)


def test_mirrors_are_tried_in_turn(server, tmp_path):
    server.contents["/b.zip"] = make_zip(FILES)
    server.redirects["/moved/b.zip"] = f"{server.url}/b.zip"
    urls = [f"{server.url}/gone/a.zip", "http://127.0.0.1:9/a.zip", f"{server.url}/moved/b.zip"]
    download.download("hpatches", tmp_path, url=urls, progress=False)
    assert [path for path, _ in server.requests] == ["/gone/a.zip", "/moved/b.zip", "/b.zip"]
    with pytest.raises(checks.InputError, match="404") as error:
        download.download("coco", tmp_path / "c", url=urls[:2], progress=False)
    assert all(url in str(error.value) for url in urls[:2])


def link(name: str, target: str, kind=tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("/up.zip", make_zip({"x/../../outside": b"!"})),
        ("/absolute.zip", make_zip({"/tmp/outside": b"!"})),
        ("/drive.zip", make_zip({"C:\\outside": b"!"})),
        ("/link.zip", make_zip({zip_link("x/link"): b"/etc"})),
        ("/twice.zip", make_zip({"x/a": b"1", "x/./a": b"2"})),
        ("/up.tar.gz", make_tar({"x/ok": b"1", "../outside": b"!"})),
        ("/absolute.tar.gz", make_tar({"/tmp/outside": b"!"})),
        ("/link.tar.gz", make_tar({"x/ok": b"1"}, link("x/link", "../.."))),
        ("/hard.tar.gz", make_tar({}, link("x/hard", "/etc/passwd", tarfile.LNKTYPE))),
        ("/device.tar.gz", make_tar({}, link("x/device", "", tarfile.CHRTYPE))),
        ("/bomb.zip", make_zip({"x/zeros": bytes(3 << 20)}, zipfile.ZIP_DEFLATED)),
        ("/bomb.tar.gz", make_tar({"x/zeros": bytes(3 << 20)})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unsafe_archives_leave_nothing(server, tmp_path, name, body):
    server.contents[name] = body
    with pytest.raises(checks.InputError, match="safe archive"):
        fetch(server, tmp_path / "h", name)
    assert [p.name for p in tmp_path.iterdir()] == ["h"]
    assert not [p for p in (tmp_path / "h").iterdir() if p.is_dir() or p.is_symlink()]


def test_too_little_space_is_told_before_writing(server, tmp_path, monkeypatch):
    server.contents["/a.zip"] = make_zip(FILES)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(checks.InputError, match="free space") as error:
        fetch(server, tmp_path)
    assert f"{server.url}/a.zip" in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_folder_of_the_user_is_never_replaced(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    mine = tmp_path / "hpatches-sequences-release"
    mine.mkdir()
    (mine / "mine.txt").touch()
    with pytest.raises(checks.InputError, match="without a record"):
        fetch(server, tmp_path)
    assert (mine / "mine.txt").exists()


def test_archive_without_a_single_folder_and_with_mac_leftovers(server, tmp_path):
    server.contents["/flat.zip"] = make_zip({"v_a/1.png": b"1", "v_b/1.png": b"2", "__MACOSX/._v_a": b"?"})
    fetch(server, tmp_path, "/flat.zip")
    assert sorted(p.name for p in (tmp_path / "flat").iterdir()) == [download.RECORD, "v_a", "v_b"]


def test_bad_arguments_and_places_are_refused(tmp_path):
    with pytest.raises(checks.InputError, match="Did you mean 'hpatches'"):
        download.download("hpatch", tmp_path)
    with pytest.raises(checks.InputError, match="64 hexadecimal"):
        download.download("hpatches", tmp_path, sha256="abc")
    with pytest.raises(checks.InputError, match="http"):
        download.download("hpatches", tmp_path, url="ftp://somewhere/a.zip")
    with pytest.raises(checks.InputError, match="at least one"):
        download.download("hpatches", tmp_path, url=[])
    (tmp_path / "file").touch()
    with pytest.raises(checks.InputError, match="file"):
        download.download("hpatches", tmp_path / "file", url="http://127.0.0.1:9/a.zip")


def test_known_sources_are_well_formed():
    for sources in download.SOURCES.values():
        assert sources[0].sha256
        assert sources[0].num_bytes
        assert all(source.archive.endswith((".zip", ".tar.gz")) for source in sources)
