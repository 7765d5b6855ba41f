"""The learner on a file, without Kafka: test, then learn, and count.

In: frames, as `sources` gives them. Out: an Evaluation. It is the worker's learner with the same
settings, one a stream, so its figures are what a worker would reach on the same frames.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from streamlearn.core.learner import Outcome, StreamLearner
from streamlearn.core.prequential import Prequential
from streamlearn.core.records import MAX_FRAME_EVENTS, Frame, Label
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import InputError

FRAME_EVENTS = 1024  # about: frames hold whole steps
MAX_CLASSES = 1000
CROWDED = 64  # different labels in a frame, at which it is asked whether they are classes


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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Prequential figures over all streams. Rates are of the n labelled events, 0..1."""

    n: int
    accuracy: float
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
    experts: dict[str, float]  # weight of each expert at the end, mean over streams by events
    streams: tuple[StreamResult, ...]  # the ones with most labelled events first

    def as_json(self) -> dict[str, Any]:
        """JSON-able, with the fields' names as keys."""
        shown: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        shown["classes"] = list(self.classes)
        shown["streams"] = [
            {name: getattr(one, name) for name in one.__slots__} for one in self.streams
        ]
        return shown


def frame_events(step: int) -> int:
    """Events a frame to evaluate with: whole steps, since a step never spans two frames."""
    if not 1 <= step <= MAX_FRAME_EVENTS:
        raise InputError(
            f"a step is 1..{MAX_FRAME_EVENTS} events, got --step {step}; 32 is a good start"
        )
    return step * max(FRAME_EVENTS // step, 1)


def evaluate(
    frames: Iterable[Frame],
    settings: LearnerSettings,
    *,
    watch: Callable[[Frame, Outcome], None] | None = None,
) -> Evaluation:
    """Test and learn all frames, in their order; `watch` sees each frame and its outcome.

    InputError where there is nothing to score, or where the labels are no classes.
    """
    learners: dict[str, StreamLearner] = {}
    weights: dict[str, dict[str, float]] = {}
    events = 0
    start = perf_counter()
    for frame in frames:
        check_classes(frame)
        learner = learners.get(frame.stream)
        if learner is None:
            learner = learners[frame.stream] = StreamLearner(frame.stream, settings)
        outcome = learner.learn(frame)
        if len(outcome.classes) > MAX_CLASSES:
            _refuse_classes(f"{len(outcome.classes)} different values", frame)
        weights[frame.stream] = dict(zip(outcome.heads, outcome.head_weights.tolist(), strict=True))
        events += len(frame)
        if watch is not None:
            watch(frame, outcome)
    seconds = perf_counter() - start
    if events == 0:
        raise InputError("there are no events to evaluate; give a file that has some")
    total, classes = pooled(list(learners.values()))
    if total.n == 0:
        raise InputError(
            f"none of the {events} events has a label, so nothing can be scored or learned; "
            "name the column that holds the classes with --label"
        )
    return replace(
        _figures(total, classes),
        events_per_s=events / seconds,
        seconds=seconds,
        events=events,
        step=settings.step_events,
        seed=settings.seed,
        experts=_mean_weights(learners, weights, total.n),
        streams=tuple(sorted((_result(one) for one in learners.values()), key=lambda r: -r.n)),
    )


def check_classes(frame: Frame) -> None:
    """InputError where a frame has so many different labels that they can't be classes."""
    labelled = int((frame.label_codes >= 0).sum())
    different = len(frame.label_values)
    if different > max(CROWDED, labelled / 2):
        _refuse_classes(f"{different} different values in {labelled} events", frame)


def _refuse_classes(found: str, frame: Frame) -> None:
    shown = ", ".join(map(repr, frame.label_values[:5]))
    raise InputError(
        f"the label has {found} ({shown}, ...), too many to be classes; choose another --label, "
        f"or cut a quantity into a few classes first (at most {MAX_CLASSES})"
    )


def pooled(learners: Sequence[StreamLearner]) -> tuple[Prequential, tuple[Label, ...]]:
    """The counts of all streams as one, and the classes that its codes mean."""
    codes: dict[Label, int] = {}
    total = Prequential()
    for learner in learners:
        ours = [codes.setdefault(label, len(codes)) for label in learner.classes]
        total.absorb(learner.prequential, np.array(ours, np.intp))
    return total, tuple(codes)


def _figures(total: Prequential, classes: tuple[Label, ...]) -> Evaluation:
    return Evaluation(
        n=total.n,
        accuracy=total.accuracy,
        kappa=total.kappa,
        kappa_temporal=total.kappa_temporal,
        no_change=total.no_change,
        no_change_delayed=total.no_change_delayed,
        majority=total.majority,
        events_per_s=0.0,
        seconds=0.0,
        classes=classes,
        events=0,
        step=0,
        seed=0,
        experts={},
        streams=(),
    )


def _result(learner: StreamLearner) -> StreamResult:
    scores, drift = learner.prequential, learner.drift.report
    return StreamResult(
        stream=learner.stream,
        n=scores.n,
        accuracy=scores.accuracy,
        no_change=scores.no_change,
        no_change_delayed=scores.no_change_delayed,
        majority=scores.majority,
        drift=str(drift.verdict),
        n_drifts=drift.n_drifts,
    )


def _mean_weights(
    learners: dict[str, StreamLearner], weights: dict[str, dict[str, float]], n: int
) -> dict[str, float]:
    mean: dict[str, float] = {}
    for stream, heads in weights.items():
        share = learners[stream].prequential.n / n
        for head, weight in heads.items():
            mean[head] = mean.get(head, 0.0) + share * weight
    return mean
