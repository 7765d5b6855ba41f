"""Rows of inputs against what the frame says, scale against numpy's over all rows at once."""

import numpy as np
import pytest

from streamlearn.core.preprocess import (
    CATEGORY,
    MAX_INPUTS,
    MISSING,
    NUMBER,
    OTHER,
    Input,
    Inputs,
    Standardiser,
)
from streamlearn.core.records import Frame


def frame(
    columns: dict[str, list[float]], texts: dict[str, list[str | None]] | None = None
) -> Frame:
    texts = texts or {}
    n = len(next(iter([*columns.values(), *texts.values()])))
    numbers = np.array(list(columns.values()), float).T.reshape(n, len(columns))
    return Frame(
        "s",
        tuple(columns),
        numbers,
        np.full(n, -1, np.int32),
        (),
        np.zeros(n),
        texts={name: tuple(column) for name, column in texts.items()},
    )


def taken(inputs: Inputs, one: Frame, *, max_recent: int = 64) -> Inputs:
    return inputs.grown(inputs.new_columns(one, max_recent=max_recent))


def test_number_columns_become_inputs_in_their_order() -> None:
    one = frame({"b": [1, 2], "a": [3, 4]})
    inputs = taken(Inputs(), one)
    assert [i.column for i in inputs.inputs] == ["b", "a"] and inputs.recent == (0, 1)
    assert inputs.rows(one).tolist() == [[1, 3], [2, 4]]
    assert inputs.new_columns(one, max_recent=64) == ()


def test_rows_are_copies() -> None:
    one = frame({"a": [1, 2]})
    taken(Inputs(), one).rows(one)[:] = 9
    assert one.numbers.tolist() == [[1], [2]]


@pytest.mark.filterwarnings("error")
def test_a_flag_tells_gaps_and_infinity_is_a_gap() -> None:
    inputs = taken(Inputs(), frame({"a": [1, 2], "b": [0, 0]}))
    gaps = frame({"a": [np.nan, 5], "b": [np.inf, -np.inf]})
    assert taken(inputs, gaps).inputs == inputs.inputs
    np.testing.assert_array_equal(inputs.rows(gaps), [[np.nan, np.nan], [5, np.nan]])
    flagged = inputs.grown([Input(MISSING, "a"), Input(MISSING, "b")])
    np.testing.assert_array_equal(flagged.rows(gaps), [[np.nan, np.nan, 1, 1], [5, np.nan, 0, 1]])
    assert Input(MISSING, "a") in flagged and Input(MISSING, "a") not in inputs


def test_a_vanished_column_is_missing_and_an_unknown_one_is_ignored() -> None:
    inputs = taken(Inputs(), frame({"a": [1], "b": [2]}))
    later = frame({"c": [3], "a": [1]})
    np.testing.assert_array_equal(inputs.rows(later), [[1, np.nan]])
    grown = taken(inputs, later)
    assert [(i.kind, i.column) for i in grown.inputs[2:]] == [(NUMBER, "c")]
    np.testing.assert_array_equal(grown.rows(later), [[1, np.nan, 3]])


def test_huge_numbers_stay_finite() -> None:
    one = frame({"a": [1e308, -1e308, 1.0]})
    inputs = taken(Inputs(), one)
    scale = Standardiser()
    scale.grow(inputs.inputs, 0, {})
    scale.update(inputs.rows(one), 0, 1)
    assert len(inputs) == 1 and np.isfinite([scale.mean, scale.squares]).all()


def test_more_columns_than_may_look_back_bring_no_recent_past() -> None:
    many = frame({f"x{j}": [0.0] for j in range(10)})
    assert taken(Inputs(), many, max_recent=9).recent == ()
    assert len(taken(Inputs(), many, max_recent=10).recent) == 10


def test_inputs_are_bounded() -> None:
    many = frame({f"x{j}": [0.0] for j in range(MAX_INPUTS + 5)})
    inputs = taken(Inputs(), many)
    assert len(inputs) == MAX_INPUTS and inputs.rows(many).shape == (1, MAX_INPUTS)
    assert taken(inputs, many).inputs == inputs.inputs


def test_inputs_survive_json() -> None:
    strings = (Input(OTHER, "t"), Input(CATEGORY, "t", "x"))
    inputs = taken(Inputs(), frame({"a": [np.nan]})).grown([Input(MISSING, "a"), *strings])
    assert Inputs.from_json(inputs.as_json()).inputs == inputs.inputs


def test_scale_in_batches_equals_numpy_over_all_rows() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 3)) * [1, 100, 1e-3] + [0, 1e6, 3]
    rows[rng.random(rows.shape) < 0.2] = np.nan
    scale = Standardiser()
    scale.grow([Input(NUMBER, c) for c in "abc"], 0, {})
    for start in range(0, 500, 7):
        scale.update(rows[start : start + 7], 0, 3)
    np.testing.assert_allclose(scale.mean, np.nanmean(rows, axis=0), rtol=1e-12)
    np.testing.assert_allclose(1 / scale.inverse_std(), np.nanstd(rows, axis=0), rtol=1e-9)


def test_a_constant_or_empty_input_keeps_its_unit() -> None:
    scale = Standardiser()
    scale.grow([Input(NUMBER, "a"), Input(NUMBER, "b")], 0, {})
    scale.update(np.tile([0.1, np.nan], (1000, 1)), 0, 2)
    assert scale.inverse_std().tolist() == [1.0, 1.0]


def test_a_category_has_the_scale_of_all_events_before_it() -> None:
    seen = np.array([0, 1, 0, 0, 1, 0, 0, 0, 1, 1.0])
    scale = Standardiser()
    scale.grow([Input(CATEGORY, "t", "x")], 6, {Input(CATEGORY, "t", "x"): 2})
    scale.update(seen[6:, None], 0, 1)
    assert scale.mean[0] == pytest.approx(seen.mean())
    assert 1 / scale.inverse_std()[0] == pytest.approx(seen.std())
