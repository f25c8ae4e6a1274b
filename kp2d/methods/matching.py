"""Owns nearest-neighbour matching, one-sided and mutual, for float and binary descriptors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from kp2d import checks

TURNS = 4  # of a steerable descriptor, a quarter each
VOTERS = 1000  # best keypoints of an image that vote on its turn
ONE_THREAD = 2**18  # multiplications of a matrix product up to which OpenBLAS wakes no thread


def descriptor_distances(
    descriptors0: np.ndarray, descriptors1: np.ndarray, *, one_thread: bool = False
) -> np.ndarray:
    """Computes all pairwise distances between two sets of descriptors.

    Float descriptors are compared by the L2 distance, uint8 ones as packed bits by the Hamming distance.

    Args:
        descriptors0: `[N, D]`, float or uint8.
        descriptors1: `[M, D]`, of the same kind.
        one_thread: Multiply in blocks so small that NumPy uses this thread only, as `mutual_nearest` does.

    Returns:
        float32 `[N, M]`; exact integers for the Hamming distance.

    Raises:
        InputError: If the two sets differ in kind or length.
    """
    vectors0, vectors1 = _vectors(descriptors0, descriptors1)
    product = _product(vectors0, vectors1) if one_thread else vectors0 @ vectors1.T
    if descriptors0.dtype == np.uint8:
        return (vectors0.shape[1] - product) / 2
    product *= -2
    product += _squares(vectors0)[:, None]
    product += _squares(vectors1)
    np.maximum(product, 0, out=product)
    return np.sqrt(product, out=product)


def _vectors(descriptors0: np.ndarray, descriptors1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two sets of descriptors as float32 vectors; of bits, the signs."""
    same_width = (
        descriptors0.ndim == descriptors1.ndim == 2 and descriptors0.shape[1] == descriptors1.shape[1]
    )
    if not same_width or (descriptors0.dtype == np.uint8) != (descriptors1.dtype == np.uint8):
        raise checks.problem(
            "two sets of descriptors of one kind and length",
            " and ".join(f"{d.dtype} {list(d.shape)}" for d in (descriptors0, descriptors1)),
            "Match features of one method only.",
        )
    if descriptors0.dtype != np.uint8:
        return np.asarray(descriptors0, np.float32), np.asarray(descriptors1, np.float32)
    signs0, signs1 = (
        np.unpackbits(d, axis=1).astype(np.float32) * 2 - 1 for d in (descriptors0, descriptors1)
    )
    return signs0, signs1


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", vectors, vectors)


