"""The study of estimators: RANSAC as everywhere, means over orders of the matches, and the chart of it."""

import cv2
import numpy as np
import pandas as pd
import pytest

from kp2d import checks, config, geometry
from kp2d.data import datasets
from kp2d.evaluate import averages, estimators, evaluation
from kp2d.methods import extractors
from kp2d.methods.decode import Features
from kp2d.viz import evaluation_charts

PROTOCOL = config.protocol(image_size=(96, 128), top_k=(60, 120))
VIEW = np.array([[0.97, 0.05, 4], [-0.04, 1.02, -3], [1e-4, -2e-4, 1.0]])


def study(folder, methods=("sift", "orb"), **options):
    options = {"profile": "p", "progress": False, **options}
    return estimators.study(methods, datasets.load_sequences(folder), PROTOCOL, **options)


def test_every_method_and_subset_has_both_estimators_and_the_second_refined(tiny_dataset):
    table = study(tiny_dataset, orders=2)
    rules = table[["estimator", "ransac_threshold", "refine"]].drop_duplicates().to_numpy().tolist()
    assert rules == [
        ["opencv-ransac", 3.0, False],
        ["opencv-usac-accurate", 1.5, False],
        ["opencv-usac-accurate", 1.5, True],
    ]
    assert len(table) == 2 * 3 * len(rules) and (table["top_k"] == 120).all() and (table["orders"] == 2).all()
    assert (table["d1"].le(table["d3"]) & table["d3"].le(table["d5"])).all()
    for metric in estimators.METRICS:
        assert table[metric].between(table[f"{metric}_least"], table[f"{metric}_most"]).all()
    pd.testing.assert_frame_equal(study(tiny_dataset, orders=2), table)


def test_trust_is_counted_on_pairs_with_a_homography_and_without(tiny_dataset):
    for path in (tiny_dataset / "i_b").glob("*.png"):  # both sequences show one scene
        cv2.imwrite(str(path), cv2.flip(cv2.imread(str(path)), 1))
    sequences = datasets.load_sequences(tiny_dataset)
    table = estimators.trust_study(["sift"], sequences, (96, 128), profile="p", unrelated=2, progress=False)
    related, *unrelated = table.to_dict("records")
    assert (related["pairs"], related["around"]) == ("related", "nothing")
    assert related["num_pairs"] == sum(len(sequence.pairs) for sequence in sequences)
    counts = [related[f"num_{name}"] for name in ("pairs", "found", "right", "right_trusted")]
    assert counts == sorted(counts, reverse=True) and counts[-1] > 0
    assert [row["around"] for row in unrelated] == list(estimators.AROUND)
    for row in unrelated:
        assert (row["pairs"], row["num_trusted"], row["num_right"]) == ("unrelated", 0, 0)


@pytest.mark.parametrize(("around", "black"), [("black frame", 0.42), ("letterbox", 0.3), ("disk", 0.47)])
def test_what_lies_around_hides_the_borders_alone(around, black):
    image = np.full((240, 320, 3), 7, np.uint8)
    dressed = estimators.AROUND[around](image)
    assert (dressed.dtype, dressed.shape) == (np.uint8, image.shape)
    assert (dressed == 0).mean() == pytest.approx(black, abs=0.01)
    assert not dressed[0].any() and dressed[100:140, 100:200].all()


def test_in_kp2ds_order_ransac_scores_what_the_main_table_says(tiny_dataset):
    table = study(tiny_dataset, ["orb"], orders=1)
    pairs = evaluation.evaluate(
        extractors.create("orb"), datasets.load_sequences(tiny_dataset), PROTOCOL, progress=False
    )
    main = averages.summarize(pairs[pairs["top_k"] == 120])
    ransac = table[table["estimator"] == "opencv-ransac"].reset_index(drop=True)
    columns = ["subset", "num_pairs", "d1", "d1_low", "d1_high", "d3", "d5"]
    pd.testing.assert_frame_equal(ransac[columns], main[columns])


def test_the_mean_is_over_orders_and_their_least_and_most_are_told(tiny_dataset, monkeypatch):
    def errors(*_):
        for seed, error in enumerate((0.5, 2.0, 4.0, np.inf)):
            yield {"estimator": "ransac", "refine": False, "seed": seed, "corner_error": error}

    monkeypatch.setattr(estimators, "corner_errors", errors)
    row = study(tiny_dataset, ["orb"]).iloc[-1]
    assert row[["d1", "d3", "d5"]].tolist() == [0.25, 0.5, 0.75]
    assert row[["d1_low", "d1_high"]].tolist() == [0.25, 0.25]  # the order is no matter of the bootstrap
    assert row[["d3_least", "d3_most"]].tolist() == [0, 1]


def test_corner_errors_of_exact_matches_are_zero_and_of_three_infinite(textured):
    image = textured((96, 128))
    points0 = np.random.default_rng(0).uniform(10, [117, 85], (80, 2)).astype(np.float32)
    points1 = geometry.warp_points(points0, VIEW).astype(np.float32)
    descriptors = np.eye(80, dtype=np.float32)
    features = [
        Features(keypoints=points, scores=np.linspace(1, 0.1, 80, dtype=np.float32), descriptors=descriptors)
        for points in (points0, points1)
    ]
    for top_k, limit in ((80, 1e-3), (4, np.inf)):
        rules = config.protocol(image_size=(96, 128), top_k=(top_k,))
        chosen = [part.take(slice(top_k if top_k > 4 else 3)) for part in features]
        matched = evaluation.match_pair(*chosen, VIEW, rules, top_k=top_k)
        rows = list(estimators.corner_errors(matched, image, image, rules, range(2)))
        settings = [(row["estimator"], row["refine"], row["seed"]) for row in rows]
        assert len(set(settings)) == 2 + 2 * 2
        plain = [row["corner_error"] for row in rows if not row["refine"]]
        assert np.max(plain) <= limit and (np.isfinite(limit) or np.isinf(plain).all())


def test_a_pair_that_cannot_be_read_is_left_out(tiny_dataset):
    (tiny_dataset / "v_a" / "H_1_2").write_text("no numbers")
    table = study(tiny_dataset, ["orb"], orders=1)
    assert table[table["subset"] == "viewpoint"]["num_pairs"].unique().tolist() == [1]


def test_what_cannot_be_compared_is_refused(tiny_dataset):
    with pytest.raises(checks.InputError, match="orders"):
        study(tiny_dataset, orders=0)
    for path in tiny_dataset.glob("*/*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(checks.InputError, match="none of 4"):
        study(tiny_dataset)


def test_the_chart_has_a_panel_a_subset_and_a_step_an_estimator(tiny_dataset):
    table = study(tiny_dataset, orders=2)
    figure = evaluation_charts.plot_estimators(table[table["subset"] != "all"])
    panels = figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        "viewpoint · 2 pairs",
        "illumination · 2 pairs",
    ]
    names = [label.get_text() for label in panels[0].get_xticklabels()]
    assert names == ["RANSAC\n3 px", "USAC accurate\n1.5 px", "+ refined"]
    with pytest.raises(checks.InputError, match="d1_least"):
        evaluation_charts.plot_estimators(table.drop(columns="d1_least"))
    with pytest.raises(checks.InputError, match="one row for each"):
        evaluation_charts.plot_estimators(pd.concat([table, table]))
