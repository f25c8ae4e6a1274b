"""The page "Try it": what is written for it, what it says without npm, and that npm's faults are told."""

from __future__ import annotations

import base64
import json
import shutil
import stat

import numpy as np
import pytest

from kp2d import checks, paths
from kp2d.methods import runtimes, weights
from kp2d.report import site, tryit


def read_script(path) -> object:
    """The value in a script of the page."""
    return json.loads(path.read_text(encoding="utf-8").partition(" = ")[2].rstrip().rstrip(";"))


def lock() -> dict:
    return json.loads((tryit.ASSETS / "package-lock.json").read_text(encoding="utf-8"))


def test_the_lock_names_one_version_and_no_address():
    text = (tryit.ASSETS / "package-lock.json").read_text(encoding="utf-8")
    wanted = json.loads((tryit.ASSETS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert "://" not in text and "resolved" not in text
    assert lock()["packages"][tryit.PACKAGE]["version"] == wanted["@litertjs/core"]
    assert all("integrity" in package for name, package in lock()["packages"].items() if name)


@pytest.mark.parametrize("name", tryit.NETWORKS)
def test_a_network_is_written_whole_with_what_its_file_does_not_tell_a_browser(name, tmp_path):
    entry = tryit._write_network(tmp_path, name)
    network = read_script(tmp_path / f"{name}.js")
    data = weights.shipped_path(name, "int8").read_bytes()
    assert base64.b64decode(network["data"]) == data and entry["size"] == f"{len(data) / 1e6:.2f} MB"
    view = np.frombuffer(data, np.uint8)
    for at, shrink in network["shapes"]:
        assert view[at : at + 8].view("<i4").tolist() == [240 // shrink, 320 // shrink]
    assert network["shapes"][0][1] == 1 and {shrink for _, shrink in network["shapes"]} == {1, 2, 4}
    model = runtimes.TFLiteModel(weights.shipped_path(name, "int8"))
    image = np.random.default_rng(0).integers(0, 256, (1, 240, 320, 3), np.uint8)
    raw, heads = model.raw_heads(image), model.heads(image)
    levels = np.array(network["scores"], np.float32)[raw["score"].astype(int) + 128]
    assert (levels == heads["score_map"]).all()
    for head in ("offset", "descriptor"):
        steps = raw[head].astype(np.float32) - network[head]["zero"]
        assert (np.float32(network[head]["scale"]) * steps == heads[f"{head}_map"]).all()


def test_the_page_alone_names_version_licence_and_authors(trial_site):
    text = trial_site.index.read_text(encoding="utf-8")
    assert trial_site.num_pages == 1 and trial_site.notes == () and trial_site.num_bytes < 12e6
    assert lock()["packages"][tryit.PACKAGE]["version"] in text and "Apache-2.0" in text
    assert "Rachel Michetti" in text and "connect-src &#39;none&#39;" in text.replace("'", "&#39;")
    assert "Apache License" in (trial_site.folder / "try" / "LICENSE-LiteRT.txt").read_text(encoding="utf-8")
    assert not list(trial_site.folder.rglob("*.tflite")), "a page opened as a file may fetch nothing"


def test_the_same_page_is_made_again_without_npm(trial_site, tmp_path, monkeypatch):
    home = trial_site.folder.parents[2] / "home"
    monkeypatch.setenv("KP2D_HOME", str(home))
    monkeypatch.setenv("PATH", str(tmp_path))
    again = site.build_trial(tmp_path / "again")
    for path in again.folder.rglob("*.*"):
        if path.suffix != ".html":  # it names the commit
            assert path.read_bytes() == (trial_site.folder / path.relative_to(again.folder)).read_bytes()


def test_without_npm_the_page_says_how_to_get_it(home, tmp_path, monkeypatch, command):
    monkeypatch.setenv("PATH", str(tmp_path))
    trial = tryit.write_trial(tmp_path / "site")
    assert "npm" in str(trial.missing) and "Node.js" in str(trial.missing)
    assert not (tmp_path / "site" / "try").exists()
    code, _, errors = command("report", "--try", "-o", tmp_path / "alone")
    assert code == 2 and "Node.js" in errors and not (tmp_path / "alone").exists()


def fake_npm(folder, monkeypatch, script):
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_what_npm_says_went_wrong_is_told_and_nothing_half_is_kept(tmp_path, monkeypatch):
    told = "echo 'npm error code ENOTCACHED' >&2; echo 'npm error no response' >&2; exit 1"
    fake_npm(tmp_path, monkeypatch, told)
    with pytest.raises(checks.InputError, match=r"code ENOTCACHED no response"):
        tryit.fetch_litert(tmp_path / "npm-folder")
    fake_npm(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(checks.InputError, match=r"without litert_wasm_internal\.wasm"):
        tryit.fetch_litert(tmp_path / "npm-folder")


def test_a_package_that_is_there_is_taken_and_one_of_another_version_is_not(tmp_path, monkeypatch):
    made = "; ".join(
        f"mkdir -p {tryit.PACKAGE}/wasm; touch {tryit.PACKAGE}/wasm/{build}.wasm"
        for build in tryit.BUILDS.values()
    )
    fake_npm(tmp_path, monkeypatch, f"{made}; echo called >> calls")
    for _ in range(2):
        package = tryit.fetch_litert(tmp_path / "there")
    calls = tmp_path / "there" / "calls"
    assert package.is_dir() and calls.read_text().count("called") == 1
    (tmp_path / "there" / "package-lock.json").write_text("{}")
    tryit.fetch_litert(tmp_path / "there")
    assert calls.read_text().count("called") == 2


def test_npm_installs_below_data_which_git_ignores(trial_site, project):
    assert "/data/" in (project / ".gitignore").read_text().split()
    assert paths.data().name == "data" and shutil.which("npm")
