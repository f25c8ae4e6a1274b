"""The live demonstration: what is found in a frame, and what is not."""

import dataclasses

import cv2
import numpy as np
import pytest
from film import SIZE, photograph, to_frame

from kp2d import checks, geometry, images
from kp2d.live import demo, video
from kp2d.methods import extractors


def test_tracks_follow_the_true_motion(film, tiny):
    shown, errors, seen = demo.Demo(tiny), {1: [], 5: [], 10: []}, []
    with video.open_source(film) as source:
        for k, frame in enumerate(source):
            _, row = shown.step(frame)
            places = shown.tracks.trails[:, 0].astype(float)
            seen.append(dict(zip(shown.tracks.ids.tolist(), places, strict=True)))
            for age in errors:
                both = seen[k].keys() & seen[k - age].keys() if k >= age else ()
                for number in both:
                    motion = to_frame(k) @ np.linalg.inv(to_frame(k - age))
                    (there,) = geometry.warp_points(seen[k - age][number][None], motion)
                    errors[age].append(np.hypot(*(there - seen[k][number])))
    assert [np.median(errors[age]) < 1 for age in errors] == [True] * 3
    assert [np.mean(np.array(errors[age]) < 4) > 0.95 for age in errors] == [True] * 3
    assert row["tracks"] > 150 and row["mean_track_length"] > 5


def test_the_reference_is_found_where_it_is(film, tiny):
    picture = photograph()[60:420, 80:440]
    cut = np.array([[1, 0, 80], [0, 1, 60], [0, 0, 1.0]])
    shown, misses = demo.Demo(tiny, reference=picture), []
    with video.open_source(film) as source:
        for k, frame in enumerate(source):
            shown.step(frame)
            found = shown.scene.match.homography
            truth = to_frame(k) @ cut
            misses.append(np.inf if found is None else geometry.corner_error(found, truth, (360, 360)))
    assert np.median(misses) < 3
    assert np.mean(np.array(misses) < 6) > 0.8


def test_a_reference_that_is_not_there_is_not_found(frames, tiny):
    shown = demo.Demo(tiny, reference=photograph("coffee"))
    painted, row = shown.step(frames[0])
    assert (row["found"], row["inliers"]) == (False, 0)
    assert painted.shape[1] > 640  # it is shown nevertheless


def test_another_scene_behind_the_same_microscopes_disk_is_not_the_reference(frames, monkeypatch):
    def in_disk(image):
        small = images.resize_image(image, (240, 320))
        mask = cv2.circle(np.zeros((240, 320), np.uint8), (160, 120), 100, 1, -1)
        return small * mask[..., None]

    network = extractors.create("kp2d_nano:int8")
    shown = demo.Demo(network, settings=demo.Settings(top_k=1000), reference=in_disk(photograph("camera")))
    assert shown.step(in_disk(photograph("coffee")))[1]["found"] is False
    monkeypatch.setattr("kp2d.methods.refinement.likeness", lambda *_: 1.0)
    assert shown.step(in_disk(photograph("coffee")))[1]["found"] is True  # by the number of inliers alone
    monkeypatch.undo()
    shown.refer_to(images.resize_image(in_disk(frames[0]), (1200, 1600)))
    assert shown.step(in_disk(frames[1]))[1]["found"] is True


def test_frames_without_anything_break_nothing(frames, tiny):
    shown, blank = demo.Demo(tiny), np.full((*SIZE, 3), 90, np.uint8)
    rows = [shown.step(frame)[1] for frame in (blank, frames[0], blank, frames[1], blank)]
    assert [row["keypoints"] for row in rows] == [0, 300, 0, 300, 0]
    assert rows[3]["tracks"] > 150  # found again behind the blank one
    with pytest.raises(checks.InputError, match="more texture"):
        shown.refer_to(blank)
    shown.press("r")
    assert shown.step(blank)[0].any()


def test_a_frame_of_another_size_is_fitted_into_the_first(frames, orb):
    shown = demo.Demo(orb)
    sizes = [shown.step(frame)[0].shape for frame in (frames[0], frames[1][:100], frames[2][:, :77])]
    assert set(sizes) == {(480, 640, 3)}


def test_a_mirror_turns_the_picture_but_not_what_is_found(frames, orb):
    plain, mirrored = demo.Demo(orb), demo.Demo(orb, demo.Settings(mirror=True))
    for each in (plain, mirrored):
        each.shows.update(keypoints=False, tracks=False)
        for frame in frames[:2]:
            painted, _ = each.step(frame)
        each.painted = painted[100:300]  # where no words are
    np.testing.assert_array_equal(plain.scene.keypoints, mirrored.scene.keypoints)
    np.testing.assert_array_equal(plain.painted[:, ::-1], mirrored.painted)


def test_each_step_is_timed(frames, tiny, orb):
    features, spent = tiny.timed(frames[0])
    assert list(spent) == ["network", "decode"] and min(spent.values()) > 0
    np.testing.assert_array_equal(features.keypoints, tiny.extract(frames[0]).keypoints)
    assert list(orb.timed(frames[0])[1]) == ["extract"]


def test_a_method_is_named_by_what_matters(tiny, orb):
    assert (tiny.label, orb.label) == ("kp2d_tiny_s int8", "orb")
    on_tpu = dataclasses.replace(tiny, runtime="litert+edgetpu")
    assert on_tpu.label == "kp2d_tiny_s int8 on Edge TPU"


def test_a_method_sees_the_frame_undistorted_unless_told():
    assert demo.seen_size((480, 640), 8) == (240, 320)
    assert demo.seen_size((1080, 1920), 8) == (208, 368)
    assert demo.seen_size((1920, 1080), 1) == (368, 208)


def test_frames_and_references_larger_than_4k_are_reduced(frames, orb, monkeypatch):
    monkeypatch.setattr(images, "MAX_WHOLE", 240 * 320)
    shown = demo.Demo(orb, reference=frames[0])
    assert shown.step(frames[0])[1]["found"]
    assert shown._frame.shape == (240, 320, 3)


@pytest.mark.parametrize(("size", "words"), [((102, 100), "divisible by the cell"), ((4, 4), "at least 8x8")])
def test_a_size_that_does_not_fit_is_refused(tiny, size, words):
    with pytest.raises(checks.InputError, match=words):
        demo.Demo(tiny, demo.Settings(image_size=size))


def test_only_what_a_camera_could_see_is_plausible():
    size = (100, 100)
    assert demo.plausible(np.eye(3), size, size)
    assert not demo.plausible(np.diag([-1.0, 1, 1]), size, size)  # mirrored
    assert not demo.plausible(np.diag([0.01, 0.01, 1]), size, size)  # a speck
    assert not demo.plausible(np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1.0]]), size, size)  # behind us
    bow_tie = cv2.getPerspectiveTransform(
        np.float32([[0, 0], [99, 0], [99, 99], [0, 99]]), np.float32([[0, 0], [99, 0], [0, 99], [99, 90]])
    )
    assert not demo.plausible(bow_tie, size, size)
