"""Single events in, frames out: what the feeder does before anything is sent.

Pure. A column is numbers, text or an image by the type of its values; an event whose column has
another kind than in the frame so far closes that frame, since a frame has one type a column.
What a value means is the same as in JSON events: `wire.event_rules`. Unlike a codec, this stage
refuses by InputError, at the call that brought the event, so a bad one never costs its frame.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from numbers import Real
from types import NoneType
from typing import TypeAlias, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Frame, Label
from streamlearn.errors import InputError
from streamlearn.wire import event_rules, image_codec
from streamlearn.wire.image_codec import MAX_FRAME_PIXELS, Picture

T = TypeVar("T")
S = TypeVar("S", bound=np.generic)
Value: TypeAlias = float | str | Picture | None


class FrameBuilder:
    """Collects events of one stream until they are taken as a frame.

    >>> builder = FrameBuilder("boiler-7")
    >>> builder.add({"temp": 71.5, "note": "humming"}, label="ok", event_id=None, time_s=1.0)
    True
    >>> builder.add({"temp": "hot"}, label=None, event_id=None, time_s=2.0)  # no number
    False
    >>> frame = builder.take()
    >>> len(frame), frame.columns, frame.label_values
    (1, ('temp',), ('ok',))
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._clear()

    def _clear(self) -> None:
        self._kinds: dict[str, type] = {}  # NoneType: only missing values so far
        self._rows: list[dict[str, Value]] = []
        self._labels: list[Label | None] = []
        self._ids: list[str | None] = []
        self._times: list[float] = []
        self._n_pixels = 0  # of all images' files

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self, features: Mapping[str, object], *, label: object, event_id: str | None, time_s: float
    ) -> bool:
        """Add one event; False if it needs another frame: a column changes its kind, or the
        images would be too large together.

        Raises InputError for features that nothing can be learned from.
        """
        return self.add_row(
            checked_features(features), label=label, event_id=event_id, time_s=time_s
        )

    def add_row(
        self, row: dict[str, Value], *, label: object, event_id: str | None, time_s: float
    ) -> bool:
        """Add one event of which `checked_features` has read the images, which takes a while."""
        checked = checked_label(label)
        n_pixels = sum(value.n_pixels for value in row.values() if isinstance(value, Picture))
        if self._rows and n_pixels and self._n_pixels + n_pixels > MAX_FRAME_PIXELS:
            return False
        kinds: dict[str, type] = dict(zip(row, map(type, row.values()), strict=True))
        if checked is not None:
            kinds[event_rules.LABEL] = type(checked)
        if kinds.items() - self._kinds.items() and not self._widen(kinds):
            return False
        self._n_pixels += n_pixels
        self._rows.append(row)
        self._labels.append(checked)
        self._ids.append(event_id)
        self._times.append(time_s)
        return True

    def _widen(self, kinds: Mapping[str, type]) -> bool:
        """Take in columns that are new or of which only missing values came; False: they clash."""
        told = {name: kind for name, kind in kinds.items() if kind is not NoneType}
        if any(self._kinds.get(name, NoneType) not in (NoneType, told[name]) for name in told):
            return False
        self._kinds |= {name: self._kinds.get(name, NoneType) for name in kinds} | told
        return True

    def take(self) -> Frame:
        """All events so far as a frame; the builder is empty afterwards."""
        frame = self._frame()
        self._clear()
        return frame

    def _frame(self) -> Frame:
        self._kinds.pop(event_rules.LABEL, None)
        columns = tuple(n for n, kind in self._kinds.items() if kind in (float, NoneType))
        cells = [[row.get(name) for name in columns] for row in self._rows]
        numbers = np.array(cells, np.float64).reshape(len(cells), len(columns))  # None: NaN
        values = tuple(dict.fromkeys(label for label in self._labels if label is not None))
        code = {value: at for at, value in enumerate(values)}
        codes = [-1 if label is None else code[label] for label in self._labels]
        ids = tuple(one or uuid4().hex for one in self._ids) if any(self._ids) else ()
        return Frame(
            stream=self._stream,
            columns=columns,
            numbers=_frozen(numbers),
            label_codes=_frozen(np.array(codes, np.int32)),
            label_values=values,
            event_time_s=_frozen(np.array(self._times, np.float64)),
            event_ids=ids,
            texts={n: self._column(n, str) for n, kind in self._kinds.items() if kind is str},
            images={
                n: image_codec.column_of(self._column(n, Picture))
                for n, kind in self._kinds.items()
                if kind is Picture
            },
        )

    def _column(self, name: str, kind: type[T]) -> tuple[T | None, ...]:
        found = (row.get(name) for row in self._rows)
        return tuple(value if isinstance(value, kind) else None for value in found)


