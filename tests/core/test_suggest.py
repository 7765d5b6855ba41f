"""Suggestions: spread, undecided, the same every time, and worth more than chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.core.suggest import suggest
from streamlearn.errors import InputError


@settings(max_examples=25, deadline=None)
@given(size=st.integers(0, 40), n=st.integers(1, 50), kinds=st.integers(1, 40), model=st.booleans())
def test_at_most_n_different_events_the_same_every_time(
    size: int, n: int, kinds: int, model: bool
) -> None:
    rng = np.random.default_rng(size + 100 * n)
    rows = rng.normal(size=(kinds, 3))[rng.integers(kinds, size=size)]
    rows[rng.random(rows.shape) < 0.05] = np.nan
    p = rng.dirichlet(np.ones(3), size=size).astype(np.float32) if model else None
    chosen = suggest(rows, n, probabilities=p)
    different = len(np.unique(np.nan_to_num(rows), axis=0)) if size else 0
    assert len(chosen) == len(set(chosen.tolist())) == min(n, different)
    assert ((chosen >= 0) & (chosen < size)).all()
    np.testing.assert_array_equal(suggest(rows, n, probabilities=p), chosen)


def test_with_a_model_the_undecided_come_first_and_no_two_are_alike() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(4), 50)
    rows = rng.normal(size=(200, 2)) + 30 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[group]
    sure = np.where(group < 2, 0.99, rng.uniform(0.5, 0.9, size=200))  # nothing to learn in 0 and 1
    p = np.stack([sure, 1 - sure], axis=1).astype(np.float32)
    chosen = suggest(rows, 2, probabilities=p)
    assert set(group[chosen].tolist()) == {2, 3}
    assert (sure[chosen] < 0.55).all()
    assert sure[chosen[0]] <= sure[chosen[1]]


def test_without_a_model_medoids_of_the_largest_groups_come_first() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat([0, 1, 2], [100, 60, 20])
    rows = rng.normal(size=(180, 2)) + 40 * np.array([[0, 0], [1, 0], [0, 1]])[group]
    chosen = suggest(rows, 3)
    assert group[chosen].tolist() == [0, 1, 2]
    for i in chosen:  # the row of its group nearest to the group's mean
        own = rows[group == group[i]]
        far = ((own - own.mean(axis=0)) ** 2).sum(axis=1)
        assert ((rows[i] - own.mean(axis=0)) ** 2).sum() == pytest.approx(far.min())


def test_a_model_of_one_class_says_nothing() -> None:
    rows = np.random.default_rng(3).normal(size=(30, 2))
    certain = np.ones((30, 1), np.float32)
    np.testing.assert_array_equal(suggest(rows, 5, probabilities=certain), suggest(rows, 5))


def test_five_suggested_labels_teach_more_than_five_random_ones() -> None:
    """Seven groups, a class each; nearest labelled event decides."""
    gains = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(7, 5)) * 4
        codes = rng.integers(7, size=300)
        rows = rng.normal(size=(300, 5)) + centres[codes]

        def accuracy(chosen: np.ndarray, rows=rows, codes=codes) -> float:  # type: ignore[no-untyped-def]
            away = ((rows[:, None] - rows[chosen]) ** 2).sum(axis=2).argmin(axis=1)
            return float((codes[chosen][away] == codes).mean())

        chance = np.mean([accuracy(rng.choice(300, 7, replace=False)) for _ in range(10)])
        gains.append(accuracy(suggest(rows, 7, seed=seed)) - chance)
    assert np.mean(gains) > 0.15


def test_no_event_asked_for_is_refused() -> None:
    with pytest.raises(InputError, match="n=0"):
        suggest(np.zeros((3, 1)), 0)
