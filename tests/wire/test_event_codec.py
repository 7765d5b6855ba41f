"""Events: what is encoded comes back; what others send ends as a frame or with a reason."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.core.records import MAX_FRAME_EVENTS, Frame, Label, Reason
from streamlearn.errors import FrameError
from streamlearn.wire import event_codec, image_codec
from tests.wire.pictures import JPEG, PNG, same_images, slope

PICTURES = [image_codec.read(raw) for raw in (PNG, JPEG)]


def arrow(
    columns: Mapping[str, Any] | pa.RecordBatch, *, batches: int = 1, **options: Any
) -> bytes:
    """An Arrow IPC stream as a foreign feeder would write it."""
    batch = columns if isinstance(columns, pa.RecordBatch) else pa.RecordBatch.from_pydict(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decoded(value: bytes, *, timestamp_s: float = 5.0) -> Frame:
    frame, rejections = event_codec.decode(value, b"s", [], timestamp_s)
    assert rejections == ()
    return frame


def reason_of(value: bytes | None, key: bytes | None = b"s", headers: Any = ()) -> Reason:
    with pytest.raises(FrameError) as caught:
        event_codec.decode(value, key, headers, 0.0)
    return Reason(caught.value.reason)


def same(a: Frame, b: Frame) -> None:
    assert (a.stream, a.columns, a.label_values) == (b.stream, b.columns, b.label_values)
    np.testing.assert_array_equal(a.numbers, b.numbers)
    np.testing.assert_array_equal(a.label_codes, b.label_codes)
    np.testing.assert_array_equal(a.event_time_s, b.event_time_s)
    assert a.event_ids == b.event_ids
    assert dict(a.texts) == dict(b.texts)
    same_images(a.images, b.images)


# --- round trips -------------------------------------------------------------------------------

names = st.lists(st.text(min_size=1, max_size=8), max_size=4, unique=True).map(
    lambda found: [n for n in found if n not in ("label", "event_time", "event_id")]
)
label_sets: st.SearchStrategy[list[Any]] = st.one_of(
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=3, unique=True),
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3, unique=True),
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    n = draw(st.integers(1, 6))

    def cells(of: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        return tuple(draw(st.lists(of, min_size=n, max_size=n)))

    found = draw(names) or ["only"]
    cut = draw(st.integers(0, len(found)))
    numbers, others = found[:cut], found[cut:]
    texts, images = others[::2], others[1::2]
    values: list[Label] = draw(label_sets)
    codes = np.array(cells(st.integers(-1, len(values) - 1)), np.int32)
    shown = list(dict.fromkeys(code for code in codes.tolist() if code >= 0))
    return Frame(
        stream=draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)),
        columns=tuple(numbers),
        numbers=np.array(
            [cells(st.floats(width=32, allow_infinity=False)) for _ in numbers], np.float64
        ).T.reshape(n, len(numbers)),
        label_codes=np.array([shown.index(c) if c >= 0 else -1 for c in codes.tolist()], np.int32),
        label_values=tuple(values[code] for code in shown),
        event_time_s=np.array(cells(st.floats(-6e10, 2e11))),
        event_ids=draw(st.sampled_from([(), cells(st.text(max_size=5))])),
        texts={name: cells(st.none() | st.text(max_size=9)) for name in texts},
        images={
            name: image_codec.column_of(cells(st.sampled_from([None, *PICTURES])))
            for name in images
        },
    )


@given(frames())
@settings(max_examples=150, derandomize=True, deadline=None)
def test_what_is_encoded_is_decoded(frame: Frame) -> None:
    value, headers = event_codec.encode(frame)
    back, rejections = event_codec.decode(value, frame.stream.encode(), headers, 0.0)
    assert rejections == ()
    same(back, frame)


def test_arrays_are_read_only_and_numbers_are_float64_rows() -> None:
    frame = decoded(arrow({"a": [1, 2], "b": [0.5, None], "label": ["x", "y"]}))
    assert frame.numbers.dtype == np.float64
    assert frame.numbers.flags.c_contiguous
    for array in (frame.numbers, frame.label_codes, frame.event_time_s):
        assert not array.flags.writeable


def test_headers_are_cloud_events_and_repeat_for_the_same_frame() -> None:
    frame = decoded(arrow({"a": [1.0], "event_time": [1.5]}))
    value, headers = event_codec.encode(frame)
    assert event_codec.encode(frame) == (value, headers)
    said = dict(headers)
    assert said["ce_specversion"] == b"1.0"
    assert said["content-type"] == b"application/vnd.apache.arrow.stream"
    assert said["ce_subject"] == b"s"
    assert said["ce_time"] == b"1970-01-01T00:00:01.500000+00:00"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label_values": ("x", 1), "label_codes": np.array([0, 1], np.int32)}, Reason.BAD_LABEL),
        ({"label_values": (1 << 64,), "label_codes": np.zeros(2, np.int32)}, Reason.BAD_LABEL),
        ({"columns": ("label",)}, Reason.WRONG_TYPE),
        ({"columns": ("",)}, Reason.WRONG_TYPE),
        ({"texts": {"a": ("x", "y")}}, Reason.WRONG_TYPE),
        ({"columns": (), "numbers": np.empty((2, 0))}, Reason.NO_FEATURES),
    ],
)
def test_what_decode_would_refuse_is_not_encoded(change: dict[str, Any], reason: Reason) -> None:
    frame = replace(decoded(arrow({"a": [1.0, 2.0]})), **change)
    with pytest.raises(FrameError) as caught:
        event_codec.encode(frame)
    assert caught.value.reason == reason


# --- what the types of others mean -------------------------------------------------------------

D = Decimal
NUMBERS: list[tuple[Any, list[float]]] = [
    (pa.array([1, None, -3], t), [1, np.nan, -3]) for t in (pa.int8(), pa.int16(), pa.int32())
]
NUMBERS += [
    (pa.array([1, None, 3], t), [1, np.nan, 3]) for t in (pa.int64(), pa.uint8(), pa.uint64())
]
NUMBERS += [
    (pa.array([1.5, None, np.nan], t), [1.5, np.nan, np.nan])
    for t in (pa.float16(), pa.float32(), pa.float64())
]
NUMBERS += [
    (pa.array([True, None, False]), [1, np.nan, 0]),
    (pa.array([D("1.25"), None, D(-2)], pa.decimal128(10, 2)), [1.25, np.nan, -2]),
    (pa.array([D("1.25"), None, D(-2)], pa.decimal256(50, 2)), [1.25, np.nan, -2]),
    (pa.array([1, None, -2], pa.date32()), [86400, np.nan, -172800]),
    (pa.array([86400000, None, 0], pa.date64()), [86400, np.nan, 0]),
    (pa.array([1, None, 2], pa.time32("ms")), [0.001, np.nan, 0.002]),
    (pa.array([1, None, 2], pa.time64("us")), [1e-6, np.nan, 2e-6]),
    (pa.array([1, None, 2], pa.timestamp("ns")), [1e-9, np.nan, 2e-9]),
    (pa.array([1, None, 2], pa.timestamp("s", tz="Asia/Tokyo")), [1, np.nan, 2]),
    (pa.array([1500, None, -1], pa.duration("ms")), [1.5, np.nan, -0.001]),
    (pa.array([np.inf, -np.inf, 3e38]), [np.nan, np.nan, 3e38]),
    (pa.array([1e39, -1e300, -3e38]), [np.nan, np.nan, -3e38]),
    (pa.array([7, None, 8]).dictionary_encode(), [7, np.nan, 8]),
]


@pytest.mark.parametrize(("column", "expected"), NUMBERS, ids=lambda c: str(getattr(c, "type", "")))
def test_number_columns(column: Any, expected: list[float]) -> None:
    for beside in ({}, {"other": pa.array([0.5, 0.25, 0.125])}):
        frame = decoded(arrow({"x": column, **beside}))
        assert frame.columns == ("x", *beside)
        np.testing.assert_array_equal(frame.numbers[:, 0], expected)


@pytest.mark.parametrize(
    "type_",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.uint32(), pa.large_string()),
    ],
    ids=str,
)
def test_text_columns(type_: pa.DataType) -> None:
    cells = ["ä" * 20, None, "", "b"]
    column = pa.array(cells, pa.string()).cast(type_)
    assert decoded(arrow({"x": column})).texts["x"] == tuple(cells)
    assert decoded(arrow({"x": column.slice(1, 3)})).texts["x"] == tuple(cells[1:])
    assert decoded(arrow({"x": column}, batches=3)).texts["x"] == tuple(cells * 3)


@pytest.mark.parametrize(
    "type_", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(len(PNG))], ids=str
)
def test_image_columns(type_: pa.DataType) -> None:
    column = pa.array([PNG, None], type_)
    image = decoded(arrow({"x": column}, batches=2)).images["x"]
    assert image.raw == (PNG, None, PNG, None)
    assert image.present.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(image.pixels[2], slope())
    assert not image.pixels[[1, 3]].any() and not image.pixels.flags.writeable


LABELS: list[tuple[Any, tuple[Label | None, ...]]] = [
    (pa.array(["b", None, "a", "b"]), ("b", None, "a", "b")),
    (pa.array(["b", None, "a", "b"], pa.string_view()), ("b", None, "a", "b")),
    (pa.array(["b", None, "a", "b"]).dictionary_encode(), ("b", None, "a", "b")),
    (pa.array([3, None, -1, 3], pa.int8()), (3, None, -1, 3)),
    (pa.array([(1 << 64) - 1, None, 0, 0], pa.uint64()), ((1 << 64) - 1, None, 0, 0)),
    (pa.array([3.0, None, -0.0, 0.0]), (3, None, 0, 0)),
    (pa.array([3.0, None, 1.0, 3.0], pa.float16()), (3, None, 1, 3)),
    (pa.array([D(3), None, D("4.00"), D(3)], pa.decimal128(9, 2)), (3, None, 4, 3)),
    (pa.array([True, None, False, True]), ("true", None, "false", "true")),
    (pa.nulls(4), (None,) * 4),
]


@pytest.mark.parametrize(("column", "expected"), LABELS, ids=lambda c: str(getattr(c, "type", "")))
def test_labels(column: Any, expected: tuple[Label | None, ...]) -> None:
    frame = decoded(arrow({"x": [1, 2, 3, 4], "label": column}))
    assert frame.labels() == expected
    assert [type(v) for v in frame.labels()] == [type(v) for v in expected]
    in_order = list(dict.fromkeys(v for v in expected if v is not None))
    assert list(frame.label_values) == in_order


def test_without_a_label_column_all_is_unlabelled() -> None:
    assert decoded(arrow({"x": [1, 2]})).labels() == (None, None)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_500, None], pa.timestamp("ms")),
        pa.array([1_500_000, None], pa.timestamp("us", tz="UTC")),
        pa.array([1_500_000_000, None], pa.timestamp("ns", tz="America/New_York")),
        pa.array([1.5, None]),
        pa.array([1.5, None], pa.float16()),
        pa.array([D("1.5"), None]),
        pa.array(["1970-01-01T00:00:01.5Z", None]),
        pa.array(["1970-01-01T01:00:01.500+01:00", None], pa.string_view()),
        pa.array([datetime(1970, 1, 1, 0, 0, 1, 500_000), None]),
        pa.array([datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC), None]).dictionary_encode(),
    ],
    ids=lambda c: str(c.type),
)
def test_event_times(column: Any) -> None:
    frame = decoded(arrow({"x": [1, 2], "event_time": column}), timestamp_s=77.0)
    assert frame.event_time_s.tolist() == [1.5, 77.0]


def test_event_ids() -> None:
    assert decoded(arrow({"x": [1, 2], "event_id": ["a", None]})).event_ids == ("a", "")
    assert decoded(arrow({"x": [1, 2], "event_id": [12, -3]})).event_ids == ("12", "-3")
    assert reason_of(arrow({"x": [1], "event_id": [1.5]})) == Reason.WRONG_TYPE


def test_columns_of_nulls_say_nothing() -> None:
    frame = decoded(arrow({"x": [1, 2], "empty": pa.nulls(2)}))
    assert frame.columns == ("x",)
    assert reason_of(arrow({"empty": pa.nulls(2), "label": ["a", "b"]})) == Reason.NO_FEATURES


# --- rows that are refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"label": [1.0, np.nan, 2.0, 1.0]}, Reason.BAD_LABEL),
        ({"label": [1.0, np.inf, 2.0, 1.0]}, Reason.BAD_LABEL),
        ({"label": [1.0, 1.5, 2.0, 1.0]}, Reason.BAD_LABEL),
        ({"label": [1.0, 1e300, 2.0, 1.0]}, Reason.BAD_LABEL),
        ({"label": ["b", "", "a", "b"]}, Reason.BAD_LABEL),
        ({"label": ["b", "x" * 257, "a", "b"]}, Reason.BAD_LABEL),
        ({"event_time": [1.0, np.nan, 2.0, 3.0]}, Reason.BAD_TIME),
        ({"event_time": [1.0, 1.7e12, 2.0, 3.0]}, Reason.BAD_TIME),
        ({"event_time": ["2024-01-01", "yesterday", None, None]}, Reason.BAD_TIME),
        ({"picture": [PNG, b"GIF89a", None, JPEG]}, Reason.BAD_IMAGE),
    ],
)
def test_a_bad_row_never_costs_its_frame(columns: dict[str, Any], reason: Reason) -> None:
    value = arrow({"x": [0.0, 1.0, 2.0, 3.0], "t": list("abcd"), **columns})
    frame, rejections = event_codec.decode(value, b"s", [], 9.0)
    assert [(r.row, r.reason) for r in rejections] == [(1, reason)]
    assert frame.numbers[:, 0].tolist() == [0.0, 2.0, 3.0]
    assert frame.texts["t"] == ("a", "c", "d")
    assert len(frame) == len(frame.event_time_s) == 3
    if "label" in columns:
        assert frame.label_codes.tolist() == [0, 1, 0]


def test_label_values_are_in_order_of_the_rows_that_are_left() -> None:
    value = arrow({"x": [1, 2, 3], "label": ["a", "b", "a"], "event_time": [np.nan, 0.0, 0.0]})
    frame, _ = event_codec.decode(value, b"s", [], 9.0)
    assert frame.label_values == ("b", "a")
    assert frame.label_codes.tolist() == [0, 1]
    gone = arrow({"x": [1, 2], "label": ["a", "b"], "event_time": [np.nan, 0.0]})
    frame, _ = event_codec.decode(gone, b"s", [], 9.0)
    assert frame.label_values == ("b",)


def test_a_frame_without_a_row_left_is_refused() -> None:
    assert reason_of(arrow({"x": [1, 2], "label": [np.nan, 0.5]})) == Reason.BAD_LABEL


# --- frames that are refused -------------------------------------------------------------------

NESTED = pa.array([[1], [2]])
RUN_ENDS: Any = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([1.0]))


class _Celsius(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.float64(), "test.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, data: bytes) -> "_Celsius":
        return cls()


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"x": NESTED}, Reason.WRONG_TYPE),
        ({"x": pa.array([{"a": 1}, None])}, Reason.WRONG_TYPE),
        ({"x": pa.array([[(1, 2)], None], pa.map_(pa.int8(), pa.int8()))}, Reason.WRONG_TYPE),
        ({"x": pa.array([(1, 2, 3), None], pa.month_day_nano_interval())}, Reason.WRONG_TYPE),
        ({"x": RUN_ENDS}, Reason.WRONG_TYPE),
        ({"x": pa.array([b"x" * 16] * 2, pa.uuid())}, Reason.WRONG_TYPE),
        (
            {"x": pa.ExtensionArray.from_storage(_Celsius(), pa.array([1.0, 2.0]))},
            Reason.WRONG_TYPE,
        ),
        ({"": [1, 2]}, Reason.WRONG_TYPE),
        ({"x" * 300: [1, 2]}, Reason.WRONG_TYPE),
        ({"y": [1, 2], "label": NESTED}, Reason.BAD_LABEL),
        ({"y": [1, 2], "label": pa.array([b"a", b"b"])}, Reason.BAD_LABEL),
        ({"y": [1, 2], "label": pa.array([1, 2], pa.date32())}, Reason.BAD_LABEL),
        ({"y": [1, 2], "event_time": NESTED}, Reason.BAD_TIME),
        ({"y": [1, 2], "event_time": [True, False]}, Reason.BAD_TIME),
        ({"y": [1, 2], "event_time": pa.array([1, 2], pa.time32("s"))}, Reason.BAD_TIME),
        ({"y": [1, 2], "event_id": NESTED}, Reason.WRONG_TYPE),
        ({"label": ["a", "b"], "event_id": ["1", "2"]}, Reason.NO_FEATURES),
        ({"x": pa.array([], pa.float64())}, Reason.EMPTY_FRAME),
    ],
)
def test_frames_that_are_refused(columns: dict[str, Any], reason: Reason) -> None:
    assert reason_of(arrow(columns)) == reason


def test_an_extension_type_that_arrow_does_not_know_is_refused() -> None:
    schema = pa.schema([pa.field("x", pa.float64(), metadata={"ARROW:extension:name": "acme.c"})])
    batch = pa.RecordBatch.from_arrays([pa.array([1.0])], schema=schema)
    assert reason_of(arrow(batch)) == Reason.WRONG_TYPE


def test_a_column_name_twice_is_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    assert reason_of(arrow(batch)) == Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("value", "key", "headers", "reason"),
    [
        (b"{}", None, [], Reason.NO_STREAM),
        (b"{}", b"", [], Reason.NO_STREAM),
        (b"{}", b"\xff", [], Reason.NO_STREAM),
        (b"{}", b"a\0b", [], Reason.NO_STREAM),
        (b"{}", b"x" * 513, [], Reason.NO_STREAM),
        (None, b"s", [], Reason.EMPTY_FRAME),
        (b"", b"s", [], Reason.EMPTY_FRAME),
        (b"\0" * (16 * 1024 * 1024 + 1), b"s", [], Reason.TOO_LARGE),
        (b"ARROW1\0\0", b"s", [], Reason.UNSUPPORTED),
        (b"x", b"s", [("content-type", b"application/avro")], Reason.UNSUPPORTED),
        (b"x", b"s", [("content-type", b"\xff\xfe")], Reason.UNSUPPORTED),
        (b'{"x":1}', b"s", [("ce_specversion", b"2.0")], Reason.UNSUPPORTED),
        (b"not arrow", b"s", [], Reason.UNDECODABLE),
    ],
)
def test_messages_that_are_refused(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]], reason: Reason
) -> None:
    assert reason_of(value, key, headers) == reason


def test_bytes_after_the_stream_are_refused() -> None:
    value = arrow({"x": [1.0]})
    assert reason_of(value + value) == Reason.UNDECODABLE
    assert reason_of(value + b"\0") == Reason.UNDECODABLE


def test_rows_of_several_batches_add_up() -> None:
    half = {"x": np.zeros(MAX_FRAME_EVENTS // 2)}
    assert len(decoded(arrow(half, batches=2))) == MAX_FRAME_EVENTS
    assert reason_of(arrow(half, batches=3)) == Reason.TOO_LARGE


def test_batches_with_dictionaries_of_their_own() -> None:
    sink = pa.BufferOutputStream()
    schema = pa.schema([("x", pa.dictionary(pa.int8(), pa.string()))])
    with pa.ipc.new_stream(sink, schema) as writer:
        for cells in (["a", "b"], ["b", "c"]):
            column = pa.array(cells).dictionary_encode().cast(schema.field("x").type)
            writer.write_batch(pa.RecordBatch.from_arrays([column], schema=schema))
    assert decoded(sink.getvalue().to_pybytes()).texts["x"] == ("a", "b", "b", "c")


# --- JSON --------------------------------------------------------------------------------------


def as_json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_one_json_object_is_a_frame_of_one() -> None:
    value = as_json(
        temp=3.5, on=True, town="Köln", gone=None, label="ok", event_time="1970-01-02", event_id=7
    )
    for headers in ([], [("content-type", b"application/json; charset=utf-8")]):
        frame, rejections = event_codec.decode(b"\xef\xbb\xbf \n" + value, b"s", headers, 5.0)
        assert rejections == ()
        assert frame.columns == ("temp", "on")
        assert frame.numbers.tolist() == [[3.5, 1.0]]
        assert dict(frame.texts) == {"town": ("Köln",)}
        assert frame.labels() == ("ok",)
        assert frame.event_time_s.tolist() == [86400.0]
        assert frame.event_ids == ("7",)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, "1e39"])
def test_numbers_beyond_float32_are_missing_in_json_too(token: str) -> None:
    frame = decoded(f'{{"x": {token}, "y": 1}}'.encode())
    np.testing.assert_array_equal(frame.numbers, [[np.nan, 1.0]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"x": 1', Reason.UNDECODABLE),
        ('{"x": 1} {"x": 2}', Reason.UNDECODABLE),
        ("[" * 100_000, Reason.UNDECODABLE),
        ('{"x":' * 100_000, Reason.UNDECODABLE),
        ("[1, 2]", Reason.WRONG_TYPE),
        ('{"x": 1, "x": 2}', Reason.WRONG_TYPE),
        ('{"x": {"y": 1}}', Reason.WRONG_TYPE),
        ('{"x": [1]}', Reason.WRONG_TYPE),
        ('{"x": "\\ud800"}', Reason.WRONG_TYPE),
        ('{"\\ud800": 1}', Reason.WRONG_TYPE),
        ('{"": 1}', Reason.WRONG_TYPE),
        ("{}", Reason.NO_FEATURES),
        ('{"x": null, "label": 1}', Reason.NO_FEATURES),
        ('{"x": 1, "label": NaN}', Reason.BAD_LABEL),
        ('{"x": 1, "label": 0.5}', Reason.BAD_LABEL),
        ('{"x": 1, "label": ""}', Reason.BAD_LABEL),
        ('{"x": 1, "label": [1]}', Reason.BAD_LABEL),
        ('{"x": 1, "label": "\\udfff"}', Reason.BAD_LABEL),
        ('{"x": 1, "label": %s}' % ("9" * 30), Reason.BAD_LABEL),
        ('{"x": 1, "label": %s}' % ("9" * 5000), Reason.BAD_LABEL),
        ('{"x": 1, "event_time": NaN}', Reason.BAD_TIME),
        ('{"x": 1, "event_time": true}', Reason.BAD_TIME),
        ('{"x": 1, "event_time": 1700000000000}', Reason.BAD_TIME),
        ('{"x": 1, "event_time": "soon"}', Reason.BAD_TIME),
        ('{"x": 1, "event_id": 1.5}', Reason.WRONG_TYPE),
        ('{"x": 1, "event_id": "\\ud800"}', Reason.WRONG_TYPE),
        ('{"x": "%s"}' % ("y" * (1 << 20)), Reason.TOO_LARGE),
        ("{" + ",".join(f'"{i}":1' for i in range(5000)) + "}", Reason.TOO_LARGE),
    ],
)
def test_json_that_is_refused(text: str, reason: Reason) -> None:
    assert reason_of(text.encode(errors="surrogatepass")) == reason


@given(frames())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_json_and_arrow_mean_the_same(frame: Frame) -> None:
    event: dict[str, Any] = dict(zip(frame.columns, frame.numbers[0].tolist(), strict=True))
    event |= {name: cells[0] for name, cells in frame.texts.items()}
    event |= {"label": frame.labels()[0], "event_time": float(frame.event_time_s[0])}
    known = [name for name, cell in event.items() if cell is not None]
    if set(known) <= {"label", "event_time"}:
        return
    back = decoded(as_json(**event))
    shown = dict(zip(back.columns, back.numbers[0].tolist(), strict=True))
    np.testing.assert_equal(shown, {name: event[name] for name in frame.columns})
    assert {name: cells[0] for name, cells in back.texts.items()} == {
        name: event[name] for name in frame.texts if event[name] is not None
    }
    assert back.labels() == frame.labels()[:1]
    assert back.event_time_s[0] == frame.event_time_s[0]
