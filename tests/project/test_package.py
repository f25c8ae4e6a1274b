"""What is published and what checks it: the package's facts, continuous integration, hooks, the container."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_package_says_what_it_needs_and_who_it_is_for():
    facts = PROJECT["project"]
    told = [line.rpartition(" ")[2] for line in facts["classifiers"] if ":: Python :: 3." in line]
    assert told == PYTHONS and facts["requires-python"] == f">={PYTHONS[0]}"
    assert facts["license"] == "MIT" and facts["authors"] and facts["readme"] == "README.md"
    assert all(url.startswith("https://") for url in facts["urls"].values()) and facts["urls"]


def test_every_file_of_the_package_is_code_or_declared():
    """What is not declared is missing from the wheel; what lies beside the package never gets into it."""
    listed = subprocess.run(
        ["git", "ls-files", "kp2d"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if listed.returncode:
        pytest.skip("no checkout")
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["kp2d"]
    others = [name for name in listed.stdout.split() if not name.endswith(".py")]
    missing = [
        name for name in others if not any(fnmatch.fnmatch(name, f"kp2d/{pattern}") for pattern in patterns)
    ]
    hidden = [name for name in missing if Path(name).name.startswith(".")]  # of npm, for who builds the site
    assert missing == hidden and PROJECT["tool"]["setuptools"]["packages"]["find"]["include"] == ["kp2d*"]


def test_the_stated_size_of_the_weights_is_theirs():
    (stated,) = re.findall(r"(\d+) MB of weights", text("README.md"))
    size = sum(path.stat().st_size for path in (ROOT / "kp2d" / "pretrained").iterdir()) / 1e6
    assert abs(int(stated) - size) <= 1


def test_continuous_integration_runs_the_whole_check_on_every_python():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == PYTHONS
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in steps
    for target in re.findall(r"make (\w+)", " ".join(steps)):
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target
    assert "--cov-fail-under=90" in MAKEFILE


def test_hooks_are_the_project_s_own_tools():
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        program, *words = hook["entry"].split()
        own = program in (".venv/bin/ruff", ".venv/bin/kp2d")
        assert own or (program == "make" and re.search(rf"^{words[0]}:", MAKEFILE, re.M)), hook["entry"]


def test_the_container_installs_as_everybody_does():
    dockerfile = text(".devcontainer/Dockerfile")
    assert "RUN make setup" in dockerfile and len(dockerfile.splitlines()) <= 12
    ignored = text(".dockerignore").split()
    assert {".venv*", "data", "results/runs"} <= set(ignored)
