"""Nearest neighbors by the cosine, without looking at all pairs.

N vectors, Q queries, D numbers of a vector, L lists, P probes of a query, K neighbors.

An inverted file (Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 2011, section IV,
without the quantization): vectors are laid in lists by the nearest of L centers, and a query is compared with the
members of the lists whose centers are nearest to it. Many queries ask at once, so that a list is compared with all that
ask for it in one matrix product.
"""

from typing import Any

import numpy as np

from sightline.measures.threads import in_threads

__all__ = ["InvertedFile", "nearest_of_all"]

LIST = 256  # vectors of a list, on average
LONGEST = 4  # times that: a longer list, of vectors that no center parts, is cut
SAMPLED = 32  # vectors of a list, by which its center is found
STEPS = 6  # of k-means
PROBES = 16  # lists that a query is compared with
PART = 4096  # queries that are compared with all centers, or with all of a list, at a time

Array = np.ndarray[Any, Any]


class InvertedFile:
    """Vectors in lists of neighbors; the same for the same vectors, whatever the number of threads."""

    def __init__(self, vectors_ND: Array, rows_n: Array) -> None:
        """
        Args:
            vectors_ND: of length 1, in any floats; kept, not copied.
            rows_n: those of them that are found.
        """
        self._vectors_ND = vectors_ND
        centers_LD = _centers(vectors_ND, rows_n, max(1, len(rows_n) // LIST))
        list_n = _list_of(vectors_ND, rows_n, centers_LD)
        ordered, sizes_L = rows_n[np.argsort(list_n, kind="stable")], np.bincount(list_n, minlength=len(centers_LD))
        parts_L = np.maximum(1, -(-sizes_L // (LONGEST * LIST)))
        self._lists: list[Array] = []
        for members, parts in zip(np.split(ordered, np.cumsum(sizes_L)[:-1]), parts_L.tolist(), strict=True):
            self._lists += np.array_split(members, parts)
        self._centers_LD = centers_LD.repeat(parts_L, axis=0)

    def nearest(self, asked_QD: Array, count: int) -> tuple[Array, Array]:
        """Find the rows with the largest cosine, (Q, K), in no order, and the cosines; -1 where there are no more."""
        asked_QD = asked_QD.astype(np.float32)
        probes = min(PROBES, len(self._lists))
        list_S = np.concatenate(
            list(
                in_threads(
                    lambda at: _largest(asked_QD[at : at + PART] @ self._centers_LD.T, probes),
                    range(0, len(asked_QD), PART),
                )
            )
        ).ravel()  # S = Q × P, slots for what a query finds in a list
        order = np.argsort(list_S, kind="stable")
        ends = np.searchsorted(list_S[order], np.arange(len(self._lists) + 1))
        rows_SK, cosines_SK = np.zeros((len(list_S), count), np.int32), np.full((len(list_S), count), -1, np.float32)

        def compare(number: int) -> None:
            slots, members = order[ends[number] : ends[number + 1]], self._lists[number]
            some = min(count, len(members))
            others_DM = self._vectors_ND[members].astype(np.float32).T
            for at in range(0, len(slots) if some else 0, PART):
                part = slots[at : at + PART]
                cosines = asked_QD[part // probes] @ others_DM
                best = _largest(cosines, some)
                rows_SK[part, :some] = members[best]
                cosines_SK[part, :some] = np.take_along_axis(cosines, best, axis=1)

        for _ in in_threads(compare, range(len(self._lists))):
            pass
        return _best(rows_SK.reshape(len(asked_QD), -1), cosines_SK.reshape(len(asked_QD), -1), count)


def nearest_of_all(vectors_ND: Array, rows_n: Array, asked_QD: Array, count: int) -> tuple[Array, Array]:
    """Compare queries with all of some rows: those with the largest cosine, (Q, K), in no order, and the cosines."""
    asked_QD = asked_QD.astype(np.float32)
    rows_QK, cosines_QK = np.zeros((len(asked_QD), 0), np.int32), np.zeros((len(asked_QD), 0), np.float32)
    for start in range(0, len(rows_n), PART):
        part = rows_n[start : start + PART]
        cosines = asked_QD @ vectors_ND[part].astype(np.float32).T
        best = _largest(cosines, min(count, len(part)))
        rows_QK = np.concatenate([rows_QK, part[best].astype(np.int32)], axis=1)
        cosines_QK = np.concatenate([cosines_QK, np.take_along_axis(cosines, best, axis=1)], axis=1)
        rows_QK, cosines_QK = _best(rows_QK, cosines_QK, min(count, cosines_QK.shape[1]))
    return rows_QK, cosines_QK


def _centers(vectors_ND: Array, rows_n: Array, count: int) -> Array:
    """Find centers by k-means on a sample, (L, D), of length 1."""
    sample = np.random.default_rng(0).choice(rows_n, min(len(rows_n), SAMPLED * count), replace=False)
    sample_MD = vectors_ND[sample].astype(np.float32)
    centers_LD = sample_MD[:count].copy()
    for _ in range(STEPS):
        list_M = _list_of(sample_MD, np.arange(len(sample_MD)), centers_LD)
        order = np.argsort(list_M, kind="stable")
        lists, starts = np.unique(list_M[order], return_index=True)  # a list without members keeps its center
        sums = np.add.reduceat(sample_MD[order], starts, axis=0)
        centers_LD[lists] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return centers_LD  # type: ignore[no-any-return]


def _list_of(vectors_ND: Array, rows_n: Array, centers_LD: Array) -> Array:
    """Tell which center is nearest to each of some rows, (n,)."""

    def nearest(start: int) -> Array:
        asked = vectors_ND[rows_n[start : start + PART]].astype(np.float32)
        return (asked @ centers_LD.T).argmax(axis=1)  # type: ignore[no-any-return]

    return np.concatenate(list(in_threads(nearest, range(0, len(rows_n), PART))))


def _best(rows_QM: Array, cosines_QM: Array, count: int) -> tuple[Array, Array]:
    """Keep those with the largest cosines."""
    best = _largest(cosines_QM, count)
    return np.take_along_axis(rows_QM, best, axis=1), np.take_along_axis(cosines_QM, best, axis=1)


def _largest(values_QM: Array, count: int) -> Array:
    """Tell where the largest of each row are, (Q, count), in no order."""
    if count == values_QM.shape[1]:
        return np.broadcast_to(np.arange(count), values_QM.shape)
    return np.argpartition(values_QM, -count, axis=1)[:, -count:]  # type: ignore[no-any-return]
