"""Stage 0, records: what the stages hand to each other.

A Frame is one Kafka message, decoded: 1..4096 events of one stream, in columns. It is the unit
of learning, so nothing that is learned depends on how a consumer happened to batch messages.
Arrays in records are read-only; records compare by identity, since arrays have no single equality.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_FRAME_EVENTS = 4096

Label: TypeAlias = str | int


class Reason(StrEnum):
    """Why bytes or rows went to dead letters: a closed set, also a metric label."""

    UNDECODABLE = "undecodable"  # neither Arrow IPC nor JSON
    UNSUPPORTED = "unsupported"  # a content type or a format version that we don't read
    TOO_LARGE = "too_large"  # bytes, declared rows or columns over the limit
    EMPTY_FRAME = "empty_frame"  # no events in it
    NO_STREAM = "no_stream"  # no Kafka key: nobody knows whose events these are
    NO_FEATURES = "no_features"  # events without a single feature
    WRONG_TYPE = "wrong_type"  # a column or value of a type that we don't learn from
    BAD_LABEL = "bad_label"  # NaN, a fraction, a boolean list: not a class
    BAD_TIME = "bad_time"  # an event time that is no time
    BAD_IMAGE = "bad_image"  # bytes that are no image, or an image over the limit
    UNKNOWN_EVENT = "unknown_event"  # a late label for an event that nobody remembers
    BAD_ROLLBACK = "bad_rollback"  # a rollback that is broken, foreign, or fits nothing here
    LEARNER_ERROR = "learner_error"  # the learner refused it: our fault, kept for inspection


@dataclass(frozen=True, slots=True)
class Rejection:
    """One row, or the whole frame (row None), that is not learned."""

    reason: Reason
    detail: str
    row: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Events of one stream, oldest first.

    Labels are dictionary-coded: event i has label `label_values[label_codes[i]]`, and code -1
    means unlabelled: predicted, not learned.
    """

    stream: str
    columns: tuple[str, ...]  # d names of the number columns
    numbers: NDArray[np.float64]  # (n, d), NaN where missing
    label_codes: NDArray[np.int32]  # (n,), -1 where unlabelled
    label_values: tuple[Label, ...]  # in order of first appearance in the frame
    event_time_s: NDArray[np.float64]  # (n,) seconds since the epoch
    event_ids: tuple[str, ...] = ()  # n of them, or none where the feeder sent none
    texts: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)  # column to n texts
    images: Mapping[str, tuple[bytes | None, ...]] = field(default_factory=dict)  # PNG/JPEG bytes

    def __len__(self) -> int:
        return len(self.label_codes)

    def labels(self) -> tuple[Label | None, ...]:
        """Each event's label, None where unlabelled."""
        values = self.label_values
        return tuple(None if code < 0 else values[code] for code in self.label_codes.tolist())

    def rows(self, start: int, stop: int) -> "Frame":
        """Events start..stop as a frame of their own (views, no copies)."""
        cut = slice(start, stop)
        return replace(
            self,
            numbers=self.numbers[cut],
            label_codes=self.label_codes[cut],
            event_time_s=self.event_time_s[cut],
            event_ids=self.event_ids[cut],
            texts={name: column[cut] for name, column in self.texts.items()},
            images={name: column[cut] for name, column in self.images.items()},
        )
