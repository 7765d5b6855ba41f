"""What a store is: rows of bytes under keys of bytes, ordered by key, written all or nothing.

`memory` and `rocksdb` keep to it, and `tests/contract` holds both to the same suite. What the
bytes mean is known in `wire`; when they are written, in `runtime`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol


class Store(Protocol):
    """Rows of one partition. Used from one thread."""

    def get(self, key: bytes) -> bytes | None:
        """The row's value, None where there is none."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, ascending; as they were when the scan began."""

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Deletes, then puts, in one step: after a crash either all or none of it is there."""

    def close(self) -> None:
        """Give the files back; reading or writing afterwards raises StateError."""
