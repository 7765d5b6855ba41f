"""A stream whose labels are only given on request, on a real broker: it learns all the same."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from numpy.typing import NDArray

from streamlearn import __main__
from streamlearn.config import KafkaConfig
from streamlearn.core.records import Frame
from streamlearn.runtime.child import ChildProcess
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from streamlearn.wire import event_codec, label_codec, prediction_codec, request_codec

PATIENCE_S = 90.0
FRAME_EVENTS, FRAMES = 50, 16


@pytest.fixture
def env(bootstrap: str, topics: Topics) -> dict[str, str]:
    return {
        **os.environ,
        "STREAMLEARN_BOOTSTRAP": bootstrap,
        "STREAMLEARN_TOPICS__PREFIX": topics.prefix,
        "STREAMLEARN_WORKER__GROUP": topics.prefix + "workers",
        "STREAMLEARN_WORKER__METRICS_PORT": "0",
        "STREAMLEARN_WORKER__CHECKPOINT_INTERVAL_S": "0.5",
        "STREAMLEARN_WORKER__LATE_LABELS": "true",
        "STREAMLEARN_WORKER__LABEL_REQUESTS": "5",
        "STREAMLEARN_WORKER__PREDICTIONS": "true",
        "STREAMLEARN_LEARNER__RANDOM_FEATURES": "20",
        "STREAMLEARN_LEARNER__STEP_EVENTS": "16",
        "STREAMLEARN_LEARNER__LATE_LABELS": "400",
    }


@pytest.fixture
def worker(env: dict[str, str], tmp_path: Path) -> Iterator[ChildProcess]:
    env = {**env, "STREAMLEARN_WORKER__STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "streamlearn", "worker"]
    with ChildProcess("worker", command, env=env, log_file=tmp_path / "log") as process:
        yield process


def truth(number: int) -> NDArray[np.int64]:
    return np.random.default_rng(number).integers(3, size=FRAME_EVENTS)


def frame(number: int) -> Frame:
    rng = np.random.default_rng(1000 + number)
    x = rng.normal(size=(FRAME_EVENTS, 2)) + 4 * np.eye(3, 2)[truth(number)]
    ids = tuple(f"{number}.{row}" for row in range(FRAME_EVENTS))
    none = np.full(FRAME_EVENTS, -1, np.int32)
    times = 1e9 + number * FRAME_EVENTS + np.arange(FRAME_EVENTS, dtype=np.float64)
    return Frame("boiler", ("temp", "flow"), x, none, (), times, event_ids=ids)


def label_of(event_id: str) -> str:
    number, row = map(int, event_id.split("."))
    return "abc"[truth(number)[row]]


class Loop:
    """Feeds events, answers what is asked, and nothing else."""

    def __init__(self, bootstrap: str, log: KafkaLog, topics: Topics, worker_log: Path) -> None:
        self.producer = Producer({"bootstrap.servers": bootstrap})
        self.log, self.topics, self.worker_log = log, topics, worker_log
        self.answered: list[str] = []
        self._next = 0

    def feed(self, number: int) -> None:
        value, headers = event_codec.encode(frame(number))
        topic = self.topics["events"].full_name
        self.producer.produce(topic, value, b"boiler", partition=1, headers=[*headers])
        assert self.producer.flush(30) == 0

    def answer(self) -> int:
        """Give the labels that were asked for since the last time."""
        topic, n = self.topics["label-requests"].full_name, 0
        for r in self.log.read(topic, 1, self._next, 1 << 60):
            self._next = r.offset + 1
            for request in request_codec.decode(r.value, r.key, r.headers).requests:
                late = label_codec.encode("boiler", request.event_id, label_of(request.event_id))
                labels = self.topics["labels"].full_name
                self.producer.produce(labels, late.value, late.key, partition=1)
                self.answered.append(request.event_id)
                n += 1
        assert self.producer.flush(30) == 0
        return n

    def predicted(self) -> dict[int, list[bool]]:
        """Frame number to whether each of its events was predicted right, when it came."""
        right = {}
        topic = self.topics["predictions"].full_name
        for r in self.log.read(topic, 1, 0, 1 << 60):
            said = prediction_codec.decode(r.value, r.key, r.headers)
            number = int(said.event_ids[0].split(".")[0])
            pairs = zip(said.predicted(), said.event_ids, strict=True)
            right[number] = [label == label_of(event_id) for label, event_id in pairs]
        return right

    def passed_on(self) -> int:
        records = self.log.read(self.topics["events"].full_name, 1, 0, 1 << 60)
        return sum(label_codec.is_labels(r.headers) for r in records)

    def wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, self.worker_log.read_text()
            time.sleep(0.1)


@pytest.mark.timeout(900)  # three commands and a worker start, one after the other
def test_a_stream_learns_from_the_labels_that_it_asks_for(
    bootstrap: str,
    worker: ChildProcess,
    env: dict[str, str],
    topics: Topics,
    kafka: KafkaConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = KafkaLog(kafka, group="watcher")
    loop = Loop(bootstrap, log, topics, tmp_path / "log")
    for number in range(FRAMES):
        loop.feed(number)
        loop.wait(lambda number=number: number in loop.predicted())  # type: ignore[misc]
        if number % 2:  # 100 events since the last requests
            loop.wait(lambda: loop.answer() > 0)
            loop.wait(lambda: loop.passed_on() == len(loop.answered))
    right = loop.predicted()
    assert len(loop.answered) == len(set(loop.answered)) == 5 * FRAMES // 2  # 5 of 100
    assert not any(right[0])
    late = [one for number in range(FRAMES // 2, FRAMES) for one in right[number]]
    assert np.mean(late) > 0.85  # with 40 labels of 800; chance is a third

    def run(*arguments: str) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["streamlearn", *arguments, "--json"])
            for name in env:
                if name.startswith("STREAMLEARN_"):
                    patch.setenv(name, env[name])
            with pytest.raises(SystemExit) as end:
                __main__.main()
        printed = capsys.readouterr()
        assert not end.value.code, printed.err
        return json.loads(printed.out.splitlines()[-1])

    def shown() -> Any:
        found = run("representatives", "boiler")
        return (
            found if sum(one["events"] for one in found["classes"]) == len(loop.answered) else None
        )

    deadline = time.monotonic() + PATIENCE_S
    while (found := shown()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert {one["class"] for one in found["classes"]} == {"a", "b", "c"}
    for one in found["representatives"]:
        number, row = divmod(one["event"], FRAME_EVENTS)
        assert one["values"] == dict(zip(("temp", "flow"), frame(number).numbers[row], strict=True))
        assert one["class"] == label_of(f"{number}.{row}")
        assert one["event_time"] == 1e9 + one["event"]
    suggested = run("suggest", "boiler", "--n", "4")
    assert (
        suggested["waiting"] == FRAMES * FRAME_EVENTS - len(loop.answered)
        and len(suggested["events"]) == 4
    )
    assert not {one["event_id"] for one in suggested["events"]} & set(loop.answered)
    for one in suggested["events"]:
        number, row = map(int, one["event_id"].split("."))
        assert one["values"] == dict(zip(("temp", "flow"), frame(number).numbers[row], strict=True))
    log.close()
