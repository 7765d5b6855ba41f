"""Part 1, prequential: every event predicted before its label is learned, everybody side by side.

Our learner runs over the whole stream, as do the fast peers; the slow ones stop after the prefix,
and everybody's accuracy on it is reported, so that a column compares the same events. A setting is
a stream and a step: so many events are predicted before their labels are learned.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.context_peer import ContextForest
from benchmarks.jobs import Job, Peak, Row, Scale, Skip
from benchmarks.streams_at_hand import STREAMS
from streamlearn.core.learner import Outcome, StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.steps import step_cuts
from streamlearn.core.threads import one_thread
from streamlearn.errors import InputError
from streamlearn.evaluation.peer_models import Peer
from streamlearn.evaluation.peers import KNOWN, check_peers

OURS, OURS_SMALL = "streamlearn", "streamlearn, D = 64"
CONTEXT = "river ARF, given our context features"
SLOW = {"arf", "srp", "leveraging-bagging"}
FIXED = {"hoeffding-tree", "softmax", "multinomial-nb"}  # no seed: it would be three times the same
FAST = {"sgd", "mlp", "hoeffding-tree", "softmax", "multinomial-nb"}


def jobs(scale: Scale, data: Path | None) -> tuple[list[Job], list[Skip]]:
    """Everybody on every stream at hand."""
    made: list[Job] = []
    skipped: list[Skip] = []
    seeds = tuple(range(scale.seeds))
    peers = [name for name in (*FAST, *SLOW) if _installed(name, skipped)]
    for name, stream in STREAMS.items():
        if why := stream.missing(data):
            skipped.append(Skip(name, why))
            continue
        for step in stream.steps if scale.wide else stream.steps[:1]:
            who = [OURS]
            if step == stream.steps[0]:
                words = name == "huffpost_10k"
                suited = [n for n in peers if (KNOWN[n].words if words else KNOWN[n].numbers)]
                slow = scale.slow or stream.hard
                who += [KNOWN[n].name for n in suited if n in FAST or slow]
                who += [] if words else [OURS_SMALL]
                who += [CONTEXT] if "arf" in peers and stream.hard else []
            setting = f"{name}, step {step}"
            made += [
                Job("prequential", setting, one, seeds[: None if _draws(one) else 1], scale, data)
                for one in who
            ]
    return made, skipped


def _draws(who: str) -> bool:
    return who not in {KNOWN[name].name for name in FIXED}


def _installed(name: str, skipped: list[Skip]) -> bool:
    try:
        check_peers([name])
    except InputError:
        skipped.append(Skip(KNOWN[name].name, "its package is not installed: make peers"))
        return False
    return True


def run(job: Job) -> list[Row]:
    """A row a seed."""
    name, step = job.setting.split(", step ")
    frames = list(_cut(STREAMS[name].frames(int(step), job.scale.events, job.data), job.scale))
    one = _ours if job.who in (OURS, OURS_SMALL) else _peer
    one(job, [frames[0].rows(0, 64)], int(step), 0)  # loads compiled functions and modules
    return [one(job, frames, int(step), seed) for seed in job.seeds]


def _cut(frames: Iterator[Frame], scale: Scale) -> Iterator[Frame]:
    """The same frames, one ending with the prefix: whole steps, as 512 is a multiple of them."""
    seen = 0
    for frame in frames:
        inside = scale.prefix - seen
        seen += len(frame)
        if 0 < inside < len(frame):
            yield frame.rows(0, inside)
            yield frame.rows(inside, len(frame))
        else:
            yield frame


def _ours(job: Job, frames: list[Frame], step: int, seed: int) -> Row:
    small = {"random_features": 64} if job.who == OURS_SMALL else {}
    learner = StreamLearner(frames[0].stream, LearnerSettings(seed=seed, step_events=step, **small))
    right: list[int] = []  # after each frame
    seen: list[int] = []
    peak, start = Peak(), time.process_time()
    for frame in frames:
        outcome: Outcome = learner.learn(frame)
        right.append(outcome.n_correct)
        seen.append(len(frame))
    cost = time.process_time() - start, peak.mib()
    scores = learner.prequential
    told = {"no-change": scores.no_change, "majority": scores.majority}
    return _row(job, seed, right, seen, cost, told | {"delayed": scores.no_change_delayed})


def _peer(job: Job, frames: list[Frame], step: int, seed: int) -> Row:
    if job.who == CONTEXT:
        peer: Peer = ContextForest(seed)
        slow = True
    else:
        ((name, known),) = [(n, k) for n, k in KNOWN.items() if k.name == job.who]
        peer, slow = known.make(seed), name in SLOW
    right: list[int] = []
    seen: list[int] = []
    peak, start = Peak(), time.process_time()
    with one_thread():
        for k, frame in enumerate(frames):
            hits = 0
            for cut in step_cuts(len(frame), step, first=k == 0):
                part = frame.rows(*cut)
                named = zip(peer.predict(part), part.labels(), strict=True)
                hits += sum(guess == label for guess, label in named)
                peer.learn(part)
            right.append(hits)
            seen.append(len(frame))
            if slow and not job.scale.slow and sum(seen) >= job.scale.prefix:
                break
    return _row(job, seed, right, seen, (time.process_time() - start, peak.mib()), {})


def _row(
    job: Job,
    seed: int,
    right: list[int],
    seen: list[int],
    cost: tuple[float, float],
    told: dict[str, float],
) -> Row:
    ends, hits = np.cumsum(seen), np.cumsum(right)
    at = int(np.searchsorted(ends, min(job.scale.prefix, ends[-1])))
    step = job.setting.split(", step ")[1]
    whole = job.who in (OURS, OURS_SMALL) or job.scale.slow or not _stops(job.who)
    figures: dict[str, float | None] = {
        "prefix": float(hits[at] / ends[at]),
        "whole": float(hits[-1] / ends[-1]) if whole else None,
        **told,
    }
    return Row(
        job.part, job.setting, job.who, seed, job.scale.name, figures,
        events=int(ends[-1]), cpu_s=cost[0], peak_mib=cost[1],
        notes={"prefix": int(ends[at]), "step": int(step)},
    )  # fmt: skip


def _stops(who: str) -> bool:
    return who == CONTEXT or who in {KNOWN[name].name for name in SLOW}
