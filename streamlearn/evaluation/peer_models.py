"""Peers' models: other people's learners behind one interface, each fed in the form it likes.

In: steps of one stream. Out: a label for each event. A peer sees what the learner sees (numbers,
categories, texts; no event before its prediction): scikit-learn's get standardised numbers and
hashed words, River's get dicts. They are not tuned: their own defaults.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from streamlearn.core.preprocess import NUMBER, Input, Standardiser
from streamlearn.core.records import Frame, Label

HASHED_WORDS = 2**18  # places of words and pairs of words
CLIP = 5.0  # standard deviations
FEW_VALUES = 16  # string columns with more are no categories for a tree
PLACES = 32  # outputs of a network at first: scikit-learn's can't grow


class Peer(Protocol):
    """Learns one stream."""

    def predict(self, step: Frame) -> Sequence[Label | None]: ...

    def learn(self, step: Frame) -> None: ...


class StandardisedRows:
    """Numbers standardised by what was learned so far; if `words`, beside hashed words."""

    def __init__(self, *, words: bool) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self._words = HashingVectorizer(
            n_features=HASHED_WORDS, ngram_range=(1, 2), alternate_sign=False
        )
        self._columns: tuple[str, ...] = ()
        self._scale = Standardiser()
        self._reads, self._texts = words, False

    def learn(self, step: Frame) -> bool:
        """Take the step in; True where rows are wider than before."""
        fresh = tuple(name for name in step.columns if name not in self._columns)
        texts = self._texts or (self._reads and bool(step.texts))
        wider = bool(fresh) or texts != self._texts
        self._columns, self._texts = self._columns + fresh, texts
        self._scale.grow([Input(NUMBER, name) for name in fresh], 0, {})
        self._scale.update(self._numbers(step), 0, len(self._columns))
        return wider

    def empty(self) -> bool:
        """Whether there is nothing to learn from."""
        return not (self._columns or self._texts)

    def of(self, step: Frame) -> Any:
        """(n, d) array; sparse where there are words."""
        z = (self._numbers(step) - self._scale.mean) * self._scale.inverse_std()
        numbers = np.nan_to_num(np.clip(z, -CLIP, CLIP))
        if not self._texts:
            return numbers
        whole = [
            " ".join(column[i] or "" for column in step.texts.values()) for i in range(len(step))
        ]
        return sparse.hstack([sparse.csr_array(numbers), self._words.transform(whole)]).tocsr()

    def _numbers(self, step: Frame) -> NDArray[np.float64]:
        numbers = np.full((len(step), len(self._columns)), np.nan)
        place = {name: j for j, name in enumerate(self._columns)}
        for j, name in enumerate(step.columns):
            if name in place:
                numbers[:, place[name]] = step.numbers[:, j]
        return np.where(np.isfinite(numbers), numbers, np.nan)


class LinearPeer:
    """scikit-learn's SGDClassifier (logistic loss), partial_fit a step."""

    def __init__(self, seed: int) -> None:
        from sklearn.linear_model import SGDClassifier

        self._new_model: Callable[[], Any] = lambda: SGDClassifier("log_loss", random_state=seed)
        self._rows = StandardisedRows(words=True)
        self._classes: list[Label] = []
        self._model: Any = None

    def predict(self, step: Frame) -> Sequence[Label | None]:
        if self._model is None:
            return [self._classes[0] if self._classes else None] * len(step)
        return [self._classes[code] for code in self._model.predict(self._rows.of(step)).tolist()]

    def learn(self, step: Frame) -> None:
        labelled = [(row, label) for row, label in enumerate(step.labels()) if label is not None]
        if self._rows.learn(step):
            self._model = None  # it can't take new columns: begins anew
        new = dict.fromkeys(label for _, label in labelled if label not in self._classes)
        self._take_classes(list(new))
        if len(self._classes) < 2 or not labelled or self._rows.empty():
            return
        if self._model is None:
            self._model = self._new_model()
        rows = [row for row, _ in labelled]
        codes = [self._classes.index(label) for _, label in labelled]
        x = self._rows.of(step)[rows]
        self._model.partial_fit(x, codes, classes=np.arange(len(self._classes)))

    def _take_classes(self, new: Sequence[Label]) -> None:
        """A model with a row for each of them, zero at first: partial_fit takes none late."""
        n_before, old = len(self._classes), self._model
        self._classes.extend(new)
        if old is None or not new:
            return
        n, width = len(self._classes), old.coef_.shape[1]
        weights, bias = old.coef_, old.intercept_
        if n_before == 2:  # the second class's row alone stood for both
            weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
        model = self._new_model()
        model.partial_fit(np.zeros((1, width)), [0], classes=np.arange(n))
        model.coef_ = np.concatenate([weights, np.zeros((len(new), width))])
        model.intercept_ = np.concatenate([bias, np.zeros(len(new))])
        model.t_ = old.t_
        self._model = model


