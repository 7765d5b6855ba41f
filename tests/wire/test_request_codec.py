"""Label requests there and back, and what is refused."""

import json

import pytest

from streamlearn.errors import UpdateError
from streamlearn.wire import request_codec
from streamlearn.wire.envelope import PART_BYTES, Role, seal
from streamlearn.wire.request_codec import LabelRequests, Request

ONE = Request("a-17", 1e9 + 0.25, "leak", 0.51, "between leak and ok")
GIVEN = LabelRequests("boiler-7", 12, 3, 40, (ONE, Request("b", 0.0, None, 0.0, "ü"),
                                              Request("", -5.0, 7, 1.0, "")))  # fmt: skip


def test_there_and_back() -> None:
    message = request_codec.encode(GIVEN)
    assert message.key == b"boiler-7"
    assert request_codec.decode(message.value, message.key, message.headers) == GIVEN


def test_any_program_can_read_them() -> None:
    """The bytes of format 1."""
    assert request_codec.encode(LabelRequests("s", 1, 0, 2, (ONE,))).value == (
        b'{"requests":[{"event_id":"a-17","event_time":1000000000.25,"predicted":"leak",'
        b'"probability":0.51,"why":"between leak and ok"}]}'
    )


def test_what_does_not_fit_is_left_out_at_the_end() -> None:
    many = tuple(Request(f"{i}" * 200, 0.0, "x" * 2000, 0.5, "why") for i in range(9999, 0, -1))
    message = request_codec.encode(LabelRequests("s", 1, 0, 2, many))
    assert PART_BYTES - 10_000 < len(message.value or b"") <= PART_BYTES
    back = request_codec.decode(message.value, message.key, message.headers).requests
    assert back == many[: len(back)] and len(back) > 100


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"[]", b"{}", b'{"requests": 5}', b'{"requests": [5]}', b"\xff",
        b'{"requests": [{"event_id": "a"}]}', b"[" * 100_000,
        *(json.dumps({"requests": [{**{"event_id": "a", "event_time": 1.0, "predicted": None,
          "probability": 0.5, "why": ""}, **wrong}]}).encode()
          for wrong in ({"event_id": 5}, {"event_time": "now"}, {"event_time": float("nan")},
                        {"predicted": True}, {"predicted": 0.5}, {"probability": None},
                        {"why": None}, {"more": 1})),
    ],
)  # fmt: skip
def test_a_writer_who_lies_is_refused(payload: bytes) -> None:
    fields = {"subject": "s", "modelversion": "1", "sourcepartition": "0", "sourceoffset": "2"}
    fields |= {"compression": "none", "rawsize": str(len(payload))}
    message = seal(Role.LABEL_REQUESTS, [*fields.items()], [b"s"], [payload], None)[0]
    with pytest.raises(UpdateError):
        request_codec.decode(message.value, message.key, message.headers)


def test_another_topics_message_is_refused() -> None:
    message = request_codec.encode(GIVEN)
    other = [(n, b"streamlearn.prediction" if n == "ce_type" else v) for n, v in message.headers]
    with pytest.raises(UpdateError):
        request_codec.decode(message.value, message.key, other)
