"""State: bit for bit what was stored, or a StateError that names what is wrong."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from streamlearn.core.learner import LearnerState, StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import FormatError, StateError
from streamlearn.wire import marker_codec, state_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.flat import unflatten
from streamlearn.wire.signing import Signer, Verifier, generate_keys
from streamlearn.wire.state_codec import (
    Forgotten,
    PartitionMarker,
    StateBlob,
    StateReader,
    StoredState,
)

PRIVATE, PUBLIC = generate_keys()
MARKER = PartitionMarker(
    epoch=4, covered_offset=99, source_partition=2, source_topic_id="Zk3", written_s=1.75
)


def state(*, stream: str = "büro", epoch: int = 3, offset: int = 41, n: int = 400) -> StoredState:
    rng = np.random.default_rng(n)
    arrays: dict[str, Any] = {"gram": rng.standard_normal(n), "empty": np.zeros((0, 3), np.float32)}
    meta = {"n": 7, "inf": math.inf, "nested": [1, "ü", None, {"a": 0.1}]}
    return StoredState(stream, epoch, offset, LearnerState(meta, arrays))


def same(a: StoredState, b: StoredState) -> None:
    assert (a.stream, a.epoch, a.source_offset) == (b.stream, b.epoch, b.source_offset)
    assert json.dumps(dict(a.state.meta)) == json.dumps(dict(b.state.meta)), "and in their order"
    assert set(a.state.arrays) == set(b.state.arrays)
    for name, array in a.state.arrays.items():
        other = b.state.arrays[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        assert array.tobytes() == other.tobytes()


def read(messages: list[Message], reader: StateReader | None = None) -> list[Any]:
    reader = reader or StateReader()
    found = (reader.add(message.value, message.key, message.headers) for message in messages)
    return [record for record in found if record is not None]


dtypes = st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.uint8, np.uint64, bool])
shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
any_array = dtypes.flatmap(lambda dtype: arrays(dtype, shapes))
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.text(max_size=4), any_array, max_size=4),
    st.dictionaries(st.text(max_size=4), any_json, max_size=4),
    st.integers(0, (1 << 62)),
    st.integers(-1, (1 << 62)),
)
@settings(max_examples=80, derandomize=True, deadline=None)
def test_what_is_stored_comes_back(
    arrays_: dict[str, Any], meta: dict[str, Any], epoch: int, offset: int
) -> None:
    arrays_.pop("__metadata__", None)
    stored = StoredState("s", epoch, offset, LearnerState(meta, arrays_))
    blob = state_codec.encode(stored)
    same(state_codec.decode(blob, stream="s"), stored)
    assert state_codec.covers(blob) == (epoch, offset)


def test_a_learner_goes_on_from_its_stored_state() -> None:
    settings_ = LearnerSettings(random_features=8, step_events=16)
    rng = np.random.default_rng(1)

    def frame() -> Frame:
        x = rng.standard_normal((48, 3))
        codes = (x[:, 0] > 0).astype(np.int32)
        return Frame("s", ("a", "b", "c"), x, codes, ("lo", "hi"), np.arange(48.0))

    learner = StreamLearner("s", settings_)
    for _ in range(3):
        learner.learn(frame())
    blob = state_codec.encode(StoredState("s", 1, 2, learner.state()))
    restored = StreamLearner.restore(state_codec.decode(blob, stream="s").state, settings_)
    for _ in range(3):
        later = frame()
        learner.learn(later)
        restored.learn(later)
    assert restored.model().hash == learner.model().hash


@pytest.mark.parametrize("dense", [True, False])
def test_only_what_shrinks_is_compressed(dense: bool) -> None:
    gram = np.random.default_rng(1).standard_normal(50_000) if dense else np.zeros(50_000)
    stored = StoredState("s", 1, 2, LearnerState({}, {"gram": gram}))
    blob = state_codec.encode(stored)
    assert (len(blob) > gram.nbytes) == dense
    same(state_codec.decode(blob, stream="s"), stored)


def test_every_truncation_and_flipped_bit_is_noticed() -> None:
    blob = state_codec.encode(state(n=20))
    for size in range(len(blob)):
        with pytest.raises(StateError):
            state_codec.decode(blob[:size], stream="büro")
    for at in range(len(blob)):
        flipped = blob[:at] + bytes([blob[at] ^ 1 << at % 8]) + blob[at + 1 :]
        with pytest.raises(StateError, match="büro"):
            state_codec.decode(flipped, stream="büro")
    with pytest.raises(StateError):
        state_codec.decode(blob + b"\0", stream="büro")


def test_errors_name_what_is_wrong() -> None:
    blob = state_codec.encode(state())
    for stream, changed, says in (
        ("other", blob, "belongs to 'büro'"),
        ("büro", b"XXXX" + blob[4:], "starts with b'XXXX'"),
        ("büro", blob[:4] + b"\x03" + blob[5:], "format version 3.*upgrade"),
        ("büro", blob[:-1] + b"\xff", "sha256"),
        ("büro", blob[:-1], "of its body"),
        ("büro", b"", "cut off after 0 bytes"),
    ):
        with pytest.raises(StateError, match=says):
            state_codec.decode(changed, stream=stream)


@pytest.mark.parametrize(
    "layout",
    [
        None,
        {},
        {"float64": [["x", [3]]]},  # too few values
        {"float64": [["x", [5]]]},  # too many
        {"float64": [["x", [-4]]]},
        {"float64": [["x", [0, 1 << 70]], ["y", [4]]]},
        {"float64": [["x", [4.0]]]},
        {"float64": [["x", [2]], ["x", [2]]]},  # twice
        {"float64": [["x"]]},
        {"float64": 4},
        {"float64": [["x", [4]]], "int8": []},
        {"float64": [["x", [1] * 70 + [4]]]},  # more axes than NumPy has
    ],
)
def test_a_layout_that_does_not_fit_is_refused(layout: Any) -> None:
    with pytest.raises(FormatError, match="no layout"):
        unflatten({"float64": np.arange(4.0)}, layout)


def test_what_cannot_be_written_is_a_state_error() -> None:
    for broken in (
        LearnerState({}, {"x": np.array([object()])}),
        LearnerState({"x": object()}, {}),
        LearnerState({"x": {1, 2}}, {}),
    ):
        with pytest.raises(StateError, match="cannot be written"):
            state_codec.encode(StoredState("s", 1, 2, broken))


# --- the topic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part_bytes", [900 * 1024, 1000])
@pytest.mark.parametrize("offset", [-1, 0, 41])
def test_through_the_topic(part_bytes: int, offset: int) -> None:
    blob = state_codec.encode(state(offset=offset))
    signer = Signer(PRIVATE)
    messages = state_codec.seal_state(
        blob, stream="büro", slot=1, signer=signer, part_bytes=part_bytes
    )
    assert all(len(message.value or b"") <= part_bytes for message in messages)
    reader = StateReader(verifier=Verifier(PUBLIC))
    assert read(messages, reader) == [StateBlob("büro", 3, offset, 1, blob)]


def test_keys_tell_streams_epochs_slots_and_parts_apart() -> None:
    keys = [
        message.key
        for stream in ("a", "a3", "marker")
        for epoch in (3, 33)
        for slot in (0, 1)
        for message in state_codec.seal_state(
            state_codec.encode(state(stream=stream, epoch=epoch)),
            stream=stream,
            slot=slot,
            part_bytes=1000,
        )
    ]
    keys += [state_codec.seal_marker(replace(MARKER, epoch=epoch)).key for epoch in (3, 33)]
    assert len(set(keys)) == len(keys)
    about = [state_codec.stream_and_epoch(key or b"") for key in keys]
    assert set(about) == {(s, e) for s in ("a", "a3", "marker", "") for e in (3, 33)}


@pytest.mark.parametrize("key", [b"", b"s", b"s\0x", b"\0marker\0", b"\xff\0001", b"\0x\0001"])
def test_keys_that_are_none(key: bytes) -> None:
    with pytest.raises(StateError, match="no key of the state topic"):
        state_codec.stream_and_epoch(key)


def test_a_checkpoint_that_stopped_halfway_leaves_the_one_before() -> None:
    before, later = (state_codec.encode(state(offset=offset)) for offset in (41, 55))
    whole = state_codec.seal_state(before, stream="büro", slot=0, part_bytes=1000)
    half = state_codec.seal_state(later, stream="büro", slot=1, part_bytes=1000)[:-1]
    assert not {message.key for message in whole} & {message.key for message in half}
    assert [record.source_offset for record in read([*whole, *half])] == [41]


def test_an_older_epoch_that_writes_late_is_told_apart() -> None:
    old, new = (state_codec.encode(state(epoch=epoch)) for epoch in (1, 2))
    first, second = (
        state_codec.seal_state(blob, stream="büro", slot=0, part_bytes=1000) for blob in (old, new)
    )
    mixed = [message for pair in zip(first, second, strict=True) for message in pair]
    assert {record.epoch: record.blob for record in read(mixed)} == {1: old, 2: new}


def test_markers_and_tombstones() -> None:
    assert marker_codec.decode(marker_codec.encode(MARKER)) == MARKER
    amended = replace(MARKER, floor=3, moved_epoch=2, moved_offset=40)
    assert marker_codec.decode(marker_codec.encode(amended)) == amended
    assert read([state_codec.seal_marker(MARKER), state_codec.seal_marker(amended)]) == [
        MARKER,
        amended,
    ]
    tombstones = state_codec.seal_tombstones([b"s\x003", b"s\x004"])
    assert read(tombstones) == [Forgotten(b"s\x003"), Forgotten(b"s\x004")]
    assert all(message.value is None for message in tombstones)


def test_every_truncation_and_flipped_bit_of_a_marker_is_noticed() -> None:
    value = marker_codec.encode(MARKER)
    for at in range(len(value)):
        flipped = value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
        for changed in (value[:at], flipped):
            with pytest.raises(StateError, match="marker"):
                marker_codec.decode(changed)


def test_records_that_are_not_ours_are_state_errors() -> None:
    reader = StateReader(verifier=Verifier(PUBLIC))
    unsigned = state_codec.seal_marker(MARKER)
    for message in (unsigned, Message(b"k", b"v", []), Message(None, None, [])):
        with pytest.raises(StateError, match="state topic's record"):
            reader.add(message.value, message.key, message.headers)
