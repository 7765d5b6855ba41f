"""Predictions there and back, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from streamlearn.errors import UpdateError
from streamlearn.wire import prediction_codec
from streamlearn.wire.envelope import Role, seal
from streamlearn.wire.prediction_codec import Predictions
from streamlearn.wire.tensors import compress, pack


def predictions(n: int = 3, n_classes: int = 2) -> Predictions:
    rng = np.random.default_rng(n)
    return Predictions(
        stream="boiler-7",
        model_version=41,
        step_events=256,
        source_partition=3,
        source_offset=40,
        probabilities=rng.random((n, n_classes)).astype(np.float32),
        classes=("ok", 7)[:n_classes] if n_classes < 3 else tuple(range(n_classes)),
        event_ids=tuple(f"e{i}" for i in range(n)),
    )


@pytest.mark.parametrize(
    "given",
    [predictions(), predictions(n_classes=0), replace(predictions(), event_ids=())],
    ids=["full", "no classes", "no ids"],
)
def test_there_and_back(given: Predictions) -> None:
    [message] = prediction_codec.encode(given)
    back = prediction_codec.decode(message.value, message.key, message.headers)
    assert back.probabilities.tobytes() == given.probabilities.tobytes()
    empty = np.zeros((0, 0), np.float32)
    assert replace(back, probabilities=empty) != back  # records compare by identity
    for name in Predictions.__slots__:
        if name != "probabilities":
            assert getattr(back, name) == getattr(given, name), name


def test_large_frames_come_in_rows_that_fit() -> None:
    given = predictions(4096, 100)
    messages = prediction_codec.encode(given)
    assert len(messages) > 1 and all(len(m.value or b"") <= 900 * 1024 for m in messages)
    parts = [prediction_codec.decode(m.value, m.key, m.headers) for m in messages]
    assert [p.row for p in parts] == np.cumsum(
        [0, *(len(p.event_ids) for p in parts[:-1])]
    ).tolist()
    joined = np.concatenate([p.probabilities for p in parts])
    np.testing.assert_array_equal(joined, given.probabilities)
    assert sum((p.event_ids for p in parts), ()) == given.event_ids


def test_the_most_probable_label() -> None:
    rows = np.array([[0.2, 0.8], [0.6, 0.4], [0.0, 0.0]], np.float32)
    assert replace(predictions(), probabilities=rows).predicted() == (7, "ok", None)
    assert predictions(n_classes=0).predicted() == (None, None, None)


def test_every_flipped_byte_and_every_truncation_is_refused() -> None:
    [message] = prediction_codec.encode(predictions())
    value = message.value or b""
    for at in range(len(value)):
        flipped = value[:at] + bytes([value[at] ^ 0x40]) + value[at + 1 :]
        for wrong in (flipped, value[:at]):
            with pytest.raises(UpdateError):
                prediction_codec.decode(wrong, message.key, message.headers)


@pytest.mark.parametrize(
    ("tensor", "meta"),
    [
        (np.zeros((2, 1)), {"classes": ["a"], "event_ids": []}),
        (np.zeros(2, np.float32), {"classes": ["a"], "event_ids": []}),
        (np.zeros((2, 2), np.float32), {"classes": ["a"], "event_ids": []}),
        (np.zeros((2, 1), np.float32), {"classes": ["a"], "event_ids": ["e"]}),
        (np.zeros((2, 1), np.float32), {"classes": [0.5], "event_ids": []}),
        (np.zeros((2, 1), np.float32), {"classes": [True], "event_ids": []}),
        (np.zeros((2, 1), np.float32), {"classes": "a", "event_ids": None}),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else str(value.dtype),
)
def test_what_is_sealed_but_does_not_fit_together_is_refused(
    tensor: np.ndarray, meta: dict[str, object]
) -> None:
    raw = pack({"probabilities": tensor}, meta)
    payload, compression = compress(raw)
    fields = [
        *(("subject", "s"), ("modelversion", "1"), ("stepevents", "1"), ("row", "0")),
        *(("sourcepartition", "0"), ("sourceoffset", "0")),
        *(("compression", compression), ("rawsize", str(len(raw)))),
    ]
    [message] = seal(Role.PREDICTIONS, fields, [b"s"], [payload], None)
    with pytest.raises(UpdateError):
        prediction_codec.decode(message.value, message.key, message.headers)


def test_another_topics_message_is_refused() -> None:
    [message] = seal(Role.STATE, [("subject", "s")], [b"s"], [b""], None)
    with pytest.raises(UpdateError, match="belongs"):
        prediction_codec.decode(message.value, message.key, message.headers)
