"""One verdict from both detectors: when it changes, since when, who says so; restarts."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.drift import HOLD, DriftMonitor, DriftReport, DriftVerdict
from streamlearn.errors import StateError


def run(
    monitor: DriftMonitor, wrong: NDArray[np.int8], numbers: NDArray[np.float64], step: int = 64
) -> list[DriftReport]:
    reports = []
    for i in range(0, len(wrong), step):
        at: NDArray[Any] = 1.7e9 + np.arange(
            monitor.n_events, monitor.n_events + len(wrong[i : i + step])
        )
        reports.append(monitor.update(wrong[i : i + step], numbers[i : i + step], at))
    return reports


def drifting(n: int = 6000) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """The error rises at event 3000; column 1 moves at event 5000."""
    rng = np.random.default_rng(0)
    wrong = (rng.random(n) < np.where(np.arange(n) < 3000, 0.1, 0.4)).astype(np.int8)
    numbers = rng.normal(size=(n, 3))
    numbers[5000:, 1] += 2
    return wrong, numbers


def test_the_verdicts_of_a_life() -> None:
    wrong, numbers = drifting(5500)
    monitor = DriftMonitor()
    assert monitor.report.verdict is DriftVerdict.NO_DATA
    reports = run(monitor, wrong, numbers)
    verdicts = [r.verdict for r in reports]
    order = [v for v, before in zip(verdicts, [None, *verdicts], strict=False) if v is not before]
    quiet = [v for v in order if v is not DriftVerdict.WARNING]
    expected = ["WARMING UP", "STABLE", "DRIFT", "STABLE", "DRIFT"]
    assert [v for v, before in zip(quiet, [None, *quiet], strict=False) if v != before] == expected
    first = reports[verdicts.index(DriftVerdict.DRIFT)]
    assert (first.detector, first.column) == ("error", -1)
    assert abs(first.since_event - 3000) <= 128
    assert first.since_s == pytest.approx(1.7e9 + first.since_event - 1)
    assert first.score >= 1
    last = reports[-1]
    assert (last.detector, last.column, last.n_drifts) == ("mean", 1, 2)
    assert abs(last.since_event - 5000) <= 128


def test_an_alarm_stands_until_it_was_quiet_for_a_while() -> None:
    wrong, numbers = drifting(5000)
    verdicts = [r.verdict for r in run(DriftMonitor(), wrong, numbers)]
    held = sum(v is DriftVerdict.DRIFT for v in verdicts) * 64
    assert HOLD <= held <= HOLD + 256


def test_since_stays_while_the_verdict_does() -> None:
    rng = np.random.default_rng(1)
    reports = run(DriftMonitor(), np.zeros(2000, np.int8), rng.normal(size=(2000, 2)))
    stable = [r for r in reports if r.verdict is DriftVerdict.STABLE]
    assert len({r.since_event for r in stable}) == 1
    assert stable[-1].n_drifts == 0


def test_nothing_to_watch_is_no_data() -> None:
    monitor = DriftMonitor()
    report = run(monitor, np.full(300, -1, np.int8), np.zeros((300, 0)))[-1]
    assert report.verdict is DriftVerdict.NO_DATA
    before = monitor.update(np.zeros(0, np.int8), np.zeros((0, 0)), np.zeros(0))
    assert before == report  # an empty step says nothing new


def test_a_verdict_is_its_text() -> None:
    assert [str(v) for v in DriftVerdict] == ["WARMING UP", "STABLE", "WARNING", "DRIFT", "NO DATA"]


def test_a_restored_monitor_goes_on_to_the_bit() -> None:
    wrong, numbers = drifting()
    straight, resumed = DriftMonitor(), DriftMonitor()
    for i in range(0, 6000, 100):
        one = run(straight, wrong[i : i + 100], numbers[i : i + 100], 50)
        meta, arrays = resumed.state()
        resumed = DriftMonitor.restore(json.loads(json.dumps(meta, allow_nan=False)), arrays)
        two = run(resumed, wrong[i : i + 100], numbers[i : i + 100], 50)
        assert one == two
    for name, value in straight.state()[1].items():
        assert np.array_equal(value, resumed.state()[1][name], equal_nan=True), name


@pytest.mark.parametrize("broken", ["error/used", "features/ring", "report"])
def test_a_state_that_does_not_fit_is_refused(broken: str) -> None:
    monitor = DriftMonitor()
    run(monitor, np.zeros(500, np.int8), np.ones((500, 2)))
    meta, full = monitor.state()
    arrays: dict[str, NDArray[Any]] = dict(full)
    if broken == "report":
        meta["report"][0] = "SHAKY"
    elif broken == "error/used":
        del arrays[broken]
    else:
        arrays[broken] = arrays[broken][:1, :2]
    with pytest.raises(StateError):
        DriftMonitor.restore(meta, arrays)
