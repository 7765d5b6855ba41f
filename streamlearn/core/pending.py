"""Stage 4, pending: remembers events whose labels may come late, and the ids that were learned.

In: frames as they come, and what was predicted for them. Out: events by their ids, as they were,
when their labels come at last; and which events of a frame were learned before, under their ids.
Unlike the reservoir, which keeps some labelled events to learn from again, this keeps every
event that has an id and no label, for a while, and gives each away once.

Memory is fixed: at most `capacity` events, the oldest leave first, and at most
MAX_TEXT_CHARACTERS of texts and MAX_IMAGES for each that may be remembered. Of images the pixels
are kept, not the files. An event is too old for its label when the stream's latest frame is
more than `max_age_s` newer, by event time; nothing is thrown away for that, so a single wrong
clock costs the labels that come right after it, and no more.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import IMAGE_SIDE, Frame, ImageColumn, Label

MAX_TEXT_CHARACTERS = 1 << 20  # of all remembered events together
MAX_IMAGES = 4  # an event, on the average of `capacity` events
MAX_ID_CHARACTERS = 256  # a longer id counts as none, so that memory is fixed


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """One event without a label, as it was when it was predicted."""

    event: int  # the stream's running count
    time_s: float  # seconds since the epoch
    predicted: int  # class code, -1 before any label was seen
    served: NDArray[np.float32]  # (C then,)
    numbers: NDArray[np.float64]  # (d then,) by the stream's number columns, NaN where missing
    texts: Mapping[str, str]
    images: Mapping[str, NDArray[np.uint8]]  # column to (IMAGE_SIDE, IMAGE_SIDE)

    @property
    def characters(self) -> int:
        """Of its texts."""
        return sum(map(len, self.texts.values()))


@dataclass(frozen=True, slots=True)
class Admitted:
    """A frame after a look at its ids."""

    frame: Frame  # without the labels of events that were learned before
    waiting: Mapping[str, int]  # id to row, of events to remember once they are predicted
    n_repeated: int  # labels that were taken away


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is known of late labels' events. Rows are positions among the labels."""

    rows: tuple[int, ...]  # with a remembered event
    events: tuple[Pending, ...]  # of these rows
    unknown: tuple[int, ...]  # nobody remembers the event, or it is too old
    repeated: tuple[int, ...]  # learned before


