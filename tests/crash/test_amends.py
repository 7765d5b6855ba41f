"""States and log that don't fit, and what a person decided: on a log in memory, with crashes.

The truth is a StreamLearner over the frames that should have counted, one by one.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

import pytest

from streamlearn.core.learner import StreamLearner
from streamlearn.errors import StateError
from streamlearn.runtime.amends import Amends, Decision
from streamlearn.runtime.restore import Restore
from streamlearn.stores.memory import MemoryStore
from streamlearn.testing import Crashed, CrashPoint, MemoryPublisher
from streamlearn.wire.cloud_events import Message
from tests.crash.world import PARTITIONS, SETTINGS, STREAMS, TOPICS, World, encoded, frame

GAP, ANEW = Decision.ACCEPT_GAP, Decision.FROM_EARLIEST


class Batch(Enum):
    """Which of a Past's messages."""

    LEARNED = "learned and checkpointed"
    WAITING = "sent after that"
    LATER = "sent after something broke"


@dataclass(frozen=True, slots=True)
class Sent:
    """One message of the events topic."""

    batch: Batch
    partition: int
    offset: int
    stream: str
    number: int  # of its stream's frame


class Past(World):
    """12 messages, of which a worker learned and checkpointed the first 8; its disk is `disk`."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.said: list[str] = []
        self.sent: list[Sent] = []
        self.send(8, Batch.LEARNED)
        worker = self.worker("disk")
        worker.own()
        worker.finish()
        self.known = {n: self.kafka.watermarks("events", n)[1] for n in PARTITIONS}
        self.send(4, Batch.WAITING)
        self.low = dict.fromkeys(PARTITIONS, 0)

    def send(self, frames: int, batch: Batch = Batch.LATER) -> None:
        for _ in range(frames):
            name = self.rng.choice(sorted(STREAMS))
            number = sum(sent.stream == name for sent in self.sent)
            message = Message(name.encode(), *encoded(name, number))
            offset = self.kafka.append("events", STREAMS[name], message, self.clock())
            self.sent.append(Sent(batch, STREAMS[name], offset, name, number))

    def shorter_by_2(self, number: int) -> int:
        """Where a partition ends that lost what waited, and two more."""
        return max(0, self.known[number] - 2)

    def expected(self, counts: Callable[[Sent], bool]) -> dict[str, str]:
        """Hashes after the messages that count."""
        learners: dict[str, StreamLearner] = {}
        for sent in filter(counts, self.sent):
            learner = learners.setdefault(sent.stream, StreamLearner(sent.stream, SETTINGS))
            learner.learn(frame(sent.stream, sent.number))
        return {name: learner.model().hash for name, learner in learners.items()}

    def decide(
        self, decision: Decision, disk: str, effect: Callable[[str], None] = lambda name: None
    ) -> None:
        """As a worker does that was started with a flag, on a disk of its own."""
        rows = self.disks.setdefault(disk, {})
        publisher = MemoryPublisher(self.kafka, self.clock)
        Amends(
            TOPICS,
            log=self.kafka,
            offsets=self.kafka,
            restore=Restore(
                TOPICS, log=self.kafka, publisher=publisher, clock=self.clock, effect=effect
            ),
            open_store=lambda number: MemoryStore(rows.setdefault(number, {})),
            say=self.said.append,
        ).carry_out(decision)

    def learned(self, disk: str) -> dict[str, str]:
        """Each stream's hash after a worker on that disk has learned to the end."""
        worker = self.worker(disk)
        worker.own()
        return worker.finish()


def no_markers(past: Past) -> None:
    """The state topic and the disks are gone, the group's offsets are not."""
    past.kafka.make_anew("state")
    past.disks.clear()


def cut(past: Past) -> None:
    """Retention removed messages that were not learned: all but the last of each partition."""
    for number in PARTITIONS:
        past.low[number] = past.kafka.watermarks("events", number)[1] - 1
        past.kafka.delete_before("events", number, past.low[number])


def anew(past: Past) -> None:
    """The events topic was deleted and made again; the new one has other messages."""
    past.kafka.make_anew("events")
    past.send(6)


def shorter(past: Past) -> None:
    """The events topic lost its last messages, learned ones too; others will take their places."""
    for number in PARTITIONS:
        past.kafka.lose_from("events", number, past.shorter_by_2(number))


