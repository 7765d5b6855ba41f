"""Experts, network: a stream's adapted network, learning: when, from what, and at which rate.

In: labelled events as the network reads them. Out: requests to the inner loop (adaptation), and the
weights to predict with. All labelled events are learned from, DUE or more at a time, each joined
with a replayed one (choosing 32 of a frame's 256 events lost .05-.2). Counts decide when; so the
same log gives the same weights, and frames may be cut anywhere between steps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.adapt_settings import AdaptSettings, learning_rate
from streamlearn.core.adaptation import AdaptRequest, AdaptResult, FastWeights
from streamlearn.core.network import Network
from streamlearn.core.network_spec import (
    NetworkSpec,
    Slow,
    grow,
    new_weights,
    places,
    widen,
)

DUE = 32  # labelled events that wait before the inner loop is asked
LARGEST = 256  # events of one request
LOGITS = "logits"  # what is remembered of kept events: see NetworkExpert.said


class NetworkExpert:
    """One stream's fast weights and what waits to change them."""

    def __init__(self, spec: NetworkSpec, *, key: int, settings: AdaptSettings) -> None:
        """`key` stands for (seed, stream)."""
        self.spec, self.key, self.settings = spec, key, settings
        self.n_classes = 0
        self.weights = _first_weights(self.spec, key)
        self.losses = 0.0  # of the newest request, before its first step
        self.n_rolled_back = 0
        self._learned = 0  # classes that the last request knew
        self._boundary = False
        self._age = 0  # labelled events since the last boundary
        self._n_drifts = 0
        self._x: list[NDArray[np.float32]] = []  # waiting
        self._codes: list[NDArray[np.int32]] = []
        self._events: list[NDArray[np.int64]] = []  # the stream's count when each came
        self._asked = _nothing(spec)  # of the newest request: inputs, counts

    @property
    def waiting(self) -> int:
        """Labelled events that wait for the inner loop."""
        return sum(map(len, self._codes))

    def grow(self, spec: NetworkSpec, n_classes: int) -> None:
        """Room for larger blocks of inputs and more classes; what was learned stays."""
        if n_classes > self.n_classes:
            self._boundary, self._age = True, 0
        self.n_classes = n_classes
        if spec != self.spec:
            self._x = [moved(x, self.spec, spec) for x in self._x]
            self.weights = _grown(self.weights, self.spec, spec, self.key)
            self.spec = spec

    def offer(
        self, x: NDArray[np.float32], codes: NDArray[np.int32], events: NDArray[np.int64]
    ) -> None:
        """Labelled events (n, inputs) to learn from, when enough are there."""
        if len(codes):
            self._x.append(x)
            self._codes.append(codes)
            self._events.append(events)
            self._age += len(codes)

    def due(self) -> int:
        """How many events the inner loop is to be asked about now; 0: none."""
        waiting = self.waiting
        return min(waiting, LARGEST) if waiting >= DUE else 0

    def request(
        self,
        n: int,
        replay_x: NDArray[np.float32],  # (steps * r, inputs), r at most n
        replay_codes: NDArray[np.int32],
        replay_logits: NDArray[np.float32],  # (steps * r, at most classes), NaN: unknown then
        *,
        drift: float,
        n_drifts: int,
    ) -> AdaptRequest:
        """The oldest `n` waiting events, with what is replayed beside them.

        `drift`: the detectors' score, 1 at the line; `n_drifts`: alarms so far, each a boundary.
        """
        x, codes = np.concatenate(self._x), np.concatenate(self._codes)
        events = np.concatenate(self._events)
        self._x, self._codes, self._events = [x[n:]], [codes[n:]], [events[n:]]
        self._asked = x[:n], events[:n]
        if n_drifts != self._n_drifts:
            self._boundary, self._age, self._n_drifts = True, 0, n_drifts
        steps, classes = self.settings.steps, self.spec.classes
        stored = np.full((len(replay_x), classes), np.nan, np.float32)
        stored[:, : replay_logits.shape[1]] = replay_logits
        rate = learning_rate(self.settings, age_events=float(self._age), drift=drift)
        index = np.arange(classes)
        request = AdaptRequest(
            spec=self.spec,
            weights=self.weights,
            x=x[:n],
            y=codes[:n].astype(np.int64),
            replay_x=replay_x.reshape(steps, -1, self.spec.inputs),
            replay_y=replay_codes.astype(np.int64).reshape(steps, -1),
            replay_logits=stored.reshape(steps, -1, classes),
            known=index < self.n_classes,
            learned=index < self._learned,
            rate=rate,
            boundary=self._boundary and self._learned > 0,
        )
        self._learned, self._boundary = self.n_classes, False
        return request

    def take(self, result: AdaptResult) -> None:
        """Go on with what the inner loop made of a request."""
        self.weights, self.losses = result.weights, result.loss
        self.n_rolled_back += result.rolled_back

    def said(self, slow: Slow) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(n,) events of the newest request and (n, C) their logits, now that they are learned.

        DER++ holds an event to these whenever it is replayed (Buzzega et al. 2020,
        arXiv:2004.07211). What the weights' running average says of it, as in CLS-ER, is the
        worse teacher: final accuracy -.02, -.03, -.004 in benchmarks/forgetting.py.
        """
        (x, events), self._asked = self._asked, _nothing(self.spec)  # once: they are large
        return events, self.network(slow).logits(x)

    def network(self, slow: Slow) -> Network:
        """To predict with."""
        return Network.of(self.spec, slow, self.weights.phi, self.n_classes)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For a model: the same objects until the inner loop has answered."""
        return {"network": self.weights.phi}

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict, and arrays."""
        meta = {
            "kind": self.spec.kind,
            "n_classes": self.n_classes,
            "learned": self._learned,
            "boundary": self._boundary,
            "age": self._age,
            "n_drifts": self._n_drifts,
            "loss": self.losses,
            "rolled_back": self.n_rolled_back,
        }
        parts = self.weights
        arrays: dict[str, NDArray[Any]] = {
            "phi": parts.phi,
            "anchor": parts.anchor,
            "anchored": parts.anchored,
            "x": np.concatenate([np.zeros((0, self.spec.inputs), np.float32), *self._x]),
            "codes": np.concatenate([np.zeros(0, np.int32), *self._codes]),
            "events": np.concatenate([np.zeros(0, np.int64), *self._events]),
        }
        if parts.importance.any():
            arrays["importance"] = parts.importance
        return meta, {name: array.copy() for name, array in arrays.items()}

    @classmethod
    def restore(
        cls,
        meta: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        *,
        spec: NetworkSpec,
        key: int,
        settings: AdaptSettings,
    ) -> "NetworkExpert":
        """Go on, to the bit, from what `state` gave. KeyError, ValueError where it doesn't fit."""
        expert = cls(spec, key=key, settings=settings)
        expert.n_classes = int(meta["n_classes"])
        width = spec.layout.width
        importance = arrays.get("importance", np.zeros(width, np.float32))
        expert.weights = FastWeights(
            _fitting(arrays["phi"], (width,), np.float32),
            _fitting(arrays["anchor"], (width,), np.float32),
            _fitting(importance, (width,), np.float32),
            _fitting(arrays["anchored"], (spec.classes,), np.bool_),
        )
        codes = np.array(arrays["codes"], np.int32)
        x = _fitting(arrays["x"], (len(codes), spec.inputs), np.float32)
        expert.offer(x, codes, _fitting(arrays["events"], (len(codes),), np.int64))
        expert._learned, expert._boundary = int(meta["learned"]), bool(meta["boundary"])
        expert._age, expert._n_drifts = int(meta["age"]), int(meta["n_drifts"])
        expert.losses, expert.n_rolled_back = float(meta["loss"]), int(meta["rolled_back"])
        return expert


