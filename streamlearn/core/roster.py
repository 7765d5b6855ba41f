"""Experts, roster: which parts of the pool are asked, by what they bring to what is served.

In: a step's scores and classes, drifts. Out: who is awake. A part is a few heads that are worked
out together: the forest, the nearest events, the adapted network, a ridge head that must be solved.
Together they are most of what a step costs, and many a stream gains nothing by one of them. What a
part brings is

    log serve - log serve without the part's terms in M1..M3 (the others of M1 renormalised)

of the label, in nats, a mean over recent labelled events. Below `least_gain` the part goes to rest:
it is neither asked nor taught, and its weights in all mixtures are exactly 0, which is all that a
reader needs to know. After a rest it is auditioned, with weights that begin at next to nothing, so
nobody notices but by what it gains; each rest is twice as long as the one before. A drift or a new
class wakes all at once. Only counts decide.

Gain in nats, and the accuracy that the same heads lose when pooled without the part:

    forest   elec2 .104, .012   nyc_flights .004, .002   noaa .0001, -.001   RBF .0002, .000
    nearest  digits .097, .015  watch_imu .046, .004     elec2 -.0004, -.001  noaa -.0003, .000
    network  mnist_5k .003, .001  elec2 .004, .001

(steps of 32, nyc_flights 256; one seed): accuracy missed no part that brought less than .001.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.pool import CLIP

WINDOW = 2048.0  # labelled events, of the mean
LONGEST_REST = 32768  # labelled events
FLOOR = 1e-6  # of a probability
_KEEP = 1.0 - 1.0 / WINDOW


class Terms(NamedTuple):
    """On which a part is kept."""

    least_gain: float  # nats an event
    trial: int  # labelled events before it may rest: at first, after a drift, with a new class
    audition: int  # labelled events after a rest, at least,
    share: float  # and this part of the rest
    rest: int  # labelled events: the first one; each is twice as long as the one before


CHEAP = Terms(0.001, 4096, 1024, 1 / 8, 2048)  # .002 and .003 nats lose .001 on nyc_flights
DEAR = Terms(0.01, 1024, 512, 1 / 64, 4096)  # costs five times what all others cost, or more


@dataclass(slots=True)
class Part:
    """What is known of one; all but `tally` in labelled events."""

    name: str
    first: int  # of its heads
    last: int  # after them
    terms: Terms
    trial: int  # that it stays awake, at least
    rest: int  # of its next rest
    awake: bool = True
    since: int = 0  # it woke
    left: int = 0  # of its rest


_STATE = ("trial", "rest", "awake", "since", "left")


class Roster:
    """Who is awake, in fixed memory for given parts."""

    __slots__ = ("_awake", "_heads", "n_drifts", "parts", "tally")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.n_drifts = 0
        self.tally: NDArray[np.float64] = np.zeros((0, 2))  # (m, 2) discounted gain, and events
        self._heads: NDArray[np.int64] = np.zeros((0, 2), np.int64)  # (m, 2) first, last
        self._awake: NDArray[np.bool_] = np.zeros(0, np.bool_)

    def add(self, name: str, first: int, n_heads: int, terms: Terms) -> None:
        """A part of heads `first` and after; its first trial begins."""
        self.parts.append(Part(name, first, first + n_heads, terms, terms.trial, terms.rest))
        self.tally = np.concatenate([self.tally, np.zeros((1, 2))])
        self._take()

    def _take(self) -> None:
        heads = [(part.first, part.last) for part in self.parts]
        self._heads = np.array(heads, np.int64).reshape(-1, 2)
        self._awake = np.array([part.awake for part in self.parts], np.bool_)

    def is_awake(self, name: str) -> bool:
        """Whether a part is to be asked and taught; one that nobody added isn't."""
        return any(part.awake for part in self.parts if part.name == name)

    def is_resting(self, name: str) -> bool:
        """Whether it is a part, and at rest."""
        return any(not part.awake for part in self.parts if part.name == name)

    def learn(
        self,
        scores: NDArray[np.float32],
        mixed: NDArray[np.float64],
        codes: NDArray[np.int32],
        weights: NDArray[np.float64],
        stack: NDArray[np.float64],
        serve: NDArray[np.float64],
    ) -> None:
        """What each part brought to events of classes `codes` (n,), that were served by these."""
        given = scores, mixed, codes, weights, stack, serve
        _tally(*given, self._heads, self._awake, self.tally)

    def review(self, n_events: int, n_drifts: int, *, new_class: bool) -> list[Part]:
        """Who has fallen asleep or woken, after n_events more labelled ones."""
        again, moved = n_drifts != self.n_drifts or new_class, []
        self.n_drifts = n_drifts
        useless: list[tuple[float, int]] = []
        for at, part in enumerate(self.parts):
            part.since += n_events
            part.left -= n_events
            if again:
                part.trial, part.since = part.terms.trial, 0
                part.rest, part.left = part.terms.rest, 0
            if not part.awake and part.left <= 0:
                part.awake, part.since, self.tally[at] = True, 0, 0.0
                moved.append(part)
            elif part.awake and part.since >= part.trial:
                gain, n = self.tally[at].tolist()
                if gain < part.terms.least_gain * n:
                    useless.append((gain / n, at))
                else:
                    part.rest = part.terms.rest
        if useless:  # one at a time: of two that say the same, each seems to bring nothing
            moved.append(self._put_to_rest(min(useless)[1]))
        if moved:
            self._take()
        return moved

    def _put_to_rest(self, at: int) -> Part:
        part = self.parts[at]
        part.awake, part.left = False, part.rest
        part.trial = max(part.terms.audition, int(part.rest * part.terms.share))
        part.rest = min(2 * part.rest, LONGEST_REST)
        for other, tally in zip(self.parts, self.tally, strict=True):
            if other.awake:  # they are judged anew, without it
                other.trial = max(other.trial, other.since + other.terms.audition)
                tally[:] = 0.0
        return part

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, JSON-able."""
        parts = [[getattr(part, name) for name in _STATE] for part in self.parts]
        return {"parts": parts, "tally": self.tally.tolist(), "n_drifts": self.n_drifts}

    def resume(self, meta: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, with the same parts. KeyError, ValueError if not."""
        for part, values in zip(self.parts, meta["parts"], strict=True):
            for name, value in zip(_STATE, values, strict=True):
                setattr(part, name, bool(value) if name == "awake" else int(value))
        self.tally = np.array(meta["tally"], np.float64).reshape(len(self.parts), 2)
        self.n_drifts = int(meta["n_drifts"])
        self._take()


