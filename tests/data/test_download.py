"""Downloads from a real HTTP server on loopback: complete, cut off, damaged, unsafe, too large."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import io
import itertools
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
            return self.answer(302, {"Location": server.redirects[self.path]})
        body = server.contents.get(self.path)
        if body is None:
            return self.answer(404)
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        headers = {"ETag": etag} if server.etags else {}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not (wanted and server.ranges and self.headers.get("If-Range", etag) == etag):
            return self.answer(200, headers, body)
        start = int(wanted[1]) - server.lag
        if start >= len(body):
            return self.answer(416, {"Content-Range": f"bytes */{len(body)}"})
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.answer(206, headers, body[start:])

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in {**dict(headers), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

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
        server.cuts, server.lag, server.ranges, server.etags = 0, 0, True, True
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
    assert (sequence.name, len(sequence.pairs)) == ("v_a", 1)
    content = folder / "hpatches-sequences-release"
    assert all((folder / name).read_bytes() == data for name, data in FILES.items())
    record = json.loads((content / download.RECORD).read_text())
    assert (record["num_files"], record["url"]) == (3, server.url + name)
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
    assert (first, len(starts)) == (None, 2)
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
        yield from itertools.islice(whole(self, size), 5)
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


def test_another_range_than_was_asked_for_is_refused(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    server.cuts, server.lag = 1, 100
    with pytest.raises(checks.InputError, match="another range"):
        fetch(server, tmp_path)
    assert (tmp_path / "a.zip.part").stat().st_size > 0


def test_a_transfer_that_ends_early_without_an_error_goes_on(server, tmp_path, monkeypatch):
    server.contents["/a.zip"] = make_zip(FILES)
    whole = requests.Response.iter_content

    def early(self, size):  # some versions of urllib3 do not count what is missing
        return itertools.islice(whole(self, size), 30)

    monkeypatch.setattr(requests.Response, "iter_content", early)
    fetch(server, tmp_path)
    assert server.requests == [("/a.zip", None), ("/a.zip", f"bytes={30 << 14}-")]


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
    reason = "(bytes arrived|IncompleteRead|Connection broken)"
    with pytest.raises(checks.InputError, match=rf"{server.url}/a\.zip: .*{reason}.*a\.zip\.part"):
        fetch(server, tmp_path)
    assert len(server.requests) == 2
    assert (tmp_path / "a.zip.part").stat().st_size > 0


def test_changed_file_on_the_server_begins_anew(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    (tmp_path / "a.zip.part").write_bytes(b"old" * 1000)
    files.write_json(tmp_path / "a.zip.json", {"url": server.url + "/a.zip", "validator": '"old"'})
    fetch(server, tmp_path)
    assert server.requests == [("/a.zip", "bytes=3000-")]
    assert len(datasets.load_sequences(tmp_path)) == 1


@pytest.mark.parametrize(
    ("origin", "validator"), [(None, None), ("http://elsewhere/a.zip", '"old"'), ("", None)]
)
def test_part_of_unknown_origin_is_not_trusted(server, tmp_path, origin, validator):
    server.contents["/a.zip"] = make_zip(FILES)
    (tmp_path / "a.zip.part").write_bytes(b"old" * 1000)
    if origin is not None:
        card = {"url": origin or server.url + "/a.zip", "validator": validator}
        files.write_json(tmp_path / "a.zip.json", card)
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
        ("/long.zip", make_zip({"x" * 300: b"a name that no file can have"})),
    ]:
        server.contents[name] = body
        with pytest.raises(checks.InputError, match="download again") as error:
            fetch(server, tmp_path / name[1:], name)
        assert name[1:] in str(error.value)
        assert not [p for p in (tmp_path / name[1:]).iterdir() if p.is_dir()]


def test_wrong_checksum_removes_the_archive(server, tmp_path):
    server.contents["/a.zip"] = make_zip(FILES)
    received = sha256(server.contents["/a.zip"])
    with pytest.raises(checks.InputError, match=rf"sha256 0000.*{received} from {server.url}/a\.zip"):
        fetch(server, tmp_path, sha256="0" * 64)
    assert not list(tmp_path.glob("*.zip"))


def test_first_use_is_recorded_and_compared(server, tmp_path, caplog):
    server.contents["/a.zip"] = make_zip(FILES)
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
        ("/bombs.zip", make_zip({f"x/{k}": bytes(1 << 13) for k in range(60)}, zipfile.ZIP_DEFLATED)),
        ("/bomb.tar.gz", make_tar({"x/zeros": bytes(3 << 20)})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unsafe_archives_leave_nothing(server, tmp_path, name, body):
    server.contents[name] = body
    with pytest.raises(checks.InputError, match=r"^expected a safe archive"):
        fetch(server, tmp_path / "h", name)
    assert [p.name for p in tmp_path.iterdir()] == ["h"]
    assert not [p for p in (tmp_path / "h").iterdir() if p.is_dir() or p.is_symlink()]


def test_too_little_space_is_told_before_writing(server, tmp_path, monkeypatch):
    server.contents["/a.zip"] = make_zip(FILES)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(checks.InputError, match=rf"^expected [\d.]+ GB .* {server.url}/a.zip.*{tmp_path}"):
        fetch(server, tmp_path)
    (tmp_path / "a.zip").write_bytes(server.contents["/a.zip"])
    with pytest.raises(checks.InputError, match=r"^expected [\d.]+ GB of free space for unpacking a.zip"):
        fetch(server, tmp_path)


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


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hpatch", {}, "Did you mean 'hpatches'"),
        ("hpatches", {"sha256": "abc"}, "64 hexadecimal"),
        ("hpatches", {"url": "ftp://somewhere/a.zip"}, "http"),
        ("hpatches", {"url": []}, "at least one"),
        ("hpatches", {"folder": "file", "url": "http://127.0.0.1:9/a.zip"}, "a folder that can be written"),
    ],
)
def test_bad_arguments_and_places_are_refused(tmp_path, monkeypatch, name, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(checks.InputError, match=words):
        download.download(name, **{"folder": tmp_path} | options)


def test_known_mirrors_are_well_formed():
    for mirrors in download.MIRRORS.values():
        assert mirrors[0].sha256
        assert all(mirror.archive.endswith((".zip", ".tar.gz")) for mirror in mirrors)
