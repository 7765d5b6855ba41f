"""Micro-clusters against a slow obvious version, and on streams that would fool a sample."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlearn.core.microclusters import RESCALE, MicroClusters, Why
from streamlearn.core.recall import HELD_OUT, choose, held_out, recall
from streamlearn.core.reservoir import Kept, Representatives, UniformReservoir, stream_key
from streamlearn.core.ward import NEARER
from streamlearn.errors import ConfigError, StateError


def offered(
    clusters: Representatives,
    x: NDArray[np.float64],
    codes: NDArray[np.int32],
    step: int = 256,
) -> NDArray[np.int64]:
    events = np.arange(len(x))
    parts = [
        clusters.offer(
            x[a : a + step],
            codes[a : a + step],
            events[a : a + step],
            events[a : a + step].astype(np.float64),
        )
        for a in range(0, len(x), step)
    ]
    return np.concatenate(parts)


@dataclass
class Cell:
    events: list[NDArray[np.float64]]
    member: NDArray[np.float64]
    event: int

    @property
    def centre(self) -> NDArray[np.float64]:
        return np.asarray(np.mean(self.events, axis=0))


class Slow:
    """The algorithm in lists, everything computed anew for every event."""

    def __init__(self, capacity: int, scale: NDArray[np.float64]) -> None:
        self.capacity = capacity
        self.scale = scale
        self.classes: dict[int, list[Cell | None]] = {}

    def distance(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float((((a - b) * self.scale) ** 2).sum())

    def offer(self, x: NDArray[np.float64], code: int, event: int) -> None:
        cells = self.classes.setdefault(code, [None] * self.capacity)
        new = Cell([x], x, event)
        if None in cells:
            cells[cells.index(None)] = new
            return
        taken = [cell for cell in cells if cell is not None]
        nearest = min(taken, key=lambda cell: self.distance(x, cell.centre))
        cost, p, q = min(
            [
                (self.cost(taken[p], taken[q]), p, q)
                for p in range(self.capacity)
                for q in range(p + 1, self.capacity)
            ],
            default=(np.inf, 0, 0),
        )
        n = len(nearest.events)
        if n / (n + 1) * self.distance(x, nearest.centre) > cost:
            a, b = taken[p], taken[q]
            keep, free = (q, p) if self.takes_over(b, a, a.events + b.events) else (p, q)
            cells[keep] = Cell(a.events + b.events, taken[keep].member, taken[keep].event)
            cells[free] = new
            return
        nearest.events = [*nearest.events, x]
        if self.takes_over(new, nearest, nearest.events):
            nearest.member, nearest.event = x, event

    def takes_over(self, b: Cell, a: Cell, events: list[NDArray[np.float64]]) -> bool:
        """Whether b's member is nearer to the events' mean than a's."""
        mean = np.asarray(np.mean(events, axis=0))
        return bool(self.distance(b.member, mean) < NEARER * self.distance(a.member, mean))

    def cost(self, a: Cell, b: Cell) -> float:
        n, m = len(a.events), len(b.events)
        return n * m / (n + m) * self.distance(a.centre, b.centre)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    capacity=st.integers(1, 6),
    step=st.integers(1, 40),
    d=st.integers(1, 4),
)
def test_equals_the_slow_version(seed: int, capacity: int, step: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, d)) + 3 * rng.integers(4, size=(120, 1))
    codes = rng.integers(-1, 3, size=120).astype(np.int32)
    scale = rng.uniform(0.5, 2.0, size=d)
    clusters, slow = MicroClusters(capacity=capacity), Slow(capacity, scale)
    for a in range(0, 120, step):
        cut = slice(a, a + step)
        clusters.offer(x[cut], codes[cut], np.arange(120)[cut], np.zeros(120)[cut], scale)
    for i in range(120):
        if codes[i] >= 0:
            slow.offer(x[i], int(codes[i]), i)
    kept, members, variances = clusters.kept(), clusters.members(), clusters.variances()
    expected = [
        (code * capacity + i, slot)
        for code in sorted(slow.classes)
        for i, slot in enumerate(slow.classes[code])
        if slot is not None
    ]
    assert kept.slots.tolist() == [slot for slot, _ in expected]
    assert kept.event.tolist() == [slot.event for _, slot in expected]
    assert kept.weights.tolist() == [float(len(slot.events)) for _, slot in expected]
    for i, (_, slot) in enumerate(expected):
        np.testing.assert_allclose(kept.rows[i], slot.centre, atol=1e-9)
        np.testing.assert_array_equal(members.rows[i], slot.member)
        np.testing.assert_allclose(variances[i], np.var(slot.events, axis=0), atol=1e-9)


