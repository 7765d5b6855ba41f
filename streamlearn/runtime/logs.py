"""A worker's log: one line a happening on stderr; what repeats is counted, not shown."""

import logging
import time
from collections.abc import Callable
from typing import TextIO

OURS = "streamlearn.worker"
FAUST = ("faust", "mode", "streamlearn.runtime.app")  # Faust logs a subclass under its module
REPEAT_S = 10.0  # the same message is shown once in this time


class RateLimit(logging.Filter):
    """Lets each message of a logger through once in `seconds`, and says how many it kept back.

    With the broker down aiokafka logs 80 errors a second. `clock` is monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._shown: dict[object, tuple[float, int]] = {}  # template to (when shown, kept back)

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        at, kept = self._shown.get(record.msg, (float("-inf"), 0))
        if now - at < self._seconds:
            self._shown[record.msg] = at, kept + 1
            return False
        if len(self._shown) > 500:  # messages that were formatted before they were logged
            self._shown.clear()
        self._shown[record.msg] = now, 0
        if kept:
            record.msg = f"{record.getMessage()} ({kept} more like it)"
            record.args = ()
        return True


def set_up(stream: TextIO, level: int) -> None:
    """Log to `stream`: ours from `level` on, Faust's and aiokafka's from WARNING and ERROR on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%H:%M:%S")
    )
    limit = RateLimit(REPEAT_S)
    handler.addFilter(lambda record: record.name == OURS or limit.filter(record))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level)
    for name in FAUST:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    logging.captureWarnings(True)
