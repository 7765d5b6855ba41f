"""One worker with more and more streams: memory and cost an event, within a memory budget.

    make bench-streams      or: python benchmarks/streams.py --sizes 10 1000 10000 --json

Every stream gets 20 events of 8 numbers, in `--visits` frames: first all streams' first frames,
then all their second ones, so with more streams than fit in memory each visit is a cold one (the
worst order for keeping those used last). What is measured is a worker's `Trainer`, in a process of
its own for each size: decode, load, learn, publish, evict to a real RocksDB on disk, checkpoint
every 5 s. Without `--broker` only the network is missing: a publisher in the process counts and
drops what is sent, and acknowledges it. With `--broker` a real worker reads from a real broker.

Cost an event is CPU time (of all threads, RocksDB's too), since others may use the machine; it
is compared with that of 10 streams, which is measured over and over with 10 new ones.
Draws out/streams.png. `random_features` sets the size of a state on disk: 670 KB at 200, 32 KB at
16. How far a size is, is said on stderr once a minute.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import psutil
from confluent_kafka import Producer

from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker, free_port
from streamlearn.runtime.child import ChildProcess
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.publisher import Acknowledged, TopicPartition
from streamlearn.runtime.trainer import Trainer
from streamlearn.runtime.warm_up import warm_up
from streamlearn.stores.rocksdb import RocksDBStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.testing import MemoryKafka
from streamlearn.wire import event_codec
from streamlearn.wire.cloud_events import Message

EVENTS, COLUMNS, PARTITIONS = 20, 8, 4
BATCH = 64  # frames, as the worker takes them at most
CHECKPOINT_S = 5.0
TOLD_S = 60.0  # from one line on stderr to the next
LEAST_FRAMES = 1000  # with fewer, the same is done again with new streams
NAMES = tuple(f"x{i}" for i in range(COLUMNS))


@dataclass(frozen=True, slots=True)
class Result:
    """One number of streams."""

    streams: int
    events: int
    events_per_s: float
    cpu_ms_per_event: float
    before_mib: float  # RSS before the first stream
    peak_mib: float  # of RSS
    hot: int  # streams in memory at the end
    disk_mib: float
    sent_mib: float  # to all topics
    seconds: float


class DroppingPublisher:
    """Acknowledges everything, keeps nothing but offsets; the log tells how far they are."""

    def __init__(self, log: "EmptyLog") -> None:
        self.bytes = 0
        self._log = log
        self._taken: dict[TopicPartition, Acknowledged] = {}

    def send(self, topic: str, partition: int, message: Message, *, vital: bool = True) -> None:
        place = topic, partition
        offset = self._log.ends.get(place, 0)
        self._log.ends[place] = offset + 1
        before = self._taken.get(place)
        first, count = (offset, 0) if before is None else (before.first, before.count)
        self._taken[place] = Acknowledged(first, offset, count + 1)
        self.bytes += len(message.value or b"")

    def flush(self) -> Mapping[TopicPartition, Acknowledged]:
        taken, self._taken = self._taken, {}
        return taken


class EmptyLog(MemoryKafka):
    """Topics that are as long as what was sent to them, and have nothing to read."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[TopicPartition, int] = {}

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, self.ends.get((topic, partition), 0)


def frame(number: int, visit: int, visits: int) -> Frame:
    """The stream's frame of that visit: two classes, a plane between them."""
    rng = np.random.default_rng([number, visit])
    n = EVENTS // visits
    x = rng.normal(size=(n, COLUMNS))
    codes = (x[:, 0] + x[:, 1] > 0).astype(np.int32)
    times = 1.7e9 + visit * EVENTS + np.arange(n, dtype=np.float64)
    return Frame(f"stream-{number}", NAMES, x, codes, ("no", "yes"), times)


def batches(first: int, streams: int, visits: int) -> Iterator[dict[int, list[Arrival]]]:
    """Micro-batches of all visits; a stream's partition and offsets follow from its number."""
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    batch: dict[int, list[Arrival]] = {}
    size = 0
    for visit in range(visits):
        for number in range(first, first + streams):
            place = number % PARTITIONS
            value, headers = event_codec.encode(frame(number, visit, visits))
            key = f"stream-{number}".encode()
            arrival = Arrival(offsets[place], key, value, headers, time.time())
            batch.setdefault(place, []).append(arrival)
            offsets[place] += 1
            size += 1
            if size == BATCH:
                yield batch
                batch, size = {}, 0
    if batch:
        yield batch


