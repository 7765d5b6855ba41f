"""Features against a loop over events, and against themselves after growth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.features import (
    CLIP,
    Layout,
    draw_slow,
    input_scale,
    move_labels,
    project,
    rates_of,
    slow_size,
    write_features,
)

HALF_LIVES = (2.0, 10.0)
RANDOM = 6


def layout(d: int, recent: tuple[int, ...], n_classes: int = 2) -> Layout:
    return Layout(RANDOM, d, recent, len(HALF_LIVES), n_classes, 3)


def features(
    rows: NDArray[np.float64],
    where: Layout,
    recent_means: NDArray[np.float64],
    *,
    scale: NDArray[np.float32] | None = None,
    advance: bool = True,
) -> NDArray[np.float32]:
    d = where.n_inputs
    slow = draw_slow(0, RANDOM, len(HALF_LIVES), slow_size(d))
    labels = np.arange(where.n_classes * 3.0).reshape(-1, 3)
    scale = input_scale(where, d) if scale is None else scale
    mean, inverse_std = np.arange(float(d)), 1.0 / (1.0 + np.arange(float(d)))
    return write_features(
        rows,
        mean,
        inverse_std,
        recent_means,
        rates_of(HALF_LIVES),
        labels,
        project(slow, where, scale),
        where,
        advance=advance,
    )


def sample(n: int, d: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(n, d)) * 3 + np.arange(d)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    return rows


def test_context_equals_a_loop_over_events() -> None:
    where, rows = layout(4, (0, 2, 3)), sample(60, 4)
    got = features(rows, where, moved := np.full((2, 3), 0.1))
    means = np.full((2, 3), 0.1)
    for i, row in enumerate(rows):
        z = np.clip((row - np.arange(4.0)) / (1.0 + np.arange(4.0)), -CLIP, CLIP)
        new = np.array([[z[j] - means[k, r] for r, j in enumerate((0, 2, 3))] for k in range(2)])
        new = np.nan_to_num(new, nan=0.0)
        for k, half_life in enumerate(HALF_LIVES):
            means[k] += (1 - 2 ** (-1 / half_life)) * new[k]
        np.testing.assert_allclose(got[i, RANDOM], 1.0)
        np.testing.assert_allclose(
            got[i, RANDOM + 1 : where.new_start], np.nan_to_num(z), rtol=1e-6
        )
        now = got[i, where.new_start : where.labels_start]
        np.testing.assert_allclose(now, new.ravel(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved, means, rtol=1e-12)


def test_a_half_life_halves() -> None:
    """After h events of 0 an exponentially weighted mean of 1 is 1/2."""
    where, means = layout(1, (0,)), np.ones((2, 1))
    features(np.zeros((10, 1)), where, means)
    assert means[1, 0] == pytest.approx(0.5) and means[0, 0] == pytest.approx(2.0**-5)


def test_random_features_are_the_formula() -> None:
    where, rows = layout(3, (1,)), sample(20, 3)
    got = features(rows, where, np.zeros((2, 1))).astype(np.float64)
    slow = draw_slow(0, RANDOM, 2, 64).tensors
    z = got[:, RANDOM + 1 : where.new_start]
    new = got[:, where.new_start : where.labels_start]
    a = z @ slow["a/weights"][:3] / np.sqrt(3) + slow["a/bias"]
    b = z @ slow["b/weights"][:3, 0] + new @ slow["b/weights"][1, 1:]
    b = b / np.sqrt(5) + slow["b/bias"]
    np.testing.assert_allclose(got[:, :RANDOM], np.maximum(a, 0), atol=1e-5)
    np.testing.assert_allclose(got[:, where.b_start :], np.maximum(b, 0), atol=1e-5)


def test_labels_are_frozen_over_a_step() -> None:
    where = layout(2, ())
    got = features(sample(5, 2), where, np.zeros((2, 0)))
    assert (got[:, where.labels_start : where.b_start] == np.arange(6.0)).all()


def test_without_advance_each_row_is_the_next_event() -> None:
    where, rows, means = layout(3, (0, 1)), sample(32, 3), np.full((2, 2), 0.5)
    alone = features(rows, where, means, advance=False)
    assert (means == 0.5).all()
    first = features(rows[:1], where, means.copy())
    np.testing.assert_allclose(alone[0], first[0], rtol=1e-5)
    turned = features(rows[::-1].copy(), where, means, advance=False)
    assert (turned[::-1] == alone).all()


def test_growth_keeps_the_features_of_earlier_inputs() -> None:
    small, rows = layout(3, (0, 2)), sample(40, 3)
    large = layout(70, (0, 2, 5), n_classes=4)
    before = input_scale(small, 3)
    after = np.concatenate([before, input_scale(large, 67)], axis=1)
    wide = np.full((40, 70), np.nan)  # inputs that did not exist: nothing of them was seen
    wide[:, :3] = rows
    was = features(rows, small, np.zeros((2, 2)), scale=before)
    now = features(wide, large, np.zeros((2, 3)), scale=after)
    positions = small.positions_in(large)
    assert len(set(positions)) == small.width
    np.testing.assert_allclose(now[:, positions], was, rtol=1e-5, atol=1e-6)
    others = np.setdiff1d(np.arange(large.width), positions)
    others = others[(others < large.labels_start) | (others >= large.b_start)]
    assert (now[:, others] == 0).all()


def test_slow_weights_keep_their_rows_when_they_grow() -> None:
    small, large = draw_slow(3, 8, 2, 64), draw_slow(3, 8, 2, 256)
    assert (large.tensors["a/weights"][:64] == small.tensors["a/weights"]).all()
    assert (large.tensors["b/weights"][:64] == small.tensors["b/weights"]).all()
    assert small.hash != large.hash != draw_slow(4, 8, 2, 256).hash
    assert [slow_size(d) for d in (0, 64, 65, 257)] == [64, 64, 256, 1024]


def test_recent_labels_equal_their_definition() -> None:
    decays = np.array([0.5, 0.9])
    labels, codes = np.zeros((3, 3)), np.array([0, 1, 1, 0, 4], np.int32)
    move_labels(labels, decays, codes[:2])
    move_labels(labels, decays, codes[2:])
    assert (labels[:, 0] == 0).all()  # the last label is of a class beyond those that are features
    for k, decay in enumerate(decays):
        for c in range(3):
            frequency = sum(
                (1 - decay) * decay ** (4 - i) for i, code in enumerate(codes) if code == c
            )
            assert labels[c, 1 + k] == pytest.approx(frequency)
