"""Formats as they were first written: later programs must read these bytes to the same values.

`golden/*.json` holds Kafka records: key and value in base64, headers as text. They are never
written again; `python tests/wire/test_golden.py` adds those that are missing.
"""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from prometheus_client import CollectorRegistry, Counter

from streamlearn.core.learner import LearnerState
from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.records import Frame, Reason, Rejection
from streamlearn.core.update import apply, diff
from streamlearn.wire import (
    dead_letter_codec,
    event_codec,
    image_codec,
    marker_codec,
    metrics_codec,
    state_codec,
    update_codec,
)
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.signing import Signer, Verifier
from streamlearn.wire.update_codec import Kind, Received, Role, UpdateHeader
from tests.wire.pictures import JPEG, PNG, slope

GOLDEN = Path(__file__).parent / "golden"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))  # known to all: for tests only
SIGNER = Signer(
    KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), scope="golden."
)
VERIFIER = Verifier(
    KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), scope="golden."
)

FRAME = Frame(
    stream="boiler-7",
    columns=("temp", "pressure"),
    numbers=np.array([[20.5, math.nan], [21.25, -3e30], [0.1, 7.0]]),
    label_codes=np.array([0, -1, 1], np.int32),
    label_values=("ok", "lärm"),
    event_time_s=np.array([1.7e9, 1.7e9 + 0.1, 1.7e9 + 0.25]),
    event_ids=("a", "", "c"),
    texts={"note": ("grün", None, "")},
    images={"photo": image_codec.column_of([image_codec.read(PNG), None, image_codec.read(JPEG)])},
)
SLOW = SlowWeights({"a": np.arange(12, dtype=np.float32).reshape(3, 4)})
SAID: dict[str, Any] = {
    "epoch": 3,
    "source_partition": 2,
    "source_offset": 41,
    "newest_event_s": 1.7e9 + 0.25,
    "newest_record_s": 1.7e9 + 0.5,
    "sent_s": 1.7e9 + 0.75,
    "signer": SIGNER,
}
HEARTBEAT = UpdateHeader(kind=Kind.HEARTBEAT, epoch=4, source_partition=2, sent_s=2.5)
STATE = state_codec.StoredState(
    "boiler-7", 3, 41, LearnerState({"n": 1, "z": [math.inf], "a": "ü"}, {"x": np.arange(5.0)})
)
MARKER = marker_codec.PartitionMarker(4, 99, 2, "Zk3", 1.75)


def model(version: int) -> Model:
    tensors: dict[str, Any] = {
        "ridge/a/100": np.arange(60, dtype=np.float32).reshape(20, 3),
        "pool/weights": np.arange(4) / 7 + version,
        "n": np.array(version),
    }
    tensors["ridge/a/100"][version] = np.float32(version) / 3
    return Model("boiler-7", version, {"format": 1, "classes": ["ok", 1]}, tensors, SLOW)


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("events", "Events.", ["stream"], registry=found).labels("boiler-7").inc(5)
    return found


def frame() -> list[Message]:
    value, headers = event_codec.encode(FRAME)
    return [Message(FRAME.stream.encode(), value, headers)]


def state() -> list[Message]:
    blob = state_codec.encode(STATE)
    return state_codec.seal_state(blob, stream="boiler-7", slot=1, part_bytes=300, signer=SIGNER)


WRITERS: dict[str, Callable[[], list[Message]]] = {
    "frame": frame,
    "frame-images": frame,
    "update-full": lambda: update_codec.encode(diff(None, model(1)), **SAID),
    "update-delta": lambda: update_codec.encode(diff(model(1), model(2)), **SAID),
    "snapshot": lambda: update_codec.encode_model(model(2), slot=1, part_bytes=300, **SAID),
    "slow": lambda: update_codec.encode_slow(SLOW, epoch=1, signer=SIGNER),
    "heartbeat": lambda: [update_codec.encode_control(HEARTBEAT, signer=SIGNER)],
    "state": state,
    "state-v2": state,  # many arrays as few
    "state-marker": lambda: [state_codec.seal_marker(MARKER, signer=SIGNER)],
    "metrics": lambda: [metrics_codec.encode(registry(), worker="w-1", written_s=2.5)],
    "dead-letter": lambda: dead_letter_codec.encode(
        [Rejection(Reason.BAD_LABEL, "label nan", 2)],
        frame()[0].value,
        b"boiler-7",
        [],
        topic="events",
        partition=3,
        offset=44,
    ),
}


def path(name: str) -> Path:
    return GOLDEN / f"{name if name.endswith('-v2') else name + '-v1'}.json"


def stored(name: str) -> list[Message]:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else base64.b64decode(text)

    return [
        Message(
            raw(record["key"]),
            raw(record["value"]),
            [(header, text.encode()) for header, text in record["headers"]],
        )
        for record in json.loads(path(name).read_text("utf-8"))
    ]


def as_json(messages: list[Message]) -> str:
    def text(raw: bytes | None) -> str | None:
        return None if raw is None else base64.b64encode(raw).decode()

    records = [
        {
            "key": text(message.key),
            "value": text(message.value),
            "headers": [[name, value.decode()] for name, value in message.headers],
        }
        for message in messages
    ]
    return json.dumps(records, indent=1, ensure_ascii=False) + "\n"


def update_of(name: str, role: Role = Role.UPDATES) -> Received:
    assembler = update_codec.Assembler()
    for key, value, headers in stored(name):
        chunk = update_codec.decode(value, key, headers, role=role, verifier=VERIFIER)
        received = assembler.add(chunk)
    assert received is not None
    return received


