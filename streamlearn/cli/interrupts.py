"""Signals that end a command in order: each raises KeyboardInterrupt in the main thread.

Ctrl-C, too, gets a handler in Python. The interpreter's own raises a class without an instance,
and Python 3.11 loses that where it falls into a callback of confluent-kafka, whose call then ends
in "SystemError: returned NULL without setting an exception". Other code loses or replaces even
this one: imports drop what is raised in their weak references' callbacks, and a C constructor may
turn it into a TypeError. So a signal is remembered, too, and loops that last ask for it.
"""

import signal
import threading
from types import FrameType

_came = threading.Event()


def interrupt_on(*signals: signal.Signals) -> None:
    """From now on these raise KeyboardInterrupt, but for those that are ignored (nohup, `&`)."""
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def end_at_once_on(*signals: signal.Signals) -> None:
    """From now on these end the process on the spot, but for those that are ignored."""
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def interrupted() -> bool:
    """Whether such a signal has come."""
    return _came.is_set()


def check() -> None:
    """Raise KeyboardInterrupt if one has come: what it raised at the time may have been lost."""
    if _came.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.set()
    raise KeyboardInterrupt
