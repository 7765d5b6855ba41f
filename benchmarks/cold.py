"""Part 4, cold: the first events of a new stream, each predicted before its label is learned.

watch_imu's ten people, each a stream of its own: accuracy over the first 5, 10, 20, 50 and 100
events, mean over people; seeds also shuffle each person's events. From zero means that nothing is
known but the column names; what other streams know comes with the meta-learned memory.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.jobs import Job, Row, Scale, Skip, cpu_of
from benchmarks.streams_at_hand import frame_of
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.threads import one_thread
from streamlearn.errors import InputError
from streamlearn.evaluation.peers import KNOWN, check_peers

FILE = "watch_imu/data.npz"
AT = (5, 10, 20, 50, 100)  # events
OURS = "streamlearn, from zero"
PEERS = ("sgd", "hoeffding-tree", "arf")


def jobs(scale: Scale, data: Path | None) -> tuple[list[Job], list[Skip]]:
    """Us and peers."""
    if data is None or not (data / FILE).exists():
        return [], [Skip("cold", f"shared data {FILE} is not here: --data DIR")]
    who, skipped = [OURS], []
    for name in PEERS:
        try:
            check_peers([name])
            who.append(KNOWN[name].name)
        except InputError:
            skipped.append(Skip(KNOWN[name].name, "its package is not installed: make peers"))
    seeds = tuple(range(scale.seeds))
    return [Job("cold", "watch_imu, a new person", one, seeds, scale, data) for one in who], skipped


def run(job: Job) -> list[Row]:
    """A row a seed."""
    rows: list[Row] = []
    for seed in job.seeds:
        streams = people((job.data or Path()) / FILE, seed)
        spent, right = cpu_of(partial(_right, job.who, streams, seed))
        figures: dict[str, float | None] = {f"{n} events": float(right[:, :n].mean()) for n in AT}
        rows.append(
            Row(job.part, job.setting, job.who, seed, job.scale.name, figures, right.size, spent)
        )
    return rows


def people(path: Path, seed: int) -> list[Frame]:
    """Each person's first 100 events, shuffled."""
    with np.load(path) as data:
        x, y, person = data["X"].astype(np.float64), data["y"], data["subject"]
    rng = np.random.default_rng(seed)
    own = [rng.permutation(np.flatnonzero(person == one))[: max(AT)] for one in np.unique(person)]
    return [frame_of(x[rows], y[rows]) for rows in own if len(rows) == max(AT)]


def _right(who: str, streams: list[Frame], seed: int) -> NDArray[np.bool_]:
    """(people, events) whether the event was named."""
    return np.array([_ours(one, seed) if who == OURS else _peer(who, one, seed) for one in streams])


def _ours(frame: Frame, seed: int) -> list[bool]:
    outcome = StreamLearner(frame.stream, LearnerSettings(seed=seed, step_events=1)).learn(frame)
    names = (*outcome.classes, None)
    return [names[k] == y for k, y in zip(outcome.predicted.tolist(), frame.labels(), strict=True)]


def _peer(who: str, frame: Frame, seed: int) -> list[bool]:
    peer = next(known for known in KNOWN.values() if known.name == who).make(seed)
    right: list[bool] = []
    with one_thread():
        for at in range(len(frame)):
            event = frame.rows(at, at + 1)
            right.append(peer.predict(event)[0] == event.labels()[0])
            peer.learn(event)
    return right
