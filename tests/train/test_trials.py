"""Recipes side by side: same start, one table of losses, finished runs reused; the ranking of variants."""

import numpy as np
import pandas as pd
import pytest

from kp2d import checks, config, paths
from kp2d.data import datasets, samples
from kp2d.evaluate import ranking, tables
from kp2d.methods import extractors, weights
from kp2d.reproduce import settings
from kp2d.train import trials
from kp2d.train.recipes import from_recipe
from kp2d.viz import cost_charts, figures, network_charts

pytestmark = pytest.mark.usefixtures("eager")

SETTINGS = {
    "image_size": (32, 48), "batch_size": 2, "warmup": 2, "workers": 0, "wandb": False, "tensorboard": False,
    "augment.zoom": (0.5, 1.0),
}  # fmt: skip


@pytest.fixture
def trained(photos, small_preset, tmp_path):
    def run(steps, **changes):
        settings = {**SETTINGS, "preset": small_preset, **changes}
        return trials.train_recipes(steps, data=photos, output=tmp_path / "out", progress=False, **settings)

    return run


def test_recipes_start_alike_and_leave_weights_that_are_methods(trained, tmp_path):
    folders = trained({"kp2d": 2, "kp2d_plus": 3})
    assert list(folders) == ["untrained", "kp2d", "kp2d_plus"]
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    scores = {}
    for name, folder in folders.items():
        extractor = extractors.create(str(folder))
        assert extractor.name == extractors.label(str(folder)) == name
        scores[name] = extractor.extract(image).scores
    assert not np.array_equal(scores["untrained"], scores["kp2d"])
    assert not np.array_equal(scores["untrained"], scores["kp2d_plus"])
    kept = trials.keep_last(folders, tmp_path / "trained_here")
    assert kept.name == "trained_here.weights.h5"
    extractor = extractors.create(str(kept))
    assert extractor.name == "trained_here"
    np.testing.assert_array_equal(extractor.extract(image).scores, scores["kp2d_plus"])


def test_finished_recipes_are_reused_until_settings_change(trained):
    steps = {"kp2d_plus": 2}
    weights = next(trained(steps)["kp2d_plus"].glob("*.weights.h5"))
    written = weights.stat().st_mtime_ns
    same = trained(steps)["kp2d_plus"]
    assert weights.parent == same and len(trials.loss_table({"x": same})) == 2
    other = trained(steps, seed=1)["kp2d_plus"]
    assert other != same and not same.exists()
    assert written


def test_loss_table_and_chart_tell_the_kinds_of_descriptor_loss_apart(trained, tmp_path):
    log = trials.loss_table(trained({"kp2d": 2, "kp2d_plus": 3}))
    assert list(log["step"]) == [1, 2, 1, 2, 3] and list(log["pairs"]) == [2, 4, 2, 4, 6]
    assert not set(trials._TIMES) & set(log)
    plus = log["recipe"] == "kp2d_plus"
    assert log.loc[plus, "triplet"].isna().all() and log.loc[~plus, "triplet"].notna().all()
    assert log.loc[plus, "dual_softmax"].notna().all() and log.loc[~plus, "dual_softmax"].isna().all()
    figure = network_charts.plot_losses(log)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [title for title, _ in network_charts.TERMS.values()]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kp2d", "kp2d_plus"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    drawn = figures.save_figure(figure, tmp_path / "losses.svg").read_bytes()
    assert drawn == figures.save_figure(network_charts.plot_losses(log), tmp_path / "again.svg").read_bytes()


def test_what_cannot_be_charted_or_trained_is_refused(trained, tmp_path):
    with pytest.raises(checks.InputError, match="one or more recipes"):
        trained({})
    with pytest.raises(checks.InputError, match="kp2d_plus"):
        trained({"kp2d_plush": 2})
    with pytest.raises(checks.InputError, match="log of at least one run"):
        trials.loss_table({"x": tmp_path})
    with pytest.raises(checks.InputError, match="at least one of the terms"):
        network_charts.plot_losses(pd.DataFrame({"recipe": ["kp2d"], "pairs": [8]}))
    with pytest.raises(checks.InputError, match="recipe and pairs"):
        network_charts.plot_losses(pd.DataFrame({"localization": [1.0]}))


