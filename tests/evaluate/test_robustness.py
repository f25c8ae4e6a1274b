"""Turned and scaled views: their geometry, what a perfect method scores on them, and the charts."""

import numpy as np
import pandas as pd
import pytest

from kp2d import checks, config, geometry, images
from kp2d.data import datasets
from kp2d.evaluate import robustness, tables
from kp2d.viz import cost_charts

SIZE, PHOTOGRAPH = (96, 128), (240, 320)


def between(views):
    homography = np.linalg.solve(views[1], views[0])
    return homography / homography[2, 2]


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_a_turned_view_is_turned_about_its_middle_and_stays_inside(degrees):
    views = robustness.turned(PHOTOGRAPH, SIZE, degrees)
    angle, scale = geometry.similarity(between(views), SIZE)
    assert abs(angle) == pytest.approx(degrees, abs=1e-6) and scale == pytest.approx(1)
    for view in views:
        assert geometry.inside(geometry.warp_points(geometry.corners(SIZE), view), PHOTOGRAPH).all()


def test_a_positive_rotation_is_counterclockwise_as_one_sees_it():
    homography = between(robustness.turned(PHOTOGRAPH, SIZE, 90))
    right_of_the_middle = np.array([[(SIZE[1] - 1) / 2 + 10, (SIZE[0] - 1) / 2]])
    above = geometry.warp_points(right_of_the_middle, homography)
    np.testing.assert_allclose(above, [[(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2 - 10]], atol=1e-6)
    assert geometry.similarity(homography, SIZE)[0] == pytest.approx(90)


@pytest.mark.parametrize("factor", [0.25, 0.5, 1, 2, 4])
def test_a_scaled_view_shows_things_larger_by_the_factor(factor):
    views = robustness.scaled(PHOTOGRAPH, SIZE, factor)
    assert geometry.similarity(between(views), SIZE) == (pytest.approx(0), pytest.approx(factor))
    for view in views:
        assert geometry.inside(geometry.warp_points(geometry.corners(SIZE), view), PHOTOGRAPH).all()


@pytest.fixture
def photograph(tmp_path, textured):
    path = tmp_path / "scene.png"
    images.write_image(path, textured(PHOTOGRAPH))
    return path


def study(paths, **options):
    protocol = config.protocol(image_size=SIZE, top_k=(60,))
    return robustness.study(["sift", "orb"], {"d": paths}, protocol, profile="p", progress=False, **options)


def test_views_that_do_not_differ_score_perfectly(photograph):
    rows = study([photograph], rotations=[0], scales=[1])
    assert tuple(rows.columns) == ("amount", *tables.EVALUATION_COLUMNS)
    assert rows[["method", "subset", "amount"]].to_numpy().tolist() == [
        ["sift", "rotation", 0.0],
        ["sift", "scale", 1.0],
        ["orb", "rotation", 0.0],
        ["orb", "scale", 1.0],
    ]
    assert rows["repeatability"].eq(1).all() and rows["d1"].eq(1).all()


def test_the_study_is_the_same_twice_and_its_chart_is_drawn(photograph, tmp_path):
    options = {"rotations": [0, 40], "scales": [0.5, 1, 2]}
    rows = study([photograph], **options)
    pd.testing.assert_frame_equal(rows, study([photograph], **options))
    figure = cost_charts.plot_robustness(rows)
    assert len(figure.axes) == 4


@pytest.mark.parametrize(("count", "options"), [(0, {}), (1, {"scales": [0.0]})])
def test_bad_input_is_named(photograph, count, options):
    with pytest.raises(checks.InputError, match="photographs and positive scales"):
        study([photograph][:count], **options)


def test_no_scene_of_the_sample_is_taken_twice(tiny_dataset):
    sequences = datasets.load_sequences(tiny_dataset)
    ((dataset, paths),) = robustness.first_images(sequences, 5).items()
    assert len(paths) == 2
    assert robustness.first_images(sequences, 1) == {dataset: [sequences[0].images[0]]}


def test_a_pyramid_is_scored_on_scales_and_on_real_pairs(photograph, tiny_dataset):
    sequences, protocol = datasets.load_sequences(tiny_dataset), config.protocol(image_size=SIZE, top_k=(60,))
    how = {"profile": "p", "progress": False}
    rows = robustness.pyramid_study(["kp2d_nano:int8"], sequences, {"d": [photograph]}, protocol, **how)
    assert list(rows["method"].unique()) == ["kp2d_nano", "kp2d_nano+pyramid2"]
    assert set(rows.dropna(subset="amount")["amount"]) == set(robustness.PYRAMID_SCALES)
    assert set(rows[rows["amount"].isna()]["subset"]) == {"viewpoint", "illumination", "all"}
    assert len(rows[["method", "cpu_ms"]].drop_duplicates()) == 2 and (rows["cpu_ms"] > 0).all()
    assert rows["config_hash"].nunique() == 2
