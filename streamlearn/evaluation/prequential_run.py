"""The run itself: every stream's learner over all frames, and the figures.

In: frames. Out: an Evaluation. The learner is asked for nothing that a worker would not do, unless
an option asks for more: events held out, the other read-out, peers, a timeline.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.learner import Outcome, StreamLearner
from streamlearn.core.prequential import Prequential
from streamlearn.core.records import Frame, Label
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import InputError
from streamlearn.evaluation.classes_over_time import ClassesOverTime, HeldOut, Readout, summed_up
from streamlearn.evaluation.events import pieces
from streamlearn.evaluation.peers import PeerResult, Peers
from streamlearn.evaluation.timeline import Timeline

MAX_CLASSES = 1000
CROWDED = 64  # different labels, at which it is asked whether they are classes


@dataclass(frozen=True, slots=True)
class StreamResult:
    """One stream's figures; see Evaluation."""

    stream: str
    n: int
    accuracy: float
    no_change: float
    no_change_delayed: float
    majority: float
    drift: str  # the verdict at the end
    n_drifts: int
    rehearses: str  # the sample that is replayed: microclusters or uniform
    recalls: dict[str, float | None]  # share of held-out events that each sample recalls


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Prequential figures over all streams. Rates are of the n labelled events, 0..1."""

    n: int
    accuracy: float  # by `readout`, as are the kappas
    kappa: float
    kappa_temporal: float
    no_change: float  # predicts the label of the event before
    no_change_delayed: float  # predicts, for a step, the last label known before it
    majority: float  # predicts the most frequent label so far
    events_per_s: float  # labelled or not; reading included
    seconds: float
    classes: tuple[Label, ...]  # in order of appearance
    events: int  # labelled or not
    step: int
    seed: int
    readout: Readout
    experts: dict[str, float]  # weight of each expert at the end, mean over streams by events
    streams: tuple[StreamResult, ...]  # the ones with most labelled events first
    classes_over_time: ClassesOverTime | None = None  # where it was asked for
    peers: tuple[PeerResult, ...] = ()  # the best first

    def as_json(self) -> dict[str, Any]:
        """JSON-able, with the fields' names as keys."""
        shown: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return shown


@dataclass(slots=True)
class _Stream:
    """One stream on its way."""

    learner: StreamLearner
    keep: Prequential = field(default_factory=Prequential)  # of the read-out `keep`
    held_out: HeldOut = field(default_factory=HeldOut)
    weights: dict[str, float] = field(default_factory=dict)


class _Run:
    """Frames in, one after the other."""

    def __init__(
        self,
        settings: LearnerSettings,
        *,
        readout: Readout,
        hold_out: bool,
        peers: Peers,
        timeline: Timeline | None,
    ) -> None:
        self.settings, self.readout, self.hold_out = settings, readout, hold_out
        self.peers, self.timeline = peers, timeline
        self.streams: dict[str, _Stream] = {}
        self.crowd = Crowd()
        self.events = 0
        self.aside_s = 0.0  # seconds that peers and held-out events took

    def add(self, frame: Frame) -> tuple[Frame, Outcome] | None:
        """What was learned of a frame, and its outcome; None where all of it was held out."""
        stream = self.streams.get(frame.stream)
        if stream is None:
            learner = StreamLearner(frame.stream, self.settings)
            stream = self.streams[frame.stream] = _Stream(learner)
        self.events += len(frame)
        left = self._hold_out(stream, frame) if self.hold_out else frame
        if left is None:
            return None
        outcome = stream.learner.learn(left, keep=self.readout == "keep")
        if len(outcome.classes) > MAX_CLASSES:
            _refuse_classes(f"{len(outcome.classes)} different values", frame)
        heads = zip(outcome.heads, outcome.head_weights.tolist(), strict=True)
        stream.weights = dict(heads)
        predicted = outcome.predicted
        if outcome.predicted_keep is not None:
            predicted = outcome.predicted_keep
            stream.keep.update(_codes(left, outcome), predicted)
        self._beside(stream, left, outcome, predicted)
        return left, outcome

    def parts(self, frame: Frame) -> Iterable[Frame]:
        """The frame; where something is looked at in between, in pieces."""
        if not self.hold_out and self.timeline is None:
            return (frame,)
        first = frame.stream not in self.streams
        return pieces(frame, self.settings.step_events, first=first)

    def _hold_out(self, stream: _Stream, frame: Frame) -> Frame | None:
        start, held = perf_counter(), stream.held_out
        if held.brings_class(frame):
            held.look(stream.learner.model(), new_class=True)
        left = held.take(frame)
        self.aside_s += perf_counter() - start
        return left

    def _beside(
        self, stream: _Stream, frame: Frame, outcome: Outcome, predicted: NDArray[np.int32]
    ) -> None:
        """What was asked for besides the learner's own figures."""
        start = perf_counter()
        if self.hold_out and stream.held_out.due():
            stream.held_out.look(stream.learner.model())
        told = self.peers.test_then_learn(frame)
        if self.timeline is not None:
            self.timeline.add(frame, outcome, predicted)
            for name, right in told.items():
                self.timeline.add_peer(name, right)
        self.aside_s += perf_counter() - start

    def classes_over_time(self) -> ClassesOverTime | None:
        if not self.hold_out:
            return None
        for stream in self.streams.values():
            stream.held_out.look(stream.learner.model(), end=True)
        return summed_up([stream.held_out for stream in self.streams.values()])


