"""Topic `deadletters`: what was not learned, as it came, with the reason and where it was.

| part                | is                                                                       |
|---------------------|--------------------------------------------------------------------------|
| key                 | as it came                                                               |
| value               | a refused message as it came; a refused row of an Arrow frame as one     |
|                     | JSON object. At most 900 KiB: what is longer is cut off                  |
| content-type        | of the value; as it came for a whole message                             |
| ce_reason           | from the closed set `core.records.Reason`                                |
| ce_detail           | what is wrong and what to send instead, for people                       |
| ce_sourcetopic, ce_sourcepartition, ce_sourceoffset | where it was                             |
| ce_row              | row number within the frame, from 0; absent for a whole message          |
| ce_cutfrom          | bytes that the value had before it was cut off; absent where it was not  |
| ce_*                | CloudEvents 1.0: type `streamlearn.deadletter`, source, id               |

A row's JSON: NaN and infinite are "NaN", "Infinity", "-Infinity"; bytes are base64; times ISO 8601.
"""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from streamlearn.core.records import Reason, Rejection
from streamlearn.errors import FormatError, FrameError
from streamlearn.wire.cloud_events import CONTENT_TYPE, Headers, Message, attributes, first_values
from streamlearn.wire.envelope import PART_BYTES
from streamlearn.wire.event_codec import JSON, read_batch

DEAD_LETTER_TYPE = "streamlearn.deadletter"
_OCTETS = b"application/octet-stream"
_MAX_DETAIL = 1000  # characters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, read back."""

    reason: Reason
    detail: str
    key: bytes | None
    value: bytes | None
    content_type: str
    topic: str
    partition: int
    offset: int
    row: int | None  # None: the whole message
    cut_from: int | None  # bytes before it was cut off


def encode(
    rejections: Sequence[Rejection],
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    *,
    topic: str,
    partition: int,
    offset: int,
) -> list[Message]:
    """A record for each rejection of one message. Never raises on account of the message."""
    rows = [rejection.row for rejection in rejections if rejection.row is not None]
    texts = dict(zip(rows, _rows(value, rows), strict=True)) if rows else {}
    as_came = first_values(headers).get(CONTENT_TYPE, _OCTETS)
    letters = []
    for rejection in rejections:
        text = None if rejection.row is None else texts.get(rejection.row)
        payload = value if text is None else text
        place = f"{topic}.{partition}.{offset}"
        said = attributes(
            DEAD_LETTER_TYPE,
            source=f"/streamlearn/{topic}",
            id=place if rejection.row is None else f"{place}.{rejection.row}",
        )
        extensions: list[tuple[str, str | int | None]] = [
            ("reason", rejection.reason.value),
            ("detail", rejection.detail[:_MAX_DETAIL]),
            ("sourcetopic", topic),
            ("sourcepartition", partition),
            ("sourceoffset", offset),
            ("row", rejection.row),
            ("cutfrom", len(payload) if payload and len(payload) > PART_BYTES else None),
        ]
        said += [
            (f"ce_{name}", str(said_of_it).encode(errors="replace"))
            for name, said_of_it in extensions
            if said_of_it is not None
        ]
        said.append((CONTENT_TYPE, as_came if text is None else JSON.encode()))
        letters.append(Message(key, None if payload is None else payload[:PART_BYTES], said))
    return letters


def _rows(value: bytes | None, rows: list[int]) -> list[bytes]:
    """Rows of an Arrow frame as JSON; cells that can't be shown are left out."""
    shown: list[dict[str, Any]] = [{} for _ in rows]
    try:
        batch, _ = read_batch(value or b"")
        columns: list[Any] = batch.take(pa.array(rows, pa.int32())).columns
        names = batch.schema.names
    except Exception:  # others' bytes; they decoded a moment ago, so this is never seen
        columns, names = [], []
    for name, column in zip(names, columns, strict=True):
        for row, cell in zip(shown, _cells(column), strict=True):
            row[name] = _plain(cell)
    return [json.dumps(row).encode() for row in shown]


def _cells(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # a time that Python's datetime can't hold
        return list(column.cast(pa.string()).to_pylist())


def _plain(cell: Any) -> Any:
    match cell:
        case None | bool() | int() | str():
            return cell
        case float():
            if math.isfinite(cell):
                return cell
            return "NaN" if cell != cell else ("Infinity" if cell > 0 else "-Infinity")
        case bytes():
            return base64.b64encode(cell).decode()
        case datetime() | date() | time():
            return cell.isoformat()
        case timedelta():
            return cell.total_seconds()
        case Decimal():
            return str(cell)
    return str(cell)


def of_frame(error: FrameError) -> Rejection:
    """What a refused frame is as a rejection."""
    return Rejection(Reason(error.reason), error.detail)


def decode(value: bytes | None, key: bytes | None, headers: Headers | None) -> DeadLetter:
    """A dead letter; FormatError where it is none."""
    said = first_values(headers)
    try:
        texts = {name: text.decode() for name, text in said.items() if name.startswith("ce_")}
        if texts["ce_type"] != DEAD_LETTER_TYPE:
            raise ValueError(f"type {texts['ce_type'][:40]!r}")
        return DeadLetter(
            reason=Reason(texts["ce_reason"]),
            detail=texts["ce_detail"],
            key=key,
            value=value,
            content_type=said[CONTENT_TYPE].decode(errors="replace"),
            topic=texts["ce_sourcetopic"],
            partition=int(texts["ce_sourcepartition"]),
            offset=int(texts["ce_sourceoffset"]),
            row=int(texts["ce_row"]) if "ce_row" in texts else None,
            cut_from=int(texts["ce_cutfrom"]) if "ce_cutfrom" in texts else None,
        )
    except (KeyError, ValueError, AttributeError) as error:
        raise FormatError(f"no dead letter: {type(error).__name__}: {error}") from error
