"""How fast the whole pipeline is, beside its parts, in one run on one machine.

    make bench        or: python benchmarks/throughput.py --frames 800 --json

On a broker of its own: a topic is filled with frames of 256 events x 32 numbers, 4 classes, then

raw        a confluent consumer reads that topic and counts: what Kafka alone would allow
learner    `StreamLearner.learn` on the same frames, decoded before: what learning alone allows
pipeline   a worker process reads, decodes, learns, publishes, checkpoints
latency    from a frame handed to the producer to its model swapped in by a subscriber, with the
           worker at 20 frames/s and at half of what the pipeline just managed

Figures depend on the machine; the ratios do so less. One worker, and whatever cores there are,
shared with the broker. Where others use the machine too, look at events per CPU-second: of the
process that consumes or learns, all its threads together.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from streamlearn import Subscriber
from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker, free_port
from streamlearn.runtime.child import ChildProcess
from streamlearn.topics import Topics
from streamlearn.wire import event_codec

EVENTS, COLUMNS, CLASSES, STREAMS, PARTITIONS = 256, 32, 4, 8, 4
PASSES = 8  # of the raw consumer over the topic
WARM = 0.2  # of the frames: compiling, first models
GENTLE_FRAMES_PER_S = 20


@dataclass(frozen=True, slots=True)
class Result:
    """One size of the learner. Events per second, seconds, milliseconds."""

    random_features: int
    raw_events_per_s: float
    raw_events_per_cpu_s: float
    learner_events_per_s: float
    learner_events_per_cpu_s: float
    pipeline_events_per_s: float
    pipeline_events_per_cpu_s: float
    pipeline_to_raw: float
    pipeline_to_learner: float
    gentle_p50_ms: float
    gentle_p99_ms: float
    half_load_frames_per_s: float
    half_load_p50_ms: float
    half_load_p99_ms: float


def make_frames(n: int, seed: int = 7) -> list[Frame]:
    """n frames, streams in turn: a linear concept a stream, one label in ten random."""
    rng = np.random.default_rng(seed)
    concepts = rng.normal(size=(STREAMS, COLUMNS, CLASSES))
    columns = tuple(f"x{i}" for i in range(COLUMNS))
    labels = tuple(f"class {i}" for i in range(CLASSES))
    frames = []
    for i in range(n):
        numbers = rng.normal(size=(EVENTS, COLUMNS))
        codes = (numbers @ concepts[i % STREAMS]).argmax(axis=1)
        noise = rng.random(EVENTS) < 0.1
        codes = np.where(noise, rng.integers(CLASSES, size=EVENTS), codes)
        time_s = 1.7e9 + i * EVENTS + np.arange(EVENTS, dtype=np.float64)
        stream = f"stream-{i % STREAMS}"
        frames.append(Frame(stream, columns, numbers, codes.astype(np.int32), labels, time_s))
    return frames


class Sender:
    """Sends frames to their streams' partitions and counts them by stream."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.sent: dict[str, int] = defaultdict(int)
        self._topic = topic
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 3}
        )

    def send(self, frame: Frame) -> None:
        value, headers = event_codec.encode(frame)
        partition = int(frame.stream.rsplit("-", 1)[1]) % PARTITIONS
        self._producer.produce(
            self._topic, value, key=frame.stream, headers=list(headers), partition=partition
        )
        self._producer.poll(0)
        self.sent[frame.stream] += 1

    def flush(self) -> None:
        if self._producer.flush(60):
            raise SystemExit("the broker did not take the frames in 60 s")


