"""The report: links hold, nothing comes from elsewhere, all is escaped, numbers agree, no file is lost."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest

from kp2d import checks, cli, config, files
from kp2d.data import datasets
from kp2d.evaluate import tables
from kp2d.report import matches as report_matches
from kp2d.report import notebooks as report_notebooks
from kp2d.report import site as report
from kp2d.report import tables as report_tables
from kp2d.report import tryit

PAGES = (
    *("index", "matches", "try", "tables", "gallery", "models"),
    *("01_prepare_data", "02_train", "03_quantize", "04_compile", "05_evaluate", "06_compare_sift"),
)


class Links(HTMLParser):
    """What a page loads, where it leads, which anchors it has, and the tags it is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded, self.led, self.anchors, self.tags = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.anchors.add(found.get("id"))
        self.loaded += [found[name] for name in ("src", "srcset", "poster", "data") if name in found]
        if "href" in found:
            (self.led if tag == "a" else self.loaded).append(found["href"])


@pytest.fixture(autouse=True)
def no_npm(report_site, monkeypatch):
    """Reports that a test of this module makes are quick: `report_site` has the page that computes."""
    monkeypatch.setattr(tryit.shutil, "which", lambda _: None)


@pytest.fixture
def texts(report_site):
    return {path.stem: path.read_text(encoding="utf-8") for path in report_site.folder.glob("*.html")}


def script(path: Path) -> object:
    """The value in a script of the match browser."""
    text = path.read_text(encoding="utf-8")
    return json.loads(text.partition(" = ")[2].rstrip().rstrip(";"))


def test_every_page_is_there_and_reads_alone(report_site, texts):
    assert set(texts) == set(PAGES) and report_site.num_pages == len(PAGES)
    assert report_site.index.is_file() and report_site.num_bytes < 15e6
    for name, text in texts.items():
        tags = [tag for tag, _ in Links(text).tags]
        assert text.startswith("<!DOCTYPE html>") and tags.count("h1") == 1, name
        assert text.count("</div>") == tags.count("div"), name


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve_and_nothing_is_loaded_from_elsewhere(name, report_site, texts):
    page = Links(texts[name])
    assert page.loaded
    for target in [*page.loaded, *page.led]:
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https" and target in page.led, target
            continue
        path = report_site.folder / (unquote(parts.path) or f"{name}.html")
        assert path.is_file(), f"{name}: {target}"
        if parts.fragment:
            assert parts.fragment in Links(path.read_text(encoding="utf-8")).anchors, target
    assert not re.search(r"url\(|@import", (report_site.folder / "style.css").read_text(encoding="utf-8"))


def test_pictures_have_words_in_their_place(texts):
    for name, text in texts.items():
        for tag, attributes in Links(text).tags:
            assert tag != "img" or "alt" in attributes, name


def test_what_a_table_holds_is_escaped(texts):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in texts["tables"]
    assert "&lt;img src=x onerror=alert(1)&gt;" in texts["tables"]
    for name, text in texts.items():
        assert "<script>alert" not in text and "onerror" not in re.findall(r"<img[^>]*>", text), name


def test_an_executed_notebook_is_shown_with_its_pictures_as_files(report_site, texts):
    text = texts["01_prepare_data"]
    assert "Ran in 12 s at commit abc." in text
    assert "Does it show?" in text and "stand-in" in text and "a script" in text
    assert 'href="02_train.html"' in text and 'href="index.html"' in text
    assert "alert(2)" not in text and "data:image" not in text
    assert "red</span> &lt;b&gt;not bold" in text
    assert 'alt="Picture: A *part*"' in text
    (picture,) = re.findall(r'src="(pictures/[^"]+)"', text)
    assert picture.endswith(".webp") and (report_site.folder / picture).stat().st_size > 1000


