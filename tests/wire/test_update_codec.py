"""Updates on the wire: exact round trips; whatever was changed on the way ends as a named error."""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard

from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.update import Update, apply, diff
from streamlearn.errors import ConfigError, ForeignError, FormatError, IntegrityError, UpdateError
from streamlearn.wire import envelope, update_codec, update_header
from streamlearn.wire import tensors as tensor_bytes
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.signing import Signer, Verifier, generate_keys
from streamlearn.wire.update_codec import Assembler, Kind, Received, Role, UpdateHeader

RNG = np.random.default_rng(5)
SLOW = SlowWeights({"a": RNG.standard_normal((8, 4)).astype(np.float32)})
MANIFEST = {"format": 1, "classes": ["ä", 1], "windows": [100.0, math.inf]}
PRIVATE, PUBLIC = generate_keys()
SIGNER, VERIFIER = Signer(PRIVATE, scope="here."), Verifier(PUBLIC, scope="here.")


def model(version: int, *, stream: str = "büro/7", rows: int = 40) -> Model:
    rng = np.random.default_rng(version)
    w = np.zeros((rows, 6), np.float32)
    w[version % rows] = rng.standard_normal(6)
    tensors: dict[str, Any] = {
        "ridge/a/100": rng.standard_normal((rows, 3)),
        "w": w,
        "n": np.array(version),
    }
    return Model(stream, version, MANIFEST, tensors, SLOW)


def said(**more: Any) -> dict[str, Any]:
    return {"epoch": 3, "source_partition": 2, "source_offset": 41} | more


def received(
    messages: Sequence[Message],
    role: Role = Role.UPDATES,
    verifier: Verifier | None = None,
    assembler: Assembler | None = None,
) -> Received:
    assembler = assembler or Assembler()
    out = None
    for message in messages:
        assert out is None, "complete before its last part"
        chunk = update_codec.decode(
            message.value, message.key, message.headers, role=role, verifier=verifier
        )
        out = assembler.add(chunk)
    assert out is not None
    return out


def with_header(message: Message, name: str, value: bytes | None) -> Message:
    headers = [(n, v) for n, v in message.headers if n != name]
    return message._replace(headers=headers if value is None else [*headers, (name, value)])


def resealed(message: Message, **fields: str | None) -> Message:
    """A message whose writer lies consistently: changed fields or value, and a fitting digest."""
    texts = {n: v.decode() for n, v in message.headers if n not in ("ce_digest", "ce_signature")}
    value = message.value or b""
    changed = {
        "ce_size": str(len(value)),
        "ce_payloadhash": hashlib.sha256(value).hexdigest(),
    } | {f"ce_{name}": text for name, text in fields.items()}
    headers = {n: t.encode() for n, t in (texts | changed).items() if t is not None}
    digest = envelope._digest(headers, message.key, message.value)
    return message._replace(headers=[*headers.items(), ("ce_digest", digest.hex().encode())])


# --- round trips -------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", [None, SIGNER])
@pytest.mark.parametrize("part_bytes", [900 * 1024, 500])
def test_full_then_delta(signer: Signer | None, part_bytes: int) -> None:
    one, two = model(1), model(2)
    full = update_codec.encode(
        diff(None, one),
        **said(newest_event_s=0.1, newest_record_s=1.7e9, sent_s=1.7e9 + 0.25),
        signer=signer,
        part_bytes=part_bytes,
    )
    verifier = VERIFIER if signer else None
    header, update, slow = received(full, verifier=verifier)
    assert slow is None and update is not None
    assert header == UpdateHeader(
        kind=Kind.FULL,
        stream="büro/7",
        version=1,
        result_hash=one.hash,
        slow_hash=SLOW.hash,
        newest_event_s=0.1,
        newest_record_s=1.7e9,
        sent_s=1.7e9 + 0.25,
        **said(),
    )
    held = apply(None, update, SLOW)
    assert held.hash == one.hash
    for name, tensor in held.tensors.items():
        assert tensor.flags.aligned and not tensor.flags.writeable
        assert tensor.dtype == one.tensors[name].dtype

    delta = update_codec.encode(diff(one, two), **said(), signer=signer, part_bytes=part_bytes)
    header, update, _ = received(delta, verifier=verifier)
    assert update is not None and set(update.changed_rows) == {"w"} and update.manifest is None
    assert (header.kind, header.base_version, header.base_hash) == (Kind.DELTA, 1, one.hash)
    assert math.isnan(header.newest_event_s) and math.isnan(header.sent_s)
    assert apply(held, update, SLOW).hash == two.hash


