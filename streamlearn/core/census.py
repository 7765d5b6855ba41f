"""Stage 1, census: counts what columns hold, to tell which inputs they need.

In: a step's columns. Out: inputs to add (preprocess), and which columns hold texts (core.text).
Unlike preprocess, which turns values into numbers, this only counts; what it decides follows from
counts alone, and stays decided.

A string column is categories where values recur: while at most half of its values so far were
new ones, a value that came twice becomes an input, up to MAX_CATEGORIES of them. It is text, read
word by word, from its first value on that is too long for a category, or once it had more
different values than there may be categories. It may be both: 300 airports, say.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamlearn.core.preprocess import CATEGORY, OTHER, Input, Inputs
from streamlearn.core.records import Frame

MAX_CATEGORIES = 16  # of a column; all other values are "other"
MAX_CATEGORY_LENGTH = 64  # characters; longer texts are no categories
COUNTED_VALUES = 64  # of a column, first come; later ones count as always new


@dataclass(slots=True)
class Strings:
    """What one string column held so far."""

    counts: dict[str, int] = field(default_factory=dict)  # in order of appearance
    n: int = 0  # values, missing ones left out
    is_text: bool = False

    def count(self, values: Sequence[str | None]) -> Counter[str]:
        """Count a step's values. Returns the counts of this step."""
        step = Counter(value for value in values if value is not None)
        for value, times in step.items():
            if len(value) > MAX_CATEGORY_LENGTH:
                self.is_text = True
            elif value in self.counts or len(self.counts) < COUNTED_VALUES:
                self.counts[value] = self.counts.get(value, 0) + times
        self.n += step.total()
        self.is_text = self.is_text or self.n_different > MAX_CATEGORIES
        return step

    @property
    def n_different(self) -> int:
        """At most; exact up to COUNTED_VALUES."""
        return len(self.counts) + self.n - sum(self.counts.values())

    def categories(self, known: Mapping[str, int]) -> list[str]:
        """Values that are to be inputs and are not `known` as such."""
        room = MAX_CATEGORIES - len(known)
        if not room or 2 * self.n_different > self.n:
            return []
        return [v for v, times in self.counts.items() if times > 1 and v not in known][:room]


class Census:
    """What a stream's columns held so far."""

    __slots__ = ("strings",)

    def __init__(self) -> None:
        self.strings: dict[str, Strings] = {}

    @property
    def text_columns(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(column for column, strings in self.strings.items() if strings.is_text)

    def count(self, step: Frame, inputs: Inputs) -> dict[Input, int]:
        """Count a step. Returns what `inputs` lacks, and in how many events before it was 1."""
        new: dict[Input, int] = {}
        for column, values in step.texts.items():
            strings = self.strings.setdefault(column, Strings())
            before = strings.n
            counts = strings.count(values)
            known = inputs.categories(column)
            fresh = {v: strings.counts[v] - counts[v] for v in strings.categories(known)}
            if fresh and not known:
                new[Input(OTHER, column)] = before - sum(fresh.values())
            new |= {Input(CATEGORY, column, v): times for v, times in fresh.items()}
        return new

    def as_json(self) -> list[list[Any]]:
        """One entry a string column."""
        return [[name, s.n, s.is_text, list(s.counts.items())] for name, s in self.strings.items()]

    @classmethod
    def from_json(cls, columns: Sequence[Sequence[Any]]) -> "Census":
        """From what `as_json` gave. TypeError, ValueError where it is something else."""
        census = cls()
        for name, n, is_text, counts in columns:
            values = {str(value): int(times) for value, times in counts}
            census.strings[str(name)] = Strings(values, int(n), bool(is_text))
        return census
