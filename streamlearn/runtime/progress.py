"""Says how far a long reading of the state topic is, once a second."""

from collections.abc import Callable, Iterator

from streamlearn.runtime.log import Record

EVERY_S = 1.0


class Progress:
    """`say` takes a line; `clock` is monotonic seconds.

    >>> times = iter([0.0, 0.5, 1.5, 1.6])
    >>> progress = Progress(print, clock=lambda: next(times))
    >>> records = (Record(offset, b"", b"", (), 0.0) for offset in (100, 120, 150))
    >>> for record in progress.of(records, "partition 3", 100, 200):
    ...     pass
    partition 3: 1 records of the state topic, 20 %, 2 s
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock

    def of(self, records: Iterator[Record], what: str, start: int, end: int) -> Iterator[Record]:
        """The same records, of [start, end)."""
        begun = said = self._clock()
        for count, record in enumerate(records):
            now = self._clock()
            if now - said >= EVERY_S:
                said = now
                share = (record.offset - start) / (end - start)
                self._say(
                    f"{what}: {count:,} records of the state topic, {100 * share:.0f} %, "
                    f"{now - begun:.0f} s"
                )
            yield record


SILENT = Progress(lambda line: None, lambda: 0.0)
