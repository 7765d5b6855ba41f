"""A column's kind, told from its first values, and its values as numbers.

| kind     | told by                                                | becomes                  |
|----------|--------------------------------------------------------|--------------------------|
| number   | 9 of 10 values are numbers, or numbers and a %         | itself, NaN where not    |
| boolean  | true/false, yes/no, t/f, y/n                           | 1 and 0                  |
| date     | a date type, or 9 of 10 values are ISO 8601            | seconds since 1970       |
| category | few different short texts                              | text                     |
| text     | all other text                                         | text                     |
| image    | bytes that start as PNG and JPEG files do              | 28 x 28 grey pixels      |
| ignored  | counters, ids (every value is new), nested, other bytes | nothing                 |

A counter never falls and often rises: a row number, a date, a clock. It is always new, so nothing
learned about its values holds for the next ones (elec2 at steps of 32: .908 without its date,
.905 with it). Empty cells and NA, NaN, null, None, ? are missing numbers; a missing text is an
empty cell. Images may lie in a struct's field `bytes`, as data sets of Hugging Face have them.
A column without a single value has no kind yet: it is told later, when one comes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamlearn.wire.image_codec import FILE_STARTS

MOSTLY = 0.9  # of the values
COUNTER_VALUES = 50  # that many values, none lower than the one before
COUNTER_RISES = 20  # of these higher
ID_VALUES = 50  # that many values, all different, before a column is called an id
ID_CHARACTERS = 64
CATEGORY_CHARACTERS = 64
FIRST_FILES = 8  # all of these are images before a column of bytes is called one

MISSING = ("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "nil", "?", "-", "<na>")
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"
THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"  # 1,234.5
# 1234,5 and 1.234,5; between commas where values say so: see comma_of
DECIMAL_COMMA = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+$"
PERCENT = r"\s*%$"  # 12.5 % is 12.5
DATE = (
    r"^\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|[+-]\d{2}:?\d{2})?)?$"
)
TRUE, FALSE = ("true", "yes", "t", "y"), ("false", "no", "f", "n")


class Kind(StrEnum):
    """What a column's values are."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    CATEGORY = "category"
    TEXT = "text"
    IMAGE = "image"
    IGNORED = "ignored"

    @property
    def numeric(self) -> bool:
        return self in (Kind.NUMBER, Kind.BOOLEAN, Kind.DATE)


@dataclass(frozen=True, slots=True)
class Told:
    """A column's kind and what to say about it."""

    kind: Kind
    note: str = ""


IMAGES = Told(Kind.IMAGE, "as 28 x 28 grey")
DATES = Told(Kind.DATE, "as seconds since 1970")


def unless_counter(told: Told, numbers: NDArray[np.float64]) -> Told:
    """`told`, or IGNORED where the first values (n,) never fall and often rise."""
    steps = np.diff(numbers[np.isfinite(numbers)])
    if len(steps) + 1 < COUNTER_VALUES or (steps < 0).any() or (steps > 0).sum() < COUNTER_RISES:
        return told
    return Told(Kind.IGNORED, f"a {told.kind} that only grows, always new; --keep uses it")


