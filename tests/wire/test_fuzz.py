"""Every decoder, fed with what nobody meant to send: only its own named errors come out.

Valid messages, changed at random; for sealed ones also behind the seal, as a writer who lies
would. Derandomised: the same inputs on every run. A crash of the interpreter fails the run too.
"""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Histogram

from streamlearn.core.learner import LearnerState
from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.records import IMAGE_SIDE, Reason, Rejection
from streamlearn.core.update import apply, diff
from streamlearn.errors import FormatError, FrameError, StateError, UpdateError
from streamlearn.wire import (
    dead_letter_codec,
    envelope,
    event_codec,
    image_codec,
    label_codec,
    marker_codec,
    metrics_codec,
    model_codec,
    prediction_codec,
    request_codec,
    state_codec,
    update_codec,
)
from streamlearn.wire import tensors as tensor_bytes
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.envelope import Role
from streamlearn.wire.event_rules import RefusedError
from tests.wire.pictures import JPEG, PNG, file_of, slope

EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter
SLOW = SlowWeights({"a": np.arange(6, dtype=np.float32)})
NUMBERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1, 10**9)


def model(version: int) -> Model:
    tensors: dict[str, Any] = {"w": np.eye(20, 3) * version, "v": np.arange(3) + version}
    return Model("s", version, {"format": 1, "classes": ["a", 1]}, tensors, SLOW)


