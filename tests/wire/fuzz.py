"""Every codec under changed messages for as long as one likes: `make fuzz MINUTES=10`.

The tests try each codec's first 150 of these, always the same. Here the seeds go on from --seed;
the first message that ends in anything but its codec's own error is shown, made small.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.wire.test_fuzz import TARGETS, Target, changed

EXAMPLES = 500  # of a target at a time


def tried(target: Target, number: int) -> int:
    """Messages of one seed that were decoded or refused as they should."""
    n = 0

    @seed(number)
    @given(st.one_of(*[changed(target.valid)] * 4, st.binary(max_size=200)))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    def fuzz(value: bytes) -> None:
        nonlocal n
        target.take(value)
        n += 1

    fuzz()
    return n


def run(minutes: float, first: int, clock: Callable[[], float]) -> Counter[str]:
    """Messages by target; all targets in turn until the time is up."""
    messages: Counter[str] = Counter()
    begun = clock()
    for number in count(first):
        for name, target in TARGETS.items():
            messages[name] += tried(target, number)
            if clock() - begun > 60 * minutes:
                return messages
    return messages


def main() -> None:
    """Read the flags, fuzz, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    given_ = parser.parse_args()
    messages = run(given_.minutes, given_.seed, time.monotonic)
    for name, n in messages.items():
        print(f"{n:>10,}  {name}")
    print(f"{messages.total():>10,}  messages, each read to what it says or refused by its error")


if __name__ == "__main__":
    main()
