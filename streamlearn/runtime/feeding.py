"""Frames from a file to the feeder, at a pace.

Pure but for the feeder: clock and sleep come in. Three paces: as fast as the broker takes it; so
many events a second; or as the events' own times are apart.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from streamlearn.core.records import Frame
from streamlearn.errors import InputError


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast to feed. Both unset: as fast as the broker takes it."""

    events_per_s: float | None = None
    realtime: bool = False  # as far apart as the event times are

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """From "max", "realtime", "200/s" or "200".

        >>> Rate.parse("200/s")
        Rate(events_per_s=200.0, realtime=False)
        """
        if text in ("max", "realtime"):
            return cls(realtime=text == "realtime")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/s)?", text)
        if match is None or float(match[1]) == 0:
            raise InputError(
                f"--rate is max, realtime or events a second as in 200/s, got {text!r}"
            )
        return cls(events_per_s=float(match[1]))

    def frame_events(self, at_most: int, linger_s: float) -> int:
        """How many events come within the linger, so that a slow feed isn't a jerky one.

        >>> Rate.parse("200/s").frame_events(256, 0.05), Rate.parse("max").frame_events(256, 0.05)
        (10, 256)
        """
        if self.realtime:
            return 1
        if self.events_per_s is None:
            return at_most
        return max(1, min(at_most, math.ceil(self.events_per_s * linger_s)))


class Pace:
    """Waits before each frame, so that none goes too early. Late ones go at once."""

    def __init__(
        self,
        rate: Rate,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._began: float | None = None
        self._first_event_s = 0.0
        self._n_events = 0

    def wait_for(self, frame: Frame) -> None:
        """Return when the frame may go."""
        now = self._clock()
        if self._began is None:
            self._began = now
            self._first_event_s = float(frame.event_time_s[0])
        due = self._began
        if self._rate.events_per_s is not None:
            due += self._n_events / self._rate.events_per_s
        elif self._rate.realtime:
            due += float(frame.event_time_s[-1]) - self._first_event_s
        self._n_events += len(frame)
        if due > now:
            self._sleep(due - now)


class Sink(Protocol):
    """What `feed` hands frames to: a Feeder."""

    def send_frame(self, frame: Frame) -> None:
        """Send it now."""

    def collect(self, frame: Frame) -> None:
        """Send its events when their frame is full or the linger is over."""


def feed(
    frames: Iterable[Frame],
    sink: Sink,
    pace: Pace,
    *,
    collect: bool = False,
    stamp: Callable[[], float] | None = None,
) -> Iterator[Frame]:
    """Send each frame when it is due; yields it afterwards.

    collect: small pieces are joined to frames by the feeder's linger, as from a pipe. stamp: gives
    the events' time where the source knows none (seconds since the epoch).
    """
    for frame in frames:
        pace.wait_for(frame)
        if stamp is not None:
            frame = replace(frame, event_time_s=np.full(len(frame), stamp()))
        if collect:
            sink.collect(frame)
        else:
            sink.send_frame(frame)
        yield frame
