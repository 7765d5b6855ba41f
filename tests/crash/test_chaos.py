"""A short schedule of `chaos`, on a broker of its own, since it is killed."""

from pathlib import Path

import pytest

from streamlearn.runtime.kafka_launch import can_use_java
from tests.crash.chaos import Chaos
from tests.crash.faults import Fault


@pytest.mark.timeout(600)
def test_a_short_schedule(tmp_path: Path) -> None:
    if not can_use_java():
        pytest.skip("needs Java and Maven, for a broker that may be killed")
    chaos = Chaos(5, tmp_path, workers=2)
    report = chaos.run(0.0, (Fault.KILL, Fault.BROKER, Fault.TERM))
    assert not report.wrong, "\n".join([*report.wrong, *report.gave_up])
    assert report.faults.total() >= 3
    assert report.events > 1000
    assert report.updates > 100
