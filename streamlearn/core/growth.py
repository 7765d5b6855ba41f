"""Experts, forest, learning: how a stream's trees grow, within a fixed number of nodes (trees).

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

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.forest import LIKELY, MOST_CLASSES, UNLIKELIEST, Forest
from streamlearn.core.grown import grown
from streamlearn.core.trees import LOOK_EVENTS, MOST_NODES, TESTS, learn_trees

FIRST_NODES = 15  # a young stream's tables are small, and double
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
        learn_trees(*given, *(getattr(self, name) for name in (*_STATE, *_COUNTS)))
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
