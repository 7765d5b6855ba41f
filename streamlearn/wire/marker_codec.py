"""A partition's marker: what the states of all its streams together cover.

    0  4s   magic b"SLMK"
    4  H    format version 1, little-endian
    6  32s  sha256 over the rest
   38  JSON {"epoch", "covered_offset", "source_partition", "source_topic_id", "written_s"}, and,
       after a worker was told to start over or to go on, "floor", "moved_epoch", "moved_offset"

The same on disk and on the topic, where state_codec sends it. Each later marker says the last
three again, so whoever reads the topic late knows them, whatever was compacted meanwhile.
"""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from typing import get_type_hints

from streamlearn.errors import StateError

_HEAD = struct.Struct("<4sH32s")
_MAGIC, _VERSION = b"SLMK", 1
_REMEDY = "remove the state directory to restore from the state topic"
_SELDOM = {"floor": 0, "moved_epoch": 0, "moved_offset": -1}  # left out where they are as here


@dataclass(frozen=True, slots=True)
class PartitionMarker:
    """Up to `covered_offset`, the partition's streams can be rebuilt from their states."""

    epoch: int
    covered_offset: int  # -1: nothing yet
    source_partition: int
    source_topic_id: str  # Kafka's id of the events topic: a recreated topic has another one
    written_s: float  # wall clock
    floor: int = 0  # states of epochs before it are void: the partition was started over
    moved_epoch: int = 0  # states of epochs before it cover offsets of a log that is gone; of this
    moved_offset: int = -1  # one they cover what is up to here: it was made anew, or cut short


_TYPES = get_type_hints(PartitionMarker)


def encode(marker: PartitionMarker) -> bytes:
    """A marker as bytes."""
    said = asdict(marker)
    for name, usual in _SELDOM.items():
        if said[name] == usual:
            del said[name]
    text = json.dumps(said, sort_keys=True, allow_nan=False).encode()
    return _HEAD.pack(_MAGIC, _VERSION, hashlib.sha256(text).digest()) + text


def decode(value: bytes) -> PartitionMarker:
    """A marker from bytes; StateError where they are not whole and unchanged."""
    if len(value) < _HEAD.size or not value.startswith(_MAGIC):
        raise StateError(f"the partition's marker is not one; {_REMEDY}")
    _, version, claimed = _HEAD.unpack_from(value)
    if version != _VERSION:
        raise StateError(f"the partition's marker has version {version}: upgrade streamlearn")
    text = value[_HEAD.size :]
    if hashlib.sha256(text).digest() != claimed:
        raise StateError(f"the partition's marker is corrupt: sha256 does not fit; {_REMEDY}")
    try:
        said = json.loads(text)
        for name, value in said.items():
            if type(value) is not _TYPES[name]:
                raise TypeError(f"{name} is {value!r:.40}")
        return PartitionMarker(**said)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError(f"the partition's marker is corrupt: {error!r:.200}; {_REMEDY}") from error
