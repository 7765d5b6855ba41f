"""Peers: other people's learners on the same events, tested and learned at the same steps.

In: frames. Out: a PeerResult each. A peer sees what the learner sees (numbers, categories, texts;
no event before its prediction) in the form that it likes: scikit-learn's linear model gets
standardised numbers and hashed words, River's get dicts. They are not tuned: their own defaults.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from streamlearn.core.learner import step_cuts
from streamlearn.core.preprocess import NUMBER, Input, Standardiser
from streamlearn.core.records import Frame, Label
from streamlearn.errors import InputError

INSTALL = "pip install 'streamlearn[benchmarks]'"
PEERS = {"sklearn": "scikit-learn", "river": "river"}  # what --compare takes, and their package
HASHED_WORDS = 2**18  # places of words and pairs of words
CLIP = 5.0  # standard deviations
FEW_VALUES = 16  # string columns with more are no categories for a tree


@dataclass(frozen=True, slots=True)
class PeerResult:
    """One peer over all streams."""

    name: str
    accuracy: float
    events_per_s: float


class Peer(Protocol):
    """Learns one stream."""

    def predict(self, step: Frame) -> Sequence[Label | None]: ...

    def learn(self, step: Frame) -> None: ...


class LinearPeer:
    """scikit-learn's SGDClassifier (logistic loss), partial_fit a step."""

    def __init__(self, seed: int) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.linear_model import SGDClassifier

        self._new_model: Callable[[], Any] = lambda: SGDClassifier("log_loss", random_state=seed)
        self._words = HashingVectorizer(
            n_features=HASHED_WORDS, ngram_range=(1, 2), alternate_sign=False
        )
        self._columns: tuple[str, ...] = ()
        self._texts = False
        self._classes: list[Label] = []
        self._model: Any = None
        self._scale = Standardiser()

    def predict(self, step: Frame) -> Sequence[Label | None]:
        if self._model is None:
            return [self._classes[0] if self._classes else None] * len(step)
        return [self._classes[code] for code in self._model.predict(self._x(step)).tolist()]

    def learn(self, step: Frame) -> None:
        labelled = [(row, label) for row, label in enumerate(step.labels()) if label is not None]
        self._take_columns(step)
        self._scale.update(self._numbers(step), 0, len(self._columns))
        new = dict.fromkeys(label for _, label in labelled if label not in self._classes)
        self._take_classes(list(new))
        if len(self._classes) < 2 or not labelled or not (self._columns or self._texts):
            return
        if self._model is None:
            self._model = self._new_model()
        rows = [row for row, _ in labelled]
        codes = [self._classes.index(label) for _, label in labelled]
        self._model.partial_fit(self._x(step)[rows], codes, classes=np.arange(len(self._classes)))

    def _take_columns(self, step: Frame) -> None:
        """New columns begin the model anew: it can't grow."""
        fresh = tuple(name for name in step.columns if name not in self._columns)
        if fresh or (step.texts and not self._texts):
            self._columns += fresh
            self._texts = self._texts or bool(step.texts)
            self._scale.grow([Input(NUMBER, name) for name in fresh], 0, {})
            self._model = None

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

    def _numbers(self, step: Frame) -> NDArray[np.float64]:
        numbers = np.full((len(step), len(self._columns)), np.nan)
        place = {name: j for j, name in enumerate(self._columns)}
        for j, name in enumerate(step.columns):
            if name in place:
                numbers[:, place[name]] = step.numbers[:, j]
        return np.where(np.isfinite(numbers), numbers, np.nan)

    def _x(self, step: Frame) -> Any:
        z = (self._numbers(step) - self._scale.mean) * self._scale.inverse_std()
        numbers = np.nan_to_num(np.clip(z, -CLIP, CLIP))
        if not self._texts:
            return numbers
        whole = [
            " ".join(column[i] or "" for column in step.texts.values()) for i in range(len(step))
        ]
        return sparse.hstack([sparse.csr_array(numbers), self._words.transform(whole)]).tocsr()


class RiverPeer:
    """One of River's classifiers, an event at a time."""

    def __init__(self, model: Any, *, words: bool) -> None:
        """`words`: it wants all texts as one; else strings of few different values."""
        self._model = model
        self._is_words = words
        self._values: dict[str, set[str]] = {}

    def predict(self, step: Frame) -> Sequence[Label | None]:
        return [self._model.predict_one(row) for row in self._rows(step)]

    def learn(self, step: Frame) -> None:
        for row, label in zip(self._rows(step), step.labels(), strict=True):
            if label is not None:
                self._model.learn_one(row, label)

    def _rows(self, step: Frame) -> list[dict[str, float | str]]:
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


def check_peers(asked: Sequence[str]) -> None:
    """InputError for one that nobody knows, or that is not installed."""
    for name in asked:
        if name not in PEERS:
            raise InputError(f"--compare knows {', '.join(PEERS)}, not {name!r}; leave it out")
        try:
            import_module("sklearn" if name == "sklearn" else name)
        except ImportError as error:
            raise InputError(
                f"--compare {name} needs the package {PEERS[name]}: {INSTALL}, or leave it out"
            ) from error


def _peers_for(frame: Frame, asked: Sequence[str], seed: int) -> dict[str, Peer]:
    """The peers of a stream that begins with this frame."""
    made: dict[str, Peer] = {}
    if "sklearn" in asked:
        made["sklearn SGDClassifier"] = LinearPeer(seed)
    if "river" in asked and frame.texts and not frame.columns:
        from river import feature_extraction, naive_bayes

        bag = feature_extraction.BagOfWords(on="text")
        made["river MultinomialNB"] = RiverPeer(bag | naive_bayes.MultinomialNB(), words=True)
    elif "river" in asked:
        from river import forest, tree

        made["river HoeffdingTree"] = RiverPeer(tree.HoeffdingTreeClassifier(), words=False)
        made["river ARF"] = RiverPeer(forest.ARFClassifier(seed=seed), words=False)
    return made


class Peers:
    """All peers on all streams, prequentially."""

    def __init__(self, asked: Sequence[str], *, step: int, seed: int) -> None:
        check_peers(asked)
        self._asked, self._step, self._seed = tuple(asked), step, seed
        self._peers: dict[str, dict[str, Peer]] = {}  # by stream, then name
        self._right: dict[str, int] = {}
        self._n: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def test_then_learn(self, frame: Frame) -> dict[str, list[bool]]:
        """Of each peer: whether it named each labelled event of the frame."""
        if not self._asked:
            return {}
        first = frame.stream not in self._peers
        if first:
            self._peers[frame.stream] = _peers_for(frame, self._asked, self._seed)
        steps = [frame.rows(*cut) for cut in step_cuts(len(frame), self._step, first=first)]
        told: dict[str, list[bool]] = {}
        for name, peer in self._peers[frame.stream].items():
            start, right = perf_counter(), []
            for step in steps:
                named = peer.predict(step)
                pairs = zip(named, step.labels(), strict=True)
                right += [guess == label for guess, label in pairs if label is not None]
                peer.learn(step)
            self._seconds[name] = self._seconds.get(name, 0.0) + perf_counter() - start
            self._right[name] = self._right.get(name, 0) + sum(right)
            self._n[name] = self._n.get(name, 0) + len(right)
            self._events[name] = self._events.get(name, 0) + len(frame)
            told[name] = right
        return told

    def results(self) -> tuple[PeerResult, ...]:
        """The best first."""
        found = [
            PeerResult(
                name, self._right[name] / max(self._n[name], 1),
                self._events[name] / max(self._seconds[name], 1e-9),
            )
            for name in self._right
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda one: -one.accuracy))
