"""Arrow streams that claim more than they should: refused before Arrow believes them."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streamlearn.core.records import Reason
from streamlearn.errors import FrameError
from streamlearn.wire import arrow_bounds, event_codec, event_columns

BILLION = 1_000_000_000
ROWS_WITHOUT_COLUMNS: Any = pa.array([{}] * 5000, pa.struct([]))
FIRST: Any = pa.array([0], pa.int32())


def stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    schema = batches[0].schema
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def reason_of(value: bytes) -> Reason:
    with pytest.raises(FrameError) as caught:
        event_codec.decode(value, b"s", [], 0.0)
    return Reason(caught.value.reason)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where Arrow is asked to make arrays of the stream."""

    def refuse(*_: object) -> None:
        raise AssertionError("Arrow was asked to read it")

    monkeypatch.setattr(pa.ipc, "open_stream", refuse)


def patched(value: bytes, old: int, new: int) -> bytes:
    """The one place where `old` stands as i64, changed to `new`."""
    assert value.count(struct.pack("<q", old)) >= 1
    return value.replace(struct.pack("<q", old), struct.pack("<q", new))


CLAIMS: dict[str, Callable[[], bytes]] = {
    "10^9 rows of nulls, which need no bytes": lambda: stream(batch(x=pa.nulls(BILLION))),
    "10^9 rows, and the bytes of 4001": lambda: patched(
        stream(batch(x=np.zeros(4001))), 4001, BILLION
    ),
    "2^62 rows": lambda: patched(stream(batch(x=np.zeros(4001))), 4001, 1 << 62),
    "rows without columns": lambda: stream(pa.RecordBatch.from_struct_array(ROWS_WITHOUT_COLUMNS)),
    "4097 rows in two batches": lambda: stream(batch(x=np.zeros(4096)), batch(x=np.zeros(1))),
    "4097 columns": lambda: stream(batch(**{str(i): [1.0] for i in range(4097)})),
    "2049 columns of 2048 rows": lambda: stream(
        batch(**{str(i): pa.nulls(2048) for i in range(2049)})
    ),
    "2000 empty batches": lambda: stream(*[batch(x=np.zeros(0))] * 2000),
    "a dictionary of 2^21 entries": lambda: stream(
        batch(x=pa.DictionaryArray.from_arrays(FIRST, pa.array(np.zeros(1 << 21))))
    ),
    "a dictionary of 10^9 nulls": lambda: stream(
        batch(x=pa.DictionaryArray.from_arrays(FIRST, pa.nulls(BILLION)))
    ),
}


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_are_refused_unread(claim: str) -> None:
    assert reason_of(CLAIMS[claim]()) == Reason.TOO_LARGE


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_what_would_inflate_too_far_is_refused_unread(codec: str) -> None:
    bomb = stream(batch(x=[b"\x89PNG\r\n\x1a\n" + bytes(80 << 20)]), compression=codec)
    assert len(bomb) < 1 << 20
    assert reason_of(bomb) == Reason.TOO_LARGE


@pytest.mark.usefixtures("unread")
def test_batches_inflate_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_bounds, "MAX_INFLATED_BYTES", 1 << 20)
    one = batch(x=[b"\x89PNG\r\n\x1a\n" + bytes(400_000)])
    arrow_bounds.check(stream(one, one, compression="zstd"))
    assert reason_of(stream(one, one, one, compression="zstd")) == Reason.TOO_LARGE


@pytest.mark.usefixtures("unread")
def test_an_inflated_size_that_lies_is_refused_unread() -> None:
    value = stream(batch(x=np.zeros(4001)), compression="zstd")
    assert reason_of(patched(value, 8 * 4001, 1 << 62)) == Reason.TOO_LARGE


def test_an_inflated_size_that_lies_within_the_bound_ends_with_a_reason() -> None:
    value = stream(batch(x=np.zeros(4001)), compression="zstd")
    for lie in (1, 8 * 4001 - 1, 8 * 4001 + 1, 1 << 20, -2, -(1 << 62)):
        assert reason_of(patched(value, 8 * 4001, lie)) == Reason.UNDECODABLE


def test_compressed_frames_within_the_bounds_are_read() -> None:
    for codec in ("zstd", "lz4"):
        value = stream(batch(x=np.arange(4001.0), t=["a" * 99] * 4001), compression=codec)
        frame, _ = event_codec.decode(value, b"s", [], 0.0)
        assert frame.numbers[:, 0].tolist() == list(range(4001))


def same_cell_often(type_: pa.DataType) -> Any:
    """A few bytes of which 4000 cells, written out, make 4 GB."""
    size = 1 << 20
    text = pa.array(["x" * size], pa.string())
    if pa.types.is_dictionary(type_):
        return pa.DictionaryArray.from_arrays(np.zeros(4000, np.int16), text)
    views = struct.pack("<i4sii", size, b"xxxx", 0, 0) * 4000
    buffers = [None, pa.py_buffer(views), text.buffers()[2]]
    return pa.Array.from_buffers(type_, 4000, buffers)


@pytest.mark.parametrize("name", ["x", "label", "event_id", "event_time"])
@pytest.mark.parametrize(
    "type_", [pa.string_view(), pa.binary_view(), pa.dictionary(pa.int16(), pa.string())], ids=str
)
def test_cells_that_share_their_bytes_are_counted_before_they_are_written_out(
    name: str, type_: pa.DataType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it was written out")

    for step in ("plain", "joined"):
        monkeypatch.setattr(event_columns, step, refuse)
    value = stream(batch(**{name: same_cell_often(type_), "y": np.zeros(4000)}))
    assert len(value) < event_codec.MAX_FRAME_BYTES
    assert reason_of(value) == Reason.TOO_LARGE
    few = stream(batch(x=same_cell_often(type_).slice(0, 2000)))
    assert reason_of(few + b"") == Reason.TOO_LARGE


def test_columns_that_share_their_bytes_are_counted() -> None:
    text = pa.array(["x" * (1 << 20)])
    value = stream(batch(**{str(i): text.dictionary_encode() for i in range(8)}))
    frame, _ = event_codec.decode(value, b"s", [], 0.0)
    assert len(frame.texts) == 8
    views = {str(i): same_cell_often(pa.string_view()).slice(0, 9) for i in range(8)}
    assert reason_of(stream(batch(**views))) == Reason.TOO_LARGE


def test_offsets_that_point_outside_are_found_before_they_are_followed() -> None:
    value = stream(batch(x=["ab", "cd", "ef"]))
    offsets = struct.pack("<iiii", 0, 2, 4, 6)
    assert value.count(offsets) == 1
    for bad in ((0, 2, 4, 1 << 30), (0, 4, 2, 6), (0, -2, 4, 6), (-4, 2, 4, 6)):
        assert reason_of(value.replace(offsets, struct.pack("<iiii", *bad))) == Reason.UNDECODABLE


def test_dictionary_indices_that_point_outside_are_found() -> None:
    indices: Any = pa.array([77, 78], pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(["a"]), safe=False)
    assert reason_of(stream(batch(x=column))) == Reason.UNDECODABLE


def test_text_that_is_not_utf8_is_found() -> None:
    value = stream(batch(x=["abcdefgh"])).replace(b"abcdefgh", b"abc\xff\xfefgh")
    assert reason_of(value) == Reason.UNDECODABLE


def test_counting_needs_no_memory() -> None:
    before = pa.total_allocated_bytes()
    value = CLAIMS["10^9 rows of nulls, which need no bytes"]()
    with pytest.raises(FrameError):
        arrow_bounds.check(value)
    assert pa.total_allocated_bytes() - before < 1 << 20
