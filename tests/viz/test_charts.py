"""Tests what the charts show: lines, panels, titles, ticks; not how they look."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from kp2d import checks
from kp2d.viz import cost_charts, evaluation_charts, figures, panels


def table(methods=("sift", "kp2d_tiny_s"), subsets=("all", "viewpoint")):
    """Returns result rows: two methods, two subsets, one top_k."""
    rows = [
        {"method": m, "precision": "float32", "subset": s, "num_pairs": 5, "top_k": 300,
         "repeatability": 0.5, "localization_error": 0.8 + i,
         **{f"mma_{t}": t / (11 + i) for t in range(1, 11)}}
        for i, m in enumerate(methods) for s in subsets
    ]  # fmt: skip
    return pd.DataFrame(rows)


def pair_table():
    """Returns per-pair rows: sift finds 3 of 4 homographies, the network 2."""
    errors = {"sift": [0.5, 2.0, 4.0, np.nan], "kp2d_tiny_s": [0.4, 3.0, np.nan, np.nan]}
    rows = [
        {"method": m, "pair": f"v_a/{i}", "corner_error": e, "repeatability": 0.1 * i}
        for m, values in errors.items() for i, e in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def curve(axes, method, steps=False):
    """Returns a method's line of data in an axes."""
    color = figures.method_style(method)["color"]
    found = [line for line in axes.get_lines() if line.get_color() == color]
    return next(line for line in found if (line.get_drawstyle() != "default") == steps)


def test_mma_draws_one_line_a_method_and_one_panel_a_subset():
    figure = evaluation_charts.plot_mma(table())
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "viewpoint · 5 pairs",
        "all · 5 pairs",
    ]
    np.testing.assert_allclose(curve(figure.axes[1], "kp2d_tiny_s").get_ydata(), np.arange(1, 11) / 12)
    assert [text.get_text() for text in figure.axes[1].texts] == ["sift", "kp2d_tiny_s float32"]
    assert figure.axes[0].get_ylim()[0] == 0
    assert "(px)" in figure.axes[0].get_xlabel() and "(fraction)" in figure.axes[0].get_ylabel()


def test_correctness_counts_missing_homographies_as_failures():
    figure = evaluation_charts.plot_correctness(pair_table())
    (axes,) = figure.axes
    for method, d1, d3, d5 in (("sift", 0.25, 0.5, 0.75), ("kp2d_tiny_s", 0.25, 0.5, 0.5)):
        x, y = curve(axes, method, steps=True).get_data()
        read = [y[np.searchsorted(x, t, side="right") - 1] for t in (1, 3, 5)]
        np.testing.assert_allclose(read, [d1, d3, d5])
    assert axes.get_title(loc="left") == "all · 4 pairs"


def test_repeatability_by_k_marks_the_counts_measured():
    rows = pd.concat([table().assign(top_k=k) for k in (1000, 150, 300)])
    figure = evaluation_charts.plot_repeatability(rows)
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["150", "300", "1000"]
    assert list(curve(figure.axes[0], "sift").get_xdata()) == [150, 300, 1000]
    assert figure.axes[1].get_ylim()[0] == 0 and figure.axes[1].get_ylim()[1] >= 1.8


def test_against_counts_wins_failures_and_ties():
    figure = evaluation_charts.plot_against(pair_table(), "corner_error", "kp2d_tiny_s")
    title = figure.axes[0].get_title(loc="left")
    assert "4 pairs" in title and "better on 1, worse on 2, alike on 1" in title
    points = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 1], [0.4, 3.0, 100, 100])
    assert "alike on 4" in evaluation_charts.plot_against(pair_table(), "repeatability", "kp2d_tiny_s").axes[
        0
    ].get_title(loc="left")


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (
            lambda: evaluation_charts.plot_mma(table().drop(columns=["mma_3", "mma_7"])),
            "without mma_3, mma_7",
        ),
        (lambda: evaluation_charts.plot_mma(table().iloc[:0]), "at least one row"),
        (lambda: evaluation_charts.plot_mma(pd.concat([table(), table()])), "Choose one top_k"),
        (lambda: evaluation_charts.plot_mma([1, 2]), "DataFrame"),
        (lambda: evaluation_charts.plot_correctness(pd.DataFrame()), "without method, corner_error"),
        (lambda: evaluation_charts.plot_correctness(pd.concat([pair_table()] * 2)), "one row for each"),
        (lambda: evaluation_charts.plot_repeatability(table().iloc[:0]), "at least one row"),
        (lambda: evaluation_charts.plot_against(pair_table(), "corner_error", "kp2d_tiny_x"), "kp2d_tiny_s"),
        (lambda: evaluation_charts.plot_against(pair_table(), "nonsense", "sift"), "without nonsense"),
    ],
)
def test_charts_name_what_is_missing(draw, match):
    with pytest.raises(checks.InputError, match=match):
        draw()


