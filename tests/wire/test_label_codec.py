"""Late labels: what is read, what is refused, and that passing on changes nothing."""

import contextlib
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.core.records import Reason, Rejection
from streamlearn.errors import FrameError
from streamlearn.wire import dead_letter_codec, event_codec, label_codec

KEY = b"boiler-7"


def arrow(**columns: object) -> bytes:
    batch = pa.RecordBatch.from_pydict(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@given(
    event_id=st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable()),
    label=st.one_of(st.text("ab ü", min_size=1), st.integers(-(1 << 63), (1 << 63) - 1)),
)
def test_one_label_comes_back(event_id: str, label: str | int) -> None:
    message = label_codec.encode("boiler-7", event_id, label)
    assert label_codec.is_labels(message.headers)
    late, rejected = label_codec.decode(message.value, message.key, message.headers)
    assert rejected == ()
    assert (late.stream, late.event_ids, late.labels) == ("boiler-7", (event_id,), (label,))


def test_json_needs_no_headers_and_ids_may_be_numbers() -> None:
    late, _ = label_codec.decode(b'{"event_id": 17, "label": true}', KEY, ())
    assert (late.event_ids, late.labels, late.rows) == (("17",), ("true",), (None,))


def test_arrow_rows_that_are_no_labels_are_left_out() -> None:
    value = arrow(event_id=["a", None, "c", "d"], label=["ok", "ok", None, "bad"])
    late, rejected = label_codec.decode(value, KEY, ())
    assert (late.event_ids, late.labels, late.rows) == (("a", "d"), ("ok", "bad"), (0, 3))
    assert [(r.row, r.reason) for r in rejected] == [
        (1, Reason.UNKNOWN_EVENT),
        (2, Reason.BAD_LABEL),
    ]
    whole = arrow(event_id=[5, 6], label=[1, 2])
    assert label_codec.decode(whole, KEY, ())[0].event_ids == ("5", "6")


@pytest.mark.parametrize("value, reason", [
    (None, Reason.EMPTY_FRAME),
    (b"", Reason.EMPTY_FRAME),
    (b"{", Reason.UNDECODABLE),
    (b"\xff\xff\xff\xff", Reason.UNDECODABLE),
    (b'{"event_id": "a"}', Reason.WRONG_TYPE),
    (b'{"event_id": "a", "label": 1, "temp": 3}', Reason.WRONG_TYPE),
    (b'{"event_id": "a", "label": null}', Reason.BAD_LABEL),
    (b'{"event_id": "a", "label": 1.5}', Reason.BAD_LABEL),
    (b'{"event_id": "", "label": 1}', Reason.UNKNOWN_EVENT),
    (b'{"event_id": [], "label": 1}', Reason.WRONG_TYPE),
    (arrow(event_id=["a"], x=[1.0]), Reason.WRONG_TYPE),
    (arrow(event_id=["a"], label=[0.5]), Reason.BAD_LABEL),
    (arrow(event_id=["a"] * 5000, label=["b"] * 5000), Reason.TOO_LARGE),
])  # fmt: skip
def test_refused(value: bytes | None, reason: Reason) -> None:
    with pytest.raises(FrameError) as refused:
        label_codec.decode(value, KEY, ())
    assert refused.value.reason == reason


def test_without_a_stream_it_is_refused() -> None:
    with pytest.raises(FrameError, match="no key"):
        label_codec.decode(b'{"event_id": "a", "label": 1}', None, ())


def test_refused_before_it_is_sent() -> None:
    with pytest.raises(FrameError):
        label_codec.encode("s", "", "ok")


def test_passed_on_as_it_is() -> None:
    value = arrow(event_id=["a", "b"], label=["ok", "bad"])
    message = label_codec.passed_on(
        value, KEY, (), source="/streamlearn/labels", place="labels.1.7"
    )
    assert (message.key, message.value) == (KEY, value)
    headers = dict(message.headers)
    assert (
        headers["ce_id"] == b"labels.1.7" and headers["content-type"] == event_codec.ARROW.encode()
    )
    assert label_codec.is_labels(message.headers) and not label_codec.is_labels(())
    assert (
        label_codec.decode(message.value, message.key, message.headers)[0]
        == label_codec.decode(value, KEY, ())[0]
    )
    with pytest.raises(FrameError):  # it is no frame, for whoever doesn't know late labels
        event_codec.decode(message.value, message.key, message.headers, 0.0)


def test_rows_are_shown_in_dead_letters() -> None:
    value = arrow(event_id=["a", "b"], label=["ok", "bad"])
    letters = dead_letter_codec.encode(
        [Rejection(Reason.UNKNOWN_EVENT, "nobody remembers it", 1)],
        value, KEY, (), topic="events", partition=0, offset=3,
    )  # fmt: skip
    assert json.loads(letters[0].value or b"") == {"event_id": "b", "label": "bad"}


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(value: bytes) -> None:
    for raw in (value, b'{"event_id":' + value, arrow(event_id=["a"], label=[1])[:-20] + value):
        with contextlib.suppress(FrameError):
            label_codec.decode(raw, KEY, ())
