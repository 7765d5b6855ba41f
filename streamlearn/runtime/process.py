"""The process around Faust's app: it ends in time, whatever hangs, and says little.

Without a broker Faust waits for ever when it should stop. So after SIGTERM, or an error that stops
the worker, two clocks run: GIVE_UP_S until nobody waits for the broker any longer, HARD_STOP_S
until the process ends. Nothing is lost by it: what was not acknowledged is learned again.
"""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial

import faust
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from faust.worker import Worker as FaustWorker

from streamlearn.runtime.logs import FAUST, OURS

GIVE_UP_S = 5.0
HARD_STOP_S = 12.0

log = logging.getLogger(OURS)


class Process(FaustWorker):
    """Faust's process: quiet, and sure to end after SIGTERM."""

    def __init__(self, app: faust.App, give_up: threading.Event) -> None:
        super().__init__(app, quiet=True, override_logging=False, redirect_stdouts=False)
        self.spinner = None
        self._give_up = give_up

    def _flag_as_shutdown_by_signal(self) -> None:
        log.info("stopping: last checkpoint")
        threading.excepthook = lambda _: None  # Faust's threads break off when no broker answers
        later(GIVE_UP_S, self._give_up.set)
        later(HARD_STOP_S, partial(hard_stop, "ended without a last checkpoint"))
        super()._flag_as_shutdown_by_signal()

    def _setproctitle(self, info: str, *, ident: str = "") -> None:
        """The command line stays as it is."""


def later(seconds: float, action: Callable[[], None]) -> None:
    """Do something then, unless the process has ended before."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def end_now(why: str) -> None:
    """End, whatever hangs, with `why` as the last word."""
    log.error(why)
    logging.shutdown()
    os._exit(1)


def hard_stop(why: str) -> None:
    """End now: stopping took too long."""
    end_now(
        f"{why}; stopping took longer than {HARD_STOP_S:.0f} s and was cut short: nothing is lost, "
        "the next worker learns the last seconds again"
    )


class Hushed(logging.Filter):
    """Drops Faust's words and tracebacks for errors that have a message of their own."""

    def __init__(self, explained: Callable[[], bool]) -> None:
        super().__init__()
        self._explained = explained

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], KafkaError):
            record.exc_info = None
        return not (self._explained() and record.name.startswith(FAUST))
