"""What a learner hands out: an Outcome a frame, and at any time the state to go on from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.drift import DriftReport, DriftVerdict
from streamlearn.core.records import Frame, Label


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a frame's test showed, before it was learned."""

    base_version: int  # of the model that the frame's first step was predicted with
    probabilities: NDArray[np.float32]  # (n, C at the frame's end); 0 for classes unknown then
    predicted: NDArray[np.int32]  # (n,) index into classes; -1 before any label was seen
    classes: tuple[Label, ...]
    n_labelled: int
    n_correct: int
    n_no_change_correct: int  # by the label before, which may lie in the same step
    n_no_change_delayed_correct: int  # by the last label known before the step
    n_majority_correct: int
    drift: DriftVerdict
    drift_report: DriftReport
    drift_column: str  # that moved most; "" where none did
    heads: tuple[str, ...]  # names of the K heads
    head_weights: NDArray[np.float64]  # (K,) after the frame
    event: NDArray[np.int64]  # (n,) the stream's running count
    kept_slots: NDArray[np.int64]  # (n,) slot of the micro-cluster whose member it became, or -1
    kept_why: NDArray[np.int8]  # (n,) microclusters.Why, -1 where it was not kept
    trusted: str  # the sample that is replayed
    recalls: Mapping[str, float]  # of each sample, when last asked; NaN or none: not known
    predicted_keep: NDArray[np.int32] | None = None  # (n,) by `keep`, where learn was asked for it
    n_repeated: int = 0  # labelled events that were learned before, under their ids: predicted only


@dataclass(frozen=True, slots=True, eq=False)
class LateOutcome:
    """What became of late labels. Rows are positions among them."""

    frame: Frame | None  # the remembered events with their labels, as learned; None: none was
    outcome: Outcome | None  # of this frame; predictions are those that were made when they came
    unknown: tuple[int, ...]  # rows whose event nobody remembers, or is too old
    repeated: tuple[int, ...]  # rows whose event was learned before: ignored


@dataclass(frozen=True, slots=True, eq=False)
class LearnerState:
    """All that a worker needs to go on: JSON-able meta, and arrays. Much larger than a model."""

    meta: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
