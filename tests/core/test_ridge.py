"""Ridge heads against weighted least squares in float64, written down as in the docstring."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.ridge import BLOCK_ROWS, KNOWN_EVENTS, MOST_WEIGHT, RidgeView, roots_of

WINDOWS = (100.0, 1000.0, float("inf"))


def sample(n: int, f: int, c: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    rows = np.maximum(rng.normal(size=(n, f)), -0.5).astype(np.float32)
    return rows, (rows @ rng.normal(size=(f, c))).argmax(axis=1).astype(np.int32)


def view(f: int, c: int) -> RidgeView:
    one = RidgeView(WINDOWS, f)
    one.grow(np.arange(f), f, c)
    return one


def reference(
    rows: NDArray[np.float32],
    codes: NDArray[np.int32],
    c: int,
    weights: NDArray[np.float64],
    rho: float,
) -> NDArray[np.float64]:
    p, targets = rows.astype(np.float64), np.eye(c)[codes]
    gram = (p * weights[:, None]).T @ p
    return np.linalg.solve(gram + rho * np.eye(p.shape[1]), (p * weights[:, None]).T @ targets)


@pytest.mark.parametrize("step", [16, 50, 256])
def test_heads_equal_weighted_least_squares(step: int) -> None:
    rows, codes = sample(1024, 20, 3)
    one = view(20, 3)
    for start in range(0, 1024, step):
        one.learn(rows[start : start + step], codes[start : start + step])
    one.solve_due(every_window=True)
    ages = np.arange(1023, -1, -1)
    for k, (window, rho) in enumerate(zip(WINDOWS, (2.0, 1.0, 1.0), strict=True)):
        exact = reference(rows, codes, 3, (1 - 1 / window) ** ages, rho)
        # rows of a block share their mean weight: exact for infinity, close for the others
        np.testing.assert_allclose(one.weights[k], exact, atol=2e-5 if window > 1e9 else 0.03)


def test_a_block_has_the_mean_of_its_rows_weights() -> None:
    rows, codes = sample(BLOCK_ROWS, 10, 2)
    one = view(10, 2)
    one.learn(rows, codes)
    one.solve_due(every_window=True)
    weight = np.full(BLOCK_ROWS, np.mean(0.99 ** np.arange(BLOCK_ROWS)))
    np.testing.assert_allclose(one.weights[0], reference(rows, codes, 2, weight, 2.0), atol=1e-5)


def test_weighted_events_count_as_that_many() -> None:
    rows, codes = sample(300, 15, 3)
    roots = np.where(codes == 2, 3.0, 1.0).astype(np.float32)
    one = view(15, 3)
    one.learn(rows, codes, roots)
    one.solve_due(every_window=True)
    exact = reference(rows, codes, 3, roots.astype(float) ** 2, 1.0)
    np.testing.assert_allclose(one.weights[2], exact, atol=2e-5)


def test_only_rare_classes_have_weights() -> None:
    assert roots_of(np.array([], np.int64)) is None
    assert roots_of(np.array([50, 0])) is None  # too early to tell
    assert roots_of(np.array([900, 300, 100])) is None
    roots = roots_of(np.array([19_000, 990, 10, 0]))
    assert roots is not None
    weights = roots**2
    assert weights[:2].tolist() == [1, 1]
    assert weights[2] == pytest.approx(0.1 * 20_000 / 4 / (10 + KNOWN_EVENTS))
    assert weights[3] == pytest.approx(MOST_WEIGHT)


def test_growth_equals_having_had_the_room_from_the_start() -> None:
    rows, codes = sample(128, 12, 3)
    rows[:64, 7:] = 0.0  # features that did not exist
    codes[:64] %= 2
    roomy = view(12, 3)
    roomy.learn(rows[:64], codes[:64])
    narrow = view(7, 2)
    positions = np.array([3, 0, 1, 2, 4, 5, 6])  # the old features may move
    narrow.learn(rows[:64, positions], codes[:64])
    narrow.solve_due(every_window=True)
    old = narrow.weights[2]
    narrow.grow(positions, 12, 3)
    assert (narrow.weights[2][positions, :2] == old).all() and narrow.weights[2].sum() == old.sum()
    for one in (roomy, narrow):
        one.learn(rows[64:], codes[64:])
        one.solve_due(every_window=True)
    for k in range(3):
        np.testing.assert_allclose(narrow.weights[k], roomy.weights[k], atol=1e-5)


def test_solves_follow_counts() -> None:
    rows, codes = sample(4096, 6, 2)
    one = view(6, 2)
    solved = []
    for start in range(0, 4096, 16):
        one.learn(rows[start : start + 16], codes[start : start + 16])
        before = list(one.weights)
        one.solve_due()
        solved.append([now is not was for now, was in zip(one.weights, before, strict=True)])
    counts = np.sum(solved, axis=0)
    assert counts[0] == 256  # every 16 events
    assert 128 <= counts[1] < 192  # every 32, as 1000 / 32 says, more often at first
    assert 30 <= counts[2] < counts[1]  # ever less often


def test_collinear_features_after_many_events_can_be_solved() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(256, 4)) + 3, 8, axis=1).astype(np.float32)
    codes = (rows[:, 0] > 3).astype(np.int32)
    one = view(32, 2)
    one.learn(rows, codes)
    for gram, cross in zip(one.grams, one.cross, strict=True):
        gram *= np.float32(1e7)  # as after 2.5 billion events
        cross *= np.float32(1e7)
    one.solve_due(every_window=True)
    for weights in one.weights:
        assert np.isfinite(weights).all()
        assert ((rows @ weights).argmax(axis=1) == codes).mean() > 0.8


def test_what_vanished_does_not_stay_subnormal() -> None:
    one = view(4, 2)
    rows, codes = np.ones((16, 4), np.float32), np.zeros(16, np.int32)
    one.learn(rows, codes)
    rows[:, 3] = 0.0
    for _ in range(1024):
        one.learn(rows, codes)
    tiny = np.abs(one.grams[0][one.grams[0] != 0.0])
    assert tiny.min() > 1e-30


def test_state_goes_on_to_the_bit() -> None:
    rows, codes = sample(300, 9, 3)
    one = view(9, 3)
    one.learn(rows[:100], codes[:100])
    one.solve_due()
    other = view(9, 3)
    other.resume(*one.state())
    for a_view in (one, other):
        a_view.learn(rows[100:], codes[100:])
        a_view.solve_due()
    for mine, theirs in zip(one.weights, other.weights, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_a_short_window_gets_short_blocks() -> None:
    rows, codes = sample(512, 8, 2)
    one = RidgeView((6.0,), 8)
    one.grow(np.arange(8), 8, 2)
    one.learn(rows, codes)
    one.solve_due(every_window=True)
    exact = reference(rows, codes, 2, (1 - 1 / 6) ** np.arange(511, -1, -1.0), 2.0)
    np.testing.assert_allclose(one.weights[0], exact, atol=0.1)


def test_large_views_wait_longer_for_a_solve() -> None:
    rng = np.random.default_rng(0)
    solved: dict[int, list[int]] = {32: [], 1120: []}
    for n_features, when in solved.items():
        one = RidgeView((100.0,), n_features)
        one.grow(np.arange(n_features), n_features, 2)
        for n in range(1, 13):
            rows = rng.normal(size=(16, n_features)).astype(np.float32)
            one.learn(rows, rng.integers(0, 2, 16).astype(np.int32))
            if one.solve_due():
                when.append(16 * n)
    assert solved[32] == [16 * n for n in range(1, 13)]
    assert solved[1120] == [16, 96, 176]  # 1120 / 16 = 70 events, at the next flush
    assert one.solve_due(every_window=True)  # a new class waits for nobody
