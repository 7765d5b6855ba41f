"""Mean shift against its definition in numpy, its false alarms, and columns that come and go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import t as student

from streamlearn.core.drift.features import FeatureDetector, Shift
from streamlearn.core.drift.mean_shift import BLOCK, DELTA, EFFECT, READY, RECENT, REFERENCE

Rows = NDArray[np.float64]


def feed(detector: FeatureDetector, rows: Rows, step: int = 256, start: int = 0) -> list[Shift]:
    shifts = []
    for i in range(0, len(rows), step):
        part = rows[i : i + step]
        times = np.arange(start + i, start + i + len(part), dtype=np.float64)
        shift = detector.update(part, start + i, times)
        if shift:
            shifts.append(shift)
            assert shift.time_s == shift.event
    return shifts


def score_by_hand(rows: Rows) -> float:
    """One column without gaps: reference = blocks 0..31, recent = the last 4 blocks."""
    blocks = rows.reshape(-1, BLOCK)
    reference, recent = blocks[:REFERENCE], blocks[-RECENT:]
    means = reference.mean(axis=1)
    b = len(means)
    around = means - means.mean()
    r = np.clip((around[1:] * around[:-1]).sum() / (around**2).sum(), 0, 0.9)
    spread = max(reference.var(), recent.var())
    between = max(means.var(ddof=1), spread / BLOCK)
    noise = np.sqrt(between * (1 / RECENT + 1 / b) * (1 + r) / (1 - r))
    line = max(student.isf(DELTA / 4, b - 1) * noise, EFFECT * np.sqrt(spread))
    return float(abs(recent.mean() - means.mean()) / line)


@pytest.mark.parametrize("seed", range(4))
def test_the_score_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 100 + 3 * rng.normal(size=2048)
    rows[-80:] += 1.5
    detector = FeatureDetector()
    assert feed(detector, rows[:, None], step=96) == []
    assert detector.score == pytest.approx(score_by_hand(rows), rel=1e-9)
    assert detector.score > 0.2


def waves(rng: np.random.Generator, n: int) -> Any:
    """Neighbours correlate .9: a sensor read ten times faster than it changes."""
    return lfilter([0.436], [1, -0.9], rng.normal(size=(n, 4)), axis=0)


KINDS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda rng, n: rng.normal(size=(n, 4)),
    "heavy tails": lambda rng, n: rng.lognormal(0, 2, (n, 4)),
    "rare flags": lambda rng, n: (rng.random((n, 4)) < 0.002) * 1.0,
    "gaps": lambda rng, n: np.where(rng.random((n, 4)) < 0.3, np.nan, rng.normal(size=(n, 4))),
    "rhythm": lambda rng, n: rng.normal(0, 0.3, (n, 4)) + np.sin(np.arange(n) / 16.0).reshape(n, 1),
    "constant": lambda rng, n: np.full((n, 4), 0.1),
    "waves": waves,
}


@pytest.mark.parametrize("kind", KINDS)
def test_stationary_columns_raise_next_to_no_alarm(kind: str) -> None:
    alarms = 0
    for seed in range(10):
        alarms += len(feed(FeatureDetector(), KINDS[kind](np.random.default_rng(seed), 20_000)))
    assert alarms <= 1  # in 200k events x 4 columns


@pytest.mark.parametrize("seed", range(10))
def test_a_shift_is_found_soon_dated_well_and_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    detector = FeatureDetector()
    assert feed(detector, rng.normal(size=(3008, 6))) == []
    moved = rng.normal(size=(160, 6))
    moved[:, 4] += 1.0
    shifts = feed(detector, moved, step=32, start=3008)
    assert shifts, "no alarm within 160 events"
    assert (shifts[0].column, shifts[0].gaps) == (4, False)
    assert abs(shifts[0].event - 3008) <= RECENT * BLOCK


def test_a_constant_that_starts_to_move_is_named() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 3))
    rows[:2000, 1] = 0.003467
    rows[2000:, 1] = 0.004 + 0.001 * rng.normal(size=2000)
    shifts = feed(FeatureDetector(), rows)
    assert [(s.column, s.gaps) for s in shifts] == [(1, False)]


def test_the_electricity_market_that_opened_is_named(shared_data: Callable[[str], Path]) -> None:
    """elec2: three columns were constant up to row 17423 and move from row 17424 on."""
    with np.load(shared_data("elec2/data.npz")) as arrays:
        rows, names = arrays["X"].astype(np.float64), arrays["feature_names"].tolist()
    moved = [names.index(name) for name in ("vicprice", "vicdemand", "transfer")]
    shifts = feed(FeatureDetector(), rows[:18_000])
    assert next(s.column for s in shifts if s.event > 17_000) in moved
    assert abs(next(s.event for s in shifts if s.column in moved) - 17_424) <= RECENT * BLOCK


def test_gaps_that_become_frequent_are_named() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3000, 3))
    rows[2000:, 2][rng.random(1000) < 0.6] = np.nan
    shifts = feed(FeatureDetector(), rows)
    assert (shifts[0].column, shifts[0].gaps) == (2, True)


def test_a_counter_is_no_drift() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(20_000, 2))
    rows[:, 0] = np.arange(20_000)
    assert feed(FeatureDetector(), rows) == []


def test_after_an_alarm_the_new_level_is_the_reference() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(12_000, 2))
    rows[4000:, 0] += 3
    detector = FeatureDetector()
    assert len(feed(detector, rows)) == 1
    assert detector.ready


def test_new_columns_join_with_a_reference_of_their_own() -> None:
    rng = np.random.default_rng(4)
    detector = FeatureDetector()
    assert feed(detector, rng.normal(size=(2000, 1))) == []
    assert feed(detector, rng.normal((0, 9), 1, size=(2000, 2)), start=2000) == []
    moved = rng.normal((0, 12), 1, size=(256, 2))
    assert [s.column for s in feed(detector, moved, start=4000)] == [1]
    assert detector.n_columns == 2


def test_nothing_is_judged_before_there_is_a_reference() -> None:
    detector = FeatureDetector()
    rows = np.random.default_rng(5).normal(size=((READY + RECENT) * BLOCK, 2))
    feed(detector, rows[:-1])
    assert not detector.ready
    feed(detector, rows[-1:], start=len(rows) - 1)
    assert detector.ready


def test_infinite_and_huge_values_do_no_harm() -> None:
    rows = np.random.default_rng(6).normal(size=(2000, 2))
    rows[::50, 0] = np.inf
    rows[1::50, 0] = 1e300
    detector = FeatureDetector()
    feed(detector, rows)
    assert np.isfinite(detector.column_scores).all()


def test_steps_do_not_matter() -> None:
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(5000, 3))
    rows[3000:, 1] += 2
    told = []
    for step in (1, 100, 5000):
        detector = FeatureDetector()
        shifts = feed(detector, rows, step)
        told.append((shifts, detector.score))
    assert told[0] == told[1] == told[2]
