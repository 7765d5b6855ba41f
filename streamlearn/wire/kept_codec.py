"""One event out of a frame, as a row of a worker's local store that people and tools can read.

A flat JSON object as on the events topic (event_codec reads it); events with images, which JSON
has no place for, as an Arrow frame of one.
"""

import json
import math
from typing import Any

from streamlearn.core.records import Frame
from streamlearn.wire import event_codec
from streamlearn.wire.event_rules import EVENT_ID, EVENT_TIME, LABEL


def encode(frame: Frame, row: int) -> bytes:
    """Event `row` of the frame; missing numbers are left out."""
    if frame.images:
        return event_codec.encode(frame.rows(row, row + 1))[0]
    numbers = zip(frame.columns, frame.numbers[row].tolist(), strict=True)
    event: dict[str, Any] = {name: x for name, x in numbers if math.isfinite(x)}
    event |= {name: column[row] for name, column in frame.texts.items()}
    code = int(frame.label_codes[row])
    if code >= 0:
        event[LABEL] = frame.label_values[code]
    event[EVENT_TIME] = float(frame.event_time_s[row])
    if frame.event_ids:
        event[EVENT_ID] = frame.event_ids[row]
    return json.dumps(event, separators=(",", ":")).encode()