class PendingEvents:
    """One stream's memory of unlabelled events and of learned ids.

    >>> memory = PendingEvents(capacity=2, max_age_s=60.0)
    >>> x, times = np.array([[1.0], [2.0]]), np.array([0.0, 1.0])
    >>> frame = Frame("s", ("x",), x, np.array([-1, 0], np.int32), ("ok",), times, ("a", "b"))
    >>> admitted = memory.admit(frame)
    >>> memory.keep(admitted, np.zeros((2, 1), np.float32), np.zeros(2, np.int32), 0, ("x",))
    >>> found = memory.take(["a", "b", "c"])
    >>> found.rows, found.repeated, found.unknown
    ((0,), (1,), (2,))
    """

    __slots__ = (
        "_characters", "_events", "_learned", "_n_images", "_now_s", "capacity", "max_age_s",
    )  # fmt: skip

    def __init__(self, *, capacity: int, max_age_s: float) -> None:
        self.capacity = capacity
        self.max_age_s = max_age_s
        self._events: dict[str, Pending] = {}  # oldest first
        self._learned: dict[str, None] = {}  # ids, oldest first
        self._now_s = float("nan")  # newest event time of the latest frame
        self._characters = self._n_images = 0

    def __len__(self) -> int:
        return len(self._events)

    def admit(self, frame: Frame) -> Admitted:
        """Look at a frame before it is predicted.

        A labelled event whose id was learned loses its label: it is predicted, not learned. One
        that was waiting for its label is learned as it comes now, and waits no longer.
        """
        self._now_s = float(frame.event_time_s.max())
        codes, waiting, repeated = frame.label_codes, dict[str, int](), list[int]()
        for row, event_id in enumerate(frame.event_ids):
            if not 0 < len(event_id) <= MAX_ID_CHARACTERS:
                continue
            if event_id in self._learned:
                if codes[row] >= 0:
                    repeated.append(row)
            elif codes[row] >= 0:
                waiting.pop(event_id, None)
                self._forget(event_id)
                self._remember_learned(event_id)
            elif event_id not in self._events:
                waiting.setdefault(event_id, row)
        if repeated:
            codes = codes.copy()
            codes[repeated] = -1
            frame = replace(frame, label_codes=codes)
        return Admitted(frame, waiting, len(repeated))

    def keep(
        self,
        admitted: Admitted,
        served: NDArray[np.float32],
        predicted: NDArray[np.int32],
        first_event: int,
        columns: Sequence[str],
    ) -> None:
        """Remember a frame's waiting events after it was predicted: served (n, C), predicted (n,).

        `first_event` is the running count of the frame's first event, `columns` are the number
        columns that the stream knows, of which there are only ever more, at the end.
        """
        frame = admitted.frame
        waiting = list(admitted.waiting.items())[-self.capacity :]
        numbers = _by_columns(frame, [row for _, row in waiting], columns)
        for (event_id, row), values in zip(waiting, numbers, strict=True):
            texts = {name: column[row] for name, column in frame.texts.items()}
            images = {
                name: column.pixels[row].copy()
                for name, column in frame.images.items()
                if column.present[row]
            }
            event = Pending(
                event=first_event + row,
                time_s=float(frame.event_time_s[row]),
                predicted=int(predicted[row]),
                served=served[row].copy(),
                numbers=values,
                texts={name: text for name, text in texts.items() if text is not None},
                images=images,
            )
            self._events[event_id] = event
            self._characters += event.characters
            self._n_images += len(event.images)
        while (
            len(self._events) > self.capacity
            or self._characters > MAX_TEXT_CHARACTERS
            or self._n_images > MAX_IMAGES * self.capacity
        ):
            self._forget(next(iter(self._events)))

    def take(self, ids: Sequence[str]) -> Found:
        """The events of late labels; from now on they count as learned."""
        rows: list[int] = []
        events: list[Pending] = []
        unknown: list[int] = []
        repeated: list[int] = []
        for row, event_id in enumerate(ids):
            event = self._events.get(event_id)
            if event_id in self._learned:
                repeated.append(row)
            elif event is None or self._now_s - event.time_s > self.max_age_s:
                unknown.append(row)
            else:
                self._forget(event_id)
                self._remember_learned(event_id)
                rows.append(row)
                events.append(event)
        return Found(tuple(rows), tuple(events), tuple(unknown), tuple(repeated))

    def waiting(self, first: int, stop: int) -> tuple[list[str], list[Pending]]:
        """Remembered events of the counts first..stop, oldest first, with their ids."""
        found = [(i, e) for i, e in self._events.items() if first <= e.event < stop]
        return [event_id for event_id, _ in found], [event for _, event in found]

    def _forget(self, event_id: str) -> None:
        event = self._events.pop(event_id, None)
        if event is not None:
            self._characters -= event.characters
            self._n_images -= len(event.images)

    def _remember_learned(self, event_id: str) -> None:
        self._learned[event_id] = None
        if len(self._learned) > self.capacity:
            del self._learned[next(iter(self._learned))]

    def state(
        self, n_classes: int, n_columns: int
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on, for as many classes and number columns as there are now."""
        events = self._events.values()
        images = [(row, *one) for row, event in enumerate(events) for one in event.images.items()]
        words = {
            "ids": list(self._events),
            "texts": [dict(event.texts) for event in events],
            "learned": list(self._learned),
            "images": [(row, name) for row, name, _ in images],
        }
        arrays: dict[str, NDArray[Any]] = {
            "words": np.frombuffer(json.dumps(words).encode(), np.uint8).copy(),
            "event": np.array([event.event for event in events], np.int64),
            "time_s": np.array([event.time_s for event in events], np.float64),
            "predicted": np.array([event.predicted for event in events], np.int32),
            "served": served_by(events, n_classes),
            "numbers": _numbers(events, n_columns),
            "now_s": np.array([self._now_s]),
        }
        if images:
            arrays["pixels"] = np.stack([pixels for _, _, pixels in images])
        return {}, arrays

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on, to the bit, from what `state` gave; KeyError, ValueError where it doesn't fit."""
        words = json.loads(arrays["words"].tobytes())
        names = ("event", "time_s", "predicted", "served", "numbers")
        event, time_s, predicted, served, numbers = (arrays[name] for name in names)
        ids = [str(event_id) for event_id in words["ids"]]
        sizes = {len(ids), len(words["texts"]), *(len(arrays[name]) for name in names)}
        if len(sizes) != 1 or len(set(ids)) != len(ids) or len(ids) > self.capacity:
            raise ValueError(f"{sorted(sizes)} remembered events, at most {self.capacity}")
        images = _images(words.get("images", []), arrays, len(ids))
        for row, event_id in enumerate(ids):
            self._events[event_id] = Pending(
                int(event[row]),
                float(time_s[row]),
                int(predicted[row]),
                np.array(served[row], np.float32),
                np.array(numbers[row], np.float64),
                {str(name): str(text) for name, text in words["texts"][row].items()},
                images[row],
            )
        self._learned = dict.fromkeys(str(event_id) for event_id in words["learned"])
        self._now_s = float(arrays["now_s"][0])
        self._characters = sum(pending.characters for pending in self._events.values())
        self._n_images = len(words.get("images", []))


def frame_of(
    stream: str, events: Sequence[Pending], ids: Sequence[str], labels: Sequence[Label | None],
    columns: tuple[str, ...],
) -> Frame:  # fmt: skip
    """Remembered events with their labels as a frame, in the labels' order; None: still waiting."""
    known = dict.fromkeys(label for label in labels if label is not None)
    values: dict[Label | None, int] = {label: code for code, label in enumerate(known)}
    names = dict.fromkeys(name for event in events for name in event.texts)
    return Frame(
        stream=stream,
        columns=columns,
        numbers=_numbers(events, len(columns)),
        label_codes=np.array([values.get(label, -1) for label in labels], np.int32),
        label_values=tuple(known),
        event_time_s=np.array([event.time_s for event in events], np.float64),
        event_ids=tuple(ids),
        texts={name: tuple(event.texts.get(name) for event in events) for name in names},
        images={
            name: ImageColumn.of_some([event.images.get(name) for event in events])
            for name in dict.fromkeys(name for event in events for name in event.images)
        },
    )


def _images(
    places: Sequence[tuple[int, str]], arrays: Mapping[str, NDArray[Any]], n: int
) -> list[dict[str, NDArray[np.uint8]]]:
    """Each event's images, of the rows and columns that `places` names."""
    found: list[dict[str, NDArray[np.uint8]]] = [{} for _ in range(n)]
    if places:
        pixels = np.array(arrays["pixels"], np.uint8)
        if pixels.shape != (len(places), IMAGE_SIDE, IMAGE_SIDE):
            raise ValueError(f"{len(places)} remembered images in {pixels.shape}")
        for (row, name), image in zip(places, pixels, strict=True):
            found[int(row)][str(name)] = image
    return found


def served_by(events: Iterable[Pending], n_classes: int) -> NDArray[np.float32]:
    """(n, n_classes) probabilities as they were served, 0 for classes unknown then."""
    rows = [np.pad(event.served, (0, n_classes - len(event.served))) for event in events]
    return np.array(rows, np.float32).reshape(len(rows), n_classes)


def _numbers(events: Iterable[Pending], n_columns: int) -> NDArray[np.float64]:
    """(n, n_columns), NaN in columns that came later."""
    rows = [
        np.pad(event.numbers, (0, n_columns - len(event.numbers)), constant_values=np.nan)
        for event in events
    ]
    return np.array(rows, np.float64).reshape(len(rows), n_columns)


def _by_columns(frame: Frame, rows: list[int], columns: Sequence[str]) -> NDArray[np.float64]:
    """(n, d) the numbers of some rows in the order of `columns`, NaN where the frame has none."""
    place = {name: j for j, name in enumerate(frame.columns)}
    numbers = np.full((len(rows), len(columns)), np.nan)
    for j, name in enumerate(columns):
        if name in place:
            numbers[:, j] = frame.numbers[rows, place[name]]
    return numbers
