"""Several data sets side by side: from one variable, told apart by name, never mistaken for each other."""

import os
import shutil

import pytest

from kp2d import checks
from kp2d.data import locations


def test_a_folder_of_data_sets_is_all_of_them(two_datasets, monkeypatch):
    assert locations.folders("bench", "bench") == [two_datasets / "far", two_datasets / "near"]
    monkeypatch.setenv("VAL_PATH", os.pathsep.join([str(two_datasets / "near"), str(two_datasets / "far")]))
    groups = locations.by_dataset(locations.load("hpatches", "full"))
    assert [(name, len(group)) for name, group in groups] == [("near", 2), ("far", 2)]
    monkeypatch.setenv("VAL_PATH", str(two_datasets / "far"))
    assert locations.folders("bench", "bench") == [two_datasets / "far"]


def test_relative_folders_hold_in_any_working_directory(two_datasets, monkeypatch, tmp_path):
    monkeypatch.chdir(two_datasets)
    monkeypatch.setenv("VAL_PATH", os.pathsep.join(["near", "far"]))
    locations.hold_anywhere()
    monkeypatch.chdir(tmp_path)
    assert locations.folders("bench", "bench") == [two_datasets / "near", two_datasets / "far"]


def test_data_sets_that_cannot_be_told_apart_are_refused(two_datasets, monkeypatch):
    shutil.copytree(two_datasets / "near", two_datasets.parent / "other" / "near")
    monkeypatch.setenv(
        "VAL_PATH", os.pathsep.join([str(two_datasets / "near"), str(two_datasets.parent / "other")])
    )
    both = f"data sets with different names; received {two_datasets / 'near'} and .*other/near"
    for read in (locations.folders, locations.load):  # before anything runs, and by each verb
        with pytest.raises(checks.InputError, match=both):
            read("bench", "bench")
    (two_datasets / "far" / "v_a_far").rename(two_datasets / "far" / "v_a_near")
    monkeypatch.setenv("VAL_PATH", str(two_datasets))
    with pytest.raises(checks.InputError, match=r"far/v_a_near and .*near/v_a_near"):
        locations.load("bench", "bench")


def test_what_is_missing_is_named_with_the_variable(home, monkeypatch):
    monkeypatch.delenv("VAL_PATH", raising=False)
    with pytest.raises(checks.InputError, match="no variable VAL_PATH"):
        locations.folders("bench", "bench")
    with pytest.raises(checks.InputError, match="kp2d download hpatches"):
        locations.folders("hpatches", "full")
    monkeypatch.setenv("VAL_PATH", "/nowhere")
    with pytest.raises(checks.InputError, match=r"/nowhere, which does not exist\. Correct or unset"):
        locations.folders("bench", "bench")


@pytest.mark.parametrize(
    "named", ["empty", "photographs", "far/v_a_far", "near:empty", "near:near", "near/../near:near"]
)
def test_a_folder_that_cannot_be_measured_on_is_named_before_anything_runs(named, two_datasets, monkeypatch):
    (two_datasets / "empty").mkdir()
    (two_datasets / "photographs").mkdir()
    (two_datasets / "photographs" / "beach.jpg").touch()
    places = [str(two_datasets / name) for name in named.split(":")]
    monkeypatch.setenv("VAL_PATH", os.pathsep.join(places))
    wrong = (two_datasets / named.split(":")[-1]).resolve()
    with pytest.raises(checks.InputError, match=rf"{wrong}.*VAL_PATH"):
        locations.folders("bench", "bench")
