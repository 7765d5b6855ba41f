"""Small networks: shapes, draws, rows and their named parts."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from streamlearn.core.encoder import infer, logits, slow_tensors, stack, views
from streamlearn.core.network_spec import (
    NetworkSpec,
    class_capacity,
    grow,
    new_weights,
    slow_weights,
)
from streamlearn.errors import ConfigError, StateError

CPU = torch.device("cpu")
MLP = NetworkSpec(inputs=5, hidden=(7, 6), rank=2, classes=4)
CONV = NetworkSpec(inputs=784, hidden=(4, 8), rank=2, classes=4, kind="conv")


def _random_weights(spec: NetworkSpec, key: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(key)
    return {
        name: value + 0.3 * rng.standard_normal(value.shape).astype(np.float32)
        for name, value in new_weights(spec, key).items()
    }


def test_same_seed_and_stream_same_weights_and_others_differ() -> None:
    one, again, other = (new_weights(MLP, name) for name in (1, 1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
    assert not np.array_equal(one["0/a"], other["0/a"])
    assert not one["0/b"].any() and not one["head/w"].any()
    reseeded = NetworkSpec(inputs=5, hidden=(7, 6), rank=2, classes=4, seed=1)
    assert not np.array_equal(slow_weights(MLP)["0/w"], slow_weights(reseeded)["0/w"])


def test_a_new_stream_starts_as_the_shared_network() -> None:
    weights = new_weights(MLP, 1)
    rng = np.random.default_rng(0)
    weights["head/w"] = rng.standard_normal((6, 4)).astype(np.float32)
    x = rng.standard_normal((3, 5)).astype(np.float32)
    slow = slow_weights(MLP)
    expected = np.maximum(np.maximum(x @ slow["0/w"], 0) @ slow["1/w"], 0) @ weights["head/w"]
    got = logits(MLP, slow_tensors(slow, CPU), stack(MLP, [weights]), torch.from_numpy(x)[None])
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def _convolution(h: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """(n, c, side, side) by (o, c, k, k), stride 2, padding k // 2: the sum over the kernel."""
    k, side = kernel.shape[2], h.shape[2]
    padded = functional.pad(h, (k // 2,) * 4)
    shifted = [
        torch.einsum(
            "ncyx,oc->noyx", padded[:, :, i : i + side : 2, j : j + side : 2], kernel[:, :, i, j]
        )
        for i in range(k)
        for j in range(k)
    ]
    return torch.stack(shifted).sum(dim=0)


def test_conv_is_a_convolution_with_group_norm() -> None:
    streams = [_random_weights(CONV, key) for key in (1, 2)]
    slow = slow_weights(CONV)
    x = torch.randn(2, 3, 784, generator=torch.Generator().manual_seed(0))
    got = logits(CONV, slow_tensors(slow, CPU), stack(CONV, streams), x)
    for slot, weights in enumerate(streams):
        h = x[slot].view(3, 1, 28, 28)
        for index, layer in enumerate(CONV.layers):
            w = slow[f"{index}/w"] + weights[f"{index}/a"].T @ weights[f"{index}/b"]
            kernel = torch.from_numpy(w.T.reshape(layer.outputs, -1, layer.kernel, layer.kernel))
            h = _convolution(h, kernel)
            h = functional.group_norm(h, 4, bias=torch.from_numpy(weights[f"{index}/bias"]))
            h = torch.relu(h)
        head = torch.from_numpy(weights["head/w"])
        expected = h.flatten(1) @ head + torch.from_numpy(weights["head/bias"])
        torch.testing.assert_close(got[slot], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", [MLP, CONV], ids=["mlp", "conv"])
def test_rows_unpack_to_what_was_packed_and_views_share_memory(spec: NetworkSpec) -> None:
    weights = _random_weights(spec, 1)
    row = spec.layout.pack(weights)
    back = spec.layout.unpack(row)
    assert back.keys() == weights.keys()
    for name in weights:
        np.testing.assert_array_equal(back[name], weights[name])
    rows = torch.from_numpy(np.stack([row, row]))
    views(spec, rows)["head/bias"][1] = 7.0
    assert (spec.layout.unpack(rows[1].numpy())["head/bias"] == 7.0).all()
    again = spec.layout.unpack(rows[0].numpy())
    np.testing.assert_array_equal(again["head/bias"], weights["head/bias"])


def test_growing_keeps_what_the_head_says_of_known_classes() -> None:
    weights = _random_weights(MLP, 1)
    wide = NetworkSpec(inputs=5, hidden=(7, 6), rank=2, classes=8)
    slow = slow_tensors(slow_weights(MLP), CPU)
    x = torch.randn(1, 9, 5, generator=torch.Generator().manual_seed(0))
    narrow = logits(MLP, slow, stack(MLP, [weights]), x)
    grown = logits(wide, slow, stack(wide, [grow(weights, 8)]), x)
    torch.testing.assert_close(grown[..., :4], narrow, rtol=1e-6, atol=1e-6)
    assert not grown[..., 4:].any()
    with pytest.raises(StateError, match="only grows"):
        grow(weights, 2)


@pytest.mark.parametrize("spec", [MLP, CONV], ids=["mlp", "conv"])
def test_a_prediction_does_not_depend_on_what_is_predicted_beside_it(spec: NetworkSpec) -> None:
    phi = stack(spec, [_random_weights(spec, key) for key in (1, 2, 3)])
    slow = slow_tensors(slow_weights(spec), CPU)
    x = torch.randn(3, 75, spec.inputs, generator=torch.Generator().manual_seed(0))
    together = infer(spec, slow, phi, x)
    torch.testing.assert_close(together, logits(spec, slow, phi, x), rtol=1e-4, atol=1e-4)
    for start, stop in ((0, 1), (31, 33), (40, 75), (74, 75)):
        alone = infer(spec, slow, phi[1:2], x[1:2, start:stop])
        assert torch.equal(alone[0], together[1, start:stop])
    assert infer(spec, slow, phi, x[:, :0]).shape == (3, 0, 4)


def test_weights_of_another_network_are_refused() -> None:
    weights = new_weights(MLP, 1)
    with pytest.raises(StateError, match="head/w are"):
        NetworkSpec(inputs=5, hidden=(7, 6), rank=2, classes=8).layout.pack(weights)
    del weights["head/w"]
    with pytest.raises(StateError, match="another network"):
        MLP.layout.pack(weights)


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": 5, "classes": 10},
        {"inputs": 5, "rank": 0},
        {"inputs": 5, "hidden": ()},
        {"inputs": 5, "kind": "conv"},
        {"inputs": 784, "kind": "conv", "hidden": (3,)},
    ],
)
def test_impossible_networks_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        NetworkSpec(**wrong)  # type: ignore[arg-type]


def test_capacity_is_the_next_power_of_two() -> None:
    assert [class_capacity(n) for n in (1, 2, 3, 4, 5, 16, 17)] == [2, 2, 4, 4, 8, 16, 32]