def asked(weights: NDArray[np.float64], stack: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(K,) which heads have a weight in any mixture: of M1 (K,), of M2 and M3 (2, K)."""
    has_weight: NDArray[np.bool_] = (weights != 0.0) | (stack != 0.0).any(axis=0)
    return has_weight


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _tally(
    scores: NDArray[np.float32],
    mixed: NDArray[np.float64],
    codes: NDArray[np.int32],
    weights: NDArray[np.float64],
    stack: NDArray[np.float64],
    serve: NDArray[np.float64],
    heads: NDArray[np.int64],
    awake: NDArray[np.bool_],
    tally: NDArray[np.float64],
) -> None:
    share = np.empty(len(weights))
    for i in range(len(codes)):
        code = codes[i]
        if not (mixed[i, 0, code] > 0.0 and awake.any()):  # 0: a class that nobody knew
            continue
        for k in range(len(weights)):
            share[k] = 0.0
            if weights[k] > 0.0:
                total = 0.0
                for c in range(scores.shape[2]):
                    total += max(np.float64(scores[i, k, c]), CLIP)
                share[k] = weights[k] * max(np.float64(scores[i, k, code]), CLIP) / total
        whole = 0.0
        for j in range(len(serve)):
            whole += serve[j] * mixed[i, j, code]
        for part in range(len(heads)):
            if awake[part]:
                first, last = heads[part]
                others, of = 0.0, 0.0
                for k in range(len(weights)):
                    if k < first or k >= last:
                        others += share[k]
                        of += weights[k]
                without = serve[0] * others / of
                for j in range(stack.shape[0]):
                    told = scores[i, first:last], stack[j, first:last]
                    without += serve[1 + j] * _without(*told, mixed[i, 1 + j], code)
                gain = np.log(max(whole, FLOOR)) - np.log(max(without, FLOOR))
                tally[part, 0] = _KEEP * tally[part, 0] + gain
                tally[part, 1] = _KEEP * tally[part, 1] + 1.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _without(
    scores: NDArray[np.float32], stack: NDArray[np.float64], p: NDArray[np.float64], code: int
) -> float:
    """p (C,) of `code` where softmax was given these heads' v_k s_k, too: what it is without."""
    least = np.inf
    for c in range(len(p)):
        told = 0.0
        for k in range(len(stack)):
            told += stack[k] * scores[k, c]
        least = min(least, told)
    total, of_code = 0.0, 0.0
    for c in range(len(p)):
        told = 0.0
        for k in range(len(stack)):
            told += stack[k] * scores[k, c]
        value = p[c] * np.exp(least - told)
        total += value
        of_code = value if c == code else of_code
    return of_code / total if total > 0.0 else 1.0 / len(p)
