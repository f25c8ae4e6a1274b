"""Settings: unknown names, ranges and types, presets, and the hash that names a configuration."""

from __future__ import annotations

import dataclasses

import pytest

from kp2d import config
from kp2d.checks import InputError
from kp2d.methods import extractors

# One other value for every field: a field without an entry fails the test below.
OTHER = {
    "image_size": (320, 240),
    "top_k": (300,),
    "score_threshold": 0.1,
    "distance_threshold": 4.0,
    "ransac_threshold": 2.0,
    "ransac_iterations": 100,
    "seed": 1,
    "half_pixel": False,
    "drop_unrepeated": True,
}


def test_the_default_is_the_protocol_of_the_design():
    protocol = config.protocol()
    assert protocol == config.Protocol() == config.protocol("kp2d")
    assert protocol.image_size == (240, 320) and protocol.top_k == (300, 1000)
    assert (protocol.distance_threshold, protocol.ransac_threshold, protocol.ransac_iterations) == (
        3,
        3,
        5000,
    )
    assert protocol.score_threshold == 0 and protocol.half_pixel and not protocol.drop_unrepeated


def test_kp2dtiny_changes_only_what_the_reference_code_does_differently():
    default, theirs = (dataclasses.asdict(config.protocol(name)) for name in ("kp2d", "kp2dtiny"))
    changed = {name: value for name, value in theirs.items() if value != default[name]}
    assert changed == {"score_threshold": 0.7, "half_pixel": False, "drop_unrepeated": True}
    assert config.protocol("kp2dtiny", score_threshold=0.5).score_threshold == 0.5


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("topk", "top_k"), ("imagesize", "image_size"), ("ransac_treshold", "ransac_threshold")],
)
def test_unknown_settings_are_refused_with_the_nearest_name(wrong, near):
    with pytest.raises(InputError, match=f"setting of Protocol .*'{wrong}'.*Did you mean '{near}'"):
        config.protocol(**{wrong: 1})


@pytest.mark.parametrize(
    ("find", "wrong", "near"), [(config.protocol, "kp2dtny", "kp2dtiny"), (config.profile, "fats", "fast")]
)
def test_unknown_names_are_refused_with_the_nearest_name(find, wrong, near):
    with pytest.raises(InputError, match=f"'{wrong}'.*Did you mean '{near}'"):
        find(wrong)


def test_settings_are_frozen_and_given_by_name():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.protocol().seed = 1
    with pytest.raises(TypeError):
        config.Protocol((240, 320))
    with pytest.raises(InputError):
        dataclasses.replace(config.protocol(), seed=-1)


def test_image_size_is_height_then_width():
    assert config.protocol(image_size=[120, 160]).image_size == (120, 160)
    assert config.protocol(image_size=(120, 160)) != config.protocol(image_size=(160, 120))


def test_top_k_is_sorted_without_duplicates_and_may_be_one_number():
    assert config.protocol(top_k=[1000, 300, 1000]).top_k == (300, 1000)
    assert config.protocol(top_k=300).top_k == (300,)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("image_size", [(7, 320), (240,), 240, "240x320", (240.5, 320), None]),
        ("top_k", [(), 3, 0, -1, (300, 3), 300.0, (300.0,), True, (True,), "300", None]),
        ("score_threshold", [-0.1, 1, 1.5, float("nan"), True, False, "0.7", None]),
        ("distance_threshold", [0, -1, float("nan"), float("inf"), True, "3", None]),
        ("ransac_threshold", [0, -1, float("nan"), float("inf"), True, "3", None]),
        ("ransac_iterations", [0, -1, 1.5, 5000.0, True, "5000", 2**31, None]),
        ("seed", [-1, 2**31, 1.0, True, "0", None]),
        ("half_pixel", [0, 1, "no", None]),
        ("drop_unrepeated", [0, 1, "no", None]),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused_by_name(name, values):
    for value in values:
        with pytest.raises(InputError, match=name):
            config.protocol(**{name: value})


def test_the_hash_changes_with_every_field():
    assert set(OTHER) == {field.name for field in dataclasses.fields(config.Protocol)}
    hashes = {config.fingerprint(config.protocol(**{name: value})) for name, value in OTHER.items()}
    hashes.add(config.fingerprint(config.protocol()))
    assert len(hashes) == len(OTHER) + 1
    assert all(len(each) == 12 and int(each, 16) >= 0 for each in hashes)


def test_the_hash_depends_on_meaning_and_not_on_form():
    assert config.fingerprint({"a": 1, "b": 2}) == config.fingerprint({"b": 2, "a": 1})
    same = config.protocol(image_size=[240, 320], top_k=[1000, 300], distance_threshold=3)
    assert config.fingerprint(same) == config.fingerprint(config.protocol())
    assert config.fingerprint("a", "b") != config.fingerprint("ab")
    assert config.fingerprint("a") != config.fingerprint("a", {})


def test_profiles_can_be_used_and_share_no_name():
    assert list(config.PROFILES) == ["smoke", "fast", "full", "bench"]
    for name, profile in config.PROFILES.items():
        assert profile.name == name and config.profile(name) is profile
        config.protocol(image_size=profile.image_size, top_k=profile.top_k)
        assert {extractors.Method.parse(method).name for method in profile.methods} <= set(
            extractors.methods()
        )
        assert "sift" in profile.methods  # 06 compares with it
        assert profile.num_images >= 2
