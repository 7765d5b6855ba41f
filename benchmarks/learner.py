"""The learner alone, on one thread: events per second, and bytes a stream.

Run: .venv/bin/python benchmarks/learner.py [--frames 100] [--json]

Frames of 256 events x 32 numbers, 4 classes; test, learn and reservoir, no Kafka, no decoding.
"CPU" counts this process's own time, so that other work on the machine shows in "wall" only; the
best of three rounds is given.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from time import perf_counter, process_time

import numpy as np

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.threads import one_thread

FRAME_EVENTS, COLUMNS, CLASSES = 256, 32, 4
WARM_FRAMES = 40  # the first events are solved more often
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """One size of the learner."""

    random_features: int
    step_events: int
    events_per_cpu_s: float
    events_per_wall_s: float
    state_bytes: int
    model_bytes: int


def make_frames(n: int, seed: int = 7) -> list[Frame]:
    """Noisy linear classes, so that the heads have something to learn."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(COLUMNS, CLASSES))
    frames = []
    for start in range(0, n * FRAME_EVENTS, FRAME_EVENTS):
        numbers = rng.normal(size=(FRAME_EVENTS, COLUMNS))
        noise = 2.0 * rng.gumbel(size=(FRAME_EVENTS, CLASSES))
        codes = (numbers @ weights + noise).argmax(axis=1).astype(np.int32)
        columns, times = tuple(f"x{j}" for j in range(COLUMNS)), start + np.arange(256.0)
        frames.append(Frame("s", columns, numbers, codes, ("a", "b", "c", "d"), times))
    return frames


def measure(frames: list[Frame], settings: LearnerSettings) -> Speed:
    """Warm up, then the best of ROUNDS over the rest."""
    learner = StreamLearner("s", settings)
    for frame in frames[:WARM_FRAMES]:
        learner.learn(frame)
    rest = frames[WARM_FRAMES:]
    cpu, wall = [], []
    for _ in range(ROUNDS):
        cpu_start, wall_start = process_time(), perf_counter()
        with one_thread():
            for frame in rest:
                learner.learn(frame)
        cpu.append(process_time() - cpu_start)
        wall.append(perf_counter() - wall_start)
    events = len(rest) * FRAME_EVENTS
    return Speed(
        settings.random_features,
        settings.step_events,
        events / min(cpu),
        events / min(wall),
        sum(array.nbytes for array in learner.state().arrays.values()),
        sum(tensor.nbytes for tensor in learner.model().tensors.values()),
    )


def main() -> None:
    """Every size, one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100, help="of 256 events, after a warm-up")
    parser.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    given = parser.parse_args()
    frames = make_frames(WARM_FRAMES + given.frames)
    speeds = []
    for random_features in (200, 64):
        for step in (256, 32, 1):
            some = frames if step > 1 else frames[: WARM_FRAMES + max(given.frames // 10, 1)]
            settings = LearnerSettings(random_features=random_features, step_events=step)
            speeds.append(measure(some, settings))
            if not given.json:
                s = speeds[-1]
                print(
                    f"D {random_features:>3}  step {step:>3}  {s.events_per_cpu_s:>9,.0f} "
                    f"events/CPU-s  {s.events_per_wall_s:>9,.0f} events/s  "
                    f"state {s.state_bytes / 1e3:,.0f} kB  model {s.model_bytes / 1e3:,.0f} kB"
                )
    if given.json:
        print(json.dumps([asdict(speed) for speed in speeds]))


if __name__ == "__main__":
    main()