def evaluate(
    frames: Iterable[Frame],
    settings: LearnerSettings,
    *,
    watch: Callable[[Frame, Outcome], None] | None = None,
    readout: Readout = "serve",
    classes_over_time: bool = False,
    compare: Sequence[str] = (),
    timeline: Timeline | None = None,
) -> Evaluation:
    """Test and learn all frames, in their order; `watch` sees each frame and its outcome.

    `readout`: whose predictions are scored. `classes_over_time`: hold out every tenth labelled
    event and ask for them again. `compare`: names of PEERS to run beside it. `timeline`: is filled.
    InputError where there is nothing to score, or where the labels are no classes.
    """
    peers = Peers(compare, step=settings.step_events, seed=settings.seed)
    run = _Run(
        settings, readout=readout, hold_out=classes_over_time, peers=peers, timeline=timeline
    )
    start = perf_counter()
    for frame in frames:
        run.crowd.add(frame)
        for part in run.parts(frame):
            done = run.add(part)
            if watch is not None and done is not None:
                watch(*done)
    seconds = perf_counter() - start - run.aside_s
    if run.events == 0:
        raise InputError("there are no events to evaluate; give a file that has some")
    learners = [stream.learner for stream in run.streams.values()]
    total, classes = pooled(learners)
    if total.n == 0:
        raise InputError(
            f"none of the {run.events} events has a label, so nothing can be scored or learned; "
            "name the column that holds the classes with --label"
        )
    by_readout = total
    if readout == "keep":
        by_readout, _ = pooled(learners, [stream.keep for stream in run.streams.values()])
    results = (_result(stream, readout) for stream in run.streams.values())
    return Evaluation(
        n=total.n,
        accuracy=by_readout.accuracy,
        kappa=by_readout.kappa,
        kappa_temporal=by_readout.kappa_temporal,
        no_change=total.no_change,
        no_change_delayed=total.no_change_delayed,
        majority=total.majority,
        events_per_s=run.events / max(seconds, 1e-9),
        seconds=seconds,
        classes=classes,
        events=run.events,
        step=settings.step_events,
        seed=settings.seed,
        readout=readout,
        experts=_mean_weights(list(run.streams.values()), total.n),
        streams=tuple(sorted(results, key=lambda result: -result.n)),
        classes_over_time=run.classes_over_time(),
        peers=peers.results(),
    )


class Crowd:
    """The different labels that came so far, in all streams, and of how many events."""

    def __init__(self) -> None:
        self.values: set[Label] = set()
        self.labelled = 0

    def add(self, frame: Frame) -> None:
        """InputError where there are so many different labels that they can't be classes.

        Counted from the first event on: of 500 classes, a short frame alone may hold as many
        different ones as events.
        """
        self.values.update(frame.label_values)
        self.labelled += int((frame.label_codes >= 0).sum())
        if len(self.values) > max(CROWDED, self.labelled / 2):
            found = f"{len(self.values)} different values in {self.labelled} events"
            _refuse_classes(found, frame)


def _refuse_classes(found: str, frame: Frame) -> None:
    shown = ", ".join(map(repr, frame.label_values[:5]))
    raise InputError(
        f"the label has {found} ({shown}, ...), too many to be classes; choose another --label, "
        f"or cut a quantity into a few classes first (at most {MAX_CLASSES})"
    )


def pooled(
    learners: Sequence[StreamLearner], scores: Sequence[Prequential] | None = None
) -> tuple[Prequential, tuple[Label, ...]]:
    """The counts of all streams as one, and the classes that its codes mean.

    `scores`: others than the learners' own, with their codes.
    """
    codes: dict[Label, int] = {}
    total = Prequential()
    for k, learner in enumerate(learners):
        ours = [codes.setdefault(label, len(codes)) for label in learner.classes]
        total.absorb(learner.prequential if scores is None else scores[k], np.array(ours, np.intp))
    return total, tuple(codes)


def _codes(frame: Frame, outcome: Outcome) -> NDArray[np.int32]:
    code_of = {label: code for code, label in enumerate(outcome.classes)}
    codes = [-1 if label is None else code_of[label] for label in frame.labels()]
    return np.array(codes, np.int32)


def _result(stream: _Stream, readout: Readout) -> StreamResult:
    rehearsal = stream.learner.rehearsal
    scores, drift = stream.learner.prequential, stream.learner.drift.report
    return StreamResult(
        stream=stream.learner.stream,
        n=scores.n,
        accuracy=(stream.keep if readout == "keep" else scores).accuracy,
        no_change=scores.no_change,
        no_change_delayed=scores.no_change_delayed,
        majority=scores.majority,
        drift=str(drift.verdict),
        n_drifts=drift.n_drifts,
        rehearses=rehearsal.trusted,
        recalls={name: None if r != r else r for name, r in rehearsal.recalls.items()},
    )


def _mean_weights(streams: Sequence[_Stream], n: int) -> dict[str, float]:
    mean: dict[str, float] = {}
    for stream in streams:
        share = stream.learner.prequential.n / n
        for head, weight in stream.weights.items():
            mean[head] = mean.get(head, 0.0) + share * weight
    return mean
