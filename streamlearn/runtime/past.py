"""What an operator asks of the past: replays, histories, audits, and going back to a version.

Puts the pure parts (`replay`, `history`, `audit`, `rollback`) on a real broker. Reads only, but
for `roll_back`, which sends one message and waits for what becomes of it.

A rollback, in order: 1 the state of the old version is learned again from the log; 2 it must be
the version that was published, where that is still known; 3 it is sent as a message of the events
topic, acknowledged; 4 the worker that meets it there publishes the old values as a new version.
A crash before 3 is done leaves some parts in the log that lead to nothing.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType

from streamlearn import topics as topic_specs
from streamlearn.config import Config
from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.errors import BrokerError, InputError, StateError, UpdateError
from streamlearn.runtime import keys
from streamlearn.runtime.audit import Verdict, audit
from streamlearn.runtime.connection import TIMEOUT_S, connect
from streamlearn.runtime.history import Found, Published, find_published
from streamlearn.runtime.log import KafkaLog
from streamlearn.runtime.newest_state import newest_state
from streamlearn.runtime.publisher import KafkaPublisher
from streamlearn.runtime.recent import waiting
from streamlearn.runtime.replay import Replay, Replayed, Step, Until, replay
from streamlearn.runtime.rollback import Rollbacks
from streamlearn.wire import dead_letter_codec, rollback_codec, update_codec
from streamlearn.wire.state_codec import StoredState
from streamlearn.wire.update_codec import Kind

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What became of a rollback."""

    to_version: int
    offset: int  # of its last part, in the events topic
    version: int | None  # that has the old values; None: no worker has met it yet
    proven: bool  # whether the old version's hash was still there to compare with


