"""Stage 4, prequential: scores every step's predictions before its labels are learned.

In: a step's true and predicted class codes. Out: counts, in fixed memory per class, from which
accuracy, kappa, kappa-temporal and the two baselines beside every model follow:

- no-change, immediate: the label of the event before (it may lie in the same step, so a model
  that gets its labels a step later can fairly lose to it),
- no-change, delayed: the last label known before the step: what the model itself could know,
- majority: the most frequent label before the event (the earlier leader wins a tie).

Unlike drift, which asks whether the error changes, this stage only says how large it is.

Gama, Sebastiao, Rodrigues 2013, On evaluating stream learning algorithms, Machine Learning 90
(prequential error, fading factors). Bifet, Read, Zliobaite, Pfahringer, Holmes 2013, Pitfalls in
benchmarking data stream classification, ECML PKDD (no-change, kappa-temporal).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.grown import grown
from streamlearn.errors import StateError

# An event's share: about the last 1000 count, as in the heads' middle window (Gama et al. 2013).
FADING = 0.999

# Positions in Prequential's counts (int64).
_N, _CORRECT, _NO_CHANGE, _DELAYED, _MAJORITY, _LAST, _LEADER = range(7)


@dataclass(frozen=True, slots=True)
class StepScore:
    """Labelled events of one step, and how many of them each predictor got right."""

    n: int
    correct: int
    no_change: int
    no_change_delayed: int
    majority: int


class Prequential:
    """Test-then-train scores of one stream. All rates are 0 before the first labelled event.

    >>> scores = Prequential()
    >>> step = scores.update(np.array([0, 0, 1, -1], np.int32), np.array([-1, 0, 0, 1], np.int32))
    >>> step  # the last event has no label, so it isn't scored
    StepScore(n=3, correct=1, no_change=1, no_change_delayed=0, majority=1)
    >>> round(scores.accuracy, 3), scores.n
    (0.333, 3)
    """

    __slots__ = ("_counts", "_faded", "fading", "n_correct", "n_predicted", "n_true")

    def __init__(self, *, fading: float = FADING) -> None:
        self.fading = fading
        self._counts: NDArray[np.int64] = np.zeros(7, np.int64)
        self._counts[[_LAST, _LEADER]] = -1
        self._faded: NDArray[np.float64] = np.zeros(3)  # weight, correct, no-change correct
        self.n_true: NDArray[np.int64] = np.zeros(0, np.int64)  # (C,) events that are of the class
        self.n_predicted: NDArray[np.int64] = np.zeros(0, np.int64)  # (C,) called it
        self.n_correct: NDArray[np.int64] = np.zeros(0, np.int64)  # (C,) both

    def update(self, true: NDArray[np.int32], predicted: NDArray[np.int32]) -> StepScore:
        """Score one step: codes (n,) of true (-1: unlabelled) and predicted classes (-1: none).

        The number of classes grows with the codes.
        """
        if true.shape != predicted.shape or true.ndim != 1:
            raise ValueError(
                f"a step has one prediction an event: got true {true.shape} and predicted "
                f"{predicted.shape}; pass two (n,) arrays of class codes"
            )
        if len(true):
            self._grow(1 + max(int(true.max()), int(predicted.max())))
        before = self._counts.copy()
        _score(
            np.ascontiguousarray(true, np.int32),
            np.ascontiguousarray(predicted, np.int32),
            self._counts,
            self._faded,
            self.n_true,
            self.n_predicted,
            self.n_correct,
            self.fading,
        )
        gained = (self._counts - before)[_N : _MAJORITY + 1].tolist()
        return StepScore(*gained)

    def absorb(self, other: "Prequential", codes: NDArray[np.intp]) -> None:
        """Add another stream's counts; `codes` (its C,) says which class of ours each of its is.

        Each stream keeps its own no-change and majority, so the sum stays causal.
        """
        if len(codes):
            self._grow(1 + int(codes.max()))
        self._counts[: _MAJORITY + 1] += other._counts[: _MAJORITY + 1]
        self._faded += other._faded
        np.add.at(self.n_true, codes, other.n_true)
        np.add.at(self.n_predicted, codes, other.n_predicted)
        np.add.at(self.n_correct, codes, other.n_correct)

    def _grow(self, n_classes: int) -> None:
        new = n_classes - len(self.n_true)
        if new > 0:
            self.n_true = grown(self.n_true, new)
            self.n_predicted = grown(self.n_predicted, new)
            self.n_correct = grown(self.n_correct, new)

    def _share(self, position: int) -> float:
        return int(self._counts[position]) / max(self.n, 1)

    @property
    def n(self) -> int:
        """Labelled events scored so far."""
        return int(self._counts[_N])

    @property
    def accuracy(self) -> float:
        return self._share(_CORRECT)

    @property
    def no_change(self) -> float:
        """Accuracy of predicting the label of the event before."""
        return self._share(_NO_CHANGE)

    @property
    def no_change_delayed(self) -> float:
        """Accuracy of predicting, for a whole step, the last label known before it."""
        return self._share(_DELAYED)

    @property
    def majority(self) -> float:
        """Accuracy of predicting the most frequent label so far."""
        return self._share(_MAJORITY)

    @property
    def kappa(self) -> float:
        """Cohen 1960: accuracy above what the two margins reach by chance, 1 at best."""
        n = max(self.n, 1)
        by_chance = float(self.n_true @ self.n_predicted) / (n * n)
        return _above(self.accuracy, by_chance)

    @property
    def kappa_temporal(self) -> float:
        """Bifet et al. 2013: accuracy above no-change; negative where no-change is better."""
        return _above(self.accuracy, self.no_change)

    @property
    def accuracy_faded(self) -> float:
        """Accuracy of about the last 1 / (1 - fading) events (Gama et al. 2013)."""
        weight, correct, _ = self._faded.tolist()
        return float(correct / weight) if weight else 0.0

    @property
    def no_change_faded(self) -> float:
        """Immediate no-change over the same recent events as `accuracy_faded`."""
        weight, _, correct = self._faded.tolist()
        return float(correct / weight) if weight else 0.0

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict and copies of the arrays."""
        return {"fading": self.fading}, {
            "counts": self._counts.copy(),
            "faded": self._faded.copy(),
            "n_true": self.n_true.copy(),
            "n_predicted": self.n_predicted.copy(),
            "n_correct": self.n_correct.copy(),
        }

    @classmethod
    def restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Prequential":
        """Go on, to the bit, from what `state` gave. StateError where it doesn't fit."""
        try:
            scores = cls(fading=float(meta["fading"]))
            scores._counts = np.array(arrays["counts"], np.int64)
            scores._faded = np.array(arrays["faded"], np.float64)
            scores.n_true = np.array(arrays["n_true"], np.int64)
            scores.n_predicted = np.array(arrays["n_predicted"], np.int64)
            scores.n_correct = np.array(arrays["n_correct"], np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"a scorer's state lacks or garbles {error}; restore what Prequential.state() gave"
            ) from error
        sizes = {scores.n_true.shape, scores.n_predicted.shape, scores.n_correct.shape}
        if scores._counts.shape != (7,) or scores._faded.shape != (3,) or len(sizes) != 1:
            raise StateError(
                f"a scorer's state has 7 counts, 3 faded sums and a count per class: got "
                f"{scores._counts.shape}, {scores._faded.shape}, {sorted(sizes)}; it is corrupt"
            )
        return scores


