"""An operator looks back, checks, and goes back, on a real broker with a real worker."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamlearn import __main__
from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Reason
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.child import ChildProcess
from streamlearn.runtime.keys import new_pair
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from streamlearn.wire import dead_letter_codec, event_codec, model_codec, update_codec
from tests.crash.world import frame

SETTINGS = LearnerSettings(random_features=100, step_events=4)
PATIENCE_S = 90.0


@pytest.fixture
def env(bootstrap: str, topics: Topics, tmp_path: Path) -> dict[str, str]:
    private, _ = new_pair(tmp_path / "keys")
    return {
        **os.environ,
        "STREAMLEARN_BOOTSTRAP": bootstrap,
        "STREAMLEARN_TOPICS__PREFIX": topics.prefix,
        "STREAMLEARN_WORKER__GROUP": topics.prefix + "workers",
        "STREAMLEARN_WORKER__METRICS_PORT": "0",
        "STREAMLEARN_WORKER__CHECKPOINT_INTERVAL_S": "3600",  # killed, it learns all of it again
        "STREAMLEARN_WORKER__INSTANCE": "one",
        "STREAMLEARN_WORKER__SIGNING_KEY": str(private),
        "STREAMLEARN_LEARNER__RANDOM_FEATURES": str(SETTINGS.random_features),
        "STREAMLEARN_LEARNER__STEP_EVENTS": str(SETTINGS.step_events),
    }


@pytest.fixture
def worker(env: dict[str, str], tmp_path: Path) -> Iterator[ChildProcess]:
    env = {**env, "STREAMLEARN_WORKER__STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "streamlearn", "worker"]
    with ChildProcess("worker", command, env=env, log_file=tmp_path / "log") as process:
        yield process


class Operator:
    """Gives commands as a person would; feeds, and waits for what a worker publishes."""

    def __init__(
        self,
        env: dict[str, str],
        log: KafkaLog,
        topics: Topics,
        worker_log: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.log = log
        self.topics = topics
        self.bootstrap = env["STREAMLEARN_BOOTSTRAP"]
        self._env = {name: env[name] for name in env if name.startswith("STREAMLEARN_")}
        self._worker_log = worker_log
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *arguments: str, code: int = 0, **env: str) -> Any:
        """The JSON of its last line, or what it said on standard error where that is all."""
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["streamlearn", *arguments, "--json"])
            for name, value in {**self._env, **env}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                __main__.main()
        done = self._capsys.readouterr()
        assert (end.value.code or 0) == code, done.out + done.err + self._worker_log.read_text()
        return json.loads(done.out.splitlines()[-1]) if done.out else done.err

    def feed(self, stream: str, *numbers: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for number in numbers:
            value, headers = event_codec.encode(frame(stream, number))
            producer.produce(
                self.topics["events"].full_name, value, stream, partition=1, headers=[*headers]
            )
        assert producer.flush(30) == 0

    def wait_for_version(self, stream: str, version: int) -> str:
        """Its hash as it was published."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for r in self.log.read(self.topics["updates"].full_name, 1, 0, 1 << 60):
                header = update_codec.decode(r.value, r.key, r.headers).header
                if (header.stream, header.version) == (stream, version):
                    return header.result_hash
            assert time.monotonic() < deadline, self._worker_log.read_text()
            time.sleep(0.05)


def learned(stream: str, *numbers: int) -> StreamLearner:
    learner = StreamLearner(stream, SETTINGS)
    for number in numbers:
        learner.learn(frame(stream, number))
    return learner


def test_replay_verify_history_and_rollback(
    env: dict[str, str],
    worker: ChildProcess,
    topics: Topics,
    kafka: KafkaConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = KafkaLog(kafka, group="operator")
    operator = Operator(env, log, topics, tmp_path / "log", monkeypatch, capsys)
    for number in range(4):  # one by one, so that every version is published
        operator.feed("a", number)
        operator.wait_for_version("a", number + 1)
    operator.feed("b", 0)
    operator.wait_for_version("b", 1)

    for command in (("history", "a"), ("rollback", "a", "--to", "1")):
        refused = operator.run(*command, "--partition", "4", code=2)
        assert f"{topics.prefix}events has partitions 0 to 3, not 4" in refused
    assert operator.run("history", "a", "--partition", "0")["versions"] == []

    file = tmp_path / "model.safetensors"
    said = operator.run("replay", "--stream", "a", "--until", "v2", "--out", str(file))
    assert said["same_as_published"] is True and said["offset"] == 1
    model, _ = model_codec.decode(file.read_bytes())
    assert model.hash == said["hash"] == learned("a", 0, 1).model().hash
    assert model.predict_proba(frame("a", 9)).shape == (len(frame("a", 9)), 2)

    stranger = {"STREAMLEARN_WORKER__SIGNING_KEY": str(new_pair(tmp_path / "other")[0])}
    refused = operator.run("rollback", "a", "--to", "2", code=1, **stranger)
    assert "the worker refused the rollback: signed with unknown key" in refused

    done = operator.run("rollback", "a", "--to", "2", "--partition", "1")
    assert done["version"] == 5 and done["proven"] is True
    assert done["offset"] > 5  # its state needs several messages
    expected = learned("a", 0, 1)
    expected.version = 5
    assert operator.wait_for_version("a", 5) == expected.model().hash

    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)  # what it learns again, rollback included, is the same
    while worker.exit_code is None:
        time.sleep(0.01)
    worker.start()
    operator.feed("a", 4)
    expected.learn(frame("a", 4))
    assert operator.wait_for_version("a", 6) == expected.model().hash

    told = operator.run("history", "a", "--accuracy")["versions"]
    first = {row["version"]: row for row in reversed(told)}  # before the kill, where there was one
    assert sorted(first) == [1, 2, 3, 4, 5, 6] and told[-1]["version"] == 6
    assert first[5]["kind"] == "rollback" and first[5]["offset"] == done["offset"]
    assert first[5]["accuracy"] is None and 0 <= first[6]["accuracy"] <= 1
    assert first[1]["bytes"] > 1000

    checked = operator.run("verify")
    assert {s["stream"]: s["result"] for s in checked["streams"]} == {"a": "same", "b": "same"}
    assert checked["refused"] == 0
    other = operator.run("verify", code=1, STREAMLEARN_LEARNER__SEED="1")
    assert {s["result"] for s in other["streams"]} == {"different"}
    letters = list(log.read(topics["deadletters"].full_name, 0, 0, 1 << 60))
    reasons = {dead_letter_codec.decode(r.value, r.key, r.headers).reason for r in letters}
    assert reasons == {Reason.BAD_ROLLBACK}  # the stranger's
    log.close()
