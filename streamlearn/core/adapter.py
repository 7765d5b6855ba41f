"""Stage 7f, adapter: answers many streams' requests in calls of fixed shape, on CPU or GPU.

In: requests of any streams. Out: a result each, in their order. Requests of one network and one
size of micro-batch share a call; on a CPU it has as many slots as there are requests, on a GPU
always GPU_SLOTS, since other shapes would be other kernels, and other bits. So what a stream gets
does not depend on who asks beside it, on one device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from streamlearn.core.adapt import Batch, InnerLoop, Pull
from streamlearn.core.adapt_settings import AdaptSettings
from streamlearn.core.adaptation import AdaptRequest, AdaptResult, FastWeights
from streamlearn.core.compensate import (
    Anchor,
    CompensateSettings,
    cross_boundary,
    fisher,
    follow,
)
from streamlearn.core.encoder import single_threaded, slow_tensors
from streamlearn.core.network_spec import NetworkSpec, shared_layers
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import ConfigError

GPU_SLOTS = 256
SMALLEST_EVENTS = 32  # a call's room for events is this or 2, 4, 8, ... times as many


class Adapter:
    """The inner loop for whoever drives learners. One thread at a time."""

    def __init__(
        self,
        adapt: AdaptSettings,
        compensate: CompensateSettings,
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        """`device` "cpu" or "cuda"; `threads` work on the slots of a call on a CPU."""
        self.device = device
        self._adapt = adapt
        self._compensate = compensate
        self._threads = threads
        self._loops: dict[tuple[NetworkSpec, int], InnerLoop] = {}

    @classmethod
    def of(cls, settings: LearnerSettings) -> "Adapter":
        """With what of a learner's settings is the inner loop's. ConfigError without its device."""
        device = settings.network_device
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "learner setting network_device is 'cuda', but torch finds no GPU; choose 'auto' "
                "or 'cpu', or install the GPU's driver"
            )
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        adapt = AdaptSettings(
            loss=settings.network_loss,  # type: ignore[arg-type]  # LearnerSettings checks it
            steps=settings.network_steps,
            proximal=settings.network_proximal,
        )
        merge, align = settings.network_merge, settings.network_align
        compensate = CompensateSettings(merge=merge, align=align)
        return cls(adapt, compensate, device=device)

    def adapt(self, requests: Sequence[AdaptRequest]) -> list[AdaptResult]:
        """A result for each request."""
        groups: dict[tuple[NetworkSpec, int], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault((request.spec, room(len(request.y))), []).append(place)
        results: dict[int, AdaptResult] = {}
        for (spec, events), places in groups.items():
            loop = self._loop(spec, events)
            slots = len(places) if self.device == "cpu" else GPU_SLOTS
            for start in range(0, len(places), slots):
                chosen = places[start : start + slots]
                done = self._call(loop, [requests[place] for place in chosen])
                results |= dict(zip(chosen, done, strict=True))
        return [results[place] for place in range(len(requests))]

    def _loop(self, spec: NetworkSpec, events: int) -> InnerLoop:
        if (spec, events) not in self._loops:
            self._loops[spec, events] = InnerLoop(
                spec,
                self._adapt,
                shared_layers(spec),
                slots=GPU_SLOTS,
                events=events,
                device=self.device,
                threads=self._threads,
            )
        return self._loops[spec, events]

    def _call(self, loop: InnerLoop, requests: Sequence[AdaptRequest]) -> list[AdaptResult]:
        """1 the streams side by side; 2 boundaries; 3 the steps; 4 the anchor follows."""
        slots = len(requests) if self.device == "cpu" else loop.slots
        batch = loop.empty(slots)
        for slot, request in enumerate(requests):
            _fill(batch, slot, request)
        phi = _side_by_side([request.weights.phi for request in requests], slots)
        anchor = Anchor(
            _side_by_side([request.weights.anchor for request in requests], slots),
            _side_by_side([request.weights.importance for request in requests], slots),
            _side_by_side([request.weights.anchored for request in requests], slots),
        )
        if any(request.boundary for request in requests):
            phi, anchor = self._cross(loop, phi, anchor, batch, requests)
        pull = Pull(anchor.phi, anchor.importance) if self._adapt.proximal else None
        adapted = loop.adapt(phi, batch, pull)
        after = adapted.phi.cpu()
        if self._compensate.average:
            anchor = follow(loop.spec, anchor, after, batch.known, self._compensate.average)
        losses, rolled_back = adapted.losses.cpu().numpy(), adapted.rolled_back.cpu().numpy()
        return [
            AdaptResult(_weights(after, anchor, slot), float(losses[slot, 0]), bool(back))
            for slot, back in enumerate(rolled_back[: len(requests)])
        ]

    def _cross(
        self,
        loop: InnerLoop,
        phi: Tensor,
        anchor: Anchor,
        batch: Batch,
        requests: Sequence[AdaptRequest],
    ) -> tuple[Tensor, Anchor]:
        """What `compensate` does at a boundary, for the streams that stand at one."""
        slots, importance = phi.shape[0], None
        learned = _side_by_side([request.learned for request in requests], slots)
        at = _side_by_side([np.array([request.boundary]) for request in requests], slots)[:, 0]
        if self._adapt.proximal:
            with single_threaded():
                importance = fisher(
                    loop.spec,
                    slow_tensors(shared_layers(loop.spec), torch.device("cpu")),
                    phi,
                    x=batch.replay_x[0],
                    y=batch.replay_y[0],
                    mask=batch.replay_mask[0],
                    known=learned,
                )
        crossed = (loop.spec, self._compensate, phi, anchor)
        return cross_boundary(*crossed, at=at, known=learned, importance=importance)


def room(events: int) -> int:
    """Room for so many events in a call of fixed shape.

    >>> [room(n) for n in (1, 32, 33, 256)]
    [32, 32, 64, 256]
    """
    size = SMALLEST_EVENTS
    while size < events:
        size *= 2
    return size


def _fill(batch: Batch, slot: int, request: AdaptRequest) -> None:
    m, r = len(request.y), request.replay_y.shape[1]
    batch.x[slot, :m] = torch.from_numpy(request.x)
    batch.y[slot, :m] = torch.from_numpy(request.y)
    batch.mask[slot, :m] = True
    batch.replay_x[:, slot, :r] = torch.from_numpy(request.replay_x)
    batch.replay_y[:, slot, :r] = torch.from_numpy(request.replay_y)
    batch.replay_logits[:, slot, :r] = torch.from_numpy(request.replay_logits)
    batch.replay_mask[:, slot, :r] = True
    batch.known[slot] = torch.from_numpy(request.known)
    batch.rate[slot] = request.rate


def _side_by_side(rows: Sequence[np.ndarray], slots: int) -> Tensor:
    """(slots, width) of the rows, zeros below them."""
    together = np.zeros((slots, rows[0].shape[0]), rows[0].dtype)
    np.stack(rows, out=together[: len(rows)])
    return torch.from_numpy(together)


def _weights(phi: Tensor, anchor: Anchor, slot: int) -> FastWeights:
    parts = (phi, anchor.phi, anchor.importance, anchor.known)
    return FastWeights(*(part[slot].numpy().copy() for part in parts))
