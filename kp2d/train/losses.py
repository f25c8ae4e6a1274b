"""Owns the self-supervised losses of KP2D and stronger ones, as pure functions of `keras.ops` tensors.

Everything is batched and masked: no loop over the batch, no dynamic shape. A loss is averaged over
the valid points of each pair, then over the pairs, so that it does not depend on how a batch is
split over devices. A pair without a valid point contributes 0.

Notation: pair (image0, image1), homography 0 → 1, N = Hc · Wc points a view, p0 and p1 the
keypoints, w0 the keypoints of image0 warped into image1, s0 and s1 the scores.

Shapes, unless a function says others: points `[B, N, 2]`, (x, y) px; scores in [0, 1], distances in px and
masks (bool, or weights ≥ 0) `[B, N]`; descriptors `[B, K, D]` of unit length, of K points that both views
have row by row; `points` beside them are where descriptors1 were read. A loss is a scalar.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from kp2d.checks import problem
from kp2d.methods.decode import cell_centers, normalize
from kp2d.methods.matching import TURNS, turn

MAX_DISTANCE = 4.0  # px: farther pairs are no correspondence (KP2D)
MASKED = -1e4  # similarity of what must not be matched


def warp_points(points, homography):
    """Maps points through homographies `[B, 3, 3]`: column vectors, (x', y', 1) ~ H (x, y, 1).

    Points at or behind the horizon land far outside every image.
    """
    ones = ops.ones_like(points[..., :1])
    mapped = ops.matmul(ops.concatenate([points, ones], axis=-1), ops.swapaxes(homography, 1, 2))
    return mapped[..., :2] / ops.maximum(mapped[..., 2:], 1e-6)


def inside(points, image_size: tuple[int, int]):
    """Tells which points lie on an image of (height, width) px; bool `[B, N]`."""
    x, y = points[..., 0], points[..., 1]
    horizontal = ops.logical_and(x >= 0.0, x <= image_size[1] - 1.0)
    return ops.logical_and(horizontal, ops.logical_and(y >= 0.0, y <= image_size[0] - 1.0))


def masked_mean(values, mask):
    """Averages the valid entries of each pair, then the pairs; a pair without any counts 0."""
    return ops.mean(_pair_mean(values, mask))


def nearest_keypoint(points, keypoint_map, cell: int):
    """Finds the keypoint of a cell map nearest to each point.

    A keypoint strays at most `cell − 1` px from its cell's centre, so that all keypoints nearer
    than `MAX_DISTANCE` to a point belong to the 4 × 4 cells around it: 16 candidates instead of N.

    Args:
        points: `[B, N, 2]`, (x, y) px.
        keypoint_map: `[B, Hc, Wc, 2]`, (x, y) px.
        cell: Cell side, px.

    Returns:
        The distance `[B, N]` px, exact below `MAX_DISTANCE` and an upper bound above, and the
        index `[B, N]` of the cell in row-major order. Gradients flow to points and keypoints.
    """
    batch, rows, columns, _ = keypoint_map.shape
    count = points.shape[1]
    origin = ops.array(cell_centers((1, 1), cell)[0, 0])
    first = ops.floor(ops.stop_gradient((points - origin) / cell)) - 1.0
    window = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), axis=-1).reshape(16, 2)
    cells = ops.cast(first[:, :, None] + ops.array(window.astype(np.float32)), "int32")
    # Clipped after the cast, so that NaN leads to a valid cell and shows up in the loss.
    column = ops.clip(cells[..., 0], 0, columns - 1)
    index = column + columns * ops.clip(cells[..., 1], 0, rows - 1)
    table = ops.reshape(keypoint_map, (batch * rows * columns, 2))
    offset = ops.array(np.arange(batch, dtype=np.int32)[:, None] * (rows * columns))

    def squared_distance(candidates):
        return ops.sum(ops.square(candidates - points[:, :, None]), axis=-1)

    flat = ops.reshape(index + offset[..., None], (-1,))
    candidates = ops.take(ops.stop_gradient(table), flat, axis=0)
    candidates = ops.reshape(candidates, (batch, count, 16, 2))
    best = ops.argmin(squared_distance(candidates), axis=-1)
    nearest = ops.take_along_axis(index, best[..., None], axis=-1)[..., 0]
    keypoints = ops.take(table, ops.reshape(nearest + offset, (-1,)), axis=0)
    difference = ops.reshape(keypoints, (batch, count, 2)) - points
    return ops.sqrt(ops.sum(ops.square(difference), axis=-1) + 1e-8), nearest


def localization_loss(distance, mask, *, saturation: float = 0.0):
    """Pulls corresponding keypoints together: mean of d = |w0 − nearest p1| (KP2D, L_loc), px.

    With a saturation σ, px, it is the mean of 2σ d / (d + σ): what is placed well already counts most, and
    the distances of points that have no place, at most 2σ, cannot drown it. The mask has what is nearer than
    `MAX_DISTANCE`.
    """
    if saturation:
        distance = 2.0 * saturation * distance / (distance + saturation)
    return masked_mean(distance, mask)


def usp_loss(scores0, scores1, distance, mask):
    """Raises the scores of pairs nearer than average: mean of (s0 + s1)(d − mean d) (UnsuperPoint).

    s1 is the score of the keypoint associated with each point of image0. The distances are constants here:
    the term teaches the scores only.
    """
    distance = ops.stop_gradient(distance)
    excess = distance - _pair_mean(distance, mask)[:, None]
    return masked_mean((scores0 + scores1) * excess, mask)


def consistency_loss(scores0, scores1, mask):
    """Asks both views for the same score: mean of (s0 − s1)² (KP2D).

    s1 is the other view's map read at the warped points (KP2D), or the scores of the associated keypoints.
    """
    return masked_mean(ops.square(scores0 - scores1), mask)


def triplet_loss(descriptors0, descriptors1, points, mask, *, margin: float, relax: float):
    """Pushes the hardest negative away: mean of max(0, m + |a − p| − min |a − n|) (KP2D).

    Anchors a are descriptors0, positives p descriptors1; negatives are points of the same image farther than
    `relax` px in x or in y; the margin m is a descriptor distance.
    """
    similarity = ops.matmul(descriptors0, ops.swapaxes(descriptors1, 1, 2))
    excluded = ops.logical_or(_near(points, relax), ops.logical_not(mask)[:, None, :])
    # The maximum of the similarities is the minimum of the distances, at a third of the cost.
    negative = ops.max(ops.where(excluded, -1.0, similarity), axis=2)
    positive = ops.sum(descriptors0 * descriptors1, axis=-1)
    violation = margin + _unit_distance(positive) - _unit_distance(negative)
    return masked_mean(ops.relu(violation), mask)


def dual_softmax_loss(
    descriptors0, descriptors1, points, mask, *, temperature: float, relax: float, others: int = 0
):
    """Matches both ways by soft nearest neighbours: mean of −½ (log P(i→i) + log P(i←i)) (XFeat), nats.

    P is the softmax of similarity / temperature over the points of the other view, those within
    `relax` px of the true one left out. So many `others`, pictures of the batch, lend further negatives.
    """
    similarity = ops.matmul(descriptors0, ops.swapaxes(descriptors1, 1, 2)) / temperature
    positive = ops.sum(descriptors0 * descriptors1, axis=-1) / temperature
    different = ops.array(~np.eye(points.shape[1], dtype=bool))
    near = ops.logical_and(_near(points, relax), different)
    valid = ops.logical_and(mask[:, None, :], mask[:, :, None])
    similarity = ops.where(ops.logical_and(valid, ops.logical_not(near)), similarity, MASKED)
    forward, backward = ops.logsumexp(similarity, axis=2), ops.logsumexp(similarity, axis=1)
    for shift in range(1, min(others, points.shape[0] - 1) + 1):
        other1 = ops.roll(descriptors1, shift, axis=0)
        extra = ops.matmul(descriptors0, ops.swapaxes(other1, 1, 2)) / temperature
        seen = ops.roll(mask, shift, axis=0)
        extra = ops.where(seen[:, None, :], extra, MASKED)
        forward = ops.logaddexp(forward, ops.logsumexp(extra, axis=2))
    return masked_mean((forward + backward) / 2 - positive, mask)


def reliability_loss(scores, descriptors0, descriptors1, points, mask, *, temperature: float):
    """Raises the scores of points that match correctly: mean of s (mean m − m).

    m is the probability of a match within 3 px of the true one, by the softmax of similarity / temperature
    over the points of either view: the product of both ways. It is a constant here: the term teaches the
    scores only, of which s `[B, K]` is the sum of both keypoints'.
    """
    similarity = ops.matmul(descriptors0, ops.swapaxes(descriptors1, 1, 2)) / temperature
    valid = ops.logical_and(mask[:, None, :], mask[:, :, None])
    similarity = ops.stop_gradient(ops.where(valid, similarity, MASKED))
    correct = ops.cast(_near(points, 3.0), "float32")
    forward = ops.sum(ops.softmax(similarity, axis=2) * correct, axis=2)
    matched = forward * ops.sum(ops.softmax(similarity, axis=1) * correct, axis=1)
    return masked_mean(scores * (_pair_mean(matched, mask)[:, None] - matched), mask)


def steer(descriptors, turns):
    """Turns descriptors `[B, K, D]` as if their picture had made `[B]` quarter turns, 0 to 3 (C4 steerers).

    A descriptor is four blocks of D/4 numbers; a quarter turn moves them on by one. It costs nothing, needs
    no network, and is exact in integers, so that matching can try all four turns of one picture.
    """
    batch, count, dim = descriptors.shape
    if dim % TURNS:
        raise problem(f"descriptors of a length divisible by {TURNS}, to be steered", dim)
    source = np.stack([turn(np.arange(dim)[None], quarters)[0] for quarters in range(TURNS)])
    index = ops.take(ops.array(source.astype(np.int32)), turns, axis=0)
    return ops.take_along_axis(descriptors, ops.broadcast_to(index[:, None], (batch, count, dim)), axis=2)


def corner_offset_loss(offset_map, corner_map):
    """Imitates where a classical corner detector puts keypoints: Σ σ |offset − target|² / Σ σ.

    The detector is a temporary teacher that opens the training; σ is its saliency. Offsets are
    `[B, Hc, Wc, 2]` in [−1, 1], corners `[B, Hc, Wc, 4]` from `kp2d.data.augment.corner_targets`.
    """
    saliency = corner_map[..., 2]
    error = ops.sum(ops.square(offset_map - corner_map[..., :2]), axis=-1)
    weight = ops.sum(saliency, axis=(1, 2))
    return ops.mean(ops.sum(error * saliency, axis=(1, 2)) / ops.maximum(weight, 1e-6))


def corner_score_loss(score_map, corner_map):
    """Imitates how sure the corner detector is: mean of (score − target)², scores `[B, Hc, Wc, 1]`."""
    return ops.mean(ops.square(score_map[..., 0] - corner_map[..., 3]))


def distillation_loss(heads, wanted):
    """Distance of a network's heads from those that a teacher gives for the same images, `[B, h, w, C]` each.

    Scores and offsets count by their squared difference, descriptors by 1 − cosine. Offsets count by the
    teacher's score, and scores, on which the choice of keypoints hangs, ten times.
    """
    score = ops.mean(ops.square(heads["score_map"] - wanted["score_map"]))
    share = wanted["score_map"] / (ops.mean(wanted["score_map"]) + 1e-6)
    offset = ops.mean(share * ops.square(heads["offset_map"] - wanted["offset_map"]))
    ours, theirs = (normalize(maps["descriptor_map"], xp=ops) for maps in (heads, wanted))
    return 10.0 * score + offset + ops.mean(1.0 - ops.sum(ours * theirs, axis=-1))


def point_pairs(points0, points1, descriptors0, descriptors1, image_size: tuple[int, int]):
    """Matches every point of image0 `[B, K, 2]` px to its nearest descriptor, as IO-Net wants to see it.

    Returns:
        `[B, K, 5]`: both points normalized to [−1, 1] and the descriptor distance; and the
        matched points of image1, `[B, K, 2]` px.
    """
    similarity = ops.matmul(descriptors0, ops.swapaxes(descriptors1, 1, 2))
    match = ops.argmax(similarity, axis=2)
    matched1 = gather_points(points1, match)
    distance = _unit_distance(ops.max(similarity, axis=2))
    half = ops.array([(image_size[1] - 1) / 2, (image_size[0] - 1) / 2], "float32")
    pairs = [points0 / half - 1.0, matched1 / half - 1.0, distance[..., None]]
    return ops.concatenate(pairs, axis=-1), matched1


def inlier_loss(prediction, warped0, matched1):
    """Judges IO-Net's r `[B, K]`: mean of (r − y)², y = +1 where |w0 − matched p1| < 4 px, else −1 (KP2D).

    A pair with at most ten inliers counts 0.
    """
    # Deviates from KP2Dtiny: +1 marks what is near, and the distance is that of points.
    error = ops.sum(ops.square(ops.stop_gradient(warped0 - matched1)), axis=-1)
    inlier = ops.cast(error < MAX_DISTANCE**2, "float32")
    enough = ops.cast(ops.sum(inlier, axis=1) > 10.0, "float32")
    return ops.mean(enough * ops.mean(ops.square(prediction - (2.0 * inlier - 1.0)), axis=1))


def gather_points(values, index):
    """Picks the rows `[B, K, D]` of values `[B, N, D]` that an index, int `[B, K]`, names."""
    batch, count, dim = values.shape
    start = ops.array(np.arange(batch, dtype=np.int32)[:, None] * count)
    flat = ops.reshape(ops.cast(index, "int32") + start, (-1,))
    rows = ops.take(ops.reshape(values, (batch * count, dim)), flat, axis=0)
    return ops.reshape(rows, (batch, index.shape[1], dim))


def _pair_mean(values, mask):
    weight = ops.cast(mask, "float32")
    return ops.sum(values * weight, axis=1) / ops.maximum(ops.sum(weight, axis=1), 1.0)


def _near(points, relax: float):
    x, y = points[..., 0], points[..., 1]
    dx = ops.abs(x[:, :, None] - x[:, None, :])
    dy = ops.abs(y[:, :, None] - y[:, None, :])
    return ops.maximum(dx, dy) <= relax


def _unit_distance(similarity):
    return ops.sqrt(ops.maximum(2.0 - 2.0 * similarity, 0.0) + 1e-8)
