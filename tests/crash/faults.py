"""Members of a fleet, and the faults that a seeded schedule lets happen to them and the broker."""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.child import ChildProcess

STOP_S = 15.0  # SIGTERM ends a worker within this time, whatever happens
FROZEN_S = (7.0, 10.0)  # the session ends after 6 s


class Fault(StrEnum):
    """What happens."""

    KILL = "kill -9"
    TERM = "SIGTERM, restart"
    FREEZE = "SIGSTOP, SIGCONT"
    WIPE = "kill -9, disk wiped"
    JOIN = "a worker joins"
    LEAVE = "a worker leaves"
    BROKER = "broker kill -9, restart"


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a schedule; numbers in [0, 1) say whom it meets and how long it lasts."""

    fault: Fault
    whom: float
    length: float
    pause: float
    along: bool  # with the next one on top, before the fleet has settled


def draw(rng: random.Random, fault: Fault | None = None) -> Strike:
    """The next fault; each draws the same count of numbers, so that kinds don't shift others."""
    kinds = list(Fault)
    chosen = kinds[rng.randrange(len(kinds))]
    return Strike(fault or chosen, rng.random(), rng.random(), rng.random(), rng.random() < 0.2)


class Member:
    """One worker with a disk of its own; started again whenever it ended by itself."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.disk = folder / name
        self.wanted = False  # whether it should run
        self.gave_up: list[str] = []  # last words of lives that it ended itself
        self._begun = 0  # where this life begins in its log
        arguments = ["worker", "--state-dir", str(self.disk), "--metrics-port", "0"]
        self.process = ChildProcess(
            name,
            [sys.executable, "-m", "streamlearn", *arguments],
            env={**os.environ, **settings},
            log_file=folder / f"{name}.log",
        )

    def start(self) -> None:
        self.wanted = True
        self._start()

    def _start(self) -> None:
        log = self.process.log_file
        self._begun = log.stat().st_size if log.exists() else 0
        self.process.start()

    @property
    def serves(self) -> bool:
        """Whether this life took partitions over; before, SIGTERM ends it like any program."""
        return b", from offset " in self.process.log_file.read_bytes()[self._begun :]

    def watch(self) -> None:
        """What whoever runs it would do: start it again when it ended."""
        if self.wanted and self.process.pid is None:
            self.gave_up.append(f"exit {self.process.exit_code}: {self.process.log_tail(2)}")
            self._start()

    def kill(self) -> None:
        self.wanted = False
        self.process.kill9()

    def signal(self, number: signal.Signals) -> None:
        pid = self.process.pid
        if pid is not None:
            os.kill(pid, number)

    def wipe(self) -> None:
        shutil.rmtree(self.disk, ignore_errors=True)


class Field:
    """Where faults happen: members, 2 to 4 of which run, and the broker.

    `wait` lets seconds pass and keeps members going; `owned` tells a member's partitions.
    """

    def __init__(
        self,
        broker: LocalBroker,
        members: list[Member],
        wait: Callable[[float], None],
    ) -> None:
        self.broker = broker
        self.members = members
        self.slowest_stop_s = 0.0
        self.exits: list[
            int | None
        ] = []  # codes after SIGTERM, but of those that were still starting
        self._wait = wait

    @property
    def running(self) -> list[Member]:
        return [member for member in self.members if member.wanted]

    @property
    def idle(self) -> list[Member]:
        return [member for member in self.members if not member.wanted]

    def possible(self, strike: Strike) -> Strike:
        """Join where only two run, leave where all do."""
        fault = strike.fault
        if fault is Fault.LEAVE and len(self.running) <= 2:
            fault = Fault.JOIN
        elif fault is Fault.JOIN and not self.idle:
            fault = Fault.LEAVE
        return Strike(fault, strike.whom, strike.length, strike.pause, strike.along)

    def victim(self, strike: Strike) -> Member:
        """Whom it meets."""
        among = self.idle if strike.fault is Fault.JOIN else self.running
        return among[int(strike.whom * len(among))]

    def strike(self, strike: Strike, victim: Member) -> None:
        """Let it happen, and undo it: when it returns, all that should run was started."""
        match strike.fault:
            case Fault.KILL | Fault.WIPE:
                victim.kill()
                if strike.fault is Fault.WIPE:
                    victim.wipe()
                self._wait(9.0 * strike.length)  # often after the others took over
                victim.start()
            case Fault.TERM | Fault.LEAVE:
                self.stop(victim)
                if strike.fault is Fault.TERM:
                    self._wait(4.0 * strike.length)
                    victim.start()
            case Fault.FREEZE:
                victim.signal(signal.SIGSTOP)
                self._wait(FROZEN_S[0] + strike.length * (FROZEN_S[1] - FROZEN_S[0]))
                victim.signal(signal.SIGCONT)
            case Fault.JOIN:
                victim.start()
            case Fault.BROKER:
                self.broker.kill9()
                self._wait(5.0 * strike.length)
                self.broker.restart()

    def stop(self, member: Member) -> None:
        """SIGTERM; it must end by itself."""
        member.wanted = False
        begun = time.monotonic()
        member.signal(signal.SIGTERM)
        while member.process.pid is not None and time.monotonic() - begun < 2 * STOP_S:
            time.sleep(0.02)
        self.slowest_stop_s = max(self.slowest_stop_s, time.monotonic() - begun)
        if member.process.pid is not None:
            member.kill()
        if member.serves:
            self.exits.append(member.process.exit_code)
