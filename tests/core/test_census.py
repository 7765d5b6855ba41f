"""What columns are told to hold, from counts alone."""

import json

import numpy as np

from streamlearn.core.census import COUNTED_VALUES, MAX_CATEGORIES, Census
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
        new = self.census.count(step(values), self.inputs)
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
    assert one.census.as_json() == many.census.as_json()
    assert sorted(one.categories) == sorted(many.categories)


def test_it_survives_json() -> None:
    life = Life()
    life.count(["a", "a", "b" * 70])
    again = Census.from_json(json.loads(json.dumps(life.census.as_json())))
    assert again.as_json() == life.census.as_json() and again.text_columns == ("t",)