class Meter:
    """CPU and wall time inside `with` blocks, and the highest RSS at their ends."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self.peak = 0
        self._process = psutil.Process()

    def rss(self) -> int:
        return int(self._process.memory_info().rss)

    def __enter__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu_s += time.process_time() - self._cpu
        self.wall_s += time.perf_counter() - self._wall
        self.peak = max(self.peak, self.rss())


def open_store(folder: Path, partition: int) -> RocksDBStore:
    """A partition's rows."""
    return RocksDBStore(folder / str(partition))


def measure(
    streams: int, visits: int, random_features: int, budget_mib: int, limit_s: float, folder: Path
) -> Result:
    """In this process."""
    settings = LearnerSettings(random_features=random_features)
    warm_up(settings)
    topics = topic_specs.load(prefix="", partitions=PARTITIONS)
    meter, events, sent, hot, first = Meter(), 0, 0, 0, 0
    before = meter.rss()
    while events < LEAST_FRAMES * EVENTS / visits or first == 0:
        publisher = DroppingPublisher(log := EmptyLog())
        metrics = WorkerMetrics()
        trainer = Trainer(
            settings,
            topics,
            worker_id="bench",
            open_store=partial(open_store, folder / str(first)),
            memory_budget_bytes=budget_mib << 20,
            publisher=publisher,
            log=log,
            metrics=metrics,
            clock=time.time,
        )
        trainer.own(range(PARTITIONS), 1)
        due, told = meter.wall_s + CHECKPOINT_S, meter.wall_s + TOLD_S
        for batch in batches(first, streams, visits):
            with meter:
                trainer.learn(batch)
                if meter.wall_s >= due:  # of measured time: making frames is not a worker's work
                    trainer.checkpoint()
                    due = meter.wall_s + CHECKPOINT_S
            events += sum(map(len, batch.values())) * EVENTS // visits
            if meter.wall_s >= told:
                told = meter.wall_s + TOLD_S
                cost = 1000 * meter.cpu_s / events
                print(f"{streams:,} streams: {events:,} events, {cost:.3f} ms", file=sys.stderr)
            if meter.wall_s > limit_s:
                break
        with meter:
            trainer.checkpoint()
        hot = int(metrics.gauge("streamlearn_hot_streams")._value.get())
        sent += publisher.bytes
        trainer.close()
        first += streams
    return Result(
        streams=streams,
        events=events,
        events_per_s=events / meter.wall_s,
        cpu_ms_per_event=1000 * meter.cpu_s / events,
        before_mib=before / 2**20,
        peak_mib=meter.peak / 2**20,
        hot=hot,
        disk_mib=size_mib(folder),
        sent_mib=sent / 2**20,
        seconds=meter.wall_s,
    )


