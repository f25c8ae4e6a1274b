"""The documents: links lead somewhere, commands parse, names exist, tables are the committed ones."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from kp2d import checks, cli, config, images
from kp2d.data import scenes
from kp2d.evaluate import tables
from kp2d.reproduce import chain, readme

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/*.md", "results/*.md", "results/*/README.md", "figures/*.md")
    for path in sorted(ROOT.glob(pattern))
    if "runs" not in path.parts
}
PARSER = cli.parser_for(cli.VERBS)
every_page = pytest.mark.parametrize("page", PAGES)


def blocks(text: str, *languages: str) -> list[str]:
    """The contents of fenced blocks of code."""
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", text, flags=re.M | re.S)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def code_spans(text: str) -> list[str]:
    """What stands between backticks, on one line or two."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), flags=re.M)
    words = [
        re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower() for heading in headings
    ]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in words}


def commands(text: str) -> list[list[str]]:
    """The words of every `kp2d …` and `make …` in a page's blocks, without comments and variables."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line.replace("&&", ";").replace(";", " ; "), comments=True)
        for separator in [-1, *(i for i, word in enumerate(words) if word in (";", "--", "|"))]:
            rest = list(words[separator + 1 :])
            while rest and re.fullmatch(r"[A-Z][A-Z_0-9]*=.*", rest[0]):
                rest.pop(0)
            if rest and rest[0] in ("kp2d", "make"):
                ends = [i for i, word in enumerate(rest) if word in (";", "&", "|", ">")]
                found.append(rest[: ends[0]] if ends else rest)
    return found


@every_page
def test_links_and_anchors_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[page])):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}"


@every_page
def test_every_command_parses(page, capsys):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    inline = [shlex.split(span) for span in code_spans(PAGES[page]) if re.match(r"make \w+$", span)]
    for program, *words in commands(PAGES[page]) + inline:
        if program == "make":
            assert [word for word in words if "=" not in word and word not in targets] == [], words
            continue
        try:
            options = PARSER.parse_args(words)
            assert getattr(options, "profile", "fast") in config.PROFILES
        except SystemExit:
            pytest.fail(f"{page}: kp2d {shlex.join(words)}\n{capsys.readouterr().err}")


@every_page
def test_verbs_and_options_in_the_text_exist(page):
    """In the text, a command may lack what it requires, as in `kp2d train --to-coral`."""
    for span in code_spans(PAGES[page]):
        words = span.split()
        if words[0] == "kp2d" and len(words) > 1 and "…" not in span:
            actions = verb(words[1])._actions
            options = {option for action in actions for option in action.option_strings}
            unknown = [
                word for word in words if word.startswith("-") and word.partition("=")[0] not in options
            ]
            choices = next((action.choices for action in actions if not action.option_strings), None)
            if choices and len(words) > 2 and not words[2].startswith("-") and words[2] not in choices:
                unknown.append(words[2])
            assert unknown == [], f"{page}: {span}"


def verb(name: str) -> argparse.ArgumentParser:
    """The parser of a verb; fails if there is none."""
    (verbs,) = [action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction)]
    assert name in verbs.choices, f"kp2d {name}"
    return verbs.choices[name]


@every_page
def test_modules_and_files_that_are_named_exist(page):
    for span in code_spans(PAGES[page]):
        if re.fullmatch(r"kp2d(\.\w+)+(\(.*\))?", span):
            resolve(span.partition("(")[0])
        if re.fullmatch(r"(kp2d|tests|notebooks)/[\w/.]*", span):
            assert (ROOT / span).exists(), f"{page}: {span}"
        if re.fullmatch(r"test_\w+\.py", span):
            assert list((ROOT / "tests").rglob(span)), f"{page}: {span}"


def resolve(name: str) -> object:
    """Imports the longest part of a dotted name that is a module, and gets the rest from it."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(words[:count]))
            for word in words[count:]:
                found = getattr(found, word)
            return found
    raise AssertionError(name)


def test_the_readme_is_one_page_with_a_short_table():
    assert len((ROOT / "README.md").read_bytes()) <= 12_000
    assert readme.BLOCKS["headline"]().partition("\n\n")[0].count("\n") <= 1 + 7  # the head has two lines


def test_the_map_shows_every_room():
    shown = re.findall(r"^\| `kp2d/(\w*)/?` \|", PAGES["README.md"], flags=re.M)
    rooms = {path.parent.name for path in (ROOT / "kp2d").glob("*/__init__.py")}
    assert shown[0] == "" and set(shown[1:]) == rooms and len(shown) == len(rooms) + 1


