"""Experts, softmax: online logistic heads on the linear features, one a rate.

In: features and class codes, in sequence. Out: weights (F, heads, C). Unlike the ridge heads they
keep no statistics: a step of gradient for every SUB_BATCH events, each with the weights before.
"""

import numba
import numpy as np
from numpy.typing import NDArray

SUB_BATCH = 4  # events whose summed gradient is one step


@numba.njit(cache=True, nogil=True, error_model="numpy")
def learn_softmax(
    features: NDArray[np.float32],
    start: int,
    codes: NDArray[np.int32],
    rates: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> None:
    """Weights (F, K * C) move in place, on features[:, start : start + F] (n, F).

    Column k * C + c is class c of the head with rates[k].
    """
    n = len(codes)
    n_features, width = weights.shape
    n_classes = width // len(rates)
    error = np.empty((SUB_BATCH, width), np.float32)
    for first in range(0, n, SUB_BATCH):
        m = min(SUB_BATCH, n - first)
        error[:] = 0.0
        for f in range(n_features):
            for i in range(m):
                value = features[first + i, start + f]
                for k in range(width):
                    error[i, k] += value * weights[f, k]
        for i in range(m):
            for k in range(len(rates)):
                _error(error[i, k * n_classes : (k + 1) * n_classes], codes[first + i], rates[k])
        for f in range(n_features):
            for i in range(m):
                value = features[first + i, start + f]
                for k in range(width):
                    weights[f, k] -= value * error[i, k]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _error(scores: NDArray[np.float32], code: int, rate: float) -> None:
    """Scores (C,) become rate * (softmax - onehot), in place."""
    top = scores.max()
    total = np.float32(0.0)
    for c in range(len(scores)):
        scores[c] = np.exp(scores[c] - top)
        total += scores[c]
    for c in range(len(scores)):
        scores[c] = rate * (scores[c] / total - (1.0 if c == code else 0.0))