class Stopwatch:
    """Wall-clock and CPU seconds since it was made, of a process (None: this one)."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._wall, self._cpu = time.perf_counter(), self._cpu_s()

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rates(self, frames: float) -> tuple[float, float]:
        """Events per second, and per CPU-second."""
        wall_s, cpu_s = time.perf_counter() - self._wall, self._cpu_s() - self._cpu
        return frames * EVENTS / wall_s, frames * EVENTS / max(cpu_s, 0.01)


def raw_rates(bootstrap: str, topic: str, n: int) -> tuple[float, float]:
    """A consumer that does nothing but count."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "raw",
            "fetch.queue.backoff.ms": 5,  # the default of 1000 stalls it
            "fetch.wait.max.ms": 10,  # so does a fetch that waits at the end while we start again
        }
    )
    rates = (0.0, 0.0)
    for _ in range(PASSES):  # the best: the first connects and fills the page cache
        watch = Stopwatch()
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        seen = 0
        while seen < n:
            found = consumer.consume(min(256, n - seen), timeout=1.0)
            seen += sum(message.error() is None for message in found)
        rates = max(rates, watch.rates(n))
    consumer.close()
    return rates


def learner_rates(frames: list[Frame], settings: LearnerSettings) -> tuple[float, float]:
    """Test, learn, reservoir; nothing else."""
    learners = {f.stream: StreamLearner(f.stream, settings) for f in frames[:STREAMS]}
    warm = int(len(frames) * WARM)
    for frame in frames[:warm]:
        learners[frame.stream].learn(frame)
    watch = Stopwatch()
    for frame in frames[warm:]:
        learners[frame.stream].learn(frame)
    return watch.rates(len(frames) - warm)


