"""Tests what the pictures show: artists, counts, colours, limits, files; not how they look."""

import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

import kp2d
from kp2d import checks
from kp2d.viz import figures, overlay, pictures

RNG = np.random.default_rng(0)
IMAGE0 = RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8)
IMAGE1 = RNG.integers(0, 255, (40, 80, 3), dtype=np.uint8)
SHIFT = np.array([[1.0, 0, 5], [0, 1, 3], [0, 0, 1]])


def pair(num_inliers=30, num_outliers=10, image1=IMAGE1, **more):
    """Returns arguments of `draw_matches`; match i joins keypoints i, outliers mixed in."""
    count = num_inliers + num_outliers
    inliers = np.zeros(count, bool)
    inliers[np.random.default_rng(1).permutation(count)[:num_inliers]] = True
    points = np.random.default_rng(2).uniform(0, 39, (count, 2))
    matches = np.stack([np.arange(count)] * 2, axis=1)
    return {
        "image0": IMAGE0, "image1": image1, "keypoints0": points, "keypoints1": points[:, ::-1],
        "matches": matches, "inliers": inliers, **more,
    }  # fmt: skip


def lines(figure, index=0):
    """Returns the drawn match lines of an axes by colour."""
    found = [c for c in figure.axes[index].collections if isinstance(c, LineCollection)]
    return {mpl.colors.to_hex(c.get_colors()[0]): c for c in found if len(c.get_segments())}


def labels(figure):
    """Returns the legend's texts."""
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def frame_lines(figure):
    """Returns the frame lines by colour."""
    return {line.get_color(): line for line in figure.axes[0].get_lines()}


# --- matches ---


def test_inliers_and_outliers_differ_in_colour_style_and_order():
    drawn = lines(pictures.draw_matches(**pair()))
    inliers, outliers = drawn[overlay.INLIER], drawn[overlay.OUTLIER]
    assert inliers.get_linestyle()[0][1] is None  # solid
    assert outliers.get_linestyle()[0][1] is not None  # dashed
    assert outliers.get_linewidth()[0] < inliers.get_linewidth()[0]
    assert outliers.get_zorder() < inliers.get_zorder()


@pytest.mark.parametrize(("good", "bad"), [(30, 10), (300, 100), (900, 3), (3, 900), (500, 0)])
def test_at_most_200_lines_in_the_true_proportion(good, bad):
    drawn = lines(pictures.draw_matches(**pair(good, bad)))
    counts = [len(drawn[c].get_segments()) if c in drawn else 0 for c in (overlay.INLIER, overlay.OUTLIER)]
    assert sum(counts) == min(200, good + bad)
    assert counts[0] / sum(counts) == pytest.approx(good / (good + bad), abs=0.0051)
    assert (counts[1] > 0) == (bad > 0)


def test_best_matches_are_kept_and_the_legend_tells_both_numbers():
    arguments = pair(6, 2)
    figure = pictures.draw_matches(**arguments, max_matches=4)
    ends = {tuple(segment[0]) for segment in lines(figure)[overlay.INLIER].get_segments()}
    best = arguments["keypoints0"][np.flatnonzero(arguments["inliers"])[:3]]
    scene = overlay.checked_pair(**arguments)
    assert ends == {tuple(point) for point in scene.place0(best)}
    assert labels(figure) == ["6 inliers (3 drawn)", "2 outliers (1 drawn)"]


def test_without_inliers_there_is_one_kind():
    figure = pictures.draw_matches(**pair(5, 0, inliers=None))
    assert labels(figure) == ["5 matches"]


