"""Experts, forest, learning: how a stream's trees grow, within a fixed number of nodes.

In: features and class codes, in sequence. Out: the `Forest` that the next step
predicts with. Trees are extremely randomised and grown online (Saffari, Leistner, Santner,
Godec, Bischof 2009, On-line random forests, ICCV workshops), each on a resample of the events
(Oza, Russell 2001, Online bagging and boosting, AISTATS):

- a leaf draws TESTS tests, each a random feature and the value that an event had there, and
  counts the classes on both sides of each;
- once the best of them tells SPLIT_NATS about the classes, the leaf splits by it;
- a leaf says (counts + PRIOR * its parent's p) / (events + PRIOR), its last LEAF_EVENTS or so;
- in a full tree a leaf that would split takes the place of two sibling leaves whose split tells
  less, by recent events, so the trees follow the stream for ever.

Only counts decide, and only (key, event, tree) draw.
"""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.forest import (
    LIKELY,
    LOG_STEPS,
    MOST_CLASSES,
    UNLIKELIEST,
    Forest,
    leaf_of,
)
from streamlearn.core.grown import grown

MOST_NODES = 255  # a tree; 127: elec2 at 32 -.002, 511: the same
FIRST_NODES = 15  # a young stream's tables are small, and double
TESTS = 16  # of a leaf; elec2 at 32: 10 lose .006 against 20, 40 gain .001
LOOK_EVENTS = 20  # from one look at a leaf's tests to the next, and a tenth of its events more
SPLIT_NATS = 5.0  # of information on its events' classes; 3 and 8: within .002 on elec2
PRIOR = 2.0  # events; 1 and 5: within .0005
LEAF_EVENTS = 256  # then a leaf's counts are halved,
MOST_TESTED = 1024  # and of its tests
RECENT_EVENTS, RECENT_LEFT = 1024, 0.9  # how recent visits fade: to a half in 7000 events
REPLACE = 0.5  # two leaves go if their split tells less than this part of the new one
_BELOW = np.cumsum(np.exp(-1.0) / np.cumprod([1.0, 1, 2, 3, 4, 5, 6, 7]))  # Poisson of mean 1
_N_LOG_N = np.arange(4096) * np.log(np.maximum(np.arange(4096), 1))

_STATE = ("parent", "slot", "counts", "visits", "look_at", "n_tests", "tests", "values")
_COUNTS = ("totals", "lower", "n_nodes", "n_slots", "least")