class Worker:
    """A worker process and what its /metrics say."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, random_features: int) -> None:
        self.port = free_port()
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAMLEARN_")},
            "STREAMLEARN_BOOTSTRAP": bootstrap,
            "STREAMLEARN_TOPICS__PREFIX": prefix,
            "STREAMLEARN_TOPICS__PARTITIONS": str(PARTITIONS),
            "STREAMLEARN_WORKER__GROUP": prefix + "bench",
            "STREAMLEARN_WORKER__STATE_DIR": str(folder / "state"),
            "STREAMLEARN_WORKER__METRICS_PORT": str(self.port),
            "STREAMLEARN_LEARNER__RANDOM_FEATURES": str(random_features),
        }
        command = [sys.executable, "-m", "streamlearn", "worker"]
        self.process = ChildProcess("worker", command, env=env, log_file=folder / "worker.log")

    def frames(self) -> float:
        """Frames learned so far; 0 while it starts."""
        if self.process.exit_code is not None:
            raise SystemExit(f"the worker ended:\n{self.process.log_tail()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
                text = page.read().decode()
        except OSError:
            return 0.0
        found = [line for line in text.splitlines() if line.startswith("streamlearn_frames_total")]
        return float(found[0].split()[-1]) if found else 0.0

    def wait_for(self, frames: int, timeout_s: float = 300.0) -> None:
        """Until so many frames were learned."""
        begun, first = time.monotonic(), self.frames()
        while (now := self.frames()) < frames:
            waited_s = time.monotonic() - begun
            if waited_s > timeout_s:
                raise SystemExit(f"only {now:.0f} of {frames} frames in {timeout_s} s")
            # asking costs the worker some 5 ms, which is half a frame: seldom, and then on time
            left_s = (frames - now) / (now - first) * waited_s if now > first else 0.4
            time.sleep(min(max(0.5 * left_s, 0.02), 1.0))


@contextmanager
def swaps(bootstrap: str, prefix: str) -> Iterator[dict[str, list[tuple[int, float]]]]:
    """Follow all streams: (version, when it was swapped in) a stream, oldest first."""
    seen: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with Subscriber(bootstrap, topic_prefix=prefix) as subscriber:
        subscriber.streams()
        subscriber.on_version(
            lambda held: seen[held.model.stream].append((held.model.version, time.time()))
        )
        yield seen


def latencies_ms(
    sender: Sender,
    frames: list[Frame],
    seen: dict[str, list[tuple[int, float]]],
    frames_per_s: float,
) -> tuple[float, float]:
    """p50 and p99 of sent to swapped, for frames sent at an even pace."""
    sent: list[tuple[str, int, float]] = []
    start = time.time()
    for i, frame in enumerate(frames):
        time.sleep(max(0.0, start + i / frames_per_s - time.time()))
        sent.append((frame.stream, sender.sent[frame.stream] + 1, time.time()))
        sender.send(frame)
    sender.flush()
    done = threading.Event()
    last = {stream: version for stream, version, _ in sent}
    deadline = time.time() + 60
    while any(not seen[s] or seen[s][-1][0] < version for s, version in last.items()):
        if time.time() > deadline:
            raise SystemExit("the last versions did not reach the subscriber in 60 s")
        done.wait(0.05)
    waited = [
        next(when for version, when in seen[stream] if version >= wanted) - then
        for stream, wanted, then in sent
    ]
    p50, p99 = np.percentile(waited, [50, 99]) * 1000
    return float(p50), float(p99)


def measure(
    bootstrap: str, topics: Topics, frames: list[Frame], random_features: int, seconds: float
) -> Result:
    """All figures for one size of the learner."""
    sender = Sender(bootstrap, topics["events"].full_name)
    for frame in frames:
        sender.send(frame)
    sender.flush()
    raw = raw_rates(bootstrap, topics["events"].full_name, len(frames))
    settings = LearnerSettings(random_features=random_features)
    learner = learner_rates(frames, settings)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(bootstrap, topics.prefix, Path(folder), random_features)
        with worker.process:
            worker.wait_for(int(len(frames) * WARM))
            watch, before = Stopwatch(worker.process.pid), worker.frames()
            worker.wait_for(len(frames))
            pipeline = watch.rates(len(frames) - before)
            half = pipeline[0] / EVENTS / 2
            more = make_frames(int(seconds * max(GENTLE_FRAMES_PER_S, half)), seed=8)
            with swaps(bootstrap, topics.prefix) as seen:
                few = more[: int(seconds * GENTLE_FRAMES_PER_S)]
                gentle = latencies_ms(sender, few, seen, GENTLE_FRAMES_PER_S)
                loaded = latencies_ms(sender, more[: int(seconds * half)], seen, half)
    return Result(
        random_features,
        *(*raw, *learner, *pipeline, pipeline[0] / raw[0], pipeline[0] / learner[0]),
        *(*gentle, half, *loaded),
    )


def show(result: Result) -> None:
    """Print one size's figures for people."""
    of_raw = result.learner_events_per_s / result.raw_events_per_s
    rows = (
        ("raw consumer", result.raw_events_per_s, result.raw_events_per_cpu_s, "1"),
        (
            "learner alone",
            result.learner_events_per_s,
            result.learner_events_per_cpu_s,
            f"{of_raw:.3f} of raw",
        ),
        (
            "pipeline",
            result.pipeline_events_per_s,
            result.pipeline_events_per_cpu_s,
            f"{result.pipeline_to_raw:.3f} of raw, {result.pipeline_to_learner:.2f} of the learner",
        ),
    )
    print(f"\n{result.random_features} random features, frames of {EVENTS} x {COLUMNS}")
    print(f"  {'':14}{'events/s':>12}{'per CPU-s':>12}   ratio of events/s")
    for name, per_s, per_cpu_s, ratio in rows:
        print(f"  {name:14}{per_s:>12,.0f}{per_cpu_s:>12,.0f}   {ratio}")
    print(
        f"  sent to swapped at {GENTLE_FRAMES_PER_S} frames/s: "
        f"p50 {result.gentle_p50_ms:.0f} ms, p99 {result.gentle_p99_ms:.0f} ms"
    )
    print(
        f"  sent to swapped at half load ({result.half_load_frames_per_s:.0f} frames/s): "
        f"p50 {result.half_load_p50_ms:.0f} ms, p99 {result.half_load_p99_ms:.0f} ms"
    )


def main() -> None:
    """Measure each size, print it, with --json as one object on the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=600, help="to learn at full speed")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 64], help="random features")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each latency run")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    frames = make_frames(given.frames)
    results = []
    with LocalBroker(on_progress=lambda text: print(text, file=sys.stderr)) as broker:
        for size in given.sizes:
            kafka = KafkaConfig(bootstrap=broker.bootstrap)
            topics = topic_specs.load(prefix=f"bench{size}.", partitions=PARTITIONS)
            admin.apply(kafka, topics)
            results.append(measure(broker.bootstrap, topics, frames, size, given.seconds))
            show(results[-1])
    if given.json:
        print(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main()
