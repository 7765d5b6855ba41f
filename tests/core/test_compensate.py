"""Corrections at a boundary: what they move, what they leave, and against sums by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from streamlearn.core.compensate import (
    Anchor,
    CompensateSettings,
    align_head,
    cross_boundary,
    first_anchor,
    fisher,
    follow,
    merge,
)
from streamlearn.core.encoder import logits, slow_tensors, stack, views
from streamlearn.core.network_spec import NetworkSpec, new_weights, slow_weights
from streamlearn.errors import ConfigError

SPEC = NetworkSpec(inputs=5, hidden=(8, 6), rank=2, classes=4)
SLOW = slow_tensors(slow_weights(SPEC), torch.device("cpu"))


def some_weights(seed: int, slots: int = 3) -> Tensor:
    phi = stack(SPEC, [new_weights(SPEC, slot) for slot in range(slots)])
    draw = torch.Generator().manual_seed(seed)
    for part in views(SPEC, phi).values():
        part.add_(0.5 * torch.randn(part.shape, generator=draw))
    return phi


def knows(*classes: int, slots: int = 3) -> Tensor:
    known = torch.zeros(slots, SPEC.classes, dtype=torch.bool)
    known[:, list(classes)] = True
    return known


def test_merge_draws_all_but_columns_that_the_anchor_never_learned() -> None:
    phi = some_weights(0)
    anchor = Anchor(some_weights(1), torch.zeros_like(phi), knows(0, 1))
    got = views(SPEC, merge(SPEC, phi, anchor, 0.25))
    mine, theirs = views(SPEC, phi), views(SPEC, anchor.phi)
    torch.testing.assert_close(got["0/a"], 0.75 * mine["0/a"] + 0.25 * theirs["0/a"])
    for name in ("head/w", "head/bias"):
        between = 0.75 * mine[name] + 0.25 * theirs[name]
        torch.testing.assert_close(got[name][..., :2], between[..., :2])
        assert torch.equal(got[name][..., 2:], mine[name][..., 2:])


def test_an_anchor_that_follows_comes_to_where_the_weights_stay() -> None:
    phi = some_weights(0)
    anchor = first_anchor(SPEC, some_weights(1))
    for _ in range(80):
        anchor = follow(SPEC, anchor, phi, knows(0, 1, 2), 0.8)
    torch.testing.assert_close(anchor.phi, phi, rtol=1e-4, atol=1e-4)
    assert torch.equal(anchor.known, knows(0, 1, 2))


def test_new_columns_are_scaled_to_the_old_ones_norm_and_never_up() -> None:
    phi = some_weights(0)
    head = views(SPEC, phi)["head/w"]
    head[0, :, 2:] *= 10.0
    head[1, :, 2:] *= 0.01
    got = views(SPEC, align_head(SPEC, phi, knows(0, 1), knows(2, 3)))["head/w"]
    assert torch.equal(got[:, :, :2], head[:, :, :2])
    norm = got[0].norm(dim=0)
    torch.testing.assert_close(norm[2:].mean(), norm[:2].mean(), rtol=1e-4, atol=1e-5)
    assert torch.equal(got[1], head[1])
    nothing_old = align_head(SPEC, phi, knows(), knows(0, 1, 2, 3))
    assert torch.equal(nothing_old, phi)


def test_fisher_is_the_mean_squared_gradient_of_single_events() -> None:
    phi = some_weights(0)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(3, 6, 5, generator=draw)
    y = torch.randint(0, 3, (3, 6), generator=draw)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, 4:] = False
    mask[2] = False
    got = fisher(SPEC, SLOW, phi, x=x, y=y, mask=mask, known=knows(0, 1, 2))
    for slot, events in enumerate((6, 4, 0)):
        total = torch.zeros_like(phi[slot])
        for event in range(events):
            leaf = phi[slot].clone().requires_grad_()
            z = logits(SPEC, SLOW, leaf[None], x[slot : slot + 1, event : event + 1])[0, :, :3]
            loss = functional.cross_entropy(z, y[slot, event : event + 1])
            total += torch.autograd.grad(loss, leaf)[0] ** 2
        torch.testing.assert_close(got[slot], total / max(events, 1), rtol=1e-4, atol=1e-6)


def test_only_streams_at_a_boundary_are_touched() -> None:
    phi = some_weights(0)
    anchor = Anchor(some_weights(1), torch.ones_like(phi), knows(0, 1))
    settings = CompensateSettings(merge=0.5, align=True, fisher_decay=0.25)
    at = torch.tensor([True, False, True])
    after, moved = cross_boundary(
        SPEC,
        settings,
        phi,
        anchor,
        at=at,
        known=knows(0, 1, 2),
        importance=3 * torch.ones_like(phi),
    )
    assert torch.equal(after[1], phi[1]) and torch.equal(moved.phi[1], anchor.phi[1])
    assert not torch.equal(after[0], phi[0]) and torch.equal(moved.phi[0], after[0])
    assert (moved.importance[0] == 0.25 + 0.75 * 3).all() and (moved.importance[1] == 1).all()
    assert moved.known[:, 2].tolist() == [True, False, True]


def test_nothing_on_nothing_moves_but_the_anchor() -> None:
    phi = some_weights(0)
    anchor = first_anchor(SPEC, some_weights(1))
    at = torch.ones(3, dtype=torch.bool)
    off = CompensateSettings(merge=0.0, average=0.0, align=False)
    after, moved = cross_boundary(SPEC, off, phi, anchor, at=at, known=knows(0))
    assert torch.equal(after, phi) and torch.equal(moved.phi, phi)


def test_shares_outside_0_to_1_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"1\.5"):
        CompensateSettings(merge=1.5)