def _nothing(spec: NetworkSpec) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.zeros((0, spec.inputs), np.float32), np.zeros(0, np.int64)


def _first_weights(spec: NetworkSpec, key: int) -> FastWeights:
    row, none = spec.layout.pack(new_weights(spec, key)), np.zeros(spec.layout.width, np.float32)
    return FastWeights(row, row.copy(), none, np.zeros(spec.classes, np.bool_))


def moved(x: NDArray[np.float32], was: NetworkSpec, now: NetworkSpec) -> NDArray[np.float32]:
    """(n, inputs) for a network of larger blocks; inputs that an event did not have are 0."""
    if was.inputs == now.inputs:
        return x
    wider = np.zeros((len(x), now.inputs), np.float32)
    wider[:, places(was, now)] = x
    return wider


def _grown(weights: FastWeights, was: NetworkSpec, now: NetworkSpec, key: int) -> FastWeights:
    """The same weights in the layout of a larger network; more inputs: nothing is important yet."""
    rows = []
    for row in (weights.phi, weights.anchor, weights.importance):
        parts = grow(was.layout.unpack(row), now.classes)
        wider = now.inputs > was.inputs
        rows.append(now.layout.pack(widen(parts, was, now, key) if wider else parts))
    if now.inputs > was.inputs:
        rows[2] = np.zeros(now.layout.width, np.float32)
    anchored = np.pad(weights.anchored, (0, now.classes - was.classes))
    return FastWeights(rows[0], rows[1], rows[2], anchored)


def _fitting(array: NDArray[Any], shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"a network's {array.dtype} {array.shape} where {dtype} {shape} belongs")
    return array.copy()
