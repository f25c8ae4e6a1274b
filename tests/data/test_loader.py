"""Batches: one sequence whatever the number of workers, and folders that are not perfect."""

import subprocess
import sys

import numpy as np
import pytest

from kp2d.checks import InputError, RunError
from kp2d.data import loader
from kp2d.data.augment import AugmentConfig
from kp2d.data.datasets import list_images
from kp2d.data.loader import PairLoader, PairSource, read_photo


def source_of(folder, **changes):
    settings = {
        "paths": tuple(map(str, list_images(folder))),
        "image_size": (32, 48),
        "cell": 4,
        "batch_size": 2,
        "seed": 3,
        "steps": 100,
        "augment": AugmentConfig(),
    }
    return PairSource(**(settings | changes))


def take(source, count, **arguments):
    with PairLoader(source, **arguments) as loader:
        return [next(loader) for _ in range(count)], loader


def test_workers_do_not_change_the_sequence(photos):
    source = source_of(photos)
    alone, _ = take(source, 4, workers=0)
    for workers in (1, 2):
        others, _ = take(source, 4, workers=workers)
        for one, other in zip(alone, others, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_a_later_start_continues_the_sequence(photos):
    source = source_of(photos)
    whole, _ = take(source, 4, workers=0)
    rest, _ = take(source, 2, workers=0, first_step=2)
    np.testing.assert_array_equal(whole[2]["image0"], rest[0]["image0"])
    np.testing.assert_array_equal(whole[3]["homography"], rest[1]["homography"])


def test_seed_changes_the_sequence(photos):
    one, other = (source_of(photos, seed=s).batch(0)[0] for s in (0, 1))
    assert (one["image0"] != other["image0"]).any()


def test_homographies_grow(photos):
    ramp = AugmentConfig(start=0.0, ramp=0.5)
    source = source_of(photos, augment=ramp)
    np.testing.assert_allclose(source.batch(0)[0]["homography"], [np.eye(3)] * 2, atol=1e-5)
    full = source_of(photos).batch(60)[0]["homography"]
    np.testing.assert_array_equal(source.batch(60)[0]["homography"], full)


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_picture_is_named_counted_and_replaced(photos, workers, caplog):
    (photos / "broken.jpg").write_bytes(b"not a picture")
    (photos / "empty.png").write_bytes(b"")
    batches, loader = take(source_of(photos), 8, workers=workers)
    assert all(batch["image0"].shape == (2, 32, 48, 3) for batch in batches)
    assert set(loader.corrupt) == {str(photos / "broken.jpg"), str(photos / "empty.png")}
    assert sum("broken.jpg" in record.message for record in caplog.records) == 1
    assert all(reason in caplog.text for reason in loader.corrupt.values()), "the log says why"


def test_folder_of_broken_pictures_is_refused(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="unreadable"):
        source_of(tmp_path).batch(0)


def test_read_photo_shrinks(photos):
    assert read_photo(str(photos / "photo0.png"), 48).shape == (36, 48, 3)
    assert read_photo(str(photos / "photo0.png"), 500).shape == (72, 96, 3)


def test_a_worker_that_imports_a_script_without_a_guard_says_so(monkeypatch):
    loader.check_main_guard()
    monkeypatch.setattr(loader.multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RunError, match='if __name__ == "__main__"'):
        loader.check_main_guard()


WORK = """
import concurrent.futures, multiprocessing, sys, time
from kp2d.data import loader

context = multiprocessing.get_context(sys.argv[1])
pool = concurrent.futures.ProcessPoolExecutor(1, context, initializer=loader.end_with_parent)
print(pool.submit(abs, -7).result(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_worker_ends_with_its_parent_also_when_that_is_killed(method):
    parent = subprocess.Popen([sys.executable, "-c", WORK, method], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "7\n"
    parent.kill()
    parent.communicate(timeout=30)  # the worker has the other end of this pipe, too