@pytest.mark.parametrize("image1", [IMAGE0, IMAGE1, IMAGE1[:, :20], np.tile(IMAGE1, (3, 3, 1))])
def test_pictures_of_any_sizes_do_not_overlap_and_matches_end_in_them(image1):
    arguments = pair(20, 0, image1=image1)
    arguments["keypoints1"] = np.full((20, 2), 7.0)
    figure = pictures.draw_matches(**arguments)
    left, right = figure.axes[0].get_images()
    assert left.get_extent()[1] < right.get_extent()[0]
    end = lines(figure)[overlay.INLIER].get_segments()[0][1]
    x0, x1, y1, y0 = right.get_extent()
    expected = [x0 + 7.5 / image1.shape[1] * (x1 - x0), y0 + 7.5 / image1.shape[0] * (y1 - y0)]
    np.testing.assert_allclose(end, expected, atol=0.51 * (x1 - x0) / image1.shape[1])
    assert (x1 - x0) / (y1 - y0) == pytest.approx(image1.shape[1] / image1.shape[0])
    assert figure.get_figwidth() == 7.0


def test_zero_keypoints_and_zero_matches_are_drawn():
    nothing = np.zeros((0, 2))
    for inliers in (None, np.zeros(0, bool)):
        figure = pictures.draw_matches(IMAGE0, IMAGE1, nothing, nothing, nothing, inliers=inliers)
        assert labels(figure)[0].startswith("0 ")
        assert figures.to_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image0": IMAGE0.astype(float)}, "image0"),
        ({"keypoints1": np.zeros((3, 3))}, "keypoints1"),
        ({"matches": np.array([[0, 99]]), "inliers": None}, "index the keypoints"),
        ({"matches": np.array([[0, -1]]), "inliers": None}, "index the keypoints"),
        ({"matches": np.array([[0.0, 1.0]]), "inliers": None}, "matches as int"),
        ({"inliers": np.ones(3, bool)}, "one a match"),
        ({"homography": np.zeros((3, 3))}, "homography"),
        ({"estimated": np.full((3, 3), np.nan)}, "estimated"),
    ],
)
def test_wrong_input_is_refused(change, match):
    with pytest.raises(checks.InputError, match=match):
        pictures.draw_matches(**pair(**change))


# --- frames ---


def test_identity_frame_is_the_border_of_the_picture():
    segments = overlay.frame_segments(np.eye(3), (48, 64), (48, 64))
    np.testing.assert_allclose(segments.min(axis=(0, 1)), [-0.5, -0.5])
    np.testing.assert_allclose(segments.max(axis=(0, 1)), [63.5, 47.5])
    assert segments.shape == (4, 2, 2)


def test_frame_partly_outside_is_clipped_to_the_picture():
    segments = overlay.frame_segments(
        SHIFT @ np.array([[1, 0, 20], [0, 1, 0], [0, 0, 1]]), (48, 64), (40, 80)
    )
    np.testing.assert_allclose(segments.max(axis=(0, 1)), [79.5, 39.5])
    assert len(segments) == 2  # top and left; right and bottom lie outside


@pytest.mark.parametrize("sign", [1, -1])
def test_frame_behind_the_camera_is_cut_and_never_wraps_around(sign):
    homography = sign * np.array([[1.0, 0, 0], [0, 1, 0], [-1 / 40, 0, 1]])  # w = 0 at x = 40
    segments = overlay.frame_segments(homography, (48, 64), (48, 64))
    assert len(segments)
    assert np.isfinite(segments).all()
    assert segments.min() >= -0.5 and segments.max() <= 63.5
    back = segments.reshape(-1, 2) @ np.eye(3)[:2] + [0, 0, 1]
    source = back @ np.linalg.inv(homography).T
    assert (source[:, 0] / source[:, 2] < 40).all()  # only the part in front of the camera


def test_frame_out_of_view_is_named_as_such():
    away = np.array([[1.0, 0, 900], [0, 1, 0], [0, 0, 1]])
    figure = pictures.draw_matches(**pair(homography=away, estimated=SHIFT))
    assert labels(figure)[2:] == ["true frame (out of view)", "estimated frame"]
    true, estimated = frame_lines(figure)[overlay.TRUE], frame_lines(figure)[overlay.ESTIMATED]
    assert not len(true.get_xdata())
    assert true.get_linestyle() == "-" and estimated.get_linestyle() == "--"


