"""Softmax heads against gradient steps written down in float64."""

import numpy as np

from streamlearn.core.softmax import SUB_BATCH, learn_softmax


def test_heads_equal_plain_gradient_steps() -> None:
    rng = np.random.default_rng(2)
    n, start, f, c = 37, 3, 5, 3
    features = rng.normal(size=(n, 12)).astype(np.float32)
    codes = rng.integers(0, c, n).astype(np.int32)
    heads = ((0.02, f), (0.1, f), (0.05, 2))  # rate, and how many of the features it sees
    rates = np.array([rate for rate, _ in heads], np.float32)
    weights = np.zeros((3 * c, f), np.float32)
    learn_softmax(features, start, codes, rates, weights, np.array([n for _, n in heads]))
    for k, (rate, seen) in enumerate(heads):
        x = features[:, start : start + seen].astype(np.float64)
        w = np.zeros((seen, c))
        for first in range(0, n, SUB_BATCH):
            rows, labels = x[first : first + SUB_BATCH], codes[first : first + SUB_BATCH]
            p = np.exp(rows @ w)
            p /= p.sum(axis=1, keepdims=True)
            w -= rate * rows.T @ (p - np.eye(c)[labels])
        np.testing.assert_allclose(weights[k * c : (k + 1) * c, :seen], w.T, atol=1e-5)
        assert not weights[k * c : (k + 1) * c, seen:].any()


def test_far_out_scores_overflow_nothing() -> None:
    weights = np.full((4, 2), 1e4, np.float32)
    weights[0] = -1e4
    features = np.full((4, 2), 100.0, np.float32)
    rates, seen = np.array([0.1, 0.1], np.float32), np.array([2, 2])
    learn_softmax(features, 0, np.zeros(4, np.int32), rates, weights, seen)
    assert np.isfinite(weights).all()