def plain(values: Any) -> Any:
    """A column as one array of a plain type: chunks joined, dictionaries resolved."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # of no or several chunks, in older pyarrow
            values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([])
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        inside = pc.struct_field(values, "bytes")
        values = inside if _is_binary(inside.type) else values
    return values


def _is_binary(kind: Any) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def tell(values: Any, *, comma: str = THOUSANDS) -> Told | None:
    """The kind of a plain array; None where it has no value. `comma`: numbers that have one."""
    kind = values.type
    if pa.types.is_string(kind):
        return _tell_text(values, comma)
    if values.null_count == len(values):
        return None
    if pa.types.is_boolean(kind):
        return Told(Kind.BOOLEAN)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return unless_counter(Told(Kind.NUMBER), as_numbers(values, Kind.NUMBER)[0])
    if pa.types.is_temporal(kind):
        return unless_counter(DATES, as_numbers(values, Kind.DATE)[0])
    if _is_binary(kind):
        first = values.drop_null().slice(0, FIRST_FILES).to_pylist()
        if all(cell.startswith(FILE_STARTS) for cell in first):
            return IMAGES
        return Told(Kind.IGNORED, "bytes that are neither PNG nor JPEG")
    return Told(Kind.IGNORED, f"values of type {kind}")


def comma_of(columns: Iterable[Any]) -> str:
    """What a comma in numbers means where commas separate columns, too, by the first texts.

    DECIMAL_COMMA where a column is numbers only if it is one, and none is only if it is not.
    """
    found = set()
    for values in map(plain, columns):
        trimmed = pc.utf8_trim_whitespace(values)
        present = trimmed.filter(pc.invert(_missing(trimmed)))
        if _share(present, ",") == 0.0:
            continue
        bare = pc.replace_substring_regex(present, PERCENT, "")
        fits = (c for c in (THOUSANDS, DECIMAL_COMMA) if _share(bare, f"{NUMBER}|{c}") >= MOSTLY)
        found.add(tuple(fits))
    return DECIMAL_COMMA if (DECIMAL_COMMA,) in found and (THOUSANDS,) not in found else THOUSANDS


def _tell_text(values: Any, comma: str) -> Told | None:
    trimmed = pc.utf8_trim_whitespace(values)
    present = trimmed.filter(pc.invert(_missing(trimmed)))
    n = len(present)
    if n == 0:
        return None
    bare = pc.replace_substring_regex(present, PERCENT, "")
    numbers = _share(bare, f"{NUMBER}|{comma}")
    if numbers >= MOSTLY:
        found = as_numbers(present, Kind.NUMBER, comma=comma)[0]
        return unless_counter(Told(Kind.NUMBER), found)
    different = pc.unique(present)
    if set(pc.utf8_lower(different).to_pylist()) <= {*TRUE, *FALSE}:
        return Told(Kind.BOOLEAN, "as 1 and 0")
    if _share(present, DATE) >= MOSTLY:
        return unless_counter(DATES, as_numbers(present, Kind.DATE)[0])
    longest = pc.max(pc.utf8_length(different)).as_py()
    words = _share(different, r"\s")
    if n >= ID_VALUES and len(different) >= 0.99 * n and longest <= ID_CHARACTERS and words < 0.01:
        return Told(Kind.IGNORED, "an id: every value is new; --keep uses it")
    if longest <= CATEGORY_CHARACTERS and len(different) <= max(16, 0.2 * n):
        return Told(Kind.CATEGORY, f"{len(different)} different values at first")
    return Told(Kind.TEXT)


def _share(values: Any, pattern: str) -> float:
    """How many of the values match."""
    return float(pc.mean(pc.match_substring_regex(values, pattern).cast(pa.int8())).as_py() or 0.0)


def _missing(trimmed: Any) -> Any:
    return pc.fill_null(pc.is_in(pc.utf8_lower(trimmed), pa.array(MISSING)), True)


def as_numbers(
    values: Any, kind: Kind, *, comma: str = THOUSANDS
) -> tuple[NDArray[np.float64], int]:
    """(n,) float64 with NaN where missing or unreadable, and how many values were unreadable."""
    if pa.types.is_string(values.type):
        return _text_numbers(values, kind, comma)
    if pa.types.is_temporal(values.type):
        return _seconds(values), 0
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan), 0
    if pa.types.is_boolean(values.type) or pa.types.is_integer(values.type):
        values = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        values = pc.cast(values, pa.float64(), safe=False)
    elif pa.types.is_decimal(values.type) or pa.types.is_floating(values.type):
        values = pc.cast(values, pa.float64(), safe=False)
    else:
        return np.full(len(values), np.nan), len(values) - values.null_count
    return _finite(values), 0


def _finite(values: Any) -> NDArray[np.float64]:
    numbers = np.array(values.to_numpy(zero_copy_only=False), np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _text_numbers(values: Any, kind: Kind, comma: str) -> tuple[NDArray[np.float64], int]:
    trimmed = pc.utf8_trim_whitespace(values)
    missing = _missing(trimmed)
    present = pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    if kind is Kind.BOOLEAN:
        lower = pc.utf8_lower(present)
        true, false = pc.is_in(lower, pa.array(TRUE)), pc.is_in(lower, pa.array(FALSE))
        true, false = np.asarray(true), np.asarray(false)
        numbers = np.where(true, 1.0, np.where(false, 0.0, np.nan))
    elif kind is Kind.DATE:
        numbers = date_seconds(present)
    else:
        try:
            numbers = _finite(pc.cast(present, pa.float64()))
        except pa.ArrowInvalid:
            numbers = _finite(pc.cast(_readable(present, comma), pa.float64()))
    return numbers, int(np.isnan(numbers).sum()) - (pc.sum(missing).as_py() or 0)


def _readable(present: Any, comma: str) -> Any:
    """Spell numbers as Arrow reads them; null what is none."""
    present = pc.replace_substring_regex(present, PERCENT, "")
    with_comma = pc.match_substring_regex(present, comma)
    spelled = pc.replace_substring(present, "." if comma == DECIMAL_COMMA else ",", "")
    present = pc.if_else(with_comma, pc.replace_substring(spelled, ",", "."), present)
    number = pc.match_substring_regex(present, NUMBER)
    present = pc.replace_substring_regex(present, r"^\+", "")
    return pc.if_else(number, present, pa.scalar(None, pa.string()))


def date_seconds(texts: Any) -> NDArray[np.float64]:
    """(n,) seconds since 1970 of ISO 8601 texts, NaN where they are none. Without zone: UTC."""
    try:
        return _seconds(pc.cast(texts, pa.timestamp("us")))
    except pa.ArrowInvalid:
        pass
    coded = pc.dictionary_encode(texts)
    seconds = [_one_date(text) for text in coded.dictionary.to_pylist()]
    table = np.array([*seconds, np.nan], np.float64)
    return table[np.asarray(pc.fill_null(coded.indices, len(seconds)), np.int64)]


def _one_date(text: str) -> float:
    spelled = text.replace("/", "-").replace(",", ".")
    try:
        moment = datetime.fromisoformat(spelled)
    except ValueError:
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _seconds(values: Any) -> NDArray[np.float64]:
    kind = values.type
    if pa.types.is_date32(kind):
        values, kind = values.cast(pa.timestamp("s")), pa.timestamp("s")
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
    unit = "ms" if pa.types.is_date64(kind) else kind.unit
    ticks = values.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    return _finite(pc.cast(ticks, pa.float64(), safe=False)) / per_second[unit]


def as_texts(values: Any) -> NDArray[Any]:
    """(n,) of str, None for an empty cell."""
    if not pa.types.is_string(values.type):
        values = pc.cast(values, pa.string())
    empty = pc.equal(values, pa.scalar(""))
    texts = pc.if_else(empty, pa.scalar(None, pa.string()), values)
    return np.array(texts.to_pylist(), dtype=object)


def as_label_text(value: Any) -> str:
    """A label that is a date or a duration, as people write it."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, timedelta) else repr(value)
