"""Owns the training step: both views through the network, the weighted loss terms, their meters."""

from __future__ import annotations

import keras
from keras import ops

from kp2d.checks import fits_cells, problem
from kp2d.methods.decode import interior_mask, keypoint_map, normalize, sample_bilinear
from kp2d.methods.networks import NetworkConfig, assign_by_name, build_network, load_weights
from kp2d.methods.quantized import build_quantized_network
from kp2d.train import losses
from kp2d.train.ionet import build_ionet
from kp2d.train.recipes import LossConfig, TrainConfig

ASSOCIATION_DISTANCE = 3.0  # px: a keypoint of the other view nearer than this is the same


@keras.saving.register_keras_serializable("kp2d")
class KeypointLearner(keras.Model):
    """A KeypointNet with everything that training adds to it.

    Its inputs are the fields of `kp2d.data.augment.Pair`, batched, and `corner_weight` `[B]`, the
    present weight of the corner teacher. `train_on_batch` reports every unweighted loss term.

    Attributes:
        network: The KeypointNet.
        ionet: IO-Net, or None when its term has no weight.
    """

    def __init__(self, network_config: NetworkConfig, config: TrainConfig, *, replicas: int = 1) -> None:
        """Builds the networks with fresh weights.

        Args:
            network_config: Architecture.
            config: The run; its loss, image size and dropout are used.
            replicas: Copies whose gradients will be summed.

        Raises:
            InputError: If the image size does not suit the network.
        """
        super().__init__(name="learner")
        fits_cells(config.image_size, network_config.cell)
        fresh = build_plain(network_config, quantized=config.quantized)
        self.network = _build_trained(network_config, config)
        # Dropout layers draw from the same random stream; a seed is to be one start, with them or without.
        assign_by_name(self.network, {variable.path: variable for variable in fresh.weights})
        self.ionet = build_ionet() if config.loss.inlier else None
        # Behind a function, for its weights are none of the learner's: neither trained nor saved.
        self._teach = _teacher(network_config, config) if config.loss.distillation else None
        self._cell = network_config.cell
        self._loss_config = config.loss
        self._weights_by_term = term_weights(config.loss)
        self._replicas = replicas
        self._steered = config.augment.turn > 0
        self._meters = {name: keras.metrics.Mean(name=name) for name in self._weights_by_term}
        self.built = True

    def call(self, inputs, training=None):
        """Runs both views as one batch.

        Args:
            inputs: A batch of pairs.
            training: Whether BatchNorm and dropout train.

        Returns:
            The heads of both views, image0's in the first half of the batch; the teacher's, if there is one,
            as "wanted_score_map" and so on.
        """
        images = ops.concatenate([inputs["image0"], inputs["image1"]], axis=0)
        images = ops.cast(images, "float32") / 127.5 - 1.0
        heads = self.network(images, training=training)
        heads = {name: ops.cast(head, "float32") for name, head in heads.items()}
        if self._teach is not None:
            heads |= {f"wanted_{name}": ops.stop_gradient(head) for name, head in self._teach(images).items()}
        return heads

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # noqa: ARG002
        """Weighs and add the loss terms of a batch.

        Args:
            x: A batch of pairs.
            y: Unused; the losses are self-supervised.
            y_pred: The heads, from `call`.
            sample_weight: Unused.
            training: Passed on to IO-Net.

        Returns:
            The total, a scalar.
        """
        ionet = None
        if self.ionet is not None:
            ionet = lambda pairs: self.ionet(pairs, training=training)  # noqa: E731
        terms = loss_terms(y_pred, x, self._loss_config, self._cell, ionet, steered=self._steered)
        total = 0.0
        for name, value in terms.items():
            self._meters[name].update_state(value)
            weight = self._weights_by_term[name]
            if name.startswith("corner"):
                weight = weight * ops.mean(x["corner_weight"])
            total = total + weight * value
        return total / self._replicas


def build_plain(network_config: NetworkConfig, *, quantized: bool) -> keras.Model:
    """Builds the network that a run's weights are for: any size, no dropout, float32."""
    return build_quantized_network(network_config) if quantized else build_network(network_config)


def _build_trained(network_config: NetworkConfig, config: TrainConfig) -> keras.Model:
    if config.quantized:
        return build_quantized_network(network_config, config.image_size)
    return build_network(
        network_config, config.image_size, dropout=config.dropout, precision=config.precision
    )


def _teacher(network_config: NetworkConfig, config: TrainConfig):
    if config.teacher is None:
        raise problem("train.teacher, the weights to learn from, with loss.distillation", None)
    network = build_network(network_config, config.image_size)
    plain = build_network(network_config)
    load_weights(network, plain, config.teacher)
    return lambda images: network(images, training=False)