@pytest.fixture
def rendered(home, tmp_path):
    """A function (name, cells or None for those of the notebook itself) -> its page, as if executed."""
    from nbformat import v4

    def render(name, cells=None):
        source = (home / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        text = json.dumps(v4.new_notebook(cells=cells)) if cells else source
        copy = home / "results" / "runs" / "smoke" / f"{name}.ipynb"
        files.write_text(copy, text)
        files.write_json(copy.with_suffix(".json"), {"seconds": 1, "commit": "abc"})
        pages = report_notebooks.render_pages(tmp_path / "site", "smoke")
        return next(page for page in pages if page.name == name)

    return render


@pytest.mark.parametrize("name", [name for name in PAGES if name[0] == "0"])
def test_every_formula_of_our_notebooks_is_typeset(name, rendered, home):
    pytest.importorskip("docutils.utils.math.latex2mathml")
    page = rendered(name)
    cells = json.loads((home / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    formulas = sum(len(re.findall(r"(\$\$?)[^$]+\1", text)) for text in texts)
    assert page.note == "" and page.body.count("<math") == formulas
    shown = re.sub(r"<pre.*?</pre>", "", page.body, flags=re.DOTALL)
    assert "$" not in shown and "\\" not in shown and "merror" not in shown


def test_dollars_that_are_no_formula_stay(rendered):
    from nbformat import v4

    outputs = [
        v4.new_output("display_data", {"text/markdown": "of $x$"}),
        v4.new_output("stream", text="$y$"),
    ]
    words = "`$HOME` and `$PATH`, from $5 to $6, one \\$7.\n\n```sh\necho $A $B\n```"
    body = rendered(
        "01_prepare_data", [v4.new_markdown_cell(words), v4.new_code_cell("", outputs=outputs)]
    ).body
    text = re.sub(r"<[^>]+>", "", body)
    for kept in ("$HOME and $PATH", "from $5 to $6", "one $7.", "echo $A $B", "of $x$", "$y$"):
        assert kept in text, kept
    assert "<math" not in body


def test_a_formula_that_cannot_be_typeset_stays_readable_and_is_named(rendered):
    from nbformat import v4

    pytest.importorskip("docutils.utils.math.latex2mathml")
    page = rendered("01_prepare_data", [v4.new_markdown_cell(r"Of $\nosuch a < b$ and $a$.")])
    assert "<code>\\nosuch a &lt; b</code>" in page.body and page.body.count("<math") == 1
    assert "nosuch" in page.note and "shown in LaTeX" in page.note


def test_without_docutils_formulas_are_shown_in_latex_and_the_page_says_so_once(rendered, monkeypatch):
    monkeypatch.setitem(sys.modules, "docutils.utils.math.latex2mathml", None)
    page = rendered("03_quantize")
    assert "<code>s\\,(q - z)</code>" in page.body and "<math" not in page.body
    assert page.note.count("pip install docutils") == 1


def test_fences_and_lines_above_are_as_long_as_what_they_hold():
    pytest.importorskip("docutils.utils.math.latex2mathml")
    text = report_notebooks.mathml(
        r"2|K| \overline{a \lVert b \rVert^2} \{c\} \operatorname{f}(x)", block=True
    )
    fences = re.findall(r'<mo form="(\w+)" stretchy="false">(.)</mo>', text)
    sides = [
        ("prefix", "|"),
        ("postfix", "|"),
        ("prefix", "‖"),
        ("postfix", "‖"),
        ("prefix", "{"),
        ("postfix", "}"),
    ]
    assert fences == sides
    assert text.count('<mrow class="overline">') == 1 and "mover" not in text and "&" not in text


def test_what_did_not_run_says_which_command_runs_it(report_site, texts):
    assert "did not come to its end" in texts["02_train"] and "Does it show?" in texts["02_train"]
    assert "kp2d reproduce --profile smoke --stages 03" in texts["03_quantize"]
    assert "03 · Quantize" in texts["03_quantize"]
    assert len([note for note in report_site.notes if "--stages" in note]) == 5


def test_the_first_page_marks_the_best_of_ours_and_shows_the_papers(texts):
    page = texts["index"]
    assert "On real image pairs" in page and "The paper, on HPatches" in page and "kp2d_baseline †" in page
    best = re.findall(r'class="number best[^>]*>([\d.]+)<', page)
    rows = tables.read_csv(report_csv("bench/evaluation"))
    rows = rows[(rows["top_k"] == 1000) & (rows["subset"] == "viewpoint") & (rows["image_height"] == 240)]
    assert tables.cell_text("localization_error", rows["localization_error"].min()) in best
    assert tables.cell_text("repeatability", rows["repeatability"].max()) in best
    low, high = rows.iloc[0][["repeatability_low", "repeatability_high"]]
    assert f"<small>{low:.3f}–{high:.3f}</small>" in page
    assert "15 pairs from 3 scenes" in page


def report_csv(name: str) -> Path:
    return Path(__file__).resolve().parents[2] / "results" / f"{name}.csv"


def test_cards_tell_what_weights_learned_from_and_what_they_reach(texts):
    text = texts["models"]
    hours = f"{json.loads(report_card('kp2d_tiny_s').read_text(encoding='utf-8'))['hours']} hours"
    for words in ("387,539", "4,870 photographs", hours, "int8, trained on its grid", "SHA-256"):
        assert words in text
    card = json.loads(report_card("kp2d_tiny_s.int8").read_text(encoding="utf-8"))
    assert card["sha256"] in text


def report_card(name: str) -> Path:
    return Path(report.__file__).parents[1] / "pretrained" / f"{name}.json"


def test_the_match_browser_has_the_numbers_of_the_tables(report_site, report_home):
    index = script(report_site.folder / "matches" / "index.js")
    scores = tables.read_csv(report_home / "results/smoke/pairs.csv").set_index(["method", "pair", "top_k"])
    assert {pair["subset"] for pair in index["pairs"]} == {"viewpoint", "illumination"}
    assert [method["name"] for method in index["methods"]] == ["sift", "orb"]
    ours, theirs = [], []
    for pair in index["pairs"]:
        found = script(report_site.folder / pair["script"])
        for method, by_k in found.items():
            for top_k, result in by_k.items():
                row = scores.loc[(method, pair["name"], int(top_k))]
                errors, off = [match[5] for match in result["matches"]], result["error"]
                correct = sum(error is not None and error <= 3 for error in errors)
                assert len(errors) == row["num_matches"]
                assert correct / max(len(errors), 1) == pytest.approx(row["mma_3"], abs=1e-5)
                assert bool(result["reason"]) == (off is None)
                if off is not None:  # of the estimator of `kp2d match`, not of the table's RANSAC
                    missed = np.hypot(*(np.array(result["frame"]) - pair["frame"]).T).mean()
                    assert off == pytest.approx(missed, abs=0.15)
                    ours.append(off)
                    theirs.append(row["corner_error"])
    assert ours != pytest.approx(theirs, abs=0.01) and np.median(ours) <= np.nanmedian(theirs)


def test_only_photographs_that_may_be_shown_are_in_the_browser(report_home, tmp_path, monkeypatch):
    monkeypatch.setenv("KP2D_HOME", str(report_home))
    monkeypatch.setattr("kp2d.data.samples.redistributable", lambda: frozenset({"coffee"}))
    made = report_matches.write_browser(tmp_path, config.profile("smoke"), progress=False)
    index = script(tmp_path / "matches" / "index.js")
    assert made.num_pairs == len(index["pairs"]) == 4
    assert all("coffee" in pair["name"] for pair in index["pairs"])


def test_a_method_or_picture_that_cannot_be_had_is_named(report_home, tmp_path, monkeypatch):
    import dataclasses

    monkeypatch.setenv("KP2D_HOME", str(report_home))
    sequences = datasets.load_sequences(datasets.resolve("sample", "smoke"))
    broken = dataclasses.replace(sequences[0].pairs[0], path1=tmp_path / "gone.png")
    monkeypatch.setattr(report_matches, "choose_pairs", lambda _: [sequences[1].pairs[0], broken])
    profile = dataclasses.replace(config.profile("smoke"), methods=("orb", "sfit"))
    made = report_matches.write_browser(tmp_path, profile, progress=False)
    assert (made.num_pairs, made.methods) == (1, ("orb",))
    assert "sfit is left out" in made.notes[0] and f"{broken.name} is left out" in made.notes[1]
    none = dataclasses.replace(profile, methods=("sfit",))
    assert report_matches.write_browser(tmp_path / "none", none, progress=False).num_pairs == 0


def test_many_sequences_are_thinned_out(report_home):
    sequences = datasets.load_sequences(report_home / "data" / "smoke" / "sample")
    chosen = report_matches.choose_pairs(sequences * 10, 6)
    assert len(chosen) == 6
    assert [pair.index for pair in chosen] == [2, 3] * 3


def test_an_empty_project_gives_a_report_that_says_what_to_run(home, tmp_path):
    (home / "results" / "paper").rename(tmp_path / "paper")
    made = report.build("smoke", progress=False)
    assert made.folder == home / "results" / "runs" / "smoke" / "report"
    assert made.num_pages == len(PAGES)
    assert any("kp2d prepare --profile smoke" in note for note in made.notes)
    index = made.index.read_text(encoding="utf-8")
    assert index.count('class="note"') == 3 and "evaluation.csv" in index
    assert "No pairs to browse" in (made.folder / "matches.html").read_text(encoding="utf-8")
    assert "no pictures" in (made.folder / "gallery.html").read_text(encoding="utf-8")


@pytest.fixture
def nothing_to_match(home, monkeypatch):
    """A report that takes no time, where what is in it does not matter."""
    monkeypatch.setattr(report_matches, "write_browser", lambda *_, **__: report_matches.Browser())
    return home


def test_an_earlier_report_is_replaced_and_nothing_else(nothing_to_match, tmp_path):
    target = tmp_path / "site"
    first = report.build("smoke", target, progress=False)
    (target / "gallery.html").write_text("old")
    again = report.build("smoke", target, progress=False)
    assert (target / "gallery.html").read_text(encoding="utf-8").startswith("<!DOCTYPE")
    assert first.num_bytes == again.num_bytes
    (target / "mine.txt").write_text("precious")
    with pytest.raises(checks.InputError, match=r"mine\.txt"):
        report.build("smoke", target, progress=False)
    assert (target / "mine.txt").read_text() == "precious"
    with pytest.raises(checks.InputError, match="the file"):
        report.build("smoke", target / "mine.txt", progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"home", "site"}


def test_a_failed_report_leaves_the_earlier_one(nothing_to_match, tmp_path, monkeypatch):
    target = tmp_path / "site"
    report.build("smoke", target, progress=False)
    before = sorted(path.name for path in target.iterdir())

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(report, "_write_page", fail)
    with pytest.raises(OSError, match="disk full"):
        report.build("smoke", target, progress=False)
    assert sorted(path.name for path in target.iterdir()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"home", "site"}


def test_the_same_results_give_the_same_bytes(report_site, report_home, tmp_path, monkeypatch):
    monkeypatch.setenv("KP2D_HOME", str(report_home))
    again = report.build("smoke", tmp_path / "again", progress=False)

    def contents(folder):
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder): path.read_bytes() for path in files}

    assert contents(again.folder) == contents(report_site.folder)


def test_the_command_says_what_is_missing_and_where_the_report_is(nothing_to_match, tmp_path, capsys):
    assert cli.main(["report", "--profile", "smoke", "-o", str(tmp_path / "site")]) == 0
    out = capsys.readouterr().out
    assert "missing: 01 · Prepare the data" in out
    assert (tmp_path / "site" / "index.html").as_uri() in out.splitlines()[-1]
    assert cli.main(["report", "--profile", "fsat"]) == 2
    assert "Did you mean 'fast'?" in capsys.readouterr().err


def test_columns_that_say_the_same_are_said_once_and_missing_values_are_known():
    rows = pd.DataFrame({f"c{n}": [1, 1] for n in range(12)} | {"d1": [0.5, np.nan], "flag": [True, False]})
    table = report_tables.lay_out(rows, name="t")
    assert table.columns == (("d1", True), ("flag", False)) and len(table.constants) == 12
    first, second = table.rows
    assert (first[0].text, first[0].share, second[0].text, second[0].value) == ("0.500", 50.0, "–", None)
    assert table.whole and report_tables.lay_out(rows.head(0), name="t").rows == ()


def test_a_long_table_is_shown_in_part_and_says_so():
    table = report_tables.lay_out(pd.DataFrame({"a": range(500)}), name="t")
    assert (len(table.rows), table.total, table.whole) == (report_tables.EXCERPT, 500, False)


def test_what_looks_equal_is_equally_good():
    rows = pd.DataFrame({"d1": [0.8001, 0.8002, 0.7], "localization_error": [1.0, 0.5, 2.0]})
    table = report_tables.lay_out(rows, best=True, name="t")
    assert [[cell.best for cell in row] for row in table.rows] == [
        [True, False],
        [True, True],
        [False, False],
    ]
