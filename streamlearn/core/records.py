"""Stage 0, records: what the stages hand to each other.

A Frame is one Kafka message, decoded: 1..4096 events of one stream, in columns. It is the unit
of learning, so nothing that is learned depends on how a consumer happened to batch messages.
Arrays in records are read-only; records compare by identity, since arrays have no single equality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_FRAME_EVENTS = 4096
IMAGE_SIDE = 28  # pixels: what an image of any size is learned as

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
class ImageColumn:
    """n events' images: what is learned from, and the files for people where they are at hand."""

    raw: tuple[bytes | None, ...]  # n PNG or JPEG files as they came; None: missing, or not kept
    pixels: NDArray[np.uint8]  # (n, IMAGE_SIDE, IMAGE_SIDE) grey, 0 where missing
    present: NDArray[np.bool_]  # (n,) which events have an image

    @classmethod
    def of(
        cls, pixels: NDArray[np.uint8], present: NDArray[np.bool_] | None = None
    ) -> "ImageColumn":
        """A column without files; without `present`, every event has an image."""
        there = np.ones(len(pixels), np.bool_) if present is None else present
        return cls((None,) * len(pixels), pixels, there)

    @classmethod
    def of_some(cls, images: "Sequence[NDArray[np.uint8] | None]") -> "ImageColumn":
        """A column without files of n images (IMAGE_SIDE, IMAGE_SIDE), None where missing."""
        blank = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        pixels = np.array([blank if image is None else image for image in images], np.uint8)
        return cls.of(
            pixels.reshape(-1, IMAGE_SIDE, IMAGE_SIDE),
            np.array([image is not None for image in images], np.bool_),
        )

    @classmethod
    def missing(cls, n: int) -> "ImageColumn":
        """n events without an image."""
        pixels = np.zeros((n, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        return cls.of(pixels, np.zeros(n, np.bool_))

    @classmethod
    def joined(cls, parts: "Sequence[ImageColumn]") -> "ImageColumn":
        """Columns one after the other as one."""
        return cls(
            tuple(raw for part in parts for raw in part.raw),
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.present for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.present)

    def rows(self, start: int, stop: int) -> "ImageColumn":
        """Events start..stop (views, no copies)."""
        cut = slice(start, stop)
        return ImageColumn(self.raw[cut], self.pixels[cut], self.present[cut])

    def padded(self, start: int, n: int) -> "ImageColumn":
        """Events start..start + n, those that are not there without an image."""
        here = self.rows(start, start + n)
        return ImageColumn.joined([here, ImageColumn.missing(n - len(here))])

    def pick(self, chosen: NDArray[np.intp]) -> "ImageColumn":
        """The events at these positions, in this order."""
        raw = tuple(self.raw[at] for at in chosen.tolist())
        return ImageColumn(raw, self.pixels[chosen], self.present[chosen])


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
    images: Mapping[str, ImageColumn] = field(default_factory=dict)  # column to n images

    def __len__(self) -> int:
        return len(self.label_codes)

    def labels(self) -> tuple[Label | None, ...]:
        """Each event's label, None where unlabelled."""
        values = self.label_values
        return tuple(None if code < 0 else values[code] for code in self.label_codes.tolist())

    def rows(self, start: int, stop: int) -> "Frame":
        """Events start..stop as a frame of their own (views, no copies)."""
        if start == 0 and stop >= len(self):
            return self
        cut = slice(start, stop)
        return replace(
            self,
            numbers=self.numbers[cut],
            label_codes=self.label_codes[cut],
            event_time_s=self.event_time_s[cut],
            event_ids=self.event_ids[cut],
            texts={name: column[cut] for name, column in self.texts.items()},
            images={name: column.rows(start, stop) for name, column in self.images.items()},
        )
