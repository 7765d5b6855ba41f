"""The newest epoch that subscribers may have heard of, where the state topic no longer tells."""

from streamlearn.errors import UpdateError
from streamlearn.runtime.log import Log
from streamlearn.topics import Topics
from streamlearn.wire import update_codec
from streamlearn.wire.signing import Verifier
from streamlearn.wire.update_codec import Role

LAST = 1000  # records of updates: the newest epochs are at their end


def newest_epoch(log: Log, topics: Topics, partition: int, verifier: Verifier | None) -> int:
    """Of what was published in this partition; 0 if nothing was, or it cannot be trusted."""
    newest = 0
    for name, role, last in (("snapshots", Role.SNAPSHOTS, None), ("updates", Role.UPDATES, LAST)):
        topic = topics[name].full_name
        low, high = log.watermarks(topic, partition)
        start = low if last is None else max(low, high - last)
        for record in log.read(topic, partition, start, high):
            try:
                header = update_codec.decode(
                    record.value, record.key, record.headers, role=role, verifier=verifier
                ).header
            except UpdateError:
                continue  # others' bytes
            newest = max(newest, header.epoch)
    return newest
