"""How long until many streams are there again: a subscriber's start, a worker's restore.

    python benchmarks/startup.py --streams 1000 --random-features 200 --json

A real worker learns two frames of each stream on a broker of its own, and is stopped. Then:

subscriber    from `Subscriber(...)` until it holds every stream's newest model, in this process
empty disk    a worker's take-over of all partitions, everything from the state topic
same disk     the same, with the disk that it had: what the topic has is there already

Wall time, and the subscriber's CPU seconds where others use the machine too; best of `--times`.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from streamlearn import Subscriber
from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.core.records import Frame
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.child import ChildProcess
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from streamlearn.wire import event_codec

EVENTS, COLUMNS, FRAMES, PARTITIONS = 20, 8, 2, 4
NAMES = tuple(f"x{i}" for i in range(COLUMNS))
PATIENCE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Result:
    """One way of starting."""

    what: str
    wall_s: float
    cpu_s: float | None = None


def feed(kafka: KafkaConfig, topics: Topics, streams: int) -> None:
    """Two frames of each stream, in its partition."""
    producer = Producer({**kafka.client_settings(), "enable.idempotence": True})
    for visit in range(FRAMES):
        for stream in range(streams):
            x = np.random.default_rng([stream, visit]).normal(size=(EVENTS, COLUMNS))
            codes = (x[:, 0] + x[:, 1] > 0).astype(np.int32)
            times = 1.7e9 + visit * EVENTS + np.arange(EVENTS, dtype=np.float64)
            name = f"stream-{stream}"
            frame = Frame(name, NAMES, x, codes, ("no", "yes"), times)
            value, headers = event_codec.encode(frame)
            producer.produce(
                topics["events"].full_name,
                value,
                name,
                partition=stream % PARTITIONS,
                headers=[*headers],
            )
            producer.poll(0)
    producer.flush(60)


class Worker:
    """A worker with a disk of its own."""

    def __init__(self, kafka: KafkaConfig, topics: Topics, folder: Path, features: int) -> None:
        self.disk = folder / "state"
        self.process = ChildProcess(
            "worker",
            [sys.executable, "-m", "streamlearn", "worker", "--metrics-port", "0"],
            env={
                **os.environ,
                "STREAMLEARN_BOOTSTRAP": kafka.bootstrap,
                "STREAMLEARN_TOPICS__PREFIX": topics.prefix,
                "STREAMLEARN_WORKER__STATE_DIR": str(self.disk),
                "STREAMLEARN_WORKER__GROUP": "startup",
                "STREAMLEARN_LEARNER__RANDOM_FEATURES": str(features),
            },
            log_file=folder / "worker.log",
        )

    def wait_for(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not there():
            if self.process.exit_code is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker did not get there:\n{self.process.log_tail()}")
            time.sleep(0.05)

    def take_over(self) -> float:
        """Start it, and stop it when it owns all partitions: seconds, as it logs them."""
        log = self.process.log_file
        begun = log.stat().st_size if log.exists() else 0
        pattern = re.compile(rb"partition \d+: epoch .* (\d+\.\d+) s\n")

        def said() -> list[bytes]:
            return pattern.findall(log.read_bytes()[begun:])

        self.process.start()
        self.wait_for(lambda: len(said()) == PARTITIONS)
        seconds = sum(map(float, said()))
        self.process.stop()
        return seconds


def subscribe(kafka: KafkaConfig, topics: Topics, streams: int) -> tuple[float, float]:
    """Seconds and CPU seconds until all models are held."""
    begun, cpu = time.perf_counter(), time.process_time()
    with Subscriber(kafka, topic_prefix=topics.prefix) as subscriber:
        found = subscriber.streams(timeout_s=PATIENCE_S)
        took = time.perf_counter() - begun, time.process_time() - cpu
        versions = {subscriber.model(name).version for name in found}
    if len(found) != streams or versions != {FRAMES}:
        raise SystemExit(f"{len(found)} streams at versions {versions}, not {streams} at {FRAMES}")
    return took


def measure(streams: int, features: int, times: int, folder: Path) -> list[Result]:
    """All ways, on one broker."""
    with LocalBroker(data_dir=folder / "kafka") as broker:
        kafka = KafkaConfig(bootstrap=broker.bootstrap)
        topics = topic_specs.load(prefix="startup.", partitions=PARTITIONS)
        admin.apply(kafka, topics)
        feed(kafka, topics, streams)
        worker = Worker(kafka, topics, folder, features)
        log, events = KafkaLog(kafka, group="startup"), topics["events"].full_name
        with worker.process:
            worker.wait_for(
                lambda: all(
                    log.committed(events, n) == log.watermarks(events, n)[1]
                    for n in range(PARTITIONS)
                )
            )
            worker.process.stop()
        log.close()
        results = [Result("same disk", min(worker.take_over() for _ in range(times)))]
        empty = []
        for _ in range(times):
            shutil.rmtree(worker.disk)
            empty.append(worker.take_over())
        results.append(Result("empty disk", min(empty)))
        starts = [subscribe(kafka, topics, streams) for _ in range(times)]
        results.append(Result("subscriber", *min(starts)))
    return results


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--random-features", type=int, default=200)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="streamlearn-startup-") as scratch:
        results = measure(given.streams, given.random_features, given.times, Path(scratch))
    print(
        f"{given.streams:,} streams of {COLUMNS} numbers, {given.random_features} random features, "
        f"{PARTITIONS} partitions; best of {given.times}"
    )
    print(f"  {'':12}{'wall':>10}{'CPU':>10}")
    for result in results:
        cpu = "" if result.cpu_s is None else f"{result.cpu_s:>8.2f} s"
        print(f"  {result.what:12}{result.wall_s:>8.2f} s{cpu}")
    if given.json:
        print(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main()
