"""Beside the stages: how a frame is cut into steps, and what becomes of their tests.

In: a frame's number of events; each step's test. Out: cuts; the frame's Outcome.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.drift import DriftReport
from streamlearn.core.grown import grown
from streamlearn.core.outcome import Outcome
from streamlearn.core.prequential import StepScore
from streamlearn.core.records import Label
from streamlearn.core.rehearsal import Rehearsal, Taken


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A step of n events that was tested and learned."""

    served: NDArray[np.float32]  # (n, C before the step)
    predicted: NDArray[np.int32]  # (n,)
    score: StepScore
    event: NDArray[np.int64]  # (n,) the stream's running count
    kept: Taken
    predicted_keep: NDArray[np.int32] | None = None  # (n,) by `keep`, where it was asked


@lru_cache(maxsize=8)
def step_cuts(n: int, step_events: int, *, first: bool) -> list[tuple[int, int]]:
    """Start and stop of each step of a frame of n events.

    A stream's first frame begins with steps of 1, 1, 2, 4, ... events, so that all but its
    first event are tested by something; a stream may not have many frames.

    >>> step_cuts(20, 8, first=True)
    [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 20)]
    """
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < n:
        longest = max(start, 1) if first else n
        stop = min(start + min(longest, step_events), n)
        cuts.append((start, stop))
        start = stop
    return cuts


def named(probabilities: NDArray[np.float32]) -> NDArray[np.int32]:
    """(n,) the likeliest class; -1 where there is none yet."""
    if not probabilities.shape[1]:
        return np.full(len(probabilities), -1, np.int32)
    return np.asarray(probabilities.argmax(axis=1), np.int32)


def outcome_of(
    steps: Sequence[Step],
    *,
    base_version: int,
    classes: tuple[Label, ...],
    report: DriftReport,
    columns: tuple[str, ...],
    heads: tuple[str, ...],
    head_weights: NDArray[np.float64],
    rehearsal: Rehearsal,
) -> Outcome:
    """Of a frame's steps; all else as it is after the last one. `columns`: those of numbers."""
    by_keep = [step.predicted_keep for step in steps if step.predicted_keep is not None]
    return Outcome(
        base_version=base_version,
        probabilities=_joined([_widened(step.served, len(classes)) for step in steps]),
        predicted=_joined([step.predicted for step in steps]),
        classes=classes,
        n_labelled=sum(step.score.n for step in steps),
        n_correct=sum(step.score.correct for step in steps),
        n_no_change_correct=sum(step.score.no_change for step in steps),
        n_no_change_delayed_correct=sum(step.score.no_change_delayed for step in steps),
        n_majority_correct=sum(step.score.majority for step in steps),
        drift=report.verdict,
        drift_report=report,
        drift_column=columns[report.column] if 0 <= report.column < len(columns) else "",
        heads=heads,
        head_weights=head_weights,
        event=_joined([step.event for step in steps]),
        kept_slots=_joined([step.kept.clusters for step in steps]),
        kept_why=_joined([step.kept.why for step in steps]),
        trusted=rehearsal.trusted,
        recalls=dict(rehearsal.recalls),
        predicted_keep=_joined(by_keep) if len(by_keep) == len(steps) else None,
    )


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _widened(served: NDArray[np.float32], n_classes: int) -> NDArray[np.float32]:
    """(n, n_classes): classes that were unknown when the step was served have 0."""
    missing = n_classes - served.shape[1]
    return grown(served, 0, missing) if missing else served
