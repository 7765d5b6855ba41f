"""One JSON object to a frame of one event.

The same closed rules as for Arrow (event_rules), by JSON's types: numbers and booleans are number
columns, strings are text columns, null says nothing. Refused: nested values, a field twice,
strings with lone surrogates, more than one object, more than 1 MiB.
"""

import json
from typing import Any

import numpy as np

from streamlearn.core.records import Frame, Label, Reason
from streamlearn.errors import FrameError
from streamlearn.wire import event_rules as rules
from streamlearn.wire.arrow_bounds import MAX_COLUMNS

MAX_JSON_BYTES = 1024 * 1024  # one event; as Python objects it takes ten times as much


def decode(value: bytes, stream: str, default_s: float) -> Frame:
    """One event; FrameError (or what json raises) where it is none."""
    event = read_object(value)
    label = event.pop(rules.LABEL, None)
    time = event.pop(rules.EVENT_TIME, None)
    event_ids = event_ids_of(event.pop(rules.EVENT_ID, None))
    numbers: dict[str, float] = {}
    texts: dict[str, tuple[str | None, ...]] = {}
    for name, cell in event.items():
        if isinstance(cell, str):
            if not rules.is_unicode(cell):
                raise FrameError(Reason.WRONG_TYPE, f"field {name!r} has a lone surrogate")
            texts[name] = (cell,)
        elif isinstance(cell, bool | int | float):
            numbers[name] = float(cell)
        elif cell is not None:
            raise FrameError(
                Reason.WRONG_TYPE, f"field {name!r} is nested; send flat numbers and text"
            )
    if not numbers and not texts:
        raise FrameError(Reason.NO_FEATURES, "the event has no field but reserved ones and nulls")
    label_values: tuple[Label, ...] = ()
    try:
        if label is not None:
            label_values = (rules.label_of(label),)
    except rules.RefusedError as error:
        raise FrameError(Reason.BAD_LABEL, str(error)) from error
    try:
        time_s = default_s if time is None else rules.time_of(time)
    except rules.RefusedError as error:
        raise FrameError(Reason.BAD_TIME, str(error)) from error
    row = np.array([list(numbers.values())], dtype=np.float64).reshape(1, -1)
    row[~(np.abs(row) <= rules.FLOAT32_MAX)] = np.nan
    return Frame(
        stream=stream,
        columns=tuple(numbers),
        numbers=row,
        label_codes=np.array([0 if label_values else -1], np.int32),
        label_values=label_values,
        event_time_s=np.array([time_s]),
        event_ids=event_ids,
        texts=texts,
    )


def event_ids_of(event_id: object) -> tuple[str, ...]:
    """The id that a JSON value is, or none; FrameError where it can be no id."""
    if event_id is None:
        return ()
    if isinstance(event_id, bool) or not isinstance(event_id, str | int):
        raise FrameError(Reason.WRONG_TYPE, "event_id is neither text nor a whole number")
    text = str(event_id)
    if not rules.is_unicode(text):
        raise FrameError(Reason.WRONG_TYPE, "event_id has a lone surrogate")
    return (text,)


def read_object(value: bytes) -> dict[str, Any]:
    """One flat JSON object; FrameError where it is none, too large, or names a field twice."""
    if len(value) > MAX_JSON_BYTES:
        raise FrameError(
            Reason.TOO_LARGE, f"{len(value)} > {MAX_JSON_BYTES} bytes in one JSON event"
        )
    event = json.loads(value.decode("utf-8-sig"), object_pairs_hook=_object, parse_int=_json_int)
    if not isinstance(event, dict):
        raise FrameError(Reason.WRONG_TYPE, "JSON, but not one object; send one event a message")
    if len(event) > MAX_COLUMNS:
        raise FrameError(Reason.TOO_LARGE, f"{len(event)} > {MAX_COLUMNS} fields")
    rules.check_names(event)
    return event


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise FrameError(Reason.WRONG_TYPE, "a JSON field comes twice; nobody knows which counts")
    return fields


def _json_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= 40 else float(digits)  # beyond float32's range anyway
