"""The forest against trees of plain objects, and what it is for: thresholds behind thresholds."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.forest import LOG_STEPS, MOST_CLASSES, Forest
from streamlearn.core.growth import GrowingForest
from streamlearn.core.trees import (
    LEAF_EVENTS,
    LOOK_EVENTS,
    MOST_NODES,
    PRIOR,
    SPLIT_NATS,
    TESTS,
)

START, FEATURES, CLASSES = 2, 5, 3  # features lie behind START others
MASK = 2**64 - 1


def mixed(value: int) -> int:
    """splitmix64."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def poisson(bits: int) -> int:
    even, n, part = (bits >> 11) / 2**53, 0, math.exp(-1)
    below = part
    while even > below and n < 8:
        n += 1
        part /= n
        below += part
    return n


def nats(counts: NDArray[np.int64]) -> float:
    """Entropy of the counted events' classes, all together."""
    n = counts.sum()
    return float(sum(k * math.log(n / k) for k in counts if k))


@dataclass
class Node:
    """A tree, plainly."""

    prior: NDArray[np.float64]
    counts: NDArray[np.int64]
    tests: list[tuple[int, np.float32]] = field(default_factory=list)
    seen: list[tuple[NDArray[np.float32], int]] = field(default_factory=list)  # once tests are
    look_at: float = LOOK_EVENTS
    split: tuple[int, np.float32] | None = None
    children: tuple["Node", ...] = ()

    def leaf(self, x: NDArray[np.float32]) -> "Node":
        if self.split is None:
            return self
        return self.children[int(x[self.split[0]] > self.split[1])].leaf(x)

    def says(self) -> NDArray[np.float64]:
        p = (self.counts + PRIOR * self.prior) / (self.counts.sum() + PRIOR)
        return np.exp(-np.minimum(np.rint(-np.log(p) * LOG_STEPS), 255) / LOG_STEPS)

    def learn(self, x: NDArray[np.float32], code: int, bits: int) -> None:
        if not (copies := poisson(bits)):
            return
        self.counts[code] += copies
        if len(self.tests) < TESTS:
            drawn = mixed(bits) % FEATURES
            self.tests.append((drawn, x[drawn]))
            return
        self.seen += [(x, code)] * copies
        if len(self.seen) < self.look_at:
            return
        self.look_at = len(self.seen) * 1.1 + LOOK_EVENTS
        codes = np.array([code for _, code in self.seen])
        whole = np.bincount(codes, minlength=CLASSES)
        best, most = None, SPLIT_NATS
        for feature, value in self.tests:
            low = np.array([row[feature] <= value for row, _ in self.seen])
            sides = [np.bincount(codes[side], minlength=CLASSES) for side in (low, ~low)]
            told = nats(whole) - nats(sides[0]) - nats(sides[1])
            if told > most + 1e-9:
                best, most = ((feature, value), sides), told
        if best is not None:
            self.split = best[0]
            self.children = tuple(Node(self.says(), side) for side in best[1])


