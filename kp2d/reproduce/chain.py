"""Owns the chain: the notebooks as stages, what each file says, reads and makes, and so which needs which."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kp2d import checks, config, paths
from kp2d.methods import weights

DATA = "data set"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One notebook of the reproduction.

    Inputs and outputs are files relative to the project, or `DATA`, the data set. `filled` puts the profile's
    name and its folder for pictures of photographs in the place of `{profile}` and `{pictures}`. The trained
    ones are further ones of a run that takes what 02 trains (`with_trained`). Where a stage measures time,
    nothing may run beside it. Without an input that is `optional` it runs, too, and says what is missing.
    """

    name: str
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    trained_inputs: tuple[str, ...] = ()
    trained_outputs: tuple[str, ...] = ()
    measures_time: bool = False

    @property
    def number(self) -> str:
        """Returns its number, "05"."""
        return self.name.partition("_")[0]

    @property
    def notebook(self) -> Path:
        """Returns the notebook's path."""
        return paths.notebooks() / f"{self.name}.ipynb"

    def with_trained(self) -> Stage:
        """Returns the stage of a run in which 03 to 06 take the network that 02 trains, as a further one."""
        inputs, outputs = self.inputs + self.trained_inputs, self.outputs + self.trained_outputs
        return dataclasses.replace(
            self, inputs=inputs, outputs=outputs, trained_inputs=(), trained_outputs=()
        )


def _made(
    *, tables: Sequence[str] = (), charts: Sequence[str] = (), pictures: Sequence[str] = ()
) -> tuple[str, ...]:
    """Returns the files in which notebooks keep tables, charts and pictures of photographs."""
    return (
        *(f"results/{{profile}}/{name}.csv" for name in tables),
        *(f"figures/{{profile}}/{name}.svg" for name in charts),
        *(f"{{pictures}}/{name}.png" for name in pictures),
    )


_FOLDER = f"results/runs/{{profile}}/{paths.TRAINED_HERE}"
_TRAINED = (f"{_FOLDER}/{paths.TRAINED_HERE}{weights.WEIGHTS}", f"{_FOLDER}/config.json")
_QUANTIZED = tuple(
    f"{_FOLDER}/{paths.TRAINED_HERE}{weights.SUFFIXES[precision]}" for precision in ("int8_ptq", "int8")
)
_PREPARED = (DATA, *_made(tables=["data"]))

STAGES = (
    Stage(name="01_prepare_data", outputs=(*_PREPARED, *_made(pictures=["data"]))),
    Stage(
        name="02_train",
        inputs=_PREPARED,
        optional=("results/recipes.csv", "results/networks.csv"),
        outputs=(
            *_made(
                tables=["training", "training_losses"],
                charts=["training_losses", "recipes", "networks"],
                pictures=["training_pairs", "learning", "learning_matches"],
            ),
            *_TRAINED,
        ),
    ),
    Stage(
        name="03_quantize",
        inputs=_PREPARED,
        outputs=_made(
            tables=["quantization", "precisions", "layer_errors", "sensitivity"],
            charts=["activations", "layer_errors", "sensitivity"],
        ),
        trained_inputs=_TRAINED,
        trained_outputs=_QUANTIZED,
    ),
    Stage(
        name="04_compile",
        outputs=_made(tables=["compile", "latency"], charts=["latency"]),
        trained_inputs=_TRAINED + _QUANTIZED,
        measures_time=True,
    ),
    Stage(
        name="05_evaluate",
        inputs=(*_PREPARED, *_made(tables=["latency"])),
        trained_inputs=_TRAINED + _QUANTIZED,
        outputs=_made(
            tables=[
                *("evaluation", "pairs", "robustness", "pyramid", "protocols", "estimators"),
                *("trust", "paper_comparison", "paper_models"),
            ],
            charts=[
                *("matching_accuracy", "correctness", "repeatability", "speed", "size", "robustness"),
                "estimators",
            ],
        ),
    ),
    Stage(
        name="06_compare_sift",
        inputs=(*_PREPARED, *_made(tables=["pairs"])),
        trained_inputs=_TRAINED + _QUANTIZED,
        outputs=_made(
            tables=["against_sift", "failures"],
            charts=["against_sift"],
            pictures=["hero", "keypoints", "matches", "gallery", "failures"],
        ),
    ),
)


def select(names: Sequence[str] | None, profile: str | None = None, *, trained: bool = False) -> list[Stage]:
    """Returns stages in their order: those named, or all of the profile, or all there are.

    Names may be numbers ("05" or "05_evaluate"). `trained`: whether they take the network that 02 trains.

    Raises:
        InputError: If there is no such stage.
    """
    stages = [stage.with_trained() if trained else stage for stage in STAGES]
    if names is None:
        skipped = config.profile(profile).skipped_stages if profile else ()
        return [stage for stage in stages if stage.number not in skipped]
    known = [stage.name for stage in stages]
    by_number = {stage.number: stage.name for stage in stages}
    chosen = {checks.one_of("stage", by_number.get(name.zfill(2), name), known) for name in names}
    return [stage for stage in stages if stage.name in chosen]


def needed(stage: Stage, others: Sequence[Stage]) -> tuple[str, ...]:
    """Returns the names of those stages that make what a stage reads."""
    return tuple(other.name for other in others if set(other.outputs) & set(stage.inputs))


def filled(names: Sequence[str], profile: str) -> list[str]:
    """Returns names of files with the profile in its place."""
    pictures = config.profile(profile).picture_folder
    return [name.format(profile=profile, pictures=pictures) for name in names]


def read_cells(notebook: Path) -> list[dict[str, Any]]:
    """Returns the cells of a notebook as its file has them."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def parameters(notebook: Path) -> dict[str, Any]:
    """Returns the names and default values in a notebook's cell tagged `parameters`.

    Raises:
        InputError: If the notebook is missing or damaged, or does not have exactly one such cell of literals.
    """
    if not notebook.is_file():
        remedy = "The notebooks are in the repository: clone it, or set KP2D_HOME to a checkout."
        raise checks.problem(f"the notebook {notebook}", "no such file", remedy)
    try:
        cells = read_cells(notebook)
        tagged = [
            "".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    return config.fingerprint([(cell.get("cell_type"), cell.get("source")) for cell in read_cells(notebook)])


def code(notebook: Path) -> str:
    """Returns the Python code of all cells; lines for IPython (`%matplotlib`) are left out."""
    cells = read_cells(notebook)
    sources = ["".join(cell.get("source") or "") for cell in cells if cell.get("cell_type") == "code"]
    lines = [line for source in sources for line in source.splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