def test_counts_add_up_and_centres_are_the_means_of_all_events() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 5))
    codes = rng.integers(3, size=3000).astype(np.int32)
    clusters = MicroClusters(capacity=8)
    offered(clusters, x, codes)
    kept = clusters.kept()
    for code in range(3):
        own = kept.codes == code
        assert kept.weights[own].sum() == clusters.n_seen[code] == (codes == code).sum()
        mean = np.average(kept.rows[own], axis=0, weights=kept.weights[own])
        np.testing.assert_allclose(mean, x[codes == code].mean(axis=0), atol=1e-9)


def test_slots_say_where_each_member_lies_and_members_never_move() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 2))
    clusters = MicroClusters(capacity=4)
    payload: dict[int, int] = {}  # slot to event, as a store of texts or images would keep
    for i, slot in enumerate(offered(clusters, x, np.zeros(500, np.int32), step=1).tolist()):
        if slot >= 0:
            payload[slot] = i
    members = clusters.members()
    assert payload == dict(zip(members.slots.tolist(), members.event.tolist(), strict=True))
    np.testing.assert_array_equal(members.rows, x[members.event])


def test_class_skew_1_to_1000_leaves_the_rare_class_its_budget() -> None:
    rng = np.random.default_rng(2)
    codes = (np.arange(10_010) % 1001 == 1000).astype(np.int32)
    x = rng.normal(size=(10_010, 3)) + 20 * codes[:, None]
    clusters = MicroClusters(capacity=5)
    offered(clusters, x, codes)
    assert clusters.n_kept.tolist() == [5, 5]
    kept = clusters.kept()
    assert kept.weights[kept.codes == 1].sum() == 10
    assert (kept.rows[kept.codes == 1] > 10).all()


def test_classes_and_columns_that_appear_over_time_get_their_own() -> None:
    rng = np.random.default_rng(3)
    clusters = MicroClusters(capacity=3)
    for code in range(4):
        x = rng.normal(size=(100, 2 + code)) + 10 * code
        clusters.offer(x, np.full(100, code, np.int32), np.arange(100), np.zeros(100))
    kept = clusters.kept()
    assert kept.codes.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert kept.rows.shape == (12, 5)
    assert np.isnan(kept.rows[kept.codes == 0][:, 2:]).all()
    assert not np.isnan(kept.rows[kept.codes == 3]).any()
    narrow = clusters.offer(np.zeros((1, 1)), np.zeros(1, np.int32), np.array([100]), np.zeros(1))
    assert narrow.shape == (1,)


def test_missing_and_endless_numbers_neither_spread_nor_break_it() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 3))
    x[rng.random((400, 3)) < 0.3] = np.nan
    x[5], x[6, 0], x[7, 1], x[8] = np.nan, np.inf, -np.inf, 1e200
    clusters = MicroClusters(capacity=4)
    with np.errstate(all="ignore"):
        offered(clusters, x, np.zeros(400, np.int32))
    kept = clusters.kept()
    assert kept.weights.sum() == 400
    assert not np.isinf(kept.rows).any()
    assert (np.abs(kept.rows[kept.weights > 20]) < 2).all()


