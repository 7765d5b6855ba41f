"""Arrow record batches to the columns of a Frame, a column at a time.

event_codec passes batches in that arrow_bounds has bounded and Arrow has validated; what the
cells mean is in event_rules. Everything here costs C calls a column, Python only for texts.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from streamlearn.core.records import ImageColumn, Label, Reason
from streamlearn.errors import FrameError
from streamlearn.wire import event_rules as rules
from streamlearn.wire.arrow_bounds import MAX_IMAGES, MAX_INFLATED_BYTES
from streamlearn.wire.event_schema import Kind, Layout, is_bytes, is_text, kind_of_type
from streamlearn.wire.image_codec import Pictures

Column: TypeAlias = Any  # pa.Array or pa.ChunkedArray: their stubs share no useful base

_SECONDS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}  # units in a second


@dataclass(slots=True)
class Refused:
    """Rows that are not learned, with the first reason found for each."""

    rows: dict[int, tuple[Reason, str]] = field(default_factory=dict)

    def add(self, row: int, reason: Reason, detail: str) -> None:
        self.rows.setdefault(row, (reason, detail))


def text_bytes(column: Column) -> int:
    """At least the bytes of a text or image column once every cell is written out."""
    if pt.is_dictionary(column.type):
        sizes = _sizes(column.dictionary)
        used = column.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(sizes[used].sum())
    if _is_view(column.type):
        return int(_sizes(column).sum())
    return int(column.nbytes)  # offsets and what lies between the first and the last one


def _is_view(type_: pa.DataType) -> bool:
    return pt.is_string_view(type_) or pt.is_binary_view(type_)


def _sizes(column: Column) -> NDArray[np.int64]:
    """(n,) bytes of each cell, 0 where null."""
    if _is_view(column.type):
        views = column.buffers()[1]  # 16 bytes a cell, of which the first four are its size
        cut = slice(column.offset, column.offset + len(column))
        sizes = np.frombuffer(views, np.int32)[: 4 * cut.stop].reshape(-1, 4)[cut, 0]
        return np.where(column.is_valid().to_numpy(zero_copy_only=False), sizes, 0).astype(np.int64)
    lengths: Column = pc.binary_length(column)
    return np.asarray(lengths.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)


def plain(column: Column) -> Column:
    """Without its dictionary. Call only after text_bytes() was found small enough."""
    return column.dictionary_decode() if pt.is_dictionary(column.type) else column


def seconds(column: Column) -> Column:
    """Dates, times, timestamps and durations as float64 seconds; time zones only affect display."""
    type_ = column.type
    if pt.is_date32(type_):
        return pc.multiply(column.view(pa.int32()).cast(pa.float64()), 86_400.0)
    units = 1e3 if pt.is_date64(type_) else _SECONDS[type_.unit]
    raw = column.view(pa.int32() if pt.is_time32(type_) else pa.int64())
    return pc.divide(raw.cast(pa.float64(), safe=False), units)


def number_matrix(batch: pa.RecordBatch, layout: Layout) -> NDArray[np.float64]:
    """(n, d) float64; NaN where missing."""
    if not layout.numbers:
        return np.empty((batch.num_rows, 0))
    if layout.all_float64:
        numbers = batch.select(layout.numbers)
    else:
        columns = [as_float64(batch.column(index)) for index in layout.numbers]
        numbers = pa.RecordBatch.from_arrays(columns, names=[""] * len(columns))
    matrix: NDArray[np.float64] = numbers.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    if not matrix.flags.writeable:
        matrix = matrix.copy()
    outside = ~(np.abs(matrix) <= rules.FLOAT32_MAX)
    if outside.any():
        matrix[outside] = np.nan
    return matrix


def as_float64(column: Column) -> Column:
    """A number or time column as float64, nulls kept."""
    if column.type == pa.float64():
        return column
    column = plain(column)
    if pt.is_temporal(column.type):
        return seconds(column)
    return column.cast(pa.float64(), safe=False)


def texts(column: Column) -> tuple[str | None, ...]:
    """A text column's cells."""
    return tuple(plain(column).to_pylist())


def images(batch: pa.RecordBatch, layout: Layout, refused: Refused) -> dict[str, ImageColumn]:
    """The image columns; rows whose images can't be read are refused. Call it last: rows that
    are refused already are not looked at."""
    n_images = len(layout.images) * batch.num_rows
    if n_images > MAX_IMAGES:
        raise FrameError(Reason.TOO_LARGE, f"{n_images} > {MAX_IMAGES} cells of image columns")
    pictures, found = Pictures(), dict[str, ImageColumn]()
    gone = frozenset(refused.rows)
    for index in layout.images:
        cells: list[bytes | None] = plain(batch.column(index)).to_pylist()
        wanted = [None if row in gone else cell for row, cell in enumerate(cells)]
        name = layout.names[index]

        def refuse(row: int, why: str, name: str = name) -> None:
            refused.add(row, Reason.BAD_IMAGE, f"column {name[:80]!r}: {why}")

        found[name] = pictures.column(wanted, refuse)
    return found


