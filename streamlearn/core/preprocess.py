"""Stage 1, preprocess: a frame's columns become rows of numbers, and their scale is learned.

In: frames, whose columns come and go. Out: rows (n, d) with one place for every input: a number
column, a missing flag of it, a category of a string column.
Features, the next stage, standardises these rows with what `Standardiser` has learned so far.

Inputs are only ever added, at the end, so what was learned about earlier ones stays as it is: an
input that did not exist yet was at its mean, which standardised is 0.
Which flags and categories there are is told by census; texts and images have experts of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Frame

MAX_INPUTS = 1024  # columns, flags and categories beyond it are ignored: memory grows with d^2
LARGEST = 1e100  # numbers are clipped to it, so that their squares stay finite

Places: TypeAlias = slice | list[int]

NUMBER, MISSING, CATEGORY, OTHER = "number", "missing", "category", "other"


@dataclass(frozen=True, slots=True)
class Input:
    """One place in a row."""

    kind: str  # NUMBER, MISSING, CATEGORY or OTHER
    column: str
    value: str = ""  # of a CATEGORY
    recent: bool = False  # whether it is also compared with the recent past

    def as_json(self) -> list[Any]:
        return [self.kind, self.column, self.value, self.recent]


class Inputs:
    """Which input lies where. Immutable: `grown` makes a longer one."""

    __slots__ = ("_categories", "_places", "columns", "inputs", "number_names", "numbers", "recent")

    def __init__(self, inputs: Sequence[Input] = ()) -> None:
        self.inputs = tuple(inputs)
        self.columns = tuple(dict.fromkeys(i.column for i in self.inputs))
        self.recent = tuple(j for j, i in enumerate(self.inputs) if i.recent)
        self._places = {(i.kind, i.column, i.value): j for j, i in enumerate(self.inputs)}
        self.number_names = tuple(i.column for i in self.inputs if i.kind == NUMBER)
        places = [j for j, i in enumerate(self.inputs) if i.kind == NUMBER]
        self.numbers: Places = slice(None) if len(places) == len(self.inputs) else places
        self._categories: dict[str, dict[str, int]] = {}
        for j, i in enumerate(self.inputs):
            if i.kind == OTHER:
                self._categories.setdefault(i.column, {})
            elif i.kind == CATEGORY:
                self._categories.setdefault(i.column, {})[i.value] = j

    def __len__(self) -> int:
        return len(self.inputs)

    def as_json(self) -> list[list[Any]]:
        return [i.as_json() for i in self.inputs]

    @classmethod
    def from_json(cls, rows: Sequence[Sequence[Any]]) -> "Inputs":
        return cls([Input(str(k), str(c), str(v), bool(r)) for k, c, v, r in rows])

    def rows(self, frame: Frame) -> NDArray[np.float64]:
        """(n, d) C-contiguous, NaN where a number is missing or not finite."""
        n = len(frame)
        if frame.columns == self.number_names and len(self) == len(self.number_names):
            rows = np.array(frame.numbers, np.float64, order="C")
        else:
            rows = np.zeros((n, len(self)))
            place = {name: j for j, name in enumerate(frame.columns)}
            for j, i in enumerate(self.inputs):
                source = place.get(i.column)
                if i.kind == NUMBER:
                    rows[:, j] = np.nan if source is None else frame.numbers[:, source]
                elif i.kind == MISSING:
                    missing = True if source is None else ~np.isfinite(frame.numbers[:, source])
                    rows[:, j] = missing
            for column, categories in self._categories.items():
                self._write_categories(rows, frame.texts.get(column), column, categories)
        _clean(rows)
        return rows

    def categories(self, column: str) -> Mapping[str, int]:
        """Place of each value of a string column that is an input."""
        return self._categories.get(column, {})

    def _write_categories(
        self,
        rows: NDArray[np.float64],
        texts: Sequence[str | None] | None,
        column: str,
        categories: dict[str, int],
    ) -> None:
        if texts is None:
            return
        other = self._places[OTHER, column, ""]
        for row, text in enumerate(texts):
            if text is not None:
                rows[row, categories.get(text, other)] = 1.0

    def __contains__(self, one: object) -> bool:
        return isinstance(one, Input) and (one.kind, one.column, one.value) in self._places

    def new_columns(self, frame: Frame, *, max_recent: int) -> tuple[Input, ...]:
        """Number columns of the frame that are no inputs yet, in their order."""
        if frame.columns == self.number_names:
            return ()
        fresh = [name for name in frame.columns if (NUMBER, name, "") not in self._places]
        recent = bool(fresh) and len(self.number_names) + len(fresh) <= max_recent
        return tuple(Input(NUMBER, name, recent=recent) for name in fresh)

    def grown(self, new: Sequence[Input]) -> "Inputs":
        """With new ones at the end, those beyond MAX_INPUTS left out."""
        return Inputs((*self.inputs, *new)[:MAX_INPUTS])


class Standardiser:
    """Running mean and spread of every input, missing values left out.

    Chan, Golub, LeVeque 1983, Algorithms for computing the sample variance: merges batches.
    """

    __slots__ = ("count", "mean", "squares")

    def __init__(self) -> None:
        self.count: NDArray[np.float64] = np.zeros(0)  # (d,) values seen
        self.mean: NDArray[np.float64] = np.zeros(0)  # (d,)
        self.squares: NDArray[np.float64] = np.zeros(0)  # (d,) sum of squared deviations

    def grow(self, new: Sequence[Input], n_events: int, ones: Mapping[Input, int]) -> None:
        """Room for new inputs; flags and categories were 1 in `ones` events so far, else 0."""
        counts = [0.0 if i.kind == NUMBER else float(n_events) for i in new]
        means = [ones.get(i, 0) / max(n_events, 1) for i in new]
        spread = [ones.get(i, 0) * (1.0 - mean) for i, mean in zip(new, means, strict=True)]
        self.count = np.concatenate([self.count, counts])
        self.mean = np.concatenate([self.mean, means])
        self.squares = np.concatenate([self.squares, spread])

    def update(self, rows: NDArray[np.float64], first: int, last: int) -> None:
        """Learn inputs first..last from rows (n, d)."""
        if len(rows):
            _merge(rows, self.count, self.mean, self.squares, first, last)

    def inverse_std(self) -> NDArray[np.float64]:
        """(d,) 1 / spread; 1 where an input was constant so far."""
        std = np.sqrt(self.squares / np.maximum(self.count, 1.0))
        varies = std > 1e-9 * np.abs(self.mean) + 1e-12
        return np.where(varies, 1.0 / np.where(varies, std, 1.0), 1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _clean(rows: NDArray[np.float64]) -> None:
    """Not finite becomes NaN, the rest is clipped to +-LARGEST; in place."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j]
            if not np.isfinite(value):
                rows[i, j] = np.nan
            elif value > LARGEST:
                rows[i, j] = LARGEST
            elif value < -LARGEST:
                rows[i, j] = -LARGEST


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _merge(
    rows: NDArray[np.float64],
    count: NDArray[np.float64],
    mean: NDArray[np.float64],
    squares: NDArray[np.float64],
    first: int,
    last: int,
) -> None:
    n, d = rows.shape
    n_new = np.zeros(d)
    total = np.zeros(d)
    deviation = np.zeros(d)
    for i in range(n):
        for j in range(first, last):
            value = rows[i, j]
            if value == value:
                n_new[j] += 1.0
                total[j] += value
    for j in range(first, last):
        total[j] = total[j] / max(n_new[j], 1.0)
    for i in range(n):
        for j in range(first, last):
            value = rows[i, j]
            if value == value:
                deviation[j] += (value - total[j]) ** 2
    for j in range(first, last):
        if n_new[j] > 0.0:
            both = count[j] + n_new[j]
            step = total[j] - mean[j]
            squares[j] += deviation[j] + step * step * count[j] * n_new[j] / both
            mean[j] += step * n_new[j] / both
            count[j] = both
