"""Text, table: the loops that count grams into rows of a table and learn the rows' weights.

In: grams of texts and the table's arrays, which change in place. Unlike the expert, which decides
when the table grows and what leaves it, this goes through a step's texts one after the other.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.text.weights import weigh

ADMIT_AFTER = 2  # texts; 1 learns as well and needs more rows, 4 loses .004


@numba.njit(cache=True, nogil=True, error_model="numpy")
def learn_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.float32],
    codes: NDArray[np.int32],
    order: NDArray[np.int64],
    slots: NDArray[np.int32],
    rarity: NDArray[np.uint8],
    n_texts: int,
    weights: NDArray[np.float32],
    touched: NDArray[np.bool_],
    rate: np.float32,
) -> None:
    """A step of gradient for each event, in `order`; weights (R, C) move in place."""
    n_classes = weights.shape[1]
    rows = np.empty(len(slots), np.int32)
    values = np.empty(len(slots), np.float32)
    error = np.empty(n_classes, np.float32)
    for i in order:
        n = weigh(indptr, indices, counts, i, slots, rarity, n_texts, rows, values)
        error[:] = 0.0
        for k in range(n):
            row = weights[rows[k]]
            for c in range(n_classes):
                error[c] += values[k] * row[c]
        top = error.max()
        total = np.float32(0.0)
        for c in range(n_classes):
            error[c] = np.exp(error[c] - top)
            total += error[c]
        for c in range(n_classes):
            error[c] *= rate / total
        error[codes[i]] -= rate  # rate * (softmax - onehot)
        for k in range(n):
            row = weights[rows[k]]
            touched[rows[k]] = True
            for c in range(n_classes):
                row[c] -= values[k] * error[c]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def largest(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(R,) the largest weight of each row, either sign."""
    largest = np.zeros(len(weights), np.float32)
    for row in range(len(weights)):
        for c in range(weights.shape[1]):
            largest[row] = max(largest[row], abs(weights[row, c]))
    return largest


@numba.njit(cache=True, nogil=True, error_model="numpy")
def admit(
    found: NDArray[np.int32],
    start: int,
    seen: NDArray[np.uint8],
    slots: NDArray[np.int32],
    buckets: NDArray[np.int32],
    texts: NDArray[np.int32],
    full: bool,
) -> int:
    """Count grams from `start` on; returns where it stopped for want of a free row.

    Free rows are taken lowest first. `full`: go on without; such a gram is admitted later.
    """
    free = 0
    for k in range(start, len(found)):
        bucket = found[k]
        row = slots[bucket]
        if row >= 0:
            texts[row] += 1
        elif seen[bucket] + 1 < ADMIT_AFTER:
            seen[bucket] += 1
        else:
            while free < len(buckets) and buckets[free] >= 0:
                free += 1
            if free < len(buckets):
                slots[bucket] = free
                buckets[free] = bucket
                texts[free] = ADMIT_AFTER
            elif not full:
                return k
    return len(found)
