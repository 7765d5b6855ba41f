"""Stage 1, census: counts what columns hold, to tell which inputs they need.

In: a step's columns and classes. Out: inputs to add (preprocess), and which columns hold texts
(core.text). Unlike preprocess, which turns values into numbers, this only counts; what it decides
follows from counts alone, and stays decided.

A string column is categories where values recur: while at most half of its values so far were
new ones, a value that came twice becomes an input, up to MAX_CATEGORIES of them. It is text, read
word by word, from its first value on that is too long for a category, or once it had more
different values than there may be categories. It may be both: 300 airports, say.

A number column gets a missing flag once its gaps go with some classes: Pearson's chi-square of
gap or value against class, a part of ALPHA for each column and each of its tests, which come at
FIRST_TEST gaps and ever later. Only events whose class differs from the one before count, so that
a sensor's outage while one class lasts is one event, not hundreds. A flag for every gap costs
more than it brings (breast_cancer with a tenth of the values gone at random, steps of 32: .937,
without flags .946; digits .891, .913).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from streamlearn.core.grown import grown
from streamlearn.core.preprocess import CATEGORY, MISSING, OTHER, Input, Inputs
from streamlearn.core.records import Frame

MAX_CATEGORIES = 16  # of a column; all other values are "other"
MAX_CATEGORY_LENGTH = 64  # characters; longer texts are no categories
COUNTED_VALUES = 64  # of a column, first come; later ones count as always new
FIRST_TEST = 5  # gaps, and as many values, before a column's first test
NEXT_TEST = 1.5  # times as many gaps until the next one
ALPHA = 0.001  # of a wrong flag in one test of all columns
LEAST_EXPECTED = 1.0  # events of a class with, and without, a gap; rarer classes count as one


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


class Gaps:
    """Which classes a stream's number columns lack values in."""

    __slots__ = ("last", "next_test", "tables", "totals")

    def __init__(self) -> None:
        self.last = -1  # class of the last labelled event
        self.totals: NDArray[np.int64] = np.zeros(0, np.int64)  # (d,) gaps in all events
        self.tables: NDArray[np.int64] = np.zeros((0, 2, 0), np.int64)  # (d, value or gap, C)
        self.next_test: NDArray[np.int64] = np.zeros(0, np.int64)  # (d,) gaps in the table

    def count(
        self, numbers: NDArray[np.float64], codes: NDArray[np.int32], n_classes: int
    ) -> list[int]:
        """Count a step's numbers (n, d), codes (n,). Returns columns whose gaps go with classes.

        Nothing is counted before the stream's first gap.
        """
        missing = np.isnan(numbers)
        if not len(self.totals) and not missing.any():
            return []
        self._grow(numbers.shape[1], n_classes)
        self.totals += missing.sum(axis=0)
        labelled = np.flatnonzero(codes >= 0)
        if not len(labelled):
            return []
        known = codes[labelled]
        counted = known != np.concatenate([[self.last], known[:-1]])
        self.last = int(known[-1])
        for code in np.unique(known[counted]).tolist():
            with_gap = missing[labelled[counted & (known == code)]]
            self.tables[:, 1, code] += with_gap.sum(axis=0)
            self.tables[:, 0, code] += (~with_gap).sum(axis=0)
        n_values, n_gaps = self.tables.sum(axis=2).T
        due = np.flatnonzero((n_gaps >= self.next_test) & (n_values >= FIRST_TEST))
        self.next_test[due] = np.ceil(NEXT_TEST * n_gaps[due])
        return [j for j in due.tolist() if depends(self.tables[j], ALPHA / len(self.tables))]

    def _grow(self, n_columns: int, n_classes: int) -> None:
        more, more_classes = n_columns - len(self.totals), n_classes - self.tables.shape[2]
        if more or more_classes:
            self.totals = grown(self.totals, more)
            self.next_test = grown(self.next_test, more, fill=FIRST_TEST)
            self.tables = grown(self.tables, more, 0, more_classes)


def depends(table: NDArray[np.int64], alpha: float) -> bool:
    """Whether the rows of counts (2, C) differ by more than chance would with probability alpha.

    >>> depends(np.array([[30, 30], [20, 25]]), 0.001)
    False
    >>> depends(np.array([[30, 30], [2, 40]]), 0.001)
    True
    """
    share = table.sum(axis=1) / max(table.sum(), 1)
    often = table.sum(axis=0) * share.min() >= LEAST_EXPECTED
    parts = [table[:, often], table[:, ~often].sum(axis=1, keepdims=True)]
    counts = np.concatenate(parts, axis=1)
    expected = np.outer(share, counts.sum(axis=0))
    counts, expected = (a[:, expected.min(axis=0) > 0] for a in (counts, expected))
    if counts.shape[1] < 2:
        return False
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    return bool(chdtrc(counts.shape[1] - 1, chi_square) < alpha)


class Census:
    """What a stream's columns held so far."""

    __slots__ = ("gaps", "strings")

    def __init__(self) -> None:
        self.strings: dict[str, Strings] = {}
        self.gaps = Gaps()

    @property
    def text_columns(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(column for column, strings in self.strings.items() if strings.is_text)

    def passes(self, rows: NDArray[np.float64]) -> bool:
        """Whether rows (n, d) without strings have nothing to count: no gap, now or before."""
        return not len(self.gaps.totals) and not np.isnan(rows).any()

    def count(
        self,
        step: Frame,
        numbers: NDArray[np.float64],
        codes: NDArray[np.int32],
        n_classes: int,
        inputs: Inputs,
    ) -> dict[Input, int]:
        """Count a step: its frame, number inputs (n, d) and class codes (n,), -1 unlabelled.

        Returns what `inputs` lacks, and in how many events before the step it was 1.
        """
        return self._flags(numbers, codes, n_classes, inputs) | self._categories(step, inputs)

    def _flags(
        self,
        numbers: NDArray[np.float64],
        codes: NDArray[np.int32],
        n_classes: int,
        inputs: Inputs,
    ) -> dict[Input, int]:
        found = self.gaps.count(numbers, codes, n_classes)
        flags = {Input(MISSING, inputs.number_names[j]): j for j in found}
        new = {flag: j for flag, j in flags.items() if flag not in inputs}
        return {
            flag: int(self.gaps.totals[j] - np.isnan(numbers[:, j]).sum())
            for flag, j in new.items()
        }

    def _categories(self, step: Frame, inputs: Inputs) -> dict[Input, int]:
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

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict, and arrays."""
        strings = [
            [name, s.n, s.is_text, list(s.counts.items())] for name, s in self.strings.items()
        ]
        gaps = self.gaps
        arrays = {"totals": gaps.totals, "tables": gaps.tables, "next_test": gaps.next_test}
        return {"strings": strings, "last": gaps.last}, {k: a.copy() for k, a in arrays.items()}

    @classmethod
    def restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Census":
        """From what `state` gave. KeyError, TypeError, ValueError where it is something else."""
        census = cls()
        for name, n, is_text, counts in meta["strings"]:
            values = {str(value): int(times) for value, times in counts}
            census.strings[str(name)] = Strings(values, int(n), bool(is_text))
        gaps = census.gaps
        gaps.last = int(meta["last"])
        gaps.totals = np.array(arrays["totals"], np.int64)
        gaps.tables = np.array(arrays["tables"], np.int64)
        gaps.next_test = np.array(arrays["next_test"], np.int64)
        d = len(gaps.totals)
        if gaps.next_test.shape != (d,) or gaps.tables.shape[:2] != (d, 2):
            raise ValueError(f"census of {gaps.tables.shape} for {d} columns")
        return census
