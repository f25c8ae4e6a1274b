"""The trainer: learns, resumes exactly, refuses NaN, logs everywhere, explains what is wrong."""

import csv
import json
import signal

import keras
import numpy as np
import pytest

from kp2d import files
from kp2d.checks import InputError
from kp2d.methods import networks
from kp2d.methods.networks import build_network
from kp2d.train import checkpoint, training
from kp2d.train.checkpoint import read_rows
from kp2d.train.learner import corner_weight, learning_rate
from kp2d.train.recipes import RECIPES, LossConfig, TrainConfig, from_recipe, replace
from kp2d.train.terms import CORNER_TERMS, term_weights

pytestmark = pytest.mark.usefixtures("eager")


def run(config, **arguments):
    return training.train(config, progress=False, **arguments)


def column(rows, name):
    return [row[name] for row in rows]


@pytest.mark.compiled
def test_a_short_run_learns_and_leaves_its_files(small_run, tmp_path):
    result = run(small_run(steps=30, log_every=5, checkpoint_every=15, tensorboard=True))
    losses = column(result.rows, "loss")
    assert losses[-1] < 0.8 * losses[0]
    assert column(result.rows, "step") == [5, 10, 15, 20, 25, 30]
    with (tmp_path / "run" / "log.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [5, 10, 15, 20, 25, 30]
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    assert result.pairs_per_second > 0 and 0 <= result.wait_share < 1
    again = build_network("test_small")
    again.load_weights(result.weights_path)
    for saved, kept in zip(again.weights, result.network.weights, strict=True):
        np.testing.assert_array_equal(saved, kept)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resumed_run_equals_an_uninterrupted_one(dropout, small_run, tmp_path, monkeypatch):
    whole = run(small_run(dropout=dropout, output=str(tmp_path / "whole")))
    steps = []

    def interrupt(self, every, original=training._Run._due):
        steps.append(self.step)
        if self.step == 5:
            raise RuntimeError("killed")
        return original(self, every)

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "_due", interrupt)
        with pytest.raises(RuntimeError, match="killed"):
            run(small_run(dropout=dropout))
    resumed = run(small_run(dropout=dropout))
    assert column(resumed.rows, "step") == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(column(resumed.rows, "loss"), column(whole.rows, "loss"), rtol=0, atol=1e-4)
    for one, other in zip(whole.network.weights, resumed.network.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_log_survives_a_line_cut_short(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,usp\n1,2.0,\n2,1.5,0.1\n3,1.0,0.1\n4,0.")
    rows = read_rows(tmp_path / "log.csv", last_step=2)
    assert rows == [{"step": 1, "loss": 2.0, "usp": ""}, {"step": 2, "loss": 1.5, "usp": 0.1}]
    assert len(read_rows(tmp_path / "log.csv")) == 3


def test_finished_run_is_not_repeated(small_run):
    first = run(small_run())
    again = run(small_run())
    assert again.rows == first.rows


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(small_run, tmp_path, monkeypatch):
    original = training.DataParallel.step
    calls = []

    def poisoned(self, learner, batch):
        calls.append(1)
        values = original(self, learner, batch)
        return values | ({"usp": float("nan")} if len(calls) == 5 else {})

    monkeypatch.setattr(training.DataParallel, "step", poisoned)
    with pytest.raises(training.DivergenceError, match=r"step 4: \['usp'\].*step-00000003.npz"):
        run(small_run())
    kept = checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in kept] == ["step-00000003.npz"]


def test_exploding_weights_are_noticed(small_run):
    config = small_run(learning_rate=1e30, clip_norm=None, warmup=0)
    with pytest.raises(training.DivergenceError, match="learning_rate"):
        run(config)


def test_output_of_another_run_is_refused(small_run):
    run(small_run())
    with pytest.raises(InputError, match=r"\['learning_rate', 'seed'\]"):
        run(small_run(seed=1, learning_rate=1e-4))


def test_a_second_run_in_the_same_folder_is_refused(small_run, tmp_path):
    with (
        files.alone(tmp_path / "run", "run"),
        pytest.raises(InputError, match=r"no other training run in .*by process"),
    ):
        training.train(small_run(), progress=False)


def test_missing_folder_is_refused_before_anything_is_built(small_run):
    with pytest.raises(InputError, match="folder"):
        run(small_run(data="/nowhere"))


def test_wandb_without_account_is_offline_and_silent(small_run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    run(small_run(wandb=True, steps=2, checkpoint_every=2))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_validation_joins_the_log(small_run, photos):
    rows = run(small_run(validation=str(photos), validate_every=3)).rows
    assert np.isfinite([rows[2]["validation_localization"], rows[-1]["validation_loss"]]).all()
    assert rows[0].get("validation_loss", "") == ""


def test_kp2d_recipe_trains_ionet(small_run, photos, tmp_path):
    kp2d = from_recipe("kp2d", data=str(photos), output=str(tmp_path / "kp2d"))
    config = small_run(loss=kp2d.loss, dropout=kp2d.dropout, **{"loss.inlier_points": 40})
    rows = run(config).rows
    assert {"localization", "usp", "consistency", "descriptor", "inlier"} <= rows[0].keys()
    assert "corner_offset" not in rows[0]
    assert all(np.isfinite(column(rows, "loss")))


def test_initial_weights_fit_a_network_with_dropout(small_run, tmp_path):
    first = run(small_run())
    config = small_run(initial_weights=str(first.weights_path), dropout=0.2, output=str(tmp_path / "second"))
    learner = training.build_learner(config, training.get_preset(config.preset))
    by_name = {weight.path: weight for weight in first.network.weights}
    for weight in learner.network.weights:
        np.testing.assert_array_equal(weight, by_name[weight.path])
    with pytest.raises(InputError, match="the path and the preset"):
        training.build_learner(
            replace(config, initial_weights="/nowhere.weights.h5"),
            training.get_preset(config.preset),
        )


def test_average_follows_slowly_and_forgets_the_start():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.set_weights([np.array([[1.0]]), np.array([0.0])])
    average = checkpoint.WeightAverage(network, decay=0.9)
    network.set_weights([np.array([[3.0]]), np.array([0.0])])
    average.update(1)
    assert average.values[0] == 1.0  # only every fifth step
    average.update(5)
    assert 1 < average.values[0] < 3
    for step in range(10, 2000, 5):
        average.update(step)
    assert average.values[0] == pytest.approx(3.0, abs=1e-3)


def test_checkpoint_of_another_network_is_refused(small_run, small_preset, tmp_path):
    run(small_run())
    path = checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    other = training.build_learner(small_run(preset="kp2d_tiny_s"), training.get_preset("kp2d_tiny_s"))
    average = checkpoint.WeightAverage(other.network, 0.9)
    with pytest.raises(InputError, match="checkpoint of this network"):
        checkpoint.load_checkpoint(path, other, average)


@pytest.mark.parametrize("warmup", [0, 1, 10, 30])  # steps; at most a tenth of the run counts
def test_learning_rate_warms_up_and_falls(warmup, small_run):
    steps, peak, final, rise = 100, 0.3, 0.01, min(warmup, 10)
    config = small_run(steps=steps, warmup=warmup, learning_rate=peak, final_rate=final)
    step = np.arange(steps + 3)
    warm = peak * np.minimum(1, (step + 1) / max(1, rise))
    cosine = (1 + np.cos(np.pi * np.clip((step - rise) / (steps - rise), 0, 1))) / 2
    rates = [float(learning_rate(config)(s)) for s in step]
    np.testing.assert_allclose(rates, warm * (final + (1 - final) * cosine), rtol=0, atol=1e-7)
    halving = learning_rate(replace(config, schedule="halve", halve_every=0.4))
    rates = [float(halving(s)) for s in step]
    np.testing.assert_allclose(rates, warm * 0.5 ** (step // 40), rtol=0, atol=1e-7)


def test_corner_teacher_withdraws():
    config = LossConfig(corner_hold=0.4, corner_end=0.6)
    weights = [corner_weight(step, 100, config) for step in (0, 39, 50, 60, 99)]
    assert weights == pytest.approx([1, 1, 0.5, 0, 0])


def test_corner_teacher_counts_by_its_present_weight(small_run):
    config = small_run(**{"loss.corner_hold": 0.2, "loss.corner_end": 0.7})
    weights = term_weights(config.loss)
    for row in run(config).rows:
        weight = corner_weight(row["step"] - 1, config.steps, config.loss)
        factors = {name: weights[name] * (weight if name in CORNER_TERMS else 1) for name in weights}
        total = sum(factor * row[name] for name, factor in factors.items())
        assert row["loss"] == pytest.approx(total, abs=1e-4)


def test_replace_reaches_nested_fields_and_names_the_nearest():
    config = from_recipe("kp2d_plus", data="d", output="o", **{"loss.descriptor": 2.0, "steps": 7})
    assert config.loss.descriptor == 2.0 and config.steps == 7
    with pytest.raises(InputError, match=r"loss\.descriptor"):
        replace(config, **{"loss.descriptr": 1.0})
    with pytest.raises(InputError, match="kp2d_plus"):
        from_recipe("kp2d_pls", data="d", output="o")


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 0}, {"devices": 3}, {"schedule": "step"}, {"ema": 1.0}, {"learning_rate": 0}],
)
def test_bad_settings_are_refused(change):
    with pytest.raises(InputError, match=f"train.*{next(iter(change))}"):
        TrainConfig(data="d", output="o", **change)


def test_bad_kinds_are_refused():
    with pytest.raises(InputError, match="consistency_kind"):
        LossConfig(consistency_kind="nearest")
    with pytest.raises(InputError, match="descriptor_kind"):
        LossConfig(descriptor_kind="cosine")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_json(name):
    import dataclasses

    json.dumps(dataclasses.asdict(from_recipe(name, data="d", output="o")))


def test_batch_statistic_that_is_not_finite_is_refused(small_run, monkeypatch):
    def poison(self, batch, original=training._Run._one_step):
        values = original(self, batch)
        statistic = next(w for w in self.learner.network.weights if w.path.endswith("moving_variance"))
        if self.step == 4:
            statistic.assign(np.full(statistic.shape, np.inf))
        return values

    monkeypatch.setattr(training._Run, "_one_step", poison)
    with pytest.raises(training.DivergenceError, match="weights not finite"):
        run(small_run(steps=6, checkpoint_every=3))


def test_a_seed_is_one_start_with_dropout_and_without(small_run):
    starts = []
    for dropout in (0.0, 0.2):
        keras.utils.set_random_seed(3)
        network = training.build_learner(
            small_run(dropout=dropout), networks.get_preset("test_small")
        ).network
        starts.append({w.path: keras.ops.convert_to_numpy(w) for w in network.weights})
    for path, value in starts[0].items():
        np.testing.assert_array_equal(value, starts[1][path], err_msg=path)


def test_interrupt_waits_for_the_end_of_a_step(small_run, tmp_path, monkeypatch):
    whole = run(small_run(output=str(tmp_path / "whole")))
    handler = signal.getsignal(signal.SIGINT)  # a job in the background of a shell ignores it

    def interrupt(self, batch, original=training._Run._one_step):
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "_one_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(small_run())
    (last,) = checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")[-1:]
    assert last.name == "step-00000004.npz"
    assert column(run(small_run()).rows, "loss") == column(whole.rows, "loss")
    assert signal.getsignal(signal.SIGINT) is handler
