"""The project as a whole: one set of pins, direction of imports, house rules, the paper's typed numbers."""

from __future__ import annotations

import ast
import contextlib
import csv
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from heavy_packages import HEAVY
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kp2d import cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT / "kp2d").with_suffix("").parts): path
    for path in sorted((ROOT / "kp2d").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

# A room imports itself and what stands to its left. "" is the hall: modules without a room.
ROOMS = ["", "methods", "data", "train", "quantize", "device", "evaluate", "viz", "reproduce", "report"]
SEEN = {room: set(ROOMS[: ROOMS.index(room) + 1]) for room in ROOMS} | {
    name: {"", "methods", name} for name in ("live", "export")
}

CARD = [
    "tensorflow",
    "jupyter",
    "papermill",
    "matplotlib",
    "numpy",
    "opencv-python",
    "pycoral",
    "tflite-runtime",
]
DEVICE_ONLY = {"pycoral", "tflite-runtime"}
PLATFORMS = [
    {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"},
    {"sys_platform": "linux", "platform_machine": "aarch64", "os_name": "posix"},
    {"sys_platform": "darwin", "platform_machine": "arm64", "os_name": "posix"},
    {"sys_platform": "win32", "platform_machine": "AMD64", "os_name": "nt"},
]


def package(name: str) -> str:
    """`tensorflow-cpu` is the same Python package as `tensorflow`, without CUDA."""
    return canonicalize_name(name).replace("tensorflow-cpu", "tensorflow")


def platforms():
    for python in ("3.11", "3.12", "3.13"):
        for platform in PLATFORMS:
            full = {"python_version": python, "python_full_version": f"{python}.5"}
            yield {**default_environment(), **platform, **full, "implementation_name": "cpython"}


def declared() -> list[Requirement]:
    """Every dependency of every extra."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = table["optional-dependencies"].values()
    return [
        Requirement(line) for line in [*table["dependencies"], *(line for extra in extras for line in extra)]
    ]


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def environment_lines() -> dict[str, tuple[str, str]]:
    """Version and reason of each pinned package of environment.yml, those in the device block among them."""
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    lines = re.findall(r"^ *#? *- ([\w.-]+)==([\w.]+) *(?:# *(.*))?$", text, flags=re.M)
    return {package(name): (version, reason) for name, version, reason in lines}


def environment_pip() -> list[str]:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    return pip


def pinned(requirements: list[Requirement], environment: dict) -> dict[str, str]:
    """Exact versions by package where the markers hold; a package pinned twice must be pinned equally."""
    versions: dict[str, str] = {}
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==" and "*" not in specifier.version, str(requirement)
            assert versions.setdefault(package(requirement.name), specifier.version) == specifier.version
    return versions


@pytest.mark.parametrize(
    "environment",
    list(platforms()),
    ids=lambda e: f"{e['python_version']}-{e['sys_platform']}-{e['platform_machine']}",
)
def test_every_dependency_is_pinned_alike_in_constraints_and_environment(environment):
    constrained = pinned(constraints(), environment)
    conda = pinned(
        [Requirement(line) for line in environment_pip() if not line.startswith("-e")], environment
    )
    wanted = {
        package(each.name): each
        for each in declared()
        if not each.marker or each.marker.evaluate(environment)
    }
    for name, requirement in wanted.items():
        assert name in constrained, f"{name} has no pin in constraints.txt"
        assert requirement.specifier.contains(constrained[name]), (
            f"{name} {constrained[name]} is not {requirement}"
        )
        assert conda.get(name) == constrained[name], f"{name} in environment.yml and constraints.txt"
    assert set(conda) == set(wanted), "environment.yml lists what pyproject.toml does not"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the pins of environment.yml are for 3.11 and newer")
def test_every_version_of_the_environment_exists_and_is_the_one_tested_here():
    """Conda's pip installs the very releases that `make` has installed here: each exists, and they agree."""
    lines = [Requirement(line) for line in environment_pip() if not line.startswith("-e")]
    headless = {"opencv-python": "opencv-python-headless"}  # the same release, where there is no display
    wrong = {}
    for name, version in pinned(lines, default_environment()).items():
        named = next(each.name for each in lines if package(each.name) == name)
        found = set()
        for distribution in filter(None, (named, headless.get(name))):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found.add(importlib.metadata.version(distribution))
        if version not in found:
            wrong[name] = f"{version} in environment.yml, here {', '.join(found) or 'none'}"
    assert not wrong


def test_environment_is_a_conda_file_that_ends_with_the_project_itself():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert content["name"] == "kp2d" and content["channels"] == ["conda-forge"]
    python, *_ = [entry for entry in content["dependencies"] if str(entry).startswith("python")]
    assert re.fullmatch(r"python *[>=]?= *3\.1[1-3](\.\*)?", python), "the pins are those for 3.11 to 3.13"
    assert "pip" in content["dependencies"]
    assert environment_pip()[-1] == "-e ."


def test_every_package_of_the_environment_has_a_reason():
    lines = environment_lines()
    assert not [name for name in CARD if name not in lines]
    assert not [name for name, (_, reason) in lines.items() if len(reason.split()) < 2]


def test_device_packages_are_named_but_never_installed_here():
    listed = {package(Requirement(line).name) for line in environment_pip() if not line.startswith("-e")}
    assert not listed & DEVICE_ONLY
    assert not {package(each.name) for each in [*declared(), *constraints()]} & DEVICE_ONLY


def test_the_checkout_has_what_the_first_minutes_need():
    for name in ("README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "Makefile", ".ci/run"):
        assert (ROOT / name).is_file(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^reproduce:", makefile, re.M) and re.search(r"^test:", makefile, re.M)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_owns_and_is_not_too_long(name):
    docstring, stem = ast.get_docstring(TREES[name]) or "", MODULES[name].stem
    assert docstring.startswith("Owns ") or (stem in ("__init__", "__main__") and docstring)
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 400
    assert stem not in ("utils", "helpers", "common", "misc")


def breaches(tree: ast.Module, name: str):
    """Lines of a module that break a house rule."""
    stem = name.rpartition(".")[2]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert: raise an InputError"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" and stem != "cli" and name != "arguments":
                yield node.lineno, "print: the library logs"
            if called in ("plt.show", "pyplot.show", "matplotlib.pyplot.show"):
                yield node.lineno, "plt.show"
            if called in ("os.getcwd", "Path.cwd", "pathlib.Path.cwd", "os.chdir"):
                yield node.lineno, "the working directory"
            if "ArgumentParser" in called and stem != "cli":
                yield node.lineno, "argument parsing"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_keeps_the_house_rules(name):
    assert list(breaches(TREES[name], name)) == []


def test_the_house_rules_are_noticed():
    text = "assert x\nprint(1)\ntry: pass\nexcept: pass\nplt.show()\nos.getcwd()"
    assert [line for line, _ in sorted(breaches(ast.parse(text), "x"))] == [1, 2, 4, 5, 6]


# Formats and calls that run what a file or a string says; no file of a user's or of the internet may do that.
EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def dangers(tree: ast.Module):
    """Lines of a module that could execute a file, or let an archive write anywhere."""
    for node in ast.walk(tree):
        modules = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        modules |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
        if {module.partition(".")[0] for module in modules} & EXECUTING:
            yield node.lineno, "a format that holds code"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in RUNS_TEXT or given.get("shell", "False") != "False":
            yield node.lineno, "text that is executed"
        if called.endswith(("np.load", "numpy.load")) and given.get("allow_pickle") != "False":
            yield node.lineno, "np.load without allow_pickle=False"
        if called.endswith(("read_pickle", "yaml.load", "torch.load", "unsafe_load")):
            yield node.lineno, "a reader that executes"
        if called.endswith(("models.load_model", "saving.load_model", "enable_unsafe_deserialization")):
            yield node.lineno, "a Keras model as a whole, which may hold code"
        if called.endswith((".extractall", "unpack_archive")):
            yield node.lineno, "an archive that chooses where it writes: kp2d.data.archives does not let it"


@pytest.mark.parametrize("name", MODULES)
def test_no_file_is_ever_executed(name):
    assert list(dangers(TREES[name])) == []


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from joblib import load", "eval(x)", "exec(x)", "os.system(x)", "np.load(f)"),
        *("np.load(f, allow_pickle=True)", "yaml.load(f)", "subprocess.run(x, shell=True)"),
        *(
            "tar.extractall(path)",
            "shutil.unpack_archive(f)",
            "keras.models.load_model(f)",
            "pd.read_pickle(f)",
        ),
    ],
)
def test_an_executing_line_is_noticed(line):
    assert list(dangers(ast.parse(line)))


def imports(name: str) -> set[str]:
    """The library's modules that one imports, inside functions too."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {full.removeprefix("kp2d.") for full in found} & set(MODULES) - {name}


def room(name: str) -> str:
    return name.rpartition(".")[0]


def test_imports_look_to_the_left():
    """But for the front doors, `kp2d.load` and `kp2d.cli`, which open rooms when they are called."""
    upwards = [
        f"{name} imports {other}"
        for name in sorted(set(MODULES) - {"cli", "__init__", "__main__"})
        for other in imports(name)
        if room(other) not in SEEN[room(name)]
    ]
    assert upwards == []


def test_a_room_s_own_module_is_its_map_and_nothing_else():
    rooms = [name for name in MODULES if name.endswith(".__init__")]
    assert {room(name) for name in rooms} == set(SEEN) - {""}
    assert all(len(TREES[name].body) == 1 and ast.get_docstring(TREES[name]) for name in rooms)


def test_there_is_no_circle():
    done: set[str] = set()
    waiting = {name: imports(name) for name in MODULES}
    while waiting:
        ready = {name for name, needs in waiting.items() if needs <= done}
        assert ready, f"a circle among {sorted(waiting)}"
        done |= ready
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}


@pytest.mark.parametrize("module", ["kp2d", "kp2d.methods.extractors", "kp2d.methods.registration"])
def test_a_small_device_can_import_and_extract(module, tmp_path):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    # From an empty folder: the installed package must do.
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_the_light_modules_import_where_nothing_heavy_is_installed(tmp_path):
    """The hall, methods, live and every command line: what a device needs, and what says what is missing."""
    networks = {"methods.networks", "methods.quantized"}
    light = [
        f"kp2d.{name}".removesuffix(".__init__")
        for name in sorted(set(MODULES) - networks - {"__main__"})
        if room(name) in ("", "methods", "live") or name in {verb.module for verb in cli.VERBS.values()}
    ]
    code = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        f"for name in {light!r}:\n"
        "    try:\n        importlib.import_module(name)\n"
        "    except ImportError as error:\n        print(name, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")


# The paper's numbers.

FRACTIONS = ("repeatability", "d1", "d3", "d5", "matching_score")
PRINTED = ("hpatches_320x240", "comparison")


def paper(name: str) -> list[dict[str, str]]:
    with (ROOT / "results" / "paper" / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_typed_table_is_tested():
    assert {path.stem for path in (ROOT / "results" / "paper").glob("*.csv")} == {*PRINTED, "models"}


@pytest.mark.parametrize("name", [*PRINTED, "models"])
def test_every_typed_row_is_complete_and_has_a_source(name):
    rows = paper(name)
    assert len(rows) >= 3
    for row in rows:
        assert None not in row and None not in row.values(), "a row of another length"
        assert row["source"].strip()
        assert all(value.strip() for key, value in row.items() if key != "doubt")


@pytest.mark.parametrize("name", PRINTED)
def test_typed_metrics_are_in_range_and_in_order(name):
    for row in paper(name):
        values = {key: float(row[key]) for key in (*FRACTIONS, "localization_error")}
        assert all(0 < values[key] < 1 for key in FRACTIONS), row
        assert 0 < values["localization_error"] < 3
        assert values["d1"] <= values["d3"] <= values["d5"] or "d3 above d5" in row["doubt"]
        assert row["precision"] in ("float32", "int8")
        assert (row["image_height"], row["image_width"]) in (("240", "320"), ("480", "640"))
        assert row["top_k"] in ("300", "1000")


def test_a_setting_printed_twice_agrees_or_is_doubted_in_both_places():
    setting = ("method", "precision", "image_height", "image_width", "top_k")
    first, second = ({tuple(row[key] for key in setting): row for row in paper(name)} for name in PRINTED)
    assert all(len(rows) == len(paper(name)) for rows, name in zip((first, second), PRINTED, strict=True))
    for key in first.keys() & second.keys():
        differs = any(
            first[key][metric] != second[key][metric] for metric in (*FRACTIONS, "localization_error")
        )
        assert differs == bool(first[key]["doubt"]) == bool(second[key]["doubt"]), key
    assert first.keys() & second.keys()


def test_typed_model_sizes_agree_with_their_parameters():
    for row in paper("models"):
        parameters, float_mb, int8_mb = (float(row[key]) for key in ("parameters", "float_mb", "int8_mb"))
        assert 1e5 < parameters < 1e7
        assert abs(float_mb - 4 * parameters / 2**20) < 0.1 * float_mb  # four bytes each, and a header
        assert abs(int8_mb - float_mb / 4) < 0.05
        assert int(row["descriptor"]) in (32, 64, 256) and int(row["poolings"]) in (2, 3)
