"""The three names of the package together, with a worker as an operator starts it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamlearn import Feeder, Subscriber
from streamlearn.errors import InputError
from streamlearn.runtime.child import ChildProcess
from streamlearn.topics import Topics
from tests.wire.pictures import PNG, file_of


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


def test_images_are_fed_learned_and_asked_about(
    bootstrap: str, topics: Topics, worker: ChildProcess
) -> None:
    """PNG and JPEG of two sizes: a bright bar stands or lies."""
    rng = np.random.default_rng(0)

    def photo(label: str) -> bytes:
        side = int(rng.choice([28, 70]))
        pixels = rng.integers(0, 60, (side, side), dtype=np.uint8)
        at = int(rng.integers(side // 4, side // 2))
        bar = np.s_[:, at : at + side // 6] if label == "stands" else np.s_[at : at + side // 6]
        pixels[bar] = 230
        return file_of(pixels, str(rng.choice(["PNG", "JPEG"])))

    with (
        Subscriber(bootstrap, topic_prefix=topics.prefix) as subscriber,
        Feeder(bootstrap, topic_prefix=topics.prefix, linger_ms=10_000) as feeder,
    ):
        with pytest.raises(InputError, match="a broken PNG"):
            feeder.send("gate", {"photo": PNG[:40]}, label="stands")
        for event in range(256):
            label = str(rng.choice(["stands", "lies"]))
            features = {"photo": photo(label), "speed": None if event % 3 else float(event % 7)}
            feeder.send("gate", features, label=label, event_time=event)
        assert feeder.flush().acknowledged == 256
        gate = subscriber.wait_for("gate", timeout_s=120)
        labels = [str(rng.choice(["stands", "lies"])) for _ in range(40)]
        right = sum(gate.predict({"photo": photo(label)}) == label for label in labels)
        assert right >= 36
        assert set(gate.predict_proba({"speed": 3.0})) == {"stands", "lies"}, "without a photo"