def event_times(
    column: Column | None, n: int, default_s: float, refused: Refused
) -> NDArray[np.float64]:
    """(n,) float64 seconds since the epoch."""
    if column is None or pt.is_null(column.type):
        return np.full(n, default_s)
    column = plain(column)
    if is_text(column.type):
        times = np.full(n, default_s)
        for row, text in enumerate(column.to_pylist()):
            try:
                if text is not None:
                    times[row] = rules.time_of(text)
            except rules.RefusedError as error:
                refused.add(row, Reason.BAD_TIME, str(error))
        return times
    if kind_of_type(column.type) is not Kind.NUMBER or (
        pt.is_boolean(column.type) or pt.is_time(column.type) or pt.is_duration(column.type)
    ):
        raise FrameError(Reason.BAD_TIME, f"event_time is {column.type}; send a timestamp")
    as_seconds = as_float64(column)
    times = np.array(as_seconds.to_numpy(zero_copy_only=False), dtype=np.float64)
    if as_seconds.null_count:
        times[as_seconds.is_null().to_numpy(zero_copy_only=False)] = default_s
    good = (times >= rules.FIRST_SECOND) & (times < rules.LAST_SECOND)
    for row in np.flatnonzero(~good).tolist():
        try:
            rules.time_of(float(times[row]))
        except rules.RefusedError as error:
            refused.add(row, Reason.BAD_TIME, str(error))
    return times


def event_ids(column: Column | None) -> tuple[str, ...]:
    """n ids, "" where null; none without a column."""
    if column is None or pt.is_null(column.type):
        return ()
    column = plain(column)
    if pt.is_integer(column.type):
        column = column.cast(pa.string())
    elif not is_text(column.type):
        raise FrameError(Reason.WRONG_TYPE, f"event_id is {column.type}; send text or integers")
    return tuple("" if cell is None else cell for cell in column.to_pylist())


def labels(
    column: Column | None, n: int, refused: Refused
) -> tuple[NDArray[np.int32], tuple[Label, ...]]:
    """Codes (n,), -1 where unlabelled or refused, and the values that they stand for."""
    if column is None or pt.is_null(column.type):
        return np.full(n, -1, np.int32), ()
    column = plain(column)
    if kind_of_type(column.type) not in (Kind.NUMBER, Kind.TEXT) or pt.is_temporal(column.type):
        raise FrameError(Reason.BAD_LABEL, f"label is {column.type}; send text or whole numbers")
    if pt.is_floating(column.type):
        column = column.cast(pa.float64())
    encoded = column.dictionary_encode()
    values: dict[Label, int] = {}
    meaning = np.full(len(encoded.dictionary) + 1, -1, np.int32)  # the last one: null
    refusals: dict[int, str] = {}
    for code, raw in enumerate(encoded.dictionary.to_pylist()):
        try:
            value = rules.label_of(raw)
        except rules.RefusedError as error:
            refusals[code] = str(error)
        else:
            meaning[code] = values.setdefault(value, len(values))
    raw_codes = pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy()
    if refusals:
        for row in np.flatnonzero(np.isin(raw_codes, list(refusals))).tolist():
            refused.add(row, Reason.BAD_LABEL, refusals[int(raw_codes[row])])
    return meaning[raw_codes], tuple(values)


def joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of several, whose dictionaries may differ: without dictionaries."""
    columns: list[Column] = []
    for index in range(batches[0].num_columns):
        parts = [plain(batch.column(index)) for batch in batches]
        if is_text(parts[0].type):
            parts = [part.cast(pa.large_string()) for part in parts]
        elif is_bytes(parts[0].type):
            parts = [part.cast(pa.large_binary()) for part in parts]
        columns.append(pa.concat_arrays(parts))
    return pa.RecordBatch.from_arrays(columns, names=batches[0].schema.names)


def check_inflation(batches: list[pa.RecordBatch], layout: Layout) -> None:
    """FrameError where texts and images, written out, are more than MAX_INFLATED_BYTES."""
    total = sum(
        text_bytes(batch.column(index)) for index in layout.written_out for batch in batches
    )
    if total > MAX_INFLATED_BYTES:
        raise FrameError(
            Reason.TOO_LARGE, f"{total} > {MAX_INFLATED_BYTES} bytes of texts and images"
        )
