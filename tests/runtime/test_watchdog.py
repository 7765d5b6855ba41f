"""When a worker counts as stuck, on a clock moved by hand; on a real broker: tests/broker."""

from streamlearn.runtime.standing import Place, Standing
from streamlearn.runtime.watchdog import PATIENT, Pulse, Watchdog, Work
from streamlearn.testing import Clock

A, B = ("events", 0), ("events", 1)
DEADLINE_S = 60.0


class Worker:
    """What the watchdog asks, to be set; nothing waits to begin with."""

    def __init__(self) -> None:
        self.clock, self.pulse = Clock(1e6), Pulse()
        self.positions: dict[Place, int] = {A: 5, B: 0}
        self.ends: dict[Place, int] = {A: 5, B: 0}
        self.member = self.settled = self.answers = True
        self.waits = False
        self.empty: set[Place] = set()  # offsets without messages
        self.watchdog = Watchdog(
            Work(self.pulse, positions=lambda: self.positions, waits=lambda: self.waits),
            ask=self._ask,
            has_message=lambda place, start, end: place not in self.empty,
            deadline_s=DEADLINE_S,
            clock=self.clock,
        )

    def _ask(self) -> Standing | None:
        if not self.answers:
            return None
        return Standing(self.settled, self.member, self.ends, dict.fromkeys(self.ends, 0))

    def pass_s(self, seconds: float) -> str | None:
        """The first verdict in that time, looking as often as the thread does."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.forward(self.watchdog.every_s)
            if (why := self.watchdog.look()) is not None:
                return why
        return None


def test_idle_is_not_stuck() -> None:
    assert Worker().pass_s(10 * DEADLINE_S) is None


def test_events_that_wait_for_the_deadline_are_the_end_of_it() -> None:
    worker = Worker()
    worker.ends[A] = 9
    assert worker.pass_s(DEADLINE_S - 5) is None
    assert worker.pass_s(15) == (
        "nothing was learned for 60 s, though 4 messages wait, as in events partition 0"
    )


def test_the_deadline_begins_with_the_first_event_that_waits() -> None:
    worker = Worker()
    assert worker.pass_s(10 * DEADLINE_S) is None
    worker.ends[A] = 9
    assert worker.pass_s(DEADLINE_S - 5) is None


def test_slow_progress_is_progress() -> None:
    worker = Worker()
    worker.ends[A] = 100
    for _ in range(9):  # learned
        worker.positions[A] += 1
        assert worker.pass_s(0.9 * DEADLINE_S) is None
    for _ in range(4):  # restored, or acknowledged
        worker.pulse()
        assert worker.pass_s(0.9 * DEADLINE_S) is None
    assert worker.pass_s(DEADLINE_S) is not None


def test_a_partition_that_was_never_taken_over_waits_from_the_groups_offset() -> None:
    worker = Worker()
    worker.positions = {}
    worker.ends = {A: 7}
    assert "7 messages wait" in str(worker.pass_s(2 * DEADLINE_S))


def test_without_a_broker_nobody_is_stuck_and_its_return_gives_the_full_time() -> None:
    worker = Worker()
    worker.ends[A] = 9
    assert worker.pass_s(DEADLINE_S - 5) is None
    worker.answers = False
    assert worker.pass_s(10 * DEADLINE_S) is None
    worker.answers = True
    assert worker.pass_s(DEADLINE_S - 5) is None
    assert worker.pass_s(15) is not None


def test_clocks_stand_still_while_it_is_the_brokers_turn() -> None:
    for name, value in (("waits", True), ("settled", False)):
        worker = Worker()
        worker.ends[A] = 9
        assert worker.pass_s(DEADLINE_S / 2) is None
        before = getattr(worker, name)
        setattr(worker, name, value)
        assert worker.pass_s(10 * DEADLINE_S) is None
        setattr(worker, name, before)
        assert worker.pass_s(DEADLINE_S / 2 - 5) is None
        assert worker.pass_s(15) is not None


def test_who_is_not_in_the_group_is_stuck_too() -> None:
    worker = Worker()
    worker.member, worker.ends = False, {}
    assert worker.pass_s(PATIENT * DEADLINE_S - 5) is None  # it may be slow to start
    worker.member = True
    assert worker.pass_s(DEADLINE_S) is None
    worker.member = False
    assert worker.pass_s(2 * DEADLINE_S) == "for 60 s this worker was not in its group"
    never = Worker()
    never.member = False
    assert never.pass_s((PATIENT + 1) * DEADLINE_S) == "for 300 s this worker was not in its group"


def test_a_frozen_process_that_wakes_up_is_not_stuck() -> None:
    worker = Worker()
    worker.ends[A] = 9
    assert worker.pass_s(10) is None
    worker.clock.forward(1000)
    assert worker.watchdog.look() is None
    assert worker.pass_s(DEADLINE_S / 2) is None


def test_one_partition_may_wait_longer_while_others_are_learned_but_not_for_ever() -> None:
    worker = Worker()
    worker.ends = {A: 10**6, B: 3}

    def busy(deadlines: float) -> str | None:
        for _ in range(int(deadlines * DEADLINE_S / 5)):
            worker.positions[A] += 1
            if (why := worker.pass_s(5)) is not None:
                return why
        return None

    assert busy(PATIENT - 0.5) is None
    worker.positions[B] = 1
    assert busy(PATIENT - 0.5) is None
    assert busy(1) == (
        "one partition was left out for 300 s, though 2 messages wait, as in events partition 1"
    )


def test_offsets_without_a_message_are_nothing_to_wait_for() -> None:
    worker = Worker()
    worker.ends, worker.empty = {A: 6, B: 1}, {A, B}
    assert worker.pass_s(3 * PATIENT * DEADLINE_S) is None
    worker.empty = {A}
    assert worker.pass_s(DEADLINE_S + 5) == (
        "nothing was learned for 60 s, though 2 messages wait, as in events partition 1"
    )