@dataclass(frozen=True, slots=True)
class Event:
    """One event by itself."""

    features: Mapping[str, float | str | bytes]  # without those that are missing, unless all are
    label: Label | None
    event_id: str | None
    time_s: float  # seconds since the epoch


def events_of(frame: Frame) -> Iterator[Event]:
    """A frame's events one by one, oldest first."""
    ids = frame.event_ids or (None,) * len(frame)
    images = {name: image_codec.files(column) for name, column in frame.images.items()}
    for at, (label, event_id) in enumerate(zip(frame.labels(), ids, strict=True)):
        numbers = zip(frame.columns, frame.numbers[at].tolist(), strict=True)
        row: dict[str, float | str | bytes] = {n: value for n, value in numbers if value == value}
        row |= {n: cell for n, cells in frame.texts.items() if (cell := cells[at]) is not None}
        row |= {n: file for n, files in images.items() if (file := files[at]) is not None}
        missing: dict[str, float | str | bytes] = dict.fromkeys(frame.columns, math.nan)
        yield Event(row or missing, label, event_id or None, float(frame.event_time_s[at]))


def frame_of_one(stream: str, features: Mapping[str, object], *, time_s: float) -> Frame:
    """One unlabelled event as a frame, to predict it."""
    builder = FrameBuilder(stream)
    builder.add(features, label=None, event_id=None, time_s=time_s)
    return builder.take()


def checked_features(features: Mapping[str, object]) -> dict[str, Value]:
    """Numbers as float, texts as they are, images read; InputError for everything else."""
    row: dict[str, Value] = {}
    for name, value in features.items():
        _check_name(name)
        row[name] = value if type(value) is float else _value(name, value)
    if all(value is None for value in row.values()):
        raise InputError(
            f"an event needs at least one feature that is not None, got {dict(features)}; "
            "send {'name': value}"
        )
    return row


@lru_cache(maxsize=4096)
def _check_name(name: object) -> None:
    refusal = event_rules.name_refusal(name) if isinstance(name, str) else "its type"
    if refusal is not None:
        raise InputError(f"a feature's name is a text, got {name!r:.60}: {refusal}")
    if name in event_rules.RESERVED:
        raise InputError(
            f"a feature can't be called {name!r}, which every event has beside its features; "
            f"give it as {name}=..., or rename the feature"
        )


def _value(name: str, value: object) -> Value:
    match _plain(value):
        case None:
            return None
        case str() as text if event_rules.is_unicode(text):
            return str(text)
        case bytes() | bytearray() | memoryview() as raw:
            try:
                return image_codec.read(bytes(raw))
            except event_rules.RefusedError as refusal:
                raise InputError(
                    f"feature {name!r} must be a PNG or JPEG image where it is bytes, got "
                    f"{raw[:12]!r}...: {refusal}"
                ) from None
        case Real() | Decimal() as number:
            return float(number)
        case _:
            pass
    raise InputError(
        f"feature {name!r} must be a number, a text, a PNG or JPEG image's bytes, or None, got "
        f"{type(value).__name__} {value!r:.60}; spread lists over several features"
    )


def checked_label(label: object) -> Label | None:
    """A class as text or int; None for an unlabelled event; InputError for what is no class."""
    if label is None:
        return None
    try:
        return event_rules.label_of(_plain(label))
    except event_rules.RefusedError as refusal:
        raise InputError(
            f"a label is a text or a whole number, got {label!r:.60}: {refusal}"
        ) from None


def seconds(event_time: float | str | datetime | None, now_s: float) -> float:
    """Seconds since the epoch; a datetime or ISO 8601 text without a zone counts as UTC.

    >>> seconds(datetime(1970, 1, 1, 0, 1), now_s=0.0)
    60.0
    """
    if event_time is None:
        return now_s
    given = event_time.isoformat() if isinstance(event_time, datetime) else _plain(event_time)
    try:
        return event_rules.time_of(given)
    except event_rules.RefusedError as refusal:
        raise InputError(
            f"event_time is seconds since 1970, ISO 8601 text or a datetime, got "
            f"{event_time!r:.60}: {refusal}"
        ) from None


def _plain(value: object) -> object:
    """numpy's scalars as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _frozen(array: NDArray[S]) -> NDArray[S]:
    array.flags.writeable = False
    return array