class Past(AbstractContextManager["Past"]):
    """One installation's past. BrokerError where no broker answers or topics are missing."""

    def __init__(self, config: Config) -> None:
        kafka, prefix = config.kafka, config.topics.prefix
        events = prefix + "events"
        known = connect(kafka).list_topics(timeout=TIMEOUT_S).topics
        if events not in known:
            raise BrokerError(
                f"{events} is missing at {kafka.bootstrap}; check STREAMLEARN_TOPICS__PREFIX, or "
                "create the topics with `streamlearn topics apply`"
            )
        self._config = config
        self._topics = topic_specs.load(prefix=prefix, partitions=len(known[events].partitions))
        self.events = events
        self._log = KafkaLog(kafka, group=config.worker.group)
        self._lookups = KafkaLog(kafka, group=config.worker.group)  # while the other one is read
        self._verifier = keys.trusted(
            config.worker.signing_key, config.subscriber.public_keys, prefix=prefix
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._log.close()
        self._lookups.close()

    @cached_property
    def found(self) -> Found:
        """What workers published; read once."""
        return find_published(self._log, self._topics, verifier=self._verifier)

    def partition_of(self, stream: str, given: int | None = None) -> int:
        """Where the stream lies, or is said to. InputError: nowhere, or in several partitions."""
        if given is not None:
            last = self._topics["events"].partitions - 1
            if given > last:
                raise InputError(f"{self.events} has partitions 0 to {last}, not {given}")
            return given
        number = self.found.partition_of(stream)
        if number is not None:
            return number
        for number in range(self._topics["events"].partitions):  # fed, and not published
            low, end = self._log.watermarks(self.events, number)
            for record in self._log.read(self.events, number, low, end):
                if record.key == stream.encode():
                    return number
        names = sorted({entry.stream for entry in self.found.published})
        raise InputError(
            f"no stream {stream!r} in {self.events}; published were "
            f"{', '.join(names[:20]) or 'none'}{' and more' if len(names) > 20 else ''}"
        )

    def state(self, stream: str, partition: int | None = None) -> StoredState:
        """The state that the worker wrote last; InputError where there is none."""
        number = self.partition_of(stream, partition)
        return newest_state(self._log, self._topics["state"].full_name, number, stream)

    def waiting(self, stream: str, partition: int | None = None) -> Frame | None:
        """The stream's newest events without a label; None where there are none."""
        number = self.partition_of(stream, partition)
        return waiting(self._log, self.events, number, stream)

    def model(self, stream: str, partition: int | None = None) -> Model:
        """The model of the state that the worker wrote last. Needs its learner settings."""
        state = self.state(stream, partition).state
        return StreamLearner.restore(state, self._config.learner).model()

    def replay(
        self, stream: str, until: Until, partition: int | None = None
    ) -> Iterator[Step | Replayed]:
        """Learn the stream again: a Step a version, then the Replayed."""
        number = self.partition_of(stream, partition)
        learning = Replay(
            stream, self._config.learner, partition=number, rollbacks=self._rollbacks()
        )
        return replay(self._log, self.events, learning, number, until)

    def replayed(self, stream: str, until: Until, partition: int | None = None) -> Replayed:
        """Learn the stream again, to its end."""
        *_, last = self.replay(stream, until, partition)
        if not isinstance(last, Replayed):
            raise RuntimeError("a replay ended without saying how")
        return last

    def published_as(self, replayed: Replayed) -> bool | None:
        """Whether its version was published with its hash; None: nothing is known of it."""
        learner = replayed.learner
        hashes = {
            entry.hash
            for entry in self.found.of(learner.stream)
            if entry.version == learner.version and entry.partition == replayed.partition
        }
        return None if not hashes else hashes == {learner.model().hash}

    def is_rollback(self, entry: Published) -> bool:
        """Whether a rollback made this version, as far as the log still tells."""
        if entry.kind != Kind.FULL.value:
            return False
        at = entry.source_offset
        records = self._log.read(self.events, entry.partition, at, at + 1)
        return any(rollback_codec.is_rollback(record.headers) for record in records)

    def audit(self, stream: str | None = None) -> Iterator[Verdict]:
        """Compare everything published, or one stream's, with a replay."""
        found = self.found
        if stream is not None:
            found = Found(found.of(stream), found.refused, found.why)
            if not found.published:
                self.partition_of(stream)  # InputError for one that nobody knows
                raise InputError(f"nothing that was published of {stream!r} is left to verify")
        return audit(self._log, self.events, found, self._config.learner, self._rollbacks())

    def roll_back(
        self, stream: str, version: int, *, wait_s: float, partition: int | None = None
    ) -> RolledBack:
        """Send the state of an old version; StateError where it can't be had, or is refused."""
        replayed = self.replayed(stream, Until(version=version), partition)  # 1
        proven = self.published_as(replayed)  # 2
        self._check(replayed, proven)
        number, learner = replayed.partition, replayed.learner
        ends = {
            name: self._log.watermarks(self._topics[name].full_name, place)[1]
            for name, place in (("events", number), ("updates", number), ("deadletters", 0))
        }
        messages = rollback_codec.encode(
            StoredState(stream, 0, replayed.offset, learner.state()),
            version=version,
            result_hash=learner.model().hash,
            after_offset=ends["events"],
            sent_s=time.time(),
            signer=keys.signer(self._config.worker.signing_key, prefix=self._config.topics.prefix),
        )
        publisher = KafkaPublisher(self._config.kafka, client_id="streamlearn-rollback")
        for message in messages:  # 3
            publisher.send(self.events, number, message)
        offset = publisher.flush()[self.events, number].last
        became = self._wait(stream, number, offset, ends, time.monotonic() + wait_s)  # 4
        return RolledBack(version, offset, became, bool(proven))

    def _check(self, replayed: Replayed, proven: bool | None) -> None:
        what = f"version {replayed.learner.version} of {replayed.learner.stream!r}"
        if proven is False:
            raise StateError(
                f"a replay of {what} is not what was published as that; give this command the "
                "workers' learner settings, and see `streamlearn verify`. Nothing was sent"
            )
        if replayed.cut and proven is None:
            raise StateError(
                f"{what} cannot be had from the log: retention removed the events of partition "
                f"{replayed.partition} before offset {replayed.low}, and no published hash of that "
                "version is left to compare with; keep events longer (retention.ms). "
                "Nothing was sent"
            )

    def _wait(
        self, stream: str, number: int, offset: int, ends: dict[str, int], deadline: float
    ) -> int | None:
        """The version that the rollback made; StateError if the worker refused it."""
        updates, letters = self._topics["updates"].full_name, self._topics["deadletters"].full_name
        while True:
            for r in self._log.read(updates, number, ends["updates"], 1 << 62):
                ends["updates"] = r.offset + 1
                try:
                    header = update_codec.decode(r.value, r.key, r.headers).header
                except UpdateError:
                    continue
                if (header.stream, header.source_offset) == (stream, offset):
                    return header.version
            for r in self._log.read(letters, 0, ends["deadletters"], 1 << 62):
                ends["deadletters"] = r.offset + 1
                try:
                    letter = dead_letter_codec.decode(r.value, r.key, r.headers)
                except UpdateError:
                    continue
                if (letter.topic, letter.partition, letter.offset) == (self.events, number, offset):
                    raise StateError(f"the worker refused the rollback: {letter.detail}")
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL_S)

    def _rollbacks(self) -> Rollbacks:
        return Rollbacks(self._lookups, self.events, verifier=self._verifier)
