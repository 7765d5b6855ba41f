"""Stage 7c, adapt: the inner loop, a few gradient steps of every stream's fast weights at once.

New events come in, joined 1:1 with replayed ones; the weights after k steps go on to the stream's
model, and `compensate` guards them against forgetting. One call holds S streams in slots of fixed
shape. On CUDA it is captured once as a graph and replayed; on a CPU the slots are worked off in
chunks that fit the cache. What a stream learns does not depend on the streams beside it: every
product is batched, every sum stays inside a stream, and a stream whose weights or loss explode
goes back to the weights it came with. Unlike `experts`, whose heads are solved in closed form,
this stage learns features too.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from streamlearn.core.adapt_settings import RARE, AdaptSettings, Objective
from streamlearn.core.capture import Tensors, capture
from streamlearn.core.encoder import infer, logits, single_threaded, slow_tensors
from streamlearn.core.gradients import Goal, Gradient, goal, loss_at
from streamlearn.core.network_spec import NetworkSpec, Slow
from streamlearn.errors import ConfigError

CHUNK_SLOTS = 128  # slots worked off together on a CPU: few calls, and half fits its cache


def with_prior(z: Tensor, frequency: Tensor, prior: float = 1.0) -> Tensor:
    """Logits for the stream's next events, given the recent label frequency (..., C), sum 1.

    Steps with `prior` learn logits that favour no class for being frequent: right for any event of
    any time (keep). The next events have the stream's frequencies, put back here (serve).
    """
    return z + prior * (frequency + RARE).log()


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """S slots of up to N new events, and 1 or k draws of up to R replayed ones (J draws)."""

    x: Tensor  # (S, N, d) float32
    y: Tensor  # (S, N) int64 class index
    mask: Tensor  # (S, N) bool: true where there is an event
    replay_x: Tensor  # (J, S, R, d)
    replay_y: Tensor  # (J, S, R)
    replay_mask: Tensor  # (J, S, R)
    replay_logits: Tensor  # (J, S, R, C) as stored; NaN: class unknown then
    known: Tensor  # (S, C) bool: classes the stream has seen, this batch included
    rate: Tensor  # (S,) learning rate

    @classmethod
    def empty(
        cls, spec: NetworkSpec, *, slots: int, events: int, replay: int, draws: int
    ) -> "Batch":
        """All masked out, on the CPU, for the caller to fill slot by slot."""
        return cls(
            x=torch.zeros(slots, events, spec.inputs),
            y=torch.zeros(slots, events, dtype=torch.int64),
            mask=torch.zeros(slots, events, dtype=torch.bool),
            replay_x=torch.zeros(draws, slots, replay, spec.inputs),
            replay_y=torch.zeros(draws, slots, replay, dtype=torch.int64),
            replay_mask=torch.zeros(draws, slots, replay, dtype=torch.bool),
            replay_logits=torch.full((draws, slots, replay, spec.classes), math.nan),
            known=torch.zeros(slots, spec.classes, dtype=torch.bool),
            rate=torch.zeros(slots),
        )

    def tensors(self) -> Tensors:
        return (
            self.x,
            self.y,
            self.mask,
            self.replay_x,
            self.replay_y,
            self.replay_mask,
            self.replay_logits,
            self.known,
            self.rate,
        )

    def slots(self, start: int, stop: int) -> "Batch":
        """Some of the slots (views)."""
        cut = slice(start, stop)
        return Batch(
            x=self.x[cut],
            y=self.y[cut],
            mask=self.mask[cut],
            replay_x=self.replay_x[:, cut],
            replay_y=self.replay_y[:, cut],
            replay_mask=self.replay_mask[:, cut],
            replay_logits=self.replay_logits[:, cut],
            known=self.known[cut],
            rate=self.rate[cut],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """Where the proximal step draws the weights, and how strongly each (`compensate`)."""

    anchor: Tensor  # (S, P)
    importance: Tensor  # (S, P) >= 0


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """Fast weights after the steps."""

    phi: Tensor  # (S, P)
    losses: Tensor  # (S, k + 1): before each step, then after the last on the first draw
    rolled_back: Tensor  # (S,) bool: diverged, and got the weights back that it came with


def take_steps(
    spec: NetworkSpec,
    settings: AdaptSettings,
    slow: Sequence[Tensor],
    phi: Tensor,
    batch: Batch,
    pull: Pull | None = None,
) -> Adapted:
    """k steps of every slot. 1 gradient; 2 clip; 3 descend; 4 proximal; and then the verdict."""
    aims = _goals(settings.objective, batch)
    rate = batch.rate.unsqueeze(1)
    now = phi.clone()
    gradient = Gradient(spec, slow, now)
    losses, norms = [], []
    for step in range(settings.steps):
        losses.append(gradient.at(aims[step % len(aims)]))
        norm = torch.linalg.vector_norm(gradient.grad, dim=1, keepdim=True)
        now.addcmul_(gradient.grad, -rate * (settings.clip / norm.clamp_min(settings.clip)))
        if pull is not None:  # argmin |v - now|^2 / 2 rate + proximal / 2 importance (v - anchor)^2
            weight = rate * settings.proximal * pull.importance
            now.addcmul_(weight, pull.anchor).div_(1.0 + weight)
        norms.append(norm)
    losses.append(loss_at(aims[0], logits(spec, slow, now, aims[0].x)))
    curve = torch.stack(losses, dim=1)
    bad = _diverged(spec, settings, now, curve, torch.cat(norms, dim=1))
    active = batch.mask.any(dim=1)
    keep = (active & ~bad).unsqueeze(1)
    return Adapted(torch.where(keep, now, phi), curve, active & bad)


def _goals(objective: Objective, batch: Batch) -> list[Goal]:
    """One goal a draw."""
    return [
        goal(
            objective,
            x=batch.x,
            y=batch.y,
            mask=batch.mask,
            replay_x=batch.replay_x[draw],
            replay_y=batch.replay_y[draw],
            replay_mask=batch.replay_mask[draw],
            replay_logits=batch.replay_logits[draw],
            known=batch.known,
        )
        for draw in range(batch.replay_x.shape[0])
    ]


def _diverged(
    spec: NetworkSpec, settings: AdaptSettings, phi: Tensor, losses: Tensor, norms: Tensor
) -> Tensor:
    """Streams whose weights, losses or gradients are no numbers, or whose loss exploded."""
    limit = settings.explosion * losses[:, 0].clamp_min(math.log(spec.classes))
    numbers = torch.cat([phi, losses, norms], dim=1).isfinite().all(dim=1)
    return ~(numbers & (losses[:, -1] <= limit))


class InnerLoop:
    """The inner loop at fixed shapes: S slots, N new events, R replayed ones in J draws.

    On a CPU S may differ from call to call. On CUDA the first call captures a graph, later calls
    replay it (`graph=False`: eager). The same weights in, the same weights out: `adapt` changes
    nothing of what it is given.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        settings: AdaptSettings,
        slow: Slow,
        *,
        slots: int,
        events: int,
        replay: int | None = None,  # R; default: as many as new events, 1:1
        draws: int | None = None,  # J; default: fresh replay for each of the k steps
        device: str = "cpu",
        graph: bool = True,
        threads: int = 1,  # on a CPU: chunks of slots worked off at the same time
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.slots = slots
        self.events = events
        self.replay = events if replay is None else replay
        self.draws = settings.steps if draws is None else draws
        self.device = torch.device(device)
        self.diverged = 0  # streams rolled back so far
        self._slow = slow_tensors(slow, self.device)
        self._graphed = graph and self.device.type == "cuda"
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._replayed: Callable[[Tensors], Tensors] | None = None

    def empty(self, slots: int | None = None) -> Batch:
        """A batch of these shapes, to be filled; on a CPU of any number of `slots`."""
        return Batch.empty(
            self.spec,
            slots=self.slots if slots is None else slots,
            events=self.events,
            replay=self.replay,
            draws=self.draws,
        )

    def adapt(self, phi: Tensor, batch: Batch, pull: Pull | None = None) -> Adapted:
        """k steps of all slots; phi (S, P) and batch may lie on the CPU or the device."""
        self._check(phi, batch, pull)
        given = (phi, *batch.tensors())
        if pull is not None:
            given += (pull.anchor, pull.importance)
        if self._graphed:
            if self._replayed is None:
                self._replayed = capture(self._steps, given, self.device)
            adapted = Adapted(*self._replayed(given))
        elif self.device.type == "cpu":
            adapted = self._in_chunks(given)
        else:
            adapted = Adapted(*self._steps(tuple(t.to(self.device) for t in given)))
        self.diverged += int(adapted.rolled_back.sum())
        return adapted

    def logits(self, phi: Tensor, x: Tensor) -> Tensor:
        """(S, n, C) of x (S, n, d), any n. Columns of classes never seen mean nothing."""
        return infer(self.spec, self._slow, phi.to(self.device), x.to(self.device))

    def _check(self, phi: Tensor, batch: Batch, pull: Pull | None) -> None:
        any_slots = self.device.type == "cpu" and phi.ndim == 2
        want = self.shapes(phi.shape[0] if any_slots else self.slots)
        have = tuple(tuple(t.shape) for t in (phi, *batch.tensors()))
        if have != want:
            raise ConfigError(
                f"the inner loop has fixed shapes {want}, got {have}; fill InnerLoop.empty()"
            )
        if (pull is not None) != (self.settings.proximal > 0):
            raise ConfigError(
                f"a pull goes with proximal > 0 and only then: proximal="
                f"{self.settings.proximal}, pull given: {pull is not None}"
            )

    def shapes(self, slots: int) -> tuple[tuple[int, ...], ...]:
        """Shapes of phi and of a batch's tensors."""
        s, n, r, j = slots, self.events, self.replay, self.draws
        d, c = self.spec.inputs, self.spec.classes
        new = ((s, n, d), (s, n), (s, n))
        replayed = ((j, s, r, d), (j, s, r), (j, s, r), (j, s, r, c))
        return ((s, self.spec.layout.width), *new, *replayed, (s, c), (s,))

    @torch.no_grad()
    def _steps(self, given: Tensors) -> Tensors:
        batch, pull = Batch(*given[1:10]), Pull(*given[10:]) if given[10:] else None
        adapted = take_steps(self.spec, self.settings, self._slow, given[0], batch, pull)
        return adapted.phi, adapted.losses, adapted.rolled_back

    def _in_chunks(self, given: Tensors) -> Adapted:
        batch = Batch(*given[1:10])
        chunks = []
        for start in range(0, given[0].shape[0], CHUNK_SLOTS):
            stop = start + CHUNK_SLOTS
            cut = [tensor[start:stop] for tensor in (given[0], *given[10:])]
            chunks.append((cut[0], *batch.slots(start, stop).tensors(), *cut[1:]))
        if self._pool is None or len(chunks) == 1:
            done = [self._alone(chunk) for chunk in chunks]
        else:
            done = list(self._pool.map(self._alone, chunks))
        return Adapted(*(torch.cat(parts) for parts in zip(*done, strict=True)))

    def _alone(self, given: Tensors) -> Tensors:
        with single_threaded():
            return self._steps(given)
