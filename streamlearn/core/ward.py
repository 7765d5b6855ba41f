"""Stage 6, Ward: the loop that offers events to micro-clusters, one after the other.

In: a step's rows and the arrays of slots, which change in place. Unlike `microclusters`, which
grows, copies and shows them, this knows nothing but slots: `capacity` in a row are one class's.
Cost is Ward's (1963, JASA 58): the squared error that merging two centres adds.
"""

import numba
import numpy as np
from numpy.typing import NDArray

NEARER = 1 - 1e-9  # by less than rounding, two events are as near as each other: the older stays
FREE, FAR, CLOSER = 0, 1, 2  # why an event became its slot's member: microclusters.Why


# sums may be taken in any order, several columns at once, the same way on each call
@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _distance(a: NDArray[np.float64], b: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    """Squared, in units of spread; a column that either lacks adds nothing."""
    total = 0.0
    for j in range(len(scale)):
        difference = (a[j] - b[j]) * scale[j]
        total += difference * difference if difference == difference else 0.0
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _gap(
    member: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> float:
    """How far a member is from its centre; what it lacks counts as a spread off.

    Else an event without a value would be nearest to every centre, and stand for all.
    """
    lacking = 0.0
    for j in range(len(scale)):
        if member[j] != member[j] and centre[j] == centre[j] and scale[j] > 0.0:
            lacking += 1.0
    return _distance(member, centre, scale) + lacking


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _costs_of(
    slot: int,
    first: int,
    stop: int,
    centres: NDArray[np.float64],
    counts: NDArray[np.int64],
    scale: NDArray[np.float64],
    costs: NDArray[np.float64],
) -> None:
    """What merging `slot` with each other of first..stop costs, infinite for free ones."""
    for other in range(first, stop):
        cost = np.inf
        if other != slot and counts[slot] and counts[other]:
            n = counts[slot] * counts[other] / (counts[slot] + counts[other])
            low, high = min(slot, other), max(slot, other)
            cost = n * _distance(centres[low], centres[high], scale)
        costs[slot, other - first] = cost
        costs[other, slot - first] = cost


@numba.njit(cache=True, nogil=True, error_model="numpy")
def all_costs(
    centres: NDArray[np.float64],
    counts: NDArray[np.int64],
    scale: NDArray[np.float64],
    costs: NDArray[np.float64],
) -> None:
    """Every slot's costs, anew."""
    capacity = costs.shape[1]
    for slot in range(len(counts)):
        first = slot // capacity * capacity
        _costs_of(slot, first, first + capacity, centres, counts, scale, costs)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _merge(
    keep: int,
    other: int,
    centres: NDArray[np.float64],
    counts: NDArray[np.int64],
    errors: NDArray[np.float64],
) -> None:
    """`keep` becomes the mean of both; a column that one lacks is the other's."""
    n = counts[keep] + counts[other]
    for j in range(centres.shape[1]):
        a, b = centres[keep, j], centres[other, j]
        errors[keep, j] += errors[other, j]
        if a != a:
            centres[keep, j] = b
        elif b == b:
            centres[keep, j] = a + (b - a) * (counts[other] / n)
            errors[keep, j] += counts[keep] * (counts[other] / n) * (b - a) ** 2
    counts[keep] = n


@numba.njit(cache=True, nogil=True, error_model="numpy")
def offer(
    rows: NDArray[np.float64],
    codes: NDArray[np.int32],
    event: NDArray[np.int64],
    event_time_s: NDArray[np.float64],
    scale: NDArray[np.float64],
    capacity: int,
    costs: NDArray[np.float64],
    n_seen: NDArray[np.int64],
    centres: NDArray[np.float64],
    counts: NDArray[np.int64],
    errors: NDArray[np.float64],
    members: NDArray[np.float64],
    member_event: NDArray[np.int64],
    member_time_s: NDArray[np.float64],
    why: NDArray[np.int8],
    replayed: NDArray[np.int64],
    slots: NDArray[np.int64],
) -> None:
    """One pass over a step, in place; `slots` (n,) gets where each event became a member."""
    for i in range(len(codes)):
        if codes[i] < 0:
            continue
        n_seen[codes[i]] += 1
        first = codes[i] * capacity
        stop = first + capacity
        nearest, free = -1, -1
        least = np.inf
        for slot in range(first, stop):
            if counts[slot] == 0:
                free = slot if free < 0 else free
                continue
            distance = _distance(rows[i], centres[slot], scale)
            if nearest < 0 or distance < least:
                nearest, least = slot, distance
        reason = -1
        slot = free
        if free >= 0:
            reason = FREE
        else:
            p, q = first, first
            cheapest = np.inf
            for a in range(first, stop):
                for b in range(a + 1, stop):
                    if costs[a, b - first] < cheapest:
                        p, q, cheapest = a, b, costs[a, b - first]
            if counts[nearest] / (counts[nearest] + 1) * least > cheapest:
                reason = FAR
                slot = _merged(p, q, centres, counts, errors, members, scale)
                _costs_of(p + q - slot, first, stop, centres, counts, scale, costs)
        if reason >= 0:
            counts[slot] = 1
            errors[slot, :] = 0.0
            centres[slot] = rows[i]
        else:
            slot = nearest
            counts[slot] += 1
            for j in range(len(scale)):
                before = rows[i, j] - centres[slot, j]
                if centres[slot, j] != centres[slot, j]:
                    centres[slot, j] = rows[i, j]
                elif before == before:
                    centres[slot, j] += before / counts[slot]
                    errors[slot, j] += before * (rows[i, j] - centres[slot, j])
            least = _gap(members[slot], centres[slot], scale)
            if _gap(rows[i], centres[slot], scale) < NEARER * least:
                reason = CLOSER
        _costs_of(slot, first, stop, centres, counts, scale, costs)
        if reason >= 0:
            members[slot] = rows[i]
            member_event[slot] = event[i]
            member_time_s[slot] = event_time_s[i]
            why[slot] = reason
            replayed[slot] = 0
            slots[i] = slot


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _merged(
    p: int,
    q: int,
    centres: NDArray[np.float64],
    counts: NDArray[np.int64],
    errors: NDArray[np.float64],
    members: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> int:
    """Merge p and q where the nearer member lies; returns the slot set free."""
    _merge(p, q, centres, counts, errors)
    least = _gap(members[p], centres[p], scale)
    if _gap(members[q], centres[p], scale) < NEARER * least:
        centres[q] = centres[p]
        counts[q] = counts[p]
        errors[q] = errors[p]
        counts[p] = 0
        return p
    counts[q] = 0
    return q
