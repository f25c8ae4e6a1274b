"""The table of notebook 04 and its chart: what the forecast says, what the compiler says, what is drawn."""

import numpy as np
import pandas as pd
import pytest

from kp2d import files
from kp2d.checks import InputError
from kp2d.device import compiler, deployment, edgetpu
from kp2d.methods import weights
from kp2d.quantize.flatbuffer import Model
from kp2d.reproduce import settings
from kp2d.viz import cost_charts

SIZES = [(64, 80)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return deployment.write_models(["kp2d_tiny_s"], SIZES, folder, precisions=("float32", "int8"))


def test_models_and_weights_of_ones_own_are_mapped_by_their_names(tmp_path):
    path = tmp_path / "mine.int8.tflite"
    path.write_bytes(weights.shipped_path("kp2d_nano", "int8").read_bytes())
    models = deployment.write_models(["kp2d_nano:int8", str(path)], SIZES, tmp_path / "models")
    assert models["method"].tolist() == ["kp2d_nano", "mine"]
    assert models["weights_sha256"].tolist() == [files.sha256(path)[:12]] * 2
    both = [file.read_bytes() for file in models["rewritten"]]
    assert both[0] == both[1]
    with pytest.raises(InputError, match="none at"):
        deployment.write_models([str(tmp_path / "lost.tflite")], SIZES, tmp_path)


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.delenv(compiler.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")


def test_every_model_has_a_row_with_its_costs(models, no_compiler):
    rows = deployment.deploy(models).set_index("precision")
    assert rows.loc["int8", ["num_unmapped_before", "num_unmapped"]].tolist() == [4, 0]
    assert rows.loc["int8", "blockers"] == "DEPTH_TO_SPACE"
    assert rows.loc["int8", "least_ms"] == pytest.approx(
        rows.loc["int8", "compute_ms"] + rows.loc["int8", "transfer_ms"], abs=2e-3
    )
    assert rows.loc["int8", "input_bytes"] == 64 * 80 * 3
    assert "Model not quantized" in rows.loc["float32", "failure"] and np.isnan(
        rows.loc["float32", "least_ms"]
    )
    assert set(rows["compiler"]) == {"skipped"}


def test_the_compilers_own_report_stands_beside_the_forecast(models, monkeypatch):
    found = compiler.Compilation(
        status="compiled", version="16.0.384591198", mapped=22, unmapped=0, on_chip_bytes=450_000
    )
    asked = []
    monkeypatch.setattr(compiler, "compile_model", lambda path, output: asked.append(output.name) or found)
    rows = deployment.deploy(models).set_index("precision")
    assert asked == ["kp2d_tiny_s.int8.64x80_edgetpu.tflite"]  # float32 is not even tried
    assert rows.loc["int8", "compiler"] == "16.0.384591198"
    assert rows.loc["int8", ["compiled_unmapped", "compiled_parameter_bytes"]].tolist() == [0, 450_000]


def test_rewriting_is_seen_to_change_nothing(models):
    photograph = settings.photograph(SIZES)
    assert deployment.same_integers(models, photograph)
    other = models.assign(rewritten=models["rewritten"].iloc[::-1].tolist())
    with pytest.raises((InputError, KeyError, ValueError)):
        deployment.same_integers(other.assign(precision="int8", image_height=60), photograph)


def test_the_status_says_how_to_get_the_compiler(no_compiler):
    assert deployment.compiler_status().startswith("status: skipped.")
    assert "apt-get install edgetpu-compiler" in deployment.compiler_status()


def times():
    networks = {"network_ms": 5.0, "decode_ms": 1.0, "extract_ms": 6.0, "match_ms": 2.0}
    sift = {"network_ms": np.nan, "decode_ms": np.nan, "extract_ms": 9.0, "match_ms": 2.0}
    common = {"image_height": 64, "image_width": 80}
    return pd.DataFrame(
        [
            {"method": method, "precision": precision, "threads": threads, **common, **parts}
            for threads in (1, 2)
            for method, precision, parts in (("kp2d_tiny_s", "int8", networks), ("sift", "float32", sift))
        ]
    )


def test_bars_add_up_and_the_least_time_is_marked(models, no_compiler):
    chart = cost_charts.plot_times(times(), deployment.deploy(models))
    (panel,) = chart.axes
    ends = [
        max(bar.get_x() + bar.get_width() for bar in panel.patches if bar.get_y() // 0.5 == k)
        for k in (-1, 1)
    ]
    assert ends == [8.0, 11.0]
    (diamond,) = panel.lines
    least = edgetpu.lint(Model.parse(models[models["precision"] == "int8"]["rewritten"].iloc[0].read_bytes()))
    assert diamond.get_xdata()[0] == pytest.approx(least.compute_ms + least.transfer_ms, abs=1e-3)
    assert panel.get_title(loc="left") == "80×64"


def test_a_table_that_is_none_is_refused():
    with pytest.raises(InputError, match="decode_ms"):
        cost_charts.plot_times(times().drop(columns="decode_ms"))
    with pytest.raises(InputError, match="an empty table"):
        cost_charts.plot_times(times()[:0])
