"""Experts, roster: which parts of the pool are asked, by what they bring to what is served.

In: a step's scores and classes, drifts. Out: who is awake. A part is a few heads that are worked
out together: the forest, the nearest events, the adapted network. Beside the heads on views they
cost as much again or more, and many a stream gains nothing by one of them. What a part brings is

    log serve - log serve without the part's terms in M1..M3 (the others of M1 renormalised)

of the label, in nats, a mean over recent labelled events. Below LEAST_GAIN the part goes to rest:
it is neither asked nor taught, and its weights in all mixtures are exactly 0, which is all that a
reader needs to know. After a rest it is auditioned, with weights that begin at next to nothing, so
nobody notices but by what it gains; each rest is twice as long as the one before. A drift or a new
class wakes all at once. Only counts decide.

Gain in nats, and the accuracy that the same heads lose when pooled without the part:

    forest   elec2 .104, .012   nyc_flights .004, .002   noaa .0001, -.001   RBF .0002, .000
    nearest  digits .097, .015  watch_imu .046, .004     elec2 -.0004, -.001  noaa -.0003, .000
    network  mnist_5k .003, .001

(steps of 32, nyc_flights 256; one seed): accuracy missed no part that brought less than .001.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.pool import CLIP

WINDOW = 2048.0  # labelled events, of the mean
FIRST_REST, LONGEST_REST = 2048, 32768  # labelled events
FLOOR = 1e-6  # of a probability
_KEEP = 1.0 - 1.0 / WINDOW
_PLAN = ("since", "trial", "rest", "left")  # labelled events: since it woke, that it stays awake at
# least, of its next rest, of this rest that are left


class Terms(NamedTuple):
    """On which a part is kept."""

    least_gain: float  # nats an event
    trial: int  # labelled events before it may rest: at first, after a drift, with a new class
    audition: int  # labelled events after a rest, at least,
    share: float  # and this part of the rest


CHEAP = Terms(0.001, 4096, 1024, 1 / 8)  # .002 and .003 nats lose .001 on nyc_flights
DEAR = Terms(0.005, 2048, 512, 1 / 64)  # costs five times what all the others cost, or more


class Roster:
    """Who is awake, in fixed memory for given parts."""

    __slots__ = ("awake", "heads", "n_drifts", "names", "plan", "tally", "terms")

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.terms: tuple[Terms, ...] = ()
        self.heads: NDArray[np.int64] = np.zeros((0, 2), np.int64)  # (m, 2) first and after last
        self.awake: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (m,)
        self.tally: NDArray[np.float64] = np.zeros((0, 2))  # (m, 2) discounted gain, and events
        self.plan: NDArray[np.int64] = np.zeros((0, len(_PLAN)), np.int64)  # (m, 4)
        self.n_drifts = 0

    def add(self, name: str, first: int, n_heads: int, terms: Terms) -> None:
        """A part of heads `first` and after; its first trial begins."""
        self.names, self.terms = (*self.names, name), (*self.terms, terms)
        self.heads = np.concatenate([self.heads, [[first, first + n_heads]]])
        self.awake = np.append(self.awake, True)
        self.tally = np.concatenate([self.tally, np.zeros((1, 2))])
        self.plan = np.concatenate([self.plan, [[0, terms.trial, FIRST_REST, 0]]])

    def is_awake(self, name: str) -> bool:
        """Whether a part is to be asked and taught; one that nobody added isn't."""
        return name in self.names and bool(self.awake[self.names.index(name)])

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
        _tally(*given, self.heads, self.awake, self.tally)

    def review(self, n_events: int, n_drifts: int, *, new_class: bool) -> tuple[int, ...]:
        """Who is to fall asleep or wake after n_events more labelled ones: parts, by number."""
        self.plan[:, 0] += n_events
        self.plan[~self.awake, 3] -= n_events
        if n_drifts != self.n_drifts or new_class:
            self.n_drifts = n_drifts
            self.plan[:] = [(0, terms.trial, FIRST_REST, 0) for terms in self.terms]
        moved = np.flatnonzero(~self.awake & (self.plan[:, 3] <= 0))
        for at in moved.tolist():
            self._wake(at)
        tried = self.awake & (self.plan[:, 0] >= self.plan[:, 1])
        gain = self.tally[:, 0] / np.maximum(self.tally[:, 1], 1.0)
        useless = tried & (gain < [terms.least_gain for terms in self.terms])
        self.plan[tried & ~useless, 2] = FIRST_REST
        if useless.any():  # one at a time: of two that say the same, each seems to bring nothing
            worst = int(np.where(useless, gain, np.inf).argmin())
            self._rest(worst)
            moved = np.append(moved, worst)
        return tuple(moved.tolist())

    def _wake(self, at: int) -> None:
        self.awake[at], self.plan[at, 0], self.tally[at] = True, 0, 0.0

    def _rest(self, at: int) -> None:
        rest, terms = int(self.plan[at, 2]), self.terms[at]
        self.awake[at] = False
        audition = max(terms.audition, int(rest * terms.share))
        self.plan[at] = 0, audition, min(2 * rest, LONGEST_REST), rest
        for other in np.flatnonzero(self.awake).tolist():  # they are judged anew, without it
            until = int(self.plan[other, 0]) + self.terms[other].audition
            self.plan[other, 1] = max(int(self.plan[other, 1]), until)
            self.tally[other] = 0.0

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, JSON-able."""
        arrays = {name: getattr(self, name).tolist() for name in ("awake", "tally", "plan")}
        return {**arrays, "n_drifts": self.n_drifts}

    def resume(self, meta: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, with the same parts. KeyError, ValueError if not."""
        for name in ("awake", "tally", "plan"):
            like = getattr(self, name)
            array = np.array(meta[name], like.dtype).reshape(len(meta[name]), *like.shape[1:])
            if array.shape != like.shape:
                raise ValueError(f"a roster's {name} is {array.shape}, for parts {self.names}")
            like[...] = array
        self.n_drifts = int(meta["n_drifts"])


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
