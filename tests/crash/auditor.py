"""Reads what workers publish while faults happen, and compares it with the truth.

A thread of its own with a client of its own, which outlives the broker. The truth is an
uninterrupted StreamLearner over the same log.
"""

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.errors import BrokerError
from streamlearn.runtime.log import KafkaLog
from streamlearn.runtime.replica import Held
from streamlearn.topics import Topics
from streamlearn.wire import state_codec, update_codec
from streamlearn.wire.state_codec import StateBlob, StateReader
from tests.crash.world import SETTINGS, Truth, frame

EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Sight:
    """The first update of an epoch in a partition."""

    epoch: int
    sent_s: float  # seconds since the epoch, by its worker


class Auditor:
    """Follows the updates topic from `start` to `finish`; `wrong` must stay empty."""

    def __init__(self, kafka: KafkaConfig, topics: Topics) -> None:
        self.updates = 0
        self.wrong: list[str] = []
        self.first: dict[int, list[Sight]] = {}  # by partition
        self.newest_s: dict[int, float] = {}  # when the partition's newest update was sent
        self._kafka = kafka
        self._topics = topics
        self._truth = Truth()
        self._position: Counter[int] = Counter()
        self._seen: list[tuple[str, int, str]] = []  # by a subscriber
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Read to the end."""
        self._stop.set()
        self._thread.join()
        self._read(KafkaLog(self._kafka, group="auditor"))
        self._check_seen()

    def close(self) -> None:
        """End the thread, whatever is unread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def saw(self, held: Held) -> None:
        """A subscriber's callback."""
        self._seen.append((held.model.stream, held.model.version, held.model.hash))

    def truth(self, stream: str, version: int) -> str:
        """The hash that this version must have. After `finish` only: one thread at a time."""
        return self._truth.hash(stream, version)

    def epochs(self) -> dict[int, int]:
        """The newest epoch of each partition."""
        return {number: sights[-1].epoch for number, sights in self.first.items()}

    def _follow(self) -> None:
        log = KafkaLog(self._kafka, group="auditor")
        while not self._stop.wait(EVERY_S):
            with suppress(BrokerError):  # it is away
                self._read(log)
            self._check_seen()
        log.close()

    def _read(self, log: KafkaLog) -> None:
        topic = self._topics["updates"]
        for number in range(topic.partitions):
            for r in log.read(topic.full_name, number, self._position[number], 1 << 60):
                self._position[number] = r.offset + 1
                header = update_codec.decode(r.value, r.key, r.headers).header
                self.updates += 1
                self.newest_s[number] = max(self.newest_s.get(number, 0.0), r.timestamp_s)
                sights = self.first.setdefault(number, [])
                if not sights or header.epoch > sights[-1].epoch:
                    sights.append(Sight(header.epoch, r.timestamp_s))
                self._compare("published", header.stream, header.version, header.result_hash)

    def _check_seen(self) -> None:
        seen, self._seen = self._seen, []
        for stream, version, digest in seen:
            self._compare("seen by the subscriber", stream, version, digest)

    def _compare(self, how: str, stream: str, version: int, digest: str) -> None:
        if digest != self._truth.hash(stream, version):
            self.wrong.append(f"{stream} version {version}, {how}, has another hash")

    def final(self, fed: dict[str, int]) -> list[str]:
        """What is wrong with the states in the state topic after `fed` frames of each stream."""
        log, topic = KafkaLog(self._kafka, group="auditor"), self._topics["state"]
        newest: dict[str, tuple[int, int, bytes]] = {}
        for number in range(topic.partitions):
            reader = StateReader()
            for r in log.read(topic.full_name, number, 0, 1 << 60):
                found = reader.add(r.value, r.key, r.headers)
                if isinstance(found, StateBlob):
                    key = found.epoch, found.source_offset, found.blob
                    newest[found.stream] = max(key, newest.get(found.stream, key))
        log.close()
        wrong = [f"{stream} has no state" for stream in fed.keys() - newest.keys()]
        for stream, (_, _, blob) in sorted(newest.items()):
            state = state_codec.decode(blob, stream=stream).state
            learner, frames = StreamLearner.restore(state, SETTINGS), fed[stream]
            events = sum(len(frame(stream, i)) for i in range(frames))
            if (learner.version, learner.n_events) != (frames, events):
                wrong.append(
                    f"{stream} learned {learner.version} frames, {learner.n_events} events; "
                    f"fed were {frames}, {events}"
                )
            elif learner.model().hash != self._truth.hash(stream, frames):
                wrong.append(f"{stream} ends with another hash")
        return wrong
