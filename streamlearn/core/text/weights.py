"""Text, weights: what a stream's text expert serves, and how a reader predicts with it.

In: grams of texts. Out: log-probabilities (n, C). Unlike the expert, which learns exact weights,
this holds what is published: whole steps of STEP, a byte each. They are rounded by dithering:
weight w is served as floor(w / STEP + u), u fixed a weight and even in [0, 1), so that many small
weights add up to what they should (rounding to nearest shrinks them). A weight that moves less
than a step mostly serves what it did, so an update carries few rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from streamlearn.core.text.grams import BUCKETS, hashed_grams, stop_word_list

STEP = 0.5  # of served weights; 1/4 doubles an update's bytes for nothing, 1 loses .007
# Share of the log prior taken off the scores, since frequent classes come out too often even so
# (logit adjustment: Menon et al. 2021, ICLR, arXiv:2007.07314): .669 -> .672; .5 goes too far
PRIOR_OFF = 0.2
_RARITY_STEP = np.float32(np.log(2) / 2)  # idf is served in half octaves of texts

Texts: TypeAlias = Mapping[str, Sequence[str | None]]  # column to one text, or none, an event


@dataclass(frozen=True, slots=True, eq=False)
class TextWeights:
    """What a reader needs to predict; read-only arrays."""

    slots: NDArray[np.int32]  # (BUCKETS,) row of a gram, -1 where it has none
    rarity: NDArray[np.uint8]  # (R,) half octaves of texts that had it
    weights: NDArray[np.int8]  # (R, C) in steps of STEP
    prior: NDArray[np.float32]  # (C,) recent texts of each class
    n_texts: int
    stop_words: str = "keep"

    def predict(self, columns: Texts) -> NDArray[np.float32]:
        """(n, C) log-probabilities of n events; even ones where an event has no text."""
        return self.predict_grams(hashed_grams(columns, stop_words=stop_word_list(self.stop_words)))

    def predict_grams(self, grams: csr_array) -> NDArray[np.float32]:
        """As `predict`, of what `hashed_grams` gave."""
        out = np.zeros((grams.shape[0], self.weights.shape[1]), np.float32)
        if out.size:
            indptr, indices, counts = csr_parts(grams)
            log_prior = np.log((self.prior + np.float32(0.5)) / (self.prior.sum() + 1))
            off = (PRIOR_OFF * log_prior).astype(np.float32)
            table = (self.slots, self.rarity, self.n_texts, self.weights, off)
            _predict(indptr, indices, counts, *table, out)
        return out

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As named arrays, for a model; `n_texts` is one of them."""
        buckets = np.full(len(self.rarity), -1, np.int32)
        taken = np.flatnonzero(self.slots >= 0).astype(np.int32)
        buckets[self.slots[taken]] = taken
        return {
            "text/buckets": buckets,
            "text/rarity": self.rarity,
            "text/weights": self.weights,
            "text/prior": self.prior,
            "text/n_texts": np.array([self.n_texts], np.int64),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], *, stop_words: str) -> "TextWeights":
        """From what `tensors` gave: shared, not copied. KeyError, ValueError if they don't fit."""
        names = ("buckets", "rarity", "weights", "prior", "n_texts")
        buckets, rarity, weights, prior, n_texts = (tensors[f"text/{name}"] for name in names)
        kinds = [array.dtype for array in (buckets, rarity, weights, prior, n_texts)]
        n_rows, n_classes = (weights.shape + (0, 0))[:2]
        shapes = [array.shape for array in (buckets, rarity, weights, prior, n_texts)]
        fits = (
            kinds == [np.int32, np.uint8, np.int8, np.float32, np.int64]
            and shapes == [(n_rows,), (n_rows,), (n_rows, n_classes), (n_classes,), (1,)]
            and (n_rows == 0 or (buckets.min() >= -1 and buckets.max() < BUCKETS))
        )
        if not fits:
            raise ValueError(f"text tensors are {kinds} {shapes}")
        slots = np.full(BUCKETS, -1, np.int32)
        taken = np.flatnonzero(buckets >= 0)
        slots[buckets[taken]] = taken
        return cls(
            slots=slots,
            rarity=rarity,
            weights=weights,
            prior=prior,
            n_texts=int(n_texts[0]),
            stop_words=stop_words,
        )


