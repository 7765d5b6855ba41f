"""Pacing by a clock that is moved by hand."""

from itertools import pairwise

import numpy as np
import pytest

from streamlearn.core.records import Frame
from streamlearn.errors import InputError
from streamlearn.runtime.feeding import Pace, Rate, feed


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class Sink:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.got: list[tuple[str, float, Frame]] = []

    def send_frame(self, frame: Frame) -> None:
        self.got.append(("frame", self.clock.now, frame))

    def collect(self, frame: Frame) -> None:
        self.got.append(("events", self.clock.now, frame))


def frame(n: int, *times: float) -> Frame:
    return Frame(
        stream="s",
        columns=("x",),
        numbers=np.zeros((n, 1)),
        label_codes=np.full(n, -1, np.int32),
        label_values=(),
        event_time_s=np.array(times or (0.0,) * n),
    )


def went(rate: str, frames: list[Frame], took_s: float = 0.0) -> list[float]:
    """When each frame went, seconds after the first; sending takes `took_s`."""
    clock = Clock()
    sink = Sink(clock)
    for _ in feed(frames, sink, Pace(Rate.parse(rate), clock=clock, sleep=clock.sleep)):
        clock.now += took_s
    return [at - sink.got[0][1] for _, at, _ in sink.got]


def test_max_never_waits() -> None:
    assert went("max", [frame(4)] * 3) == [0.0, 0.0, 0.0]


def test_so_many_events_a_second() -> None:
    assert went("8/s", [frame(4)] * 4) == [0.0, 0.5, 1.0, 1.5]
    assert went("8/s", [frame(4)] * 4, took_s=0.3) == [0.0, 0.5, 1.0, 1.5]


def test_what_is_late_is_caught_up() -> None:
    assert went("8", [frame(4)] * 3, took_s=0.7) == pytest.approx([0.0, 0.7, 1.4])


def test_realtime_follows_the_events_times() -> None:
    frames = [frame(1, 50.0), frame(1, 50.5), frame(1, 50.2), frame(1, 53.0)]
    assert went("realtime", frames) == [0.0, 0.5, 0.5, 3.0]


def test_events_without_a_time_are_stamped() -> None:
    clock = Clock()
    sink = Sink(clock)
    pace = Pace(Rate.parse("4"), clock=clock, sleep=clock.sleep)
    sent = list(feed([frame(2), frame(2)], sink, pace, collect=True, stamp=clock))
    assert [kind for kind, _, _ in sink.got] == ["events", "events"]
    times = [one.event_time_s.tolist() for one in sent]
    assert times == [[1000.0, 1000.0], [1000.5, 1000.5]]


@pytest.mark.parametrize("text", ["", "fast", "0", "-3/s", "3/min", "nan"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="200/s"):
        Rate.parse(text)


def test_frames_of_a_slow_feed_are_small() -> None:
    sizes = [Rate.parse(f"{n}/s").frame_events(256, 0.05) for n in (1, 100, 1000, 10**6)]
    assert sizes == [1, 5, 50, 256] and all(a < b for a, b in pairwise(sizes))
    assert Rate.parse("realtime").frame_events(256, 0.05) == 1
