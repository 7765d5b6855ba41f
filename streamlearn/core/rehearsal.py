"""Stage 6, rehearsal: what a stream remembers of its past, to weigh `keep` by and to replay.

In: a step's raw rows and encodings, class codes, event counts and times, their scale. Out:
`kept()`, and `replay(n)`, from whichever of two samples recalls better: micro-clusters, which
cover a class with few centres, or a uniform reservoir, which follows a class that moves; and
without what other classes' events contradict (`contradiction`), where it recalls more without. The
samples themselves lie in `microclusters` and `reservoir`; here they stand side by side, with a
slice of events that neither was offered (`recall`), by which `choose` decides.

What a class has of all three is fixed, so memory grows with classes and inputs, never with events.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.companions import Companions, Values, packed
from streamlearn.core.contradiction import contradicted, filled
from streamlearn.core.grown import grown
from streamlearn.core.microclusters import MicroClusters
from streamlearn.core.recall import choose, hold_out, recall
from streamlearn.core.reservoir import Kept, Representatives, UniformReservoir, draws
from streamlearn.errors import StateError

CLUSTERS, UNIFORM = MicroClusters.KIND, UniformReservoir.KIND
WORDS = "words"  # companion of kept events, see companions.packed
HELD_PER_CLASS = 10  # held-out events that are asked for
_HELD_KEY, _REPLAY_KEY = 0x5851F42D4C957F2D, 0x14057B7EF767814F  # apart from the reservoir's draws
_HELD = "held"
WHOLE, WITHOUT = "whole", "without"  # what is contradicted
MOST_ASKED = 512  # held-out events, of all classes; 400 classes: 12.7 s of 15.4 went without these
MOST_COMPARED = 1024  # kept rows, each with each: with more, all are believed


@dataclass(frozen=True, slots=True, eq=False)
class Replay(Kept):
    """Drawn rows of `Kept`; a slot may be among them several times."""

    sample: str  # CLUSTERS or UNIFORM: whose slots these are
    companions: Values  # (m, ...) each, see Rehearsal.offer


class Taken(NamedTuple):
    """Where a step's events (n,) were kept."""

    clusters: NDArray[np.int64]  # slot of the micro-cluster whose member each became, or -1
    why: NDArray[np.int8]  # microclusters.Why, or -1
    uniform: NDArray[np.int64]  # slot in the uniform sample, or -1


