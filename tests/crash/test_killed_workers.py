"""Real workers on a real broker, killed at random moments, frozen, their disks wiped.

Afterwards, per stream, every event was learned once and the model has the hash of an
uninterrupted StreamLearner over the same log; no update ever carried another hash.
"""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from streamlearn.config import KafkaConfig
from streamlearn.topics import Topics
from tests.crash.fleet import Fleet

KILLS = 10
WIPED = 5  # after this kill the disk is empty


@pytest.mark.timeout(600)
def test_killed_ten_times_and_once_without_its_disk(
    kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    rng = random.Random(20)
    with Fleet(kafka, topics, tmp_path) as fleet:
        for kill in range(1, KILLS + 1):
            worker = fleet.start("disk", instance="it")
            if kill % 4:  # while it learns, else while it starts
                fleet.wait_for_updates()
            time.sleep(rng.uniform(0.0, 0.6) if kill % 4 else rng.uniform(0.0, 3.0))
            worker.kill()
            assert worker.wait() == -signal.SIGKILL, fleet.said()
            if kill == WIPED:
                shutil.rmtree(tmp_path / "disk")
        fleet.stop_feeding()
        worker = fleet.start("disk", instance="it")
        fleet.wait_until_covered()
        worker.terminate()
        assert worker.wait(20) == 0, fleet.said()
        fleet.check()


@pytest.mark.timeout(600)
def test_frozen_longer_than_its_session(kafka: KafkaConfig, topics: Topics, tmp_path: Path) -> None:
    with Fleet(kafka, topics, tmp_path) as fleet:
        first = fleet.start("first")
        fleet.wait_for_updates()
        second = fleet.start("second")
        fleet.wait_for_updates()  # they share
        first.send_signal(signal.SIGSTOP)
        fleet.wait_for_updates()  # the second has all of them, so the first is out
        first.send_signal(signal.SIGCONT)
        fleet.wait_for_updates()
        fleet.stop_feeding()
        fleet.wait_until_covered()
        assert first.poll() is None, fleet.said()  # it came back by itself
        for worker in (first, second):
            worker.terminate()
            assert worker.wait(20) == 0, fleet.said()
        fleet.check()
