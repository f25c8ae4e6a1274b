"""Owns the loss terms of a batch of pairs: which keypoints belong together, and what each term asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kp2d.methods.decode import interior_mask, keypoint_map, normalize, sample_bilinear, sample_step
from kp2d.train import losses
from kp2d.train.recipes import LossConfig

ASSOCIATION_DISTANCE = 3.0  # px: a keypoint of the other view nearer than this is the same
CROWD_CELLS = 2  # cells away from which a keypoint can come to stand on another
CROWDED = 0.5  # of `crowding`: a better keypoint is nearer than half the reach
FAR = 1e4  # px: beyond every image
HEADS = ("score_map", "offset_map", "descriptor_map")


class Described(NamedTuple):
    """The points of image0 that enter the descriptor terms, K a pair, and what both views say of them."""

    index: Any  # int `[B, K]` into the N points of image0
    mask: Any  # bool `[B, K]`, points seen by both views
    positives: Any  # `[B, K, 2]` px, where image1 was read
    descriptors0: Any  # `[B, K, D]` of unit length
    descriptors1: Any  # `[B, K, D]` of unit length, row by row


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the keypoints of a batch of pairs lie and which belong together: what all loss terms share.

    B pairs, N = Hc · Wc points a view, in row-major order of their cells.
    """

    # `score_map`, `offset_map` and `descriptor_map` of 2B images, image0 first; the teacher's, too
    heads: dict[str, Any]
    batch: dict[str, Any]  # the pairs, as `loss_terms` takes them
    config: LossConfig  # constants of the terms
    ionet: Callable | None  # from `[B, K, 5]` to `[B, K]`, or None
    steered: bool  # whether descriptors turn along with the batch's `turns`
    image_size: tuple[int, int]  # (height, width) px
    interior: Any  # bool `[1, N]`, cells that do not touch the border
    score_map1: Any  # `[B, Hc, Wc, 1]`, scores of image1 as a map
    scores0: Any  # `[B, N]` in [0, 1]
    scores1: Any  # `[B, N]` in [0, 1]
    points0: Any  # `[B, N, 2]` px, keypoints of image0
    points1: Any  # `[B, N, 2]` px, keypoints of image1
    warped: Any  # `[B, N, 2]` px, `points0` in image1
    seen: Any  # bool `[B, N]`, interior points of image0 that image1 sees, too
    distance: Any  # `[B, N]` px from `warped` to the nearest keypoint of image1
    nearest: Any  # int `[B, N]`, index of that keypoint
    associated: Any  # `[B, N]`, its score
    paired: Any  # bool `[B, N]`, points that are seen and near enough to it to be a correspondence
    # `[B, N]` in [0, 1], how near each keypoint of image0 has a better one; None without that term
    crowd0: Any
    crowd1: Any  # `[B, N]` likewise of image1

    @cached_property
    def described(self) -> Described:
        """Descriptors of the best-scored visible points and of their positives in image1."""
        points, positives = ops.stop_gradient(self.points0), ops.stop_gradient(self.warped)
        if self.config.descriptor_positives == "associated":
            keypoints = ops.stop_gradient(losses.gather_points(self.points1, self.nearest))
            near = ops.stop_gradient(self.distance) < ASSOCIATION_DISTANCE
            positives = ops.where(near[..., None], keypoints, positives)
        index, mask = _best_points(self.scores0, self.seen, self.config.descriptor_points)
        points, positives = losses.gather_points(points, index), losses.gather_points(positives, index)
        descriptors0, descriptors1 = self.read(points, positives)
        if self.steered:
            descriptors0 = losses.steer(descriptors0, self.batch["turns"])
        return Described(index, mask, positives, descriptors0, descriptors1)

    def read(self, points0, points1):
        """Reads descriptors of unit length, `[B, K, D]` a view, at points of image0 and of image1, px."""
        maps = ops.split(self.heads["descriptor_map"], 2)
        grid_size = self.score_map1.shape[1:3]
        step = sample_step(grid_size, maps[0].shape[1:3], self.image_size[0] // grid_size[0])
        return tuple(
            normalize(sample_bilinear(descriptor_map, points, self.image_size, step=step, xp=ops), xp=ops)
            for descriptor_map, points in zip(maps, (points0, points1), strict=True)
        )


def locate(heads, batch, config: LossConfig, cell: int, ionet=None, *, steered: bool = False) -> Geometry:
    """Finds the keypoints of both views and which of them belong together; arguments as `loss_terms`."""
    score_map0, score_map1 = ops.split(heads["score_map"], 2)
    offset_map0, offset_map1 = ops.split(heads["offset_map"], 2)
    pairs, rows, columns, _ = score_map0.shape
    count, image_size = rows * columns, (rows * cell, columns * cell)
    interior = ops.array(interior_mask((rows, columns)).reshape(1, count))
    scores0, scores1 = (ops.reshape(scores, (pairs, count)) for scores in (score_map0, score_map1))
    keypoints0, keypoints1 = (keypoint_map(offsets, cell, xp=ops) for offsets in (offset_map0, offset_map1))
    points0 = ops.reshape(keypoints0, (pairs, count, 2))
    warped = losses.warp_points(points0, batch["homography"])
    # Deviates from KP2Dtiny: a point that the other view does not see takes part in no term.
    seen = ops.logical_and(losses.inside(warped, image_size), interior)
    crowd0 = crowd1 = None
    candidates1 = keypoints1
    if config.distinctness:
        # Of keypoints that share a corner only the best is a correspondence, as if the others were not there.
        crowd0 = crowding(keypoints0, score_map0, config.distinct_radius)
        crowd1 = crowding(keypoints1, score_map1, config.distinct_radius)
        alone1 = ops.reshape(crowd1 < CROWDED, (pairs, rows, columns, 1))
        candidates1 = ops.where(alone1, keypoints1, FAR)
    distance, nearest = losses.nearest_keypoint(warped, candidates1, cell)
    paired = ops.logical_and(seen, distance < losses.MAX_DISTANCE)
    if config.distinctness:
        paired = ops.logical_and(paired, crowd0 < CROWDED)
    return Geometry(
        heads=heads,
        batch=batch,
        config=config,
        ionet=ionet,
        steered=steered,
        image_size=image_size,
        interior=interior,
        score_map1=score_map1,
        scores0=scores0,
        scores1=scores1,
        points0=points0,
        points1=ops.reshape(keypoints1, (pairs, count, 2)),
        warped=warped,
        seen=seen,
        distance=distance,
        nearest=nearest,
        associated=losses.gather_points(scores1[..., None], nearest)[..., 0],
        paired=paired,
        crowd0=crowd0,
        crowd1=crowd1,
    )


def crowding(keypoint_map, score_map, radius: float):
    """Tells how near each keypoint has a better-scored one of a cell close by: cells may share a corner.

    From keypoints `[B, Hc, Wc, 2]` px, scores `[B, Hc, Wc, 1]` and a reach, px, to `[B, Hc · Wc]`: 1 on top
    of a better one, 0 where none is within the reach; a constant.
    """
    keypoints, scores = ops.stop_gradient(keypoint_map), ops.stop_gradient(score_map[..., 0])
    _, rows, columns, _ = keypoint_map.shape
    reach = CROWD_CELLS
    padded = ops.pad(keypoints, [[0, 0], [reach, reach], [reach, reach], [0, 0]], constant_values=-1e4)
    better = ops.pad(scores, [[0, 0], [reach, reach], [reach, reach]], constant_values=-1.0)
    crowd = ops.zeros_like(scores)
    for row, column in np.ndindex(2 * reach + 1, 2 * reach + 1):
        window = np.s_[:, row : row + rows, column : column + columns]
        distance = ops.sqrt(ops.sum(ops.square(padded[window] - keypoints), axis=-1))
        nearness = ops.relu(1.0 - distance / radius)
        crowd = ops.maximum(crowd, ops.where(better[window] > scores, nearness, 0.0))
    return ops.reshape(crowd, (-1, rows * columns))


def _localization(geometry: Geometry):
    weights = ops.cast(geometry.paired, "float32")
    if geometry.config.localization_weighting == "scores":
        weights = weights * ops.stop_gradient(geometry.scores0 * geometry.associated)
    saturation = geometry.config.localization_saturation
    return losses.localization_loss(geometry.distance, weights, saturation=saturation)


def _usp(geometry: Geometry):
    return losses.usp_loss(geometry.scores0, geometry.associated, geometry.distance, geometry.paired)


def _consistency(geometry: Geometry):
    if geometry.config.consistency_kind == "associated":
        return losses.consistency_loss(geometry.scores0, geometry.associated, geometry.paired)
    points = ops.stop_gradient(geometry.warped)
    resampled = sample_bilinear(geometry.score_map1, points, geometry.image_size, xp=ops)[..., 0]
    return losses.consistency_loss(geometry.scores0, resampled, geometry.seen)


def _descriptor(geometry: Geometry):
    config, described = geometry.config, geometry.described
    compared = (described.descriptors0, described.descriptors1, described.positives, described.mask)
    if config.descriptor_kind == "triplet":
        return losses.triplet_loss(*compared, margin=config.margin, relax=config.relax)
    return losses.dual_softmax_loss(
        *compared, temperature=config.temperature, relax=config.relax, others=config.other_pictures
    )


def _reliability(geometry: Geometry):
    described = geometry.described
    return losses.reliability_loss(
        ops.take_along_axis(geometry.scores0 + geometry.associated, described.index, axis=1),
        described.descriptors0,
        described.descriptors1,
        described.positives,
        described.mask,
        temperature=geometry.config.temperature,
    )


def _distinctness(geometry: Geometry):
    return sum(
        losses.masked_mean(scores * crowd, geometry.interior)
        for scores, crowd in ((geometry.scores0, geometry.crowd0), (geometry.scores1, geometry.crowd1))
    )


def _inlier(geometry: Geometry):
    rows, columns = geometry.score_map1.shape[1:3]
    count = min(geometry.config.inlier_points, (rows - 2) * (columns - 2))
    low0 = _lowest(geometry.scores0, geometry.interior, count)
    low1 = _lowest(geometry.scores1, geometry.interior, count)
    points0 = losses.gather_points(geometry.points0, low0)
    points1 = losses.gather_points(geometry.points1, low1)
    descriptors = geometry.read(points0, points1)
    pairs, matched1 = losses.point_pairs(points0, points1, *descriptors, geometry.image_size)
    warped = losses.gather_points(geometry.warped, low0)
    return losses.inlier_loss(geometry.ionet(pairs), warped, matched1)


def _distillation(geometry: Geometry):
    ours = {name: geometry.heads[name] for name in HEADS}
    return losses.distillation_loss(ours, {name: geometry.heads[f"wanted_{name}"] for name in HEADS})


def _corner_offset(geometry: Geometry):
    return losses.corner_offset_loss(geometry.heads["offset_map"], _corners(geometry))


def _corner_score(geometry: Geometry):
    return losses.corner_score_loss(geometry.heads["score_map"], _corners(geometry))


def _corners(geometry: Geometry):
    return ops.concatenate([geometry.batch["corners0"], geometry.batch["corners1"]], axis=0)


def _best_points(scores, seen, limit: int | None):
    """Finds the best-scored visible points of each pair, all when they are few; and which are visible."""
    count = scores.shape[1]
    if limit is None or limit >= count:
        return ops.broadcast_to(ops.arange(count, dtype="int32"), scores.shape), seen
    _, index = ops.top_k(ops.where(seen, ops.stop_gradient(scores), -1.0), limit)
    return index, ops.take_along_axis(seen, index, axis=1)


def _lowest(scores, interior, count: int):
    """Index of the lowest-scored interior cells."""
    # Deviates from KP2Dtiny: border cells, whose score is worth nothing, are left out.
    return ops.top_k(ops.where(interior, -ops.stop_gradient(scores), -2.0), count)[1]


# Name of a term, which is the name of its weight in `LossConfig`, to its value for a batch.
TERMS: dict[str, Callable[[Geometry], Any]] = {
    "localization": _localization,
    "usp": _usp,
    "consistency": _consistency,
    "descriptor": _descriptor,
    "reliability": _reliability,
    "distinctness": _distinctness,
    "inlier": _inlier,
    "distillation": _distillation,
    "corner_offset": _corner_offset,
    "corner_score": _corner_score,
}
CORNER_TERMS = ("corner_offset", "corner_score")


def term_weights(config: LossConfig) -> dict[str, float]:
    """Returns the weights of the loss terms that take part, by name; those of weight 0 do not."""
    names = [name for name in TERMS if config.corners or name not in CORNER_TERMS]
    return {name: getattr(config, name) for name in names if getattr(config, name)}


def loss_terms(heads, batch, config: LossConfig, cell: int, ionet=None, *, steered: bool = False) -> dict:
    """Computes the unweighted loss terms of a batch of pairs.

    Args:
        heads: `score_map`, `offset_map` and `descriptor_map` of 2B images, image0 first.
        batch: `homography` `[B, 3, 3]`, `turns` `[B]`, and `corners0` and `corners1` `[B, Hc, Wc, 4]`
            when the corner teacher takes part.
        config: Which terms, and their constants.
        cell: Cell side, px.
        ionet: From `[B, K, 5]` to `[B, K]`; needed for the inlier term.
        steered: Whether descriptors turn along with `turns`.

    Returns:
        Term to scalar tensor, for exactly the names of `term_weights`.
    """
    geometry = locate(heads, batch, config, cell, ionet, steered=steered)
    return {name: TERMS[name](geometry) for name in term_weights(config)}
