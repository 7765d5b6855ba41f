"""Experts, forest: what a stream's trees serve, and how a reader predicts with them.

In: features. Out: probabilities (n, C), the mean of the trees' leaves. The linear heads see sums
of features, the random ones smooth bends; a tree sees thresholds, and what holds only behind one.
Growing is core/growth.py's.

A tree is a table of nodes, the root first. A node's children lie side by side, and a leaf says
how unlikely each class is, in whole steps of log p: most leaves that an event changes by little
serve what they did, so an update carries few rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

LOG_STEPS = 32.0  # a step of served -log p; the last one, 255, is p = .0003
LIKELY = np.exp(-np.arange(256) / LOG_STEPS)  # (256,) p of a served step
UNLIKELIEST = 255
MOST_CLASSES = 32  # that trees know, first come; of the others they have no opinion


@dataclass(slots=True, eq=False)
class Forest:
    """T trees of up to N nodes; a reader's own, or the learner's, which change in place."""

    feature: NDArray[np.int16]  # (T, N) what an inner node looks at; -1: a leaf
    threshold: NDArray[np.float32]  # (T, N) above it an event goes to the second child
    child: NDArray[np.int16]  # (T, N) the first child
    unlikely: NDArray[np.uint8]  # (T, N, c) -log p in steps of 1 / LOG_STEPS, of known classes

    def predict(
        self, features: NDArray[np.float32], start: int, n_classes: int
    ) -> NDArray[np.float64]:
        """(n, C) probabilities; the trees count features from `start`."""
        out = np.zeros((len(features), n_classes))
        tree = self.feature, self.threshold, self.child, self.unlikely
        _predict(features, start, *tree, LIKELY, out)
        return out

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Copies, a row a node, for a model."""
        rows = self.feature.size
        return {
            "forest/feature": self.feature.reshape(rows).copy(),
            "forest/threshold": self.threshold.reshape(rows).copy(),
            "forest/child": self.child.reshape(rows).copy(),
            "forest/unlikely": self.unlikely.reshape(rows, -1).copy(),
        }

    @classmethod
    def of(
        cls, tensors: Mapping[str, NDArray[Any]], n_trees: int, n_features: int, n_classes: int
    ) -> "Forest":
        """From what `tensors` gave. ValueError where a reader would leave the table."""
        feature, threshold = tensors["forest/feature"], tensors["forest/threshold"]
        child, unlikely = tensors["forest/child"], tensors["forest/unlikely"]
        known = min(n_classes, MOST_CLASSES)
        n_nodes = len(feature) // n_trees
        for array, dtype, more in (
            (feature, np.int16, ()),
            (threshold, np.float32, ()),
            (child, np.int16, ()),
            (unlikely, np.uint8, (known,)),
        ):
            if array.dtype != dtype or array.shape != (n_trees * n_nodes, *more) or not n_nodes:
                raise ValueError(f"a forest's {array.dtype} {array.shape} for {n_trees} trees")
        inner = feature >= 0
        if (feature[inner] >= n_features).any():
            raise ValueError(f"a forest looks at feature {feature.max()} of {n_features}")
        if ((child[inner] < 1) | (child[inner] > n_nodes - 2)).any():
            raise ValueError("a forest's children lie outside its table")
        size = n_trees, n_nodes
        return cls(
            feature.reshape(size).copy(),
            threshold.reshape(size).copy(),
            child.reshape(size).copy(),
            unlikely.reshape(*size, known).copy(),
        )


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def leaf_of(
    t: int,
    row: NDArray[np.float32],
    start: int,
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    child: NDArray[np.int16],
) -> int:
    """Where an event ends up in tree t; a table that leads in circles is left in the end."""
    node = np.uint64(0)
    for _ in range(feature.shape[1]):
        column = feature[t, node]
        if column < 0:
            break
        above = row[np.uint64(start + column)] > threshold[t, node]
        node = np.uint64(child[t, node]) + (np.uint64(1) if above else np.uint64(0))
    return node  # type: ignore[return-value]  # unsigned, so that no index is looked at twice


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _predict(
    features: NDArray[np.float32],
    start: int,
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    child: NDArray[np.int16],
    unlikely: NDArray[np.uint8],
    likely: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    n, n_classes = out.shape
    known = unlikely.shape[2]
    for t in range(len(feature)):
        for i in range(n):
            leaf = leaf_of(t, features[i], start, feature, threshold, child)
            for c in range(known):
                out[i, c] += likely[unlikely[t, leaf, c]]
    for i in range(n):
        total = 0.0
        for c in range(known):
            total += out[i, c]
        total *= n_classes / known
        for c in range(n_classes):
            out[i, c] = out[i, c] / total if c < known else 1.0 / n_classes