def test_the_same_update_makes_the_same_bytes() -> None:
    update = diff(model(1), model(2))
    for signer in (None, SIGNER):
        first, second = (update_codec.encode(update, **said(), signer=signer) for _ in range(2))
        assert first == second


def test_messages_are_at_most_900_kib_and_keys_are_the_stream() -> None:
    messages = update_codec.encode(diff(None, model(1, rows=60_000)), **said())
    assert len(messages) > 1
    assert all(len(message.value or b"") <= 900 * 1024 for message in messages)
    assert {message.key for message in messages} == {"büro/7".encode()}
    assert len({dict(message.headers)["ce_id"] for message in messages}) == len(messages)


def test_header_names_are_cloud_events_extensions() -> None:
    messages = update_codec.encode(diff(model(1), model(2)), **said(sent_s=1.0), signer=SIGNER)
    messages += [update_codec.encode_control(UpdateHeader(kind=Kind.HEARTBEAT, epoch=1))]
    for name, _ in [header for message in messages for header in message.headers]:
        if name != "content-type":
            attribute = name.removeprefix("ce_")
            assert attribute != name and attribute.isascii() and attribute.isalnum()
            assert attribute == attribute.lower() and len(attribute) <= 20
            documented = f"| {attribute} " in str(update_header.__doc__)
            assert documented or f"ce_{attribute}" in str(envelope.__doc__)


@pytest.mark.parametrize("part_bytes", [900 * 1024, 400])
def test_snapshots_come_back_as_full_updates(part_bytes: int) -> None:
    messages = update_codec.encode_model(model(4), **said(), slot=1, part_bytes=part_bytes)
    header, update, _ = received(messages, Role.SNAPSHOTS)
    assert header.kind is Kind.SNAPSHOT and update is not None
    assert apply(None, update, SLOW).hash == model(4).hash
    assert len({message.key for message in messages}) == len(messages)


def test_parts_of_a_compacted_topic_have_keys_of_their_own() -> None:
    keys = [
        message.key
        for slot in (0, 1)
        for message in update_codec.encode_model(model(4), **said(), slot=slot, part_bytes=400)
    ]
    assert keys[0] == "büro/7".encode()
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("part_bytes", [900 * 1024, 50])
def test_slow_weights(part_bytes: int) -> None:
    messages = update_codec.encode_slow(SLOW, epoch=2, signer=SIGNER, part_bytes=part_bytes)
    _, update, slow = received(messages, Role.SLOW, VERIFIER)
    assert update is None and slow is not None and slow.hash == SLOW.hash
    assert messages[0].key == SLOW.hash.encode()


@pytest.mark.parametrize(
    ("header", "role"),
    [
        (UpdateHeader(kind=Kind.HEARTBEAT, epoch=4, source_offset=7, sent_s=2.5), Role.UPDATES),
        (UpdateHeader(kind=Kind.HEARTBEAT, epoch=4, stream="s", version=9), Role.UPDATES),
        (UpdateHeader(kind=Kind.TOMBSTONE, epoch=4, stream="s", version=9), Role.UPDATES),
        (UpdateHeader(kind=Kind.TOMBSTONE, epoch=4, stream="s", version=9), Role.SNAPSHOTS),
        (UpdateHeader(kind=Kind.MARKER, epoch=4, updates_offset=0), Role.SNAPSHOTS),
    ],
)
def test_messages_without_values(header: UpdateHeader, role: Role) -> None:
    message = update_codec.encode_control(header, role=role, signer=SIGNER)
    found, update, slow = received([message], role, VERIFIER)
    assert (update, slow) == (None, None)
    assert repr(found) == repr(header)  # NaN is not equal to itself
    assert (message.value is None) == (role is Role.SNAPSHOTS and header.kind is Kind.TOMBSTONE)


def test_what_does_not_belong_on_a_topic_is_not_made() -> None:
    for kind, role in ((Kind.MARKER, Role.UPDATES), (Kind.FULL, Role.UPDATES)):
        with pytest.raises(FormatError):
            update_codec.encode_control(UpdateHeader(kind=kind, epoch=1), role=role)


# --- signatures --------------------------------------------------------------------------------


def signed() -> Message:
    return update_codec.encode(diff(model(1), model(2)), **said(), signer=SIGNER)[0]