def rarity_of(texts: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Half octaves of how many texts had a gram, rounded: an idf that seldom changes."""
    rarity: NDArray[np.uint8] = np.rint(2 * np.log2(1.0 + texts)).astype(np.uint8)
    return rarity


def csr_parts(
    grams: csr_array,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Row ends, columns and values, in the types that the loops are compiled for."""
    return grams.indptr.astype(np.int64), grams.indices.astype(np.int32, copy=False), grams.data


@numba.njit(cache=True, nogil=True, error_model="numpy")
def weigh(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.float32],
    event: int,
    slots: NDArray[np.int32],
    rarity: NDArray[np.uint8],
    n_texts: int,
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
) -> int:
    """log tf x idf of the grams that have a row, at unit length; returns how many they are."""
    most = np.float32(1.0 + np.log(1.0 + n_texts))  # idf = 1 + log((1 + n) / (1 + texts))
    squares = np.float32(0.0)
    n = 0
    for k in range(indptr[event], indptr[event + 1]):
        row = slots[indices[k]]
        if row >= 0:
            idf = most - _RARITY_STEP * np.float32(rarity[row])
            value = (np.float32(1.0) + np.log(counts[k])) * idf
            rows[n] = row
            values[n] = value
            squares += value * value
            n += 1
    scale = np.float32(1.0) / np.sqrt(max(squares, np.float32(1e-12)))
    for k in range(n):
        values[k] *= scale
    return n


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _predict(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.float32],
    slots: NDArray[np.int32],
    rarity: NDArray[np.uint8],
    n_texts: int,
    weights: NDArray[np.int8],
    off: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Log-probabilities (n, C), into `out`, which comes zero; `off` (C,) is taken off scores."""
    n_classes = out.shape[1]
    rows = np.empty(len(slots), np.int32)
    values = np.empty(len(slots), np.float32)
    for i in range(len(out)):
        n = weigh(indptr, indices, counts, i, slots, rarity, n_texts, rows, values)
        scores = out[i]
        for k in range(n):
            served = weights[rows[k]]
            value = np.float32(STEP) * values[k]
            for c in range(n_classes):
                scores[c] += value * np.float32(served[c])
        if n:
            scores -= off
        top = scores.max()
        total = np.float32(0.0)
        for c in range(n_classes):
            total += np.exp(scores[c] - top)
        top += np.log(total)
        for c in range(n_classes):
            scores[c] -= top


@numba.njit(cache=True, nogil=True, error_model="numpy")
def serve(
    rows: NDArray[np.int64],
    buckets: NDArray[np.int32],
    weights: NDArray[np.float32],
    served: NDArray[np.int8],
) -> None:
    """Round rows' weights to steps: floor(w / STEP + u), u even in [0, 1) a (gram, class)."""
    for row in rows:
        for c in range(weights.shape[1]):
            if weights[row, c] == 0.0:
                served[row, c] = 0
                continue
            bits = np.uint32(buckets[row]) * np.uint32(0x9E3779B1)
            bits = np.uint32(bits + np.uint32(c) * np.uint32(0x85EBCA6B))
            bits ^= bits >> np.uint32(16)
            bits = np.uint32(bits * np.uint32(0x85EBCA6B))
            bits ^= bits >> np.uint32(13)
            dither = np.float64(bits) * 2.0**-32
            steps = np.floor(np.float64(weights[row, c]) / STEP + dither)
            served[row, c] = np.int8(min(max(steps, -127.0), 127.0))
