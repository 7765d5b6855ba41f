"""A constant rate for a long time: do memory, handles, lag and latency stay flat?

    make soak MINUTES=20        or: python benchmarks/soak.py --minutes 20 --frames-per-s 20

A real broker, a worker in a process of its own, a feeder and a subscriber in this one. Eight
streams of 32 numbers and 4 classes get frames of 64 events. Sampled every 2 s: the worker's RSS
and open handles, this process's RSS (feeder and subscriber), the worker's lag in frames, and the
latency from a frame handed to the producer to its model swapped in here (p50 and p99 of those 2 s).
Draws out/soak.png and prints each slope, by least squares, after the first fifth of the time:
until then caches fill and buffers grow.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import psutil
from throughput import PARTITIONS, STREAMS, Sender, Worker

from streamlearn import Subscriber
from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.core.records import Frame
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.replica import Held
from streamlearn.topics import Topics

EVENTS, COLUMNS, CLASSES = 64, 32, 4
EVERY_S = 2.0
WARM = 0.2  # of the time


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at a time."""

    at_s: float
    worker_mib: float
    worker_handles: int
    here_mib: float
    lag_frames: float
    p50_ms: float
    p99_ms: float


UNITS = {
    "worker_mib": "MiB of worker",
    "worker_handles": "handles of worker",
    "here_mib": "MiB of subscriber and feeder",
    "lag_frames": "frames of lag",
    "p50_ms": "ms of latency, p50",
    "p99_ms": "ms of latency, p99",
}


class Latencies:
    """From sent to swapped, frame by frame; `take` gives what was finished since the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, deque[tuple[int, float]]] = defaultdict(deque)
        self._finished: list[float] = []  # ms

    def sent(self, stream: str, version: int) -> None:
        with self._lock:
            self._sent[stream].append((version, time.time()))

    def swapped(self, held: Held) -> None:
        now, waiting = time.time(), self._sent[held.model.stream]
        with self._lock:
            while waiting and waiting[0][0] <= held.model.version:
                self._finished.append(1000 * (now - waiting.popleft()[1]))

    def take(self) -> tuple[float, float]:
        with self._lock:
            finished, self._finished = self._finished, []
        if not finished:
            return float("nan"), float("nan")
        p50, p99 = np.percentile(finished, [50, 99])
        return float(p50), float(p99)


class Feed(threading.Thread):
    """Frames at an even pace until stopped."""

    def __init__(self, sender: Sender, latencies: Latencies, frames_per_s: float) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self._sender, self._latencies = sender, latencies
        self._gap_s = 1 / frames_per_s

    def run(self) -> None:
        rng = np.random.default_rng(7)
        concept = rng.normal(size=(COLUMNS, CLASSES))
        columns = tuple(f"x{i}" for i in range(COLUMNS))
        labels = tuple(f"class {i}" for i in range(CLASSES))
        start, number = time.monotonic(), 0
        while not self.ended.wait(max(0.0, start + number * self._gap_s - time.monotonic())):
            x = rng.normal(size=(EVENTS, COLUMNS))
            codes = (x @ concept + rng.normal(size=(EVENTS, CLASSES))).argmax(axis=1)
            stream = f"stream-{number % STREAMS}"
            times = time.time() + np.arange(EVENTS) / EVENTS
            frame = Frame(stream, columns, x, codes.astype(np.int32), labels, times)
            self._latencies.sent(stream, self._sender.sent[stream] + 1)
            self._sender.send(frame)
            number += 1


def run(minutes: float, frames_per_s: float, random_features: int) -> list[Sample]:
    """Set up, feed, sample."""
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        topics = topic_specs.load(prefix="soak.", partitions=PARTITIONS)
        admin.apply(KafkaConfig(bootstrap=broker.bootstrap), topics)
        worker = Worker(broker.bootstrap, "soak.", Path(folder), random_features)
        with worker.process:
            return sample(worker, broker.bootstrap, topics, minutes, frames_per_s)


def sample(
    worker: Worker, bootstrap: str, topics: Topics, minutes: float, frames_per_s: float
) -> list[Sample]:
    """Feed at that pace; a sample every 2 s, once the worker has caught up with its start."""
    samples: list[Sample] = []
    sender = Sender(bootstrap, topics["events"].full_name)
    latencies, here = Latencies(), psutil.Process()
    feed = Feed(sender, latencies, frames_per_s)
    with Subscriber(bootstrap, topic_prefix=topics.prefix) as subscriber:
        subscriber.on_version(latencies.swapped)
        feed.start()
        worker.wait_for(STREAMS)
        while lag(sender, worker) > STREAMS:
            time.sleep(EVERY_S)
        process, begun = psutil.Process(worker.process.pid), time.monotonic()
        latencies.take()
        while time.monotonic() - begun < minutes * 60:
            time.sleep(EVERY_S)
            samples.append(
                Sample(
                    time.monotonic() - begun,
                    process.memory_info().rss / 2**20,
                    process.num_fds(),
                    here.memory_info().rss / 2**20,
                    lag(sender, worker),
                    *latencies.take(),
                )
            )
        feed.ended.set()
        feed.join()
        sender.flush()
    return samples


def lag(sender: Sender, worker: Worker) -> float:
    """Frames that were sent and are not learned yet."""
    learned = worker.frames()  # first, so that it is never below 0
    return sum(sender.sent.values()) - learned


def slopes(samples: list[Sample]) -> dict[str, tuple[float, float, float]]:
    """Of each value: mean, slope an hour, and the slope's standard error."""
    rest = samples[int(len(samples) * WARM) :]
    found = {}
    for name in UNITS:
        hours = np.array([s.at_s for s in rest]) / 3600
        values = np.array([getattr(s, name) for s in rest], np.float64)
        there = np.isfinite(values)
        (slope, _), spread = np.polyfit(hours[there], values[there], 1, cov=True)
        found[name] = float(values[there].mean()), float(slope), float(np.sqrt(spread[0, 0]))
    return found


def draw(samples: list[Sample], path: Path) -> None:
    """Four panels over time."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(4, 1, figsize=(8, 9), sharex=True)
    minutes = [s.at_s / 60 for s in samples]
    panels = (
        ("RSS, MiB", ("worker_mib", "here_mib")),
        ("open handles", ("worker_handles",)),
        ("lag, frames", ("lag_frames",)),
        ("latency, ms", ("p50_ms", "p99_ms")),
    )
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            axis.plot(minutes, [getattr(s, name) for s in samples], label=name)
        axis.set(ylabel=title, ylim=(0, None))
        axis.legend(loc="lower right")
    axes[-1].set(xlabel="minutes")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run, draw, print slopes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--frames-per-s", type=float, default=20.0)
    parser.add_argument("--random-features", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("out/soak.png"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    samples = run(given.minutes, given.frames_per_s, given.random_features)
    if len(samples) < len(fields(Sample)):
        sys.exit("too short to tell anything: give more --minutes")
    draw(samples, given.out)
    print(
        f"{given.minutes:g} minutes at {given.frames_per_s:g} frames/s of {EVENTS} events, "
        f"{STREAMS} streams, {given.random_features} random features"
    )
    print(f"  {'':32}{'mean':>10}{'slope an hour':>16}{'+-':>10}")
    for name, (mean, slope, error) in slopes(samples).items():
        print(f"  {UNITS[name]:32}{mean:>10.1f}{slope:>+16.2f}{error:>10.2f}")
    print(f"drawn to {given.out}")
    if given.json:
        print(json.dumps([asdict(sample) for sample in samples]))


if __name__ == "__main__":
    main()
