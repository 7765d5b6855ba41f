"""Topic `events`: Kafka records to Frames and back. Others' bytes: nothing in here is trusted.

| part         | is                                                                              |
|--------------|---------------------------------------------------------------------------------|
| key          | the stream's name, UTF-8, 1..512 bytes, without NUL                             |
| content-type | `application/vnd.apache.arrow.stream`, or `application/json`; absent: sniffed   |
| value        | an Arrow IPC stream of 1..4096 rows in all, or one flat JSON object             |
| ce_*         | CloudEvents 1.0: specversion, type `streamlearn.frame`, source, id, subject, time |

Columns `label`, `event_time` and `event_id` are reserved; all others are features, by type
(event_rules has what each value means). A feature column of nulls only (Arrow's null type, JSON's
null) says nothing about its kind and is left out.

A frame is refused as a whole, by FrameError: no key, no rows, no feature, neither Arrow nor JSON,
another content type, Arrow's file format, more than the bounds in arrow_bounds, a column of a
type or name that we don't learn from, a name twice, bytes after the stream's end, or not one row
left. A row is refused as a Rejection that keeps its number: bad label, bad time, bad image.
Everything else decodes. FrameError is the only exception that decode raises.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamlearn.core.records import MAX_FRAME_EVENTS, Frame, Label, Reason, Rejection
from streamlearn.errors import FrameError
from streamlearn.wire import arrow_bounds, event_columns, event_json
from streamlearn.wire import event_rules as rules
from streamlearn.wire.cloud_events import (
    CONTENT_TYPE,
    Headers,
    attributes,
    first_values,
    stream_of_key,
)
from streamlearn.wire.event_schema import Layout, layout_of
from streamlearn.wire.image_codec import files

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
FRAME_TYPE = "streamlearn.frame"
MAX_FRAME_BYTES = 16 * 1024 * 1024


def encode(
    frame: Frame, *, source: str = "/streamlearn/feeder"
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """A frame as an Arrow IPC stream and its headers; decode gives an equal frame back.

    FrameError where decode would refuse it, or where labels mix text and whole numbers.
    """
    batch = _record_batch(frame)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    value = sink.getvalue().to_pybytes()
    headers = attributes(
        FRAME_TYPE,
        source=source,
        id=hashlib.sha256(value).hexdigest()[:32],
        subject=frame.stream,
        time_s=float(frame.event_time_s.max()),
    )
    headers.append((CONTENT_TYPE, ARROW.encode()))
    return value, headers


def _record_batch(frame: Frame) -> pa.RecordBatch:
    n = len(frame)
    names = (*frame.columns, *frame.texts, *frame.images)
    if n == 0:
        raise FrameError(Reason.EMPTY_FRAME, "a frame needs at least one event")
    if not names:
        raise FrameError(Reason.NO_FEATURES, "a frame needs at least one feature column")
    if (
        n > MAX_FRAME_EVENTS
        or n * len(names) > arrow_bounds.MAX_CELLS
        or (n * len(frame.images) > arrow_bounds.MAX_IMAGES)
    ):
        raise FrameError(
            Reason.TOO_LARGE,
            f"{n} events x {len(names)} columns; at most {MAX_FRAME_EVENTS} events, "
            f"{arrow_bounds.MAX_CELLS} cells and {arrow_bounds.MAX_IMAGES} of images: cut it into "
            "several frames",
        )
    if len(names) > arrow_bounds.MAX_COLUMNS - len(rules.RESERVED):
        raise FrameError(Reason.TOO_LARGE, f"{len(names)} columns > {arrow_bounds.MAX_COLUMNS - 3}")
    for name in names:
        if name in rules.RESERVED:
            raise FrameError(Reason.WRONG_TYPE, f"a feature can't be called {name!r}; rename it")
    rules.check_names(names)
    turned = np.ascontiguousarray(frame.numbers.T)
    arrays: list[Any] = [pa.array(column) for column in turned]
    arrays += [pa.array(column, pa.string()) for column in frame.texts.values()]
    arrays += [pa.array(files(column), pa.binary()) for column in frame.images.values()]
    columns = [*names, rules.EVENT_TIME]
    arrays.append(pa.array(frame.event_time_s, pa.float64()))
    if frame.label_values:
        columns.append(rules.LABEL)
        arrays.append(_label_array(frame.label_codes, frame.label_values))
    if frame.event_ids:
        columns.append(rules.EVENT_ID)
        arrays.append(pa.array(frame.event_ids, pa.string()))
    return pa.RecordBatch.from_arrays(arrays, names=columns)


def _label_array(codes: NDArray[np.int32], values: tuple[Label, ...]) -> Any:
    text = {isinstance(value, str) for value in values}
    if len(text) > 1:
        raise FrameError(
            Reason.BAD_LABEL,
            "labels of one frame are all text or all whole numbers; send them in two frames",
        )
    try:
        dictionary = pa.array(values, pa.string()) if text == {True} else _integers(values)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise FrameError(Reason.BAD_LABEL, "a label of more than 64 bits; send text") from error
    return dictionary.take(pa.array(codes, pa.int32(), mask=codes < 0))


def _integers(values: tuple[Label, ...]) -> Any:
    whole = [int(value) for value in values]
    return pa.array(whole, pa.int64() if max(whole) < 1 << 63 else pa.uint64())


def decode(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    timestamp_s: float,
    *,
    max_bytes: int = MAX_FRAME_BYTES,
) -> tuple[Frame, tuple[Rejection, ...]]:
    """A Kafka record to a frame, and the rows that were left out of it (by their row number).

    `timestamp_s`, the record's own time in seconds, stands in for missing event times.
    FrameError (with its dead-letter reason) where the record is no frame at all; nothing else.
    """
    try:
        stream = stream_of_key(key)
        content_type = content_type_of(value, headers, max_bytes)
        if value is None:  # content_type_of has refused it
            raise FrameError(Reason.EMPTY_FRAME, "no value")
        default_s = timestamp_s if math.isfinite(timestamp_s) else 0.0
        if content_type == JSON:
            return _without(event_json.decode(value, stream, default_s), {})
        return _decode_arrow(value, stream, default_s)
    except FrameError:
        raise
    except Exception as error:  # others' bytes: Arrow and json raise from an open set of types
        raise FrameError(
            Reason.UNDECODABLE, f"{type(error).__name__}: {str(error)[:200]}"
        ) from error


def content_type_of(
    value: bytes | None, headers: Headers | None, max_bytes: int = MAX_FRAME_BYTES
) -> str:
    """ARROW or JSON: as declared, or sniffed. FrameError where it is neither, empty, too large."""
    if not value:
        raise FrameError(Reason.EMPTY_FRAME, "the message has no value")
    if len(value) > max_bytes:
        raise FrameError(Reason.TOO_LARGE, f"{len(value)} > {max_bytes} bytes; send smaller frames")
    known = first_values(headers)
    version = known.get("ce_specversion", b"1.0")
    if not version.startswith(b"1."):
        raise FrameError(Reason.UNSUPPORTED, f"CloudEvents {version[:20]!r}; send 1.0")
    if value.startswith(b"ARROW1"):
        raise FrameError(Reason.UNSUPPORTED, "Arrow's file format; send its stream format")
    declared = known.get(CONTENT_TYPE)
    if declared is None:
        return JSON if value.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in b"{[" else ARROW
    content_type = declared.decode(errors="replace").split(";")[0].strip().lower()
    if content_type not in (ARROW, JSON):
        raise FrameError(
            Reason.UNSUPPORTED, f"content-type {content_type[:80]!r}; send {ARROW} or {JSON}"
        )
    return content_type


# --- Arrow -------------------------------------------------------------------------------------


def read_batch(value: bytes, *, features: bool = False) -> tuple[pa.RecordBatch, Layout]:
    """All rows of an Arrow IPC stream in one validated batch, and where in it is what.

    With `features`, FrameError where no column is one.
    """
    arrow_bounds.check(value)
    layout = layout_of(value)
    if features and not layout.has_features:
        raise FrameError(Reason.NO_FEATURES, "no column with a feature in it")
    with pa.ipc.open_stream(value) as reader:
        batches = [batch for batch in reader if batch.num_rows]
    if not batches:
        raise FrameError(Reason.EMPTY_FRAME, "the Arrow stream has no rows")
    for batch in batches:
        batch.validate(full=True)  # offsets, UTF-8, dictionary indices: before any is followed
    event_columns.check_inflation(batches, layout)
    return (batches[0] if len(batches) == 1 else event_columns.joined(batches)), layout


def _decode_arrow(
    value: bytes, stream: str, default_s: float
) -> tuple[Frame, tuple[Rejection, ...]]:
    batch, layout = read_batch(value, features=True)
    n, names = batch.num_rows, layout.names
    refused = event_columns.Refused()

    def reserved(name: str) -> Any:
        return batch.column(layout.reserved[name]) if name in layout.reserved else None

    codes, values = event_columns.labels(reserved(rules.LABEL), n, refused)
    frame = Frame(
        stream=stream,
        columns=tuple(names[index] for index in layout.numbers),
        numbers=event_columns.number_matrix(batch, layout),
        label_codes=codes,
        label_values=values,
        event_time_s=event_columns.event_times(reserved(rules.EVENT_TIME), n, default_s, refused),
        event_ids=event_columns.event_ids(reserved(rules.EVENT_ID)),
        texts={names[index]: event_columns.texts(batch.column(index)) for index in layout.texts},
        images=event_columns.images(batch, layout, refused),
    )
    return _without(frame, refused.rows)


def _without(
    frame: Frame, refused: Mapping[int, tuple[Reason, str]]
) -> tuple[Frame, tuple[Rejection, ...]]:
    """The frame's other rows, its label values in order of their appearance there."""
    rejections = tuple(
        Rejection(reason, detail, row) for row, (reason, detail) in sorted(refused.items())
    )
    if len(refused) == len(frame):
        first = rejections[0]
        raise FrameError(first.reason, f"not one of {len(frame)} rows is left; {first.detail}")
    if refused:
        left = np.ones(len(frame), dtype=bool)
        left[list(refused)] = False
        keep = np.flatnonzero(left)
        rows = keep.tolist()
        codes, values = _in_order(frame.label_codes[keep], frame.label_values)
        frame = Frame(
            stream=frame.stream,
            columns=frame.columns,
            numbers=frame.numbers[keep],
            label_codes=codes,
            label_values=values,
            event_time_s=frame.event_time_s[keep],
            event_ids=tuple(frame.event_ids[row] for row in rows) if frame.event_ids else (),
            texts={name: tuple(cells[row] for row in rows) for name, cells in frame.texts.items()},
            images={name: column.pick(keep) for name, column in frame.images.items()},
        )
    kept = [array for image in frame.images.values() for array in (image.pixels, image.present)]
    for array in (frame.numbers, frame.label_codes, frame.event_time_s, *kept):
        array.flags.writeable = False
    return frame, rejections


def _in_order(
    codes: NDArray[np.int32], values: tuple[Label, ...]
) -> tuple[NDArray[np.int32], tuple[Label, ...]]:
    used, first = np.unique(codes[codes >= 0], return_index=True)
    used = used[np.argsort(first)]
    renumber = np.full(len(values) + 1, -1, np.int32)  # the last one: code -1
    renumber[used] = np.arange(len(used), dtype=np.int32)
    return renumber[codes], tuple(values[code] for code in used.tolist())
