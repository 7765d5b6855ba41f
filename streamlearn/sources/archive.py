"""npz archives to Rows: X, y and, where they are there, names, order and stream.

| array                             | shape         | is                                         |
|-----------------------------------|---------------|--------------------------------------------|
| X, uint8 of sides from 8 on       | (n, h, w) or (n, h, w, c) | images, with c = 1, 3 or 4 |
| X otherwise                       | (n, ...)      | numbers, flattened to (n, d)               |
| y, or the one --label names       | (n,)          | class codes or names; -1: unlabelled       |
| class_names                       | (C,)          | names for y's codes                        |
| feature_names                     | (d,)          | names for X's columns                      |
| order                             | (n,) or fewer | rows in the order in which they are events |
| stream, or the one --stream names | (n,)          | each row's stream                          |
| the one --time names              | (n,)          | each row's time                            |

Arrays of Python objects are refused: loading them could run code.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamlearn.errors import InputError
from streamlearn.sources.images import ROWS as IMAGE_ROWS
from streamlearn.sources.images import ImageReader, are_images
from streamlearn.sources.kinds import IMAGES, Kind, Told, unless_counter
from streamlearn.sources.labels import LabelColumn, TimeColumn, stream_codes
from streamlearn.sources.rows import Codes, Rows
from streamlearn.sources.table import Inferred, Roles, check_column

ROWS = 8192
IMAGE = "image"  # the column that X is, where it holds images


class Archive:
    """One npz file; X is in memory as a whole, in its own type."""

    def __init__(
        self,
        path: Path,
        roles: Roles,
        codes: Codes,
        said: Inferred,
        images: ImageReader,
        *,
        default_stream: int,
    ) -> None:
        self._arrays = _load(path)
        arrays, where = self._arrays, str(path)
        if "X" not in arrays:
            raise InputError(
                f"{path} has no array X; an npz holds events as X, numbers of shape (n, d), and "
                f"their classes as y; its arrays: {', '.join(map(repr, arrays)) or 'none'}"
            )
        self._x = arrays["X"]
        if self._x.ndim < 2 or self._x.dtype.kind not in "biuf":
            raise InputError(
                f"{path}: X is {self._x.dtype} {self._x.shape}; give numbers of shape (n, d)"
            )
        if self._x.size == 0 or arrays.get("order", self._x).size == 0:
            raise InputError(f"{path} holds no events: X is {self._x.shape}; fill it first")
        self._images = images if are_images(self._x) else None
        if self._images is None:
            self._x = self._x.reshape(len(self._x), -1)
        self.n = len(self._order())
        label = roles.label or ("y" if "y" in arrays else None)
        stream = roles.stream or ("stream" if "stream" in arrays else None)
        beside = [name for name, array in arrays.items() if array.shape == (len(self._x),)]
        check_column(label, "--label", beside, where)
        check_column(stream, "--stream", beside, where)
        check_column(roles.time, "--time", beside, where)
        self._columns: tuple[str, ...] = ()
        if self._images is not None:
            said.columns[IMAGE] = IMAGES
            for name in (*roles.ignore, *roles.keep):
                raise InputError(
                    f"{path}: X holds images, so there is no column {name!r}; as numbers they are "
                    "learned from as X.astype(np.float32)"
                )
        else:
            self._columns = self._names()
            self._tell(said, roles)
        self._labels = self._coded_labels(label, codes)
        self._streams = np.full(len(self._x), default_stream, np.int32)
        if stream is not None:
            self._streams = stream_codes(_arrow(arrays[stream]), codes)
        self._time_s = np.arange(len(self._x), dtype=np.float64)  # of rows in order: see rows()
        self._timed = roles.time is not None
        if roles.time is not None:
            time = TimeColumn(roles.time)
            self._time_s = time.seconds(_arrow(arrays[roles.time]))
            said.time, said.timed = f"array {roles.time!r}, {time.unit}", True
        self._say(said, label, stream, beside)

    def _order(self) -> NDArray[np.intp]:
        n = len(self._x)
        order = self._arrays.get("order")
        if order is None:
            return np.arange(n)
        if order.ndim != 1 or order.dtype.kind not in "iu" or (order.size and order.max() >= n):
            raise InputError(
                f"order must hold row numbers of X, below {n}: got {order.dtype} {order.shape}; "
                "mend or remove that array"
            )
        return order.astype(np.intp)

    def _names(self) -> tuple[str, ...]:
        d = self._x.shape[1]
        given = self._arrays.get("feature_names")
        if given is not None and given.shape == (d,) and len(set(given.tolist())) == d:
            return tuple(map(str, given.tolist()))
        return tuple(f"x{at}" for at in range(d))

    def _tell(self, said: Inferred, roles: Roles) -> None:
        """Which columns are features: all but counters and the ones to ignore."""
        for asked, flag in ((roles.ignore, "--ignore"), (roles.keep, "--keep")):
            for name in asked:
                check_column(name, flag, self._columns, said.name)
        first = self._x[self._order()[:ROWS]].astype(np.float64)
        for at, name in enumerate(self._columns):
            told = Told(Kind.NUMBER)
            if name in roles.ignore:
                told = Told(Kind.IGNORED, "as asked")
            elif name not in roles.keep:
                told = unless_counter(told, first[:, at])
            said.columns[name] = told
        numbers = said.of_kind(Kind.NUMBER)
        if not numbers:
            raise InputError(f"{said.name}: no column of X is left to learn from; ignore fewer")
        self._keep = np.array([self._columns.index(name) for name in numbers], np.intp)
        self._columns = numbers

    def _coded_labels(self, label: str | None, codes: Codes) -> NDArray[np.int32]:
        if label is None:
            return np.full(len(self._x), -1, np.int32)
        values = self._arrays[label]
        names = self._arrays.get("class_names")
        if label == "y" and names is not None and values.dtype.kind in "iu":
            if values.size and values.max() >= len(names):
                raise InputError(
                    f"y holds code {values.max()}, but class_names has {len(names)}; "
                    "give every code its name"
                )
            table = [codes.label(str(name)) for name in names.tolist()]
            return np.array([*table, -1], np.int32)[np.where(values < 0, len(table), values)]
        coded = LabelColumn(label, codes).codes_of(_arrow(values))
        if values.dtype.kind in "iu":
            coded = np.where(values < 0, -1, coded).astype(np.int32)
        return coded

    def _say(
        self, said: Inferred, label: str | None, stream: str | None, beside: list[str]
    ) -> None:
        said.format = f"npz, X {self._arrays['X'].shape}"
        said.label = label
        if stream is not None:
            said.stream = f"array {stream!r}"
        if "order" in self._arrays:
            said.notes.append("events in the order that the array `order` gives")
        used = {label, stream, "order", "y", "class_names", "feature_names"}
        left = [name for name in beside if name not in used]
        if left:
            said.notes.append(f"arrays not used: {', '.join(left)} (--stream, --time take one)")

    def rows(self) -> Iterator[Rows]:
        """All events in order, some thousands at a time."""
        order = self._order()
        size = ROWS if self._images is None else IMAGE_ROWS
        for start in range(0, len(order), size):
            at = order[start : start + size]
            ticks = np.arange(start, start + len(at), dtype=np.float64)
            rows = Rows(
                columns=self._columns,
                numbers=self._numbers(at),
                labels=self._labels[at],
                streams=self._streams[at],
                time_s=self._time_s[at] if self._timed else ticks,
                images={} if self._images is None else {IMAGE: self._images.of_arrays(self._x[at])},
            )
            yield rows.pick(rows.streams >= 0)

    def _numbers(self, at: NDArray[np.intp]) -> NDArray[np.float64]:
        if self._images is not None:
            return np.empty((len(at), 0))
        numbers = self._x[at][:, self._keep].astype(np.float64)
        numbers[~np.isfinite(numbers)] = np.nan
        return numbers


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {path}: {reason}; check the path and its rights") from error
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no npz archive of plain arrays ({error}); write it with "
            "numpy.savez_compressed(path, X=..., y=...), without object arrays"
        ) from error


def _arrow(values: NDArray[Any]) -> Any:
    if values.dtype.kind in "US":
        return pa.array([str(value) for value in values.tolist()], pa.string())
    return pa.array(values)
