"""Parts come back together in order, or not at all; memory stays bounded whatever comes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.errors import IntegrityError
from streamlearn.wire import envelope
from streamlearn.wire.assembly import PartAssembler
from streamlearn.wire.envelope import Part, Role


def parts(name: str, *, version: int = 1, epoch: int = 1, size: int = 30) -> list[tuple[Part, int]]:
    """Three parts (of a payload that name, version and epoch make), each with its epoch."""
    seed = [ord(letter) for letter in name] + [version, epoch]
    pieces = envelope.split(np.random.default_rng(seed).bytes(size), size // 3)
    fields = [("subject", name), ("epoch", str(epoch)), ("id", f"{version}")]
    messages = envelope.seal(Role.UPDATES, fields, [name.encode()] * 3, list(pieces), None)
    return [
        (envelope.unseal(m.value, m.key, m.headers, role=Role.UPDATES), epoch) for m in messages
    ]


def payload(sent: list[tuple[Part, int]]) -> bytes:
    return b"".join(part.value or b"" for part, _ in sent)


def feed(assembler: PartAssembler, sent: list[tuple[Part, int]]) -> list[bytes]:
    done = (assembler.add(part, epoch=epoch, name=part.subject) for part, epoch in sent)
    return [found for found in done if found is not None]


def test_in_order() -> None:
    a, b = parts("a"), parts("b")
    mixed = [a[0], b[0], b[1], a[1], b[2], a[2]]
    assembler = PartAssembler()
    assert feed(assembler, mixed) == [payload(b), payload(a)]
    assert (assembler.dropped, assembler.open_bytes) == (0, 0)


def test_a_repeated_part_changes_nothing() -> None:
    a = parts("a")
    assert feed(PartAssembler(), [a[0], a[0], a[1], a[0], a[1], a[2]]) != [b""]
    assembler = PartAssembler()
    assert feed(assembler, [a[0], a[1], a[1], a[2]]) == [payload(a)]
    assert assembler.dropped == 1


def test_a_missing_part_drops_the_rest() -> None:
    a, later = parts("a"), parts("a", version=2)
    assembler = PartAssembler()
    assert feed(assembler, [a[0], a[2], *later]) == [payload(later)]
    assert feed(assembler, [a[1], a[2]]) == []
    assert assembler.dropped == 4


def test_the_next_version_replaces_one_that_stopped_halfway() -> None:
    a, later = parts("a"), parts("a", version=2)
    assert feed(PartAssembler(), [a[0], a[1], *later]) == [payload(later)]


def test_an_older_owner_in_between_is_not_heard() -> None:
    old, new = parts("a", epoch=1), parts("a", epoch=2)
    mixed = [old[0], new[0], old[1], new[1], old[2], new[2]]
    assembler = PartAssembler()
    assert feed(assembler, mixed) == [payload(new)]
    assert assembler.dropped == 3


def test_versions_of_one_owner_do_not_mix() -> None:
    a, b = parts("a"), parts("a", version=2)
    assert feed(PartAssembler(), [a[0], b[1], b[2]]) == []
    assert feed(PartAssembler(), [a[0], a[1], b[2]]) == []


def test_memory_is_bounded_in_bytes_and_in_payloads() -> None:
    assembler = PartAssembler(max_open=5, max_bytes=100)
    for number in range(50):
        feed(assembler, parts(f"s{number}")[:2])
        assert assembler.open_bytes <= 100
    assembler = PartAssembler(max_open=5)
    for number in range(50):
        feed(assembler, parts(f"s{number}")[:1])
        assert assembler.open_bytes <= 50
    assert assembler.dropped == 45
    assert feed(PartAssembler(max_bytes=19), parts("a")) == []


def test_parts_that_do_not_make_the_payload() -> None:
    a = parts("a")
    other = (replace(a[1][0], value=bytes(10)), 1)
    with pytest.raises(IntegrityError, match="sealed"):
        feed(PartAssembler(), [a[0], other, a[2]])
    longer = (replace(a[1][0], value=bytes(21)), 1)
    assert feed(PartAssembler(), [a[0], longer, a[2]]) == []


SENT = [
    part
    for name in "ab"
    for epoch in (1, 2)
    for version in (1, 2)
    for part in parts(name, epoch=epoch, version=version)
]
WHOLE = {payload(SENT[at : at + 3]) for at in range(0, len(SENT), 3)}


@given(st.lists(st.sampled_from(SENT), max_size=30))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_nothing_that_nobody_sent_ever_comes_out(sent: list[tuple[Part, int]]) -> None:
    assembler = PartAssembler(max_open=2)
    for found in feed(assembler, sent):
        assert found in WHOLE
    assert assembler.open_bytes <= 2 * 30
