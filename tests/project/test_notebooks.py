"""The style of every notebook: small, literal, without outputs, honest about its files."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from kp2d.evaluate import tables
from kp2d.reproduce import chain, notebook

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(FOLDER.glob("*.ipynb"))}
FIRST = "00_match_two_images"  # light, and outside the chain
ROWS = ("Makes", "Reads", "Needs", "Takes", "Paper")
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)
every_stage = pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name != FIRST])


def cells(name: str, kind: str) -> list:
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == kind]


def title_rows(name: str) -> dict[str, str]:
    """The table below a notebook's title, by its first column."""
    return dict(re.findall(r"^\| (\w+) \| (.*) \|$", NOTEBOOKS[name].cells[0].source, flags=re.M))


def made_paths(text: str) -> set[str]:
    """The paths in a `Makes` row; a bare file name lies in the folder of the path before it."""
    made, folder = set(), ""
    for path in re.findall(r"`([^`]+/[^`]*|[^`]+\.\w+)`", text):
        folder = path.rpartition("/")[0] if "/" in path else folder
        made.add(path if "/" in path else f"{folder}/{path}")
    return made


def test_there_is_one_stage_a_notebook_but_for_the_first():
    assert [FIRST, *(stage.name for stage in chain.STAGES)] == list(NOTEBOOKS)


@every_notebook
def test_it_is_a_valid_notebook_of_python3_without_leftovers(name):
    notebook = NOTEBOOKS[name]
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@every_notebook
def test_it_has_no_outputs(name):
    for cell in cells(name, "code"):
        assert cell.outputs == [] and cell.execution_count is None, f"{cell.id}: run `make strip`"


@every_stage
def test_it_begins_with_a_title_a_question_and_the_facts(name):
    title = NOTEBOOKS[name].cells[0]
    assert title.cell_type == "markdown"
    heading, _, question, *_ = title.source.splitlines()
    number = re.fullmatch(r"# (\d\d) · \S.*", heading)
    assert number and number[1] == name.split("_")[0]
    assert re.fullmatch(r"\*\*.+\?\*\*", question)
    assert tuple(title_rows(name)) == ROWS
    assert re.search(r"\d+ (s|min)\b", title_rows(name)["Takes"])
    for profile in ("smoke", "fast", "full"):
        assert profile in title_rows(name)["Takes"]


@every_notebook
def test_it_ends_with_a_link_to_the_next(name):
    last = NOTEBOOKS[name].cells[-1]
    assert last.cell_type == "markdown"
    order = list(NOTEBOOKS)
    following = order[order.index(name) + 1 :]
    if following:
        heading = NOTEBOOKS[following[0]].cells[0].source.splitlines()[0].removeprefix("# ")
        assert last.source == f"*Next: [{heading}]({following[0]}.ipynb)*"
    else:
        assert re.fullmatch(r"\*.*\[README\]\(\.\./README\.md\)\*", last.source)


@every_notebook
def test_links_to_other_notebooks_lead_somewhere(name):
    for cell in cells(name, "markdown"):
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
            assert target.startswith("https://") or (FOLDER / target).exists(), target


@every_notebook
def test_parameters_come_first_and_are_few_commented_literals(name):
    tagged = [cell for cell in cells(name, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and tagged[0] is cells(name, "code")[0]
    lines = tagged[0].source.splitlines()
    assert (lines[0].startswith('profile = "fast"') or name == FIRST) and len(lines) <= 12
    assert all(re.fullmatch(r"\w+ = .+  # \S.*", line) for line in lines)
    statements = ast.parse(tagged[0].source).body
    assert len(statements) == len(lines)
    for statement in statements:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


@every_notebook
def test_every_parameter_is_used_and_keeps_its_value(name):
    def names(first, kind):
        code = "\n".join(cell.source for cell in cells(name, "code")[first:])
        every = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name))
        return {node.id for node in every if isinstance(node.ctx, kind)}

    parameters = set(chain.parameters(FOLDER / f"{name}.ipynb"))
    assert parameters <= names(1, ast.Load)
    assert not parameters & names(2, ast.Store), "only the set-up may put a default in its place"


@every_notebook
def test_code_cells_are_short_and_hold_no_logic(name):
    logic = (
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.Lambda,
        ast.Try,
    )
    for cell in cells(name, "code"):
        assert 1 <= len(cell.source.splitlines()) <= 15, cell.id
        found = [type(node).__name__ for node in ast.walk(ast.parse(cell.source)) if isinstance(node, logic)]
        assert found == [], cell.id


