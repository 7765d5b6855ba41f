"""The pool against its formulas, event by event."""

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.pool import Pool, mix, mix_keep


def sample(n: int, k: int, c: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, c, n).astype(np.int32)
    scores = rng.normal(0.2, 0.4, size=(n, k, c))
    scores[np.arange(n), 1, codes] += 1.0  # head 1 knows
    return scores.astype(np.float32), codes


def q_of(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    q = np.maximum(scores.astype(np.float64), 0.01)
    return np.asarray(q / q.sum(axis=-1, keepdims=True))


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def served(
    pool: Pool, scores: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    n, _, c = scores.shape
    mixed, out = np.empty((n, 3, c)), np.empty((n, c), np.float32)
    mix(scores, pool.weights(), pool.stack, pool.serve(), mixed, out)
    return mixed, out


def test_pool_equals_its_formulas() -> None:
    scores, codes = sample(100, 4, 3)
    pool = Pool(4, 2)
    likelihood, mixtures = np.zeros(4), np.zeros(3)
    v = np.full((2, 4), 1.0)
    for start in range(0, 100, 20):
        step, labels = scores[start : start + 20], codes[start : start + 20]
        mixed, out = served(pool, step)
        w, u = softmax(0.2 * likelihood), softmax(0.5 * mixtures)
        m1 = np.einsum("k,nkc->nc", w, q_of(step))
        stacked = [softmax(np.einsum("k,nkc->nc", v[j], step)) for j in range(2)]
        expected = np.stack([m1, *stacked], axis=1)
        np.testing.assert_allclose(mixed, expected, atol=1e-6)
        np.testing.assert_allclose(out, np.einsum("j,njc->nc", u, expected), atol=1e-6)
        pool.learn(step, mixed, labels)
        for i, label in enumerate(labels):
            likelihood = (1 - 1 / 200) * likelihood + np.log(q_of(step)[i, :, label])
            mixtures = (1 - 1 / 500) * mixtures + np.log(expected[i, :, label])
        for first in range(0, 20, 8):
            rows, those = step[first : first + 8], labels[first : first + 8]
            for j, rate in enumerate((0.02, 0.1)):
                wrong = softmax(np.einsum("k,nkc->nc", v[j], rows)) - np.eye(3)[those]
                v[j] -= rate * np.einsum("nc,nkc->k", wrong, rows)
        np.testing.assert_allclose(pool.stack, v, rtol=1e-5)
    assert pool.weights().argmax() == 1


def test_served_are_probabilities() -> None:
    scores, codes = sample(50, 5, 4)
    scores[0] = -1e3
    scores[1] = 1e3
    pool = Pool(5, 3)
    mixed, out = served(pool, scores)
    pool.learn(scores, mixed, codes)
    _, out = served(pool, scores)
    assert (out >= 0).all()
    np.testing.assert_allclose(out.sum(axis=1), 1.0, rtol=1e-5)


def test_keep_favours_the_head_that_recalls() -> None:
    scores, codes = sample(60, 3, 3)
    pool = Pool(8, 3)
    assert pool.keep.tolist() == [1 / 3] * 3
    pool.set_keep(scores, codes)
    mean = np.log(q_of(scores)[np.arange(60), :, codes]).mean(axis=0)
    np.testing.assert_allclose(pool.keep, softmax(0.2 * 200 * mean), rtol=1e-6)
    assert pool.keep.argmax() == 1
    kept = mix_keep(scores, pool.keep)
    np.testing.assert_allclose(kept, np.einsum("k,nkc->nc", pool.keep, q_of(scores)), atol=1e-6)
