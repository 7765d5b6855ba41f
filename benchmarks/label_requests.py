"""A stream whose labels come only on request: asked for, against as many at random.

    python benchmarks/label_requests.py WATCH.npz [--seeds 3]

All people of watch_imu as one stream in random order, its first 2000 events, without labels. After
every 100 events the labels of a few of them come, late: those that `ask` names, or random ones.
Printed: share of events that were predicted right when they came, over all and over the second
half; +- is the spread over seeds.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.ask import ask
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings

EVENTS, EVERY, FRAME_EVENTS = 2000, 100, 50


def run(
    x: NDArray[np.float64], y: NDArray[np.int64], n: int, how: str, seed: int
) -> tuple[float, float]:
    """Accuracy over all events and over the second half, with n labels of EVERY events."""
    settings = LearnerSettings(seed=seed, step_events=10, late_labels=1024)
    learner, rng = StreamLearner("watch", settings), np.random.default_rng(seed)
    columns = tuple(f"x{j}" for j in range(x.shape[1]))
    right: list[bool] = []
    for start in range(0, len(x), FRAME_EVENTS):
        rows = np.arange(start, min(start + FRAME_EVENTS, len(x)))
        none = np.full(len(rows), -1, np.int32)
        ids = tuple(map(str, rows))
        frame = Frame("watch", columns, x[rows], none, (), rows.astype(float), event_ids=ids)
        outcome = learner.learn(frame)
        classes = np.array([*outcome.classes, "none"])  # predicted is -1 before any label
        right += (classes[outcome.predicted] == y[rows].astype(str)).tolist()
        if learner.n_events % EVERY == 0:
            waiting = learner.waiting(learner.n_events - EVERY, learner.n_events)
            if how == "asked":
                chosen = [question.event_id for question in ask(learner.model(), waiting, n)]
            else:
                chosen = [waiting.event_ids[k] for k in rng.choice(EVERY, n, replace=False)]
            learner.learn_labels(chosen, [str(y[int(one)]) for one in chosen])
    return float(np.mean(right)), float(np.mean(right[len(right) // 2 :]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("watch", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    watch = np.load(given.watch)
    print("| labels of 100 events | which | all events | second half |\n|---|---|---|---|")
    for n in (2, 5, 10):
        for how in ("random", "asked"):
            found = []
            for seed in range(given.seeds):
                order = np.random.default_rng(100 + seed).permutation(watch["order"])[:EVENTS]
                x, y = watch["X"][order].astype(np.float64), watch["y"][order].astype(np.int64)
                found.append(run(x, y, n, how, seed))
            mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
            cells = [f"{m:.3f} +- {s:.3f}" for m, s in zip(mean, spread, strict=True)]
            print(f"| {n} | {how} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