def test_singular_estimate_is_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for estimated in (np.zeros((3, 3)), np.diag([1.0, 1, 0]), np.diag([0.0, 0, 1])):
            figures.to_png(pictures.draw_matches(**pair(homography=SHIFT, estimated=estimated)))


# --- keypoints, gallery, contact sheet ---


def rings(figure):
    """Returns the coloured rings (drawn after their dark halo)."""
    return [c for c in figure.axes[0].collections if isinstance(c, PathCollection)][1]


def test_best_keypoints_are_kept_and_lie_on_top():
    points, scores = RNG.uniform(0, 40, (20, 2)), RNG.permutation(20)
    figure = pictures.compare_keypoints(IMAGE0, {"sift": (points, scores)}, max_points=5)
    drawn = np.asarray(rings(figure).get_offsets())
    np.testing.assert_allclose(drawn[::-1], points[np.argsort(-scores)[:5]])
    assert len(np.unique(rings(figure).get_edgecolors(), axis=0)) == 5
    assert figure.axes[0].get_title(loc="left") == "sift · 20 keypoints"


@pytest.mark.parametrize("count", [0, 1])
def test_few_keypoints(count):
    figure = pictures.compare_keypoints(IMAGE1, {"sift": (np.full((count, 2), 9.0), np.ones(count))})
    assert len(rings(figure).get_offsets()) == count
    assert figures.to_png(figure).startswith(b"\x89PNG")


def test_scores_of_another_length_are_refused():
    with pytest.raises(checks.InputError, match="scores"):
        pictures.compare_keypoints(IMAGE0, {"sift": (np.zeros((3, 2)), np.zeros(2))})


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 1), (7, 3)])
def test_gallery_draws_every_panel_and_bounds_its_pictures(count, rows):
    large = np.zeros((900, 1200, 3), np.uint8)
    panels = [pair(80, 20, image0=large, title=f"pair {i}", homography=SHIFT) for i in range(count)]
    figure = pictures.gallery(panels)
    assert len(figure.axes) == count
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == rows
    assert [axes.get_title(loc="left") for axes in figure.axes] == [p["title"] for p in panels]
    for index, axes in enumerate(figure.axes):
        assert sum(len(c.get_segments()) for c in lines(figure, index).values()) == 60
        assert axes.get_images()[0].get_size()[1] <= 660
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "inliers", "outliers", "true frame",
    }  # fmt: skip


def test_gallery_names_the_panel_that_lacks_something():
    with pytest.raises(checks.InputError, match="at least one panel"):
        pictures.gallery([])
    broken = {key: value for key, value in pair().items() if key != "matches"}
    with pytest.raises(checks.InputError, match=r"panel 1 without \['matches'\]"):
        pictures.gallery([pair(), broken])


def test_contact_sheet_takes_rows_of_different_length():
    rows = [[IMAGE0, IMAGE1], [IMAGE0]]
    figure = pictures.contact_sheet(rows, row_titles=["one", "two"], column_titles=["a", "b"])
    assert [len(axes.get_images()) for axes in figure.axes] == [1, 1, 1, 0]
    with pytest.raises(checks.InputError, match="2 row titles and 2 column titles"):
        pictures.contact_sheet(rows, row_titles=["one"], column_titles=["a", "b"])
    with pytest.raises(checks.InputError, match="at least one image"):
        pictures.contact_sheet([[]], row_titles=["one"], column_titles=[])


def test_long_titles_fit():
    text, size = overlay.fitted("v_" + "a_very_long_name" * 8, 2.0, 8, 6)
    assert size == 6 and "…" in text and text.startswith("v_")
    assert overlay.text_width(text, size) <= 2.0
    assert overlay.fitted("short", 2.0, 8, 6) == ("short", 8)


