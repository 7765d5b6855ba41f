"""What columns are told to hold, from counts alone: categories, words, gaps that mean something."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.census import COUNTED_VALUES, MAX_CATEGORIES, Census, Gaps
from streamlearn.core.preprocess import CATEGORY, OTHER, Input, Inputs
from streamlearn.core.records import Frame

Values = list[str | None]


def step(values: Values) -> Frame:
    """Events with one string column."""
    n = len(values)
    codes = np.full(n, -1, np.int32)
    return Frame("s", (), np.zeros((n, 0)), codes, (), np.zeros(n), texts={"t": tuple(values)})


class Life:
    """A census with the inputs that it asked for."""

    def __init__(self) -> None:
        self.census, self.inputs = Census(), Inputs()

    def count(self, values: Values) -> dict[Input, int]:
        one = step(values)
        numbers = np.zeros((len(one), 0))
        new = self.census.count(one, numbers, one.label_codes, 0, self.inputs)
        self.inputs = self.inputs.grown(list(new))
        return new

    @property
    def categories(self) -> list[str]:
        return [i.value for i in self.inputs.inputs if i.kind == CATEGORY]


def test_values_that_recur_are_categories() -> None:
    life = Life()
    assert life.count(["a", "b", None]) == {}
    new = life.count(["b", "b", "a", "c"])
    assert list(new) == [Input(OTHER, "t"), Input(CATEGORY, "t", "a"), Input(CATEGORY, "t", "b")]
    assert list(new.values()) == [0, 1, 1]  # how often they came before
    assert life.count(["c"]) == {Input(CATEGORY, "t", "c"): 1}
    rows = life.inputs.rows(step(["a", "d", None]))
    assert rows.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert life.census.text_columns == ()


def test_a_few_that_recur_among_many_new_ones_are_none() -> None:
    life = Life()
    life.count([f"title {k}" for k in range(100)] + ["title 3"] * 5)
    assert life.categories == []
    assert life.census.text_columns == ("t",)


def test_many_values_that_recur_are_both() -> None:
    life = Life()
    airports: Values = [f"airport {k}" for k in range(MAX_CATEGORIES + 4)]
    life.count([*airports, *airports, *airports])
    assert life.categories == airports[:MAX_CATEGORIES]
    assert life.census.text_columns == ("t",)
    assert life.count([*airports, "another"]) == {}


def test_a_long_text_is_text_at_once() -> None:
    life = Life()
    life.count([None, "x" * 64])
    assert life.census.text_columns == ()
    life.count(["x" * 65])
    assert life.census.text_columns == ("t",)


def test_a_column_without_values_is_nothing() -> None:
    life = Life()
    assert life.count([None] * 50) == {} and life.census.text_columns == ()


def test_memory_is_bounded() -> None:
    life = Life()
    for k in range(20):
        life.count([f"{k} {i}" for i in range(50)])
    assert len(life.census.strings["t"].counts) == COUNTED_VALUES
    assert life.census.strings["t"].n == life.census.strings["t"].n_different == 1000


def test_steps_do_not_matter() -> None:
    values: Values = [["a", "b", "c", None][k * k % 4] for k in range(60)]
    one, many = Life(), Life()
    one.count(values)
    for value in values:
        many.count([value])
    assert one.census.strings == many.census.strings
    assert sorted(one.categories) == sorted(many.categories)


def test_it_survives_bytes() -> None:
    life = Life()
    life.count(["a", "a", "b" * 70])
    flagged(life.census.gaps, *stream(400, gaps={0: 0.5, 1: 0.1}))
    meta, arrays = life.census.state()
    again = Census.restore(json.loads(json.dumps(meta)), arrays)
    assert json.dumps(again.state()[0]) == json.dumps(meta) and again.text_columns == ("t",)
    rest = stream(400, gaps={0: 0.5, 1: 0.1}, seed=1)
    flagged(again.gaps, *rest)
    flagged(life.census.gaps, *rest)
    for name, array in life.census.state()[1].items():
        assert (array == again.state()[1][name]).all() and array.size


def stream(
    n: int, *, gaps: dict[int, float], d: int = 4, seed: int = 0, lasting: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Numbers (n, d) and classes that last `lasting` events; column 0 has gaps by class."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(list(gaps), n // lasting + 1)
    codes = np.repeat(drawn, lasting)[:n].astype(np.int32)
    numbers = rng.normal(size=(n, d))
    numbers[rng.random((n, d)) < 0.1] = np.nan
    numbers[:, 0] = np.where(rng.random(n) < np.array([gaps[c] for c in codes]), np.nan, 1.0)
    return numbers, codes


def flagged(gaps: Gaps, numbers: NDArray[np.float64], codes: NDArray[np.int32]) -> set[int]:
    """Columns whose gaps go with classes, counted in steps of 16."""
    n_classes = int(codes.max()) + 1
    steps = range(0, len(codes), 16)
    counted = [gaps.count(numbers[i : i + 16], codes[i : i + 16], n_classes) for i in steps]
    return {column for found in counted for column in found}


def test_gaps_that_go_with_a_class_are_found_soon() -> None:
    assert flagged(Gaps(), *stream(64, gaps={0: 0.9, 1: 0.05})) == {0}
    assert flagged(Gaps(), *stream(1000, gaps={0: 0.3, 1: 0.1, 2: 0.1})) == {0}


@pytest.mark.parametrize("seed", range(10))
def test_gaps_at_random_are_not(seed: int) -> None:
    assert flagged(Gaps(), *stream(4000, d=30, gaps={0: 0.2, 1: 0.2, 2: 0.2}, seed=seed)) == set()


@pytest.mark.parametrize("seed", range(5))
def test_an_outage_while_a_class_lasts_is_no_evidence(seed: int) -> None:
    numbers, codes = stream(4000, gaps={0: 0.0, 1: 0.0}, lasting=50, seed=seed)
    for start in np.random.default_rng(seed).integers(0, 4000, 8):
        numbers[start : start + 60, 0] = np.nan
    assert flagged(Gaps(), numbers, codes) == set()
    found = flagged(Gaps(), *stream(4000, gaps={0: 0.9, 1: 0.0}, lasting=50, seed=seed))
    assert found == {0}  # though each class counts once


def test_what_is_always_or_never_missing_has_no_flag() -> None:
    numbers, codes = stream(1000, gaps={0: 0.2, 1: 0.2})
    numbers[:, 1], numbers[:, 2] = np.nan, 0.0
    assert flagged(Gaps(), numbers, codes) == set()
    assert flagged(Gaps(), numbers, np.full(1000, -1, np.int32)) == set()


def test_without_gaps_nothing_is_counted() -> None:
    gaps = Gaps()
    numbers, codes = stream(100, gaps={0: 0.0, 1: 0.0})
    flagged(gaps, np.nan_to_num(numbers), codes)
    assert len(gaps.tables) == 0