def _above(accuracy: float, baseline: float) -> float:
    """Share of the room above the baseline that is used; 0 where there is no room."""
    return (accuracy - baseline) / (1 - baseline) if baseline < 1 else 0.0


@numba.njit(cache=True, nogil=True)
def _score(
    true: NDArray[np.int32],
    predicted: NDArray[np.int32],
    counts: NDArray[np.int64],
    faded: NDArray[np.float64],
    n_true: NDArray[np.int64],
    n_predicted: NDArray[np.int64],
    n_correct: NDArray[np.int64],
    fading: float,
) -> None:
    """One pass over a step, in place."""
    known = counts[_LAST]  # the last label known before the step
    for i in range(len(true)):
        label = true[i]
        if label < 0:
            continue
        guess = predicted[i]
        counts[_N] += 1
        n_true[label] += 1
        if guess >= 0:
            n_predicted[guess] += 1
        for k in range(3):
            faded[k] *= fading
        faded[0] += 1.0
        if guess == label:
            counts[_CORRECT] += 1
            n_correct[label] += 1
            faded[1] += 1.0
        if counts[_LAST] == label:
            counts[_NO_CHANGE] += 1
            faded[2] += 1.0
        if known == label:
            counts[_DELAYED] += 1
        leader = counts[_LEADER]
        if leader == label:
            counts[_MAJORITY] += 1
        elif leader < 0 or n_true[label] > n_true[leader]:
            counts[_LEADER] = label
        counts[_LAST] = label
