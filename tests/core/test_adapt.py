"""The inner loop against a plain loop over streams, and what a stream owes its neighbours."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from streamlearn.core.adapt import Adapted, Batch, InnerLoop, Pull, with_prior
from streamlearn.core.adapt_settings import RARE, AdaptSettings, LossName, learning_rate
from streamlearn.core.encoder import logits, slow_tensors, stack
from streamlearn.core.network_spec import NetworkSpec, Weights, new_weights, slow_weights
from streamlearn.errors import ConfigError

CPU = torch.device("cpu")
MLP = NetworkSpec(inputs=6, hidden=(16, 12), rank=2, classes=8)
CONV = NetworkSpec(inputs=784, hidden=(4, 8), rank=2, classes=4, kind="conv")
EVENTS, REPLAY = 6, 5


def some_weights(spec: NetworkSpec, slots: int) -> Tensor:
    """Weights away from the zeros that new streams start with; slot i is always stream i."""
    rows = []
    for slot in range(slots):
        draw = torch.Generator().manual_seed(slot)
        weights: Weights = new_weights(spec, slot)
        for name, value in weights.items():
            noise = 0.2 * torch.randn(value.shape, generator=draw)
            weights[name] = value + noise.numpy()
        rows.append(weights)
    return stack(spec, rows)


def some_batch(spec: NetworkSpec, slots: int, *, draws: int = 1) -> Batch:
    """Events of slot i depend on i alone; some rows masked, some logits never stored."""
    batch = Batch.empty(spec, slots=slots, events=EVENTS, replay=REPLAY, draws=draws)
    for slot in range(slots):
        draw = torch.Generator().manual_seed(1000 + slot)
        batch.x[slot] = torch.randn(EVENTS, spec.inputs, generator=draw)
        batch.y[slot] = torch.randint(0, 3, (EVENTS,), generator=draw)
        batch.mask[slot, : EVENTS - slot % 3] = True
        batch.replay_x[:, slot] = torch.randn(draws, REPLAY, spec.inputs, generator=draw)
        batch.replay_y[:, slot] = torch.randint(0, 2, (draws, REPLAY), generator=draw)
        batch.replay_mask[:, slot, slot % 2 :] = slot != 1  # stream 1 has nothing to replay
        batch.replay_logits[:, slot, :, :2] = torch.randn(draws, REPLAY, 2, generator=draw)
        batch.known[slot, :3] = True
        batch.rate[slot] = 0.05 * (1 + slot % 4)
    return batch


def adapted(
    spec: NetworkSpec,
    settings: AdaptSettings,
    phi: Tensor,
    batch: Batch,
    pull: Pull | None = None,
) -> Adapted:
    loop = InnerLoop(
        spec,
        settings,
        slow_weights(spec),
        slots=phi.shape[0],
        events=EVENTS,
        replay=REPLAY,
        draws=batch.replay_x.shape[0],
    )
    return loop.adapt(phi, batch, pull)


def plain_loss(z: Tensor, batch: Batch, slot: int, draw: int, settings: AdaptSettings) -> Tensor:
    """The loss of one stream as its paper has it. z (N + R, C)."""
    classes = z.shape[1]
    new, old = batch.mask[slot], batch.replay_mask[draw, slot]
    y, replay_y = batch.y[slot][new], batch.replay_y[draw, slot][old]
    z_new, z_old = z[:EVENTS][new], z[EVENTS:][old]
    shift = torch.zeros(classes)
    if settings.prior:
        share = torch.full((classes,), RARE)
        for labels, weight in ((y, 1.0), (replay_y, settings.beta)):
            for label in labels.tolist():
                share[label] += weight / len(labels)
        shift = settings.prior * share.log()
    known = torch.where(batch.known[slot], shift, -math.inf)
    at_hand = known.clone()
    if settings.loss == "er-ace":
        absent = [c for c in range(classes) if c not in y.tolist()]
        at_hand[absent] = -math.inf
    loss = functional.cross_entropy(z_new + at_hand, y)
    if len(replay_y):
        loss = loss + settings.beta * functional.cross_entropy(z_old + known, replay_y)
        if settings.loss == "der++":
            stored = batch.replay_logits[draw, slot][old]
            told = stored.isfinite()
            loss = loss + settings.alpha * functional.mse_loss(z_old[told], stored[told])
    return loss


def plain_loop(
    spec: NetworkSpec,
    settings: AdaptSettings,
    phi: Tensor,
    batch: Batch,
    pull: Pull | None = None,
) -> Tensor:
    """One stream after the other, one step after the other, with autograd alone."""
    slow = slow_tensors(slow_weights(spec), CPU)
    rows = []
    for slot in range(phi.shape[0]):
        row = phi[slot].clone()
        rate = batch.rate[slot]
        for step in range(settings.steps):
            draw = step % batch.replay_x.shape[0]
            x = torch.cat([batch.x[slot], batch.replay_x[draw, slot]])
            leaf = row.clone().requires_grad_()
            z = logits(spec, slow, leaf[None], x[None])[0]
            (grad,) = torch.autograd.grad(plain_loss(z, batch, slot, draw, settings), leaf)
            if grad.norm() > settings.clip:
                grad = grad * settings.clip / grad.norm()
            row = row - rate * grad
            if pull is not None:
                weight = rate * settings.proximal * pull.importance[slot]
                row = (row + weight * pull.anchor[slot]) / (1 + weight)
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("spec", [MLP, CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("prior", [0.0, 1.0])
@pytest.mark.parametrize("loss", ["er", "er-ace", "der++"])
def test_equals_a_plain_loop_over_streams(spec: NetworkSpec, loss: LossName, prior: float) -> None:
    settings = AdaptSettings(loss=loss, prior=prior, alpha=0.3, beta=0.7, steps=3, clip=0.8)
    phi, batch = some_weights(spec, 5), some_batch(spec, 5, draws=3)
    got = adapted(spec, settings, phi, batch)
    assert not got.rolled_back.any()
    assert (got.phi - phi).abs().max() > 0.01
    torch.testing.assert_close(
        got.phi, plain_loop(spec, settings, phi, batch), rtol=1e-5, atol=1e-5
    )


def test_proximal_step_equals_the_plain_loop() -> None:
    settings = AdaptSettings(steps=4, proximal=3.0)
    phi, batch = some_weights(MLP, 4), some_batch(MLP, 4)
    pull = Pull(some_weights(MLP, 8)[4:], some_weights(MLP, 4).abs())
    got = adapted(MLP, settings, phi, batch, pull).phi
    torch.testing.assert_close(
        got, plain_loop(MLP, settings, phi, batch, pull), rtol=1e-5, atol=1e-5
    )
    free = adapted(MLP, AdaptSettings(steps=4), phi, batch).phi
    assert (got - pull.anchor).norm() < (free - pull.anchor).norm()


@pytest.mark.parametrize("spec", [MLP, CONV], ids=["mlp", "conv"])
def test_same_bits_whoever_shares_the_batch(spec: NetworkSpec) -> None:
    settings = AdaptSettings(steps=3)
    many = 130 if spec is MLP else 9  # more than one chunk of slots
    phi, batch = some_weights(spec, many), some_batch(spec, many)
    together = adapted(spec, settings, phi, batch)
    for slot in (0, 1, many // 2, many - 1):
        alone = adapted(spec, settings, phi[slot : slot + 1], batch.slots(slot, slot + 1))
        assert torch.equal(alone.phi[0], together.phi[slot])
        assert torch.equal(alone.losses[0], together.losses[slot])
    order = torch.randperm(many, generator=torch.Generator().manual_seed(0))
    shuffled = Batch.empty(spec, slots=many, events=EVENTS, replay=REPLAY, draws=1)
    for field in dataclasses.fields(Batch):
        slot_dim = 1 if field.name.startswith("replay") else 0
        moved = getattr(batch, field.name).index_select(slot_dim, order)
        getattr(shuffled, field.name).copy_(moved)
    assert torch.equal(adapted(spec, settings, phi[order], shuffled).phi, together.phi[order])


def test_same_bits_on_any_number_of_threads() -> None:
    phi, batch = some_weights(MLP, 130), some_batch(MLP, 130)
    results = []
    before = torch.get_num_threads()
    try:
        for torch_threads, threads in ((1, 1), (2, 1), (1, 3)):
            torch.set_num_threads(torch_threads)
            loop = InnerLoop(
                MLP,
                AdaptSettings(),
                slow_weights(MLP),
                slots=130,
                events=EVENTS,
                replay=REPLAY,
                draws=1,
                threads=threads,
            )
            results.append(loop.adapt(phi, batch).phi)
            assert torch.get_num_threads() == torch_threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_labels_that_are_frequent_now_win_only_with_their_prior() -> None:
    """Events that say nothing, 9 of class 0 to 1 of class 1: only the frequencies differ."""
    batch = Batch.empty(MLP, slots=1, events=10, replay=REPLAY, draws=1)
    batch.x[:] = 1.0
    batch.y[:, 9:] = 1
    batch.mask[:], batch.known[:, :2], batch.rate[:] = True, True, 0.5
    loop = InnerLoop(
        MLP, AdaptSettings(steps=200), slow_weights(MLP), slots=1, events=10, replay=REPLAY, draws=1
    )
    phi = loop.adapt(some_weights(MLP, 1), batch).phi
    z = loop.logits(phi, batch.x[:, :1])[0, 0, :2]
    frequency = torch.tensor([0.9, 0.1])
    assert (z[0] - z[1]).abs() < 0.3
    torch.testing.assert_close(with_prior(z, frequency).softmax(0), frequency, rtol=0.0, atol=0.05)


@pytest.mark.parametrize("harm", ["nan event", "huge event", "huge rate", "nan weights"])
def test_a_diverging_stream_gets_its_weights_back_and_harms_nobody(harm: str) -> None:
    settings = AdaptSettings(steps=4)
    phi, batch = some_weights(MLP, 6), some_batch(MLP, 6)
    fine = adapted(MLP, settings, phi, batch)
    assert not fine.rolled_back.any()
    if harm == "nan event":
        batch.x[2, 0, 0] = math.nan
    elif harm == "huge event":
        batch.x[2, 0] = 1e30
    elif harm == "huge rate":
        batch.rate[2] = 1e4
    else:
        phi[2, 0] = math.nan
    loop = InnerLoop(
        MLP, settings, slow_weights(MLP), slots=6, events=EVENTS, replay=REPLAY, draws=1
    )
    got = loop.adapt(phi, batch)
    assert got.rolled_back.tolist() == [False, False, True, False, False, False]
    assert loop.diverged == 1
    assert torch.equal(got.phi[2].nan_to_num(7.0), phi[2].nan_to_num(7.0))
    others = [0, 1, 3, 4, 5]
    assert torch.equal(got.phi[others], fine.phi[others])


def test_masked_rows_and_empty_slots_change_nothing() -> None:
    settings = AdaptSettings(steps=3)
    phi, batch = some_weights(MLP, 4), some_batch(MLP, 4)
    clean = adapted(MLP, settings, phi, batch)
    batch.x[~batch.mask] = math.nan
    batch.replay_x[~batch.replay_mask] = math.inf
    batch.y[~batch.mask] = 7
    assert torch.equal(adapted(MLP, settings, phi, batch).phi, clean.phi)
    batch.mask[3] = False
    got = adapted(MLP, settings, phi, batch)
    assert torch.equal(got.phi[3], phi[3]) and not got.rolled_back[3]
    assert torch.equal(got.phi[:3], clean.phi[:3])


def test_a_step_is_never_longer_than_rate_times_clip() -> None:
    settings = AdaptSettings(steps=1, clip=0.01)
    phi, batch = some_weights(MLP, 5), some_batch(MLP, 5)
    length = torch.linalg.vector_norm(adapted(MLP, settings, phi, batch).phi - phi, dim=1)
    torch.testing.assert_close(length, 0.01 * batch.rate, rtol=1e-4, atol=0.0)


def test_steps_learn_and_leave_what_they_were_given() -> None:
    settings = AdaptSettings(steps=5)
    phi, batch = some_weights(MLP, 4), some_batch(MLP, 4)
    before = phi.clone()
    got = adapted(MLP, settings, phi, batch)
    assert got.losses.shape == (4, 6)
    assert (got.losses[:, -1] < got.losses[:, 0]).all()
    assert torch.equal(phi, before)
    assert torch.equal(adapted(MLP, settings, phi, batch).phi, got.phi)


def test_rate_is_full_at_a_boundary_and_in_drift_and_falls_to_its_floor() -> None:
    settings = AdaptSettings(rate=0.2, rate_half_life=100.0, rate_floor=0.1)
    assert learning_rate(settings, age_events=0, drift=0.0) == 0.2
    assert learning_rate(settings, age_events=100, drift=0.0) == pytest.approx(0.1)
    assert learning_rate(settings, age_events=10**6, drift=0.0) == pytest.approx(0.02)
    assert learning_rate(settings, age_events=10**6, drift=0.5) == pytest.approx(0.1)
    assert learning_rate(settings, age_events=10**6, drift=9.0) == 0.2


def test_wrong_shapes_and_settings_are_refused() -> None:
    phi, batch = some_weights(MLP, 3), some_batch(MLP, 3)
    loop = InnerLoop(MLP, AdaptSettings(), slow_weights(MLP), slots=4, events=EVENTS)
    with pytest.raises(ConfigError, match="fixed shapes"):
        loop.adapt(phi, batch)
    with pytest.raises(ConfigError, match="proximal"):
        adapted(MLP, AdaptSettings(proximal=1.0), phi, batch)
    with pytest.raises(ConfigError, match="steps=0"):
        AdaptSettings(steps=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: graph not captured")
@pytest.mark.parametrize("spec", [MLP, CONV], ids=["mlp", "conv"])
def test_cuda_graph_equals_eager_and_the_cpu(spec: NetworkSpec) -> None:
    settings = AdaptSettings(steps=3)
    phi = some_weights(spec, 5)
    loops = [
        InnerLoop(
            spec,
            settings,
            slow_weights(spec),
            slots=5,
            events=EVENTS,
            replay=REPLAY,
            draws=1,
            device="cuda",
            graph=graph,
        )
        for graph in (True, False)
    ]
    first = some_batch(spec, 5)
    other = dataclasses.replace(first, x=first.x.flip(0), mask=first.mask.flip(0))
    for batch in (first, other, first):  # a replayed graph reads the new inputs
        graphed, eager = (loop.adapt(phi, batch) for loop in loops)
        torch.testing.assert_close(graphed.phi, eager.phi, rtol=1e-5, atol=1e-6)
        expected = adapted(spec, settings, phi, batch).phi
        torch.testing.assert_close(graphed.phi.cpu(), expected, rtol=1e-4, atol=1e-4)