def test_who_has_a_key_takes_only_what_was_signed_with_it_for_this_scope() -> None:
    update = diff(model(1), model(2))
    stranger = Signer(generate_keys()[0], scope="here.")
    elsewhere = Signer(PRIVATE, scope="there.")
    for signer in (None, stranger, elsewhere):
        messages = update_codec.encode(update, **said(), signer=signer)
        with pytest.raises(ForeignError):
            received(messages, verifier=VERIFIER)
    both = Verifier([generate_keys()[1], PUBLIC], scope="here.")
    assert received([signed()], verifier=both).update is not None


def test_a_signed_message_is_taken_for_nothing_else() -> None:
    message = signed()
    other_key = message._replace(key=b"another stream")
    other_stream = with_header(message, "ce_subject", b"another stream")
    other_role = with_header(message, "ce_type", Role.SNAPSHOTS.encode())
    newer = with_header(message, "ce_epoch", b"99")
    for changed in (other_key, other_stream, other_role, newer):
        with pytest.raises(IntegrityError):
            received([changed], verifier=VERIFIER)
    with pytest.raises(ForeignError, match=r"streamlearn\.snapshot"):
        received([message], Role.SNAPSHOTS, VERIFIER)


def test_a_tombstone_of_one_topic_is_none_of_another() -> None:
    header = UpdateHeader(kind=Kind.TOMBSTONE, epoch=4, stream="s", version=9)
    message = update_codec.encode_control(header, signer=SIGNER)
    assert received([message], verifier=VERIFIER).header.kind is Kind.TOMBSTONE
    with pytest.raises(ForeignError, match=r"where a 'streamlearn\.snapshot' belongs"):
        received([message], Role.SNAPSHOTS, VERIFIER)


def test_a_forged_digest_does_not_help() -> None:
    forged = resealed(signed(), epoch="99")
    forged = with_header(forged, "ce_signature", dict(signed().headers)["ce_signature"])
    with pytest.raises(IntegrityError, match="signature"):
        received([forged], verifier=VERIFIER)
    assert received([forged]).header.epoch == 99, "without a key nobody can tell"


def test_signatures_come_before_decompression(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was inflated")

    monkeypatch.setattr(tensor_bytes, "decompress", refuse)
    stranger = update_codec.encode(
        diff(None, model(1)), **said(), signer=Signer(generate_keys()[0])
    )
    with pytest.raises(IntegrityError):
        received(stranger, verifier=VERIFIER)


@pytest.mark.parametrize("pem", [b"", b"no pem", PUBLIC])
def test_a_bad_signing_key_is_a_configuration_error(pem: bytes) -> None:
    with pytest.raises(ConfigError):
        Signer(pem)


@pytest.mark.parametrize("pems", [b"", b"no pem", PRIVATE, []])
def test_a_bad_verification_key_is_a_configuration_error(pems: Any) -> None:
    with pytest.raises(ConfigError):
        Verifier(pems)


# --- changed on the way ------------------------------------------------------------------------


@pytest.mark.parametrize("verifier", [None, VERIFIER])
def test_every_flipped_bit_is_noticed(verifier: Verifier | None) -> None:
    message = signed()
    value, key = message.value or b"", message.key or b""
    for at in range(len(value)):
        flipped = value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
        with pytest.raises(IntegrityError):
            received([message._replace(value=flipped)], verifier=verifier)
    for at in range(len(key)):
        flipped = key[:at] + bytes([key[at] ^ 1 << at % 8]) + key[at + 1 :]
        with pytest.raises(IntegrityError):
            received([message._replace(key=flipped)], verifier=verifier)
    for index, (name, text) in enumerate(message.headers):
        if verifier is None and name == "ce_signature":
            continue  # nobody looks at it
        for at in range(len(text)):
            flipped = text[:at] + bytes([text[at] ^ 1 << at % 7]) + text[at + 1 :]
            headers = [*message.headers]
            headers[index] = (name, flipped)
            with pytest.raises(UpdateError):
                received([message._replace(headers=headers)], verifier=verifier)


def test_every_truncation_and_missing_header_is_noticed() -> None:
    message = signed()
    value = message.value or b""
    for size in range(len(value)):
        with pytest.raises(IntegrityError):
            received([message._replace(value=value[:size])])
    for name, _ in message.headers:
        with pytest.raises(UpdateError):
            received([with_header(message, name, None)], verifier=VERIFIER)
    with pytest.raises(UpdateError):
        received([message._replace(value=None)])
    with pytest.raises(UpdateError):
        received([message._replace(key=None)])


def test_a_header_twice_or_null_is_refused() -> None:
    message = signed()
    for extra in (("ce_epoch", b"3"), ("ce_extra", None)):
        headers: Any = [*message.headers, extra]
        with pytest.raises(UpdateError):
            received([message._replace(headers=headers)])


def test_headers_of_others_are_ignored() -> None:
    message = with_header(signed(), "traceparent", b"00-ab-cd-01")
    assert received([message], verifier=VERIFIER).update is not None


def test_a_newer_format_says_to_upgrade() -> None:
    newer = with_header(signed(), "ce_formatversion", b"2")
    with pytest.raises(FormatError, match=r"unknown format version 2.*upgrade streamlearn"):
        received([newer], verifier=VERIFIER)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "everything"},
        {"kind": "heartbeat"},
        {"kind": "snapshot"},
        {"kind": "full"},
        {"epoch": "-1"},
        {"epoch": "1.5"},
        {"epoch": "٣"},
        {"epoch": str(1 << 63)},
        {"epoch": "9" * 5000},
        {"modelversion": None},
        {"baseversion": None},
        {"basehash": "0" * 63},
        {"basehash": "G" * 64},
        {"resulthash": None},
        {"slowhash": None},
        {"subject": None},
        {"subject": "a\0b"},
        {"subject": "x" * 600},
        {"time": "now"},
        {"time": "2024-01-01T00:00:00"},
        {"newestevent": "soon"},
        {"newestevent": "inf"},
        {"sourceoffset": "x"},
        {"rawsize": None},
        {"rawsize": "12"},
        {"rawsize": str(1 << 40)},
        {"compression": None},
        {"compression": "none"},
        {"compression": "gzip"},
        {"size": "7"},
        {"size": str(1 << 40)},
        {"part": "1"},
        {"parts": "0"},
        {"parts": str(1 << 40)},
        {"payloadhash": "0" * 64},
    ],
    ids=str,
)
def test_a_writer_that_lies_is_refused(fields: dict[str, str | None]) -> None:
    message = update_codec.encode(diff(model(1), model(2)), **said())[0]
    assert received([resealed(message)]).update is not None
    with pytest.raises(UpdateError):
        received([resealed(message, **fields)])


