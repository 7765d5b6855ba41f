"""Modes: how many groups were made is known; so is which labels were turned."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from streamlearn.core.microclusters import MicroClusters
from streamlearn.core.modes import Verdict, find_modes
from streamlearn.core.reservoir import Kept


def clustered(x: NDArray[np.float64], codes: NDArray[np.int32], capacity: int) -> MicroClusters:
    clusters = MicroClusters(capacity=capacity)
    clusters.offer(x, codes, np.arange(len(x)), np.zeros(len(x)))
    return clusters


@pytest.mark.parametrize("capacity", [5, 20, 50])
@pytest.mark.parametrize("d", [2, 20])
def test_three_groups_are_three_modes_and_one_cloud_is_one(capacity: int, d: int) -> None:
    rng = np.random.default_rng(capacity + d)
    group = rng.choice(3, 4000, p=[0.6, 0.3, 0.1])
    corners = np.zeros((3, d))
    corners[1, 0] = corners[2, 1] = 8.0
    x = np.concatenate(
        [rng.normal(size=(4000, d)) + corners[group], rng.normal(size=(4000, d)) * 3 - 100]
    )
    codes = np.repeat([0, 1], 4000).astype(np.int32)
    order = rng.permutation(8000)
    clusters = clustered(x[order], codes[order], capacity)
    kept = clusters.kept()
    found = find_modes(kept, clusters.variances())
    assert found.n_modes.tolist() == [3, 1]
    own = (kept.codes == 0) & (found.mode >= 0)
    nearest = ((kept.rows[own, None] - corners) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(found.mode[own], nearest)  # largest first, as they were made
    share = kept.weights[found.verdict != Verdict.TYPICAL].sum() / 8000
    assert share < 0.02


@pytest.mark.parametrize("d", [2, 20])
def test_label_noise_of_20_percent_is_marked_as_contradicted(d: int) -> None:
    rng = np.random.default_rng(d)
    true = rng.integers(4, size=8000)
    corners = rng.normal(size=(4, d))
    corners *= 10 / np.linalg.norm(corners, axis=1, keepdims=True)
    x = rng.normal(size=(8000, d)) + corners[true]
    turned = rng.random(8000) < 0.2
    codes = np.where(turned, rng.integers(4, size=8000), true).astype(np.int32)
    clusters = clustered(x, codes, 20)
    kept = clusters.kept()
    found = find_modes(kept, clusters.variances())
    wrong = ((kept.rows[:, None] - corners) ** 2).sum(axis=2).argmin(axis=1) != kept.codes
    assert wrong.sum() >= 15  # there is something to find
    marked = found.verdict != Verdict.TYPICAL
    assert marked[wrong].mean() >= 0.9
    assert marked[~wrong].mean() <= 0.1
    good = KNeighborsClassifier(1).fit(kept.rows[~marked], kept.codes[~marked])
    every = KNeighborsClassifier(1).fit(kept.rows, kept.codes)
    assert good.score(x, true) > every.score(x, true) + 0.1


def test_a_few_events_far_from_all_others_are_strays() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2000, 3))
    x[[700, 1500]] = [[60.0, 0, 0], [0, -80.0, 0]]
    clusters = clustered(x, np.zeros(2000, np.int32), 15)
    kept = clusters.kept()
    found = find_modes(kept, clusters.variances())
    stray = found.verdict == Verdict.STRAY
    assert sorted(kept.event[stray].tolist()) == [700, 1500]
    assert found.n_modes.tolist() == [1]
    assert (found.mode[stray] == -1).all()


def test_a_rare_class_is_not_outvoted_by_a_thousand_times_as_many() -> None:
    rng = np.random.default_rng(4)
    codes = (np.arange(10_010) % 1001 == 1000).astype(np.int32)
    x = rng.normal(size=(10_010, 2)) + 4 * codes[:, None]
    clusters = clustered(x, codes, 10)
    kept = clusters.kept()
    found = find_modes(kept, clusters.variances())
    assert (found.verdict[kept.codes == 1] == Verdict.TYPICAL).mean() >= 0.8
    assert found.n_modes[0] == 1 and found.n_modes[1] >= 1


def test_units_do_not_matter_when_spreads_are_given() -> None:
    rng = np.random.default_rng(5)
    group = rng.integers(2, size=2000)
    x = rng.normal(size=(2000, 2)) + 10 * group[:, None]
    units = np.array([1000.0, 0.001])
    one = clustered(x, np.zeros(2000, np.int32), 10)
    other = MicroClusters(capacity=10)
    n = np.arange(2000)
    other.offer(x * units, np.zeros(2000, np.int32), n, np.zeros(2000), 1 / units)
    a = find_modes(one.kept(), one.variances())
    b = find_modes(other.kept(), other.variances(), 1 / units)
    assert a.n_modes.tolist() == b.n_modes.tolist() == [2]
    np.testing.assert_array_equal(a.mode, b.mode)


def test_few_equal_missing_or_no_centres_are_no_trouble() -> None:
    none = find_modes(kept_of(np.zeros((0, 2)), []), np.zeros((0, 2)))
    assert len(none.mode) == 0 and len(none.n_modes) == 0
    one = find_modes(kept_of(np.zeros((1, 2)), [3]), np.zeros((1, 2)))
    assert one.mode.tolist() == [0] and one.n_modes.tolist() == [0, 0, 0, 1]
    equal = find_modes(kept_of(np.ones((6, 2)), [0] * 6), np.zeros((6, 2)))
    assert equal.n_modes.tolist() == [1]
    rows = np.array([[0.0, np.nan], [0.1, np.nan], [0.2, np.nan], [9.0, np.nan]])
    missing = find_modes(kept_of(rows, [0, 0, 0, 0]), np.zeros((4, 2)))
    assert len(missing.mode) == 4


def kept_of(rows: NDArray[np.float64], codes: list[int]) -> Kept:
    n = len(codes)
    return Kept(
        rows, np.array(codes, np.int32), np.ones(n), np.arange(n), np.zeros(n), np.arange(n)
    )
