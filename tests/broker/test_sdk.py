"""The three names of the package together, with a worker as an operator starts it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlearn import Feeder, Subscriber
from streamlearn.runtime.child import ChildProcess
from streamlearn.topics import Topics


@pytest.fixture
def worker(bootstrap: str, topics: Topics, tmp_path: Path) -> Iterator[ChildProcess]:
    env = {
        **os.environ,
        "STREAMLEARN_BOOTSTRAP": bootstrap,
        "STREAMLEARN_TOPICS__PREFIX": topics.prefix,
        "STREAMLEARN_WORKER__GROUP": topics.prefix + "workers",
        "STREAMLEARN_WORKER__METRICS_PORT": "0",
        "STREAMLEARN_WORKER__STATE_DIR": str(tmp_path / "state"),
    }
    command = [sys.executable, "-m", "streamlearn", "worker"]
    with ChildProcess("worker", command, env=env, log_file=tmp_path / "log") as process:
        yield process


def test_what_is_fed_is_learned_and_predicted(
    bootstrap: str, topics: Topics, worker: ChildProcess
) -> None:
    with (
        Subscriber(bootstrap, topic_prefix=topics.prefix) as subscriber,
        Feeder(bootstrap, topic_prefix=topics.prefix, linger_ms=10_000) as feeder,
    ):
        for second in range(64):
            hot = second % 3 == 0
            features = {"temp": 90.0 + second % 5 if hot else 60.0 + second % 7, "flow": 3.0}
            feeder.send("boiler-7", features, label="leak" if hot else "ok", event_time=second)
        assert feeder.flush().acknowledged == 64
        boiler = subscriber.wait_for("boiler-7", timeout_s=120)
        assert boiler.predict({"temp": 93.1, "flow": 3.0}) == "leak"
        assert boiler.predict({"temp": 61.0, "flow": 3.0}) == "ok"
        before = boiler.predict_proba({"temp": 61.0})
        assert sum(before.values()) == pytest.approx(1.0, abs=1e-3)
        feeder.send("boiler-7", {"temp": 61.0, "flow": 2.0, "noise": "loud"})  # unlabelled
        feeder.flush()
        assert subscriber.wait_for("boiler-7", 2, timeout_s=120).version == 2
        assert subscriber.streams() == ("boiler-7",)