def test_frame() -> None:
    """Its images were never more than first bytes, which was enough before images were read."""
    ((key, value, headers),) = stored("frame")
    back, rejections = event_codec.decode(value, key, headers, 0.0)
    assert [(r.row, r.reason) for r in rejections] == [(0, "bad_image"), (2, "bad_image")]
    np.testing.assert_array_equal(back.numbers, FRAME.numbers[1:2])
    assert (back.columns, back.labels()) == (FRAME.columns, (None,))
    assert (back.event_ids, back.texts) == (("",), {"note": (None,)})


def test_frame_with_images() -> None:
    ((key, value, headers),) = stored("frame-images")
    back, rejections = event_codec.decode(value, key, headers, 0.0)
    assert rejections == ()
    np.testing.assert_array_equal(back.numbers, FRAME.numbers)
    np.testing.assert_array_equal(back.event_time_s, FRAME.event_time_s)
    assert (back.columns, back.labels()) == (FRAME.columns, FRAME.labels())
    assert (back.event_ids, back.texts) == (FRAME.event_ids, FRAME.texts)
    photo = back.images["photo"]
    assert photo.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(photo.pixels[0], slope())
    off = photo.pixels[2].astype(int) - slope()  # a slope, shrunk, is a slope
    assert abs(off).max() <= 5, "JPEG decoders may differ by a level or two"


def test_full_update_then_delta() -> None:
    header, update, _ = update_of("update-full")
    assert update is not None
    assert (header.kind, header.stream, header.version) == (Kind.FULL, "boiler-7", 1)
    assert (header.epoch, header.source_partition, header.source_offset) == (3, 2, 41)
    assert header.newest_event_s == SAID["newest_event_s"]
    assert header.newest_record_s == SAID["newest_record_s"]
    assert header.sent_s == SAID["sent_s"]
    one = apply(None, update, SLOW)
    assert one.hash == model(1).hash
    header, update, _ = update_of("update-delta")
    assert update is not None and set(update.changed_rows) == {"ridge/a/100"}
    assert apply(one, update, SLOW).hash == model(2).hash


def test_hashes_are_what_they_were() -> None:
    """A model's hash is part of the format: subscribers of all versions compute it."""
    assert update_of("update-full").header.result_hash == model(1).hash
    assert update_of("update-full").header.slow_hash == SLOW.hash


def test_snapshot_in_parts() -> None:
    assert len(stored("snapshot")) > 1
    header, update, _ = update_of("snapshot", Role.SNAPSHOTS)
    assert update is not None and header.kind is Kind.SNAPSHOT
    assert apply(None, update, SLOW).hash == model(2).hash


def test_slow_weights() -> None:
    slow = update_of("slow", Role.SLOW).slow
    assert slow is not None and slow.hash == SLOW.hash


def test_heartbeat() -> None:
    assert repr(update_of("heartbeat").header) == repr(HEARTBEAT)


@pytest.mark.parametrize("written", ["state", "state-v2"])
def test_state_and_marker(written: str) -> None:
    reader = state_codec.StateReader(verifier=VERIFIER)
    records = [
        reader.add(value, key, headers)
        for name in (written, "state-marker")
        for key, value, headers in stored(name)
    ]
    blob, marker = (record for record in records if record is not None)
    assert marker == MARKER
    assert isinstance(blob, state_codec.StateBlob)
    assert (blob.stream, blob.epoch, blob.source_offset, blob.slot) == ("boiler-7", 3, 41, 1)
    back = state_codec.decode(blob.blob, stream="boiler-7")
    assert dict(back.state.meta) == dict(STATE.state.meta)
    np.testing.assert_array_equal(back.state.arrays["x"], STATE.state.arrays["x"])


def test_metrics() -> None:
    samples = metrics_codec.decode(stored("metrics")[0].value)
    assert samples[0] == metrics_codec.Sample(
        "events", "counter", "events_total", {"stream": "boiler-7"}, 5.0
    )


def test_dead_letter() -> None:
    ((key, value, headers),) = stored("dead-letter")
    letter = dead_letter_codec.decode(value, key, headers)
    assert (letter.reason, letter.row, letter.offset) == (Reason.BAD_LABEL, 2, 44)
    assert json.loads(letter.value or b"")["temp"] == 0.1


VOLATILE = (  # follow from compressed or serialised bytes, which libraries may write differently
    "ce_size",
    "ce_rawsize",
    "ce_payloadhash",
    "ce_digest",
    "ce_signature",
    "ce_parts",
)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_today_has_the_same_headers(name: str) -> None:
    today, then = WRITERS[name]()[0], stored(name)[0]
    assert today.key == then.key
    assert [n for n, _ in today.headers] == [n for n, _ in then.headers]
    skip = (*VOLATILE, "ce_id") if name in ("frame", "frame-images", "metrics") else VOLATILE
    for (header, text), (_, before) in zip(today.headers, then.headers, strict=True):
        if header not in skip:
            assert (header, text) == (header, before)


def test_our_own_layouts_are_the_same_to_the_byte() -> None:
    assert marker_codec.encode(MARKER) == stored("state-marker")[0].value
    heartbeat = update_codec.encode_control(HEARTBEAT, signer=SIGNER)
    assert heartbeat == stored("heartbeat")[0], "seal and signature included"


if __name__ == "__main__":
    for missing in (name for name in WRITERS if not path(name).exists()):
        path(missing).write_text(as_json(WRITERS[missing]()), "utf-8")
