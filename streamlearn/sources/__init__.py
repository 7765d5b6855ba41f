"""Files to Frames: CSV, CSV.gz, Parquet, JSON lines, npz, folders of images, and pipes.

`open_source` tells what a file holds, and says it; `Source.frames` reads it once, a piece at a
time, as frames of one stream each. Feeding and evaluating see the same frames. A stream's events
keep their order; how streams take turns: `grouping`.

>>> import tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp()) / "pumps.csv"
>>> _ = path.write_text("pump,temp,ok\\na,61.5,yes\\nb,70,no\\na,,yes\\n")
>>> with open_source(path, label="ok", stream="pump") as source:
...     for frame in source.frames():
...         print(frame.stream, frame.columns, frame.numbers.ravel(), frame.labels())
b ('temp',) [70.] ('no',)
a ('temp',) [61.5  nan] ('yes', 'yes')
>>> print(source.inferred.lines()[-1])
number: temp
"""

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from streamlearn.core.records import MAX_FRAME_EVENTS, Frame
from streamlearn.errors import InputError
from streamlearn.sources.archive import Archive
from streamlearn.sources.folder import Folder
from streamlearn.sources.grouping import frames_by_stream
from streamlearn.sources.images import ImageReader
from streamlearn.sources.readers import Reader, open_reader
from streamlearn.sources.rows import Codes, Rows
from streamlearn.sources.table import Inferred, Roles, TableRows, check_column

__all__ = ["Inferred", "Source", "open_source"]