class GrowingForest:
    """A forest that learns. Tests are kept for leaves only: a leaf has a slot for its own."""

    def __init__(self, n_trees: int, key: int) -> None:
        self.key = np.uint64(key & (2**64 - 1))
        self.forest = Forest(
            feature=np.full((n_trees, FIRST_NODES), -1, np.int16),
            threshold=np.zeros((n_trees, FIRST_NODES), np.float32),
            child=np.zeros((n_trees, FIRST_NODES), np.int16),
            unlikely=np.zeros((n_trees, FIRST_NODES, 0), np.uint8),
        )
        slots = n_trees, (FIRST_NODES + 1) // 2
        self.parent = np.full((n_trees, FIRST_NODES), -1, np.int16)
        self.slot = np.zeros((n_trees, FIRST_NODES), np.int16)  # of a leaf
        self.counts = np.zeros((n_trees, FIRST_NODES, 0), np.uint16)  # (T, N, C) of a leaf
        self.visits = np.zeros((n_trees, FIRST_NODES), np.float32)  # recent ones, of a leaf
        self.look_at = np.zeros(slots, np.float32)  # (T, S) events
        self.n_tests = np.zeros(slots, np.int16)  # drawn so far
        self.tests = np.zeros((*slots, TESTS), np.int16)  # features
        self.values = np.zeros((*slots, TESTS), np.float32)
        self.totals = np.zeros((*slots, 0), np.uint16)  # (T, S, C) since all tests are drawn
        self.lower = np.zeros((*slots, TESTS, 0), np.uint16)  # of those, at or below the value
        self.n_nodes = np.ones(n_trees, np.int64)
        self.n_slots = np.ones(n_trees, np.int64)
        self.least = np.zeros(n_trees)  # what a search for leaves to replace found last
        self.look_at[:, 0] = LOOK_EVENTS

    def grow(self, positions: NDArray[np.intp], n_classes: int) -> None:
        """More features and classes; `positions` (old F,) say where the old features lie now."""
        forest = self.forest
        if len(positions):
            where = np.concatenate([positions, [-1]]).astype(np.int16)  # -1, a leaf, stays
            forest.feature = where[forest.feature]
            self.tests = where[self.tests]
        more = min(n_classes, MOST_CLASSES) - forest.unlikely.shape[2]
        if more:
            forest.unlikely = grown(forest.unlikely, 0, 0, more, fill=UNLIKELIEST)
            self.counts = grown(self.counts, 0, 0, more)
            self.totals = grown(self.totals, 0, 0, more)
            self.lower = grown(self.lower, 0, 0, 0, more)

    def learn(
        self,
        features: NDArray[np.float32],
        start: int,
        n_features: int,
        codes: NDArray[np.int32],
        event: int,
    ) -> None:
        """Learn features[:, start : start + n_features] of the labelled events from `event` on."""
        forest = self.forest
        given: list[Any] = [features, start, n_features, codes, event, self.key]
        given += [forest.feature, forest.threshold, forest.child, forest.unlikely]
        given += [LIKELY, _BELOW, _N_LOG_N]
        _learn(*given, *(getattr(self, name) for name in (*_STATE, *_COUNTS)))
        n_nodes = forest.feature.shape[1]
        if n_nodes < MOST_NODES and 2 * int(self.n_nodes.max()) > n_nodes:
            self._enlarge(2 * n_nodes + 1)

    def _enlarge(self, n_nodes: int) -> None:
        forest = self.forest
        forest.feature = _longer(forest.feature, n_nodes, -1)
        forest.threshold = _longer(forest.threshold, n_nodes, 0)
        forest.child = _longer(forest.child, n_nodes, 0)
        forest.unlikely = _longer(forest.unlikely, n_nodes, 0)
        for name in _STATE[:4]:
            setattr(self, name, _longer(getattr(self, name), n_nodes, 0))
        for name in (*_STATE[4:], *_COUNTS[:2]):
            setattr(self, name, _longer(getattr(self, name), (n_nodes + 1) // 2, 0))

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything needed to go on; copies."""
        own = {name: getattr(self, name).copy() for name in (*_STATE, *_COUNTS)}
        return self.forest.tensors() | own

    def resume(self, arrays: Mapping[str, NDArray[Any]], n_features: int, n_classes: int) -> None:
        """Go on from what `state` gave. KeyError, ValueError where it doesn't fit."""
        n_trees = len(self.n_nodes)
        self.forest = Forest.of(arrays, n_trees, n_features, n_classes)
        n_nodes = self.forest.feature.shape[1]
        if n_nodes != FIRST_NODES:
            self._enlarge_like(n_nodes)
        known = self.forest.unlikely.shape[2]
        for name in ("counts", "totals", "lower"):
            array = getattr(self, name)
            setattr(self, name, np.zeros((*array.shape[:-1], known), array.dtype))
        for name in (*_STATE, *_COUNTS):
            array, like = arrays[name], getattr(self, name)
            if array.shape != like.shape or array.dtype != like.dtype:
                raise ValueError(f"a forest's {name} is {array.dtype} {array.shape}")
            setattr(self, name, array.copy())

    def _enlarge_like(self, n_nodes: int) -> None:
        kept = self.forest
        self.forest = Forest(kept.feature, kept.threshold, kept.child, kept.unlikely)
        self._enlarge(n_nodes)


def _longer(array: NDArray[Any], size: int, fill: int) -> NDArray[Any]:
    """(T, size, ...) from (T, fewer, ...)."""
    longer = np.full((array.shape[0], size, *array.shape[2:]), fill, array.dtype)
    longer[:, : array.shape[1]] = array
    return longer


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mixed(value: np.uint64) -> np.uint64:
    """64 even bits from 64 bits (splitmix64: Steele, Lea, Flood 2014, OOPSLA)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _copies(bits: np.uint64, below: NDArray[np.float64]) -> int:
    """How often a tree learns an event: Poisson of mean 1, of which `below` is the distribution."""
    even = (bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)
    n = 0
    while n < len(below) and even > below[n]:
        n += 1
    return n


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _n_log_n(n: int, table: NDArray[np.float64]) -> float:
    return float(table[n]) if n < len(table) else float(n * np.log(n))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _least_useful(
    t: int,
    n_nodes: int,
    spared: int,
    feature: NDArray[np.int16],
    child: NDArray[np.int16],
    counts: NDArray[np.uint16],
    visits: NDArray[np.float32],
    table: NDArray[np.float64],
) -> tuple[int, float]:
    """The inner node above two leaves whose split tells least by recent visits, and how much."""
    worst, least = -1, np.inf
    for node in range(n_nodes):
        a = child[t, node]
        b = a + 1
        if feature[t, node] < 0 or feature[t, a] >= 0 or feature[t, b] >= 0:
            continue
        if a <= spared <= b:
            continue
        n_a, n_b, gain = 0, 0, 0.0
        for c in range(counts.shape[2]):
            in_a, in_b = int(counts[t, a, c]), int(counts[t, b, c])
            n_a += in_a
            n_b += in_b
            gain += _n_log_n(in_a, table) + _n_log_n(in_b, table)
            gain -= _n_log_n(in_a + in_b, table)
        gain += _n_log_n(n_a + n_b, table) - _n_log_n(n_a, table) - _n_log_n(n_b, table)
        told = gain / max(n_a + n_b, 1) * (visits[t, a] + visits[t, b])
        if told < least:
            worst, least = node, told
    return worst, least


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _best_test(
    t: int,
    s: int,
    totals: NDArray[np.uint16],
    lower: NDArray[np.uint16],
    table: NDArray[np.float64],
) -> tuple[int, float]:
    """The test of slot s that tells most about the classes, and how many nats."""
    best, most = -1, 0.0
    whole, n = 0.0, 0
    for c in range(totals.shape[2]):
        n += int(totals[t, s, c])
        whole += _n_log_n(int(totals[t, s, c]), table)
    whole -= _n_log_n(n, table)
    for k in range(TESTS):
        n_low, gain = 0, -whole
        for c in range(totals.shape[2]):
            low = int(lower[t, s, k, c])
            n_low += low
            gain += _n_log_n(low, table) + _n_log_n(int(totals[t, s, c]) - low, table)
        gain -= _n_log_n(n_low, table) + _n_log_n(n - n_low, table)
        if gain > most and 0 < n_low < n:
            best, most = k, gain
    return best, most


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _learn(
    features: NDArray[np.float32],
    start: int,
    n_features: int,
    codes: NDArray[np.int32],
    event: int,
    key: np.uint64,
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    child: NDArray[np.int16],
    unlikely: NDArray[np.uint8],
    likely: NDArray[np.float64],
    below: NDArray[np.float64],
    table: NDArray[np.float64],
    parent: NDArray[np.int16],
    slot: NDArray[np.int16],
    counts: NDArray[np.uint16],
    visits: NDArray[np.float32],
    look_at: NDArray[np.float32],
    n_tests: NDArray[np.int16],
    tests: NDArray[np.int16],
    values: NDArray[np.float32],
    totals: NDArray[np.uint16],
    lower: NDArray[np.uint16],
    n_nodes: NDArray[np.int64],
    n_slots: NDArray[np.int64],
    least: NDArray[np.float64],
) -> None:
    n_classes, room = counts.shape[2], feature.shape[1]
    for t in range(len(feature)):
        for i in range(len(codes)):
            if (event + i) % RECENT_EVENTS == 0:
                least[t] = 0.0
                for node in range(n_nodes[t]):
                    visits[t, node] *= np.float32(RECENT_LEFT)
            bits = _mixed(key ^ _mixed(np.uint64((event + i) * 256 + t)))
            copies, code = _copies(bits, below), codes[i]
            if copies == 0 or code >= n_classes:
                continue
            row = features[i]
            leaf = leaf_of(t, row, start, feature, threshold, child)
            visits[t, leaf] += copies
            _count(t, leaf, code, copies, counts)
            _say(t, leaf, counts, parent, unlikely, likely)
            s = slot[t, leaf]
            if n_tests[t, s] < TESTS:
                drawn = np.int64(_mixed(bits) % np.uint64(n_features))
                tests[t, s, n_tests[t, s]] = drawn
                values[t, s, n_tests[t, s]] = row[start + drawn]
                n_tests[t, s] += 1
                continue
            totals[t, s, code] += copies
            for k in range(TESTS):
                below_it = row[np.uint64(start + tests[t, s, k])] <= values[t, s, k]
                lower[t, s, k, code] += copies if below_it else 0
            n = 0
            for c in range(n_classes):
                n += totals[t, s, c]
            if n < look_at[t, s]:
                continue
            look_at[t, s] = n * np.float32(1.1) + LOOK_EVENTS
            best, told = _best_test(t, s, totals, lower, table)
            if told > SPLIT_NATS:
                first, free = -1, -1
                if n_nodes[t] + 2 <= room:
                    first, free = n_nodes[t], n_slots[t]
                    n_nodes[t] += 2
                    n_slots[t] += 1
                elif room == MOST_NODES and REPLACE * told / n * visits[t, leaf] > least[t]:
                    worst, least[t] = _least_useful(
                        t, n_nodes[t], leaf, feature, child, counts, visits, table
                    )
                    if REPLACE * told / n * visits[t, leaf] > least[t]:
                        first = child[t, worst]
                        free = slot[t, first + 1]
                        _join(t, worst, feature, child, counts, visits, slot)
                        _say(t, worst, counts, parent, unlikely, likely)
                        _begin(t, slot[t, worst], look_at, n_tests, totals, lower)
                if first >= 0:
                    feature[t, leaf], threshold[t, leaf] = tests[t, s, best], values[t, s, best]
                    child[t, leaf] = first
                    for side in range(2):
                        node, n_side = first + side, 0
                        for c in range(n_classes):
                            low = lower[t, s, best, c]
                            counts[t, node, c] = low if side == 0 else totals[t, s, c] - low
                            n_side += counts[t, node, c]
                        parent[t, node], feature[t, node] = leaf, -1
                        visits[t, node] = visits[t, leaf] * n_side / n
                        _say(t, node, counts, parent, unlikely, likely)
                    slot[t, first], slot[t, first + 1] = s, free
                    _begin(t, s, look_at, n_tests, totals, lower)
                    _begin(t, free, look_at, n_tests, totals, lower)
                    continue
            if n >= MOST_TESTED:
                _halve_tests(t, s, look_at, totals, lower)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _say(
    t: int,
    node: int,
    counts: NDArray[np.uint16],
    parent: NDArray[np.int16],
    unlikely: NDArray[np.uint8],
    likely: NDArray[np.float64],
) -> None:
    """Write what a leaf says."""
    n_classes = counts.shape[2]
    total = PRIOR
    for c in range(n_classes):
        total += counts[t, node, c]
    above = parent[t, node]
    log_total = np.log(total)
    for c in range(n_classes):
        prior = 1.0 / n_classes if above < 0 else likely[unlikely[t, above, c]]
        steps = np.rint((log_total - np.log(counts[t, node, c] + PRIOR * prior)) * LOG_STEPS)
        unlikely[t, node, c] = np.uint8(min(max(steps, 0.0), 255.0))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _count(t: int, leaf: int, code: int, copies: int, counts: NDArray[np.uint16]) -> None:
    """Count an event in a leaf; of its older ones half are forgotten, now and then."""
    counts[t, leaf, code] += copies
    n = 0
    for c in range(counts.shape[2]):
        n += counts[t, leaf, c]
    if n >= LEAF_EVENTS:
        for c in range(counts.shape[2]):
            counts[t, leaf, c] = counts[t, leaf, c] >> 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _join(
    t: int,
    node: int,
    feature: NDArray[np.int16],
    child: NDArray[np.int16],
    counts: NDArray[np.uint16],
    visits: NDArray[np.float32],
    slot: NDArray[np.int16],
) -> None:
    """An inner node above two leaves becomes a leaf, in the first one's slot."""
    first = child[t, node]
    feature[t, node] = -1
    visits[t, node] = visits[t, first] + visits[t, first + 1]
    for c in range(counts.shape[2]):
        counts[t, node, c] = counts[t, first, c] + counts[t, first + 1, c]
    slot[t, node] = slot[t, first]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _halve_tests(
    t: int,
    s: int,
    look_at: NDArray[np.float32],
    totals: NDArray[np.uint16],
    lower: NDArray[np.uint16],
) -> None:
    look_at[t, s] *= np.float32(0.5)
    for c in range(totals.shape[2]):
        totals[t, s, c] = totals[t, s, c] >> 1
        for k in range(TESTS):
            lower[t, s, k, c] = lower[t, s, k, c] >> 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _begin(
    t: int,
    s: int,
    look_at: NDArray[np.float32],
    n_tests: NDArray[np.int16],
    totals: NDArray[np.uint16],
    lower: NDArray[np.uint16],
) -> None:
    """A leaf's tests are to be drawn anew."""
    look_at[t, s] = LOOK_EVENTS
    n_tests[t, s] = 0
    totals[t, s, :] = 0
    lower[t, s, :, :] = 0