def test_a_first_part_that_announces_too_much_is_refused() -> None:
    first = update_codec.encode(diff(None, model(1)), **said(), part_bytes=500)[0]
    assert Assembler().add(update_codec.decode(first.value, first.key, first.headers)) is None
    greedy = with_header(first, "ce_size", str(1 << 40).encode())
    texts = {n: v for n, v in greedy.headers if n != "ce_digest"}
    digest = envelope._digest(texts, greedy.key, greedy.value).hex().encode()
    greedy = greedy._replace(headers=[*texts.items(), ("ce_digest", digest)])
    with pytest.raises(FormatError, match="announced"):
        received([greedy])


# --- payloads that lie -------------------------------------------------------------------------


def full_with(payload: bytes, *, raw_size: int, compression: str = "none") -> Message:
    message = update_codec.encode(diff(None, model(1)), **said())[0]._replace(value=payload)
    return resealed(message, compression=compression, rawsize=str(raw_size))


def raw_full() -> bytes:
    _, part = update_codec.decode(
        *(lambda m: (m.value, m.key, m.headers))(
            update_codec.encode(diff(None, model(1)), **said())[0]
        )
    )
    return zstandard.ZstdDecompressor().decompress(part.value or b"")


def test_a_zstd_bomb_is_not_inflated() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(200 << 20))
    assert len(bomb) < 100_000
    for announced in (200 << 20, 1000):
        with pytest.raises(FormatError):
            received([full_with(bomb, raw_size=announced, compression="zstd")])


def test_a_zstd_frame_that_hides_its_size_is_not_inflated() -> None:
    codec = zstandard.ZstdCompressor(level=1, write_content_size=False)
    hidden = codec.compress(bytes(200 << 20))
    with pytest.raises(FormatError, match="announced"):
        received([full_with(hidden, raw_size=1000, compression="zstd")])


def test_two_zstd_frames_in_one_are_refused() -> None:
    frame = zstandard.ZstdCompressor().compress(raw_full())
    good = full_with(frame, raw_size=len(raw_full()), compression="zstd")
    assert received([good]).update is not None
    with pytest.raises(FormatError):
        received([full_with(frame * 2, raw_size=len(raw_full()), compression="zstd")])