# --- style and files ---


def test_methods_differ_and_a_precision_changes_only_the_line():
    looks = [figures.method_style(name) for name in figures.METHODS]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == len(looks)
    float32, int8 = (figures.method_style("kp2d_tiny_s", name) for name in ("float32", "int8"))
    assert float32["color"] == int8["color"] and float32["linestyle"] != int8["linestyle"]
    assert figures.method_style("akaze") == figures.method_style("akaze")
    assert figures.method_style("akaze")["color"] not in {look["color"] for look in looks}


def test_what_is_no_method_has_colours_by_its_order():
    colors = figures.colors(["kp2d", "kp2d", "kp2d_plus", *"abcdef"])
    assert list(colors) == ["kp2d", "kp2d_plus", *"abcdef"]
    drawn = list(colors.values())
    assert len(set(drawn[:5])) == 5
    assert all(color != following for color, following in itertools.pairwise(drawn))


def test_nothing_global_changes():
    before = dict(mpl.rcParams)
    figures.to_png(pictures.draw_matches(**pair()))
    assert dict(mpl.rcParams) == before


def test_saving_where_no_folder_can_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    figure = pictures.draw_matches(**pair())
    with pytest.raises(checks.InputError, match=r"writable place for .*file/a.png"):
        figures.save_figure(figure, tmp_path / "file" / "a.png")
    with pytest.raises(checks.InputError, match=r"\.svg, \.png, \.jpg"):
        figures.save_figure(figure, tmp_path / "a.gif")


def test_a_failed_write_keeps_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(checks.InputError, match="No space left"):
        figures.save_figure(pictures.draw_matches(**pair()), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


# --- the user's own settings ---


@pytest.mark.parametrize(
    "settings",
    [
        {"image.origin": "lower", "image.interpolation": "bilinear"},
        {"text.usetex": True, "font.size": 20, "axes.grid": True},
        {"savefig.bbox": "tight", "savefig.transparent": True, "axes.titleweight": "bold"},
        {"figure.autolayout": True, "axes.titlepad": 30.0, "path.sketch": (3, 2, 1)},
    ],
)
def test_settings_of_the_user_change_no_picture_and_stay_theirs(settings):
    usual = figures.to_png(pictures.draw_matches(**pair()))
    with mpl.rc_context(settings):
        before = dict(mpl.rcParams.copy())
        assert figures.to_png(pictures.draw_matches(**pair())) == usual
        assert dict(mpl.rcParams.copy()) == before


LIBRARY = """
import numpy as np
import kp2d
image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
print(kp2d.match(image, image, method="orb", top_k=50).draw()[..., 0].sum())
import matplotlib
print(matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize(
    ("variable", "stays"),
    [("", ""), ("module://no_such", "same"), ("QtAgg", "same"), ("svg", "same"), ("Qt4Agg", ""), ("x y", "")],
)
def test_the_backend_of_the_user_has_no_effect_and_stays(variable, stays, tmp_path):
    """What Matplotlib refuses, as the name of an older one's backend, leaves the choice to it."""
    environment = {**os.environ, "MPLBACKEND": variable}
    words = [sys.executable, "-c", LIBRARY]
    run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    total, backend = run.stdout.splitlines()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert int(total) == kp2d.match(image, image, method="orb", top_k=50).draw()[..., 0].sum()
    assert backend == variable if stays else backend.startswith("<object"), "chosen when it is needed"


def test_a_matplotlibrc_that_matplotlib_fails_on_is_named(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"# caf\xe9")
    words = [sys.executable, "-c", LIBRARY]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert f"a matplotlibrc in UTF-8; received {tmp_path / 'matplotlibrc'}" in run.stderr


@pytest.mark.parametrize("name", ["v_$5_to_$10", "$x^2", "a_$\\frac$", "i_100%_$"])
def test_a_name_with_dollars_is_no_formula(name):
    figure = pictures.draw_matches(**pair(), title=name)
    assert figures.to_png(figure)
    assert [text.get_text() for text in figure.findobj(mpl.text.Text) if name in text.get_text()] == [name]


# --- names in any script ---


@pytest.fixture
def few_fonts(monkeypatch):
    """A machine with the fonts of Matplotlib alone, whose signs nobody has asked for yet."""
    fonts = figures._fonts().items()
    own = {name: path for name, path in fonts if name == figures.FONT or "mpl-data" in path}
    monkeypatch.setattr(figures, "_fonts", lambda: own)
    monkeypatch.setattr(figures, "_told", [])
    figures._font_of.cache_clear()
    yield own
    figures._font_of.cache_clear()


def texts(figure):
    """Returns all that is written in a figure, once it is drawn."""
    figure.draw_without_rendering()  # warnings are errors
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("v_写真", r"v_\u5199\u771f"),
        ("カフェ", r"\u30ab\u30d5\u30a7"),
        ("i_हिन्दी", r"i_\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("한국", r"\ud55c\uad6d"),
        ("v_\U0001f469\u200d\U0001f467", "v_\\U0001f469\u200d\\U0001f467"),
        ("v_caf\udce9", r"v_caf\udce9"),
        ("v_tab\there", r"v_tab\there"),
        ("v_two\nlines", r"v_two\nlines"),
        ("v_ελληνικά_русский", "v_ελληνικά_русский"),
        ("v_⌒", "v_⌒"),
    ],
)
def test_a_name_in_any_script_is_drawn_or_escaped_without_boxes(few_fonts, caplog, name, shown):
    drawn = [
        pictures.draw_matches(**pair(), title=name),
        pictures.gallery([pair(title=name)]),
        pictures.compare_keypoints(IMAGE0, {name: (np.zeros((0, 2)), np.zeros(0))}),
    ]
    for figure in drawn:
        assert any(shown in text for text in texts(figure))
    sheet = pictures.contact_sheet([[IMAGE0]], row_titles=[name], column_titles=["1"])
    assert set("".join(texts(sheet))) <= set(f"{shown}1…")  # long ones are cut
    told = [record.message for record in caplog.records if "no font of this machine has" in record.message]
    assert len(told) == any(sign not in shown for sign in name if sign.isprintable())


