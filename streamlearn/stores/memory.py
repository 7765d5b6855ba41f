"""A store in a dict: for tests, and for what may be forgotten with the process."""

from collections.abc import Iterable, Iterator, Mapping

from streamlearn.errors import StateError


class MemoryStore:
    """Rows in memory. `rows` may be shared, so that a "restart" finds them again.

    >>> store = MemoryStore()
    >>> store.write({b"a/2": b"two", b"a/1": b"one", b"b": b"b"}, deletes=[b"b"])
    >>> list(store.scan(b"a/"))
    [(b'a/1', b'one'), (b'a/2', b'two')]
    """

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self._rows: dict[bytes, bytes] | None = {} if rows is None else rows

    def get(self, key: bytes) -> bytes | None:
        return self._open().get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self._open()
        return iter([(key, rows[key]) for key in sorted(rows) if key.startswith(prefix)])

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        rows = self._open()
        for key in deletes:
            rows.pop(key, None)
        rows.update(puts)

    def close(self) -> None:
        self._rows = None

    def _open(self) -> dict[bytes, bytes]:
        if self._rows is None:
            raise StateError("the store is closed; open it again before using it")
        return self._rows
