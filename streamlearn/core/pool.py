"""Experts, pool: mixes the heads by their recent loss; the mixture's weights are the stream's own.

In: scores (n, K, C) of K heads. Out: probabilities (n, C). Three mixtures run side by side, and a
fourth step mixes them:

    q_k     = normalise(clip(s_k, .01))
    M1      = sum w_k q_k, w ~ exp(.2 * discounted log-likelihood, window 200)
    M2, M3  = softmax(sum v_k s_k), v from K equal weights of sum 4, by gradient at .02 and .1
    serve   = sum u_j M_j, u ~ exp(.5 * discounted log-likelihood, window 500)

M1 is the exponentially weighted forecaster (Littlestone, Warmuth 1994) with forgetting; M2 and M3
may give heads weights that add up to more than one, or less than none.
Heads at rest (core/roster.py) have a likelihood of -inf and weights of exactly 0.
`keep` mixes view a's ridge heads by their likelihood on the reservoir, so it doesn't forget.
"""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

CLIP = 0.01  # scores below it say no more than "not this class"
MIX_RATE, MIX_WINDOW = 0.2, 200.0
SERVE_RATE, SERVE_WINDOW = 0.5, 500.0
STACK_RATES = np.array([0.02, 0.1])
STACK_BATCH = 8  # events whose summed gradient is one step of M2 and M3
STACK_SUM = 4.0
KEEP_RATE = MIX_RATE * MIX_WINDOW  # on a mean instead of a sum
N_MIXTURES = 1 + len(STACK_RATES)


class Pool:
    """What the mixture has learned; all float64, fixed size."""

    __slots__ = ("keep", "likelihood", "mixtures", "stack")

    def __init__(self, n_heads: int, n_keep: int) -> None:
        self.likelihood = np.zeros(n_heads)  # (K,) discounted log-likelihood of each head
        self.stack = np.full((len(STACK_RATES), n_heads), STACK_SUM / n_heads)  # (2, K)
        self.mixtures = np.zeros(N_MIXTURES)  # (3,) discounted log-likelihood of M1..M3
        self.keep = np.full(n_keep, 1.0 / n_keep)  # (3,) weights of view a's heads

    def grow(self, stack: Sequence[float], *, at: int | None = None) -> None:
        """More heads, before head `at` or last, with these weights in M2 and M3.

        In M1 they begin as the least likely.
        """
        at = len(self.likelihood) if at is None else at
        worst = np.full(len(stack), self._least_likely())
        self.likelihood = np.insert(self.likelihood, at, worst)
        more = np.tile(np.array(stack), (len(STACK_RATES), 1))
        parts = self.stack[:, :at], more, self.stack[:, at:]
        self.stack = np.concatenate(parts, axis=1)

    def rest(self, first: int, last: int) -> None:
        """Heads first..last have no weight in any mixture, exactly, until they wake."""
        self.likelihood[first:last] = -np.inf
        self.stack[:, first:last] = 0.0

    def wake(self, first: int, last: int) -> None:
        """They begin as the least likely, and without a weight in M2 and M3."""
        self.likelihood[first:last] = self._least_likely()

    def _least_likely(self) -> float:
        return float(self.likelihood[self.likelihood > -np.inf].min())

    def weights(self) -> NDArray[np.float64]:
        """(K,) of the heads in M1."""
        return _softmax(MIX_RATE * self.likelihood)

    def serve(self) -> NDArray[np.float64]:
        """(3,) of M1..M3."""
        return _softmax(SERVE_RATE * self.mixtures)

    def learn(
        self,
        scores: NDArray[np.float32],
        mixed: NDArray[np.float64],
        codes: NDArray[np.int32],
    ) -> None:
        """Labels of events (n,) arrived that were served with scores (n, K, C), mixed (n, 3, C)."""
        _learn(scores, mixed, codes, self.likelihood, self.stack, self.mixtures)

    def set_keep(self, scores: NDArray[np.float32], codes: NDArray[np.int32]) -> None:
        """Weigh view a's heads by their scores (m, K', C) of the reservoir's events."""
        q = np.maximum(scores.astype(np.float64), CLIP)
        q /= q.sum(axis=2, keepdims=True)
        mean = np.log(q[np.arange(len(codes)), :, codes]).mean(axis=0)
        self.keep = _softmax(KEEP_RATE * mean)


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(values - values.max())
    return np.asarray(raised / raised.sum())


