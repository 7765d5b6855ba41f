"""Real workers in processes of their own on a real broker, a feeder, and the comparison."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from confluent_kafka import Producer

from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.runtime.connection import IDEMPOTENT
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from streamlearn.wire import state_codec, update_codec
from streamlearn.wire.state_codec import StateBlob, StateReader
from tests.crash.world import SETTINGS, TRUTH, encoded, frame

STREAMS = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 0}  # to their partitions
ROUND_S = 0.08  # from one frame of each stream to the next
PATIENCE_S = 90.0  # for what takes a second on a machine of one's own


class Fleet:
    """Feeds from `with` to `stop_feeding`; `start` starts workers; all end with the block."""

    def __init__(self, kafka: KafkaConfig, topics: Topics, folder: Path) -> None:
        self.kafka = kafka
        self.topics = topics
        self.folder = folder
        self.log = KafkaLog(kafka, group="fleet")
        self.fed = 0  # frames of each stream
        self._stop = threading.Event()
        self._feeder = threading.Thread(target=self._feed)
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Fleet":
        self._feeder.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._feeder.join()
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.log.close()

    def start(self, disk: str, *, instance: str | None = None) -> "subprocess.Popen[bytes]":
        """A worker whose state lies on `disk`; its log is `disk`.log."""
        settings = {
            "STREAMLEARN_BOOTSTRAP": self.kafka.bootstrap,
            "STREAMLEARN_TOPICS__PREFIX": self.topics.prefix,
            "STREAMLEARN_WORKER__GROUP": "fleet",
            "STREAMLEARN_WORKER__CHECKPOINT_INTERVAL_S": "0.3",
            "STREAMLEARN_LEARNER__RANDOM_FEATURES": str(SETTINGS.random_features),
            "STREAMLEARN_LEARNER__WINDOWS": ",".join(map(str, SETTINGS.windows)),
            "STREAMLEARN_LEARNER__STEP_EVENTS": str(SETTINGS.step_events),
        }
        arguments = ["--state-dir", str(self.folder / disk), "--metrics-port", "0"]
        if instance is not None:
            arguments += ["--instance", instance]
        with (self.folder / f"{disk}.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "streamlearn", "worker", *arguments],
                stderr=log,
                env={**os.environ, **settings},
            )
        self._workers.append(worker)
        return worker

    def said(self) -> str:
        """All workers' logs."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def published(self) -> list[int]:
        """Updates so far, by partition."""
        name = self.topics["updates"].full_name
        return [self.log.watermarks(name, number)[1] for number in range(4)]

    def wait_for_updates(self) -> None:
        """Until every partition has updates that it had not yet."""
        before, deadline = self.published(), time.monotonic() + PATIENCE_S
        while not all(a < b for a, b in zip(before, self.published(), strict=True)):
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def stop_feeding(self) -> None:
        """All that was fed is on the topic."""
        self._stop.set()
        self._feeder.join()

    def wait_until_covered(self) -> None:
        """Until every event is acknowledged, so learned and checkpointed."""
        name, deadline = self.topics["events"].full_name, time.monotonic() + PATIENCE_S
        for number in range(4):
            while self.log.committed(name, number) != self.log.watermarks(name, number)[1]:
                assert time.monotonic() < deadline, self.said()
                time.sleep(0.1)

    def check(self) -> None:
        """Every stream's state and every update is the truth's; each event learned once."""
        seen = set()
        for number in range(4):
            reader = StateReader()
            newest: dict[str, tuple[int, int, bytes]] = {}
            for r in self.log.read(self.topics["state"].full_name, number, 0, 1 << 60):
                found = reader.add(r.value, r.key, r.headers)
                if isinstance(found, StateBlob):
                    key = found.epoch, found.source_offset, found.blob
                    newest[found.stream] = max(key, newest.get(found.stream, key))
            for stream, (_, _, blob) in newest.items():
                state = state_codec.decode(blob, stream=stream).state
                learner = StreamLearner.restore(state, SETTINGS)
                assert learner.version == self.fed, (stream, self.said())
                assert learner.n_events == sum(len(frame(stream, i)) for i in range(self.fed))
                assert learner.model().hash == TRUTH.hash(stream, self.fed)
                seen.add(stream)
            for r in self.log.read(self.topics["updates"].full_name, number, 0, 1 << 60):
                header = update_codec.decode(r.value, r.key, r.headers).header
                assert header.result_hash == TRUTH.hash(header.stream, header.version)
        assert seen == set(STREAMS)

    def _feed(self) -> None:
        settings = {**self.kafka.client_settings(), **IDEMPOTENT, "log_level": 0}
        producer = Producer({**settings, "compression.type": "lz4"})  # as many producers do
        while not self._stop.wait(ROUND_S):
            for stream, partition in STREAMS.items():
                value, headers = encoded(stream, self.fed)
                producer.produce(
                    self.topics["events"].full_name,
                    value,
                    stream,
                    partition=partition,
                    headers=[*headers],
                )
            self.fed += 1
            producer.poll(0)
        assert producer.flush(30) == 0
