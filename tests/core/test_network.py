"""A network as it predicts: the same answers as the one that learns, event by event."""

import numpy as np
import pytest
import torch

from streamlearn.core.encoder import logits, slow_tensors, stack
from streamlearn.core.network import Network, log_probabilities
from streamlearn.core.network_spec import NetworkSpec, new_weights, slow_weights, widen

MLP = NetworkSpec(inputs=5, hidden=(7, 6), rank=2, classes=4)
CONV = NetworkSpec(inputs=784, hidden=(4, 8), rank=2, classes=4, kind="conv")


def _some_weights(spec: NetworkSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    weights = new_weights(spec, 3)
    return {
        n: w + 0.3 * rng.standard_normal(w.shape).astype(np.float32) for n, w in weights.items()
    }


@pytest.mark.parametrize("spec", [MLP, CONV], ids=["mlp", "conv"])
def test_numpy_says_what_torch_says(spec: NetworkSpec) -> None:
    weights, slow = _some_weights(spec), slow_weights(spec)
    x = np.random.default_rng(0).standard_normal((9, spec.inputs)).astype(np.float32)
    phi = stack(spec, [weights])
    expected = logits(spec, slow_tensors(slow, torch.device("cpu")), phi, torch.from_numpy(x)[None])
    got = Network.of(spec, slow, spec.layout.pack(weights), 3).logits(x)
    np.testing.assert_allclose(got, expected[0, :, :3].numpy(), rtol=1e-4, atol=1e-4)


def test_wider_the_same_events_get_the_same_answers() -> None:
    narrow = NetworkSpec(inputs=5, blocks=(3, 2), hidden=(7, 6), rank=2, classes=4)
    wide = NetworkSpec(inputs=9, blocks=(4, 5), hidden=(7, 6), rank=2, classes=4)
    weights = _some_weights(narrow)
    x = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    before = Network.of(narrow, slow_weights(narrow), narrow.layout.pack(weights), 4).logits(x)
    row = wide.layout.pack(widen(weights, narrow, wide, 3))
    given = np.zeros((9, 9), np.float32)
    given[:, [0, 1, 2, 4, 5]] = x
    after = Network.of(wide, slow_weights(wide), row, 4).logits(given)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_log_probabilities_with_frequencies_put_back() -> None:
    z = np.array([[1.0, 2.0, -1.0]], np.float32)
    frequency = np.array([0.5, 0.1, 0.4])
    expected = np.exp(z[0]) * frequency / (np.exp(z[0]) * frequency).sum()
    got = log_probabilities(z, np.log(frequency).astype(np.float32))
    np.testing.assert_allclose(np.exp(got[0]), expected, rtol=1e-5)
