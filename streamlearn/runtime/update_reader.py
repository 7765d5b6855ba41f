"""The thread that reads slow weights, snapshots and updates from Kafka into a replica.

Nothing is committed and no group is joined: a subscriber reads all partitions by itself.

Starting, in order: 1 slow weights to their end; 2 snapshots to their end; 3 each partition's
updates from where its snapshot marker says that snapshots reach (without a marker: from the
earliest) to their end; 4 caught up, all three are followed. Mending a stream with a gap, a
partition at a time and ever more patiently: its updates pause, its snapshots are read again from
the start, then its updates from the marker.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streamlearn import topics
from streamlearn.config import KafkaConfig
from streamlearn.errors import (
    BrokerError,
    ForeignError,
    FormatError,
    StreamlearnError,
    UpdateError,
)
from streamlearn.runtime.connection import Refusals, answer, no_topics, said
from streamlearn.runtime.replica import Replica, Stamp
from streamlearn.runtime.unusable import Unusable
from streamlearn.wire import update_codec
from streamlearn.wire.signing import Verifier
from streamlearn.wire.update_codec import Kind, Received, Role, UpdateHeader

POLL_S = 0.1
_MODELS = {Kind.FULL, Kind.DELTA, Kind.SNAPSHOT}
_REFUSALS = {  # trying again does not help
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
}

logger = logging.getLogger(__name__)

FIRST_PATIENCE_S = 0.2  # before a partition with a gap is read again; doubles up to the last
LAST_PATIENCE_S = 60.0


@dataclass(slots=True)
class _Mending:
    """How patient we are with one partition that has streams in need of a snapshot."""

    not_before: float  # monotonic seconds
    patience_s: float


class UpdateReader:
    """Reads until stopped. `error` is set, and reading over, when Kafka refuses for good."""

    def __init__(
        self,
        kafka: KafkaConfig,
        *,
        topic_prefix: str,
        replica: Replica,
        verifier: Verifier | None,
        connect_timeout_s: float,
        on_change: Callable[[], None],
    ) -> None:
        names = topics.load(prefix=topic_prefix, partitions=1)
        self._slow = names["slow"].full_name
        self._snapshots = names["snapshots"].full_name
        self._updates = names["updates"].full_name
        self._roles = {
            self._slow: Role.SLOW,
            self._snapshots: Role.SNAPSHOTS,
            self._updates: Role.UPDATES,
        }
        self._assembler = update_codec.Assembler()
        self._verifier = verifier
        self._replica = replica
        self._on_change = on_change
        self._kafka = kafka
        self._bootstrap = kafka.bootstrap
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self.error: Exception | None = None
        self.unusable = Unusable(replica, time.monotonic)
        refusals = Refusals()
        self._consumer = Consumer({**consumer_settings(kafka), "error_cb": refusals})
        self._partitions = self._partitions_of(kafka, refusals, connect_timeout_s)
        self._reading: set[tuple[str, int]] = set()  # not at their end yet
        self._markers: dict[int, UpdateHeader] = {}  # partition to how far its snapshots reach
        self._partition_of: dict[str, int] = {}  # stream to partition
        self._twofold: set[str] = set()  # streams that lie in several partitions, and it was said
        self._mending: dict[int, _Mending] = {}
        self._rereading: set[int] = set()  # partitions whose updates wait for their snapshots
        self._thread = threading.Thread(target=self._run, name="subscriber", daemon=True)

    @property
    def caught_up(self) -> bool:
        """Whether all that was on the topics at the start has been read."""
        return self._caught_up.is_set()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the connection; returns when both are gone."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _partitions_of(self, kafka: KafkaConfig, refusals: Refusals, timeout_s: float) -> int:
        try:
            found = answer(self._consumer, kafka, refusals, timeout_s=timeout_s).topics
            missing = [t for t in (self._slow, self._snapshots, self._updates) if t not in found]
            if missing:
                raise no_topics(kafka, missing)
        except BrokerError:
            self._consumer.close()
            raise
        return len(found[self._updates].partitions)

    def _run(self) -> None:
        try:
            self._read_to_end([TopicPartition(self._slow, 0, OFFSET_BEGINNING)])
            partitions = range(self._partitions)
            self._read_to_end(
                [TopicPartition(self._snapshots, p, OFFSET_BEGINNING) for p in partitions]
            )
            self._read_to_end([self._updates_begin(p) for p in partitions])
            self._caught_up.set()
            self._on_change()
            while not self._stop.is_set():
                self._poll(POLL_S)
                self._mend()
        except KafkaException as error:
            why = said(self._kafka, error.args[0])
            self.error = BrokerError(f"reading from {self._bootstrap} ended: {why}")
        except StreamlearnError as error:
            self.error = BrokerError(f"reading from {self._bootstrap} ended: {error}")
        except Exception as error:
            self.error = error
            raise
        finally:
            self._consumer.close()
            self._on_change()

    def _updates_begin(self, partition: int) -> TopicPartition:
        marker = self._markers.get(partition)
        known = marker is not None and marker.updates_offset >= 0
        offset = marker.updates_offset if marker is not None and known else OFFSET_BEGINNING
        return TopicPartition(self._updates, partition, offset)

    def _read_to_end(self, begin: list[TopicPartition]) -> None:
        self._reading |= {(tp.topic, tp.partition) for tp in begin}
        self._consumer.incremental_assign(begin)
        while self._reading and not self._stop.is_set():
            self._poll(POLL_S)

    def _poll(self, timeout_s: float) -> None:
        message = self._consumer.poll(timeout_s)
        if message is None:
            return
        error = message.error()
        if error is None:
            try:
                self._take(message)
            except Exception as unexpected:  # others' bytes; a subscriber outlives them all
                place = f"{message.topic()} at {message.offset()}"
                self.unusable.take(FormatError(repr(unexpected)), place, None)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._at_end(str(message.topic()), int(message.partition() or 0))
        elif error.fatal() or error.code() in _REFUSALS:  # all else, librdkafka tries again
            raise KafkaException(error)

    def _at_end(self, topic: str, partition: int) -> None:
        self._reading.discard((topic, partition))
        if topic == self._snapshots and partition in self._rereading:
            self._rereading.remove(partition)
            self._consumer.incremental_assign([self._updates_begin(partition)])

    def _mend(self) -> None:
        """Read partitions again whose streams need a snapshot."""
        needing: dict[int, list[str]] = defaultdict(list)
        for stream in self._replica.needing_snapshot():
            needing[self._partition_of[stream]].append(stream)
        for partition in [p for p in self._mending if p not in needing]:
            del self._mending[partition]
        now = time.monotonic()
        for partition in needing:
            mending = self._mending.setdefault(
                partition, _Mending(now + FIRST_PATIENCE_S, FIRST_PATIENCE_S)
            )
            if now >= mending.not_before and partition not in self._rereading:
                mending.patience_s = min(2 * mending.patience_s, LAST_PATIENCE_S)
                mending.not_before = now + mending.patience_s
                self._reread(partition)

    def _reread(self, partition: int) -> None:
        updates = TopicPartition(self._updates, partition)
        snapshots = TopicPartition(self._snapshots, partition, OFFSET_BEGINNING)
        self._rereading.add(partition)
        self._consumer.incremental_unassign([updates, snapshots])
        self._consumer.incremental_assign([snapshots])

    def _take(self, message: Message) -> None:
        topic, partition = str(message.topic()), int(message.partition() or 0)
        role = self._roles[topic]
        key = message.key()
        try:
            chunk = update_codec.decode(
                message.value(),
                key.encode() if isinstance(key, str) else key,
                headers_of(message),
                role=role,
                verifier=self._verifier,
            )
            header = chunk.header
            if role is not Role.SLOW and header.source_partition != partition:
                raise ForeignError(f"it was written for partition {header.source_partition}")
            if header.stream:
                self._lies_in(header.stream, partition)
            if header.kind in _MODELS and self._replica.refuse(
                header.stream, header.epoch, header.version
            ):
                return  # before anything is inflated
            received = self._assembler.add(chunk)
        except UpdateError as error:
            place = f"{topic} {partition} at {message.offset()}"
            self.unusable.take(error, place, _stream_of(key) if role is Role.UPDATES else None)
            return
        if received is not None:
            self._offer(received, partition)

    def _lies_in(self, stream: str, partition: int) -> None:
        before = self._partition_of.get(stream, partition)
        self._partition_of[stream] = partition
        if before != partition and stream not in self._twofold:
            self._twofold.add(stream)
            logger.warning(
                "stream %r was fed to partitions %d and %d: it has two models, and either may be "
                "held; give all its producers one partitioner (the feeder uses murmur2_random)",
                *(stream, before, partition),
            )

    def _offer(self, received: Received, partition: int) -> None:
        header = received.header
        stamp = Stamp(header.epoch, header.newest_event_s, header.source_offset)
        if received.update is not None:
            self._replica.offer(received.update, stamp)
        elif received.slow is not None:
            self._replica.offer_slow(received.slow)
        elif header.kind is Kind.HEARTBEAT and header.stream:
            self._replica.offer_heartbeat(header.stream, header.version, stamp)
        elif header.kind is Kind.TOMBSTONE:
            self._replica.offer_tombstone(header.stream, header.version, stamp)
        elif header.kind is Kind.MARKER:
            before = self._markers.get(partition)
            if before is None or header.epoch >= before.epoch:  # else a frozen old owner's
                self._markers[partition] = header


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    """Header values as bytes; FormatError where there is a null, which ours never have."""
    given = message.headers() or []
    pairs = given.items() if isinstance(given, dict) else given
    found = []
    for name, value in pairs:
        if value is None:
            raise FormatError(f"header {name[:40]!r} is null")
        found.append((name, value.encode() if isinstance(value, str) else value))
    return found


def _stream_of(key: str | bytes | None) -> str | None:
    text = key.decode(errors="replace") if isinstance(key, bytes) else key
    return text or None


def consumer_settings(kafka: KafkaConfig) -> dict[str, str | int | float | bool]:
    """For a consumer of the newest messages that joins no group."""
    return kafka.client_settings() | {
        "group.id": "streamlearn-subscriber",  # librdkafka wants one; nothing is committed
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "check.crcs": True,
        "fetch.queue.backoff.ms": 5,  # the default of 1000 stalls a reader that is fast
        "fetch.wait.max.ms": 50,  # a partition assigned anew waits for the request in flight
        "log_level": 0,
    }