def test_names_beside_curves_never_overlap():
    heights = np.array(panels._spread([0.9, 0.91, 0.2, np.nan, 0.905, 1.0], 0.06))
    assert np.diff(np.sort(heights)).min() >= 0.06 - 1e-9
    assert heights.min() >= 0 and heights.max() <= 1.0 + 1e-9
    assert list(np.argsort(heights)) == [3, 2, 0, 4, 1, 5]


def test_a_method_may_be_set_against_another_in_one_of_its_precisions():
    rows = pair_table()
    both = pd.concat([rows, rows[rows["method"] == "kp2d_tiny_s"].assign(precision="int8")])
    for method, label in (("kp2d_tiny_s:int8", "kp2d_tiny_s int8"), ("kp2d_tiny_s", "kp2d_tiny_s float32")):
        panel = evaluation_charts.plot_against(both, "corner_error", method).axes[0]
        assert panel.get_ylabel().startswith(label)
    with pytest.raises(checks.InputError, match="precision of kp2d_tiny_s"):
        evaluation_charts.plot_against(both, "corner_error", "kp2d_tiny_s:int4")


COSTS = pd.DataFrame(
    [
        {"method": m, "precision": p, "image_height": h, "image_width": w, "d3": v, "matching_score": v / 2}
        for m, p, v in (("sift", "float32", 0.8), ("kp2d_tiny_s", "int8", 0.9))
        for h, w in ((88, 88), (240, 320))
    ]
)


def test_accuracy_is_drawn_over_time_with_markers_that_grow_with_the_image():
    times = COSTS.assign(threads=2, extract_ms=[3.0, 15.0, 2.0, 10.0])
    times = pd.concat([times, times.assign(threads=1, extract_ms=99.0)])
    figure = cost_charts.plot_speed(COSTS, times)
    assert len(figure.axes) == 2
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1 and line.get_marker() != ""]
    sizes = {float(line.get_xdata()[0]): line.get_markersize() for line in points if line.get_xdata()[0] > 1}
    assert sizes[3.0] < sizes[15.0] and sizes[2.0] < sizes[10.0] and 99.0 not in sizes


def test_a_chart_of_times_without_any_says_so():
    figure = cost_charts.plot_speed(COSTS, COSTS.assign(image_height=1, threads=1, extract_ms=1.0))
    assert "timed" in figure.axes[0].texts[0].get_text()


def test_accuracy_is_drawn_over_bytes_and_methods_without_weights_as_lines():
    figure = cost_charts.plot_size(COSTS[COSTS["image_height"] == 240], {("kp2d_tiny_s", "int8"): 400_000})
    spans = [line for line in figure.axes[0].lines if list(line.get_ydata()) == [0.8, 0.8]]
    assert len(spans) == 1


def test_the_style_does_not_depend_on_the_caller():
    expected = figures.to_png(evaluation_charts.plot_mma(table()))
    with mpl.rc_context({"figure.facecolor": "black", "xtick.labelsize": 20, "font.size": 4}):
        assert figures.to_png(evaluation_charts.plot_mma(table())) == expected


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_saving_twice_writes_the_same_bytes_and_leaves_nothing_else(tmp_path, suffix):
    figure = evaluation_charts.plot_mma(table())
    first = figures.save_figure(figure, tmp_path / "new" / "folder" / f"a.{suffix}")
    second = figures.save_figure(evaluation_charts.plot_mma(table()), first.with_name(f"b.{suffix}"))
    content = first.read_bytes()
    assert content == second.read_bytes()
    assert figures.save_figure(figure, first).read_bytes() == content
    assert sorted(path.name for path in first.parent.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]
    assert b"<dc:date>" not in content
