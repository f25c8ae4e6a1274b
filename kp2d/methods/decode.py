"""Owns `Features`, the one result of every method, and the way there from raw heads.

Cells, borders, clipping and dequantization live here only.

The formulas are written once over an array namespace `xp`: `numpy` (the default; TensorFlow and
Keras are never imported) or `keras.ops` inside a training step.

Convention: keypoints are (x, y) px and the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from kp2d import checks
from kp2d.checks import problem

CROSS_RATIO = 2.0  # an offset of ±1 reaches this many half cells: keypoints may leave their cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Keypoints of one image with their scores and descriptors.

    Convention: (x, y) in pixels, the centre of the top-left pixel is (0, 0); N = 0 is valid.

    Attributes:
        keypoints: float32 `[N, 2]`, (x, y) px.
        scores: float32 `[N]`, larger is better; a probability for our networks, the detector's
            response for classical methods.
        descriptors: float32 `[N, D]` of unit length (L2 matching), or uint8 `[N, D]` packed bits
            (Hamming matching).
    """

    keypoints: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray

    def __post_init__(self):
        checks.is_points(self.keypoints)
        count = len(self.keypoints)
        if self.scores.shape != (count,):
            raise problem(f"scores [{count}]", f"shape {list(self.scores.shape)}")
        if self.descriptors.ndim != 2 or len(self.descriptors) != count:
            raise problem(f"descriptors [{count}, D]", f"shape {list(self.descriptors.shape)}")

    def __len__(self) -> int:
        return len(self.keypoints)

    def take(self, index: np.ndarray) -> Features:
        """Returns the features at `index` (an integer or boolean array `[K]` or `[N]`), in that order."""
        return Features(
            keypoints=self.keypoints[index],
            scores=self.scores[index],
            descriptors=self.descriptors[index],
        )

    def by_score(self) -> Features:
        """Returns all features, best score first; of equal scores (int8 has many) the later comes first.

        That is the order of KP2D's evaluation code, read backwards; RANSAC depends on it.
        """
        return self.take(np.argsort(self.scores, kind="stable")[::-1])


def offset_reach(cell: int) -> float:
    """How far an offset of 1 moves a keypoint from its cell's centre, px."""
    return CROSS_RATIO * (cell - 1) / 2


def pixels(image: np.ndarray, cell: int) -> np.ndarray:
    """Turns a picture into the batch of pixels that a network can take.

    Args:
        image: uint8 `[H, W]`, `[H, W, 1]`, `[H, W, 3]` RGB, or a batch `[B, H, W, 1|3]`.
        cell: Cell side of the network, px.

    Returns:
        uint8 `[B, H, W, 3]`; grayscale is repeated. Not to be written to: colour may be the picture itself.

    Raises:
        InputError: If the dtype or shape is another, or a side is not divisible by the cell.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    batch = image[None] if image.ndim == 3 else image
    if image.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] not in (1, 3):
        raise problem(
            "a uint8 image [H, W], [H, W, 1|3] or a batch [B, H, W, 1|3]",
            f"{image.dtype} {list(image.shape)}",
            "Convert it to 8-bit RGB or gray.",
        )
    height, width = batch.shape[1:3]
    if (height, width) not in (sizes := checks.fitting_sizes((height, width), cell)):
        raise problem(
            f"an image with sides of at least {3 * cell} px, divisible by the cell {cell}",
            f"{height}x{width}",
            f"Resize or crop it, for example to {' or '.join(f'{h}x{w}' for h, w in sizes)}.",
        )
    return batch if batch.shape[-1] == 3 else np.repeat(batch, 3, axis=-1)


def normalized(batch: np.ndarray) -> np.ndarray:
    """Scales pixels, uint8 `[B, H, W, 3]`, to what a float network reads, float32 in [−1, 1]."""
    return batch.astype(np.float32) / 127.5 - 1.0


def dequantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Undoes the affine quantization of integers of any shape: float32 `scale · (q − zero_point)`."""
    # Deviates from KP2Dtiny, which divides by fixed constants.
    numbers = values.astype(np.float32)
    numbers -= np.float32(zero_point)
    numbers *= np.float32(scale)
    return numbers


