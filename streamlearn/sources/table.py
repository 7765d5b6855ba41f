"""Batches of named columns to Rows: which column is what, told once and then kept.

Between `readers` (what a format holds) and `grouping` (which rows make a frame). What was told is
written into `Inferred`, so that a person can see it.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamlearn.core.records import ImageColumn
from streamlearn.errors import InputError
from streamlearn.sources.images import ROWS, Found, ImageReader, check_paths
from streamlearn.sources.json_lines import Batch
from streamlearn.sources.kinds import IMAGES, Kind, Told, as_numbers, as_texts, plain, tell
from streamlearn.sources.labels import LabelColumn, TimeColumn, stream_codes
from streamlearn.sources.readers import Reader
from streamlearn.sources.rows import Codes, Rows

RESERVED = ("label", "event_time", "event_id")  # names that an event has beside its features
MAX_NAME_CHARACTERS = 256


@dataclass(kw_only=True)
class Inferred:
    """What was found out about a file; the counts grow while it is read."""

    name: str
    format: str = ""
    label: str | None = None
    stream: str = ""  # how events get their stream, in words
    time: str = ""  # how events get their time, in words
    timed: bool = False  # whether times come from the file; if not, the n-th event's time is n
    columns: dict[str, Told] = field(default_factory=dict)  # features, in file order
    silent: list[str] = field(default_factory=list)  # columns without a value in the first rows
    unreadable: dict[str, int] = field(default_factory=dict)  # cells of number columns, by column
    notes: list[str] = field(default_factory=list)

    def of_kind(self, *kinds: Kind) -> tuple[str, ...]:
        """Names of the columns of these kinds."""
        return tuple(name for name, told in self.columns.items() if told.kind in kinds)

    def lines(self) -> list[str]:
        """One line a fact, for people."""
        found = [f"{self.name}: {self.format}", f"stream: {self.stream}", f"time: {self.time}"]
        found.insert(1, f"label: {self.label}" if self.label else "label: none, nothing is learned")
        for kind in Kind:
            names = self.of_kind(kind)
            if names:
                shown = [_with_note(name, self.columns[name].note) for name in names[:8]]
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                found.append(f"{kind}: {', '.join(shown)}{more}")
        silent = [name for name in self.silent if name not in self.columns]
        if silent:
            found.append(f"no value so far: {', '.join(silent)}")
        found += [
            f"{name}: {count} cells are no {self.columns[name].kind}, taken as missing"
            for name, count in self.unreadable.items()
            if count
        ]
        return found + self.notes


def _with_note(name: str, note: str) -> str:
    return f"{name} ({note})" if note else name


@dataclass(frozen=True, slots=True)
class Roles:
    """Which columns are no features. None: there is none."""

    label: str | None
    stream: str | None
    time: str | None
    event_id: str | None
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()  # features even if they would be ignored
    images: tuple[str, ...] = ()  # paths of images


class TableRows:
    """A reader's batches as Rows."""

    def __init__(
        self,
        reader: Reader,
        roles: Roles,
        codes: Codes,
        said: Inferred,
        images: ImageReader,
        *,
        default_stream: int,
        folder: Path,
    ) -> None:
        self._images, self._folder = images, folder  # which paths are relative to
        self._reader, self._roles, self._codes, self._said = reader, roles, codes, said
        self._default_stream = default_stream
        self._label = LabelColumn(roles.label, codes) if roles.label else None
        self._time = TimeColumn(roles.time) if roles.time else None
        self._n = 0  # rows so far
        self._without_stream = 0
        self._renamed: dict[str, str] = {}

    def rows(self, batches: Iterable[Batch]) -> Iterator[Rows]:
        """Rows a batch; `Inferred` is complete after the first and final after the last."""
        for raw in batches:
            batch = {name: plain(values) for name, values in raw.items()}
            n = len(next(iter(batch.values())))
            self._tell(batch)
            size = ROWS if self._said.of_kind(Kind.IMAGE) else n
            for start in range(0, n, size):
                yield self._rows({name: one.slice(start, size) for name, one in batch.items()})
        self._count()

    def _rows(self, batch: Batch) -> Rows:
        roles = self._roles
        n = len(next(iter(batch.values())))
        numeric, texts, images = [], {}, {}
        left_out = np.zeros(n, np.bool_)
        for name, told in self._said.columns.items():
            source = self._renamed.get(name, name)
            if told.kind.numeric:
                numeric.append((name, batch.get(source), told.kind))
            elif told.kind is Kind.IMAGE:
                images[name], no_image = self._image_column(name, batch.get(source), n)
                left_out |= no_image
            elif told.kind is not Kind.IGNORED:
                values = batch.get(source)
                texts[name] = np.full(n, None, object) if values is None else as_texts(values)
        numbers = np.full((n, len(numeric)), np.nan)
        for at, (name, values, kind) in enumerate(numeric):
            if values is not None:
                numbers[:, at], bad = as_numbers(values, kind, comma=self._reader.comma)
                if bad:
                    self._said.unreadable[name] = self._said.unreadable.get(name, 0) + bad
        rows = Rows(
            columns=tuple(name for name, _, _ in numeric),
            numbers=numbers,
            labels=self._labels(batch, n),
            streams=self._streams(batch, n),
            time_s=self._times(batch, n),
            texts=texts,
            images=images,
            ids=_ids(batch[roles.event_id]) if roles.event_id in batch else None,
        )
        self._n += n
        if left_out.any():
            rows = rows.pick(~left_out)
        if roles.stream and (rows.streams < 0).any():
            self._without_stream += int((rows.streams < 0).sum())
            rows = rows.pick(rows.streams >= 0)
        return rows

    def _image_column(self, name: str, values: Any, n: int) -> Found:
        if values is None:
            return ImageColumn.missing(n), np.zeros(n, np.bool_)
        if name not in self._roles.images:
            return self._images.of_files(name, values.to_pylist())
        return self._images.of_paths(name, as_texts(values).tolist(), self._folder)

    def _tell(self, batch: Batch) -> None:
        """Tell the kinds of columns that are new, or had no value so far."""
        roles, said = self._roles, self._said
        others = {roles.label, roles.stream, roles.time, roles.event_id}
        for source, values in batch.items():
            name = source
            if source in RESERVED and source not in others:
                name = f"{source}_"
                self._renamed[name] = source
            if source in others or name in said.columns:
                continue
            if source in roles.ignore:
                said.columns[name] = Told(Kind.IGNORED, "as asked")
            elif source in roles.images:
                if not pa.types.is_string(values.type):
                    raise InputError(f"--image {source!r} holds {values.type}, not paths of files")
                check_paths(source, as_texts(values.slice(0, ROWS)).tolist(), self._folder)
                said.columns[name] = IMAGES
            elif len(name) > MAX_NAME_CHARACTERS:
                said.columns[name] = Told(Kind.IGNORED, "its name is too long")
            elif (told := tell(values, comma=self._reader.comma)) is not None:
                said.columns[name] = kept(told, values) if source in roles.keep else told
            elif name not in said.silent:
                said.silent.append(name)

    def _labels(self, batch: Batch, n: int) -> NDArray[np.int32]:
        if self._label is None or self._label.name not in batch:
            return np.full(n, -1, np.int32)
        return self._label.codes_of(batch[self._label.name])

    def _streams(self, batch: Batch, n: int) -> NDArray[np.int32]:
        name = self._roles.stream
        if name is None:
            return np.full(n, self._default_stream, np.int32)
        return stream_codes(batch[name], self._codes) if name in batch else np.full(n, -1, np.int32)

    def _times(self, batch: Batch, n: int) -> NDArray[np.float64]:
        if self._time is None:
            return np.arange(self._n, self._n + n, dtype=np.float64)
        values = batch.get(self._time.name)
        return self._time.seconds(pa.nulls(n) if values is None else values)

    def announce(self) -> None:
        """After the first batch: say what is known now. InputError if nothing can be learned."""
        said, reader = self._said, self._reader
        said.format = reader.format
        if self._time is not None:
            said.time, said.timed = f"column {self._time.name!r}, {self._time.unit}", True
        said.notes += [f"{new}: renamed from {old}" for new, old in self._renamed.items()]
        if reader.renamed:
            said.notes.append(f"columns without a name of their own: {', '.join(reader.renamed)}")
        if not any(told.kind is not Kind.IGNORED for told in said.columns.values()):
            raise InputError(
                f"{said.name} has no column to learn from: "
                + (_listed(said) or "only the label, stream and time columns have values")
                + "; give at least one column of numbers, texts or images"
            )

    def _count(self) -> None:
        """After the last batch: what went wrong on the way."""
        said = self._said
        said.notes += self._images.notes()
        if self._reader.skipped:
            said.notes.append(f"{self._reader.skipped} lines left out: they are no record")
        if self._without_stream:
            said.notes.append(f"{self._without_stream} rows left out: they name no stream")
        if self._label is not None and self._label.bad:
            said.notes.append(f"{self._label.bad} kinds of labels are no class: unlabelled")
        if self._time is not None and self._time.bad:
            said.notes.append(f"{self._time.bad} cells of {self._time.name} are no time")


def kept(told: Told, values: Any) -> Told:
    """The kind of a column that is a feature because somebody asked for it."""
    if told.kind is not Kind.IGNORED:
        return told
    numbers, unreadable = as_numbers(values, Kind.NUMBER)
    if unreadable == 0 and np.isfinite(numbers).any():
        return Told(Kind.NUMBER, "as asked")
    if pa.types.is_string(values.type):
        return Told(Kind.TEXT, "as asked")
    raise InputError(f"--keep: {told.note} can't be learned from; leave it out")


def _listed(said: Inferred) -> str:
    return ", ".join(_with_note(f"{n} {t.kind}", t.note) for n, t in said.columns.items())


def _ids(values: Any) -> NDArray[Any]:
    texts = as_texts(values)
    return np.array(["" if text is None else text for text in texts.tolist()], dtype=object)


def check_column(name: str | None, flag: str, columns: Sequence[str], where: str) -> None:
    """InputError, with what the columns are called, if `name` is none of them."""
    if name is None or name in columns:
        return
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(map(repr, columns[:40])) + (", ..." if len(columns) > 40 else "")
    raise InputError(f"{flag} {name!r} is no column of {where}; {hint}its columns: {shown}")
