"""Rows: a file's events in columns, with labels and streams coded over the whole file.

What all readers make, and what `grouping` cuts into Frames. Not yet Frames: a batch of rows holds
events of several streams.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Frame, ImageColumn, Label


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n events in file order."""

    columns: tuple[str, ...]  # d names of number columns
    numbers: NDArray[np.float64]  # (n, d), NaN where missing
    labels: NDArray[np.int32]  # (n,) code into Codes, -1 where unlabelled
    streams: NDArray[np.int32]  # (n,) code into Codes
    time_s: NDArray[np.float64]  # (n,) seconds since the epoch
    texts: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (n,) of str or None
    images: Mapping[str, ImageColumn] = field(default_factory=dict)
    ids: NDArray[Any] | None = None  # (n,) of str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[Any, ...]:
        """What two batches must share to be joined."""
        return self.columns, tuple(self.texts), tuple(self.images), self.ids is None

    @property
    def file_bytes(self) -> int:
        """Of the images' files."""
        return sum(len(raw or b"") for column in self.images.values() for raw in column.raw)

    def pick(self, at: NDArray[np.intp] | NDArray[np.bool_]) -> "Rows":
        """The rows at these positions, in this order."""
        places = np.arange(len(self))[at]
        return replace(
            self,
            numbers=self.numbers[at],
            labels=self.labels[at],
            streams=self.streams[at],
            time_s=self.time_s[at],
            texts={name: column[at] for name, column in self.texts.items()},
            images={name: column.pick(places) for name, column in self.images.items()},
            ids=None if self.ids is None else self.ids[at],
        )


def join(parts: Sequence[Rows]) -> Rows:
    """Batches of one shape as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Rows(
        columns=first.columns,
        numbers=np.concatenate([p.numbers for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        streams=np.concatenate([p.streams for p in parts]),
        time_s=np.concatenate([p.time_s for p in parts]),
        texts={name: np.concatenate([p.texts[name] for p in parts]) for name in first.texts},
        images={name: ImageColumn.joined([p.images[name] for p in parts]) for name in first.images},
        ids=None if first.ids is None else np.concatenate([p.ids for p in parts]),
    )


class Codes:
    """The labels and streams met so far, in order of appearance."""

    __slots__ = ("_label_codes", "_stream_codes", "labels", "streams")

    def __init__(self) -> None:
        self.labels: list[Label] = []
        self.streams: list[str] = []
        self._label_codes: dict[Label, int] = {}
        self._stream_codes: dict[str, int] = {}

    def label(self, label: Label | None) -> int:
        """The label's code, a new one at its first appearance; -1 for None."""
        if label is None:
            return -1
        code = self._label_codes.setdefault(label, len(self.labels))
        if code == len(self.labels):
            self.labels.append(label)
        return code

    def stream(self, name: str) -> int:
        """The stream's code, a new one at its first appearance."""
        code = self._stream_codes.setdefault(name, len(self.streams))
        if code == len(self.streams):
            self.streams.append(name)
        return code


def as_frame(rows: Rows, codes: Codes) -> Frame:
    """Rows of one stream as a Frame: labels coded anew, in order of appearance in the frame."""
    used, first, again = np.unique(rows.labels, return_index=True, return_inverse=True)
    known = used >= 0
    order = np.argsort(first[known], kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    recode = np.full(len(used), -1, np.int32)
    recode[known] = rank
    label_codes = recode[again.reshape(-1)]
    shown = [array for image in rows.images.values() for array in (image.pixels, image.present)]
    for array in (rows.numbers, label_codes, rows.time_s, *shown):
        array.flags.writeable = False
    return Frame(
        stream=codes.streams[int(rows.streams[0])],
        columns=rows.columns,
        numbers=rows.numbers,
        label_codes=label_codes,
        label_values=tuple(codes.labels[code] for code in used[known][order].tolist()),
        event_time_s=rows.time_s,
        event_ids=() if rows.ids is None else tuple(rows.ids.tolist()),
        texts={name: tuple(column.tolist()) for name, column in rows.texts.items()},
        images=rows.images,
    )