def test_every_table_and_picture_of_the_chain_is_explained():
    for stage in chain.STAGES:
        for path in stage.outputs:
            if path != chain.DATA and not path.startswith("results/runs/"):
                name, table = Path(path).name, path.startswith("results/")
                row = f"| `{name}` |" if table else f"| [{name}](fast/{name}) |"
                assert row in PAGES["results/README.md" if table else "figures/README.md"], path


@pytest.mark.parametrize("document", readme.documents())
def test_documents_show_the_committed_tables(document):
    assert readme.fill(PAGES[document]) == PAGES[document]


def test_every_generated_table_is_shown_somewhere():
    texts = [PAGES[document] for document in readme.documents()]
    for name in readme.BLOCKS:
        assert sum(f"<!-- table:{name} -->" in text for text in texts) == 1, name


def test_a_second_data_set_stands_beside_the_first_and_changes_none_of_its_rows(tmp_path, monkeypatch):
    before = {name: readme.BLOCKS[name]() for name in ("headline", "bench", "networks", "int8")}
    rows = tables.read_csv(ROOT / "results/bench/evaluation.csv")
    better = (rows["method"] == "sift").astype(float)  # SIFT has everything right on the second one
    second = rows.assign(dataset="bench2", matching_score=better, localization_error=1 - better)
    tables.write_csv(
        tmp_path / "results/bench/evaluation.csv",
        pd.concat([rows[rows["dataset"] == "bench"], second[rows["dataset"] == "bench"]]),
    )
    shutil.copy(ROOT / "results/bench/latency.csv", tmp_path / "results/bench")
    monkeypatch.setenv("KP2D_HOME", str(tmp_path))
    table, _, ahead = readme.BLOCKS["headline"]().partition("\n\n")
    assert table.count("| `bench2`, viewpoint, 15 pairs |") == 2 and table.count("\n") == 1 + 7
    assert "matching (1.000 against 0.000) on `bench2`" in ahead
    assert "localization, px (0.000 against 1.000) on `bench2`" in ahead
    assert readme.BLOCKS["bench"]().startswith(before["bench"].partition("`bench2`")[0])
    assert all(readme.BLOCKS[name]() == before[name] for name in ("networks", "int8"))


def test_a_table_that_nobody_makes_is_named():
    with pytest.raises(checks.InputError, match="Did you mean 'headline'"):
        readme.fill("<!-- table:headlin -->\n<!-- /table:headlin -->")


@pytest.fixture
def two_pictures(tmp_path, monkeypatch):
    """A folder with a.jpg and b.jpg, two parts of one photograph, in which code runs."""
    photograph = scenes.photograph(scenes.SCENES[0])
    for name, part in (("a.jpg", photograph[:, :-40]), ("b.jpg", photograph[:, 40:])):
        images.write_image(tmp_path / name, part)
    monkeypatch.chdir(tmp_path)


def test_the_readmes_python_matches_two_pictures(two_pictures, capsys):
    """What a newcomer pastes first must run."""
    (code,) = blocks(PAGES["README.md"], "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    exec(compile(code, "README.md", "exec"), {})
    counts = re.search(r"(\d+)/(\d+) inliers, homography found", capsys.readouterr().out)
    assert int(counts[1]) > 0.8 * int(counts[2]) > 100


def test_the_python_of_matching_runs(two_pictures):
    (code,) = blocks(PAGES["docs/matching.md"], "python")
    names = {}
    exec(compile(code, "docs/matching.md", "exec"), names)
    assert names["picture"].shape[2] == 3 and len(names["found"].save("again.csv").read_text()) > 1000


def test_python_on_small_devices_runs(two_pictures):
    (code,) = blocks(PAGES["docs/devices.md"], "python")
    names = {}
    exec(compile(code, "docs/devices.md", "exec"), names)
    assert names["features"].descriptors.shape == (len(names["features"].keypoints), 32)


@every_page
def test_python_in_a_page_is_python(page):
    for code in blocks(PAGES[page], "python"):
        compile(code, page, "exec")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kp2d doctor  # well", [["kp2d", "doctor"]]),
        ("VAL_PATH=x kp2d report -o 'a b'", [["kp2d", "report", "-o", "a b"]]),
        ("make setup && kp2d lint m \\\n  --json", [["make", "setup"], ["kp2d", "lint", "m", "--json"]]),
        ("kubectl exec x -- kp2d readme &\npython -m kp2d", [["kp2d", "readme"]]),
    ],
)
def test_commands_are_found_in_blocks(text, expected):
    assert commands(f"```sh\n{text}\n```\n") == expected
    assert commands(f"```python\n{text}\n```\n") == []


def test_anchors_are_those_of_github():
    assert anchors("# A `b`: c, d\n## 2 · E–f (g)\n### [H i](j)\n```sh\n# k\n```") == {
        "a-b-c-d",
        "2--ef-g",
        "h-i",
    }
