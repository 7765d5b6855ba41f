"""Ends a worker that makes no progress while events wait, so that whoever runs it starts it anew.

Consumers are known to fall silent after days, and a thread may wait for ever. The watchdog has a
thread and clients of its own, and compares what the broker says with what was done:

| seen | so |
|---|---|
| the broker does not answer | all clocks begin anew: who waits for a broker is not stuck |
| the group is being put in order, or we wait for an acknowledgement | clocks stand still |
| anything was learned, restored, acknowledged, or nothing waits | the worker's clock begins anew |
| a partition of ours has events, or we are not in the group (1) | the worker's clock runs |
| one partition's events wait, whatever the others do | its own clock runs, five times as long |

(1) Who never was gets five times as long: a machine may be slow to start. Time counts only while
the watchdog itself runs, so a frozen process that wakes up is not stuck. Offsets without a message,
as transactions leave them, are nothing to wait for: that is looked up before anything is ended.
"""

import faulthandler
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamlearn.runtime.logs import OURS
from streamlearn.runtime.standing import Place, Standing

LOOKS = 10  # in one deadline
MAX_EVERY_S = 5.0
PATIENT = 5  # deadlines for what may be slow: joining; one partition, while others are learned

log = logging.getLogger(OURS)


class Pulse:
    """Beats with each thing that the learning thread got done."""

    def __init__(self) -> None:
        self.beats = 0

    def __call__(self, *_: object) -> None:
        self.beats += 1


@dataclass(frozen=True, slots=True)
class Work:
    """What the worker says of itself. All is called from the watchdog's thread."""

    pulse: Pulse
    positions: Callable[[], Mapping[Place, int]]  # next offset to learn, of what was taken over
    waits: Callable[[], bool]  # whether it waits for the broker's acknowledgement


class Watchdog:
    """`look` from time to time; it says why the worker should end.

    `ask` asks the broker, None: no answer; `has_message` asks it whether there is one in a range of
    offsets; `clock` is monotonic seconds.
    """

    def __init__(
        self,
        work: Work,
        *,
        ask: Callable[[], Standing | None],
        has_message: Callable[[Place, int, int], bool],
        deadline_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.every_s = min(deadline_s / LOOKS, MAX_EVERY_S)
        self._work = work
        self._ask = ask
        self._has_message = has_message
        self._deadline_s = deadline_s
        self._clock = clock
        self._looked_s = clock()
        self._beats = -1
        self._joined = False  # whether it ever was in its group
        self._stuck_s = 0.0  # since anything was done
        self._places: dict[Place, tuple[int, float]] = {}  # position, and for how long it is that

    def look(self) -> str | None:
        """Why the worker is stuck; None while it is not, or nobody can tell."""
        now = self._clock()
        passed_s = min(now - self._looked_s, 2 * self.every_s)  # more: we were frozen ourselves
        self._looked_s = now
        standing = self._ask()
        if standing is None:
            self._stuck_s, self._places = 0.0, {}
            return None
        if not standing.settled or self._work.waits():
            return None
        return self._judge(standing, passed_s)

    def _judge(self, standing: Standing, passed_s: float) -> str | None:
        positions = {**standing.committed, **self._work.positions()}
        lag = {
            place: end - positions.get(place, 0)
            for place, end in standing.ends.items()
            if end > positions.get(place, 0)
        }
        moved = self._time_places(lag, positions, passed_s)
        beats, self._beats = self._beats, self._work.pulse.beats
        if beats != self._beats or moved or (standing.member and not lag):
            self._stuck_s = 0.0
        else:
            self._stuck_s += passed_s
        self._joined = self._joined or standing.member
        if self._stuck_s >= self._deadline_s * (1 if self._joined else PATIENT):
            if not standing.member:
                return f"for {self._stuck_s:.0f} s this worker was not in its group"
            if (found := self._first_message(lag, positions, standing)) is not None:
                return f"nothing was learned for {self._stuck_s:.0f} s, though {_said(lag, found)}"
            self._stuck_s = 0.0
        return self._judge_places(lag, positions, standing)

    def _judge_places(
        self, lag: Mapping[Place, int], positions: Mapping[Place, int], standing: Standing
    ) -> str | None:
        limit_s = PATIENT * self._deadline_s
        alone = {place: lag[place] for place, (_, s) in self._places.items() if s >= limit_s}
        if (found := self._first_message(alone, positions, standing)) is not None:
            alone_s = self._places[found][1]
            return f"one partition was left out for {alone_s:.0f} s, though {_said(alone, found)}"
        for place in alone:
            del self._places[place]
        return None

    def _first_message(
        self, lag: Mapping[Place, int], positions: Mapping[Place, int], standing: Standing
    ) -> Place | None:
        """The partition that waits most, of those in which there is really a message."""
        for place in sorted(lag, key=lambda each: -lag[each]):
            if self._has_message(place, positions.get(place, 0), standing.ends[place]):
                return place
        return None

    def _time_places(
        self, lag: Mapping[Place, int], positions: Mapping[Place, int], passed_s: float
    ) -> bool:
        """The clocks of the partitions whose events wait; whether any of them moved on."""
        before, self._places = self._places, {}
        moved = False
        for place in lag:
            position = positions.get(place, 0)
            was, since_s = before.get(place, (position, 0.0))
            moved = moved or was != position
            self._places[place] = position, (since_s + passed_s if was == position else 0.0)
        return moved


def _said(lag: Mapping[Place, int], place: Place) -> str:
    topic, number = place
    return f"{sum(lag.values())} messages wait, as in {topic} partition {number}"


class Watch:
    """The thread: looks until stopped, and calls `end` with the last word."""

    def __init__(self, watchdog: Watchdog, end: Callable[[str], None]) -> None:
        self._watchdog = watchdog
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._watchdog.every_s):
            why = self._watchdog.look()
            if why is not None and not self._stop.is_set():
                log.error("this worker is stuck; where each of its threads stands:")
                faulthandler.dump_traceback()
                self._end(
                    f"{why}; ended, so that it is started again: nothing is lost, it goes on from "
                    "its last checkpoint (how long it may be stuck: worker.stall_deadline_s)"
                )
                return