def concept(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Two thresholds, of which neither alone says anything."""
    rng = np.random.default_rng([seed, n])
    features = rng.normal(size=(n, START + FEATURES)).astype(np.float32)
    x = features[:, START:]
    codes = (x[:, 0] > 0.3) ^ (x[:, 1] > -0.2)
    return features, np.where(x[:, 3] > 1.2, 2, codes).astype(np.int32)


def curve(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """One feature above or below a wave of another: many thresholds behind thresholds."""
    features, _ = concept(n, seed)
    wave = np.sin(3.0 * features[:, START])
    return features, (features[:, START + 1] > wave).astype(np.int32)


def moved(
    data: tuple[NDArray[np.float32], NDArray[np.int32]],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The same concept in other columns."""
    return data[0][:, [0, 1, 4, 5, 6, 2, 3]].copy(), data[1]


def new(n_trees: int = 3, n_classes: int = CLASSES) -> GrowingForest:
    forest = GrowingForest(n_trees, key=7)
    forest.grow(np.zeros(0, np.intp), n_classes)
    return forest


def live(forest: GrowingForest, data: tuple[NDArray[np.float32], NDArray[np.int32]], n: int) -> int:
    """Learn from event n on; where it ends."""
    features, codes = data
    for first in range(0, len(codes), 50):
        part = slice(first, first + 50)
        forest.learn(features[part], START, FEATURES, codes[part], n + first)
    return n + len(codes)


def right(forest: GrowingForest, data: tuple[NDArray[np.float32], NDArray[np.int32]]) -> float:
    features, codes = data
    found = forest.forest.predict(features, START, CLASSES)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    return float((found.argmax(axis=1) == codes).mean())


def test_trees_equal_plain_ones() -> None:
    n_trees = 3
    features, codes = concept(LEAF_EVENTS - 64, seed=1)
    forest = new(n_trees)
    even = np.full(CLASSES, 1 / CLASSES)
    plain = [Node(even, np.zeros(CLASSES, np.int64)) for _ in range(n_trees)]
    for i in range(len(codes)):
        forest.learn(features[i : i + 1], START, FEATURES, codes[i : i + 1], i)
        for t, root in enumerate(plain):
            x = features[i, START:]
            root.leaf(x).learn(x, int(codes[i]), mixed(7 ^ mixed(i * 256 + t)))
    assert all(root.children for root in plain)
    asked = concept(300, seed=2)[0]
    expected = [[root.leaf(row[START:]).says() for root in plain] for row in asked]
    mean = np.array(expected).sum(axis=1)
    found = forest.forest.predict(asked, START, CLASSES)
    np.testing.assert_allclose(found, mean / mean.sum(axis=1, keepdims=True), rtol=1e-12)


def test_a_full_forest_follows_the_stream() -> None:
    """What it learned turns false; it has no node left, and learns the new."""
    forest = new()
    n = live(forest, curve(40_000, seed=3), 0)
    assert (forest.n_nodes == MOST_NODES).all()
    assert forest.forest.feature.shape == (3, MOST_NODES)
    assert right(forest, curve(2000, seed=4)) > 0.95
    n = live(forest, moved(curve(40_000, seed=5)), n)
    assert right(forest, moved(curve(2000, seed=6))) > 0.83  # without: .5
    assert right(forest, curve(2000, seed=4)) < 0.6
    for t in range(3):  # every node is the root or one's child, each leaf has tests of its own
        inner = np.flatnonzero(forest.forest.feature[t] >= 0)
        firsts = forest.forest.child[t][inner]
        below = np.sort(np.concatenate([firsts, firsts + 1]))
        np.testing.assert_array_equal(below, np.arange(1, MOST_NODES))
        np.testing.assert_array_equal(forest.parent[t][firsts], inner)
        leaves = np.flatnonzero(forest.forest.feature[t] < 0)
        assert len(set(forest.slot[t][leaves].tolist())) == len(leaves) == (MOST_NODES + 1) // 2


def test_features_and_classes_are_added_and_the_trees_stay() -> None:
    forest, features = new(n_classes=2), concept(4000, seed=7)[0]
    codes = (features[:, START] > 0).astype(np.int32)
    live(forest, (features, codes), 0)
    before = forest.forest.predict(features, START, 2)
    assert forest.forest.feature.max() >= 0
    forest.grow(np.arange(FEATURES) + 1, 3)  # one more feature, before the others
    after = forest.forest.predict(features, START - 1, 3)
    np.testing.assert_allclose(after[:, :2], before, atol=0.001)
    assert (after[:, 2] < 0.001).all()


def test_many_classes_get_an_even_share_beyond_the_known_ones() -> None:
    many = MOST_CLASSES + 8
    forest = new(n_classes=many)
    features, codes = concept(500, seed=8)
    live(forest, (features, codes + MOST_CLASSES - 1), 0)  # the last two classes are not known
    found = forest.forest.predict(features, START, many)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_allclose(found[:, MOST_CLASSES:], 1 / many)
    assert forest.counts.shape[2] == MOST_CLASSES


def test_resumed_goes_on_to_the_bit() -> None:
    for n in (0, 30, 9000):
        forest, data = new(), concept(9000, seed=9)
        live(forest, (data[0][:n], data[1][:n]), 0)
        again = GrowingForest(3, key=7)
        again.resume(forest.state(), FEATURES, CLASSES)
        for one in (forest, again):
            live(one, concept(500, seed=10), n)
        for name, array in forest.state().items():
            np.testing.assert_array_equal(array, again.state()[name], err_msg=name)


@pytest.mark.parametrize(
    ("name", "value"), [("feature", FEATURES), ("child", 0), ("child", MOST_NODES), ("child", -1)]
)
def test_tables_that_lead_outside_are_refused(name: str, value: int) -> None:
    forest = new()
    live(forest, concept(9000, seed=11), 0)
    tensors = forest.forest.tensors()
    Forest.of(tensors, 3, FEATURES, CLASSES)
    tensors[f"forest/{name}"][0] = value
    with pytest.raises(ValueError, match="forest"):
        Forest.of(tensors, 3, FEATURES, CLASSES)


def test_a_table_in_circles_ends() -> None:
    tensors = new().forest.tensors()
    tensors["forest/feature"][:] = 0
    tensors["forest/child"][:] = 1
    found = Forest.of(tensors, 3, FEATURES, CLASSES).predict(np.ones((4, 9), np.float32), 0, 3)
    assert np.isfinite(found).all()