def arrow(columns: dict[str, Any], **options: Any) -> bytes:
    batch = pa.RecordBatch.from_pydict(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("events", "Events.", ["stream"], registry=found).labels("a").inc(5)
    Histogram("seconds", "Seconds.", buckets=(0.5, 1.0), registry=found).observe(0.7)
    return found


@dataclass(frozen=True)
class Target:
    """A decoder, valid inputs for it, and the errors that it may raise."""

    decode: Callable[[bytes], object]
    valid: tuple[bytes, ...]
    errors: tuple[type[Exception], ...]

    def take(self, value: bytes) -> None:
        """Other errors than the named ones fail the test."""
        message = "fine"
        try:
            self.decode(value)
        except self.errors as error:
            message = str(error)
        assert 0 < len(message) < 4000, "an error says what is wrong, in bounds"


# --- what is fuzzed ----------------------------------------------------------------------------

RICH = {
    "f": pa.array([1.0, None, 3.0]),
    "i": pa.array([1, 2, 3], pa.int16()),
    "half": pa.array([1, 2, 3], pa.float16()),
    "yes": pa.array([True, None, False]),
    "text": pa.array(["a", None, "ccc"]),
    "view": pa.array(["a" * 20, None, "b"], pa.string_view()),
    "dictionary": pa.array(["x", "y", "x"]).dictionary_encode(),
    "decimal": pa.array([1, 2, None], pa.decimal128(20, 2)),
    "time": pa.array([1, 2, None], pa.timestamp("ns", "Europe/Berlin")),
    "image": pa.array([JPEG, None, b"bad"]),
    "label": pa.array([1.0, float("nan"), None]),
    "event_time": pa.array([1, 2, None], pa.timestamp("ms")),
    "event_id": ["a", None, "c"],
}
EVENT = json.dumps(
    {"x": 1.5, "t": "ü", "on": True, "n": None, "label": 3, "event_time": "1970-01-01T00:00:00Z"}
).encode()


def decode_event(value: bytes) -> None:
    frame, rejections = event_codec.decode(value, b"s", [], 5.0)
    n = len(frame)
    assert n >= 1 and frame.numbers.shape == (n, len(frame.columns)) and len(rejections) <= 4096
    assert not np.isinf(frame.numbers).any() and np.isfinite(frame.event_time_s).all()
    assert all(len(cells) == n for cells in frame.texts.values())
    for image in frame.images.values():
        assert len(image.raw) == len(image.present) == n
        assert image.pixels.shape == (n, IMAGE_SIDE, IMAGE_SIDE)
        assert [raw is not None for raw in image.raw] == image.present.tolist()
        assert not image.pixels[~image.present].any()
    assert frame.label_codes.min() >= -1 and frame.label_codes.max() < len(frame.label_values)
    shown = frame.label_codes[frame.label_codes >= 0].tolist()
    assert list(dict.fromkeys(shown)) == list(range(len(frame.label_values)))
    for cells in frame.texts.values():
        "".join(cell or "" for cell in cells).encode()


def decode_dead_rows(value: bytes) -> None:
    rejections = [Rejection(Reason.BAD_LABEL, "", row) for row in (0, 2)]
    for message in dead_letter_codec.encode(
        rejections, value, b"s", [], topic="t", partition=0, offset=0
    ):
        letter = dead_letter_codec.decode(message.value, message.key, message.headers)
        json.loads(letter.value or b"")


def relied(message: Message, value: bytes) -> Message:
    """`value` in a message whose seal fits it: only a writer who lies makes such a one."""
    headers = {n: v for n, v in message.headers if n != "ce_digest"}
    headers["ce_size"] = str(len(value)).encode()
    headers["ce_payloadhash"] = hashlib.sha256(value).hexdigest().encode()
    digest = envelope._digest(headers, message.key, value)
    sealed = [*headers.items(), ("ce_digest", digest.hex().encode())]
    return Message(message.key, value, sealed)


SAID: dict[str, Any] = {"epoch": 3, "source_partition": 2, "source_offset": 41}
FULL = update_codec.encode(diff(None, model(1)), **SAID)[0]
DELTA = update_codec.encode(diff(model(1), model(2)), **SAID)[0]
SLOW_MESSAGE = update_codec.encode_slow(SLOW)[0]


def raw_of(message: Message) -> bytes:
    fields = dict(message.headers)
    size = int(fields["ce_rawsize"])
    return tensor_bytes.decompress(message.value or b"", fields["ce_compression"].decode(), size)


def decode_update(message: Message, role: Role = Role.UPDATES) -> None:
    assembler = update_codec.Assembler()
    chunk = update_codec.decode(message.value, message.key, message.headers, role=role)
    received = assembler.add(chunk)
    if received is not None and received.update is not None:
        base = model(1) if received.update.base_hash else None
        held = apply(base, received.update, SLOW)
        assert held.hash in (model(1).hash, model(2).hash), "a wrong model"


def behind_the_seal(message: Message, role: Role = Role.UPDATES) -> Callable[[bytes], None]:
    def decode(raw: bytes) -> None:
        said = [(n, v) for n, v in message.headers if n not in ("ce_rawsize", "ce_compression")]
        said += [("ce_rawsize", str(len(raw)).encode()), ("ce_compression", b"none")]
        decode_update(relied(message._replace(headers=said), raw), role)

    return decode


def headers_as_bytes(message: Message) -> bytes:
    return b"\0".join(name.encode() + b"=" + text for name, text in message.headers)


def with_headers(message: Message) -> Callable[[bytes], None]:
    def decode(value: bytes) -> None:
        pairs = [line.partition(b"=") for line in value.split(b"\0")]
        headers = [(name.decode(errors="replace"), text) for name, _, text in pairs]
        relied_on = relied(message._replace(headers=headers), message.value or b"")
        decode_update(message._replace(headers=headers))
        decode_update(relied_on)

    return decode


def with_lying_headers(message: Message) -> Callable[[bytes], None]:
    def decode(value: bytes) -> None:
        pairs = [line.partition(b"=") for line in value.split(b"\0")]
        headers = {name.decode(errors="replace"): text for name, _, text in pairs}
        headers.pop("ce_digest", None)
        digest = envelope._digest(headers, message.key, message.value)
        sealed = [*headers.items(), ("ce_digest", digest.hex().encode())]
        decode_update(message._replace(headers=sealed))

    return decode


STATE = state_codec.encode(
    state_codec.StoredState("s", 3, 41, LearnerState({"a": 1}, {"x": np.arange(9.0)}))
)
MARKER = marker_codec.PartitionMarker(1, 2, 3, "id", 0.5)
STATE_MESSAGE = state_codec.seal_state(STATE, stream="s", slot=0)[0]


def decode_state_record(value: bytes) -> None:
    message = relied(STATE_MESSAGE, value)
    record = state_codec.StateReader().add(message.value, message.key, message.headers)
    assert isinstance(record, state_codec.StateBlob)
    state_codec.decode(record.blob, stream="s")


STATE_BODY = tensor_bytes.pack(
    {"float64": np.arange(9.0), "int8": np.arange(4, dtype=np.int8)},
    {
        "stream": "s",
        "meta": {"a": 1},
        "layout": {"float64": [["x", [3, 2]], ["y", [3]]], "int8": [["z", [4]]]},
    },
)


def decode_lying_state(body: bytes) -> None:
    head = struct.pack("<4sHHqqQQ", b"SLST", 2, 0, 3, 41, len(body), len(body))
    blob = head + hashlib.sha256(head + body).digest() + body
    arrays = state_codec.decode(blob, stream="s").state.arrays
    assert sum(array.nbytes for array in arrays.values()) <= len(body)


REQUESTS = request_codec.encode(
    request_codec.LabelRequests(
        "s", 7, 0, 41, (request_codec.Request("a-1", 5.5, "ok", 0.5, "between ok and ü"),) * 2
    )
)


def decode_requests(value: bytes) -> None:
    message = relied(REQUESTS, value)
    said = request_codec.decode(message.value, message.key, message.headers)
    assert all(isinstance(one.event_id, str) for one in said.requests)


def unpack(value: bytes) -> None:
    arrays, meta = tensor_bytes.unpack(value)
    assert isinstance(meta, dict)
    assert sum(array.nbytes for array in arrays.values()) <= len(value)


def read_image(value: bytes) -> None:
    picture = image_codec.read(value)
    assert picture.pixels.shape == (IMAGE_SIDE, IMAGE_SIDE) and picture.pixels.dtype == np.uint8


COLOUR = np.dstack([slope(9, 14), slope(9, 14)[::-1], slope(9, 14)[:, ::-1]])
PNGS = (
    PNG,
    file_of(Image.fromarray(COLOUR).quantize(7), transparency=3, exif=EXIF),
    file_of(slope(9, 14).astype(np.uint16) * 257, transparency=77),
    file_of(Image.fromarray(COLOUR), save_all=True, append_images=[Image.fromarray(COLOUR // 2)]),
)
JPEGS = (
    file_of(COLOUR, "JPEG", exif=EXIF),
    file_of(COLOUR, "JPEG", progressive=True),
    file_of(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
)
MARKER_TEXT = marker_codec.encode(MARKER)[38:]
AMENDED_TEXT = marker_codec.encode(replace(MARKER, floor=7, moved_epoch=8, moved_offset=9))[38:]


def decode_lying_marker(text: bytes) -> None:
    head = marker_codec.encode(MARKER)[:6]
    marker = marker_codec.decode(head + hashlib.sha256(text).digest() + text)
    assert marker_codec.decode(marker_codec.encode(marker)) == marker


PREDICTIONS_MESSAGE = next(
    iter(
        prediction_codec.encode(
            prediction_codec.Predictions(
                stream="s",
                model_version=3,
                step_events=2,
                source_partition=1,
                source_offset=9,
                probabilities=np.full((2, 2), 0.5, np.float32),
                classes=("a", "b"),
                event_ids=("x", "y"),
            )
        )
    )
)


def decode_lying_predictions(value: bytes) -> None:
    message = relied(PREDICTIONS_MESSAGE, value)
    prediction_codec.decode(message.value, message.key, message.headers)


def decode_labels(value: bytes) -> None:
    label_codec.decode(value, b"s", [("content-type", b"application/json")])


COMPRESSED = arrow(RICH, compression="zstd"), arrow(RICH, compression="lz4")
UPDATE, STATES = (UpdateError,), (StateError,)
RAW = raw_of(FULL), raw_of(DELTA)
TARGETS = {
    "arrow": Target(
        decode_event, (arrow(RICH), arrow({"x": [1.0], "label": ["a"]})), (FrameError,)
    ),
    "arrow, compressed": Target(decode_event, COMPRESSED, (FrameError,)),
    "png": Target(read_image, PNGS, (RefusedError,)),
    "jpeg": Target(read_image, JPEGS, (RefusedError,)),
    "json": Target(decode_event, (EVENT, b'{"x":1}'), (FrameError,)),
    "dead rows": Target(decode_dead_rows, (arrow(RICH),), ()),
    "update": Target(
        lambda value: decode_update(FULL._replace(value=value)), (FULL.value or b"",), UPDATE
    ),
    "update, behind the seal": Target(behind_the_seal(FULL), RAW, UPDATE),
    "delta, behind the seal": Target(behind_the_seal(DELTA), RAW[::-1], UPDATE),
    "slow, behind the seal": Target(
        behind_the_seal(SLOW_MESSAGE, Role.SLOW), (raw_of(SLOW_MESSAGE),), UPDATE
    ),
    "packed": Target(
        lambda value: decode_update(relied(FULL, value)), (FULL.value or b"",), UPDATE
    ),
    "headers": Target(with_headers(DELTA), (headers_as_bytes(DELTA),), UPDATE),
    "headers that lie": Target(with_lying_headers(DELTA), (headers_as_bytes(DELTA),), UPDATE),
    "safetensors": Target(unpack, RAW, (FormatError,)),
    "state": Target(lambda value: state_codec.decode(value, stream="s"), (STATE,), STATES),
    "state, behind the hash": Target(decode_lying_state, (STATE_BODY,), STATES),
    "state record": Target(decode_state_record, (STATE,), STATES),
    "marker": Target(marker_codec.decode, (marker_codec.encode(MARKER),), STATES),
    "marker, behind the hash": Target(decode_lying_marker, (MARKER_TEXT, AMENDED_TEXT), STATES),
    "predictions, behind the seal": Target(
        decode_lying_predictions, (PREDICTIONS_MESSAGE.value or b"",), UPDATE
    ),
    "labels": Target(decode_labels, (b'{"event_id": "a-17", "label": "ok"}',), (FrameError,)),
    "model file": Target(model_codec.decode, (model_codec.encode(model(1), {"n": 1}),), UPDATE),
    "label requests": Target(decode_requests, (REQUESTS.value or b"",), UPDATE),
    "metrics": Target(
        metrics_codec.decode, (metrics_codec.to_text(registry()),), (FormatError,)
    ),
}  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, valid: tuple[bytes, ...]) -> bytes:
    """A valid message with up to four bits, numbers, pieces or ends of it changed."""
    value = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(value) - 1)))
        match draw(st.sampled_from(("bit", "byte", "number", "cut", "insert", "repeat"))):
            case "bit" if value:
                value[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if value:
                value[at] = draw(st.integers(0, 255))
            case "number":
                size = draw(st.sampled_from((1, 2, 4, 8)))
                number = draw(st.sampled_from(NUMBERS)) % (1 << 8 * size)
                value[at : at + size] = number.to_bytes(size, "little")
            case "cut":
                del value[at : at + draw(st.integers(1, 64))]
            case "insert":
                value[at:at] = draw(st.binary(max_size=9))
            case "repeat":
                value[at:at] = value[at : at + draw(st.integers(1, 64))]
    return bytes(value)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_messages(name: str) -> None:
    target = TARGETS[name]

    @given(st.one_of(*[changed(target.valid)] * 4, st.binary(max_size=200)))
    @settings(
        max_examples=150,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def fuzz(value: bytes) -> None:
        target.take(value)

    fuzz()


@pytest.mark.parametrize("name", TARGETS)
def test_messages_cut_off_at_every_byte(name: str) -> None:
    target = TARGETS[name]
    for valid in target.valid:
        for size in range(0, len(valid), 1 + len(valid) // 1500):
            target.take(valid[:size])


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_messages_are_valid(name: str) -> None:
    target = TARGETS[name]
    if name != "headers":  # decodes each twice, once with a seal that does not cover the headers
        target.decode(target.valid[0])
