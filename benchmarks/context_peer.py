"""A peer that sees what our linear heads see: River's forest on the learner's context features.

How much of a result is the features, and how much the learner? The forest gets standardised
numbers, what is new against three recent means, and recent labels, by the learner's own functions
(core/features.py), step by step as the learner has them; no random features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.features import (
    Layout,
    Projections,
    label_rows,
    move_labels,
    rates_of,
    write_features,
)
from streamlearn.core.preprocess import NUMBER, Input, Standardiser
from streamlearn.core.records import Frame, Label
from streamlearn.core.settings import LearnerSettings


class ContextForest:
    """River's ARF of 10 on [z, new, H]; number columns that stay the same only."""

    def __init__(self, seed: int) -> None:
        from river import forest

        self._model: Any = forest.ARFClassifier(seed=seed)
        settings = LearnerSettings()
        self._rates = rates_of(settings.half_lives)
        self._decays = np.array(settings.label_decays)
        self._classes: list[Label] = []
        self._scale = Standardiser()
        self._means = np.zeros((0, 0))  # (h, d)
        self._labels = np.zeros((0, 1 + len(self._decays)))
        self._seen: list[dict[str, float]] = []  # the step's events, between test and learning

    def predict(self, step: Frame) -> Sequence[Label | None]:
        d = len(step.columns)
        if not self._means.size:
            self._scale.grow([Input(NUMBER, name) for name in step.columns], 0, {})
            self._means = np.zeros((len(self._rates), d))
        classes = label_rows(len(self._classes))
        layout = Layout(0, d, tuple(range(d)), len(self._rates), classes, 1 + len(self._decays))
        none = Projections(np.zeros((1 + d, 0), np.float32), np.zeros((1 + 4 * d, 0), np.float32))
        rows = write_features(
            np.ascontiguousarray(step.numbers), self._scale.mean, self._scale.inverse_std(),
            self._means, self._rates, self._labels, none, layout, advance=True,
        )  # fmt: skip
        self._seen = [{f"f{j}": v for j, v in enumerate(row)} for row in rows[:, 1:].tolist()]
        return [self._model.predict_one(row) for row in self._seen]

    def learn(self, step: Frame) -> None:
        labels = [label for label in step.labels() if label is not None]
        for row, label in zip(self._seen, step.labels(), strict=True):
            if label is not None:
                self._model.learn_one(row, label)
        self._scale.update(np.ascontiguousarray(step.numbers), 0, len(step.columns))
        for label in dict.fromkeys(labels):
            if label not in self._classes:
                self._classes.append(label)
                self._labels = np.vstack([self._labels, np.zeros(1 + len(self._decays))])
        codes: NDArray[np.int32] = np.array([self._classes.index(one) for one in labels], np.int32)
        move_labels(self._labels, self._decays, codes)