def _products(vectors0: np.ndarray, vectors1: np.ndarray) -> Iterator[np.ndarray]:
    """Yields `vectors0 @ vectors1.T`, some rows at a time, in one buffer that the next rows overwrite.

    The factors are so small that OpenBLAS stays on this thread: its others would keep a core busy for some
    milliseconds after the work, and slow down a network that runs right then.
    """
    width = max(1, vectors0.shape[1])
    columns = max(16, math.isqrt(ONE_THREAD // width) // 16 * 16)  # whole vectors of the processor
    rows = max(1, ONE_THREAD // (columns * width))
    count = len(vectors1)
    factors = np.zeros((-(-count // columns) * columns, vectors1.shape[1]), np.float32)
    factors[:count] = vectors1
    factors = np.ascontiguousarray(factors.reshape(-1, columns, factors.shape[1]).transpose(0, 2, 1))
    buffer = np.empty((min(rows, len(vectors0)), len(factors), columns), np.float32)
    for start in range(0, len(vectors0), rows):
        part = vectors0[start : start + rows]
        product = buffer[: len(part)]
        np.matmul(part, factors, out=product.transpose(1, 0, 2))
        yield product.reshape(len(part), -1)[:, :count]


def _product(vectors0: np.ndarray, vectors1: np.ndarray) -> np.ndarray:
    """Returns `vectors0 @ vectors1.T`, multiplied on this thread."""
    product = np.empty((len(vectors0), len(vectors1)), np.float32)
    done = 0
    for rows in _products(vectors0, vectors1) if product.size else ():
        product[done : done + len(rows)] = rows
        done += len(rows)
    return product


class _MutualLargest:
    """Finds what is the largest of its row and its column in a matrix that is given some rows at a time."""

    def __init__(self, columns: int) -> None:
        self._largest = np.full(columns, -np.inf, np.float32)
        self._row = np.full(columns, -1, np.int64)  # where a column's largest is its row's too
        self._rows = 0

    def add(self, rows: np.ndarray) -> None:
        """Takes the next rows, `[R, M]`; of equal numbers the first counts."""
        columns, largest = rows.argmax(axis=1), rows.max(axis=0)
        both = np.flatnonzero(rows[np.arange(len(rows)), columns] == largest[columns])
        both = both[(rows[:, columns[both]] == largest[columns[both]]).argmax(axis=0) == both]
        columns, larger = columns[both], largest > self._largest
        self._row[larger] = -1
        self._row[columns[larger[columns]]] = self._rows + both[larger[columns]]
        np.maximum(self._largest, largest, out=self._largest)
        self._rows += len(rows)

    def matches(self) -> np.ndarray:
        """Returns int64 `[K, 2]`, (row, column), ordered by row."""
        columns = np.flatnonzero(self._row >= 0)
        columns = columns[np.argsort(self._row[columns])]
        return np.stack([self._row[columns], columns], axis=1)

    def values(self) -> np.ndarray:
        """Returns float32 `[K]`: the numbers there, in no order."""
        return self._largest[self._row >= 0]


def mutual_nearest(descriptors0: np.ndarray, descriptors1: np.ndarray) -> np.ndarray:
    """Pairs descriptors that are each other's nearest ("cross-check"), without a matrix of distances.

    The matches are those of `mutual(descriptor_distances(…))` but where distances tie to the rounding, in an
    eighth of the time on one thread: rows that fit the cache are multiplied at a time, and the largest of
    `a·b − |a|²/2 − |b|²/2`, the least distance, is found both ways while they are there.

    Args:
        descriptors0: `[N, D]`, float (L2 distance) or uint8 (packed bits, Hamming distance).
        descriptors1: `[M, D]`, of the same kind.

    Returns:
        int64 matches `[K, 2]`, indices into both, ordered by the first; of equal ones the lower index.

    Raises:
        InputError: If the two sets differ in kind or length.
    """
    vectors0, vectors1 = _vectors(descriptors0, descriptors1)
    if not (len(vectors0) and len(vectors1)):
        return np.empty((0, 2), dtype=np.int64)
    if descriptors0.dtype != np.uint8:
        halves, ones = [_squares(vectors)[:, None] / -2 for vectors in (vectors0, vectors1)], np.ones
        vectors0 = np.hstack([vectors0, halves[0], ones((len(vectors0), 1), np.float32)])
        vectors1 = np.hstack([vectors1, ones((len(vectors1), 1), np.float32), halves[1]])
    largest = _MutualLargest(len(vectors1))
    for rows in _products(vectors0, vectors1):
        largest.add(rows)
    return largest.matches()


def match_distances(descriptors0: np.ndarray, descriptors1: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Computes the distances of matched descriptors only.

    Args:
        descriptors0: `[N, D]`, float or uint8, as for `descriptor_distances`.
        descriptors1: `[M, D]`, of the same kind.
        matches: int `[K, 2]` indices into both.

    Returns:
        float32 `[K]`: L2, or the Hamming distance of packed bits.
    """
    first, second = descriptors0[matches[:, 0]], descriptors1[matches[:, 1]]
    if descriptors0.dtype == np.uint8:
        return np.unpackbits(first ^ second, axis=1).sum(axis=1).astype(np.float32)
    return np.linalg.norm(first.astype(np.float32) - second.astype(np.float32), axis=1)


def nearest(distances: np.ndarray) -> np.ndarray:
    """Pairs every row with its nearest column, without a cross-check.

    Convention: equal distances go to the lower index; an empty side gives no matches.

    Args:
        distances: `[N, M]`.

    Returns:
        int64 matches `[N, 2]`, (row, column); `[0, 2]` if N or M is 0.
    """
    if 0 in distances.shape:
        return np.empty((0, 2), dtype=np.int64)
    return np.stack([np.arange(len(distances)), distances.argmin(axis=1)], axis=1)


def mutual(distances: np.ndarray) -> np.ndarray:
    """Pairs rows and columns that are each other's nearest ("cross-check").

    Args:
        distances: `[N, M]`.

    Returns:
        int64 matches `[K, 2]`, (row, column), ordered by row.
    """
    matches = nearest(distances)
    back = distances.argmin(axis=0) if len(matches) else matches[:, 0]
    return matches[back[matches[:, 1]] == matches[:, 0]]


def turn(descriptors: np.ndarray, quarters: int) -> np.ndarray:
    """Turns steerable descriptors as if their image had been turned: each quarter moves the blocks on by one.

    Args:
        descriptors: `[N, D]`, four blocks of D/4 numbers, from a network trained to steer them.
        quarters: Quarter turns of the image, x towards y.

    Returns:
        `[N, D]`.

    Source: Bökman et al., Steerers, CVPR 2024 (the group C4).
    """
    return np.roll(descriptors, quarters % TURNS * (descriptors.shape[1] // TURNS), axis=1)


def best_turn(descriptors0: np.ndarray, descriptors1: np.ndarray) -> int:
    """Finds by how many quarters an image must be turned for its descriptors to resemble those of another.

    All four turns are tried. That one is taken whose most similar cross-checked matches are the most similar
    on average: right matches stand out there, while chance makes about as many matches of any turn.

    Args:
        descriptors0: `[N, D]` of unit length, steerable; best keypoints first.
        descriptors1: `[M, D]` likewise.

    Returns:
        0 to 3; 0 if there is nothing to compare, and where turns tie.
    """
    descriptors0, descriptors1 = descriptors0[:VOTERS], descriptors1[:VOTERS]
    if not (len(descriptors0) and len(descriptors1)):
        return 0
    (plain0, wave0), (plain1, wave1) = _harmonics(descriptors0), _harmonics(descriptors1)
    width = plain1.shape[1] // 2
    factors = (
        (plain0, plain1 / 4),
        (plain0, np.repeat([0.25, -0.25], width).astype(np.float32) * plain1),
        (wave0, wave1 / 2),
        (wave0, np.hstack([wave1[:, width:], -wave1[:, :width]]) / 2),
    )
    turns = [_MutualLargest(len(descriptors1)) for _ in range(TURNS)]
    for even, odd, cosine, sine in zip(*(_products(*pair) for pair in factors), strict=True):
        for half, (plain, wave) in enumerate(((even, cosine), (odd, sine))):
            turns[half].add(plain + wave)
            turns[half + 2].add(np.subtract(plain, wave, out=plain))
    share = max(1, min(len(descriptors0), len(descriptors1)) // 5)
    likeness = [np.sort(largest.values())[-share:] for largest in turns]
    return int(np.argmax([float(values.mean()) if len(values) else 0.0 for values in likeness]))


def _harmonics(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits steerable descriptors into what a quarter turn multiplies by 1 and by −1, and by ±i.

    That is the discrete Fourier transform over the four blocks x0 to x3: products of the parts, of half the
    length, add up to the products of all four turns, at twice the work of one.

    Args:
        descriptors: `[N, D]`.

    Returns:
        `[N, D/2]` the sums x0+x1+x2+x3 and x0−x1+x2−x3, and `[N, D/2]` the differences x0−x2 and x1−x3.
    """
    x0, x1, x2, x3 = np.split(np.asarray(descriptors, np.float32), TURNS, axis=1)
    even, odd = x0 + x2, x1 + x3
    return np.hstack([even + odd, even - odd]), np.hstack([x0 - x2, x1 - x3])
