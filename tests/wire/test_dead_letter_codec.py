"""Dead letters: what was refused can be found again, as it came, with its reason."""

import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from streamlearn.core.records import Reason, Rejection
from streamlearn.errors import FormatError, FrameError
from streamlearn.wire import dead_letter_codec, event_codec
from streamlearn.wire.dead_letter_codec import DeadLetter

PLACE: dict[str, Any] = {"topic": "events", "partition": 3, "offset": 44}


def arrow(columns: dict[str, Any]) -> bytes:
    batch = pa.RecordBatch.from_pydict(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def letters(rejections: list[Rejection], value: bytes | None, **more: Any) -> list[DeadLetter]:
    headers = more.get("headers", [])
    messages = dead_letter_codec.encode(rejections, value, b"s", headers, **PLACE)
    return [dead_letter_codec.decode(m.value, m.key, m.headers) for m in messages]


def test_a_whole_message_is_kept_as_it_came() -> None:
    value, headers = b'{"x": 1', [("content-type", b"application/json")]
    with pytest.raises(FrameError) as caught:
        event_codec.decode(value, b"s", headers, 0.0)
    rejection = dead_letter_codec.of_frame(caught.value)
    assert letters([rejection], value, headers=headers) == [
        DeadLetter(
            reason=Reason.UNDECODABLE,
            detail=rejection.detail,
            key=b"s",
            value=value,
            content_type="application/json",
            topic="events",
            partition=3,
            offset=44,
            row=None,
            cut_from=None,
        )
    ]


def test_rows_are_kept_as_json() -> None:
    value = arrow(
        {
            "x": [1.5, math.inf, 2.0],
            "town": pa.array(["Köln", None, "x"]).dictionary_encode(),
            "picture": [b"\x89PNG\r\n\x1a\n", b"GIF", None],
            "cost": [Decimal("1.5"), Decimal(2), None],
            "at": pa.array([1, 1 << 62, None], pa.timestamp("s")),
            "took": pa.array([1500, 2, None], pa.duration("ms")),
            "label": [math.nan, 1.0, 0.5],
        }
    )
    _, rejections = event_codec.decode(
        arrow({"x": [0.0] * 4, "label": [math.nan, 1, 0.5, 1]}), b"s", [], 0.0
    )
    assert [rejection.row for rejection in rejections] == [0, 2]
    first, third = letters(list(rejections), value)
    assert json.loads(first.value or b"") == {
        "x": 1.5,
        "town": "Köln",
        "picture": "iVBORw0KGgo=",
        "cost": "1.5",
        "at": "1970-01-01T00:00:01",
        "took": 1.5,
        "label": "NaN",
    }
    assert (first.row, first.reason, first.content_type) == (
        0,
        Reason.BAD_LABEL,
        "application/json",
    )
    assert json.loads(third.value or b"")["label"] == 0.5
    (second,) = letters([Rejection(Reason.BAD_IMAGE, "GIF", 1)], value)
    assert json.loads(second.value or b"")["x"] == "Infinity"


def test_what_is_too_long_is_cut_off_and_says_so() -> None:
    (letter,) = letters([Rejection(Reason.TOO_LARGE, "x" * 5000)], bytes(1 << 20))
    assert letter.value == bytes(900 * 1024)
    assert letter.cut_from == 1 << 20
    assert letter.detail == "x" * 1000


@pytest.mark.parametrize("value", [None, b"", b"garbage", arrow({"x": [1.0]})])
def test_it_never_fails_on_account_of_the_message(value: bytes | None) -> None:
    rejections = [Rejection(Reason.BAD_LABEL, "\ud800", 7), Rejection(Reason.EMPTY_FRAME, "")]
    row, whole = letters(rejections, value, headers=[("content-type", None), ("x", b"\xff")])
    assert row.value == b"{}"
    assert whole.value == value


def test_ids_are_unique() -> None:
    rejections = [Rejection(Reason.BAD_LABEL, "", row) for row in range(3)]
    messages = dead_letter_codec.encode(rejections, b"", b"s", [], **PLACE)
    assert len({dict(message.headers)["ce_id"] for message in messages}) == 3


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_type", b"other")],
        [("ce_type", b"streamlearn.deadletter"), ("ce_reason", b"bad mood")],
        [("ce_type", b"\xff")],
    ],
)
def test_what_is_no_dead_letter(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(FormatError):
        dead_letter_codec.decode(b"", b"s", headers)