def in_its_own_process(streams: int, given: argparse.Namespace) -> Result:
    """One size in a process of its own, so that RSS is this size's own."""
    command = [
        *(sys.executable, __file__, "--one", "--sizes", str(streams)),
        *("--visits", str(given.visits), "--random-features", str(given.random_features)),
        *("--budget-mib", str(given.budget_mib), "--limit-s", str(given.limit_s)),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def measure_with_broker(streams: int, given: argparse.Namespace, folder: Path) -> Result:
    """A real worker on a real broker; RSS, CPU and time are the worker's."""
    port = free_port()
    with LocalBroker() as broker:
        topics = topic_specs.load(prefix="many.", partitions=PARTITIONS)
        admin.apply(KafkaConfig(bootstrap=broker.bootstrap), topics)
        settings = {
            "STREAMLEARN_BOOTSTRAP": broker.bootstrap,
            "STREAMLEARN_TOPICS__PREFIX": topics.prefix,
            "STREAMLEARN_WORKER__STATE_DIR": str(folder / "state"),
            "STREAMLEARN_WORKER__METRICS_PORT": str(port),
            "STREAMLEARN_WORKER__MEMORY_BUDGET_MIB": str(given.budget_mib),
            "STREAMLEARN_LEARNER__RANDOM_FEATURES": str(given.random_features),
        }
        producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
        frames = 0
        for batch in batches(0, streams, given.visits):
            for place, arrivals in batch.items():
                for a in arrivals:
                    producer.produce(
                        topics["events"].full_name,
                        a.value,
                        a.key,
                        partition=place,
                        headers=[*a.headers],
                    )
                    frames += 1
            producer.flush(60)
        worker = ChildProcess(
            "worker",
            [sys.executable, "-m", "streamlearn", "worker"],
            env={**os.environ, **settings},
            log_file=folder / "worker.log",
        )
        with worker:
            while scraped(port, "streamlearn_frames_total") == 0:
                if worker.exit_code is not None:
                    raise SystemExit(f"the worker ended:\n{worker.log_tail()}")
                time.sleep(0.05)
            process = psutil.Process(worker.pid)
            before, peak = process.memory_info().rss, 0
            begun, times = time.perf_counter(), process.cpu_times()
            already = learned = scraped(port, "streamlearn_frames_total")
            while learned < frames and time.perf_counter() - begun < given.limit_s:
                peak = max(peak, process.memory_info().rss)
                time.sleep(0.1)
                learned = scraped(port, "streamlearn_frames_total")
            seconds, spent = time.perf_counter() - begun, process.cpu_times()
            hot = int(scraped(port, "streamlearn_hot_streams"))
        cpu_s = spent.user + spent.system - times.user - times.system
    events = int((learned - already) * EVENTS / given.visits)
    return Result(
        streams=streams,
        events=events,
        events_per_s=events / max(seconds, 1e-9),
        cpu_ms_per_event=1000 * cpu_s / max(events, 1),
        before_mib=before / 2**20,
        peak_mib=peak / 2**20,
        hot=hot,
        disk_mib=size_mib(folder / "state"),
        sent_mib=0.0,
        seconds=seconds,
    )


def scraped(port: int, name: str) -> float:
    """A metric of the worker; 0 while it starts."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
    except OSError:
        return 0.0
    found = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(found[0].split()[-1]) if found else 0.0


def size_mib(folder: Path) -> float:
    """Of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def show(results: list[Result], given: argparse.Namespace) -> None:
    """The table."""
    print(
        f"{EVENTS} events of {COLUMNS} numbers a stream in {given.visits} frames, "
        f"{given.random_features} random features, budget {given.budget_mib} MiB"
        f"{', real worker and broker' if given.broker else ''}"
    )
    print(
        f"{'streams':>9}{'events':>10}{'events/s':>10}{'CPU ms/event':>14}{'to the first':>14}"
        f"{'peak RSS':>11}{'hot':>8}{'disk':>11}"
    )
    for r in results:
        print(
            f"{r.streams:>9,}{r.events:>10,}{r.events_per_s:>10,.0f}{r.cpu_ms_per_event:>14.3f}"
            f"{r.cpu_ms_per_event / results[0].cpu_ms_per_event:>14.2f}{r.peak_mib:>7,.0f} MiB"
            f"{r.hot:>8,}{r.disk_mib:>7,.0f} MiB"
            + ("" if r.events >= r.streams * EVENTS else "   cut short")
        )


def draw(results: list[Result], path: Path) -> None:
    """RSS and events/s against the number of streams."""
    matplotlib.use("Agg")
    figure, left = plt.subplots(figsize=(7, 4))
    streams = [r.streams for r in results]
    left.plot(streams, [r.peak_mib for r in results], "o-", label="peak RSS, MiB")
    left.set(xscale="log", xlabel="streams", ylabel="peak RSS, MiB", ylim=(0, None))
    right = left.twinx()
    right.plot(streams, [r.events_per_s for r in results], "s--", color="C1", label="events/s")
    right.set(ylabel="events/s", ylim=(0, None))
    figure.legend(loc="lower center", ncols=2)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure each size, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 1000, 10_000, 100_000])
    parser.add_argument("--visits", type=int, default=2, help="frames of each stream")
    parser.add_argument("--random-features", type=int, default=16)
    parser.add_argument("--budget-mib", type=int, default=512, help="worker.memory_budget_mib")
    parser.add_argument("--limit-s", type=float, default=3600.0, help="of each size")
    parser.add_argument("--broker", action="store_true", help="a real worker and broker")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("out/streams.png"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = []
    for streams in given.sizes:
        with tempfile.TemporaryDirectory(prefix="streamlearn-streams-") as scratch:
            if given.broker:
                results.append(measure_with_broker(streams, given, Path(scratch)))
            elif not given.one:
                results.append(in_its_own_process(streams, given))
            else:
                one = measure(
                    streams,
                    given.visits,
                    given.random_features,
                    given.budget_mib,
                    given.limit_s,
                    Path(scratch),
                )
                print(json.dumps(asdict(one)))
                return
    show(results, given)
    draw(results, given.out)
    print(f"drawn to {given.out}")
    if given.json:
        print(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main()
