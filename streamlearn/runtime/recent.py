"""A stream's recent events that wait for a label, read from the events log, for people.

The last `messages` messages of the partition are looked at; an event waits as long as neither a
later copy of it nor a late label has come under its id. What bytes can't be read is passed over:
the worker has put it into dead letters.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from streamlearn.core.records import Frame
from streamlearn.errors import FrameError
from streamlearn.evaluation.events import joined, pick
from streamlearn.runtime.log import Log, Record
from streamlearn.wire import event_codec, label_codec, rollback_codec

MESSAGES = 5000  # of the partition, all streams'
POOL = 1000  # events, the newest


def waiting(log: Log, topic: str, partition: int, stream: str) -> Frame | None:
    """The newest POOL unlabelled events of the stream as one frame; None: there are none."""
    low, end = log.watermarks(topic, partition)
    frames: list[Frame] = []
    labelled: set[str] = set()
    for record in log.read(topic, partition, max(low, end - MESSAGES), end):
        if record.key == stream.encode():
            _take(record, frames, labelled)
    return _unlabelled(frames, labelled)


def _take(record: Record, frames: list[Frame], labelled: set[str]) -> None:
    try:
        if rollback_codec.is_rollback(record.headers):
            return
        if label_codec.is_labels(record.headers):
            late, _ = label_codec.decode(record.value, record.key, record.headers)
            labelled.update(late.event_ids)
            return
        frame, _ = event_codec.decode(record.value, record.key, record.headers, record.timestamp_s)
    except FrameError:
        return
    if frame.event_ids:
        known = np.flatnonzero(frame.label_codes >= 0).tolist()
        labelled.update(frame.event_ids[row] for row in known)
    frames.append(frame)


def _unlabelled(frames: Sequence[Frame], labelled: set[str]) -> Frame | None:
    left: list[Frame] = []
    ids: list[str] = []
    for frame in reversed(frames):
        own = frame.event_ids or ("",) * len(frame)
        rows = [
            row
            for row in np.flatnonzero(frame.label_codes < 0).tolist()
            if own[row] not in labelled
        ][len(ids) - POOL :]
        if rows:
            left.insert(0, pick(frame, np.array(rows, np.intp)))
            ids[:0] = [own[row] for row in rows]
        if len(ids) >= POOL:
            break
    return replace(joined(left), event_ids=tuple(ids)) if left else None
