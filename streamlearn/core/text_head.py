"""Experts, text: the text expert as two heads of the pool, and its share of `keep`.

In: log-probabilities of texts. Out: two more heads' scores, after the ones on numbers:

    text      the probabilities, for the mixture of probabilities
    text/log  log p / 2, above -8 / 2, for the mixtures whose scores add up: weighed 2, it counts as
              evidence beside the others' (huffpost .6700 -> .6740, log-likelihood -1.26 -> -1.12)

An event whose texts say nothing (none, or words never seen) leaves them asleep: they answer as
the others do together, so nobody's weight moves (Freund, Schapire, Singer, Warmuth 1997, Using
and combining predictors that specialize, STOC).

In `keep` texts have a share by their prequential log-likelihood against the number heads', a mean
over classes, each over its recent events: a class that is rare now still counts.
"""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from streamlearn.core.pool import CLIP, KEEP_RATE, mix_scores
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.text import TextExpert, Texts, TextSettings

TEXT_HEADS = ("text", "text/log")
FIRST_STACK = (0.0, 1.0)  # their weights in the mixtures whose scores add up, before learning
LOG_FLOOR, LOG_SCALE = np.float32(-8.0), np.float32(0.5)
SHARE_WINDOW = 50.0  # events of a class


@numba.njit(cache=True, nogil=True, error_model="numpy")
def write_text_scores(
    logs: NDArray[np.float32], weights: NDArray[np.float64], scores: NDArray[np.float32]
) -> None:
    """The last two heads of scores (n, K, C) from logs (n, C); `weights` (K,) of the heads."""
    n, n_heads, n_classes = scores.shape
    others = weights[: n_heads - 2]
    answer = np.empty(n_classes)
    for i in range(n):
        awake = False
        for c in range(n_classes):
            awake = awake or logs[i, c] != logs[i, 0]
            scores[i, n_heads - 2, c] = np.exp(logs[i, c])
            scores[i, n_heads - 1, c] = LOG_SCALE * max(logs[i, c], LOG_FLOOR)
        if not awake:
            mix_scores(scores[i, : n_heads - 2], others, answer)
            total = max(answer.sum(), 1e-300)
            for c in range(n_classes):
                scores[i, n_heads - 2, c] = answer[c] / total


def awake(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) whether the texts of each event said anything, from its scores (n, K, C)."""
    logs = scores[:, -1]
    found: NDArray[np.bool_] = (logs != logs[:, :1]).any(axis=1)
    return found


def widened(scores: NDArray[np.float32], n_classes: int) -> NDArray[np.float32]:
    """Scores (n, K, C) of a step that brought classes: as unlikely as the least likely one."""
    wider = np.pad(scores, ((0, 0), (0, 0), (0, n_classes - scores.shape[2])))
    wider[:, -1, scores.shape[2] :] = scores[:, -1].min(axis=1, keepdims=True)
    return wider


def keep_with_texts(
    kept: NDArray[np.float32], scores: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    """(n, C): `kept` (n, C) by the number heads, and the texts' share where they say something."""
    likely = np.maximum(scores[:, -2].astype(np.float64), CLIP)
    likely /= likely.sum(axis=1, keepdims=True)
    both = (1.0 - share) * kept + share * likely
    return np.where(awake(scores)[:, None], both, kept).astype(np.float32)


class TextHead:
    """A stream's text expert, learning, and how it recalls each class beside the numbers."""

    def __init__(self, expert: TextExpert) -> None:
        self.expert = expert
        self.gain: NDArray[np.float64] = np.zeros(expert.n_classes)  # (C,) log-likelihood over
        # the number heads', discounted sum over the class's events
        self.count: NDArray[np.float64] = np.zeros(expert.n_classes)  # (C,) discounted events
        self._tensors: dict[str, NDArray[Any]] | None = None

    @classmethod
    def new(cls, settings: LearnerSettings, key: int) -> "TextHead":
        return cls(TextExpert(key=key, settings=text_settings(settings)))

    def grow(self, n_classes: int) -> None:
        self.expert.grow(n_classes)
        more = n_classes - len(self.gain)
        self.gain, self.count = np.pad(self.gain, (0, more)), np.pad(self.count, (0, more))
        self._tensors = None

    @property
    def share(self) -> float:
        """The texts' share of `keep`, 0..1."""
        seen = self.count > 0
        mean = float((self.gain[seen] / self.count[seen]).mean()) if seen.any() else 0.0
        return float(1.0 / (1.0 + np.exp(-np.clip(KEEP_RATE * mean, -500.0, 500.0))))

    def weigh(
        self, kept: NDArray[np.float32], scores: NDArray[np.float32], codes: NDArray[np.int32]
    ) -> None:
        """Labels of events (n,) arrived, for which the number heads' keep gave `kept` (n, C)."""
        rows = np.arange(len(codes))
        likely = np.maximum(scores[:, -2].astype(np.float64), CLIP)
        likely /= likely.sum(axis=1, keepdims=True)
        gains = np.log(likely[rows, codes] / np.maximum(kept[rows, codes], 1e-6))
        discount = 1.0 - 1.0 / SHARE_WINDOW
        for i in np.flatnonzero(awake(scores)).tolist():
            code = codes[i]
            self.gain[code] = discount * self.gain[code] + gains[i]
            self.count[code] = discount * self.count[code] + 1.0

    def learn(self, texts: Texts, codes: NDArray[np.int32], grams: csr_array | None) -> None:
        """Learn a step's texts and their grams; codes (n,), -1 where unlabelled."""
        self.expert.learn(texts, codes, grams)
        self._tensors = None

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For a model; the same objects until something is learned."""
        if self._tensors is None:
            self._tensors = self.expert.tensors()
        return {**self._tensors, "text/share": np.array([self.share])}

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict, and arrays."""
        meta, arrays = self.expert.state()
        return meta, {**arrays, "gain": self.gain.copy(), "count": self.count.copy()}

    @classmethod
    def restore(
        cls, settings: LearnerSettings, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> "TextHead":
        """Go on from what `state` gave. StateError, KeyError, ValueError where it doesn't fit."""
        head = cls(TextExpert.restore(meta, arrays, text_settings(settings)))
        for name in ("gain", "count"):
            array = np.array(arrays[name], np.float64)
            if array.shape != (head.expert.n_classes,):
                raise ValueError(f"text/{name} is {array.shape}")
            setattr(head, name, array)
        return head


def text_settings(settings: LearnerSettings) -> TextSettings:
    """What of the learner's settings is the text expert's."""
    return TextSettings(stop_words=settings.stop_words, max_weights=settings.text_weights)
