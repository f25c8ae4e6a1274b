"""Owns nearest-neighbour matching, one-sided and mutual, for float and binary descriptors."""

from __future__ import annotations

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
        one_thread: Multiply in small blocks, so that NumPy uses this thread only. Its others would keep a
            core busy for some milliseconds after the work, and slow down a network that runs right then.

    Returns:
        float32 `[N, M]`; exact integers for the Hamming distance.

    Raises:
        InputError: If the two sets differ in kind or length.
    """
    same_width = (
        descriptors0.ndim == descriptors1.ndim == 2 and descriptors0.shape[1] == descriptors1.shape[1]
    )
    if not same_width or (descriptors0.dtype == np.uint8) != (descriptors1.dtype == np.uint8):
        raise checks.problem(
            "two sets of descriptors of one kind and length",
            " and ".join(f"{d.dtype} {list(d.shape)}" for d in (descriptors0, descriptors1)),
            "Match features of one method only.",
        )
    product = _product if one_thread else np.matmul
    if descriptors0.dtype == np.uint8:
        signs0, signs1 = (
            np.unpackbits(d, axis=1).astype(np.float32) * 2 - 1 for d in (descriptors0, descriptors1)
        )
        return (signs0.shape[1] - product(signs0, signs1.T)) / 2
    descriptors0, descriptors1 = (np.asarray(d, dtype=np.float32) for d in (descriptors0, descriptors1))
    squares0 = np.einsum("nd,nd->n", descriptors0, descriptors0)
    squares1 = np.einsum("nd,nd->n", descriptors1, descriptors1)
    squared = product(descriptors0, descriptors1.T)
    squared *= -2
    squared += squares0[:, None]
    squared += squares1
    np.maximum(squared, 0, out=squared)
    return np.sqrt(squared, out=squared)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns `a @ b`, some rows of `a` at a time."""
    rows = max(1, ONE_THREAD // max(b.size, 1))
    result = np.empty((len(a), b.shape[1]), np.float32)
    for start in range(0, len(a), rows):
        np.matmul(a[start : start + rows], b, out=result[start : start + rows])
    return result


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
    likeness = []
    for quarters in range(TURNS):
        similarity = turn(descriptors0, quarters) @ descriptors1.T
        matches = mutual(-similarity)
        values = np.sort(similarity[matches[:, 0], matches[:, 1]])[::-1]
        likeness.append(float(values[: max(1, min(similarity.shape) // 5)].mean()) if len(values) else 0.0)
    return int(np.argmax(likeness))
