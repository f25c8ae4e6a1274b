"""The study of what int8 costs: variants against float32, errors layer by layer, their charts."""

import numpy as np
import pandas as pd
import pytest

from kp2d import config
from kp2d.checks import InputError
from kp2d.data import datasets
from kp2d.evaluate import sensitivity
from kp2d.evaluate.sensitivity import Study, Variant
from kp2d.quantize import calibration, quantization
from kp2d.quantize.quantization import FloatNetwork, PostTraining
from kp2d.viz import figures, network_charts


@pytest.fixture
def source(small_preset, tmp_path):
    from kp2d.methods import networks

    network = networks.build_network(small_preset)
    weights = tmp_path / f"{small_preset}.weights.h5"
    network.save_weights(weights)
    return quantization.load_float(str(weights))


@pytest.fixture
def study(source, photos, tiny_dataset):
    return Study(
        source=source,
        photographs=photos,
        sequences=datasets.load_sequences(tiny_dataset),
        protocol=config.protocol(image_size=(48, 64), top_k=(60,)),
    )


def test_a_study_compares_variants_with_the_float_network(study):
    few = [
        Variant(group="all int8", name="", num_images=2),
        Variant(group="calibration data", name="noise", num_images=2, data="noise"),
        Variant(group="score threshold", name="0.5", num_images=2, score_threshold=0.5),
        Variant(group="ranges", name="minmax", num_images=2, options=PostTraining(method="minmax")),
    ]
    table = study.run(few, progress=False)
    assert table["group"].tolist() == ["float32", *(variant.group for variant in few)]
    first = table.iloc[0]
    assert all(first[name] == 0 for name in table if name.startswith("delta_"))
    assert table["sqnr_score"].iloc[1:].between(5, 80).all()
    for _, row in table[table["group"] != "score threshold"].iterrows():
        assert row["delta_repeatability"] == pytest.approx(row["repeatability"] - first["repeatability"])
        low, high = row["delta_repeatability_low"], row["delta_repeatability_high"]
        assert np.isnan(low) or low <= row["delta_repeatability"] + 1e-9 <= high + 2e-9
    again = study.run(few[:1], progress=False)
    pd.testing.assert_frame_equal(again, table.iloc[:2].reset_index(drop=True))


def test_the_study_asks_every_question():
    chosen = sensitivity.variants(10, 500)
    groups = {variant.group for variant in chosen}
    assert {"calibration images", "calibration data", "ranges", "kernels", "float32 again"} <= groups
    assert {v.num_images for v in chosen if v.group == "calibration images"} == {1, 5, 20, 100, 500}
    assert [v.num_images for v in sensitivity.variants(3, 4) if v.group == "calibration images"] == [1]
    assert len({(v.group, v.name) for v in chosen}) == len(chosen)


def test_errors_grow_along_the_network(study):
    source = study.source
    inputs = calibration.read_images(study.photographs, source.config, (48, 64), count=2)
    calibrated = quantization.calibrate(source.network, source.config, inputs)
    network = quantization.quantize(calibrated, source.config, PostTraining())
    rows = sensitivity.layer_errors(source, network, calibrated.statistics, inputs)
    assert rows["tensor"].iloc[0] == "image" and rows["sqnr_rounding"].iloc[0] == 120
    assert rows["beyond"].between(0, 0.5).all() and (rows["low"] <= 0).all() and (rows["high"] > 0).all()
    conv = rows[rows["sqnr_kernel"].notna()]
    assert len(conv) == 16 and conv["sqnr_kernel"].between(25, 60).all()
    assert rows.set_index("tensor")["sqnr_network"]["conv1a"] > rows["sqnr_network"].min()
    ranges = quantization.chosen_ranges(network)
    assert ranges["conv3b"] == ranges["descriptor_b"] and set(ranges) == set(rows["tensor"])
    activations = network_charts.plot_activations(calibrated.statistics, ranges)
    assert len(activations.axes) == len(rows)
    errors = network_charts.plot_layer_errors(rows)
    assert any("worst" in text.get_text() for text in errors.axes[0].texts)
    assert figures.to_png(errors) == figures.to_png(errors)


def test_the_chart_shows_every_variant_and_says_what_lies_outside():
    rows = pd.DataFrame(
        {
            "group": ["float32", "a", "a", "b", *"cdefghi"],
            "variant": ["", "one", "two", "three", *"cdefghi"],
            "delta_repeatability": [0, 0.001, -0.002, -0.9, *[0.001] * 7],
            "delta_localization_error": [0, 0.01, 0.02, 0.03, *[0.01] * 7],
            "delta_matching_score": np.zeros(11),
        }
    )
    panels = network_charts.plot_sensitivity(rows).axes
    assert [label.get_text() for label in panels[0].get_yticklabels()][:3] == ["a: one", "a: two", "b: three"]
    assert [text.get_text() for text in panels[0].texts] == ["-0.900"]


def test_charts_refuse_what_they_cannot_draw():
    for plot in (network_charts.plot_sensitivity, network_charts.plot_layer_errors):
        with pytest.raises(InputError, match="rows with the columns"):
            plot(pd.DataFrame({"group": ["x"]}))
    with pytest.raises(InputError, match="tensors with their ranges"):
        network_charts.plot_activations({"x": calibration.TensorStatistics()}, {})


def test_noise_ratios_are_decibels():
    signal = np.ones(100)
    assert sensitivity.sqnr([signal], [signal * 1.1]) == pytest.approx(20)
    assert sensitivity.sqnr([signal], [signal]) == 120


def test_a_float_network_says_where_it_is_from(source, tmp_path):
    assert isinstance(source, FloatNetwork) and source.name == "test_small"
    with pytest.raises(InputError, match="shipped network"):
        quantization.load_float("kp2d_tiny_x")
    (tmp_path / "x.tflite").write_bytes(b"")
    with pytest.raises(InputError, match="float weights"):
        quantization.load_float(str(tmp_path / "x.tflite"))


def test_calibration_images_are_chosen_by_the_seed(photos, source):
    def read(seed):
        return calibration.read_images(photos, source.config, (32, 48), count=3, seed=seed)

    one, again, other = read(0), read(0), read(5)
    assert len(one) == 3 and one[0].shape == (1, 32, 48, 3)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    (photos / "broken.png").write_bytes(b"no picture")
    assert len(calibration.read_images(photos, source.config, (32, 48), count=9)) == 4
    for picture in photos.glob("photo*"):
        picture.unlink()
    with pytest.raises(InputError, match="readable picture"):
        read(0)
    with pytest.raises(InputError, match="one or more images"):
        calibration.read_images(photos, source.config, (32, 48), count=0)


@pytest.mark.parametrize("wrong", [{"method": "best"}, {"equalize": 2.0}])
def test_options_are_checked(wrong):
    with pytest.raises(InputError):
        PostTraining(**wrong)
