"""Experts, forest, trees: a tree's leaves count, test and split, within its table.

In: features and class codes, in sequence, and the tables of a `GrowingForest`, where the rules are
told. Out: the same tables, changed in place.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.forest import LOG_STEPS, leaf_of

MOST_NODES = 255  # a tree; 127: elec2 at 32 -.002, 511: the same
TESTS = 16  # of a leaf; elec2 at 32: 10 lose .006 against 20, 40 gain .001
LOOK_EVENTS = 20  # from one look at a leaf's tests to the next, and a tenth of its events more
SPLIT_NATS = 5.0  # of information on its events' classes; 3 and 8: within .002 on elec2
PRIOR = 2.0  # events; 1 and 5: within .0005
LEAF_EVENTS = 256  # then a leaf's counts are halved,
MOST_TESTED = 1024  # and of its tests
RECENT_EVENTS, RECENT_LEFT = 1024, 0.9  # how recent visits fade: to a half in 7000 events
REPLACE = 0.5  # two leaves go if their split tells less than this part of the new one


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
def learn_trees(
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
    """All trees learn the labelled events (n,) from the stream's count `event` on."""
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