def test_example_pairs_are_views_of_the_asked_size(photos):
    views = trials.example_pairs("kp2d_plus", photos, image_size=(32, 48), batch_size=3)
    assert [view.shape for view in views] == [(3, 32, 48, 3)] * 2
    again = trials.example_pairs("kp2d_plus", photos, image_size=(32, 48), batch_size=3)
    np.testing.assert_array_equal(views, again)


def test_an_example_step_is_a_learner_and_a_pair_of_that_step(photos, small_preset):
    given = {"image_size": (32, 48), "augment.zoom": (0.5, 1.0)}
    learner, batch = trials.example_step("kp2d_plus", photos, step=3, preset=small_preset, **given)
    assert batch["image0"].shape == (1, 32, 48, 3) and batch["homography"].shape == (1, 3, 3)
    assert learner(batch)["score_map"].shape == (2, 8, 12, 1)
    assert not np.array_equal(batch["image0"], trials.example_step("kp2d", photos, **given)[1]["image0"])


def test_the_network_of_an_example_step_is_the_shipped_one(photos):
    learner, _ = trials.example_step("kp2d", photos, preset="kp2d_nano", image_size=(32, 48))
    shipped, _ = weights.load_network("kp2d_nano", weights.shipped_path("kp2d_nano"))
    for ours, theirs in zip(learner.network.get_weights(), shipped.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_demonstration_measures_on_scenes_that_it_does_not_learn_from(tmp_path):
    folder = samples.training_photographs(tmp_path / "photographs")
    learned_from = {path.stem for path in folder.iterdir()}
    assert learned_from == samples.redistributable() - set(samples.HELD_OUT)
    assert len(datasets.list_images(folder)) == len(learned_from) > 4


def test_training_settings_come_from_the_profile_or_the_notebook(home, monkeypatch, photos):
    samples.prepare_profile(config.profile("smoke"), progress=False)
    chosen = settings.training_settings("smoke")
    assert chosen.steps == config.profile("smoke").train_steps
    assert chosen.photographs == paths.data("smoke") / "photographs"
    assert {s.name.partition("_")[2] for s in chosen.sequences} == set(samples.HELD_OUT)
    chosen = settings.training_settings("smoke", recipes=["kp2d"], steps=[7], photographs=str(photos))
    assert (chosen.steps, chosen.photographs) == ({"kp2d": 7}, photos)
    with pytest.raises(checks.InputError, match="number of steps for each of kp2d, kp2d_plus"):
        settings.training_settings("smoke", steps=[7])
    with pytest.raises(checks.InputError, match="recipe"):
        settings.training_settings("smoke", recipes=["superpoint"])


def test_variants_are_recipes_that_exist(photos):
    for changes in ranking.VARIANTS.values():
        recipe = changes.get("recipe", "kp2d_plus")
        from_recipe(recipe, data="", output="", **{k: v for k, v in changes.items() if k != "recipe"})


def test_ranking_has_a_row_a_variant_and_subset_best_first(photos, small_preset, tiny_dataset, tmp_path):
    names = ["kp2d_plus", "kp2d, the paper's", "no corner teacher"]
    arguments = {
        "data": photos, "output": tmp_path / "out", "progress": False, "preset": small_preset, **SETTINGS,
        "protocol": config.protocol(image_size=(48, 64), top_k=(50,)),
    }  # fmt: skip
    sequences = datasets.load_sequences(tiny_dataset)
    variants = {name: ranking.VARIANTS[name] for name in names}
    table = ranking.rank(variants, sequences, steps=2, **arguments)
    assert tuple(table.columns) == ranking.COLUMNS
    assert len(table) == 9 and set(table["variant"]) == set(names)
    best = table[table["subset"] == "all"]
    assert best["d3"].is_monotonic_decreasing and (best["pairs"] == 4).all()
    paper = table[table["variant"] == "kp2d, the paper's"]
    assert (paper["recipe"] == "kp2d").all() and (paper["changes"] == "recipe=kp2d").all()
    with pytest.raises(checks.InputError, match="either seconds or steps"):
        ranking.rank(variants, sequences, **arguments)
    with pytest.raises(checks.InputError, match="number of steps for every variant"):
        ranking.rank(variants, sequences, steps={"kp2d_plus": 2}, **arguments)


def test_ranking_gives_each_variant_the_steps_of_its_time(
    photos, small_preset, tiny_dataset, tmp_path, monkeypatch
):
    speeds = {"kp2d": 1.0, "kp2d_plus": 3.0}
    monkeypatch.setattr(
        ranking, "bench_train", lambda run, **_: {"pairs_per_second": speeds[run.recipe], "batch_size": 2}
    )
    noted = tmp_path / "out" / "kp2d_plus" / "speed.json"
    noted.parent.mkdir(parents=True)
    noted.write_text('{"config": "of other settings", "pairs_per_second": 99.0}')
    table = ranking.rank(
        {name: ranking.VARIANTS[name] for name in ("kp2d_plus", "kp2d, the paper's")},
        datasets.load_sequences(tiny_dataset)[:1],
        data=photos,
        output=tmp_path / "out",
        protocol=config.protocol(image_size=(48, 64), top_k=(50,)),
        seconds=2,
        progress=False,
        preset=small_preset,
        **SETTINGS,
    )
    assert dict(zip(table["recipe"], table["steps"], strict=True)) == {"kp2d": 1, "kp2d_plus": 3}
    assert (table["seconds"] == 2).all()
    with pytest.raises(checks.InputError, match="positive number of seconds"):
        ranking.rank(
            {"kp2d_plus": {}}, [], data=photos, output=tmp_path, protocol=config.protocol(), seconds=0
        )


def test_the_chart_of_recipes_has_a_line_a_variant_with_its_interval():
    rows = pd.DataFrame(
        [
            {"variant": name, **dict.fromkeys(tables.METRICS, value)}
            for name, value in (("a", 0.2), ("b", 0.6))
        ]
    )
    rows = rows.assign(
        **{
            name: rows[name[: name.rindex("_")]] + (0.1 if name.endswith("high") else -0.1)
            for name in tables.INTERVALS
        }
    )
    places = network_charts.plot_recipes(rows).axes
    assert [label.get_text() for label in places[0].get_yticklabels()] == ["a", "b"]  # the best on top
    assert places[1].lines[0].get_xdata().tolist() == [0.2, 0.6]
    assert [segment[:, 0].tolist() for segment in places[0].collections[0].get_segments()] == [
        pytest.approx([0.1, 0.3]),
        pytest.approx([0.5, 0.7]),
    ]
    with pytest.raises(checks.InputError, match="d3_low"):
        network_charts.plot_recipes(rows.drop(columns="d3_low"))
    chart = cost_charts.plot_networks(
        rows.assign(network=["nano_flat", "kp2d_nano"], ms_240x320_2=[1.2, 2.4])
    )
    for place, metric in zip(chart.axes, cost_charts.SHOWN, strict=True):
        drawn = {tuple(np.ravel(line.get_xydata())) for line in place.lines}
        assert {(1.2, 0.2), (2.4, 0.6)} <= drawn, metric
    assert "kp2d bench networks" in cost_charts.plot_networks(rows[:0]).axes[0].texts[0].get_text()
    with pytest.raises(checks.InputError, match="ms_240x320_2"):
        cost_charts.plot_networks(rows.assign(network=["a", "b"]))


def test_without_a_table_of_recipes_the_chart_says_what_makes_one(tmp_path):
    columns = ("variant", "subset", *tables.INTERVALS)
    rows = tables.read_csv(tmp_path / "recipes.csv", columns, optional=True)
    chart = network_charts.plot_recipes(rows[rows["subset"] == "all"])
    assert "kp2d bench recipes" in chart.axes[0].texts[0].get_text()
    with pytest.raises(checks.InputError, match="no such file"):
        tables.read_csv(tmp_path / "recipes.csv", columns)
    (tmp_path / "recipes.csv").write_text("variant\n1\n")
    with pytest.raises(checks.InputError, match="subset"):
        tables.read_csv(tmp_path / "recipes.csv", columns, optional=True)
