"""Stage 8, ask: which of a stream's unlabelled events a person should label, and why.

In: a model and a frame of events without labels. Out: a few of its rows, the most useful first,
each with what the model says of it now. `suggest` chooses; here rows are brought to scale for it,
and its choice into words. Off the hot path.
"""

from dataclasses import dataclass

import numpy as np

from streamlearn.core.model import Model
from streamlearn.core.records import Frame, Label
from streamlearn.core.suggest import suggest


@dataclass(frozen=True, slots=True)
class Question:
    """One event that is worth a label."""

    row: int  # in the frame that was asked about
    event_id: str  # "" where it has none: then no late label can name it
    event_time_s: float  # seconds since the epoch
    predicted: Label | None  # what the model says now, None: it knows no class yet
    probability: float  # of that, 0..1
    why: str


def ask(model: Model, frame: Frame, n: int) -> tuple[Question, ...]:
    """At most `n` of the frame's events; the same model and frame give the same answer.

    Fewer where fewer events differ. The model's margins count once it knows two classes.
    """
    probabilities = model.predict_proba(frame)
    knows = probabilities.shape[1] >= 2
    rows = model.standardised(frame)
    if not rows.shape[1]:  # texts and images only: alike is what the model says the same of
        rows = probabilities.astype(np.float64) if knows else np.zeros((len(frame), 1))
    chosen = suggest(rows, n, probabilities=probabilities if knows else None)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    questions = []
    for row in chosen.tolist():
        predicted: Label | None = None
        probability, why = 0.0, "typical of the events around it"
        if probabilities.shape[1]:
            first = int(order[row, 0])
            predicted, probability = model.classes[first], float(probabilities[row, first])
        if knows:
            second = int(order[row, 1])
            why = f"between {predicted} and {model.classes[second]}"
        event_id = frame.event_ids[row] if frame.event_ids else ""
        time_s = float(frame.event_time_s[row])
        questions.append(Question(row, event_id, time_s, predicted, probability, why))
    return tuple(questions)
