"""Owns what the file of a notebook says: its parameters, and whether its cells have changed."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from kp2d import checks, config


def parameters(notebook: Path) -> dict[str, Any]:
    """Returns the names and default values in a notebook's cell tagged `parameters`.

    Raises:
        InputError: If the notebook is missing or damaged, or does not have exactly one such cell of literals.
    """
    import nbformat

    if not notebook.is_file():
        remedy = "The notebooks are in the repository: clone it, or set KP2D_HOME to a checkout."
        raise checks.problem(f"the notebook {notebook}", "no such file", remedy)
    try:
        cells = nbformat.read(notebook, as_version=nbformat.NO_CONVERT).cells
        tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    except Exception as error:  # nbformat has no common base class for its errors
        raise checks.problem(f"a notebook in {notebook}", f"{type(error).__name__}: {error}") from error
    if len(tagged) != 1:
        raise checks.problem(f"one cell tagged `parameters` in {notebook.name}", len(tagged))
    try:
        return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged[0]).body}
    except (AttributeError, SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise checks.problem(
            f"only `name = literal` in the parameters of {notebook.name}", str(error)
        ) from error


def cells_hash(notebook: Path) -> str:
    """Returns a hash of the cells without their outputs, which JupyterLab saves into the file."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return config.fingerprint([(cell["cell_type"], cell["source"]) for cell in cells])


def code(notebook: Path) -> str:
    """Returns the Python code of all cells; lines for IPython (`%matplotlib`) are left out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = [
        line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()
    ]
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
