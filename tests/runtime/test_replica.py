"""The replica's rule, case by case, and against a hostile delivery of what owners published."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.update import Update, diff
from streamlearn.runtime import replica as replica_module
from streamlearn.runtime.replica import Held, Outcome, Replica, ReplicaState, Stamp

SLOW = SlowWeights({"random/a": np.ones(3, np.float32)})
OTHER_SLOW = SlowWeights({"random/a": np.zeros(3, np.float32)})


def model(version: int, *, past: int = 0, stream: str = "s", slow: SlowWeights = SLOW) -> Model:
    """What an owner learned: the same version and past, the same bits."""
    rng = np.random.default_rng([version, past])
    tensors: dict[str, NDArray[Any]] = {
        "moves": rng.normal(size=(4, 2)),
        "moves/sometimes": np.full(2, version // 3 + 100 * past),
        "rows": np.where(np.arange(40)[:, None] < version, past + 1.0, 0.0) * np.ones((1, 30)),
        "stays": np.arange(5.0),
    }
    return Model(stream, version, {"format": 1, "classes": ["a", "b"]}, tensors, slow)


def whole(version: int, **kwargs: Any) -> Update:
    return diff(None, model(version, **kwargs))


def change(base: int, version: int, **kwargs: Any) -> Update:
    return diff(model(base, **kwargs), model(version, **kwargs))


def fresh(**kwargs: Any) -> Replica:
    replica = Replica(clock=lambda: 12.0, **kwargs)
    replica.offer_slow(SLOW)
    return replica


def holds(replica: Replica, expected: Model) -> bool:
    held = replica.held(expected.stream)
    return (
        held is not None
        and held.hash == expected.hash
        and held.model.version == expected.version
        and held.model.tensors.keys() == expected.tensors.keys()
        and all(
            np.array_equal(tensor, expected.tensors[name])
            for name, tensor in held.model.tensors.items()
        )
    )


def at(version: int, epoch: int = 1, **kwargs: Any) -> Replica:
    replica = fresh(**kwargs)
    for v in range(1, version + 1):
        update = whole(1) if v == 1 else change(v - 1, v)
        assert replica.offer(update, Stamp(epoch)) is Outcome.APPLIED
    assert holds(replica, model(version))
    return replica


def test_a_swap_is_one_new_record_and_is_told() -> None:
    told: list[Held] = []
    replica = at(3, on_swap=told.append)
    assert [held.model.version for held in told] == [1, 2, 3]
    assert told[-1] is replica.held("s") and told[-1].swapped_s == 12.0
    assert replica.streams() == ("s",)
    assert replica.counts == {Outcome.APPLIED: 3}


def test_changes_without_a_model_need_the_snapshot() -> None:
    replica = fresh()
    assert replica.offer(change(4, 5), Stamp(1)) is Outcome.GAP
    assert replica.needing_snapshot() == ("s",) and replica.held("s") is None
    assert replica.offer(whole(5), Stamp(1)) is Outcome.APPLIED
    assert replica.needing_snapshot() == () and replica.state("s") is ReplicaState.CURRENT


def test_a_gap_keeps_the_model_until_a_snapshot_leads_past_it() -> None:
    replica = at(3)
    assert replica.offer(change(4, 5), Stamp(1)) is Outcome.GAP
    assert holds(replica, model(3)) and replica.state("s") is ReplicaState.NEEDS_SNAPSHOT
    assert replica.offer(whole(4), Stamp(1)) is Outcome.APPLIED  # a snapshot, but of before the gap
    assert replica.needing_snapshot() == ("s",)
    assert replica.offer(change(4, 5), Stamp(1)) is Outcome.APPLIED
    assert holds(replica, model(5)) and replica.needing_snapshot() == ()


def test_what_was_seen_is_dropped() -> None:
    replica = at(3)
    for update in (whole(1), change(2, 3), whole(3), whole(2, past=9)):
        assert replica.offer(update, Stamp(1)) is Outcome.DUPLICATE
    assert holds(replica, model(3))


def test_several_versions_may_come_as_one() -> None:
    replica = at(3)
    assert replica.offer(change(3, 30), Stamp(1)) is Outcome.APPLIED
    assert holds(replica, model(30))


def test_a_frozen_old_owner_is_not_heard() -> None:
    replica = at(3)
    assert replica.offer(whole(4), Stamp(2)) is Outcome.APPLIED
    for update in (change(4, 5), whole(9), whole(4)):
        assert replica.offer(update, Stamp(1)) is Outcome.OLD_EPOCH
    assert holds(replica, model(4))


def test_a_replay_keeps_the_newer_model_and_silences_the_old_owner() -> None:
    replica = at(5)
    assert replica.offer(whole(3), Stamp(2)) is Outcome.REPLAYED
    assert holds(replica, model(5))
    assert replica.offer(change(5, 6), Stamp(1)) is Outcome.OLD_EPOCH
    assert replica.offer(change(3, 4), Stamp(2)) is Outcome.REPLAYED
    assert replica.offer(change(4, 5), Stamp(2)) is Outcome.REPLAYED
    assert replica.offer(change(5, 6), Stamp(2)) is Outcome.APPLIED
    assert holds(replica, model(6))


def test_changes_that_jump_over_the_model_at_hand_fit_it() -> None:
    replica = at(5)
    assert replica.offer(whole(3), Stamp(2)) is Outcome.REPLAYED
    assert replica.offer(change(3, 8), Stamp(2)) is Outcome.APPLIED
    assert holds(replica, model(8))


def test_changes_that_jump_over_it_and_do_not_fit_are_a_gap() -> None:
    replica = at(6)
    old, new = model(5), model(8)
    tensors = {**new.tensors, "moves/sometimes": old.tensors["moves/sometimes"]}
    back = replace(new, tensors=tensors)  # a tensor that moved and came back: not in the changes
    assert replica.offer(whole(5), Stamp(2)) is Outcome.REPLAYED
    assert replica.offer(diff(old, back), Stamp(2)) is Outcome.GAP
    assert holds(replica, model(6)) and replica.needing_snapshot() == ("s",)
    assert replica.offer(diff(None, back), Stamp(2)) is Outcome.APPLIED
    assert holds(replica, back) and replica.needing_snapshot() == ()


def test_a_new_owner_with_another_past_wins() -> None:
    replica = at(5)
    assert replica.offer(change(3, 4, past=7), Stamp(2)) is Outcome.GAP
    assert holds(replica, model(5)) and replica.needing_snapshot() == ("s",)
    assert replica.offer(whole(4, past=7), Stamp(2)) is Outcome.APPLIED
    assert holds(replica, model(4, past=7)) and replica.needing_snapshot() == ()
    assert replica.offer(change(4, 5, past=7), Stamp(2)) is Outcome.APPLIED
    assert holds(replica, model(5, past=7))


def test_another_past_after_a_recognised_replay_wins_too() -> None:
    replica = at(5)
    assert replica.offer(whole(3), Stamp(2)) is Outcome.REPLAYED
    assert replica.offer(whole(4, past=7), Stamp(2)) is Outcome.APPLIED
    assert holds(replica, model(4, past=7))


def test_a_version_too_old_to_remember_is_taken_from_a_new_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica_module, "RECENT", 2)
    replica = at(5)
    assert replica.offer(whole(2), Stamp(2)) is Outcome.APPLIED
    assert holds(replica, model(2))


@pytest.mark.parametrize("update", [whole(4), change(3, 4)], ids=["whole", "changes"])
def test_wrong_bits_never_become_a_model(update: Update) -> None:
    replica = at(3)
    wrong = replace(update, changed={**update.changed, "moves": np.zeros((4, 2))})
    assert replica.offer(wrong, Stamp(1)) is Outcome.WRONG_HASH
    assert holds(replica, model(3)) and replica.needing_snapshot() == ("s",)
    assert replica.offer(update, Stamp(1)) is Outcome.APPLIED
    assert holds(replica, model(4))


def test_what_needs_slow_weights_waits_for_them_in_order() -> None:
    replica = fresh()
    late = [whole(1, slow=OTHER_SLOW), change(1, 2, slow=OTHER_SLOW)]
    assert replica.offer(late[0], Stamp(1)) is Outcome.WAITING
    assert replica.offer(late[1], Stamp(1)) is Outcome.WAITING
    assert replica.held("s") is None
    replica.offer_slow(OTHER_SLOW)
    assert holds(replica, model(2, slow=OTHER_SLOW))


def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "MAX_WAITING", 1)
    replica = fresh()
    assert replica.offer(whole(1, slow=OTHER_SLOW), Stamp(1)) is Outcome.WAITING
    assert replica.offer(whole(1, stream="t", slow=OTHER_SLOW), Stamp(1)) is Outcome.GAP
    assert replica.needing_snapshot() == ("t",)


def test_slow_weights_that_nobody_uses_are_forgotten() -> None:
    replica = at(3)
    many = [SlowWeights({"w": np.full(1, i, np.float32)}) for i in range(40)]
    for version, slow in enumerate(many, start=4):
        replica.offer_slow(slow)
        assert replica.offer(whole(version, slow=slow), Stamp(1)) is Outcome.APPLIED
    kept = [slow for slow in [SLOW, *many] if replica.slow(slow.hash) is not None]
    assert many[-1] in kept and len(kept) <= 17


def test_a_heartbeat_shows_what_never_came() -> None:
    replica = at(3)
    replica.offer_heartbeat("s", 3, Stamp(1))
    assert replica.needing_snapshot() == ()
    replica.offer_heartbeat("s", 4, Stamp(0))
    assert replica.needing_snapshot() == ()
    replica.offer_heartbeat("s", 4, Stamp(1))
    assert replica.needing_snapshot() == ("s",)


def test_a_malformed_message_makes_its_stream_suspect() -> None:
    replica = at(3)
    replica.offer_unusable(Outcome.CORRUPT, None)
    replica.offer_unusable(Outcome.CORRUPT, "never heard of")
    assert replica.needing_snapshot() == ()
    replica.offer_unusable(Outcome.CORRUPT, "s")
    assert replica.needing_snapshot() == ("s",)
    replica.offer(change(3, 4), Stamp(1))
    assert replica.needing_snapshot() == ()


def test_a_forgotten_stream_is_gone_and_may_begin_anew() -> None:
    replica = at(3, epoch=2)
    assert replica.offer_tombstone("s", 9, Stamp(1)) is Outcome.OLD_EPOCH
    assert replica.offer_tombstone("s", 2, Stamp(2)) is Outcome.OLD_EPOCH
    assert holds(replica, model(3))
    assert replica.offer_tombstone("s", 3, Stamp(2)) is Outcome.FORGOTTEN
    assert replica.held("s") is None and replica.streams() == ()
    assert replica.offer(whole(1), Stamp(2)) is Outcome.APPLIED


def test_what_is_not_worth_unpacking_is_named_before() -> None:
    replica = at(3, epoch=2)
    assert replica.refuse("s", 2, 3) is Outcome.DUPLICATE
    assert replica.refuse("s", 1, 9) is Outcome.OLD_EPOCH
    assert (
        replica.refuse("s", 3, 2) is replica.refuse("s", 2, 4) is replica.refuse("t", 0, 1) is None
    )
    assert replica.counts[Outcome.DUPLICATE] == replica.counts[Outcome.OLD_EPOCH] == 1


@dataclass(frozen=True, slots=True)
class Published:
    update: Update
    stamp: Stamp


def history(rng: np.random.Generator, n_epochs: int) -> tuple[list[Published], Model]:
    """What owners publish one after another; half of them learn frames again, some differently."""
    published: list[Published] = []
    version, past = 0, 0
    for epoch in range(1, n_epochs + 1):
        version = max(0, version - int(rng.integers(0, 4)))  # its checkpoint is older
        past = past if rng.random() < 0.7 else epoch
        before: Model | None = None
        for _ in range(int(rng.integers(1, 6))):
            version += int(rng.integers(1, 3))
            now = model(version, past=past)
            published.append(Published(diff(before, now), Stamp(epoch)))
            if rng.random() < 0.3:
                published.append(Published(diff(None, now), Stamp(epoch)))  # a snapshot
            before = now
    assert before is not None
    for now in (model(v, past=past) for v in range(version + 1, version + 8)):  # and goes on
        published.append(Published(diff(before, now), Stamp(n_epochs)))
        before = now
    return published, before


@given(seed=st.integers(0, 2**32 - 1), n_epochs=st.integers(1, 5))
def test_whatever_is_lost_repeated_swapped_or_broken(seed: int, n_epochs: int) -> None:
    rng = np.random.default_rng(seed)
    published, newest = history(rng, n_epochs)
    genuine = {p.update.result_hash for p in published}
    replica = fresh()
    delivered = [p for p in published if rng.random() < 0.8]
    delivered += [published[i] for i in rng.integers(0, len(published), 5)]
    for i in rng.integers(0, len(delivered), 6):
        j = int(rng.integers(0, len(delivered)))
        delivered[i], delivered[j] = delivered[j], delivered[i]
    for p in delivered:
        update = p.update
        if rng.random() < 0.1:
            update = replace(update, changed={**update.changed, "moves": rng.normal(size=(4, 2))})
        replica.offer(update, p.stamp)
        held = replica.held("s")
        if held is not None:  # the hash is computed again, from the bits that are held
            assert replace(held.model).hash == held.hash and held.hash in genuine
    for p in published:  # the topics read again from the start, as after a gap
        replica.offer(p.update, p.stamp)
    replica.offer(diff(None, newest), Stamp(n_epochs))
    assert holds(replica, newest) and replica.needing_snapshot() == ()
