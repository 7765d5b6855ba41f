"""A peer that sees what our linear heads see: River's forest on the learner's context features.

How much of a result is the features, and how much the learner? The forest gets [z, new, H] of
docs/learner.md, written down plainly: standardised numbers, what is new against three recent
means, recent labels, step by step as the learner has them; no random features. Number columns
only, always the same, without gaps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Frame, Label
from streamlearn.core.settings import LearnerSettings

CLIP = 5.0  # standard deviations


class ContextForest:
    """River's ARF of 10 on [z, new, H]."""

    def __init__(self, seed: int) -> None:
        from river import forest

        self._model: Any = forest.ARFClassifier(seed=seed)
        settings = LearnerSettings()
        self._rates = 1.0 - 0.5 ** (1.0 / np.array(settings.half_lives))  # (h,)
        self._decays = np.array([0.0, *settings.label_decays])  # 0: the last known label
        self._labels: dict[Label, NDArray[np.float64]] = {}  # (1 + decays,) of each class
        self._n = 0
        self._sums: NDArray[np.float64] | None = None  # (2, d) of numbers and of their squares
        self._means: NDArray[np.float64] | None = None  # (h, d) exponentially weighted, of z
        self.seen: list[dict[str, float]] = []  # the step's events, between test and learning

    def predict(self, step: Frame) -> Sequence[Label | None]:
        self.seen = [
            {f"f{j}": value for j, value in enumerate(row)} for row in self._rows(step.numbers)
        ]
        return [self._model.predict_one(row) for row in self.seen]

    def _rows(self, numbers: NDArray[np.float64]) -> list[list[float]]:
        if self._sums is None or self._means is None:
            self._sums = np.zeros((2, numbers.shape[1]))
            self._means = np.zeros((len(self._rates), numbers.shape[1]))
        mean, squares = self._sums / max(self._n, 1)
        std = np.sqrt(np.maximum(squares - mean**2, 0.0))
        std[std == 0] = 1.0
        recent = np.concatenate([np.zeros(0), *self._labels.values()])  # frozen over the step
        rows: list[list[float]] = []
        for z in np.clip((numbers - mean) / std, -CLIP, CLIP):
            new = z - self._means
            self._means += self._rates[:, None] * new
            rows.append(np.concatenate([z, new.ravel(), recent]).tolist())
        return rows

    def learn(self, step: Frame) -> None:
        for row, label in zip(self.seen, step.labels(), strict=True):
            if label is None:
                continue
            self._model.learn_one(row, label)
            self._labels.setdefault(label, np.zeros(len(self._decays)))
            for other, recent in self._labels.items():
                recent *= self._decays
                recent += (1.0 - self._decays) * (other == label)
        self._n += len(step)
        if self._sums is not None:
            self._sums += [step.numbers.sum(axis=0), (step.numbers**2).sum(axis=0)]
