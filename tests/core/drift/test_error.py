"""ADWIN against a plain one over all cuts, its false alarms, its delays, and steps of any size."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.drift.error import BLOCK, DELTA, ErrorDetector


def errors(n: int, rate: float, seed: int) -> NDArray[np.int8]:
    return (np.random.default_rng(seed).random(n) < rate).astype(np.int8)


def feed(detector: ErrorDetector, wrong: NDArray[np.int8], step: int, start: int = 0) -> list[int]:
    """Events after which the error rose."""
    rises = []
    for i in range(0, len(wrong), step):
        part = wrong[i : i + step]
        times = np.arange(start + i, start + i + len(part), dtype=np.float64)
        alarm = detector.update(part, start + i, times)
        if alarm:
            rises.append(alarm.event)
            assert alarm.time_s == alarm.event - 1  # the time of the last event before the rise
    return rises


def largest_score(blocks: list[int]) -> float:
    """(recent - older) / bound over the cuts between blocks, as the paper writes it."""
    n = len(blocks) * BLOCK
    mean = sum(blocks) / n
    best = 0.0
    for cut in range(1, len(blocks)):
        n0, n1 = cut * BLOCK, n - cut * BLOCK
        m = 1 / (1 / n0 + 1 / n1)
        term = math.log(2 / (DELTA / math.log(n)))
        bound = math.sqrt(2 / m * mean * (1 - mean) * term) + 2 / (3 * m) * term
        best = max(best, (sum(blocks[cut:]) / n1 - sum(blocks[:cut]) / n0) / bound)
    return best


def test_the_score_is_the_papers_while_every_block_still_has_its_own_bucket() -> None:
    wrong = np.concatenate([errors(96, 0.2, 1), errors(64, 0.45, 2)])
    detector = ErrorDetector()
    assert feed(detector, wrong, 1) == []
    blocks = wrong.reshape(-1, BLOCK).sum(axis=1).tolist()
    assert detector.score == pytest.approx(largest_score(blocks))
    assert 0.2 < detector.score < 1
    assert detector.window == 160


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_stationary_errors_raise_next_to_no_alarm(rate: float) -> None:
    alarms = sum(len(feed(ErrorDetector(), errors(20_000, rate, s), 256)) for s in range(20))
    assert alarms <= 1  # in 400k events; delta is .002


def test_a_rise_is_found_soon_and_dated_well() -> None:
    for seed in range(20):
        detector = ErrorDetector()
        assert feed(detector, errors(4096, 0.1, seed), 32) == []
        rises = feed(detector, errors(384, 0.3, seed + 100), 32, start=4096)
        assert rises, f"no alarm within 384 events, seed {seed}"
        assert abs(rises[0] - 4096) <= 96
        assert detector.window < 4096


def test_a_falling_error_is_learning_not_drift() -> None:
    detector = ErrorDetector()
    wrong = np.concatenate([errors(1024, 0.6, 0), errors(2048, 0.1, 1)])
    assert feed(detector, wrong, 64) == []
    assert detector.window <= 2048 + 2 * BLOCK  # and what is older no longer counts


def test_steps_do_not_matter() -> None:
    wrong = np.concatenate([errors(3000, 0.1, 3), errors(3000, 0.35, 4)])
    wrong[::7] = -1
    told = []
    for step in (1, 50, 6000):
        detector = ErrorDetector()
        rises = feed(detector, wrong, step)
        told.append((rises, detector.window, detector.n_labelled))
    assert told[0] == told[1] == told[2]
    assert len(told[0][0]) == 1


def test_unlabelled_events_are_counted_as_events_only() -> None:
    detector = ErrorDetector()
    assert feed(detector, np.full(1000, -1, np.int8), 100) == []
    assert (detector.n_labelled, detector.window, detector.ready) == (0, 0, False)


def test_memory_grows_with_the_logarithm() -> None:
    detector = ErrorDetector()
    feed(detector, errors(200_000, 0.2, 5), 4096)
    assert len(detector.state()[1]["sums"]) <= math.log2(200_000 / BLOCK) + 1
