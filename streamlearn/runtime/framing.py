"""Single events in, frames out: what the feeder does before anything is sent.

Pure. A column is numbers, text or an image by the type of its values; an event whose column has
another kind than in the frame so far closes that frame, since a frame has one type a column.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import TypeAlias, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Frame, Label
from streamlearn.errors import InputError

T = TypeVar("T")
S = TypeVar("S", bound=np.generic)
Value: TypeAlias = float | str | bytes | None
RESERVED = ("label", "event_time", "event_id")  # columns of every frame, so no features


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
        self._kinds: dict[str, type | None] = {}  # None: only missing values so far
        self._rows: list[dict[str, Value]] = []
        self._labels: list[Label | None] = []
        self._ids: list[str | None] = []
        self._times: list[float] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self, features: Mapping[str, object], *, label: object, event_id: str | None, time_s: float
    ) -> bool:
        """Add one event; False if it needs a frame of its own, since a column changes its kind.

        Raises InputError for features that nothing can be learned from.
        """
        row = checked_features(features)
        checked = checked_label(label)
        kinds = {name: type(value) for name, value in row.items() if value is not None}
        if any(self._kinds.get(name) not in (None, kind) for name, kind in kinds.items()):
            return False
        self._kinds |= {name: self._kinds.get(name) for name in row} | kinds
        self._rows.append(row)
        self._labels.append(checked)
        self._ids.append(event_id)
        self._times.append(time_s)
        return True

    def take(self) -> Frame:
        """All events so far as a frame; the builder is empty afterwards."""
        frame = self._frame()
        self._clear()
        return frame

    def _frame(self) -> Frame:
        columns = tuple(n for n, kind in self._kinds.items() if kind in (float, None))
        numbers = np.full((len(self._rows), len(columns)), np.nan)
        for row, line in zip(self._rows, numbers, strict=True):
            for at, name in enumerate(columns):
                value = row.get(name)
                if isinstance(value, float):
                    line[at] = value
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
            images={n: self._column(n, bytes) for n, kind in self._kinds.items() if kind is bytes},
        )

    def _column(self, name: str, kind: type[T]) -> tuple[T | None, ...]:
        found = (row.get(name) for row in self._rows)
        return tuple(value if isinstance(value, kind) else None for value in found)


def frame_of_one(stream: str, features: Mapping[str, object], *, time_s: float) -> Frame:
    """One unlabelled event as a frame, to predict it."""
    builder = FrameBuilder(stream)
    builder.add(features, label=None, event_id=None, time_s=time_s)
    return builder.take()


def checked_features(features: Mapping[str, object]) -> dict[str, Value]:
    """Numbers as float, text and image bytes as they are; InputError for everything else."""
    row = {}
    for name, value in features.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"a feature's name is a text that is not empty, got {name!r}")
        if name in RESERVED:
            raise InputError(
                f"a feature can't be called {name!r}, which every event has beside its features; "
                f"give it as {name}=..., or rename the feature"
            )
        row[name] = _value(name, value)
    if not row:
        raise InputError("an event needs at least one feature, got none; send {'name': value}")
    return row


def _value(name: str, value: object) -> Value:
    if value is None:
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Real | np.bool_):
        return float(value)
    raise InputError(
        f"feature {name!r} must be a number, a text, image bytes or None, got "
        f"{type(value).__name__} {value!r:.60}; spread lists over several features"
    )


def checked_label(label: object) -> Label | None:
    """A class as text or int; None for an unlabelled event; InputError for what is no class."""
    if label is None:
        return None
    if isinstance(label, str):
        return str(label)
    if isinstance(label, np.bool_ | bool | Real) and float(label).is_integer():
        return int(label) if isinstance(label, Integral) else round(float(label))
    raise InputError(
        f"a label is a text or a whole number, got {label!r:.60}; leave it away (None) where it "
        "is not known"
    )


def seconds(event_time: float | datetime | None, now_s: float) -> float:
    """Seconds since the epoch; a datetime without a zone counts as UTC.

    >>> seconds(datetime(1970, 1, 1, 0, 1), now_s=0.0)
    60.0
    """
    if event_time is None:
        return now_s
    if isinstance(event_time, datetime):
        aware = event_time if event_time.tzinfo else event_time.replace(tzinfo=UTC)
        return aware.timestamp()
    if isinstance(event_time, Real) and math.isfinite(event_time):
        return float(event_time)
    raise InputError(f"event_time is seconds since 1970 or a datetime, got {event_time!r:.60}")


def _frozen(array: NDArray[S]) -> NDArray[S]:
    array.flags.writeable = False
    return array
