"""Topics `labels` and `events`: labels that come later than their events.

| part         | is                                                                              |
|--------------|---------------------------------------------------------------------------------|
| key          | the stream's name, as of its events                                             |
| content-type | as of events; absent: sniffed                                                   |
| value        | `{"event_id": "a-17", "label": "ok"}`, or an Arrow IPC stream of 1..4096 rows   |
|              | with the columns `event_id` and `label`                                         |
| ce_type      | on the topic events `streamlearn.labels`: it tells them from frames             |

A label frame in events is a message of the topic labels, passed on with its key and value as they
are: what is learned follows from the events log alone. What labels and ids may be, event_rules
says. A message with anything else in it is refused by FrameError; a row without an id or a label
is refused as a Rejection. FrameError is the only exception that decode raises.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from streamlearn.core.records import Label, Reason, Rejection
from streamlearn.errors import FrameError
from streamlearn.wire import event_columns, event_json
from streamlearn.wire import event_rules as rules
from streamlearn.wire.cloud_events import (
    CONTENT_TYPE,
    Headers,
    Message,
    attributes,
    first_values,
    stream_of_key,
)
from streamlearn.wire.event_codec import JSON, content_type_of, read_batch

LABELS_TYPE = "streamlearn.labels"
_NAMES = {rules.EVENT_ID, rules.LABEL}


@dataclass(frozen=True, slots=True)
class LateLabels:
    """Labels of one stream's events, in the order in which they came."""

    stream: str
    event_ids: tuple[str, ...]
    labels: tuple[Label, ...]
    rows: tuple[int | None, ...]  # where in the message each was; None: it is the message


def is_labels(headers: Headers | None) -> bool:
    """Whether a message of the events topic holds late labels, and is no frame."""
    return first_values(headers).get("ce_type") == LABELS_TYPE.encode()


def encode(stream: str, event_id: str, label: Label) -> Message:
    """One label, for the topic labels; FrameError where decode would refuse it."""
    value = json.dumps({rules.EVENT_ID: event_id, rules.LABEL: label}).encode()
    digest = hashlib.sha256(value).hexdigest()[:32]
    headers = attributes(LABELS_TYPE, source="/streamlearn/feeder", id=digest, subject=stream)
    message = Message(stream.encode(), value, [*headers, (CONTENT_TYPE, JSON.encode())])
    _, rejected = decode(message.value, message.key, message.headers)
    if rejected:
        raise FrameError(rejected[0].reason, rejected[0].detail)
    return message


def passed_on(
    value: bytes | None, key: bytes | None, headers: Headers | None, *, source: str, place: str
) -> Message:
    """A message of the topic labels for the topic events; FrameError where decode refuses it.

    `place` says where it was, so that copies of it have one id.
    """
    late, _ = decode(value, key, headers)
    said = attributes(LABELS_TYPE, source=source, id=place, subject=late.stream)
    return Message(key, value, [*said, (CONTENT_TYPE, content_type_of(value, headers).encode())])


def decode(
    value: bytes | None, key: bytes | None, headers: Headers | None
) -> tuple[LateLabels, tuple[Rejection, ...]]:
    """A message to labels, and the rows that were left out of it, by their row number."""
    try:
        stream = stream_of_key(key)
        content_type = content_type_of(value, headers)
        if value is None:  # content_type_of has refused it
            raise FrameError(Reason.EMPTY_FRAME, "no value")
        if content_type == JSON:
            return _decode_json(value, stream), ()
        return _decode_arrow(value, stream)
    except FrameError:
        raise
    except Exception as error:  # others' bytes: Arrow and json raise from an open set of types
        raise FrameError(
            Reason.UNDECODABLE, f"{type(error).__name__}: {str(error)[:200]}"
        ) from error


def _check(names: Sequence[str]) -> None:
    if set(names) != _NAMES:
        shown = ", ".join(sorted(names))[:200]
        raise FrameError(
            Reason.WRONG_TYPE, f"late labels have event_id and label, nothing else; got {shown}"
        )


def _decode_json(value: bytes, stream: str) -> LateLabels:
    said = event_json.read_object(value)
    _check(list(said))
    ids = event_json.event_ids_of(said[rules.EVENT_ID])
    if ids in ((), ("",)):
        raise FrameError(Reason.UNKNOWN_EVENT, "a label without an event_id")
    if said[rules.LABEL] is None:
        raise FrameError(Reason.BAD_LABEL, "no label; send text or a whole number")
    try:
        label = rules.label_of(said[rules.LABEL])
    except rules.RefusedError as error:
        raise FrameError(Reason.BAD_LABEL, str(error)) from error
    return LateLabels(stream, ids, (label,), (None,))


def _decode_arrow(value: bytes, stream: str) -> tuple[LateLabels, tuple[Rejection, ...]]:
    batch, layout = read_batch(value)
    _check(layout.names)
    refused = event_columns.Refused()
    codes, values = event_columns.labels(_column(batch, rules.LABEL), batch.num_rows, refused)
    ids = event_columns.event_ids(_column(batch, rules.EVENT_ID)) or ("",) * batch.num_rows
    for row, (event_id, code) in enumerate(zip(ids, codes.tolist(), strict=True)):
        if not event_id:
            refused.add(row, Reason.UNKNOWN_EVENT, "a label without an event_id")
        elif code < 0:
            refused.add(row, Reason.BAD_LABEL, "no label; send text or a whole number")
    rows = [row for row in range(batch.num_rows) if row not in refused.rows]
    rejected = tuple(
        Rejection(reason, detail, row) for row, (reason, detail) in sorted(refused.rows.items())
    )
    if not rows:
        first = rejected[0]
        raise FrameError(first.reason, f"not one of {len(ids)} labels is left; {first.detail}")
    late = LateLabels(
        stream,
        tuple(ids[row] for row in rows),
        tuple(values[codes[row]] for row in rows),
        tuple(rows),
    )
    return late, rejected


def _column(batch: pa.RecordBatch, name: str) -> event_columns.Column:
    return batch.column(batch.schema.get_field_index(name))
