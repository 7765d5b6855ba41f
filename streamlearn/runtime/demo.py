"""The whole loop on one machine: a worker, a feeder and a subscriber that checks the worker.

Worker and subscriber are processes of their own, the same commands that a person would start. One
thread does everything here: it feeds, reads what the subscriber says, and looks after the
processes; `pass_time` is its only wait. A worker or broker that ends is started again.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from streamlearn.config import Config
from streamlearn.core.records import Frame
from streamlearn.errors import BrokerError
from streamlearn.runtime.broker import LocalBroker, free_port
from streamlearn.runtime.child import ChildProcess
from streamlearn.runtime.feeder import Feeder
from streamlearn.runtime.feeding import Pace, Rate, feed
from streamlearn.runtime.scoreboard import Check, Scoreboard, Verdict

READY_TIMEOUT_S = 120.0
STALL_TIMEOUT_S = 30.0  # without any news, after all was sent
MAX_RESTARTS_UNREADY = 3  # of a worker that ends before it is ready
LOOK_EVERY_S = 0.25


class Demo(AbstractContextManager["Demo"]):
    """Starts worker and subscriber; ends them, whatever happens.

    `program` is the command line that runs streamlearn, `env` its environment. The topics exist.
    `broker` None: somebody else's, which is left alone. Use it from the main thread (see child).
    """

    def __init__(
        self,
        config: Config,
        *,
        program: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        broker: LocalBroker | None,
    ) -> None:
        self.board = Scoreboard()
        self.notes: deque[str] = deque(maxlen=4)  # what happened to the processes
        self.metrics_url = f"http://127.0.0.1:{free_port()}/metrics"
        self.partitions = config.topics.partitions
        port = self.metrics_url.split(":")[-1].split("/")[0]
        common = {
            **env,
            "STREAMLEARN_BOOTSTRAP": config.kafka.bootstrap,
            "STREAMLEARN_TOPICS__PREFIX": config.topics.prefix,
            "STREAMLEARN_TOPICS__PARTITIONS": str(config.topics.partitions),
            "STREAMLEARN_WORKER__GROUP": config.worker.group,
            "STREAMLEARN_WORKER__PREDICTIONS": "true",
            "STREAMLEARN_WORKER__STATE_DIR": str(folder / "state"),
            "STREAMLEARN_WORKER__METRICS_PORT": port,
            "PYTHONUNBUFFERED": "1",
        }
        self.worker = ChildProcess(
            "worker", [*program, "worker"], env=common, log_file=folder / "worker.log"
        )
        self.subscriber = ChildProcess(
            "subscriber",
            [*program, "subscribe", "--verify", "--json"],
            env=common,
            log_file=folder / "subscriber.log",
            read_output=True,
        )
        self._config = config
        self._broker = broker
        self.on_tick: Callable[[], None] = lambda: None  # a few times a second
        self._lines: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._stack = ExitStack()
        self._feeder: Feeder | None = None
        self._subscriber_ready = False
        self._worker_ready = False
        self._worker_began = time.monotonic()
        self._unready_restarts = 0
        self._look_at = 0.0

    def __enter__(self) -> "Demo":
        try:
            self._stack.enter_context(self.worker)
            self._worker_began = time.monotonic()
            self._stack.enter_context(self.subscriber)
            threading.Thread(target=self._read_lines, name="lines", daemon=True).start()
            self._wait_until_ready()
            self._feeder = self._stack.enter_context(
                Feeder(self._config.kafka, topic_prefix=self._config.topics.prefix)
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def worker_ready(self) -> bool:
        """Whether the worker owns all partitions and waits for events."""
        return self._worker_ready

    def play(self, frames: Iterable[Frame], rate: Rate) -> None:
        """Feed frames at a pace; each event needs an id.

        The first frame goes alone: when it was learned, all are awake, and the pace begins.
        """
        rest = iter(frames)
        self._play(islice(rest, 1), rate)
        self.settle()
        self.board.begin_pace(time.time())
        self._play(rest, rate)

    def _play(self, frames: Iterable[Frame], rate: Rate) -> None:
        if self._feeder is None:
            raise RuntimeError("enter the demo first")
        pace = Pace(rate, sleep=self.pass_time)
        for frame in feed(frames, self._feeder, pace, stamp=time.time):
            self.board.sent(frame, float(frame.event_time_s[0]))
            self.pass_time(0)
        self._feeder.flush()

    def settle(self) -> None:
        """Wait until all that was sent is accounted for, or nothing comes any more."""
        progress, since = self.board.progress, time.monotonic()
        while not self.board.complete and time.monotonic() - since < STALL_TIMEOUT_S:
            self.pass_time(0.05)
            if self.board.progress != progress or not self._worker_ready:
                progress, since = self.board.progress, time.monotonic()

    def pass_time(self, seconds: float) -> None:
        """Take in what the subscriber says for so long, and look after the processes."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            try:
                line = self._lines.get(timeout=left) if left > 0 else self._lines.get_nowait()
            except Empty:
                line = None
            if line is not None:
                self._take(line)
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_EVERY_S
                self._look_after()
                self.on_tick()
            if line is None and time.monotonic() >= until:
                return

    # --- the subscriber's word

    def _read_lines(self) -> None:
        """In a thread of its own: it may wait."""
        try:
            for line in self.subscriber.output:
                self._lines.put(json.loads(line))
        except ValueError:  # closed, or not JSON: `_look_after` sees that it ended
            return

    def _take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "ready":
            self.board = Scoreboard(line["versions"])
            self._subscriber_ready = True
        elif line["kind"] == "version":
            self.board.swapped(line["stream"], line["version"], line["swapped_s"])
        elif line["kind"] == "check":
            check = Check(
                stream=line["stream"],
                base_version=line["base_version"],
                event_ids=tuple(line["event_ids"]),
                predicted=tuple(line["predicted"]),
                verdict=Verdict(line["verdict"]),
            )
            self.board.checked(check)

    # --- the processes

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + READY_TIMEOUT_S
        while not (self._subscriber_ready and self._worker_ready):
            if time.monotonic() > until:
                waiting = self.worker if self._subscriber_ready else self.subscriber
                raise BrokerError(
                    f"the {waiting.name} was not ready after {READY_TIMEOUT_S:.0f} s; its log "
                    f"ends with:\n{waiting.log_tail()}"
                )
            self.pass_time(0.05)

    def _look_after(self) -> None:
        if self._broker is not None and self._broker.pid is None:
            self.notes.append("the broker ended; it is started again")
            self.on_tick()
            self._broker.start()
        if self.subscriber.pid is None:
            raise BrokerError(
                f"the subscriber ended with {self.subscriber.exit_code}; its log ends with:\n"
                f"{self.subscriber.log_tail()}"
            )
        if self.worker.pid is None:
            self._restart_worker()
        elif not self._worker_ready and self._owns_all():
            self._worker_ready = True
            self._unready_restarts = 0
            seconds = time.monotonic() - self._worker_began
            if self.board.worker_restarts:
                self.notes.append(
                    f"the worker is back after {seconds:.1f} s (pid {self.worker.pid})"
                )

    def _restart_worker(self) -> None:
        code = self.worker.exit_code
        if not self._worker_ready:
            self._unready_restarts += 1
        if self._unready_restarts > MAX_RESTARTS_UNREADY:
            raise BrokerError(
                f"the worker ends before it is ready (exit code {code}); its log ends with:\n"
                f"{self.worker.log_tail(20)}"
            )
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        self.notes.append(f"the worker ended ({how}); it is started again")
        self.board.worker_restarts += 1
        self._worker_ready = False
        self._worker_began = time.monotonic()
        self.worker.start()

    def _owns_all(self) -> bool:
        """By the worker's own metrics: an epoch for each partition."""
        try:
            with urllib.request.urlopen(self.metrics_url, timeout=0.5) as answer:
                text = answer.read().decode()
        except (OSError, urllib.error.URLError):
            return False
        lines = [line for line in text.splitlines() if line.startswith("streamlearn_epoch{")]
        return len(lines) >= self.partitions


def named(frames: Iterable[Frame], stream: str, run: str) -> Iterator[Frame]:
    """Frames with streams called "<stream>-<name>", and ids that no other run uses."""
    counts: dict[str, int] = {}
    for frame in frames:
        name = f"{stream}-{frame.stream}"
        first = counts.get(name, 0)
        counts[name] = first + len(frame)
        ids = tuple(f"{run}/{name}/{first + at}" for at in range(len(frame)))
        yield replace(frame, stream=name, event_ids=ids)
