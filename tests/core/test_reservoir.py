"""What is kept against a plain loop, against the law of Algorithm R, and across a restart."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from streamlearn.core.reservoir import Representatives, UniformReservoir, stream_key
from streamlearn.errors import ConfigError, StateError

MASK = 2**64 - 1


def splitmix_uniform(key: int, event: int) -> float:
    """The generator in Python's own integers."""
    bits = (key + event * 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return float(((bits ^ (bits >> 31)) >> 11) * 2.0**-53)


def algorithm_r(codes: list[int], key: int, capacity: int) -> dict[int, list[int]]:
    """Events kept of each class, the textbook way."""
    kept: dict[int, list[int]] = {}
    seen: dict[int, int] = {}
    for event, code in enumerate(codes):
        if code < 0:
            continue
        seen[code] = seen.get(code, 0) + 1
        row = kept.setdefault(code, [])
        if len(row) < capacity:
            row.append(event)
        elif (slot := int(splitmix_uniform(key, event) * seen[code])) < capacity:
            row[slot] = event
    return kept


def stream(n: int, seed: int, classes: int = 4) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    skew = 0.5 ** np.arange(classes)
    codes = rng.choice(classes, n, p=skew / skew.sum()).astype(np.int32)
    codes[rng.random(n) < 0.1] = -1
    rows = rng.normal(size=(n, 3))
    rows[rng.random((n, 3)) < 0.05] = np.nan
    return rows, codes


def offer_all(
    reservoir: Representatives,
    rows: NDArray[np.float64],
    codes: NDArray[np.int32],
    step: int,
    start: int = 0,
) -> None:
    for i in range(start, len(codes), step):
        event = np.arange(i, min(i + step, len(codes)))
        reservoir.offer(rows[event], codes[event], event, (event * 0.5).astype(np.float64))


@pytest.mark.parametrize("step", [1, 17, 1000])
def test_the_batch_equals_the_textbook_loop_at_every_step_size(step: int) -> None:
    rows, codes = stream(1000, seed=1)
    reservoir = UniformReservoir(capacity=5, key=stream_key(3, "s"))
    offer_all(reservoir, rows, codes, step)
    kept = reservoir.kept()
    expected = algorithm_r(codes.tolist(), reservoir.key, 5)
    for code in range(4):
        events = kept.event[kept.codes == code]
        assert events.tolist() == expected[code]
    assert np.array_equal(kept.rows, rows[kept.event], equal_nan=True)
    assert np.array_equal(kept.codes, codes[kept.event])
    assert np.array_equal(kept.event_time_s, kept.event * 0.5)
    assert np.bincount(kept.codes, kept.weights) == pytest.approx(reservoir.n_seen)


def test_every_event_of_a_class_is_as_likely_to_be_kept() -> None:
    n, capacity, runs = 60, 6, 3000
    codes, rows = np.zeros(n, np.int32), np.zeros((n, 1))
    hits = np.zeros(n)
    for run in range(runs):
        reservoir = UniformReservoir(capacity=capacity, key=stream_key(run, "uniform"))
        reservoir.offer(rows, codes, np.arange(n), np.zeros(n))
        hits[reservoir.kept().event] += 1
    expected = runs * capacity / n
    # n - 1 degrees of freedom, a little less spread since the sum of hits is fixed
    assert float(((hits - expected) ** 2 / expected).sum()) < chi2.isf(1e-4, n - 1)
    assert hits.sum() == runs * capacity


def test_a_rare_class_keeps_its_slots() -> None:
    codes = np.zeros(20_000, np.int32)
    codes[[100, 9_000]] = 1
    reservoir = UniformReservoir(capacity=10, key=1)
    offer_all(reservoir, np.zeros((20_000, 1)), codes, 256)
    kept = reservoir.kept()
    assert kept.event[kept.codes == 1].tolist() == [100, 9_000]
    assert (kept.codes == 0).sum() == 10


def test_classes_and_columns_grow_and_old_rows_lack_the_new_column() -> None:
    reservoir = UniformReservoir(capacity=2, key=7)
    reservoir.offer(np.ones((1, 1)), np.array([0], np.int32), np.array([0]), np.zeros(1))
    reservoir.offer(np.full((1, 3), 2.0), np.array([2], np.int32), np.array([1]), np.zeros(1))
    kept = reservoir.kept()
    assert kept.codes.tolist() == [0, 2]
    assert reservoir.n_seen.tolist() == [1, 0, 1]
    assert np.isnan(kept.rows[0, 1:]).all()
    # an event of a frame without the newer columns is missing there, not the old occupant's value
    narrow = UniformReservoir(capacity=1, key=0)
    narrow.offer(np.full((1, 2), 5.0), np.zeros(1, np.int32), np.array([0]), np.zeros(1))
    for event in range(1, 50):
        taken = narrow.offer(
            np.zeros((1, 1)), np.zeros(1, np.int32), np.array([event]), np.zeros(1)
        )
        if taken[0] >= 0:
            break
    assert narrow.kept().rows[0].tolist()[0] == 0.0
    assert np.isnan(narrow.kept().rows[0, 1])


def test_slots_say_where_each_event_went() -> None:
    rows, codes = stream(300, seed=4)
    reservoir = UniformReservoir(capacity=4, key=11)
    payload: dict[int, int] = {}  # what a caller would keep beside the rows: text, image
    for i in range(0, 300, 50):
        event = np.arange(i, i + 50)
        slots = reservoir.offer(rows[event], codes[event], event, np.zeros(50))
        payload.update((int(s), int(e)) for s, e in zip(slots, event, strict=True) if s >= 0)
    kept = reservoir.kept()
    assert [payload[int(slot)] for slot in kept.slots] == kept.event.tolist()


def test_a_restored_reservoir_goes_on_to_the_bit() -> None:
    rows, codes = stream(600, seed=2)
    straight = UniformReservoir(capacity=5, key=stream_key(0, "a"))
    offer_all(straight, rows, codes, 30)
    first = UniformReservoir(capacity=5, key=stream_key(0, "a"))
    offer_all(first, rows[:300], codes[:300], 30)
    meta, arrays = first.state()
    second = UniformReservoir.restore(json.loads(json.dumps(meta)), arrays)
    offer_all(first, rows, codes, 30, start=300)  # the copy must not move with the original
    offer_all(second, rows, codes, 30, start=300)
    for name, value in straight.state()[1].items():
        assert np.array_equal(value, second.state()[1][name], equal_nan=True), name


def test_an_empty_reservoir_survives_its_state() -> None:
    empty = UniformReservoir.restore(*UniformReservoir(capacity=3, key=2**64 - 1).state())
    assert (empty.key, empty.n_classes, len(empty.kept().codes)) == (2**64 - 1, 0, 0)
    assert (
        empty.offer(
            np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
        ).size
        == 0
    )


@pytest.mark.parametrize("broken", ["missing", "rows", "kind"])
def test_a_state_that_does_not_fit_is_refused(broken: str) -> None:
    reservoir = UniformReservoir(capacity=3, key=1)
    reservoir.offer(np.zeros((4, 2)), np.zeros(4, np.int32), np.arange(4), np.zeros(4))
    meta, full = reservoir.state()
    arrays: dict[str, NDArray[Any]] = dict(full)
    if broken == "missing":
        del arrays["event"]
    elif broken == "rows":
        arrays["rows"] = arrays["rows"][:1]
    else:
        meta["kind"] = "clusters"
    with pytest.raises(StateError):
        UniformReservoir.restore(meta, arrays)


def test_no_room_for_a_single_event_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="capacity=0"):
        UniformReservoir(capacity=0, key=0)


def test_streams_and_seeds_have_keys_of_their_own() -> None:
    assert len({stream_key(seed, name) for seed in range(9) for name in "abc"}) == 27
    assert stream_key(0, "boiler-7") == 4140515252886600976  # the same on every machine
