"""What a cell of the label, stream or time column means.

A class is text or a whole number: `1.0` is 1, true is "true", an empty cell (NaN, null) is an
unlabelled event. A column of fractions is refused, since it is a quantity and no class.
"""

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamlearn.core.records import Label
from streamlearn.errors import InputError
from streamlearn.sources.kinds import Kind, as_label_text, as_numbers, date_seconds
from streamlearn.sources.rows import Codes

MAX_LABEL_CHARACTERS = 256
MAX_STREAM_BYTES = 512
WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")
FRACTION = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
UNLABELLED = ("", "nan", "null")
# Seconds since 1970 stay below it until the year 5138; larger numbers are milliseconds and so on.
LARGEST_SECONDS = 1e11


class LabelColumn:
    """The label column of one file: its cells to codes."""

    def __init__(self, name: str, codes: Codes) -> None:
        self.name = name
        self.bad = 0  # cells that are no class, after the first batch
        self._codes = codes
        self._whole: bool | None = None  # texts that look like whole numbers are such

    def codes_of(self, values: Any) -> NDArray[np.int32]:
        """(n,) codes of a plain array, -1 where unlabelled."""
        n = len(values)
        if values.null_count == n:
            return np.full(n, -1, np.int32)
        kind = values.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise InputError(
                f"label column {self.name!r} holds values of type {kind}; a class is text or a "
                "whole number, so choose another --label"
            )
        coded = pc.dictionary_encode(values)
        different = coded.dictionary.to_pylist()
        first = self._whole is None
        if first:
            self._whole = self._are_whole(different)
        table = [self._codes.label(self._label(value, first)) for value in different]
        return _looked_up(table, coded)

    def _are_whole(self, different: list[Any]) -> bool:
        texts = [v.strip() for v in different if isinstance(v, str)]
        given = [t for t in texts if t.lower() not in UNLABELLED]
        if given and all(WHOLE.fullmatch(t) or FRACTION.fullmatch(t) for t in given):
            for text in given:
                if not WHOLE.fullmatch(text):
                    self._refuse(text)
            return True
        return False

    def _refuse(self, value: object) -> None:
        raise InputError(
            f"label column {self.name!r} holds fractions, for example {value}; a class is text or "
            "a whole number: choose another --label, or cut the values into classes first"
        )

    def _label(self, value: Any, first: bool) -> Label | None:
        match value:
            case None:
                return None
            case bool():
                return "true" if value else "false"
            case int():
                return value
            case float() if math.isnan(value):
                return None
            case float():
                if math.isfinite(value) and value == int(value):
                    return int(value)
                if first:
                    self._refuse(value)
                self.bad += 1
                return None
            case str():
                return self._text_label(value.strip())
            case _:
                return as_label_text(value)

    def _text_label(self, text: str) -> Label | None:
        if text.lower() in UNLABELLED:
            return None
        if self._whole and WHOLE.fullmatch(text):
            return int(text.split(".")[0])
        if len(text) > MAX_LABEL_CHARACTERS:
            self.bad += 1
            return None
        return text


def stream_codes(values: Any, codes: Codes) -> NDArray[np.int32]:
    """(n,) codes of the stream column; -1 where a cell names no stream."""
    coded = pc.dictionary_encode(values)
    table = []
    for value in coded.dictionary.to_pylist():
        whole = isinstance(value, float) and value.is_integer()
        name = str(int(value) if whole else value).strip().replace("\0", "")
        fits = 1 <= len(name.encode()) <= MAX_STREAM_BYTES
        table.append(codes.stream(name) if fits else -1)
    return _looked_up(table, coded)


def _looked_up(table: list[int], coded: Any) -> NDArray[np.int32]:
    """(n,) the table's entry for each value's place in the dictionary, -1 for nulls."""
    indices = np.asarray(pc.fill_null(coded.indices, pa.scalar(len(table), pa.int32())))
    found: NDArray[np.int32] = np.array([*table, -1], np.int32)[indices]
    return found


class TimeColumn:
    """The time column of one file: its cells to seconds since 1970."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bad = 0  # cells that are no time: the time before stands in
        self.unit = ""
        self._scale = 0.0
        self._last = 0.0

    def seconds(self, values: Any) -> NDArray[np.float64]:
        """(n,) of a plain array. InputError if the first batch holds no time at all."""
        unit = ""
        if pa.types.is_temporal(values.type):
            seconds, unit = as_numbers(values, Kind.DATE)[0], str(values.type)
        else:
            seconds, _ = as_numbers(values, Kind.NUMBER)
            if not np.isfinite(seconds).any() and pa.types.is_string(values.type):
                seconds, unit = date_seconds(pc.utf8_trim_whitespace(values)), "ISO 8601"
            else:
                seconds = seconds * self._unit_of(seconds)
        known = np.isfinite(seconds)
        self.unit = self.unit or (unit if known.any() else "")
        if not self.unit:
            raise InputError(
                f"time column {self.name!r} holds no times, for example "
                f"{values[0].as_py()!r}; give seconds since 1970 or ISO 8601, 2026-01-31T12:00:00"
            )
        self.bad += int((~known).sum())
        newest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
        filled = np.where(newest >= 0, seconds[newest], self._last)
        if len(filled):
            self._last = float(filled[-1])
        return filled

    def _unit_of(self, numbers: NDArray[np.float64]) -> float:
        """Seconds a unit: told once, from the first numbers' size."""
        if not self._scale and np.isfinite(numbers).any():
            size = float(np.nanmedian(np.abs(numbers)))
            self._scale, self.unit = 1.0, "seconds since 1970"
            for name in ("milliseconds", "microseconds", "nanoseconds"):
                if size * self._scale > LARGEST_SECONDS:
                    self._scale, self.unit = self._scale / 1000, f"{name} since 1970"
        return self._scale or 1.0
