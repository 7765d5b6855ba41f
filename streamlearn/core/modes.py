"""Stage 6, modes: how many groups a class has, and which representatives are none of it.

In: micro-clusters' centres with counts. Out: the mode of each centre, and a verdict. Unlike
micro-clusters, which cover a class evenly, this finds what is dense and apart: HDBSCAN (Campello,
Moulavi, Sander 2013, PAKDD) in two stages, the stream's events into centres (online), then the
centres by their counts (here). A pure function of what is kept, off the hot path.

A centre stands for its events: it enters HDBSCAN as copies of itself, as many as its share of
POINTS. Two centres are as far apart as their distance is over the sum of their events' standard
deviations in that direction, whatever the number of columns (cells that tile an even density:
1.7; two separate normal distributions: over 3). Closer than GAP, and than WIDER times what is
usual between neighbours of the class, nothing is told apart: columns that vary together make all
of a class's cells look apart.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import HDBSCAN

from streamlearn.core.contradiction import contradicted, filled
from streamlearn.core.reservoir import Kept

POINTS = 200  # that a class's centres are copied to
SHARE = 0.05  # of a class's events that make a mode
GAP = 2.5
WIDER = 1.5
STRAY = 2.0  # times the gap from every mode, and
LIGHT = 0.02  # of a class's events at most: noise, or something new
POOLED = 4.0  # events' weight of the class's mean variance in each centre's own


class Verdict(IntEnum):
    """What a centre is to its class."""

    TYPICAL = 0
    STRAY = 1  # far from every mode of its class, and light: noise, or something new
    CONTRADICTED = 2  # among another class's events: its labels are probably wrong


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """Of k centres, in the order of `Kept`."""

    mode: NDArray[np.int32]  # (k,) within its class, largest 0; -1 for what is not typical
    verdict: NDArray[np.int8]  # (k,) Verdict
    n_modes: NDArray[np.int32]  # (C,)


def find_modes(
    kept: Kept,
    variances: NDArray[np.float64],
    scale: NDArray[np.float64] | None = None,
    *,
    overlap: bool = False,
) -> Modes:
    """The modes of each class of `kept`, whose centres' events vary by `variances` (k, d).

    `scale` (d,) is 1 / spread of each column (None: all 1). A missing number counts as its
    class's mean. `overlap`: classes do, so none contradicts another. Cost: k^2 d for k centres
    in all.
    """
    n_classes = int(kept.codes.max(initial=-1)) + 1
    mode = np.full(len(kept.codes), -1, np.int32)
    verdict = np.full(len(kept.codes), Verdict.TYPICAL, np.int8)
    n_modes = np.zeros(n_classes, np.int32)
    if n_classes == 0:
        return Modes(mode, verdict, n_modes)
    scale = np.ones(kept.rows.shape[1]) if scale is None else scale
    points = filled(kept) * scale
    if not overlap:
        verdict[contradicted(points, kept)] = Verdict.CONTRADICTED
    for code in range(n_classes):
        own = np.flatnonzero((kept.codes == code) & (verdict == Verdict.TYPICAL))
        if len(own):
            share = kept.weights[own] / kept.weights[own].sum()
            labels = _class_modes(
                _separation(points[own], variances[own] * scale**2, kept.weights[own]), share
            )
            mode[own] = labels
            verdict[own[labels < 0]] = Verdict.STRAY
            n_modes[code] = labels.max(initial=-1) + 1
    return Modes(mode, verdict, n_modes)


def _separation(
    points: NDArray[np.float64], variances: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(k, k) distance over the sum of standard deviations in its direction.

    Means of few events in many columns lie apart by chance: that much is taken off the distance.
    """
    pooled = np.average(variances, axis=0, weights=counts)
    weight = (counts / (counts + POOLED))[:, None]
    variances = weight * variances + (1 - weight) * pooled
    separation = np.zeros((len(points), len(points)))
    for i in range(len(points)):
        squares = (points - points[i]) ** 2
        length = squares.sum(axis=1)
        along = np.sqrt(squares @ variances[i]) + np.sqrt((squares * variances).sum(axis=1))
        chance = pooled.sum() * (1 / counts + 1 / counts[i])
        beyond = np.sqrt(np.maximum(length - chance, 0.0) * length)
        # where neither varies in that direction, any distance is large
        separation[i] = np.divide(
            beyond, np.maximum(along, 1e-9 * length), out=np.zeros(len(points)), where=length > 0
        )
    return separation


def _class_modes(separation: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.int32]:
    """(k,) mode of each centre of one class, largest first; -1: stray."""
    copies = np.maximum(1, np.rint(share * POINTS)).astype(np.int64)
    least = max(2, round(SHARE * int(copies.sum())))
    if len(share) == 1 or int(copies.sum()) <= least:
        return np.zeros(len(share), np.int32)
    of = np.repeat(np.arange(len(share)), copies)
    nearest = (separation + np.diag(np.full(len(share), np.inf))).min(axis=1)
    gap = max(GAP, WIDER * float(np.quantile(nearest, 0.25)))
    points = np.maximum(separation, gap)[of][:, of]
    np.fill_diagonal(points, 0.0)
    found = HDBSCAN(
        min_cluster_size=least,
        min_samples=1,
        metric="precomputed",
        cluster_selection_method="leaf",  # "eom" favours one cluster of all
        allow_single_cluster=True,
        copy=True,
    ).fit(points)
    labels = found.labels_[np.cumsum(copies) - copies].astype(np.int32)
    if labels.max() < 0:  # one mode: all that hangs together with most of the class
        _, part = connected_components(separation <= gap)
        labels = np.where(part == np.bincount(part, share).argmax(), 0, -1).astype(np.int32)
    inside = np.flatnonzero(labels >= 0)
    for i in np.flatnonzero(labels < 0):  # a mode's fringe, or too few to be one
        closest = inside[separation[i, inside].argmin()]
        if share[i] > LIGHT or separation[i, closest] <= STRAY * gap:
            labels[i] = labels[closest]
    return _largest_first(labels, share)


def _largest_first(labels: NDArray[np.int32], share: NDArray[np.float64]) -> NDArray[np.int32]:
    inside = labels >= 0
    size = np.bincount(labels[inside], share[inside])
    rank = np.empty(len(size), np.int32)
    rank[np.argsort(-size, kind="stable")] = np.arange(len(size))
    return np.where(inside, rank[labels], -1).astype(np.int32)
