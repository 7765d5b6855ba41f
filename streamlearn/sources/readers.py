"""Files and pipes to batches of named columns (Arrow arrays), a piece at a time.

| format          | told by              | read                                              |
|-----------------|----------------------|---------------------------------------------------|
| Parquet         | first bytes `PAR1`   | by pyarrow, 8192 rows at a time, with bytes 256   |
| gzip, zstd, bz2 | first bytes          | unpacked on the way, whatever text is inside      |
| JSON lines      | first character `{`  | about 1 MiB at a time; a bad line is left out     |
| CSV             | everything else      | about 1 MiB at a time by pyarrow, all as text     |

CSV cells stay text here, since a column's type is told from its values later (`kinds`), and one
odd cell must not stop a file. A pipe is read as it comes: what is there is passed on.
A name that ends in .npz never comes here: `archive`.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from streamlearn.errors import InputError
from streamlearn.sources.json_lines import Batch, json_batch
from streamlearn.sources.kinds import DECIMAL_COMMA, THOUSANDS, comma_of

PIECE_BYTES = 1 << 20
LONGEST_RECORD_BYTES = 16 << 20  # then a quote was never closed: cut at the last line's end
PARQUET_ROWS = 8192
IMAGE_ROWS = 256  # where a column is of bytes: images of some 100 KiB each
COMPRESSIONS: dict[bytes, Literal["gzip", "zstd", "bz2"]] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
}
DELIMITERS = ",;\t|"


class Reader:
    """One file or pipe. `comma`, `skipped` and `renamed` say what was found on the way."""

    def __init__(self, name: str, raw: BinaryIO, *, total_bytes: int = 0) -> None:
        self.name = name
        self.format = ""
        self.comma = THOUSANDS  # what a comma within a number means
        self.skipped = 0  # lines that are no record
        self.renamed: list[str] = []  # columns that the header names twice or not at all
        self.total_rows: int | None = None  # where the format says
        self.read_bytes = 0
        self.total_bytes = total_bytes
        self._raw = raw

    def close(self) -> None:
        self._raw.close()

    def batches(self) -> Iterator[Batch]:
        """Columns of the next rows, until the end. InputError for what is no table."""
        head = self._raw.read1(PIECE_BYTES)  # type: ignore[attr-defined]
        if head[:4] == b"PAR1":
            yield from self._parquet()
            return
        pieces = self._pieces(head)
        for magic, codec in COMPRESSIONS.items():
            if head.startswith(magic):
                pieces = self._unpacked(pieces, codec)
        yield from self._text(pieces)

    def _pieces(self, head: bytes) -> Iterator[bytes]:
        piece = head
        while piece:
            self.read_bytes += len(piece)
            yield piece
            piece = self._raw.read1(PIECE_BYTES)  # type: ignore[attr-defined]

    def _unpacked(
        self, pieces: Iterator[bytes], codec: Literal["gzip", "zstd", "bz2"]
    ) -> Iterator[bytes]:
        self.format = f" in {codec}"
        packed = pa.PythonFile(_Joined(pieces), mode="r")
        try:
            with pa.CompressedInputStream(packed, codec) as unpacked:
                while piece := unpacked.read(PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise InputError(
                f"{self.name} starts as a {codec} file, but cannot be unpacked ({error}); "
                "it may be cut short: copy or download it again"
            ) from error

    def _parquet(self) -> Iterator[Batch]:
        self.format = "Parquet"
        try:
            file = pq.ParquetFile(self._raw)
            self.total_rows = file.metadata.num_rows
            bytes_within = any(map(_holds_bytes, file.schema_arrow.types))
            for batch in file.iter_batches(IMAGE_ROWS if bytes_within else PARQUET_ROWS):
                yield dict(zip(batch.schema.names, batch.columns, strict=True))
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self.name} starts as a Parquet file, but cannot be read ({error}); "
                "it may be cut short, or need a file rather than a pipe"
            ) from error

    def _text(self, pieces: Iterator[bytes]) -> Iterator[Batch]:
        first = b""
        for piece in pieces:
            first += piece
            if first.strip() and (b"\n" in first or len(first) > LONGEST_RECORD_BYTES):
                break
        if first.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{self.name} is UTF-16; save it as UTF-8 (iconv -f utf-16 -t utf-8)")
        first = first.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in first[:4096]:
            raise InputError(
                f"{self.name} is neither text nor Parquet nor .npz; give CSV (also .gz), Parquet, "
                "JSON lines or .npz"
            )
        start = first.lstrip()[:1]
        if start == b"[" and first.lstrip()[1:].lstrip()[:1] in (b"{", b"]"):
            raise InputError(
                f"{self.name} is a JSON array; give one object a line (jq -c '.[]' {self.name})"
            )
        if start == b"{":
            self.format = "JSON lines" + self.format
            for piece in _lines(first, pieces, quotes=False):
                yield from self._json(piece)
        elif start:
            yield from self._csv(first, pieces)

    def _json(self, piece: bytes) -> Iterator[Batch]:
        batch, skipped = json_batch(piece)
        self.skipped += skipped
        if batch:
            yield batch

    def _csv(self, first: bytes, pieces: Iterator[bytes]) -> Iterator[Batch]:
        self.format = "CSV" + self.format
        delimiter, names = self._header(first)
        self.comma = THOUSANDS if delimiter == "," else DECIMAL_COMMA
        parse = pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=self._skip
        )
        convert = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        )
        for i, piece in enumerate(_lines(first, pieces, quotes=True)):
            read = pa_csv.ReadOptions(
                column_names=names,
                skip_rows_after_names=1 if i == 0 else 0,
                block_size=max(2 * len(piece), 1024),
            )
            try:
                table = pa_csv.read_csv(io.BytesIO(piece), read, parse, convert)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{self.name} is no CSV in UTF-8 after {self.read_bytes} bytes ({error}); "
                    "convert it (iconv -f latin1 -t utf-8) or mend that line"
                ) from error
            if i == 0 and delimiter == ",":
                self.comma = comma_of(table.columns)
                self.format += ", decimal commas" if self.comma == DECIMAL_COMMA else ""
            if len(table):
                yield dict(zip(table.column_names, table.columns, strict=True))

    def _skip(self, row: Any) -> Literal["skip"]:
        self.skipped += 1
        return "skip"

    def _header(self, first: bytes) -> tuple[str, list[str]]:
        """The delimiter and the columns' names, each once."""
        try:
            text = first.decode()
        except UnicodeDecodeError as error:
            if error.start < len(first) - 4:  # a cut character at the end is none of our business
                raise InputError(
                    f"{self.name} is not UTF-8 (byte {error.start}); convert it, for example with "
                    "iconv -f latin1 -t utf-8"
                ) from error
            text = first[: error.start].decode()
        line = text.lstrip("\r\n").split("\n", 1)[0]
        delimiter = max(DELIMITERS, key=line.count) if any(d in line for d in DELIMITERS) else ","
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        if not header:
            header = next(csv.reader([line], delimiter=delimiter), [])
        if header and all(_is_number(name) for name in header):
            raise InputError(
                f"{self.name} has no header: its first line is {line.strip()[:60]!r}; the first "
                "line of a CSV names its columns, so add one"
            )
        names: list[str] = []
        for at, given in enumerate(header):
            name = given.strip() or f"column {at + 1}"
            while name in names:
                name += "_"
            if name != given.strip():
                self.renamed.append(name)
            names.append(name)
        return delimiter, names


class _Joined(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _lines(first: bytes, pieces: Iterator[bytes], *, quotes: bool) -> Iterator[bytes]:
    """Whole records: pieces cut after a line's end, with `quotes` outside of any quotes."""
    rest = first
    while True:
        end = rest.rfind(b"\n") + 1
        balanced = not quotes or rest.count(b'"', 0, end) % 2 == 0
        if end and (balanced or len(rest) > LONGEST_RECORD_BYTES):
            yield rest[:end]
            rest = rest[end:]
        piece = next(pieces, b"")
        if not piece:
            break
        rest += piece
    if rest.strip():
        yield rest


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _holds_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(map(_holds_bytes, (field.type for field in type_)))
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def open_reader(path: Path | None, stdin: BinaryIO) -> Reader:
    """The reader of a file, or of `stdin` where path is None. InputError if it can't be opened."""
    if path is None:
        return Reader("standard input", stdin)
    try:
        raw = path.open("rb")
        size = path.stat().st_size
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"cannot read {path}: {reason}; check the path and its rights") from error
    if size == 0 and path.is_file():
        raw.close()
        raise InputError(f"{path} is empty; give a file with a header and at least one event")
    return Reader(str(path), raw, total_bytes=size)
