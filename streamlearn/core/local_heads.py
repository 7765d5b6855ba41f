"""Experts, local: the forest and the nearest events, as heads of the pool.

In: features. Out: two heads' scores for each of the two, after the heads on views:

    forest, neighbours            probabilities, for the mixture of probabilities
    forest/log, neighbours/log    log p / 2, above -8 / 2, for the mixtures whose scores add up

They see what no sum of features does: thresholds behind thresholds, and small clouds. What they
cost follows from counts of events, inputs and classes alone, and is bounded by settings. Where one
brings nothing it rests (core/roster.py): its heads say 0, and it isn't in the stream's model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.features import Layout
from streamlearn.core.forest import Forest
from streamlearn.core.growth import GrowingForest
from streamlearn.core.neighbours import MOST_INPUTS, Neighbours, ring_size
from streamlearn.core.roster import Roster
from streamlearn.core.settings import LearnerSettings

FIRST_STACK = (0.0, 0.5)  # of a pair of heads in the mixtures whose scores add up
LOG_FLOOR, LOG_SCALE = -8.0, 0.5


def local_parts(n_trees: int, n_neighbours: int) -> tuple[str, ...]:
    """Which of the two there are: what has no size isn't."""
    sizes = {"forest": n_trees, "neighbours": n_neighbours}
    return tuple(name for name, size in sizes.items() if size)


def local_heads(n_trees: int, n_neighbours: int) -> tuple[str, ...]:
    """Names of the heads, two of each part."""
    parts = local_parts(n_trees, n_neighbours)
    return tuple(head for name in parts for head in (name, f"{name}/log"))


@dataclass(frozen=True, slots=True, eq=False)
class LocalReader:
    """What prediction needs of them, in the order of their heads; None where one is at rest."""

    parts: tuple[Forest | Neighbours | None, ...]

    def write(
        self, features: NDArray[np.float32], layout: Layout, scores: NDArray[np.float32], at: int
    ) -> None:
        """Fill the heads from `at` on of scores (n, K, C), which are 0."""
        n_classes = scores.shape[2]
        for part in self.parts:
            if part is not None and layout.n_inputs:
                p = part.predict(features, layout.z.start, n_classes)
                scores[:, at] = p
                scores[:, at + 1] = LOG_SCALE * np.maximum(np.log(p), LOG_FLOOR)
            elif part is not None:  # texts alone, say: nothing to see, no opinion
                scores[:, at] = 1.0 / n_classes
                scores[:, at + 1] = -LOG_SCALE * np.log(n_classes)
            at += 2

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, NDArray[Any]],
        layout: Layout,
        n_classes: int,
        n_trees: int,
        n_neighbours: int,
        awake: NDArray[np.bool_],
    ) -> "LocalReader":
        """From a model's tensors; `awake` (parts,). KeyError, ValueError where they don't fit."""
        parts: list[Forest | Neighbours | None] = []
        for name, is_awake in zip(local_parts(n_trees, n_neighbours), awake, strict=True):
            if not (is_awake and n_classes):
                parts.append(None)
            elif name == "forest":
                parts.append(Forest.of(tensors, n_trees, n_features(layout), n_classes))
            else:
                parts.append(Neighbours.restore(tensors, n_compared(layout), n_classes))
        return cls(tuple(parts))


class LocalHeads:
    """A stream's forest and nearest events, learning."""

    def __init__(self, settings: LearnerSettings, key: int) -> None:
        """`key` stands for (seed, stream): what trees draw follows from it."""
        self.names = local_heads(settings.trees, settings.neighbours)
        self.parts = local_parts(settings.trees, settings.neighbours)
        self.forest = GrowingForest(settings.trees, key) if settings.trees else None
        self.neighbours: Neighbours | None = None
        self._most = settings.neighbours
        if settings.neighbours:
            nothing = np.zeros((0, 0), np.int8), np.zeros(0, np.int32)
            self.neighbours = Neighbours.of(*nothing).resized(0, ring_size(self._most, 0, 0), 0)

    def reader(self, roster: Roster) -> LocalReader:
        """Its arrays are the learner's own, and change in place."""
        own = {
            "forest": None if self.forest is None else self.forest.forest,
            "neighbours": self.neighbours,
        }
        return LocalReader(
            tuple(own[name] if roster.is_awake(name) else None for name in self.parts)
        )

    def grow(self, old: Layout, layout: Layout, n_classes: int, n_events: int) -> None:
        """Room for more inputs and classes, after n_events labelled ones."""
        if self.forest is not None:
            positions = old.positions_in(layout)[old.z.start : old.b_start] - layout.z.start
            self.forest.grow(positions, n_classes)
        self._fit_ring(layout, n_events, n_events)

    def _fit_ring(self, layout: Layout, n_events: int, n_coming: int) -> None:
        if self.neighbours is not None:
            d = n_compared(layout)
            size = ring_size(self._most, n_coming, d)
            if (size, d) != self.neighbours.rows.shape:
                self.neighbours = self.neighbours.resized(n_events, size, d)

    def learn(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        codes: NDArray[np.int32],
        n: int,
        roster: Roster,
    ) -> None:
        """Learn events of classes `codes`, the first of which is the stream's labelled event n.

        At rest trees don't grow. Events take their places in the ring all the same: that is
        cheap, and without them the nearest would wake among strangers.
        """
        start = layout.z.start
        if not layout.n_inputs:
            return
        if self.forest is not None and roster.is_awake("forest"):
            self.forest.learn(features, start, n_features(layout), codes, n)
        if self.neighbours is not None:
            self._fit_ring(layout, n, n + len(codes))
            self.neighbours.learn(features, start, codes, n)

    def widen(self, scores: NDArray[np.float32], at: int, n_known: int) -> None:
        """A step's scores (n, K, C) say of new classes: as unlikely as the least likely one."""
        if n_known:
            for head in range(at + 1, at + len(self.names), 2):
                scores[:, head, n_known:] = scores[:, head, :n_known].min(axis=1, keepdims=True)

    def tensors(self, roster: Roster) -> dict[str, NDArray[Any]]:
        """Copies, for a model, of those that are awake."""
        tensors: dict[str, NDArray[Any]] = {}
        for part in self.reader(roster).parts:
            tensors |= {} if part is None else part.tensors()
        return tensors

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything needed to go on; copies."""
        forest = {} if self.forest is None else self.forest.state()
        return forest | ({} if self.neighbours is None else self.neighbours.tensors())

    def resume(self, arrays: Mapping[str, NDArray[Any]], layout: Layout, n_classes: int) -> None:
        """Go on from what `state` gave. KeyError, ValueError where it doesn't fit."""
        if self.forest is not None:
            self.forest.resume(arrays, n_features(layout), n_classes)
        if self.neighbours is not None:
            self.neighbours = Neighbours.restore(arrays, n_compared(layout), n_classes)


def n_features(layout: Layout) -> int:
    """That trees look at: z, what is new in it, recent labels."""
    return layout.n_linear - 1


def n_compared(layout: Layout) -> int:
    """Inputs by which events are near each other."""
    return min(layout.n_inputs, MOST_INPUTS)