@every_notebook
def test_it_has_at_most_140_lines_of_code(name):
    assert sum(bool(line.strip()) for cell in cells(name, "code") for line in cell.source.splitlines()) <= 140


@every_notebook
def test_text_and_code_are_in_balance(name):
    assert 0.6 <= len(cells(name, "markdown")) / len(cells(name, "code")) <= 1.6


@every_notebook
def test_text_states_no_digits_that_a_rerun_may_change(name):
    for cell in cells(name, "markdown"):
        assert re.findall(r"\d*\.\d+", cell.source) == [], cell.id


@every_stage
def test_it_makes_what_its_title_says_and_what_its_stage_declares(name):
    (stage,) = chain.select([name])
    outputs = [path.replace("{pictures}", "figures/{profile}") for path in stage.with_trained().outputs]
    declared = {path.replace("{profile}", "<profile>") for path in outputs if path != chain.DATA}
    made = made_paths(title_rows(name)["Makes"])
    assert {path for path in made if not path.startswith("data/")} == declared
    assert any(path.startswith("data/") for path in made) == (chain.DATA in stage.outputs)


@every_stage
def test_every_made_file_is_written_by_the_code(name):
    code = "\n".join(cell.source for cell in cells(name, "code"))
    for path in made_paths(title_rows(name)["Makes"]):
        if "/trained_here/" in path:
            assert "run.trained_here" in code or "settings.compare_trained(" in code, path
        elif not path.startswith("data/"):
            kind, file = path.split("/")[0], path.rpartition("/")[2]
            kind = "pictures" if path.endswith(".png") else kind
            assert f'run.{kind} / "{file}"' in code, path


@every_stage
def test_it_checks_its_result(name):
    code = [cell.source for cell in cells(name, "code")]
    assert any("notebook.begin(profile" in source for source in code[:2])
    assert any("tables.read_csv(" in source and "notebook.check(" in source for source in code[-2:])


def test_the_first_one_needs_a_runtime_and_matplotlib_alone():
    blocked = ("tensorflow", "keras", "pandas", "papermill", "IPython", "scipy", "skimage", "sklearn")
    block = f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n"
    code = "\n".join(cell.source for cell in cells(FIRST, "code"))
    code += "\nassert found.homography is not None and np.linalg.norm(mapped - moved, axis=1).max() < 0.5"
    run = subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_one_that_computes_without_keras_loads_none(home):
    """Four seconds and 600 MB for TensorFlow are a third of what notebook 01 takes in smoke."""
    code = "\n".join(cell.source for cell in cells("01_prepare_data", "code")[:2])
    code += "\nimport sys\nsys.exit(str({'keras', 'tensorflow', 'jax', 'torch'} & {*sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stderr.strip() == "set()"


def test_inputs_are_made_by_an_earlier_stage_or_optional():
    made, stages = set(), chain.select(None, trained=True)
    for plain, stage in zip(chain.STAGES, stages, strict=True):
        assert set(plain.inputs) <= set(stage.inputs) <= made, stage.name
        made |= set(stage.outputs)
    names = [path for stage in stages for path in stage.outputs]
    assert len(names) == len(set(names))


def test_a_table_without_rows_says_so():
    assert "No rows" in notebook.show(pd.DataFrame(columns=["method", "d1"])).data


def test_intervals_stand_below_their_values_in_small_print():
    rows = pd.DataFrame({"method": ["sift"], "d1": [0.5], "d1_low": [0.4], "d1_high": [0.6]})
    assert "| sift | 0.500<br><sub>0.400–0.600</sub> |" in notebook.show(rows, ["method", "d1"]).data


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("evaluation", notebook.SCORES),
        ("precisions", notebook.PRECISIONS),
        ("compile", notebook.MAPPING),
        ("latency", notebook.TIMES),
        ("against_sift", notebook.AGAINST),
    ],
)
def test_a_wide_table_is_shown_by_columns_that_it_has(table, columns):
    rows = tables.read_csv(FOLDER.parent / "results" / "fast" / f"{table}.csv")
    assert {*columns} <= {*tables.readable(rows)}
    assert len(columns) <= 13  # more would scroll sideways in JupyterLab


def test_a_kernel_that_ends_in_its_housekeeping_does_not_complain(caplog):
    notebook.begin("smoke")
    logger = logging.getLogger("asyncio")
    logger.error("Task was destroyed but it is pending!\ntask: <Task pending>")
    logger.error("Task exception was never retrieved")
    assert [record.message for record in caplog.records] == ["Task exception was never retrieved"]
