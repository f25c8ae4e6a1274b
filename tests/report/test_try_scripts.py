"""The scripts of "Try it", each by itself: the same numbers as in Python, and what becomes of odd input."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from kp2d import geometry
from kp2d.methods import decode, matching, registration
from kp2d.methods.decode import Features

PERSPECTIVE = np.array([[0.9, -0.2, 30.0], [0.15, 1.1, -12.0], [2e-4, 3e-4, 1.0]])


# tensor


def test_a_model_is_given_the_shapes_of_another_size(javascript):
    expression = "kp2d.tensor.resized(file, [[4, 1], [16, 4]], [24, 32])"
    values = javascript(["tensor"], f"(() => {{ const file = new Uint8Array(24); return {expression}; }})()")
    assert np.array(values, np.uint8).view("<i4").tolist() == [0, 24, 32, 0, 6, 8]


# picture


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((480, 640), 320, [240, 320]),
        ((640, 480), 320, [320, 240]),
        ((100, 102), 320, [100, 100]),  # not enlarged, whole cells
        ((3000, 40), 320, [320, 12]),  # no side below three cells
        ((768, 1024), 480, [360, 480]),
    ],
)
def test_a_picture_is_seen_at_whole_cells_and_never_enlarged(javascript, size, side, expected):
    expression = "kp2d.picture.seenSize(size, side, 4)"
    assert javascript(["picture"], expression, size=size, side=side) == expected


@pytest.mark.parametrize("size", [(60, 80), (45, 80), (48, 64), (96, 120)])
def test_areas_are_averaged_as_opencv_does(javascript, textured, size):
    image = textured((96, 120), seed=3)
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    values = javascript(
        ["picture"], "kp2d.picture.reduce(rgba, [96, 120], size)", rgba=rgba.ravel().tolist(), size=size
    )
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    difference = np.abs(np.array(values).reshape(expected.shape) - expected.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.002  # sums of floats, in another order


@pytest.mark.parametrize("size", [(24, 32), (40, 12)])
def test_contrast_is_asked_of_the_same_pixels_as_in_python(javascript, textured, size):
    image = textured(size, seed=4)
    image[: size[0] // 2] = 99 + image[: size[0] // 2] % 3  # hardly any
    where = javascript(
        ["picture"],
        "kp2d.picture.textured(rgb, size, { window, contrast })",
        rgb=image.ravel().tolist(),
        size=size,
        window=registration.CONTRAST_WINDOW,
        contrast=registration.MIN_CONTRAST,
    )
    row, column = np.mgrid[: size[0], : size[1]]
    everywhere = np.stack([column.ravel(), row.ravel()], axis=1).astype(np.float32)
    count = len(everywhere)
    kept = registration.textured(
        dataclasses.replace(features(np.ones((count, 4), np.float32)), keypoints=everywhere), image
    )
    expected = np.zeros(size, int)
    expected[tuple(kept.keypoints.astype(int).T[::-1])] = 1
    assert np.reshape(where, size).tolist() == expected.tolist() and 0 < expected.sum() < count


# decode


def quantized_heads(seed=0, grid=(9, 12), cell=4, dim=8, map_size=(18, 24)):
    rng = np.random.default_rng(seed)
    rows, columns = grid
    heads = {
        "score": rng.integers(-128, 128, (1, rows, columns, 1), np.int8),
        "offset": rng.integers(-128, 128, (1, rows, columns, 2), np.int8),
        "descriptor": rng.integers(-128, 128, (1, *map_size, dim), np.int8),
    }
    levels = decode.dequantize(np.arange(-128, 128), 1 / 256, -128)
    network = {
        "cell": cell,
        "dim": dim,
        "scores": decode.sharpen(levels, 5.065593242645264).astype(np.float32).tolist(),
        "offset": {"scale": 0.0078125, "zero": 0},
        "descriptor": {"scale": 0.2960779070854187, "zero": 2},
    }
    return heads, network


def test_keypoints_lie_where_they_may(javascript):
    heads, network = quantized_heads()
    where = np.zeros((36, 48), int)
    where[10:30, 5:25] = 1
    found = javascript(
        ["decode"],
        "[1000, 5].map((k) =>"
        " kp2d.decode.decode(heads, network, [36, 48], { k, score: 0, where }).keypoints)",
        heads={name: values.ravel().tolist() for name, values in heads.items()},
        network=network,
        where=where.ravel().tolist(),
    )
    keypoints = np.reshape(found[0], (-1, 2))
    column, row = np.round(keypoints).astype(int).T
    assert where[row, column].all() and 10 < len(keypoints) < 70, "and there are some elsewhere"
    assert found[1] == found[0][:10], "the best of these"


@pytest.mark.parametrize(
    ("k", "score", "map_size"),
    [
        *((*kept, (18, 24)) for kept in [(1000, 0.0), (10, 0.0), (1000, 0.75), (1000, 1.0)]),
        *((1000, 0.0, map_size) for map_size in [(9, 12), (5, 6)]),  # as coarse as the cells, and coarser
    ],
)
def test_keypoints_are_those_of_python(javascript, k, score, map_size):
    heads, network = quantized_heads(map_size=map_size)
    table = np.array(network["scores"], np.float32)
    expected = decode.decode(
        table[heads["score"].astype(int) + 128],
        decode.dequantize(heads["offset"], **_named(network["offset"])),
        decode.dequantize(heads["descriptor"], **_named(network["descriptor"])),
        cell=network["cell"],
        top_k=k,
        score_threshold=score,
    )
    found = javascript(
        ["decode"],
        "kp2d.decode.decode(heads, network, [36, 48], { k, score })",
        heads={name: values.ravel().tolist() for name, values in heads.items()},
        network=network,
        k=k,
        score=score,
    )
    assert found["keypoints"] == expected.keypoints.ravel().tolist()
    assert found["scores"] == expected.scores.tolist()
    np.testing.assert_allclose(found["descriptors"], expected.descriptors.ravel(), atol=1e-6)


def _named(grid):
    return {"scale": grid["scale"], "zero_point": grid["zero"]}


# match


def unit(count, dim=8, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def features(descriptors):
    count = len(descriptors)
    return Features(
        keypoints=np.zeros((count, 2), np.float32),
        scores=np.ones(count, np.float32),
        descriptors=descriptors,
    )


def mutual(javascript, descriptors0, descriptors1, ratio=1):
    found = javascript(
        ["match"],
        "kp2d.match.mutual(a, b, dim, ratio)",
        a=descriptors0.ravel().tolist(),
        b=descriptors1.ravel().tolist(),
        dim=descriptors0.shape[1],
        ratio=ratio,
    )
    return np.array(found["matches"], int).reshape(-1, 2), np.array(found["distances"])


def test_matches_are_those_of_python(javascript):
    sides = unit(60, seed=1), unit(50, seed=2)
    matches, distances = mutual(javascript, *sides)
    expected = registration.match_features(*map(features, sides))
    assert matches.tolist() == expected.tolist() and len(matches) > 10
    np.testing.assert_allclose(distances, matching.match_distances(*sides, expected), atol=1e-5)


def test_of_equally_near_ones_the_weakest_is_matched_as_in_python(javascript):
    first = np.eye(4, 8, dtype=np.float32)
    second = np.repeat(np.eye(3, 8, dtype=np.float32), 2, axis=0)
    matches, _ = mutual(javascript, first, second)
    assert matches.tolist() == registration.match_features(features(first), features(second)).tolist()


@pytest.mark.parametrize(("count0", "count1"), [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_nothing_matches_nothing(javascript, count0, count1):
    matches, _ = mutual(javascript, unit(count0), unit(count1))
    assert len(matches) == min(count0, count1)


def test_the_ratio_leaves_out_what_is_hardly_nearer_than_the_second(javascript):
    first = np.eye(2, 8, dtype=np.float32)
    second = np.array([[1, 0, 0.1] + [0] * 5, [1, 0.12] + [0] * 6, [0, 1] + [0] * 6], np.float32)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    assert mutual(javascript, first, second)[0].tolist() == [[0, 0], [1, 2]]
    assert mutual(javascript, first, second, ratio=0.8)[0].tolist() == [[1, 2]]


@pytest.mark.parametrize("few_are_clear", [True, False])
@pytest.mark.parametrize("quarters", range(4))
def test_the_vote_finds_the_turn_as_python_does(javascript, quarters, few_are_clear):
    first = unit(300, seed=3)
    second = matching.turn(first, quarters)
    if not few_are_clear:
        second[: matching.FEW[0]] = unit(matching.FEW[0], seed=4)
    found = javascript(
        ["match"],
        "[kp2d.match.bestTurn(...[a, b].map((all) => Float32Array.from(all)), 8),"
        " kp2d.match.turned(a, 8, quarters)]",
        a=first.ravel().tolist(),
        b=second.ravel().tolist(),
        quarters=quarters,
    )
    assert found[0] == quarters == matching.best_turn(first, second)
    np.testing.assert_allclose(found[1], matching.turn(first, quarters).ravel(), atol=1e-7)


# homography


def estimate(javascript, points0, points1, threshold=1.5):
    found = javascript(
        ["homography"],
        "kp2d.homography.estimate(a, b, { threshold })",
        a=np.asarray(points0, float).ravel().tolist(),
        b=np.asarray(points1, float).ravel().tolist(),
        threshold=threshold,
    )
    homography = found["homography"]
    return homography and np.reshape(homography, (3, 3)), np.array(found["inliers"]), found["trustworthy"]


def moved(count, seed=0):
    points = np.random.default_rng(seed).uniform(0, 300, (count, 2))
    return points, geometry.warp_points(points, PERSPECTIVE)


def corner_error(homography):
    corners = geometry.corners((240, 320)).astype(float)
    return np.abs(
        geometry.warp_points(corners, homography) - geometry.warp_points(corners, PERSPECTIVE)
    ).max()


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.7])
def test_the_homography_is_found_among_wrong_matches(javascript, wrong):
    points0, points1 = moved(150)
    rng = np.random.default_rng(1)
    points1 += rng.normal(0, 0.3, points1.shape)
    chosen = rng.random(150) < wrong
    points1[chosen] = rng.uniform(0, 300, (chosen.sum(), 2))
    homography, inliers, trustworthy = estimate(javascript, points0, points1)
    assert trustworthy and corner_error(homography) < 1.0
    assert (inliers[~chosen]).mean() > 0.97 and inliers[chosen].sum() <= 0.05 * chosen.sum()


def test_samples_come_from_the_most_similar_matches_first(javascript):
    points0, points1 = moved(300)
    wrong = np.random.default_rng(3)
    order = wrong.permutation(300)
    points1[order[24:]] = wrong.uniform(0, 300, (276, 2))  # chance would rarely draw four of 24
    found = javascript(
        ["homography"],
        "kp2d.homography.estimate(a, b, { threshold: 1.5, order }).homography",
        a=points0.ravel().tolist(),
        b=points1.ravel().tolist(),
        order=order.tolist(),
    )
    assert corner_error(np.reshape(found, (3, 3))) < 0.5


def test_four_matches_give_their_homography_which_nobody_should_trust(javascript):
    points0, points1 = np.array([[0, 0], [100, 0], [100, 80], [0, 80]]), None
    points1 = geometry.warp_points(points0.astype(float), PERSPECTIVE)
    homography, inliers, trustworthy = estimate(javascript, points0, points1)
    assert corner_error(homography) < 1e-6 and inliers.all() and not trustworthy


@pytest.mark.parametrize(
    "points0",
    [np.empty((0, 2)), np.ones((3, 2)), np.ones((20, 2)), np.arange(40).reshape(20, 2)],
    ids=["none", "three", "one point", "a line"],
)
def test_what_determines_no_homography_gives_none(javascript, points0):
    homography, inliers, trustworthy = estimate(javascript, points0, points0)
    assert homography is None and not inliers.any() and not trustworthy


def test_noise_is_not_believed(javascript):
    rng = np.random.default_rng(2)
    _, inliers, trustworthy = estimate(
        javascript, rng.uniform(0, 300, (200, 2)), rng.uniform(0, 300, (200, 2))
    )
    assert not trustworthy and inliers.sum() < 20


def test_a_point_behind_the_horizon_goes_nowhere(javascript):
    assert javascript(["homography"], "kp2d.homography.warp([1, 0, 0, 0, 1, 0, -0.01, 0, 1], 200, 5)") == [
        None,
        None,
    ]


# draw


@pytest.mark.parametrize(
    ("stacked", "expected"),
    [
        (False, {"width": 812, "height": 300, "boxes": [[0, 0, 400, 300], [412, 0, 400, 300]]}),
        (True, {"width": 812, "height": 1230, "boxes": [[0, 0, 812, 609], [0, 621, 812, 609]]}),
    ],
)
def test_two_pictures_share_the_width(javascript, stacked, expected):
    layout = javascript(
        ["draw"], "kp2d.draw.layout([[240, 320], [480, 640]], 812, { stacked })", stacked=stacked
    )
    boxes = [[box[name] for name in ("x", "y", "width", "height")] for box in layout["boxes"]]
    assert {**layout, "boxes": boxes} == expected


def test_tall_pictures_are_no_higher_than_is_allowed(javascript):
    layout = javascript(["draw"], "kp2d.draw.layout([[640, 480], [240, 320]], 1000, { most: 300 })")
    first, second = layout["boxes"]
    assert layout["height"] == first["height"] == second["height"] == 300
    assert first["x"] == pytest.approx(1000 - second["x"] - second["width"]), "in the middle"


def test_ends_and_outline_lie_on_the_pictures(javascript):
    expression = """(() => {
      const result = { sizes: [[24, 32], [24, 32]], homography: [1, 0, 4, 0, 1, 2, 0, 0, 1], matches: [1, 0],
        keypoints: [Float32Array.of(9, 9, -0.5, -0.5), Float32Array.of(31.5, 23.5)] };
      const layout = kp2d.draw.layout(result.sizes, 652);
      return [kp2d.draw.ends(layout, result), kp2d.draw.outline(layout, result),
        kp2d.draw.outline(layout, { ...result, homography: null }),
        kp2d.draw.outline(layout, { ...result, homography: [1, 0, 0, 0, 1, 0, -0.1, 0, 1] })];
    })()"""
    ends, outline, none, horizon = javascript(["homography", "draw"], expression)
    assert ends == [[[0, 0], [652, 240]]] and none is None and horizon is None
    assert outline == [[372, 20], [692, 20], [692, 260], [372, 260]]


@pytest.mark.parametrize(
    ("at", "lines", "expected"),
    [([3, 4], 9, 1), ([640, 236], 9, 1), ([158, 122], 9, 0), ([158, 122], 0, None), ([80, 80], 9, None)],
)
def test_the_match_is_found_that_is_pointed_at(javascript, at, lines, expected):
    result = """{ sizes: [[24, 32], [24, 32]], matches: [0, 0, 1, 1],
      keypoints: [Float32Array.of(15.5, 11.5, -0.5, -0.5), Float32Array.of(5, 5, 31.5, 23.5)] }"""
    expression = f"kp2d.draw.nearest(kp2d.draw.layout([[24, 32], [24, 32]], 652), {result}, lines, at)"
    assert javascript(["homography", "draw"], expression, at=at, lines=lines) == expected
