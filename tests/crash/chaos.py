"""A seeded schedule of faults against a real broker and real workers, while events flow.

    make chaos MINUTES=30        or: python -m tests.crash.chaos --minutes 30 --seed 7

16 streams on 8 partitions are fed while two to four workers are killed, stopped, frozen, lose
their disks, come and go, and the broker is killed. After each fault, or two that meet, every
partition must get updates again. Afterwards every stream's state has learned each event once and
its hash is an uninterrupted StreamLearner's; no update ever carried another hash; a subscriber
that followed, and one that starts at the end, hold the same. Exit code 1 if anything differs.

The seed fixes faults, victims and durations; not what the machine does meanwhile.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka.admin import AdminClient

from streamlearn import Subscriber
from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.errors import StreamlearnError
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from tests.crash.auditor import Auditor
from tests.crash.faults import STOP_S, Fault, Field, Member, Strike, draw
from tests.crash.feeding import PARTITIONS, STREAMS, Feeder
from tests.crash.verdict import Report, show
from tests.crash.world import SETTINGS, frame

MEMBERS = 4
PATIENCE_S = 90.0  # for what takes seconds on a machine of one's own
STARTING_S = 900.0  # for the first start: on a fresh checkout numba compiles for a minute of CPU
SLOWER = 3  # than the first start nothing may be, where that is more than PATIENCE_S
GROUP = "chaos"
MOVING = {Fault.KILL, Fault.WIPE, Fault.TERM, Fault.LEAVE}  # the victim's partitions


class Chaos:
    """One run; `run` gives its report. Call from the main thread: it starts processes."""

    def __init__(self, seed: int, folder: Path, *, workers: int = 3, log: bool = False) -> None:
        self.report = Report(seed)
        self._rng = random.Random(seed)
        self._folder = folder
        self._workers = workers
        self._log = log
        self._patience_s = STARTING_S
        self._stack = ExitStack()
        self._broker = LocalBroker(heap="320m", data_dir=folder / "kafka")
        self._kafka: KafkaConfig
        self._topics: Topics
        self._auditor: Auditor
        self._feeder: Feeder
        self._field: Field

    def run(self, seconds: float, faults: Sequence[Fault] = ()) -> Report:
        """`faults` first, then random ones as long as `seconds` have not passed."""
        begun = time.monotonic()
        with self._stack:
            self._set_up()
            if not self._settle():
                return self.report
            self._patience_s = max(PATIENCE_S, SLOWER * (time.monotonic() - begun))
            self._say(f"all partitions are learned; patience {self._patience_s:.0f} s")
            begun = time.monotonic()
            order = list(faults)
            while order or time.monotonic() - begun < seconds:
                strike = draw(self._rng, order.pop(0) if order else None)
                if not self._survive(strike):
                    break
            self._finish()
        self.report.seconds = time.monotonic() - begun
        return self.report

    def _set_up(self) -> None:
        self._stack.enter_context(self._broker)
        self._kafka = KafkaConfig(bootstrap=self._broker.bootstrap)
        self._topics = topic_specs.load(prefix="chaos.", partitions=PARTITIONS)
        admin.apply(self._kafka, self._topics)
        settings = {
            "STREAMLEARN_BOOTSTRAP": self._broker.bootstrap,
            "STREAMLEARN_TOPICS__PREFIX": "chaos.",
            "STREAMLEARN_TOPICS__PARTITIONS": str(PARTITIONS),
            "STREAMLEARN_WORKER__GROUP": GROUP,
            "STREAMLEARN_WORKER__CHECKPOINT_INTERVAL_S": "1",
            "STREAMLEARN_LEARNER__RANDOM_FEATURES": str(SETTINGS.random_features),
            "STREAMLEARN_LEARNER__WINDOWS": ",".join(map(str, SETTINGS.windows)),
            "STREAMLEARN_LEARNER__STEP_EVENTS": str(SETTINGS.step_events),
        }
        members = [Member(f"w{i}", self._folder, settings) for i in range(MEMBERS)]
        self._field = Field(self._broker, members, self._wait)
        self._auditor = Auditor(self._kafka, self._topics)
        self._feeder = Feeder(self._kafka, self._topics["events"].full_name)
        for member in members:
            self._stack.callback(member.kill)
        self._stack.callback(self._auditor.close)
        self._stack.callback(self._feeder.stop)
        subscriber = Subscriber(self._kafka, topic_prefix="chaos.")
        self._subscriber = self._stack.enter_context(subscriber)
        self._subscriber.on_version(self._auditor.saw)
        self._feeder.start()
        self._auditor.start()
        for member in members[: self._workers]:
            member.start()

    def _wait(self, seconds: float) -> None:
        """Let time pass; what ended by itself is started again."""
        end = time.monotonic() + seconds
        while True:
            for member in self._field.members:
                member.watch()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.1, left))

    def _settle(self) -> bool:
        """Until every partition has an update that was sent after now."""
        since, deadline = time.time(), time.monotonic() + self._patience_s
        while not all(
            self._auditor.newest_s.get(number, 0.0) > since for number in range(PARTITIONS)
        ):
            if time.monotonic() > deadline:
                quiet = [n for n in range(PARTITIONS) if self._auditor.newest_s.get(n, 0) <= since]
                self.report.wrong.append(
                    f"partitions {quiet}: no updates for {self._patience_s:.0f} s"
                )
                return False
            self._wait(0.1)
        return True

    def _survive(self, drawn: Strike) -> bool:
        """One fault, and the next one on top if so drawn; whether the fleet settled."""
        strike = self._field.possible(drawn)
        victim = self._field.victim(strike)
        owned = self._owned(victim) if strike.fault in MOVING else set()
        before, at = self._auditor.epochs(), time.time()
        self._strike(strike, victim)
        if strike.along:
            self.report.met += 1
            self._wait(2.0 * strike.pause)
            other = self._field.possible(draw(self._rng))
            self._strike(other, self._field.victim(other))
        settled = self._settle()
        if settled and not strike.along:
            self._measure(strike.fault, owned, before, at)
        self._wait(2.0 * strike.pause)
        return settled

    def _strike(self, strike: Strike, victim: Member) -> None:
        self.report.faults[strike.fault] += 1
        self._say(f"{strike.fault}" + ("" if strike.fault is Fault.BROKER else f": {victim.name}"))
        self._field.strike(strike, victim)

    def _owned(self, member: Member) -> set[int]:
        """The partitions that the group has given to a member."""
        client = AdminClient({**self._kafka.client_settings(), "log_level": 0})
        group = client.describe_consumer_groups([GROUP], request_timeout=10)[GROUP].result()
        return {
            place.partition
            for one in group.members
            if one.client_id.endswith(f"-{member.process.pid}")
            for place in one.assignment.topic_partitions
        }

    def _measure(self, fault: Fault, owned: set[int], before: dict[int, int], at: float) -> None:
        """Per partition that had to move: from the fault to its first update of a newer epoch."""
        times = self.report.take_over_s.setdefault(fault, [])
        for number in owned:
            newer = [
                sight.sent_s - at
                for sight in self._auditor.first.get(number, ())
                if sight.epoch > before.get(number, 0) and sight.sent_s > at
            ]
            times += newer[:1]
        if owned:
            shown = ", ".join(f"{t:.1f}" for t in times[-len(owned) :])
            self._say(f"  taken over after {shown} s")

    def _finish(self) -> None:
        """Everything is learned and checkpointed; then look."""
        report, auditor = self.report, self._auditor
        self._feeder.stop()
        report.wrong += self._feeder.lost
        fed = {f"s{number}": self._feeder.fed for number in range(STREAMS)}
        self._cover()
        for member in self._field.running:
            self._field.stop(member)
        auditor.finish()
        report.frames = sum(fed.values())
        report.events = sum(len(frame(s, i)) for s, n in fed.items() for i in range(n))
        report.updates = auditor.updates
        report.gave_up = [word for member in self._field.members for word in member.gave_up]
        report.slowest_stop_s = self._field.slowest_stop_s
        report.wrong += auditor.final(fed)
        report.wrong += auditor.wrong
        report.wrong += self._hold(self._subscriber, "the subscriber", fed)
        with Subscriber(self._kafka, topic_prefix="chaos.") as late:
            report.wrong += self._hold(late, "a late subscriber", fed)
        report.wrong += [f"exit {code} after SIGTERM" for code in self._field.exits if code != 0]
        if report.slowest_stop_s > STOP_S:
            report.wrong.append(f"SIGTERM took {report.slowest_stop_s:.1f} s")

    def _cover(self) -> None:
        """Until every event is acknowledged, so learned and checkpointed."""
        log, name = KafkaLog(self._kafka, group=GROUP), self._topics["events"].full_name
        deadline = time.monotonic() + self._patience_s
        for number in range(PARTITIONS):
            while log.committed(name, number) != log.watermarks(name, number)[1]:
                if time.monotonic() > deadline:
                    self.report.wrong.append(f"partition {number} is not learned to its end")
                    break
                self._wait(0.2)
        log.close()

    def _hold(self, subscriber: Subscriber, who: str, fed: dict[str, int]) -> list[str]:
        wrong = []
        for stream, version in fed.items():
            try:
                held = subscriber.wait_for(stream, version, timeout_s=self._patience_s / 3).current
            except StreamlearnError as error:
                wrong.append(f"{who}: {error}")
            else:
                if held.hash != self._auditor.truth(stream, version):
                    wrong.append(f"{who} holds another model of {stream}")
        return wrong

    def _say(self, text: str) -> None:
        if self._log:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, printed")
    parser.add_argument("--workers", type=int, default=3, choices=(2, 3, 4), help="to begin with")
    parser.add_argument("--keep", type=Path, help="folder for logs, data and disks")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if given.seed is None else given.seed
    print(f"seed {seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="streamlearn-chaos-") as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        report = Chaos(seed, folder, workers=given.workers, log=True).run(given.minutes * 60)
    show(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