def term_weights(config: LossConfig) -> dict[str, float]:
    """Names the loss terms that take part.

    Args:
        config: Weights.

    Returns:
        Term to weight, without those of weight 0.
    """
    weights = {
        "localization": config.localization,
        "usp": config.usp,
        "consistency": config.consistency,
        "descriptor": config.descriptor,
        "reliability": config.reliability,
        "inlier": config.inlier,
        "distillation": config.distillation,
    }
    if config.corners:
        weights |= {"corner_offset": config.corner_offset, "corner_score": config.corner_score}
    return {name: weight for name, weight in weights.items() if weight}


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
    score0, score1 = ops.split(heads["score_map"], 2)
    offset0, offset1 = ops.split(heads["offset_map"], 2)
    map0, map1 = ops.split(heads["descriptor_map"], 2)
    size, rows, columns, _ = score0.shape
    count, image_size = rows * columns, (rows * cell, columns * cell)
    interior = ops.array(interior_mask((rows, columns)).reshape(1, count))
    flat0, flat1 = ops.reshape(score0, (size, count)), ops.reshape(score1, (size, count))
    grid1 = keypoint_map(offset1, cell, xp=ops)
    points0 = ops.reshape(keypoint_map(offset0, cell, xp=ops), (size, count, 2))
    points1 = ops.reshape(grid1, (size, count, 2))
    warped0 = losses.warp_points(points0, batch["homography"])
    # Deviates from KP2Dtiny: a point that the other view does not see takes part in no term.
    seen = ops.logical_and(losses.inside(warped0, image_size), interior)
    distance, nearest = losses.nearest_keypoint(warped0, grid1, cell)
    paired = ops.logical_and(seen, distance < losses.MAX_DISTANCE)
    fixed_points, fixed_warped = ops.stop_gradient(points0), ops.stop_gradient(warped0)

    associated = losses.gather_points(flat1[..., None], nearest)[..., 0]

    wanted, terms = term_weights(config), {}
    if "localization" in wanted:
        weights = ops.cast(paired, "float32")
        if config.localization_weighting == "scores":
            weights = weights * ops.stop_gradient(flat0 * associated)
        terms["localization"] = losses.localization_loss(
            distance, weights, saturation=config.localization_saturation
        )
    if "usp" in wanted:
        terms["usp"] = losses.usp_loss(flat0, associated, distance, paired)
    if "consistency" in wanted and config.consistency_kind == "associated":
        terms["consistency"] = losses.consistency_loss(flat0, associated, paired)
    elif "consistency" in wanted:
        resampled = sample_bilinear(score1, fixed_warped, image_size, xp=ops)[..., 0]
        terms["consistency"] = losses.consistency_loss(flat0, resampled, seen)
    if "descriptor" in wanted:
        positives = fixed_warped
        if config.descriptor_positives == "associated":
            keypoints1 = ops.stop_gradient(losses.gather_points(points1, nearest))
            near = ops.stop_gradient(distance) < ASSOCIATION_DISTANCE
            positives = ops.where(near[..., None], keypoints1, fixed_warped)
        index, mask = _best_points(flat0, seen, config)
        points, positives = (losses.gather_points(each, index) for each in (fixed_points, positives))
        read0 = normalize(sample_bilinear(map0, points, image_size, xp=ops), xp=ops)
        read1 = normalize(sample_bilinear(map1, positives, image_size, xp=ops), xp=ops)
        if steered:
            read0 = losses.steer(read0, batch["turns"])
        terms["descriptor"] = _descriptor_loss(read0, read1, positives, mask, config)
        if "reliability" in wanted:
            scores = ops.take_along_axis(flat0 + associated, index, axis=1)
            terms["reliability"] = losses.reliability_loss(
                scores, read0, read1, positives, mask, temperature=config.temperature
            )
    if "distillation" in wanted:
        names = ("score_map", "offset_map", "descriptor_map")
        terms["distillation"] = losses.distillation_loss(
            {name: heads[name] for name in names}, {name: heads[f"wanted_{name}"] for name in names}
        )
    if "inlier" in wanted:
        k = min(config.inlier_points, (rows - 2) * (columns - 2))
        low0, low1 = _lowest(flat0, interior, k), _lowest(flat1, interior, k)
        chosen0, chosen1 = losses.gather_points(points0, low0), losses.gather_points(points1, low1)
        read0 = normalize(sample_bilinear(map0, chosen0, image_size, xp=ops), xp=ops)
        read1 = normalize(sample_bilinear(map1, chosen1, image_size, xp=ops), xp=ops)
        pairs, matched1 = losses.point_pairs(chosen0, chosen1, read0, read1, image_size)
        warped = losses.gather_points(warped0, low0)
        terms["inlier"] = losses.inlier_loss(ionet(pairs), warped, matched1)
    if config.corners:
        corners = ops.concatenate([batch["corners0"], batch["corners1"]], axis=0)
        offset_term, score_term = losses.corner_loss(heads["offset_map"], heads["score_map"], corners)
        terms |= {"corner_offset": offset_term, "corner_score": score_term}
    return {name: terms[name] for name in wanted}


def _descriptor_loss(read0, read1, warped, mask, config: LossConfig):
    if config.descriptor_kind == "triplet":
        return losses.triplet_loss(read0, read1, warped, mask, margin=config.margin, relax=config.relax)
    return losses.dual_softmax_loss(
        read0,
        read1,
        warped,
        mask,
        temperature=config.temperature,
        relax=config.relax,
        others=config.other_pictures,
    )


def _best_points(scores, seen, config: LossConfig):
    """Finds the best-scored visible points of each pair, all when they are few; and which are visible."""
    limit, count = config.descriptor_points, scores.shape[1]
    if limit is None or limit >= count:
        return ops.broadcast_to(ops.arange(count, dtype="int32"), scores.shape), seen
    _, index = ops.top_k(ops.where(seen, ops.stop_gradient(scores), -1.0), limit)
    return index, ops.take_along_axis(seen, index, axis=1)


def _lowest(scores, interior, k: int):
    """Index of the k lowest-scored interior cells."""
    # Deviates from KP2Dtiny: border cells, whose score is worth nothing, are left out.
    return ops.top_k(ops.where(interior, -ops.stop_gradient(scores), -2.0), k)[1]