ENDINGS = (".gz", ".zst", ".bz2", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")


class Source:
    """An opened file: what was inferred about it, and its frames. Read it once."""

    def __init__(
        self,
        rows: Iterator[Rows],
        codes: Codes,
        inferred: Inferred,
        *,
        frame_events: int,
        reader: Reader | None,
        total_rows: int | None,
        live: bool,
    ) -> None:
        self.inferred = inferred
        self.total_rows = total_rows  # where the format says it beforehand
        self._rows, self._codes = rows, codes
        self._frame_events, self._live = frame_events, live
        self._reader = reader
        self._n_read = 0

    def frames(self, *, skip: int = 0) -> Iterator[Frame]:
        """All events in frames; the first `skip` events, in this order, are left out."""
        left = skip
        for frame in frames_by_stream(
            self._rows, self._codes, frame_events=self._frame_events, live=self._live
        ):
            self._n_read += len(frame)
            start, left = min(left, len(frame)), max(left - len(frame), 0)
            if start < len(frame):
                yield frame.rows(start, len(frame)) if start else frame

    @property
    def done(self) -> float | None:
        """Share of the file that was read, 0..1; None where nobody knows its end (a pipe)."""
        if self.total_rows:
            return self._n_read / self.total_rows
        if self._reader is not None and self._reader.total_bytes:
            return min(self._reader.read_bytes / self._reader.total_bytes, 1.0)
        return None

    def close(self) -> None:
        if self._reader is not None and not self._live:
            self._reader.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_source(
    path: str | Path,
    *,
    label: str | None = None,
    stream: str | None = None,
    stream_name: str | None = None,
    time: str | None = None,
    ignore: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
    images: tuple[str, ...] = (),
    order: str | None = None,
    keep_files: bool = False,
    frame_events: int = 256,
    stdin: BinaryIO | None = None,
) -> Source:
    """Open a file, or standard input for "-", and tell its columns from its first rows.

    `label`, `stream` and `time` name columns (arrays of an npz). Without `stream` all events are
    of the stream `stream_name`, by default the file's name (its folder's, for a file that is just
    called data). Without `time` the n-th event's time
    is n. `ignore` leaves columns out, `keep` uses ones that would be left out (counters, ids).
    `images` names columns of paths to PNG or JPEG files, relative to the table's folder; `order`,
    of a folder, is "name", "time" or "shuffle:SEED". `keep_files`: images' files are needed, to
    send them. Columns called label, event_time and event_id are what they say if nothing else is
    asked for. InputError for what cannot be read, with the remedy.
    """
    if not 1 <= frame_events <= MAX_FRAME_EVENTS:
        raise InputError(
            f"a frame holds 1..{MAX_FRAME_EVENTS} events, got {frame_events}; choose one of these"
        )
    if stream and stream_name:
        raise InputError(
            f"--stream {stream!r} and --stream-name {stream_name!r} exclude each other: streams "
            "come from a column, or all events are of one stream; give one of them"
        )
    live = str(path) == "-"
    file = Path(path)
    name = stream_name or ("stdin" if live else _stem(file))
    codes = Codes()
    inferred = Inferred(name="standard input" if live else str(path))
    inferred.stream = f"column {stream!r}" if stream else f"all events are of {name!r}"
    inferred.time = "the event's number, since --time names no column"
    default = -1 if stream else codes.stream(name)
    asked = Roles(label, stream, time, None, ignore, keep, images)
    pictures = ImageReader(keep_files=keep_files)
    if live and order is not None:
        raise InputError(f"--order {order!r} is for folders of images; a pipe has its own order")
    whole = None if live else _whole(file, asked, codes, inferred, pictures, default, order)
    if whole is not None:
        return Source(
            whole.rows(), codes, inferred,
            frame_events=frame_events, reader=None, total_rows=whole.n, live=False,
        )  # fmt: skip
    reader = open_reader(None if live else file, stdin or sys.stdin.buffer)
    try:
        beside = Path() if live else file.parent
        rows = _table(reader, asked, codes, inferred, pictures, default, beside)
    except BaseException:
        if not live:
            reader.close()
        raise
    return Source(
        rows, codes, inferred,
        frame_events=frame_events, reader=reader, total_rows=reader.total_rows, live=live,
    )  # fmt: skip


def _whole(
    file: Path,
    asked: Roles,
    codes: Codes,
    inferred: Inferred,
    pictures: ImageReader,
    default_stream: int,
    order: str | None,
) -> Archive | Folder | None:
    """What is no table: a folder or an npz."""
    if order is not None and not file.is_dir():
        raise InputError(f"--order {order!r} is for folders of images; {file} has its own order")
    if not file.is_dir() and file.suffix != ".npz":
        return None
    for name in asked.images:
        raise InputError(f"--image {name!r} names a column of a table, and {file} is none")
    said = (file, asked, codes, inferred, pictures)
    if file.is_dir():
        return Folder(*said, default_stream=default_stream, order=order or "name")
    return Archive(*said, default_stream=default_stream)


def _table(
    reader: Reader,
    asked: Roles,
    codes: Codes,
    inferred: Inferred,
    pictures: ImageReader,
    default_stream: int,
    folder: Path,
) -> Iterator[Rows]:
    """Rows of a table; its first batch is read here, so that errors come at once."""
    batches = reader.batches()
    first = next(batches, None)
    if first is None:
        raise InputError(
            f"{reader.name} holds no events; give a header line and at least one line of values"
        )
    columns = list(first)
    sparse = reader.format.startswith("JSON")  # where an absent name is a missing value
    for name, flag in (
        (asked.label, "--label"),
        (asked.stream, "--stream"),
        (asked.time, "--time"),
    ):
        if not (sparse and reader.total_bytes == 0):
            check_column(name, flag, columns, reader.name)
    for names, flag in (
        (asked.ignore, "--ignore"),
        (asked.keep, "--keep"),
        (asked.images, "--image"),
    ):
        for name in names:
            check_column(name, flag, columns, reader.name)
    roles = Roles(
        label=asked.label or _if_there("label", columns, asked),
        stream=asked.stream,
        time=asked.time or _if_there("event_time", columns, asked),
        event_id=_if_there("event_id", columns, asked),
        ignore=asked.ignore,
        keep=asked.keep,
        images=asked.images,
    )
    inferred.label = roles.label
    table = TableRows(
        reader, roles, codes, inferred, pictures, default_stream=default_stream, folder=folder
    )
    rows = table.rows(chain([first], batches))
    one = next(rows)
    table.announce()
    return chain([one], rows)


def _if_there(name: str, columns: list[str], asked: Roles) -> str | None:
    taken = (asked.label, asked.stream, asked.time, *asked.ignore)
    return name if name in columns and name not in taken else None


def _stem(path: Path) -> str:
    name = path.name
    while (ending := Path(name).suffix) in ENDINGS and ending != name:
        name = name.removesuffix(ending)
    name = name.removesuffix(".npz")
    return path.resolve().parent.name or name if name == "data" else name
