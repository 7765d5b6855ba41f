"""Stage 6, companions: what else is known of kept events, in arrays by slot.

In: a value an event (logits, pixels) and the slots that took the events. Out: the values of slots.
A sample (`microclusters`, `reservoir`) keeps rows of numbers and knows nothing of these; they
follow its members, which never move from slot to slot.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.errors import StateError

MAX_WORDS = 400  # characters of an event's texts that are kept for people
Values = Mapping[str, NDArray[Any]]  # by name, (n, ...)


class Companions:
    """Named arrays (slots, ...). A name's dtype and number of axes are those of its first values.

    The second axis may grow (logits, as classes come): what is not known is NaN, in integers 0.

    >>> logits = Companions()
    >>> logits.take(np.array([0, -1]), {"logits": np.array([[0.5], [0.7]])}, n_slots=2)
    >>> logits.take(np.array([1]), {"logits": np.array([[0.1, 0.9]])}, n_slots=2)
    >>> logits["logits"].tolist()
    [[0.5, nan], [0.1, 0.9]]
    """

    __slots__ = ("_arrays",)

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """(slots, ...): a view; KeyError where nobody gave such values."""
        return self._arrays[name]

    def __len__(self) -> int:
        """Names."""
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def take(self, slots: NDArray[np.int64], values: Values, *, n_slots: int) -> None:
        """Events (n,) became members of `slots`, -1: of none; of a slot's events the last stays.

        A name without values here is unknown for these events.
        """
        if not self._arrays and not values:
            return
        rows = np.flatnonzero(slots >= 0)
        taken, last = np.unique(slots[rows][::-1], return_index=True)
        rows = rows[len(rows) - 1 - last]
        for name in {**self._arrays, **values}:
            given = values.get(name)
            array = self._room(name, n_slots, given)
            array[taken] = _unknown(array.dtype)
            if given is not None:
                _write(array, taken, given[rows])

    def set(self, name: str, slots: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Other values for the members of `slots`, which may repeat: the last counts."""
        n_slots = len(self._arrays[name]) if name in self._arrays else 0
        array = self._room(name, max(n_slots, 1 + int(slots.max(initial=-1))), values)
        array[slots] = _unknown(array.dtype)
        _write(array, slots, values)

    def of(self, slots: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The values of `slots`, by name; copies."""
        n_slots = 1 + int(slots.max(initial=-1))
        return {name: self._room(name, n_slots, None)[slots] for name in self._arrays}

    def _room(self, name: str, n_slots: int, given: NDArray[Any] | None) -> NDArray[Any]:
        """The array of a name, grown to `n_slots` and to the width of what is given."""
        array = self._arrays.get(name)
        if array is None:
            if given is None:
                raise KeyError(name)
            array = np.full((n_slots, *given.shape[1:]), _unknown(given.dtype), given.dtype)
        more = [(0, max(n_slots - len(array), 0)), *((0, 0) for _ in array.shape[1:])]
        if given is not None:
            same_tail = given.shape[2:] == array.shape[2:] and given.dtype == array.dtype
            if given.ndim != array.ndim or not same_tail:
                raise ValueError(
                    f"companions {name!r} are {array.dtype} {array.shape[1:]} an event, and these "
                    f"are {given.dtype} {given.shape[1:]}: only the first axis may grow"
                )
            if array.ndim > 1:
                more[1] = (0, max(given.shape[1] - array.shape[1], 0))
        if any(after for _, after in more):
            array = np.pad(array, more, constant_values=_unknown(array.dtype))
        self._arrays[name] = array
        return array

    @classmethod
    def restore(cls, slots: NDArray[np.int64], arrays: Values) -> "Companions":
        """Go on from what `of` gave for the same slots. StateError where it doesn't fit."""
        companions = cls()
        for name, array in arrays.items():
            if array.ndim < 1 or len(array) != len(slots):
                raise StateError(
                    f"companions {name!r} are {array.shape} for {len(slots)} kept events; the "
                    "state is corrupt"
                )
            companions.set(name, slots, array)
        return companions


def packed(said: Sequence[Mapping[str, str | None]]) -> NDArray[np.uint8]:
    """(n, width) each event's texts by column as JSON, cut to MAX_WORDS characters in all.

    >>> unpacked(packed([{"title": "hot", "note": None}, {}])[0])
    {'title': 'hot'}
    """
    lines: list[bytes] = []
    for texts in said:
        known = {name: text for name, text in texts.items() if text is not None}
        each = max(MAX_WORDS // max(len(known), 1), 1)
        cut = {name: text if len(text) <= each else text[: each - 1] + "…"
               for name, text in known.items()}  # fmt: skip
        lines.append(json.dumps(cut).encode())
    width = max(map(len, lines), default=0)
    joined = b"".join(line.ljust(width, b"\0") for line in lines)
    return np.frombuffer(joined, np.uint8).reshape(len(lines), width)


def unpacked(words: NDArray[np.uint8]) -> dict[str, str]:
    """One event's texts; none where nothing is known."""
    line = words.tobytes().rstrip(b"\0")
    return dict(json.loads(line)) if line else {}


def _unknown(dtype: np.dtype[Any]) -> Any:
    return np.nan if np.issubdtype(dtype, np.floating) else 0


def _write(array: NDArray[Any], slots: NDArray[np.int64], values: NDArray[Any]) -> None:
    if array.ndim > 1 and values.shape[1] < array.shape[1]:
        array[slots, : values.shape[1]] = values
    else:
        array[slots] = values
