"""Classes over time: is a class still known when others came after it?

In: frames, and models in between. Out: ClassesOverTime. Every tenth labelled event of a class is
held out: never learned, asked again and again. Unlike prequential accuracy, which is about the
events that come next, this weighs all classes seen so far the same, whenever they came.

A class's first accuracy is taken just before the next new class comes, its last one at the end.
Backward transfer is the mean of last - first (Lopez-Paz, Ranzato 2017, Gradient episodic memory,
NeurIPS), forgetting that of best - last over all times before the end (Chaudhry et al. 2018,
Riemannian walk, ECCV); both over the classes that others came after.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from streamlearn.core.model import Model
from streamlearn.core.records import Frame, Label
from streamlearn.evaluation.events import joined, pick

Readout = Literal["serve", "keep"]
READOUTS: tuple[Readout, ...] = ("serve", "keep")
EVERY = 10  # labelled events of a class
MOST = 50  # held-out events of a class; when there are more, every other one goes
FEWEST = 5  # of a class, before what it loses is looked at: of fewer, the best look is luck
FIRST_LOOK, NEXT_LOOK = 256, 1.25  # events until it is asked, and times as many until again


@dataclass(frozen=True, slots=True)
class Memory:
    """What one read-out knows at the end; each class weighs the same."""

    final: float  # accuracy over all classes seen
    backward_transfer: float | None  # None: no class came after another
    forgetting: float | None


@dataclass(frozen=True, slots=True)
class ClassesOverTime:
    """Over all streams and their classes."""

    n_classes: int  # with held-out events
    n_held_out: int
    serve: Memory
    keep: Memory
    # of the largest stream: labelled events learned, classes, accuracy of serve and of keep
    looks: tuple[tuple[int, int, float, float], ...]


@dataclass(slots=True)
class _Class:
    """One class's held-out events, and how well they were named."""

    events: list[Frame] = field(default_factory=list)  # of one event each
    n_seen: int = 0
    every: int = EVERY
    first: dict[Readout, float] = field(default_factory=dict)
    best: dict[Readout, float] = field(default_factory=dict)
    last: dict[Readout, float] = field(default_factory=dict)


class HeldOut:
    """One stream's held-out events."""

    def __init__(self) -> None:
        self.classes: dict[Label, _Class] = {}
        self.n_events = 0
        self.n_learned = 0  # labelled events that were not held out
        self.looks: list[tuple[int, int, float, float]] = []
        self._next_look = FIRST_LOOK

    def take(self, frame: Frame) -> Frame | None:
        """Hold some events out; the rest, None where nothing is left."""
        left: list[int] = []
        for row, label in enumerate(frame.labels()):
            if label is None or not self._wants(label):
                left.append(row)
                self.n_learned += label is not None
            else:
                self._hold(label, pick(frame, np.array([row], np.intp)))
        self.n_events += len(frame)
        if len(left) == len(frame):
            return frame
        return pick(frame, np.array(left, np.intp)) if left else None

    def _wants(self, label: Label) -> bool:
        one = self.classes.setdefault(label, _Class())
        one.n_seen += 1
        return one.n_seen % one.every == 0

    def _hold(self, label: Label, event: Frame) -> None:
        one = self.classes[label]
        one.events.append(event)
        if len(one.events) > MOST:
            one.events = one.events[1::2]
            one.every *= 2

    def brings_class(self, frame: Frame) -> bool:
        """Whether the frame has a class that is new, and not the stream's first one."""
        present = {label for label in frame.labels() if label is not None}
        return bool(self.classes) and not present <= self.classes.keys()

    def due(self) -> bool:
        """Whether it is time to look, by counts."""
        if self.n_events < self._next_look:
            return False
        self._next_look = int(self.n_events * NEXT_LOOK) + 1
        return True

    def look(self, model: Model, *, new_class: bool = False, end: bool = False) -> None:
        """Ask the model for all held-out events; `new_class`: one is about to come."""
        asked = {label: one for label, one in self.classes.items() if one.events}
        if not asked or not model.classes:
            return
        frame = joined([event for one in asked.values() for event in one.events])
        labels = np.array([label for label, one in asked.items() for _ in one.events], object)
        names = np.array([*model.classes, None], object)[:-1]
        for readout in READOUTS:
            named = names[model.predict_proba(frame, readout=readout).argmax(axis=1)]
            for label, one in asked.items():
                of_class = labels == label
                accuracy = float((named[of_class] == label).mean())
                if new_class and len(one.events) >= FEWEST:
                    one.first.setdefault(readout, accuracy)
                if not end and len(one.events) >= FEWEST:
                    one.best[readout] = max(one.best.get(readout, 0.0), accuracy)
                one.last[readout] = accuracy
        means = [float(np.mean([one.last[r] for one in asked.values()])) for r in READOUTS]
        self.looks.append((self.n_learned, len(asked), means[0], means[1]))


def summed_up(streams: Sequence[HeldOut]) -> ClassesOverTime:
    """All streams' classes as one."""
    classes = [one for held in streams for one in held.classes.values() if one.last]
    memories = {readout: _memory(classes, readout) for readout in READOUTS}
    largest = max(streams, key=lambda held: held.n_events)
    return ClassesOverTime(
        n_classes=len(classes),
        n_held_out=sum(len(one.events) for one in classes),
        serve=memories["serve"],
        keep=memories["keep"],
        looks=tuple(largest.looks),
    )


def _memory(classes: Iterable[_Class], readout: Readout) -> Memory:
    classes = list(classes)
    earlier = [one for one in classes if readout in one.first]
    change = [one.last[readout] - one.first[readout] for one in earlier]
    lost = [one.best[readout] - one.last[readout] for one in earlier]
    return Memory(
        final=_mean([one.last[readout] for one in classes]) or 0.0,
        backward_transfer=_mean(change),
        forgetting=_mean(lost),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
