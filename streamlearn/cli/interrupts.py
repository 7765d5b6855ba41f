"""Signals that end a command in order: each raises KeyboardInterrupt in the main thread.

Ctrl-C, too, gets a handler in Python. The interpreter's own raises a class without an instance,
and Python 3.11 loses that where it falls into a callback of confluent-kafka, whose call then ends
in "SystemError: returned NULL without setting an exception".
"""

import signal
from types import FrameType


def interrupt_on(*signals: signal.Signals) -> None:
    """From now on these raise KeyboardInterrupt, but for those that are ignored (nohup, `&`)."""
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