def test_labels_of_ticks_and_legends_are_escaped_as_titles_are(few_fonts):
    with figures.style():
        figure = figures.StyledFigure()
        panel = figure.add_subplot()
        panel.plot([0, 1], [0, 1], label="模型")
        panel.set_yticks([0, 1], ["写真", "plain"])
        panel.set_xlabel("เสียง")
        panel.legend()
    assert {r"\u6a21\u578b", r"\u5199\u771f", "plain"} <= set(texts(figure))
    assert not any("เ" in text for text in texts(figure))


def test_a_sign_that_another_font_has_is_drawn_by_it_and_latin_pictures_stay(few_fonts):
    assert figures.drawable("v_⌒")[1][0] == figures.FONT
    assert set(figures.drawable("v_⌒")[1]) - {figures.FONT} <= set(few_fonts)
    assert figures.drawable("v_×·−café") == ("v_×·−café", (figures.FONT,))
    with figures.style():
        usual = pictures.draw_matches(**pair(), title="café")
        forced = pictures.draw_matches(**pair(), title="café")
        forced.axes[0].title.set_family(figures.drawable("⌒")[1])
    assert figures.to_png(usual) == figures.to_png(forced)


@pytest.mark.parametrize("name", ["i_صورة", "תמונה", "صُورَة من باريس"])
def test_what_follows_a_name_from_right_to_left_keeps_its_order(name):
    text, _ = figures.drawable(f"{name} 1-2 · 178/186 inliers")
    assert text == f"\u200e{name}\u200e 1-2 · 178/186 inliers"
    assert figures.drawable(text)[0] == text
