"""The latency table: every precision, size and number of threads, beside SIFT and ORB within one run."""

import dataclasses
import importlib.metadata
import importlib.util
import sys

import pytest
from shipped_models import prepared

from kp2d import files
from kp2d.checks import InputError
from kp2d.device import latency
from kp2d.methods import learned, matching, networks, weights


def test_every_method_is_timed_in_the_same_run():
    precisions = ("float32", "int8")
    rows = latency.bench_latency(["kp2d_tiny_s"], [(88, 88)], threads=[1], precisions=precisions, repeats=2)
    assert rows["precision"].tolist() == [*precisions, "float32", "float32"]
    assert rows["method"].tolist() == ["kp2d_tiny_s"] * 2 + ["sift", "orb"]
    ours, classical = rows[:2], rows[2:]
    assert (rows[["extract_ms", "match_ms", "bfmatcher_ms"]] > 0).all(axis=None)
    (run,) = set(rows["run"])
    assert run == f"litert {importlib.metadata.version('ai-edge-litert')}"
    assert (ours["network_ms"] + ours["decode_ms"] - ours["extract_ms"]).abs().max() < 0.5
    assert classical["network_ms"].isna().all()
    assert (rows["extract_ms_p90"] >= rows["extract_ms"]).all()
    assert rows["times_as_fast_as_float32"].iloc[0] == 1 and rows["times_as_fast_as_sift"].iloc[2] == 1
    assert set(rows["image_height"]) == {88} and set(rows["threads"]) == {1}


def test_a_model_file_is_timed(tmp_path):
    path = tmp_path / "mine.tflite"
    path.write_bytes(prepared().pack())
    rows = latency.bench_latency([str(path)], [(88, 88)], threads=[1], classical=(), repeats=1)
    assert rows[["method", "precision"]].to_numpy().tolist() == [["mine", "int8"]]
    with pytest.raises(InputError, match="compiled models; received kp2d_tiny_s"):
        latency.bench_latency(["kp2d_tiny_s"], [(88, 88)], use_tpu=True)
    assert rows["times_as_fast_as_sift"].isna().all()


def test_a_file_is_named_as_it_is_elsewhere_and_never_hides_another_method(tmp_path):
    shipped = weights.shipped_path("kp2d_nano", "int8")
    own, same = tmp_path / "mine.int8.tflite", tmp_path / shipped.name
    for path in (own, same):
        path.write_bytes(shipped.read_bytes())
    networks = ["kp2d_nano:int8", str(own), str(same)]
    rows = latency.bench_latency(networks, [(88, 88)], threads=[1], classical=("sift",), repeats=1)
    assert rows["method"].tolist() == ["kp2d_nano", "mine", "kp2d_nano.int8", "sift"]
    assert rows["weights_sha256"].tolist() == [files.sha256(own)[:12]] * 3 + [""]


def test_float_weights_of_ones_own_are_converted_and_timed(tmp_path):
    path = tmp_path / "kp2d_nano.weights.h5"
    path.write_bytes(weights.shipped_path("kp2d_nano").read_bytes())
    rows = latency.bench_latency([str(path)], [(88, 88)], threads=[1], classical=(), repeats=1)
    assert rows[["method", "precision"]].to_numpy().tolist() == [["kp2d_nano", "float32"]]
    assert rows["weights_sha256"].tolist() == [files.sha256(path)[:12]]


def test_the_vote_on_a_turn_is_part_of_the_time_of_matching(monkeypatch):
    votes = []
    monkeypatch.setattr(matching, "best_turn", lambda *descriptors: votes.append(descriptors) or 1)
    network = learned.load("kp2d_nano", precision="int8")
    methods = {steered: dataclasses.replace(network, steered=steered) for steered in (False, True)}
    taken = latency._measure(methods, latency._photographs((88, 88)), threads=1, top_k=50, repeats=2)
    assert len(votes) == 3 and [len(taken[steered]["match"]) for steered in methods] == [2, 2]


def test_without_tensorflow_only_integers_are_timed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name)
    )
    monkeypatch.setitem(sys.modules, "kp2d.quantize.convert", None)
    rows = latency.bench_latency(["kp2d_tiny_s"], [(88, 88)], threads=[1], repeats=1)
    assert rows["precision"].tolist() == ["int8_ptq", "int8", "float32", "float32"]


def test_only_shipped_networks_are_timed():
    with pytest.raises(InputError, match="shipped network"):
        latency.bench_latency(["kp2d_tiny_x"], [(88, 88)])
    with pytest.raises(InputError, match="a precision out of float32"):
        latency.bench_latency(["kp2d_tiny_s"], [(88, 88)], precisions=["int9"])
    with pytest.raises(InputError, match="at least one repeat"):
        latency.bench_latency(["kp2d_tiny_s"], [(88, 88)], repeats=0)


@pytest.mark.parametrize("beside", [[], ["kp2d_tiny_s"]])
def test_networks_cost_what_they_cost_whatever_their_weights(beside, small_preset):
    rows = latency.network_costs([small_preset, *beside], [(48, 64), (96, 64)], threads=[1], repeats=2)
    assert list(rows["network"]) == [small_preset, *beside]
    (row, *_) = rows.to_dict("records")
    assert set(row) >= {"ms_48x64_1", "ms_96x64_1"} and row["unmapped"] == 4  # depth-to-space and after it
    assert 0 < row["of_tiny_s"] < 1 and row["of_sift"] > 0 and row["kib"] < 40
    assert row["parameters"] == networks.build_network(small_preset).count_params()
    assert row["gmacs"] == round(networks.count_macs(small_preset, (96, 64)) / 1e9, 3)
    # two inputs of its largest layer: 4 channels at full resolution
    assert row["arena_kib"] == 2 * 4 * 48 * 64 / 1024