def test_a_wide_zstd_window_is_refused() -> None:
    params = zstandard.ZstdCompressionParameters(window_log=27, format=zstandard.FORMAT_ZSTD1)
    data = np.random.default_rng(0).bytes(9 << 20)
    frame = zstandard.ZstdCompressor(compression_params=params).compress(data)
    assert zstandard.get_frame_parameters(frame).window_size > 8 << 20
    with pytest.raises(FormatError, match="window"):
        tensor_bytes.decompress(frame, "zstd", len(data))


def safetensors_of(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


META = b'"__metadata__":{"streamlearn":"{\\"manifest\\":{},\\"removed\\":[]}"}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 9 << 20) + b" " * (9 << 20),
        safetensors_of(b"{}"),
        safetensors_of(b"null"),
        safetensors_of(b'{"__metadata__":{"streamlearn":"[]"}}'),
        safetensors_of(b'{"__metadata__":{"streamlearn":"%s"}}' % (b"[" * 100_000)),
        safetensors_of(b'{"__metadata__":{"streamlearn":"{}"}}'),
        safetensors_of(b"{" + META + b"}", b"too much"),
        *(
            safetensors_of(
                b'{"=a":{"dtype":%s,"shape":%s,"data_offsets":%s},' % entry + META + b"}", b"1234"
            )
            for entry in (
                (b'"F32"', b"[-1]", b"[0,4]"),
                (b'"F32"', b"[2]", b"[0,4]"),
                (b'"F32"', b"[1]", b"[0,8]"),
                (b'"F32"', b"[1]", b"[4,0]"),
                (b'"F32"', b"[1.5]", b"[0,4]"),
                (b'"F32"', b"[9223372036854775808,9223372036854775808]", b"[0,4]"),
                (b'"F32"', b"[0,9223372036854775807,2]", b"[0,4]"),
                (b'"F32"', b"[1,1,1,1,1,1,1,1,1]", b"[0,4]"),
                (b'"C64"', b"[1]", b"[0,4]"),
                (b'"BF16"', b"[2]", b"[0,4]"),
                (b'"F8_E4M3"', b"[4]", b"[0,4]"),
                (b'"object"', b"[1]", b"[0,4]"),
            )
        ),
        safetensors_of(
            b'{"=a":{"dtype":"F32","shape":[0,4611686018427387904,2],"data_offsets":[0,0]},'
            + META
            + b"}"
        ),
        safetensors_of(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' + META + b"}", b"1234"
        ),
        safetensors_of(
            b'{"#a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},' + META + b"}", b"1234"
        ),
    ],
    ids=range(25),
)  # fmt: skip
def test_safetensors_that_lie_are_refused(raw: bytes) -> None:
    with pytest.raises(FormatError):
        received([full_with(raw, raw_size=len(raw))])


def test_what_safetensors_takes_but_the_model_does_not() -> None:
    update = diff(None, model(1))
    changes: tuple[dict[str, Any], ...] = (
        {"changed": {**update.changed, "n": np.array(2)}},
        {"result_hash": "0" * 64},
        {"manifest": {**MANIFEST, "classes": []}},
    )
    for change in changes:
        wrong: Update = replace(update, **change)
        found = received(update_codec.encode(wrong, **said())).update
        assert found is not None
        with pytest.raises(IntegrityError):
            apply(None, found, SLOW)


def test_slow_weights_under_another_hash_are_refused() -> None:
    message = update_codec.encode_slow(SLOW)[0]
    with pytest.raises(IntegrityError):
        received([resealed(message, slowhash="0" * 64)], Role.SLOW)


@pytest.mark.parametrize(
    "tensor",
    [
        np.array([1j]),
        np.array(["text"]),
        np.array([object()]),
        np.zeros((1,) * 9),
        np.zeros(3, ">f4"),
        np.zeros(3, "M8[s]"),
    ],
    ids=lambda t: str(t.dtype),
)
def test_tensors_that_cannot_be_sent(tensor: Any) -> None:
    with pytest.raises(FormatError):
        tensor_bytes.pack({"x": tensor}, {})


def test_tensors_need_not_lie_densely() -> None:
    tensors = {"t": np.arange(12.0).reshape(3, 4).T, "step": np.arange(9)[::2], "0": np.array(3.0)}
    back, _ = tensor_bytes.unpack(tensor_bytes.pack(tensors, {}))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
        assert back[name].shape == tensor.shape