@dataclasses.dataclass(frozen=True)
class QuantizedMap:
    """A head in integers, of which only what is read becomes numbers.

    At 640×480, a descriptor map has twenty times as many numbers as a thousand keypoints read.
    """

    values: np.ndarray  # integers `[1, Hd, Wd, D]`
    scale: float  # the tensor's own scale
    zero_point: int  # the tensor's own zero point

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the head."""
        return self.values.shape


def sharpen(scores, sharpness, *, xp=np):
    """Undoes that a quantized network computes flatter scores: `sigmoid(sharpness · logit(s))`.

    Good keypoints have scores so near to 1 that 256 levels cannot tell them apart; a network of ours
    therefore divides their logits by the sharpness, which keeps the order.

    Args:
        scores: `[...]` in [0, 1]; multiples of 1/256, or close to them.
        sharpness: At least 1; 1, of a network that was not flattened, changes nothing.
        xp: `numpy` or `keras.ops`.

    Returns:
        The same shape, in (0, 1), or as they were.
    """
    if xp is np and sharpness == 1:
        return scores
    inner = xp.clip(scores, 1 / 512, 511 / 512)
    return 1 / (1 + xp.exp(-sharpness * xp.log(inner / (1 - inner))))


@functools.lru_cache(maxsize=16)
def cell_centers(grid_size: tuple[int, int], cell: int) -> np.ndarray:
    """Returns the centre of every cell, `cell · (j, i) + (cell − 1) / 2`, of a grid of (rows, columns).

    Returns:
        float32 `[Hc, Wc, 2]`, (x, y) px; read-only, for it is kept.
    """
    rows, columns = grid_size
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    centers = np.float32(cell) * np.stack([x, y], axis=-1).astype(np.float32) + np.float32((cell - 1) / 2)
    centers.setflags(write=False)
    return centers


def interior_mask(grid_size: tuple[int, int]) -> np.ndarray:
    """Returns bool `[Hc, Wc]`: the cells of a grid of (rows, columns) that are not on the one-cell border."""
    mask = np.zeros(grid_size, bool)
    mask[1:-1, 1:-1] = True
    return mask


def keypoint_map(offset_map, cell: int, *, xp=np):
    """Places the keypoint of every cell: `centre + offset · 2 · (cell − 1) / 2`, clipped to the image.

    From offsets `[B, Hc, Wc, 2]` in [−1, 1], (x, y), to px of the same shape; `xp` is `numpy` or `keras.ops`.
    """
    _, rows, columns, _ = offset_map.shape
    centers = xp.array(cell_centers((rows, columns), cell))
    return _keypoints(centers, offset_map, (rows, columns), cell, xp)


def _keypoints(centers, offsets, grid_size: tuple[int, int], cell: int, xp):
    keypoints = centers + offsets * offset_reach(cell)
    # Deviates from KP2Dtiny, whose TFLite decoder clips rows of the grid instead of x and y.
    x = _clip(xp, keypoints[..., 0], grid_size[1] * cell - 1.0)
    y = _clip(xp, keypoints[..., 1], grid_size[0] * cell - 1.0)
    return xp.stack([x, y], axis=-1)


def sample_step(grid_size: tuple[int, int], map_size: tuple[int, int], cell: int) -> int | None:
    """Tells how many px lie between the samples of a descriptor map, which stand in the middle of theirs.

    Args:
        grid_size: (rows, columns) of cells.
        map_size: (rows, columns) of the map.
        cell: Cell side, px.

    Returns:
        The step of a map that is as coarse as the grid, or coarser; None of a finer one, whose corner samples
        lie on the image's corner pixels (KP2D), which at a step of 2 px makes half a pixel at most.
    """
    return None if map_size[0] > grid_size[0] else cell * -(-grid_size[0] // map_size[0])


def sample_bilinear(feature_map, keypoints, image_size: tuple[int, int], *, step: int | None = None, xp=np):
    """Reads a map at keypoints.

    Args:
        feature_map: `[B, Hd, Wd, D]`, with `numpy` also a `QuantizedMap`.
        keypoints: `[B, N, 2]`, (x, y) px; points outside read the nearest edge.
        image_size: (height, width) px of the image.
        step: From `sample_step`; None: the map's corner samples lie on the image's corner pixels.
        xp: `numpy` or `keras.ops`.

    Returns:
        `[B, N, D]`.
    """
    batch, rows, columns, dim = feature_map.shape
    count = keypoints.shape[1]
    x, y = keypoints[..., 0], keypoints[..., 1]
    if step is None:
        x, y = x * ((columns - 1) / (image_size[1] - 1)), y * ((rows - 1) / (image_size[0] - 1))
    else:
        x, y = (x - (step - 1) / 2) / step, (y - (step - 1) / 2) / step
    x, y = _clip(xp, x, columns - 1.0), _clip(xp, y, rows - 1.0)
    left, top = _clip(xp, xp.floor(x), columns - 2.0), _clip(xp, xp.floor(y), rows - 2.0)
    wx, wy = (x - left)[..., None], (y - top)[..., None]
    first = _index(xp, left, columns - 2) + columns * _index(xp, top, rows - 2)
    first = first + xp.array(np.arange(batch, dtype=np.int32)[:, None] * (rows * columns))
    quantized = isinstance(feature_map, QuantizedMap)
    table = xp.reshape(feature_map.values if quantized else feature_map, (batch * rows * columns, dim))
    if xp is np:  # the four corners at once, in memory that is taken once
        corners = first + np.array([0, 1, columns, columns + 1], np.int32).reshape(2, 2, 1, 1)
        values = table.take(corners, axis=0)
        if quantized:
            values = dequantize(values, feature_map.scale, feature_map.zero_point)
        values = values.astype(np.result_type(values, wx), copy=False)
        values[:, 0] *= 1 - wx
        values[:, 1] *= wx
        values[:, 0] += values[:, 1]
        values[0, 0] *= 1 - wy
        values[1, 0] *= wy
        return values[0, 0] + values[1, 0]

    def read(step: int):
        index = xp.reshape(first + step, (batch * count,))
        return xp.reshape(xp.take(table, index, axis=0), (batch, count, dim))

    upper = read(0) * (1 - wx) + read(1) * wx
    lower = read(columns) * (1 - wx) + read(columns + 1) * wx
    return upper * (1 - wy) + lower * wy


def normalize(descriptors, *, xp=np):
    """Scales descriptors `[..., D]` to unit length, `d / sqrt(|d|² + 1e-12)`; `xp` as for `keypoint_map`."""
    return descriptors / xp.sqrt(xp.sum(descriptors**2, axis=-1, keepdims=True) + 1e-12)


def decode(
    score_map: np.ndarray,
    offset_map: np.ndarray,
    descriptor_map: np.ndarray | QuantizedMap,
    *,
    cell: int,
    top_k: int | None = None,
    score_threshold: float = 0.0,
) -> Features:
    """Turns the dequantized heads of one image into features.

    Args:
        score_map: `[1, Hc, Wc, 1]` in [0, 1].
        offset_map: `[1, Hc, Wc, 2]` in [−1, 1].
        descriptor_map: `[1, Hd, Wd, D]`.
        cell: Cell side, px.
        top_k: Keep this many best scores, ties broken by cell index; None keeps all.
        score_threshold: Keep only scores above it. The border cells, set to 0, always go.

    Returns:
        The features, best score first, in pixels of the network's input image.

    Raises:
        InputError: If the heads are not those of one image, or do not fit together.
    """
    shapes = score_map.shape, offset_map.shape, descriptor_map.shape
    if (
        any(len(shape) != 4 or shape[0] != 1 for shape in shapes)
        or shapes[0][1:] != (*shapes[1][1:3], 1)
        or shapes[1][-1] != 2
    ):
        raise problem(
            "score_map [1, Hc, Wc, 1], offset_map [1, Hc, Wc, 2] and descriptor_map [1, Hd, Wd, D]",
            f"shapes {shapes}",
            "Decode one image at a time.",
        )
    grid_size = score_map.shape[1:3]
    image_size = (grid_size[0] * cell, grid_size[1] * cell)
    scores = np.zeros(grid_size, np.float32)
    scores[1:-1, 1:-1] = score_map[0, 1:-1, 1:-1, 0]
    scores = scores.reshape(-1)
    keep = _best(scores, score_threshold, top_k)
    grids = cell_centers(grid_size, cell), offset_map
    centers, offsets = (grid.reshape(-1, 2).take(keep, axis=0) for grid in grids)
    keypoints = _keypoints(centers, offsets, grid_size, cell, np).astype(np.float32, copy=False)
    step = sample_step(grid_size, descriptor_map.shape[1:3], cell)
    descriptors = sample_bilinear(descriptor_map, keypoints[None], image_size, step=step)[0]
    return Features(
        keypoints=keypoints,
        scores=scores[keep],
        descriptors=normalize(descriptors).astype(np.float32, copy=False),
    )


def _best(scores: np.ndarray, threshold: float, top_k: int | None) -> np.ndarray:
    """Returns the index of the scores above the threshold, best first, ties by index; at most `top_k`."""
    good = scores > threshold
    if top_k is not None and 0 < top_k < len(scores):  # sort only what will be kept, and ties with the last
        good &= scores >= np.partition(scores, -top_k)[-top_k]
    above = np.flatnonzero(good)
    # The bits of positive floats are in their order: one number holds score and index, as it is to be sorted.
    keys = above - (scores[above].view(np.int32).astype(np.int64) << 32)
    return np.sort(keys)[:top_k] & 0xFFFFFFFF


def _clip(xp, values, high: float):
    """Returns values in [0, high]; NaN stays."""
    # NumPy's own clip takes several times as long over a thousand numbers.
    return np.minimum(np.maximum(values, 0), high) if xp is np else xp.clip(values, 0, high)


def _index(xp, values, last: int):
    """Casts to int32 in [0, last]; NaN, too, becomes some valid index."""
    integers = values.astype(np.int32) if xp is np else xp.cast(values, "int32")
    return _clip(xp, integers, last)
