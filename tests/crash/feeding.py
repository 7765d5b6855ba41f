"""Feeds the streams of a chaos run, through whatever happens to the broker."""

import threading

from confluent_kafka import Producer

from streamlearn.config import KafkaConfig
from streamlearn.runtime.connection import IDEMPOTENT
from tests.crash.world import encoded

PARTITIONS, STREAMS = 8, 16
ROUND_S = 0.25  # from one frame of each stream to the next


class Feeder(threading.Thread):
    """Every stream's frames in turn, until stopped; `fed` frames of each are on the topic."""

    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        super().__init__(daemon=True)
        self.fed = 0
        self.lost: list[str] = []
        self._topic = topic
        self._ended = threading.Event()
        self._producer = Producer({**kafka.client_settings(), **IDEMPOTENT, "log_level": 0})

    def run(self) -> None:
        while not self._ended.wait(ROUND_S):
            for number in range(STREAMS):
                value, headers = encoded.__wrapped__(f"s{number}", self.fed)
                self._producer.produce(
                    self._topic,
                    value,
                    f"s{number}",
                    partition=number % PARTITIONS,
                    headers=[*headers],
                    on_delivery=self._delivered,
                )
            self.fed += 1
            self._producer.poll(0)

    def stop(self) -> None:
        self._ended.set()
        self.join()
        if self._producer.flush(60):
            self.lost.append("not everything that was fed reached the broker in 60 s")

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self.lost.append(f"a frame did not reach the broker: {error}")
