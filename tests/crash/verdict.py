"""What a chaos run found, and its table."""

from collections import Counter
from dataclasses import dataclass, field

from tests.crash.faults import Fault


@dataclass(slots=True)
class Report:
    """What happened, and what was wrong with it."""

    seed: int
    seconds: float = 0.0
    faults: Counter[Fault] = field(default_factory=Counter)
    met: int = 0  # faults that struck before the fleet had settled after another
    take_over_s: dict[Fault, list[float]] = field(default_factory=dict)
    gave_up: list[str] = field(default_factory=list)
    frames: int = 0
    events: int = 0
    updates: int = 0
    slowest_stop_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def show(report: Report) -> None:
    """The table."""
    print(f"\nseed {report.seed}, {report.seconds / 60:.1f} minutes")
    print(f"  {'fault':26}{'survived':>9}{'take-over p50':>15}{'max':>8}")
    for fault in Fault:
        times = sorted(report.take_over_s.get(fault, []))
        shown = f"{times[len(times) // 2]:>13.1f} s{times[-1]:>6.1f} s" if times else ""
        print(f"  {fault:26}{report.faults[fault]:>9}{shown}")
    print(f"  {'in all':26}{report.faults.total():>9}   {report.met} of them with another on top")
    print(f"  events {report.events:,} in {report.frames:,} frames; updates {report.updates:,}")
    print(f"  slowest end after SIGTERM {report.slowest_stop_s:.1f} s")
    print(f"  workers that ended by themselves and were started again: {len(report.gave_up)}")
    last_words = Counter(words.splitlines()[-1][:160] for words in report.gave_up)
    for words, count in last_words.most_common():
        print(f"    {count} x {words}")
    for line in report.wrong[:20]:
        print(f"  WRONG: {line}")
    print(
        "verdict:", f"{len(report.wrong)} WRONG" if report.wrong else "nothing lost, twice, wrong"
    )