def test_cells_cover_a_class_better_than_chance() -> None:
    """Squared error of a mixed class's events to their nearest kept row, and recall."""
    rng = np.random.default_rng(5)
    groups = rng.normal(size=(24, 6)) * 6  # twelve a class
    of = rng.choice(
        24, 6000, p=np.tile(np.geomspace(1, 0.05, 12), 2) / np.geomspace(1, 0.05, 12).sum() / 2
    )
    x, codes = rng.normal(size=(6000, 6)) + groups[of], (of // 12).astype(np.int32)
    held = held_out(np.arange(6000), key=3)
    clusters = MicroClusters(capacity=12)
    uniform = UniformReservoir(capacity=12, key=stream_key(0, "s"))
    offered(clusters, x[~held], codes[~held])
    offered(uniform, x[~held], codes[~held])
    asked = everything(x[held], codes[held])
    one, other = recall(clusters.kept(), asked), recall(uniform.kept(), asked)
    assert one > 0.95
    assert one > other + 0.02
    recalls = {"uniform": other, "microclusters": one}
    assert choose(recalls, trusted="uniform") == "microclusters"


def test_where_a_class_moves_recall_trusts_the_uniform_reservoir() -> None:
    """A class that went where the other was: centres with old counts lie there for ever."""
    n = 6000
    rng = np.random.default_rng(6)
    codes = rng.integers(2, size=n).astype(np.int32)
    now = np.where(np.arange(n) < 300, 1, -1) * (2 * codes - 1)  # the two change places at once
    x = rng.normal(size=(n, 2)) * 0.5 + 3 * now[:, None]
    old = MicroClusters(capacity=2)
    offered(old, x[:300], codes[:300])
    uniform = UniformReservoir(capacity=20, key=1)
    offered(uniform, x, codes)
    asked = everything(x[-300:], codes[-300:])
    recalls = {name: recall(s.kept(), asked) for name, s in (("old", old), ("uniform", uniform))}
    assert recalls["old"] < 0.1
    assert choose(recalls, trusted="old") == "uniform"


def everything(x: NDArray[np.float64], codes: NDArray[np.int32]) -> Kept:
    n = len(codes)
    return Kept(x, codes, np.ones(n), np.arange(n), np.zeros(n), np.arange(n))


def test_who_lacks_values_does_not_stand_for_who_has_them() -> None:
    """A distance that leaves out what is missing would make an empty event nearest to all."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4)) + 6.0 * rng.integers(2, size=(600, 1))
    x[::40] = np.nan  # nothing but a label, the very first one, too
    x[1::2, 2:] = np.nan  # half of what there is
    clusters = MicroClusters(capacity=5)
    offered(clusters, x, np.zeros(600, np.int32))
    members = clusters.members().rows
    assert len(members) == 5 and not np.isnan(members).any()
    empty = MicroClusters(capacity=5)
    offered(empty, np.full((60, 4), np.nan), np.zeros(60, np.int32))  # then they do
    assert empty.members().weights.sum() == 60


def test_recall_counts_classes_alike_and_is_nan_without_events() -> None:
    kept = everything(np.array([[0.0], [10.0]]), np.array([0, 1], np.int32))
    held = everything(np.array([[1.0]] * 9 + [[1.0]]), np.array([0] * 9 + [1], np.int32))
    assert recall(kept, held) == 0.5  # nine right of class 0, none of class 1
    none = everything(np.zeros((0, 1)), np.zeros(0, np.int32))
    assert np.isnan(recall(kept, none)) and np.isnan(recall(none, held))
    nan = float("nan")
    assert choose({"a": nan, "b": nan}, trusted="a") == choose({}, trusted="a") == "a"
    assert choose({"a": nan, "b": 0.5}, trusted="a") == "b"
    assert choose({"a": 0.5, "b": nan}, trusted="a") == "a"
    assert choose({"a": 0.5, "b": 0.5}, trusted="b") == "b"
    assert choose({"a": 0.505, "b": 0.5}, trusted="b") == "b"  # by chance


def test_held_out_events_are_few_and_follow_from_the_count_alone() -> None:
    mask = held_out(np.arange(20_000), key=5)
    assert mask.mean() == pytest.approx(HELD_OUT, rel=0.1)
    np.testing.assert_array_equal(held_out(np.arange(500, 900), key=5), mask[500:900])
    assert (held_out(np.arange(20_000), key=6) != mask).any()


def test_a_spread_that_moves_a_little_changes_nothing_until_it_moved_far() -> None:
    rng = np.random.default_rng(7)
    x, codes, events = rng.normal(size=(200, 2)), np.zeros(200, np.int32), np.arange(200)
    plain, moving = MicroClusters(capacity=4), MicroClusters(capacity=4)
    for a in range(0, 200, 50):
        cut = slice(a, a + 50)
        plain.offer(x[cut], codes[cut], events[cut], events[cut].astype(np.float64), np.ones(2))
        little = np.full(2, 1 + (RESCALE - 1) * 0.9 * (a > 0))
        moving.offer(x[cut], codes[cut], events[cut], events[cut].astype(np.float64), little)
    np.testing.assert_array_equal(plain.kept().rows, moving.kept().rows)
    far = np.array([1.0, 0.0])  # now the second column counts for nothing
    moving.offer(np.array([[0.0, 1e6]]), codes[:1], np.array([200]), np.zeros(1), far)
    assert moving.n_kept.tolist() == [4]
    assert moving.kept().weights.min() > 1 or 1e6 not in moving.kept().rows


def test_people_see_centres_counts_members_when_why_and_how_often() -> None:
    clusters = MicroClusters(capacity=2)
    x = np.array([[0.0], [10.0], [1.0], [0.4], [100.0]])
    clusters.offer(x, np.zeros(5, np.int32), np.arange(5), np.arange(1000.0, 1005.0))
    seen = clusters.representatives(0)
    assert [r.count for r in seen] == [4, 1]  # 0, 1, .4 and 10 merged to let 100 in
    assert seen[0].centre[0] == pytest.approx(2.85)
    assert (seen[0].member[0], seen[0].event, seen[0].event_time_s) == (0.4, 3, 1003.0)
    assert [r.why for r in seen] == [Why.NEARER, Why.FAR]
    clusters.note_replayed(np.array([seen[0].slot, seen[0].slot, seen[1].slot]))
    assert [r.replayed for r in clusters.representatives(0)] == [2, 1]
    assert clusters.representatives(3) == ()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 10))
def test_going_on_from_its_state_is_the_same_to_the_bit(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 3)) + 5 * rng.integers(5, size=(200, 1))
    x[rng.random(x.shape) < 0.1] = np.nan
    codes, events = rng.integers(-1, 3, size=200).astype(np.int32), np.arange(200)
    scale = rng.uniform(0.5, 2, size=(10, 3))
    one = two = MicroClusters(capacity=4)
    for k in range(10):
        part = slice(20 * k, 20 * k + 20)
        if k == cut:
            meta, arrays = one.state()
            two = MicroClusters.restore(json.loads(json.dumps(meta)), arrays)
        one.offer(x[part], codes[part], events[part], events[part].astype(np.float64), scale[k])
        if two is not one:
            two.offer(x[part], codes[part], events[part], events[part].astype(np.float64), scale[k])
    meta, arrays = one.state()
    again, again_arrays = two.state()
    assert again == meta
    for name, array in arrays.items():
        np.testing.assert_array_equal(again_arrays[name], array, err_msg=name)


def test_a_state_that_is_of_another_kind_or_lacks_something_is_refused() -> None:
    clusters = MicroClusters(capacity=4)
    offered(clusters, np.random.default_rng(0).normal(size=(50, 2)), np.zeros(50, np.int32))
    meta, arrays = clusters.state()
    with pytest.raises(StateError, match="kind"):
        MicroClusters.restore({**meta, "kind": "uniform"}, arrays)
    for name in arrays:
        with pytest.raises(StateError):
            MicroClusters.restore(meta, {k: a for k, a in arrays.items() if k != name})
    with pytest.raises(StateError, match="slots"):
        MicroClusters.restore(meta, {**arrays, "slots": arrays["slots"] + 3})
    with pytest.raises(ConfigError, match="capacity=0"):
        MicroClusters(capacity=0)