class Rehearsal:
    """A stream's two samples, its held-out slice, and which sample is trusted."""

    def __init__(self, *, capacity: int, key: int) -> None:
        """`capacity` a class in each sample; `key` is the randomness: see `stream_key`."""
        self.key = key
        self.clusters = MicroClusters(capacity=capacity)
        self.uniform = UniformReservoir(capacity=capacity, key=key)
        self.held = UniformReservoir(capacity=HELD_PER_CLASS, key=key ^ _HELD_KEY)
        self.n_numbers = 0  # d: columns of kept rows before the encodings'
        self.trusted = CLUSTERS
        self.recalls: dict[str, float] = {}  # by sample, when last asked; NaN: nothing to ask
        self.n_seen: NDArray[np.int64] = np.zeros(0, np.int64)  # (C,) labelled events offered
        self.left_out = dict.fromkeys((CLUSTERS, UNIFORM), np.zeros(0, np.int64))  # slots, sorted
        self._companions = {CLUSTERS: Companions(), UNIFORM: Companions()}

    def offer(
        self,
        rows: NDArray[np.float64],
        codes: NDArray[np.int32],
        event: NDArray[np.int64],
        event_time_s: NDArray[np.float64],
        scale: NDArray[np.float64],
        companions: Values | None = None,
        encoded: NDArray[np.float64] | None = None,
    ) -> Taken:
        """Offer a step's events, oldest first; codes (n,) are -1 where unlabelled.

        `encoded` (n, w): more columns of each event, see `encodings`; they stand behind those of
        `rows` (n, d). `scale` (d + w,): 1 / spread of each column. `companions`: further values of
        each event (n, ...) by name, which go with it wherever it is kept, and come back with
        `replay`: logits, pixels.
        """
        self._widen(rows.shape[1])
        if encoded is not None:
            if self._formed_by_little():
                self._form_anew()
            rows = np.concatenate([rows, encoded], axis=1)
        asked = self._asked(codes, event)
        if asked.any():
            held = np.where(asked, codes, -1).astype(np.int32)
            self.held.offer(rows, held, event, event_time_s)
            codes = np.where(asked, -1, codes).astype(np.int32)
        clusters = self.clusters.offer(rows, codes, event, event_time_s, scale)
        uniform = self.uniform.offer(rows, codes, event, event_time_s)
        given = companions or {}
        n_slots = len(self.n_seen) * self.clusters.capacity
        for name, slots in ((CLUSTERS, clusters), (UNIFORM, uniform)):
            self._companions[name].take(slots, given, n_slots=n_slots)
        return Taken(clusters, self.clusters.why(clusters), uniform)

    def _widen(self, n_numbers: int) -> None:
        """Room for more inputs, before the encodings."""
        more = n_numbers - self.n_numbers
        if more > 0:
            for sample in (self.clusters, self.uniform, self.held):
                sample.insert(self.n_numbers, more)
            self.n_numbers = n_numbers

    def renew(self, encode: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> None:
        """Events are encoded otherwise from now on: `encode` gives (m, w) of kept ones, by count.

        What is held out begins anew, its events' images are not kept; and so do the clusters,
        where nothing is known of their events, or was when they formed.
        """
        self.held = UniformReservoir(capacity=HELD_PER_CLASS, key=self.held.key)
        self.uniform.rewrite(self.n_numbers, encode(self.uniform.kept().event))
        members = self.clusters.members()
        values = encode(members.event)
        if self.n_numbers or (members.rows.shape[1] and not np.isnan(values).all(axis=1).any()):
            self.clusters.rewrite(self.n_numbers, values)
        else:
            self._form_anew()

    def _formed_by_little(self) -> bool:
        """Whether the clusters are without encodings, and without columns or anything to lose."""
        clusters = self.clusters
        few = int(clusters.n_seen.max(initial=0)) <= clusters.capacity
        return clusters.n_columns <= self.n_numbers and (few or not clusters.n_columns)

    def _form_anew(self) -> None:
        """What lacks columns would take in all that comes, wherever it lies in them."""
        self.clusters = MicroClusters(capacity=self.clusters.capacity)
        self.left_out[CLUSTERS] = np.zeros(0, np.int64)
        self._companions[CLUSTERS] = Companions()

    def note_words(self, taken: Taken, texts: Mapping[str, Sequence[str | None]]) -> None:
        """The beginning of what kept events said, so that people can read it."""
        for sample, slots in ((CLUSTERS, taken.clusters), (UNIFORM, taken.uniform)):
            rows = np.flatnonzero(slots >= 0)
            if len(rows):
                said = [{name: column[i] for name, column in texts.items()} for i in rows.tolist()]
                self._companions[sample].set(WORDS, slots[rows], packed(said))

    def remember(self, name: str, events: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Values (n, ...) of events (n,), by their counts; of those that are not kept, none."""
        if not len(events):
            return
        order = np.argsort(events, kind="stable")
        for sample, kept in self._samples.items():
            members = kept.members()
            at = np.searchsorted(events, members.event, sorter=order)
            row = order[np.minimum(at, len(order) - 1)]
            found = np.flatnonzero(events[row] == members.event)
            if len(found):
                self._companions[sample].set(name, members.slots[found], values[row[found]])

    def _asked(self, codes: NDArray[np.int32], event: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) which events are held out: never a class's first ones, it may not have many."""
        more = 1 + int(codes.max(initial=-1)) - len(self.n_seen)
        if more > 0:
            self.n_seen = grown(self.n_seen, more)
        asked = np.zeros(len(codes), np.bool_)
        key = np.uint64(self.key ^ _HELD_KEY)
        hold_out(codes, event, key, self.clusters.capacity, self.n_seen, asked)
        return asked

    @property
    def _samples(self) -> dict[str, Representatives]:
        return {CLUSTERS: self.clusters, UNIFORM: self.uniform}

    def choose(self, scale: NDArray[np.float64]) -> None:
        """Ask both samples for the held-out events, and trust the one that recalls better.

        Without columns all events lie at one place for the clusters: then the uniform one.
        """
        if not len(scale):
            self.trusted = UNIFORM
            return
        held = self.held.kept()
        every = -(-len(held.codes) // MOST_ASKED)
        if every > 1:
            held = held.rows_at(np.arange(len(held.codes)) % every == 0)
        for name, sample in self._samples.items():
            kept = sample.kept()
            whole, chosen = recall(kept, held, scale), believed(kept, scale)
            rest = recall(kept.rows_at(chosen), held, scale)
            before = WITHOUT if len(self.left_out[name]) else WHOLE
            better = choose({WHOLE: whole, WITHOUT: rest}, trusted=before)
            out = ~chosen if better == WITHOUT else np.zeros_like(chosen)
            self.left_out[name] = kept.slots[out]
            self.recalls[name] = rest if better == WITHOUT else whole
        self.trusted = choose(self.recalls, trusted=self.trusted)

    def kept(self, *, members: bool = False) -> Kept:
        """What is believed of the trusted sample: centres with counts, or events."""
        sample = self._samples[self.trusted]
        kept = sample.members() if members else sample.kept()
        out = self.left_out[self.trusted]
        return kept.rows_at(~np.isin(kept.slots, out)) if len(out) else kept

    def events(self) -> list[int]:
        """All that are kept in any sample, or held out, by event count."""
        parts = [sample.members().event for sample in self._samples.values()]
        events: list[int] = np.concatenate([*parts, self.held.kept().event]).tolist()
        return events

    def replay(self, n: int, draw_key: int, *, members: bool = False) -> Replay:
        """`n` rows of the trusted sample, every class as often; none while nothing is kept.

        Within a class a row comes as often as it stands for events. `draw_key` is the stream's
        event count: with the stream's key it is all that decides the draw. `members`: events
        instead of centres, for values that go with an event (logits, pixels).
        """
        kept = self.kept(members=members)
        chosen = draw(kept, n, *draws(self.key ^ _REPLAY_KEY, 2 * draw_key + np.arange(2)))
        slots = kept.slots[chosen]
        self._samples[self.trusted].note_replayed(slots)
        return Replay(
            rows=kept.rows[chosen],
            codes=kept.codes[chosen],
            weights=kept.weights[chosen],
            event=kept.event[chosen],
            event_time_s=kept.event_time_s[chosen],
            slots=slots,
            sample=self.trusted,
            companions=self._companions[self.trusted].of(slots),
        )

    def companions_of(self, sample: str, slots: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """What goes with the members of a sample's slots, by name."""
        return self._companions[sample].of(slots)

    def set_companions(self, replay: Replay, values: Values) -> None:
        """Other values (m, ...) for what was replayed: logits of today's network, for one."""
        for name, array in values.items():
            self._companions[replay.sample].set(name, replay.slots, array)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict, and arrays."""
        meta: dict[str, Any] = {"key": self.key, "trusted": self.trusted}
        if self.clusters.n_columns > self.n_numbers:
            meta["n_numbers"] = self.n_numbers
        meta["recalls"] = {n: None if r != r else r for n, r in self.recalls.items()}
        arrays: dict[str, NDArray[Any]] = {"n_seen": self.n_seen.copy()}
        for name, sample in {**self._samples, _HELD: self.held}.items():
            meta[name], own = sample.state()
            if name != _HELD:
                own["left_out"] = self.left_out[name].copy()
            if name != _HELD and self._companions[name]:
                of = self._companions[name].of(sample.kept().slots)
                own |= {f"with/{key}": values for key, values in of.items()}
            arrays |= {f"{name}/{key}": array for key, array in own.items()}
        return meta, arrays

    @classmethod
    def restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Rehearsal":
        """Go on, to the bit, from what `state` gave. StateError where it doesn't fit."""
        try:
            rehearsal = cls(capacity=int(meta[CLUSTERS]["capacity"]), key=int(meta["key"]))
            rehearsal.clusters = MicroClusters.restore(meta[CLUSTERS], _part(arrays, CLUSTERS))
            rehearsal.uniform = UniformReservoir.restore(meta[UNIFORM], _part(arrays, UNIFORM))
            rehearsal.held = UniformReservoir.restore(meta[_HELD], _part(arrays, _HELD))
            rehearsal.n_seen = np.array(arrays["n_seen"], np.int64)
            rehearsal.n_numbers = int(meta.get("n_numbers", rehearsal.clusters.n_columns))
            for name in rehearsal.left_out:
                rehearsal.left_out[name] = np.array(arrays[f"{name}/left_out"], np.int64)
            nan = float("nan")
            recalls = dict(meta["recalls"])
            rehearsal.recalls = {n: nan if r is None else float(r) for n, r in recalls.items()}
            rehearsal.trusted = {CLUSTERS: CLUSTERS, UNIFORM: UNIFORM}[meta["trusted"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"a rehearsal's state lacks or garbles {error}; restore what state() gave"
            ) from error
        for name, sample in rehearsal._samples.items():
            values = _part(_part(arrays, name), "with")
            if values:
                rehearsal._companions[name] = Companions.restore(sample.kept().slots, values)
        return rehearsal


def believed(kept: Kept, scale: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(k,) which rows of `kept` are not contradicted.

    All of a class where all of it are, and all rows where there are more than MOST_COMPARED.
    """
    if len(kept.codes) > MOST_COMPARED:
        return np.ones(len(kept.codes), np.bool_)
    width = min(kept.rows.shape[1], len(scale))
    points = filled(kept)[:, :width] * scale[:width]
    against = contradicted(points, kept)
    whole = np.bincount(kept.codes) == np.bincount(kept.codes, against)
    return np.asarray(~against | whole[kept.codes])


def draw(kept: Kept, n: int, turn: float, start: float) -> NDArray[np.int64]:
    """(n,) positions in `kept`: every class as often, within a class by weight.

    `turn` and `start`, both uniform on 0..1: who gets what n leaves over, and where in each class
    to begin. Even steps through the summed weights (systematic sampling, Madow 1949) give each
    row its share up to one, which independent draws do not.
    """
    if len(kept.codes) == 0 or n < 1:
        return np.zeros(0, np.int64)
    _, first, rank = np.unique(kept.codes, return_index=True, return_inverse=True)
    n_classes = len(first)
    total = np.bincount(rank, kept.weights)
    share = np.cumsum(kept.weights / total[rank])  # of class 0 up to 1, of class 1 up to 2, ...
    leftover = (np.arange(n_classes) - int(turn * n_classes)) % n_classes < n % n_classes
    times = n // n_classes + leftover
    of = np.repeat(np.arange(n_classes), times)
    step = np.arange(n) - (np.cumsum(times) - times)[of]
    at = np.searchsorted(share, of + (step + start) / times[of], side="right")
    last = np.append(first[1:], len(rank)) - 1
    return np.asarray(np.clip(at, first[of], last[of]), np.int64)  # sums are rounded


def _part(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    start = f"{name}/"
    return {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
