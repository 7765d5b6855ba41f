"""Taking partitions over: what is refused, with its remedy, and who wins."""

import re
from collections.abc import Callable

import pytest

from streamlearn.errors import StateError
from streamlearn.runtime.partition import Partition, Written
from streamlearn.runtime.restore import Restore, Restored
from streamlearn.stores.memory import MemoryStore
from streamlearn.testing import MemoryKafka, MemoryPublisher
from streamlearn.topics import load
from streamlearn.wire import state_codec, update_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.marker_codec import PartitionMarker
from streamlearn.wire.update_codec import Kind, Role, UpdateHeader

TOPICS = load(prefix="", partitions=1)
EVENT = Message(b"s", b"value", [])


class Group:
    """A group's one partition, its state topic, and take-overs by whoever comes."""

    def __init__(self, events: int = 10) -> None:
        self.kafka = MemoryKafka()
        for _ in range(events):
            self.kafka.append("events", 0, EVENT)

    def mark(self, epoch: int, covered: int, *, claim: bool = False) -> None:
        marker = PartitionMarker(epoch, covered, 0, self.kafka.topic_id("events"), 0.0)
        self.kafka.append("state", 0, state_codec.seal_marker(marker, claim=claim))

    def take_over(
        self,
        generation: int = 1,
        *,
        partition: Partition | None = None,
        effect: Callable[[str], None] = lambda name: None,
    ) -> tuple[Partition, Restored]:
        if partition is None:
            partition = Partition(0, MemoryStore())
        publisher = MemoryPublisher(self.kafka)
        restore = Restore(
            TOPICS, log=self.kafka, publisher=publisher, clock=lambda: 0.0, effect=effect
        )
        return partition, restore.take_over(partition, generation)


def test_the_first_owner_begins_with_what_is_there() -> None:
    group = Group()
    group.kafka.delete_before("events", 0, 4)
    partition, found = group.take_over(generation=3)
    assert (partition.epoch, partition.next_offset, partition.covered) == (3, 4, 3)
    assert found.claimed
    again, _ = group.take_over(generation=4)  # nothing was acknowledged meanwhile
    assert (again.epoch, again.next_offset, again.covered) == (4, 4, 3)


def test_epochs_grow_though_generations_begin_again() -> None:
    group = Group()
    group.take_over(generation=7)
    assert group.take_over(generation=1)[0].epoch == 8


def test_a_kept_partition_keeps_its_epoch_until_somebody_else_claims_it() -> None:
    group = Group()
    partition, _ = group.take_over(generation=1)
    _, found = group.take_over(generation=2, partition=partition)
    assert partition.epoch == 1 and not found.claimed
    group.take_over(generation=3)
    _, found = group.take_over(generation=4, partition=partition)
    assert partition.epoch == 4 and found.claimed


def test_a_claim_that_came_too_late_is_made_again_above_the_other() -> None:
    group = Group()
    group.take_over(generation=9)  # so that both look above it, not at their generations

    def other(name: str) -> None:
        if name == "state topic read" and not others:
            others.append(group.take_over(generation=1)[0])
            group.mark(others[0].epoch, 5)
            group.kafka.offsets["events", 0] = 6

    others: list[Partition] = []
    late, _ = group.take_over(generation=1, effect=other)
    assert late.epoch > others[0].epoch
    assert late.covered == 5  # what was written before the claim counts


def test_states_have_keys_of_their_own() -> None:
    keys = [
        key
        for state in (Written(1, 0, 3), Written(1, 5, 3), Written(2, 5, 3))
        for key in state.keys("s")
    ]
    assert len(set(keys)) == len(keys) == 9


def committed_beyond(group: Group) -> None:
    group.mark(1, 4)
    group.kafka.offsets["events", 0] = 6


def events_deleted(group: Group) -> None:
    group.mark(1, 4)
    group.kafka.offsets["events", 0] = 5
    group.kafka.delete_before("events", 0, 7)


def events_lost(group: Group) -> None:
    group.mark(1, 25)


def events_made_anew(group: Group) -> None:
    group.mark(1, 4)
    group.kafka.make_anew("events")


def corrupt(group: Group) -> None:
    group.kafka.append("state", 0, Message(b"s\x001", b"not ours", []))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (
            committed_beyond,
            "went on from 6, but the states cover only the events before 5.*--accept-gap",
        ),
        (events_deleted, "from 5 to 7 were deleted before they were learned.*retention.ms"),
        (events_lost, "ends at 10, but events up to 26 were learned.*put its data back"),
        (events_made_anew, "was deleted and made anew.*--accept-gap.*--from-earliest"),
        (corrupt, "state topic's record with key .* is corrupt.*--from-earliest"),
    ],
)
def test_what_does_not_fit_stops_the_worker(broken: Callable[[Group], None], says: str) -> None:
    group = Group()
    broken(group)
    with pytest.raises(StateError) as refused:
        group.take_over()
    assert re.search(says, str(refused.value), re.DOTALL)


def test_a_state_topic_made_anew_stops_a_worker_that_knew_the_old_one() -> None:
    group = Group()
    partition, _ = group.take_over()
    store = partition.store
    group.kafka.make_anew("state")
    again = Partition(0, store)
    again.load()
    with pytest.raises(StateError, match="state was made anew since this worker's store"):
        group.take_over(partition=again)


def test_an_owner_begins_above_what_was_published_though_the_states_are_gone() -> None:
    group = Group()
    header = UpdateHeader(kind=Kind.MARKER, epoch=41, source_partition=0, source_offset=3)
    marker = update_codec.encode_control(header, role=Role.SNAPSHOTS)
    group.kafka.append("snapshots", 0, marker)
    group.kafka.append("updates", 0, Message(b"s", b"not ours", []))
    assert group.take_over(generation=2)[0].epoch == 42  # else subscribers would not hear it


def test_deleted_events_that_were_learned_are_no_loss() -> None:
    group = Group()
    group.mark(1, 6)
    group.kafka.offsets["events", 0] = 2  # acknowledged late
    group.kafka.delete_before("events", 0, 7)
    partition, _ = group.take_over()
    assert partition.next_offset == 7
