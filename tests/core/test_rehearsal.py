"""Rehearsal: two samples side by side, what goes with their events, and what is drawn of them."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.companions import Companions
from streamlearn.core.contradiction import contradicted
from streamlearn.core.microclusters import MicroClusters
from streamlearn.core.rehearsal import CLUSTERS, UNIFORM, Rehearsal, believed, draw
from streamlearn.core.reservoir import Kept, stream_key
from streamlearn.errors import StateError

N, D = 900, 3
SCALE = np.ones(D)


def a_stream(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Three classes, skewed; the third comes late."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(3, N, p=[0.9, 0.08, 0.02]).astype(np.int32)
    codes[(codes == 2) & (np.arange(N) < 300)] = 0
    codes[rng.random(N) < 0.1] = -1
    return rng.normal(size=(N, D)) + 3 * codes[:, None], codes


def told(event: NDArray[np.int64], codes: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """Companions that say whose they are: a row of as many floats as classes, a picture."""
    known = np.maximum.accumulate(codes)[event]  # the newest class
    logits = (event[:, None] + np.arange(1 + known.max()) / 10).astype(np.float32)
    logits[np.arange(logits.shape[1]) > known[:, None]] = np.nan
    return {
        "logits": logits,
        "pixels": np.repeat(event % 251, 4).reshape(-1, 2, 2).astype(np.uint8),
    }


def rehearsed(step: int, *, stop: int = N, begun: Rehearsal | None = None) -> Rehearsal:
    """From the start to `stop`, or on from where `begun` was at 450."""
    x, codes = a_stream()
    rehearsal = begun or Rehearsal(capacity=5, key=stream_key(3, "s"))
    for start in range(0 if begun is None else 450, stop, step):
        event = np.arange(start, min(start + step, stop))
        with_them = told(event, codes)
        rehearsal.offer(x[event], codes[event], event, event * 0.5, SCALE, with_them)
        if event[-1] % 150 == 149:
            rehearsal.choose(SCALE)
            rehearsal.replay(7, int(event[-1]))
    return rehearsal


def as_bytes(rehearsal: Rehearsal) -> dict[str, Any]:
    meta, arrays = rehearsal.state()
    return {"meta": meta, **{name: array.tobytes() for name, array in arrays.items()}}


def test_any_cut_into_steps_keeps_the_same() -> None:
    whole = as_bytes(rehearsed(150))
    for step in (1, 10, 50, 75):
        assert as_bytes(rehearsed(step)) == whole, step


def test_restored_goes_on_to_the_bit() -> None:
    half = rehearsed(50, stop=450)
    again = Rehearsal.restore(*half.state())
    assert as_bytes(again) == as_bytes(half)
    assert as_bytes(rehearsed(50, begun=again)) == as_bytes(rehearsed(50))


@pytest.mark.parametrize("sample", [CLUSTERS, UNIFORM])
def test_companions_go_with_their_events(sample: str) -> None:
    """Through slots taken anew, merges, new classes: each says the event that is kept."""
    rehearsal = rehearsed(37)
    rehearsal.trusted = sample
    replay = rehearsal.replay(60, 5, members=True)
    assert len(set(replay.event.tolist())) > 10
    np.testing.assert_array_equal(replay.companions["logits"][:, 0], replay.event)
    np.testing.assert_array_equal(replay.companions["pixels"][:, 1, 1], replay.event % 251)
    first_of_2 = int(np.flatnonzero(a_stream()[1] == 2)[0])
    early = replay.event < first_of_2
    assert early.any() and not early.all()
    assert np.isnan(replay.companions["logits"][early, 2]).all()
    assert not np.isnan(replay.companions["logits"][~early]).any()


def test_replay_brings_each_class_as_often_and_rows_by_their_weight() -> None:
    kept = Kept(
        rows=np.arange(5.0)[:, None],
        codes=np.array([0, 0, 1, 1, 4], np.int32),
        weights=np.array([3.0, 1.0, 1.0, 1.0, 9.0]),
        event=np.arange(5),
        event_time_s=np.zeros(5),
        slots=np.arange(5),
    )
    rng = np.random.default_rng(1)
    counts: Counter[int] = Counter()
    for _ in range(2000):
        chosen = draw(kept, 8, *rng.random(2))
        a_class = np.bincount(kept.codes[chosen], minlength=5)[[0, 1, 4]]
        assert sorted(a_class.tolist()) == [2, 3, 3]  # what is left over goes to any
        counts.update(chosen.tolist())
    share = np.array([counts[i] for i in range(5)]) / 16_000
    assert share == pytest.approx(np.array([3 / 4, 1 / 4, 1 / 2, 1 / 2, 1]) / 3, abs=0.01)
    assert len(draw(kept, 0, 0.5, 0.5)) == 0
    for turn in (0.0, 1 - 2**-53):  # the ends of what is drawn
        assert len(draw(kept, 7, turn, 1 - 2**-53)) == 7


def test_a_draw_follows_from_the_key_and_the_count_alone() -> None:
    one, other = rehearsed(50), rehearsed(75)
    np.testing.assert_array_equal(one.replay(20, 11).slots, other.replay(20, 11).slots)
    assert one.replay(20, 12).slots.tolist() != one.replay(20, 11).slots.tolist()


def test_replays_are_counted_until_another_event_takes_the_slot() -> None:
    rehearsal = rehearsed(50)
    for name, sample in (("clusters", rehearsal.clusters), ("uniform", rehearsal.uniform)):
        rehearsal.trusted = CLUSTERS if name == "clusters" else UNIFORM
        before = sample.state()[1]["replayed"]
        slots = rehearsal.replay(40, 3).slots
        order = sample.kept().slots
        added = np.array([(slots == slot).sum() for slot in order])
        np.testing.assert_array_equal(sample.state()[1]["replayed"], before + added)


def test_held_out_events_are_in_neither_sample_and_a_rare_class_gives_none() -> None:
    rehearsal = Rehearsal(capacity=5, key=1)
    n = 20_000
    codes = (np.arange(n) % 5000 == 17).astype(np.int32)  # class 1: four events
    x = np.arange(n, dtype=np.float64)[:, None]
    for start in range(0, n, 256):
        event = np.arange(start, min(start + 256, n))
        rehearsal.offer(x[event], codes[event], event, event * 1.0, np.ones(1))
    assert rehearsal.n_seen.tolist() == [n - 4, 4]
    held = rehearsal.held
    assert held.n_seen.tolist() == [n - 4 - rehearsal.uniform.n_seen[0]]
    assert held.n_seen[0] == pytest.approx(n / 16, rel=0.1)
    assert len(held.kept().codes) == 10
    for sample in (rehearsal.clusters, rehearsal.uniform):
        assert sample.n_kept.tolist() == [5, 4]
        assert not set(held.kept().event.tolist()) & set(sample.members().event.tolist())
        assert sample.members().event.max() > n / 2  # held-out events draw apart from kept ones


def test_the_sample_that_recalls_better_is_trusted() -> None:
    """Two classes change places: centres keep the old ones, the uniform sample forgets them."""
    n = 6000
    rng = np.random.default_rng(6)
    codes = rng.integers(2, size=n).astype(np.int32)
    now = np.where(np.arange(n) < 1000, 1, -1) * (2 * codes - 1)
    x = rng.normal(size=(n, 2)) * 0.5 + 3 * now[:, None]
    rehearsal = Rehearsal(capacity=2, key=5)
    event = np.arange(n)
    rehearsal.offer(x, codes, event, event * 1.0, np.ones(2))
    rehearsal.choose(np.ones(2))
    best = max(rehearsal.recalls, key=lambda name: rehearsal.recalls[name])
    assert rehearsal.recalls[UNIFORM] != rehearsal.recalls[CLUSTERS]
    assert rehearsal.trusted == best
    kept = rehearsal.uniform.kept() if best == UNIFORM else rehearsal.clusters.kept()
    np.testing.assert_array_equal(rehearsal.kept().rows, kept.rows)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_what_other_classes_contradict_is_not_replayed(noise: float) -> None:
    """A fifth of the labels is wrong: at 20 a class, most slots go to these."""
    rng = np.random.default_rng(4)
    right = rng.integers(0, 4, 4000).astype(np.int32)
    x = rng.normal(size=(4000, 6)) + 6 * np.eye(4, 6)[right]
    wrong = rng.random(4000) < noise
    codes = np.where(wrong, rng.integers(0, 4, 4000), right).astype(np.int32)
    rehearsal = Rehearsal(capacity=20, key=5)
    event = np.arange(4000)
    rehearsal.offer(x, codes, event, event * 1.0, np.ones(6))
    shares = []
    for _ in range(2):
        replay = rehearsal.replay(400, 1, members=True)
        assert np.unique(replay.codes).tolist() == [0, 1, 2, 3]
        shares.append(float((replay.codes != right[replay.event]).mean()))
        rehearsal.choose(np.ones(6))
    if noise:
        assert shares[0] > 0.1 and shares[1] < 0.02
        assert len(rehearsal.kept().codes) < len(rehearsal.clusters.kept().codes)
        again = Rehearsal.restore(*rehearsal.state())
        assert again.replay(9, 7).slots.tolist() == rehearsal.replay(9, 7).slots.tolist()
    else:
        assert not len(rehearsal.left_out[CLUSTERS])


def test_a_class_of_nothing_but_contradicted_rows_stays() -> None:
    rows = np.array([[0.0], [0.1], [0.2], [0.3], [5.0], [5.1], [5.2], [5.3], [0.15]])
    codes = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2], np.int32)
    n = np.arange(9)
    kept = Kept(rows, codes, np.array([9.0] * 8 + [1.0]), n, n * 1.0, n)
    against = contradicted(rows, kept)
    assert against.tolist() == [False] * 9  # shares of a class count, so the rare one is heard
    kept = Kept(rows, codes, np.ones(9), n, n * 1.0, n)
    assert believed(kept, np.ones(1)).all()


def test_without_events_there_is_nothing_to_replay() -> None:
    rehearsal = Rehearsal(capacity=3, key=1)
    rehearsal.choose(np.ones(1))
    assert rehearsal.trusted == CLUSTERS
    rehearsal.choose(np.zeros(0))  # without numbers the clusters can tell nothing apart
    assert rehearsal.trusted == UNIFORM
    assert len(rehearsal.replay(5, 1).codes) == len(rehearsal.kept().codes) == 0
    assert as_bytes(Rehearsal.restore(*rehearsal.state())) == as_bytes(rehearsal)


def test_set_companions_are_those_of_the_replayed() -> None:
    rehearsal = rehearsed(50)
    replay = rehearsal.replay(6, 1, members=True)
    rehearsal.set_companions(replay, {"logits": np.full((6, 4), 7.0, np.float32)})
    again = rehearsal.replay(6, 1, members=True)
    assert (again.companions["logits"] == 7.0).all()
    assert again.companions["logits"].shape == (6, 4)


def test_what_is_remembered_later_goes_with_those_that_are_still_kept() -> None:
    rehearsal, (x, codes) = Rehearsal(capacity=5, key=9), a_stream()
    event = np.arange(300)
    rehearsal.offer(x[:300], codes[:300], event, event * 0.5, SCALE)
    backwards = event[:200][::-1]
    rehearsal.remember("logits", backwards, backwards[:, None].astype(np.float32))
    rehearsal.remember("logits", event[:0], np.zeros((0, 1), np.float32))
    for name, sample in ((CLUSTERS, rehearsal.clusters), (UNIFORM, rehearsal.uniform)):
        members = sample.members()
        said = rehearsal.companions_of(name, members.slots)["logits"][:, 0]
        expected = np.where(members.event < 200, members.event, np.nan)
        assert 0 < np.isnan(said).sum() < len(said)
        np.testing.assert_array_equal(said, expected)


def test_companions_of_another_kind_are_refused() -> None:
    companions = Companions()
    companions.take(np.array([0]), {"logits": np.zeros((1, 2), np.float32)}, n_slots=3)
    for wrong in (np.zeros((1, 2)), np.zeros((1, 2, 2), np.float32), np.zeros(1, np.float32)):
        with pytest.raises(ValueError, match="only the first axis may grow"):
            companions.take(np.array([1]), {"logits": wrong}, n_slots=3)
    companions.take(np.array([2, 2]), {"id": np.array([5, 6])}, n_slots=3)
    assert companions["id"].tolist() == [0, 0, 6] and "logits" in companions
    assert np.isnan(companions["logits"][2]).all()


def test_state_that_does_not_fit_is_refused() -> None:
    meta, arrays = rehearsed(50).state()
    for name in arrays:
        if "/with/" in name:
            continue
        with pytest.raises(StateError):
            Rehearsal.restore(meta, {key: a for key, a in arrays.items() if key != name})
    for name in (f"{CLUSTERS}/with/logits", f"{UNIFORM}/replayed"):
        with pytest.raises(StateError):
            Rehearsal.restore(meta, {**arrays, name: arrays[name][:-1]})
    for wrong in ({"trusted": "neither"}, {"recalls": None}, {CLUSTERS: {"kind": "x"}}):
        with pytest.raises(StateError):
            Rehearsal.restore({**meta, **wrong}, arrays)


def test_members_never_move_so_that_companions_may_lie_still() -> None:
    """The slow truth: a dict from slot to event, kept by what offer said."""
    x, codes = a_stream(4)
    clusters, at = MicroClusters(capacity=4), dict[int, int]()
    for start in range(0, N, 23):
        event = np.arange(start, min(start + 23, N))
        slots = clusters.offer(x[event], codes[event], event, event * 1.0)
        at |= {slot: e for slot, e in zip(slots.tolist(), event.tolist(), strict=True) if slot >= 0}
        members = clusters.members()
        assert dict(zip(members.slots.tolist(), members.event.tolist(), strict=True)) == at