class NetworkPeer:
    """scikit-learn's MLPClassifier (100 hidden units, Adam), partial_fit a step; reads no words."""

    def __init__(self, seed: int) -> None:
        from sklearn.neural_network import MLPClassifier

        self._new_model: Callable[[], Any] = lambda: MLPClassifier(random_state=seed)
        self._rows = StandardisedRows(words=False)
        self._classes: list[Label] = []
        self._places = PLACES
        self._model: Any = None

    def predict(self, step: Frame) -> Sequence[Label | None]:
        if self._model is None:
            return [self._classes[0] if self._classes else None] * len(step)
        known = self._model.predict_proba(self._rows.of(step))[:, : len(self._classes)]
        return [self._classes[code] for code in known.argmax(axis=1).tolist()]

    def learn(self, step: Frame) -> None:
        if self._rows.learn(step):
            self._model = None
        labels = step.labels()
        new = dict.fromkeys(label for label in labels if label is not None)
        self._classes += [label for label in new if label not in self._classes]
        while len(self._classes) > self._places:  # outputs that no class has yet cost it nothing
            self._places, self._model = 2 * self._places, None
        rows = [row for row, label in enumerate(labels) if label is not None]
        if not rows or self._rows.empty():
            return
        self._model = self._model or self._new_model()
        codes = [self._classes.index(label) for label in labels if label is not None]
        self._model.partial_fit(self._rows.of(step)[rows], codes, classes=np.arange(self._places))


class RiverPeer:
    """One of River's classifiers, an event at a time."""

    def __init__(self, model: Any, *, words: bool = False) -> None:
        """`words`: it wants all texts as one; else strings of few different values."""
        self._model = model
        self._is_words = words
        self._values: dict[str, set[str]] = {}

    def predict(self, step: Frame) -> Sequence[Label | None]:
        return [self._model.predict_one(row) for row in self.rows(step)]

    def learn(self, step: Frame) -> None:
        for row, label in zip(self.rows(step), step.labels(), strict=True):
            if label is not None:
                self._model.learn_one(row, label)

    def rows(self, step: Frame) -> list[dict[str, float | str]]:
        """Events as River takes them; what is missing is left out."""
        if self._is_words:
            return [
                {"text": " ".join(column[i] or "" for column in step.texts.values())}
                for i in range(len(step))
            ]
        for name, column in step.texts.items():
            self._values.setdefault(name, set()).update(text for text in column if text is not None)
        few = [name for name in step.texts if len(self._values[name]) <= FEW_VALUES]
        rows: list[dict[str, float | str]] = []
        for i in range(len(step)):
            pairs = zip(step.columns, step.numbers[i].tolist(), strict=True)
            row: dict[str, float | str] = {name: x for name, x in pairs if np.isfinite(x)}
            rows.append(row | {name: step.texts[name][i] or "" for name in few})
        return rows
