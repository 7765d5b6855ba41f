"""A stream's newest state, read from the state topic by whoever wants to look: no worker needed.

What a worker reads when it takes a partition over (`state_log`), for one stream and without a
store: what older epochs wrote after a newer one's claim is void, and of the rest the highest
(epoch, offset) counts. As old as the last checkpoint.
"""

from streamlearn.errors import InputError
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Written
from streamlearn.wire import state_codec
from streamlearn.wire.marker_codec import PartitionMarker
from streamlearn.wire.state_codec import StateBlob, StateReader, StoredState


def newest_state(log: Log, topic: str, partition: int, stream: str) -> StoredState:
    """StateError where it is corrupt, InputError where the topic has none yet."""
    reader, fence = StateReader(), 0
    newest: bytes | None = None
    low, end = log.watermarks(topic, partition)
    for record in log.read(topic, partition, low, end):
        name, epoch = state_codec.stream_and_epoch(record.key or b"")
        if name not in ("", stream) or record.value is None:
            continue
        found = reader.add(record.value, record.key, record.headers)
        if isinstance(found, PartitionMarker):
            fence = max(fence, found.epoch)
        elif isinstance(found, StateBlob) and epoch >= fence and _newer(found.blob, newest):
            newest = found.blob
    if newest is None:
        raise InputError(
            f"{topic} has no state of {stream!r} yet: a worker writes one with each checkpoint "
            "(worker.checkpoint_interval_s)"
        )
    return state_codec.decode(newest, stream=stream)


def _newer(blob: bytes, than: bytes | None) -> bool:
    return than is None or Written.of(than) < Written.of(blob)
