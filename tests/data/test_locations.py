"""Several data sets side by side: from one variable, told apart by name, never mistaken for each other."""

import os
import shutil

import pytest

from kp2d import checks
from kp2d.data import locations


@pytest.fixture
def two(tiny_dataset, tmp_path, monkeypatch):
    """A folder of two data sets, and one beside them that is none."""
    folder = tmp_path / "both"
    for name in ("near", "far"):
        shutil.copytree(tiny_dataset, folder / name)
        for sequence in (folder / name).iterdir():
            sequence.rename(sequence.with_name(f"{sequence.name}_{name}"))
    (folder / "papers").mkdir()
    monkeypatch.setenv("VAL_PATH", str(folder))
    return folder


def test_a_folder_of_data_sets_is_all_of_them(two, monkeypatch):
    assert locations.folders("bench", "bench") == [two / "far", two / "near"]
    monkeypatch.setenv("VAL_PATH", os.pathsep.join([str(two / "near"), str(two / "far")]))
    groups = locations.by_dataset(locations.load("hpatches", "full"))
    assert [(name, len(group)) for name, group in groups] == [("near", 2), ("far", 2)]
    monkeypatch.setenv("VAL_PATH", str(two / "far"))
    assert locations.folders("bench", "bench") == [two / "far"]


def test_data_sets_that_cannot_be_told_apart_are_refused(two, monkeypatch):
    shutil.copytree(two / "near", two.parent / "other" / "near")
    monkeypatch.setenv("VAL_PATH", os.pathsep.join([str(two / "near"), str(two.parent / "other")]))
    with pytest.raises(checks.InputError, match="data sets with different names; received near twice"):
        locations.load("bench", "bench")
    (two / "far" / "v_a_far").rename(two / "far" / "v_a_near")
    monkeypatch.setenv("VAL_PATH", str(two))
    with pytest.raises(checks.InputError, match="v_a_near twice"):
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
