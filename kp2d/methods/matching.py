"""Owns nearest-neighbour matching, one-sided and mutual, for float and binary descriptors."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import numpy as np

from kp2d import checks

TURNS = 4  # of a steerable descriptor, a quarter each
VOTERS = 1000  # best keypoints of an image that vote on its turn
FEW = 125, 500  # of images 0 and 1, that vote first
CLEAR = 0.04  # lead in mean similarity by which few decide; wrong ones lead by less than 0.021
ONE_THREAD = 2**18  # multiplications of a matrix product up to which OpenBLAS wakes no thread
IN_CACHE = 2**17  # numbers that a core's own cache holds
UNIT = 1e-6  # how far rounding takes the squared length of a descriptor from 1

_kept = threading.local()


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
    milliseconds after the work, and slow down a network that runs right then. The buffer fits the cache and
    stays with the thread: new pages of memory take the system about as long as the products.
    """
    count, width = vectors1.shape
    columns = max(16, math.isqrt(2 * ONE_THREAD // max(1, width)) // 16 * 16)  # whole vectors
    blocks, whole = -(-count // columns), count // columns
    rows = max(1, min(ONE_THREAD // (columns * max(1, width)), IN_CACHE // max(1, count), len(vectors0)))
    factors = np.zeros((blocks, width, columns), np.float32)
    factors[:whole] = vectors1[: whole * columns].reshape(whole, columns, width).transpose(0, 2, 1)
    factors[whole:, :, : count - whole * columns] = vectors1[whole * columns :].T
    shape = rows, blocks, columns
    kept = _kept.__dict__.pop("buffer", None)  # for nobody else meanwhile
    if kept is None or kept.size < math.prod(shape):
        kept = np.empty(shape, np.float32)
    buffer = kept.reshape(-1)[: math.prod(shape)].reshape(shape)
    for start in range(0, len(vectors0), rows):
        part = vectors0[start : start + rows]
        product = buffer[: len(part)]
        np.matmul(part, factors, out=product.transpose(1, 0, 2))
        yield product.reshape(len(part), -1)[:, :count]
    _kept.buffer = kept


def _product(vectors0: np.ndarray, vectors1: np.ndarray) -> np.ndarray:
    """Returns `vectors0 @ vectors1.T`, multiplied on this thread."""
    product = np.empty((len(vectors0), len(vectors1)), np.float32)
    done = 0
    for rows in _products(vectors0, vectors1) if product.size else ():
        product[done : done + len(rows)] = rows
        done += len(rows)
    return product


def _mutual_largest(
    vectors0: np.ndarray, vectors1: np.ndarray, *, ties: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Finds what is the largest of its row and of its column in `vectors0 @ vectors1.T`.

    The vectors are float32 `[N, D]` and `[M, D]`, N and M at least 1. `ties` tells whether different ones may
    well have the same product, as bits have: then a column's largest is its first, which takes a closer look.
    Without, that holds for equal vectors only.

    Returns:
        int64 `[K, 2]`, (row, column), ordered by row, and float32 `[K]`, the numbers there.
    """
    largest = np.full(len(vectors1), -np.inf, np.float32)
    columns, values = np.empty(len(vectors0), np.int64), np.empty(len(vectors0), np.float32)
    done = 0
    for product in _products(vectors0, vectors1):
        column, most = product.argmax(axis=1), product.max(axis=0)
        value = product[np.arange(len(product)), column]
        if ties:
            both = np.flatnonzero(value == most[column])
            first = (product[:, column[both]] == most[column[both]]).argmax(axis=0)
            value[both[first != both]] = -np.inf
            value[value <= largest[column]] = -np.inf
        columns[done : done + len(product)], values[done : done + len(product)] = column, value
        np.maximum(largest, most, out=largest)
        done += len(product)
    rows = np.flatnonzero(values == largest[columns])
    first = np.empty(len(vectors1), np.int64)
    first[columns[rows[::-1]]] = rows[::-1]  # of several rows, the last to be written stays
    rows = rows[first[columns[rows]] == rows]
    return np.stack([rows, columns[rows]], axis=1), values[rows]


def mutual_nearest(descriptors0: np.ndarray, descriptors1: np.ndarray) -> np.ndarray:
    """Pairs descriptors that are each other's nearest ("cross-check"), without a matrix of distances.

    The matches are those of `mutual(descriptor_distances(…))` but where distances tie to the rounding, in an
    eighth of the time on one thread: rows that fit the cache are multiplied at a time, and the largest of
    `a·b − |a|²/2 − |b|²/2`, the least distance, is found both ways while they are there. Of descriptors of
    unit length, that is the largest of `a·b`.

    Args:
        descriptors0: `[N, D]`, float (L2 distance) or uint8 (packed bits, Hamming distance).
        descriptors1: `[M, D]`, of the same kind.

    Returns:
        int64 matches `[K, 2]`, indices into both, ordered by the first; of equal ones the lower index.

    Raises:
        InputError: If the two sets differ in kind or length.
    """
    vectors0, vectors1 = (np.ascontiguousarray(v) for v in _vectors(descriptors0, descriptors1))
    if not (len(vectors0) and len(vectors1)):
        return np.empty((0, 2), dtype=np.int64)
    if descriptors0.dtype == np.uint8:
        return _mutual_largest(vectors0, vectors1)[0]
    squares0, squares1 = _squares(vectors0), _squares(vectors1)
    if max(np.abs(squares - 1).max() for squares in (squares0, squares1)) < UNIT:
        return _mutual_largest(vectors0, vectors1, ties=False)[0]
    vectors0 = np.column_stack([vectors0, squares0 / -2, np.ones_like(squares0)])
    vectors1 = np.column_stack([vectors1, np.ones_like(squares1), squares1 / -2])
    return _mutual_largest(vectors0, vectors1)[0]


def match_distances(descriptors0: np.ndarray, descriptors1: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Computes the distances of matched descriptors only: float32 `[K]`, as `descriptor_distances` has them.

    The descriptors are `[N, D]` and `[M, D]`, the matches int `[K, 2]` indices into both.
    """
    first, second = descriptors0[matches[:, 0]], descriptors1[matches[:, 1]]
    if descriptors0.dtype == np.uint8:
        return np.unpackbits(first ^ second, axis=1).sum(axis=1).astype(np.float32)
    return np.linalg.norm(first.astype(np.float32) - second.astype(np.float32), axis=1)


def nearest(distances: np.ndarray) -> np.ndarray:
    """Pairs every row of distances `[N, M]` with its nearest column, without a cross-check.

    Convention: equal distances go to the lower index; an empty side gives no matches.

    Returns:
        int64 matches `[N, 2]`, (row, column); `[0, 2]` if N or M is 0.
    """
    if 0 in distances.shape:
        return np.empty((0, 2), dtype=np.int64)
    return np.stack([np.arange(len(distances)), distances.argmin(axis=1)], axis=1)


def mutual(distances: np.ndarray) -> np.ndarray:
    """Pairs rows and columns of `[N, M]` that are each other's nearest: int64 `[K, 2]`, ordered by row."""
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
    on average: right matches stand out there, while chance makes about as many matches of any turn. Few
    keypoints vote first, in a third of the time of one match; all of them where those are not clear.

    Args:
        descriptors0: `[N, D]` of unit length, steerable; best keypoints first.
        descriptors1: `[M, D]` likewise.

    Returns:
        0 to 3; 0 if there is nothing to compare, and where turns tie.
    """
    if not (len(descriptors0) and len(descriptors1)):
        return 0
    few = descriptors0[: FEW[0]], descriptors1[: FEW[1]]
    votes = _likeness_of_turns(*few)
    more = len(few[0]) < len(descriptors0) or len(few[1]) < len(descriptors1)
    if more and votes.max() - np.delete(votes, votes.argmax()).max() < CLEAR:
        votes = _likeness_of_turns(descriptors0[:VOTERS], descriptors1[:VOTERS])
    return int(votes.argmax())


def _likeness_of_turns(descriptors0: np.ndarray, descriptors1: np.ndarray) -> np.ndarray:
    """Returns the mean similarity of the most similar fifth of matches, `[4]`, for each turn of the first."""
    share = max(1, min(len(descriptors0), len(descriptors1)) // 5)
    descriptors1 = np.ascontiguousarray(descriptors1, np.float32)
    votes = []
    for quarters in range(TURNS):
        turned = turn(np.asarray(descriptors0, np.float32), quarters)
        _, values = _mutual_largest(turned, descriptors1, ties=False)
        votes.append(float(np.sort(values)[-share:].mean()) if len(values) else 0.0)
    return np.array(votes)