@numba.njit(cache=True, nogil=True, error_model="numpy")
def mix(
    scores: NDArray[np.float32],
    weights: NDArray[np.float64],
    stack: NDArray[np.float64],
    serve: NDArray[np.float64],
    mixed: NDArray[np.float64],
    served: NDArray[np.float32],
) -> None:
    """Fills mixed (n, 3, C) with M1..M3, and served (n, C) with their mixture."""
    n, _, n_classes = scores.shape
    for i in range(n):
        mix_scores(scores[i], weights, mixed[i, 0])
        for j in range(stack.shape[0]):
            stack_scores(scores[i], stack[j], mixed[i, 1 + j])
        for c in range(n_classes):
            value = 0.0
            for j in range(len(serve)):
                value += serve[j] * mixed[i, j, c]
            served[i, c] = value


def mix_keep(scores: NDArray[np.float32], keep: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, C) = sum keep_k normalise(clip(s_k)) of scores (n, K', C)."""
    n, _, n_classes = scores.shape
    kept = np.empty((n, n_classes), np.float32)
    _mix_keep(np.ascontiguousarray(scores), keep, kept)
    return kept


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mix_keep(
    scores: NDArray[np.float32], keep: NDArray[np.float64], kept: NDArray[np.float32]
) -> None:
    row = np.empty(scores.shape[2])
    for i in range(len(scores)):
        mix_scores(scores[i], keep, row)
        kept[i] = row


@numba.njit(cache=True, nogil=True, error_model="numpy")
def mix_scores(
    scores: NDArray[np.float32], weights: NDArray[np.float64], into: NDArray[np.float64]
) -> None:
    """into (C,) = sum w_k normalise(clip(s_k)) of scores (K, C)."""
    n_heads, n_classes = scores.shape
    into[:] = 0.0
    for k in range(n_heads):
        if weights[k] == 0.0:  # at rest
            continue
        total = 0.0
        for c in range(n_classes):
            total += max(np.float64(scores[k, c]), CLIP)
        part = weights[k] / total
        for c in range(n_classes):
            into[c] += part * max(np.float64(scores[k, c]), CLIP)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def stack_scores(
    scores: NDArray[np.float32], stack: NDArray[np.float64], into: NDArray[np.float64]
) -> None:
    """into (C,) = softmax(sum v_k s_k) of scores (K, C)."""
    n_heads, n_classes = scores.shape
    into[:] = 0.0
    for k in range(n_heads):
        for c in range(n_classes):
            into[c] += stack[k] * scores[k, c]
    top = into.max()
    total = 0.0
    for c in range(n_classes):
        into[c] = np.exp(into[c] - top)
        total += into[c]
    for c in range(n_classes):
        into[c] /= total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _learn(
    scores: NDArray[np.float32],
    mixed: NDArray[np.float64],
    codes: NDArray[np.int32],
    likelihood: NDArray[np.float64],
    stack: NDArray[np.float64],
    mixtures: NDArray[np.float64],
) -> None:
    n, n_heads, n_classes = scores.shape
    keep_heads = 1.0 - 1.0 / MIX_WINDOW
    keep_mixtures = 1.0 - 1.0 / SERVE_WINDOW
    p = np.empty(n_classes)
    gradient = np.empty_like(stack)
    for first in range(0, n, STACK_BATCH):
        last = min(first + STACK_BATCH, n)
        gradient[:] = 0.0
        for i in range(first, last):
            code = codes[i]
            for k in range(n_heads):
                if likelihood[k] == -np.inf:  # at rest
                    continue
                total = 0.0
                for c in range(n_classes):
                    total += max(np.float64(scores[i, k, c]), CLIP)
                q = max(np.float64(scores[i, k, code]), CLIP) / total
                likelihood[k] = keep_heads * likelihood[k] + np.log(q)
            for j in range(len(mixtures)):
                mixtures[j] = keep_mixtures * mixtures[j] + np.log(max(mixed[i, j, code], 1e-6))
            for j in range(stack.shape[0]):
                stack_scores(scores[i], stack[j], p)
                p[code] -= 1.0
                for k in range(n_heads):
                    if likelihood[k] == -np.inf:
                        continue
                    for c in range(n_classes):
                        gradient[j, k] += p[c] * scores[i, k, c]
        for j in range(stack.shape[0]):
            for k in range(n_heads):
                stack[j, k] -= STACK_RATES[j] * gradient[j, k]
