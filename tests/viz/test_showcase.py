"""Two images brought together, and which pairs are shown: as scored, best to worst, failures included."""

import math
import os

import numpy as np
import pytest
from matplotlib.figure import Figure

from kp2d import checks, config, images
from kp2d.data import datasets, locations, samples
from kp2d.evaluate import evaluation, tables
from kp2d.methods import extractors
from kp2d.reproduce import notebook, settings
from kp2d.viz import showcase

PROTOCOL = config.protocol(image_size=(96, 128), top_k=(200,))


@pytest.fixture
def sequences(tiny_dataset):
    return datasets.load_sequences(tiny_dataset)


@pytest.fixture
def scores(sequences):
    return evaluation.evaluate(extractors.create("sift"), sequences, PROTOCOL, progress=False)


def test_a_panel_shows_the_pair_just_as_it_was_scored(sequences, scores):
    for pair in (pair for sequence in sequences for pair in sequence.pairs):
        panel = showcase.match_panel(pair, "sift", PROTOCOL, top_k=200)
        row = scores[scores["pair"] == pair.name].iloc[0]
        assert panel["inliers"].sum() == row["num_inliers"]
        assert f"{row['corner_error']:.1f} px" in panel["title"]


def test_a_viewer_finds_homographies_as_kp2d_match_does(sequences, monkeypatch):
    titles = []
    draw = lambda **panel: titles.append(panel["title"])  # noqa: E731
    monkeypatch.setattr("kp2d.viz.pictures.draw_matches", draw)
    pair = sequences[1].pairs[0]
    showcase.renderer(sequences, PROTOCOL)(pair.name, "orb", 200, 0.0)
    panels = [
        showcase.match_panel(pair, "orb", PROTOCOL, top_k=200, estimator=name)
        for name in ("accurate", "ransac")
    ]
    assert panels[0]["title"] in titles[0]
    assert not np.array_equal(panels[0]["estimated"], panels[1]["estimated"])


def test_pairs_are_ranked_from_best_to_worst_with_failures_last(sequences, scores):
    scores.loc[scores["pair"] == "v_a 1-2", "corner_error"] = np.nan
    ranked = showcase.ranked_pairs(scores, sequences, "sift", top_k=200)
    assert len(ranked) == 4
    assert ranked[-1].name == "v_a 1-2"
    errors = scores.set_index("pair")["corner_error"]
    assert sorted(errors[[pair.name for pair in ranked[:-1]]]) == list(
        errors[[pair.name for pair in ranked[:-1]]]
    )
    assert showcase.typical_pair(ranked).subset == "viewpoint"


@pytest.mark.parametrize(
    "name",
    [
        b"v_caf\xe9",
        b"001",
        b"1e5",
        b"nan",
        b"None",
        b"true",
        b"v_\xff\xfe",
        b"a\rb",
        b'v_"a",\n',
        "v_写真".encode(),
    ],
)
def test_a_sequence_of_any_name_is_found_again_by_its_table(name, tiny_dataset, tmp_path):
    (tiny_dataset / "v_a").rename(tiny_dataset / os.fsdecode(name))
    sequences = datasets.load_sequences(tiny_dataset)
    scores = evaluation.evaluate(extractors.create("orb"), sequences, PROTOCOL, progress=False)
    read = tables.read_csv(tables.write_csv(tmp_path / "pairs.csv", scores))
    ranked = showcase.ranked_pairs(read, sequences, "orb", top_k=200)
    assert len(ranked) == sum(len(sequence.pairs) for sequence in sequences) == 4
    assert {row["sequence"] for row in datasets.describe(sequences)} == set(read["sequence"])


def test_spread_keeps_both_ends():
    assert showcase.spread(range(100), 4) == [0, 33, 66, 99]
    assert showcase.spread([1, 2], 4) == [1, 2]


def test_the_gallery_shows_every_sequence_in_order(sequences, scores):
    ranked = showcase.ranked_pairs(scores, sequences, "sift", top_k=200)
    chosen = showcase.gallery_pairs(ranked, 1)
    assert {pair.sequence for pair in chosen} == {"v_a", "i_b"}
    assert chosen == sorted(chosen, key=ranked.index)
    assert showcase.gallery_pairs(ranked, 99) == ranked


def test_only_photographs_that_may_be_shown_are_shown(sequences, tmp_path):
    assert len(showcase.presentable(sequences)) == 2
    (tmp_path / "tiny").rename(tmp_path / "sample")
    with pytest.raises(checks.InputError, match="licence"):
        showcase.presentable(datasets.load_sequences(tmp_path / "sample"))
    assert "astronaut" in samples.redistributable()
    assert not {"rocket", "motorcycle"} & samples.redistributable()


def test_pictures_of_several_methods(sequences):
    pair = sequences[1].pairs[0]
    for draw in (showcase.draw_methods, showcase.draw_detections):
        assert isinstance(draw(pair, ["sift", "orb"], PROTOCOL, top_k=100), Figure)
    assert isinstance(showcase.sequence_sheet(sequences), Figure)
    render = showcase.renderer(sequences, PROTOCOL)
    assert isinstance(render("v_a 1-2", "orb", 100, 0.5), Figure)


@pytest.mark.parametrize("most", [images.MAX_WHOLE, 72 * 96])  # these pictures count as giants
def test_ground_truth_is_better_than_a_shifted_one(most, sequences, tiny_dataset, monkeypatch):
    monkeypatch.setattr(images, "MAX_WHOLE", most)
    table = locations.ground_truth_residuals(sequences)
    assert list(table["subset"]) == ["illumination", "viewpoint"]
    assert (table["residual"] < table["shifted"]).all()
    victim = tiny_dataset / "v_a" / "2.png"
    victim.write_bytes(victim.read_bytes()[:200])
    assert math.isnan(locations.ground_truth_residuals(sequences)["residual"].iloc[1])


def test_checks_name_every_claim_that_fails():
    assert "one is one" in notebook.check(one_is_one=True).data
    with pytest.raises(checks.InputError, match="two is three; three is four"):
        notebook.check(one_is_one=True, two_is_three=False, three_is_four=False)


def test_settings_come_from_the_profile_unless_given(home):
    chosen = settings.evaluation_settings("smoke", methods=["orb"], image_size=[88, 88])
    assert chosen.methods == ("orb",)
    assert chosen.protocol.image_size == (88, 88)
    assert chosen.protocol.top_k == config.profile("smoke").top_k
    assert chosen.image_sizes == ((88, 88),)
    assert chosen.at_top_k(150).top_k == (150,) and chosen.at_top_k().top_k == (300,)
    assert settings.evaluation_settings("smoke", top_k=[100]).at_top_k().top_k == (100,)
    with pytest.raises(checks.InputError, match="k that is evaluated"):
        chosen.at_top_k(151)
    with pytest.raises(checks.InputError, match="Did you mean 'orb'"):
        settings.evaluation_settings("smoke", methods=["orbb"])
    assert settings.evaluation_settings("fast").image_sizes == ((88, 88), (240, 320), (480, 640))
    assert "nothing yet" in notebook.begin("smoke")._repr_markdown_()


def test_an_unreadable_picture_does_not_stop_the_sheet(tiny_dataset):
    (tiny_dataset / "v_a" / "2.png").write_bytes(b"")
    found = datasets.load_sequences(tiny_dataset)
    assert isinstance(showcase.sequence_sheet(found), Figure)