def state_anew(past: Past) -> None:
    """The state topic was deleted and made again; the disk is still there."""
    past.kafka.make_anew("state")


def corrupt(past: Past) -> None:
    """A record of the state topic cannot be read."""
    past.kafka.append("state", 0, Message(b"a\x001", b"not ours", []))


CASES: list[tuple[Callable[[Past], None], Decision, Callable[[Past, Sent], bool]]] = [
    (no_markers, GAP, lambda past, sent: True),
    (no_markers, ANEW, lambda past, sent: True),
    (
        cut,
        GAP,
        lambda past, sent: sent.batch is Batch.LEARNED or sent.offset >= past.low[sent.partition],
    ),
    (cut, ANEW, lambda past, sent: sent.offset >= past.low[sent.partition]),
    (anew, GAP, lambda past, sent: sent.batch is not Batch.WAITING),
    (anew, ANEW, lambda past, sent: sent.batch is Batch.LATER),
    (shorter, GAP, lambda past, sent: sent.batch is not Batch.WAITING),
    (
        shorter,
        ANEW,
        lambda past, sent: (
            sent.batch is Batch.LATER
            or (sent.batch is Batch.LEARNED and sent.offset < past.shorter_by_2(sent.partition))
        ),
    ),
    (state_anew, GAP, lambda past, sent: True),
    (state_anew, ANEW, lambda past, sent: True),
    (corrupt, ANEW, lambda past, sent: True),
]
cases = pytest.mark.parametrize(
    ("breaks", "decision", "counts"),
    CASES,
    ids=[f"{breaks.__name__} {decision}" for breaks, decision, _ in CASES],
)


@cases
def test_a_worker_stops_and_goes_on_as_decided(
    breaks: Callable[[Past], None], decision: Decision, counts: Callable[[Past, Sent], bool]
) -> None:
    past = Past(0)
    breaks(past)
    disk = "another disk" if breaks is corrupt else "disk"
    with pytest.raises(StateError, match="streamlearn worker --"):
        past.learned(disk)
    past.decide(decision, disk)
    assert past.said
    assert past.learned(disk) == past.expected(partial(counts, past))
    past.kafka.compact("state")
    past.send(3)
    assert past.learned("an empty disk") == past.expected(partial(counts, past))


@cases
def test_a_crash_while_it_is_carried_out_costs_another_try(
    breaks: Callable[[Past], None], decision: Decision, counts: Callable[[Past, Sent], bool]
) -> None:
    for gap in itertools.count(1):
        past = Past(gap)
        breaks(past)
        disk = "another disk" if breaks is corrupt else "disk"
        try:
            past.decide(decision, disk, CrashPoint(gap))
        except Crashed:
            past.decide(decision, disk)
            assert past.learned(disk) == past.expected(partial(counts, past))
        else:
            break
    assert gap > 1 or (breaks, decision) == (no_markers, GAP)  # which claims nothing


def test_what_was_forgotten_is_void_on_disks_that_come_back_late() -> None:
    past = Past(0)
    late = past.worker("late disk")
    late.own()
    late.finish()
    frozen = past.worker("frozen disk")  # in memory it has all streams
    frozen.own()
    frozen.finish()
    cut(past)
    past.decide(ANEW, "disk")
    last = past.worker("disk")
    last.own()
    last.finish()
    left = past.expected(lambda sent: sent.offset >= past.low[sent.partition])
    assert past.learned("late disk") == left
    past.send(3)
    frozen.own()
    assert frozen.finish() == past.expected(
        lambda sent: sent.batch is Batch.LATER or sent.offset >= past.low[sent.partition]
    )


def test_what_fits_is_left_alone() -> None:
    past = Past(0)
    offsets, end = past.kafka.offsets.copy(), past.kafka.watermarks("state", 0)
    past.decide(GAP, "disk")
    assert past.kafka.offsets == offsets and past.kafka.watermarks("state", 0) == end
    assert not past.said
    assert past.learned("disk") == past.expected(lambda sent: True)


def test_a_store_of_an_old_state_topic_does_not_win_over_who_went_on() -> None:
    past = Past(0)
    state_anew(past)
    past.decide(GAP, "disk")
    past.learned("disk")
    old = Past(0)
    past.disks["old disk"] = old.disks["disk"]
    with pytest.raises(StateError, match="others have gone on in the new topic"):
        past.decide(GAP, "old disk")
