"""Messages that are of no use to a subscriber: which kind, counted, and said once a second.

Whoever floods a topic shall neither end a subscriber nor flood its log.
"""

import logging
from collections.abc import Callable

from streamlearn.errors import ForeignError, IntegrityError, SizeError
from streamlearn.runtime.replica import Outcome, Replica

WARN_EVERY_S = 1.0

logger = logging.getLogger(__name__)


def kind_of(error: Exception) -> Outcome:
    """What is wrong with a message that could not be decoded.

    >>> kind_of(SizeError("a zstd bomb"))
    <Outcome.OVERSIZED: 'oversized'>
    """
    if isinstance(error, ForeignError):
        return Outcome.FOREIGN
    if isinstance(error, IntegrityError):
        return Outcome.CORRUPT
    return Outcome.OVERSIZED if isinstance(error, SizeError) else Outcome.MALFORMED


class Unusable:
    """For the reading thread; `clock` is monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float]) -> None:
        self.foreign: str | None = None  # the newest message that was refused as nobody's, and why
        self._replica = replica
        self._clock = clock
        self._warn_at_s, self._unsaid = clock(), 0

    def take(self, error: Exception, place: str, stream: str | None) -> None:
        """A message at `place`, for `stream` if its key says so, was not usable."""
        outcome, what = kind_of(error), f"{place}: {error}"
        if outcome is Outcome.FOREIGN:
            self._replica.offer_foreign()
            self.foreign = what
        else:
            self._replica.offer_unusable(outcome, stream)
        self._unsaid += 1
        if self._clock() >= self._warn_at_s:
            self._warn_at_s = self._clock() + WARN_EVERY_S
            logger.warning("%d messages were not usable; the last: %s", self._unsaid, what)
            self._unsaid = 0
