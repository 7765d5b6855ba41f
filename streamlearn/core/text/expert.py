"""Text, expert: an online softmax on the hashed n-grams of a stream's texts.

In: text columns and class codes. Out: weights that log-probabilities follow from. A text is
weighted log tf x idf at unit length, idf from the stream's own past, and learned by one step of
plain gradient at a constant rate, then one text replayed for it, its class drawn evenly from all
classes. Unlike the heads on numbers it has weights only for what recurs: a table of rows, one a
gram that came in ADMIT_AFTER texts, bounded by `max_weights`; a full table loses its smallest.

Measured on huffpost_10k, title and text, 32 events a step (benchmarks/text.py). Plain gradient
equals Adagrad with one sum of squares a row (.669, .670) and beats it with one a weight (.662);
it needs no second table and never stops. Averaged weights lose (.655): news are clustered in time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from streamlearn.core.text.grams import (
    BUCKETS,
    STOP_WORD_LISTS,
    below,
    hashed_grams,
    stop_word_list,
)
from streamlearn.core.text.replay import TextReplay
from streamlearn.core.text.table import admit, largest, learn_rows
from streamlearn.core.text.weights import (
    Texts,
    TextWeights,
    csr_parts,
    rarity_of,
    serve,
)
from streamlearn.errors import ConfigError, StateError

FIRST_ROWS = 1024  # of a table; it doubles as it fills
PRIOR_HALF_LIFE = 1000.0  # texts, of a class's frequency; 200 and for ever are as good


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """What changes a text expert's predictions."""

    stop_words: str = "keep"  # or "english": left out of words, not of characters
    rate: float = 4.0  # of gradient on texts of length 1; 3 to 5 are equal, 8 loses .009
    max_weights: int = 1 << 21  # rows x classes, 5 bytes each; 2^20 loses .003 at 29 classes
    replay_per_class: int = 20  # texts; 50 and 200 are no better

    def __post_init__(self) -> None:
        if self.stop_words not in STOP_WORD_LISTS:
            raise ConfigError(
                f"stop_words={self.stop_words!r} is no list; choose of {', '.join(STOP_WORD_LISTS)}"
            )
        if not (self.rate > 0 and self.max_weights >= 1 and self.replay_per_class >= 1):
            raise ConfigError(f"a text expert's numbers are positive, not {self}")


class TextExpert:
    """Learns one stream's texts in bounded memory; classes and columns may come at any time.

    >>> expert = TextExpert(key=7)
    >>> headlines = {"title": ("rain all week", "goal in extra time", "more rain", "late goal")}
    >>> for _ in range(3):
    ...     expert.learn(headlines, np.array([0, 1, 0, 1]))
    >>> scores = expert.weights().predict({"title": ("rain tomorrow", "a late goal")})
    >>> scores.argmax(axis=1).tolist()
    [0, 1]
    """

    def __init__(self, *, key: int, settings: TextSettings | None = None) -> None:
        """`key` stands for (seed, stream): all random draws follow from it and from counts."""
        self.settings = settings or TextSettings()
        self.key = key
        self.n_texts = 0  # labelled events learned
        self._seen: NDArray[np.uint8] = np.zeros(BUCKETS, np.uint8)  # texts, before admission
        self._slots: NDArray[np.int32] = np.full(BUCKETS, -1, np.int32)
        self._buckets: NDArray[np.int32] = np.full(FIRST_ROWS, -1, np.int32)  # (R,) -1 free
        self._texts: NDArray[np.int32] = np.zeros(FIRST_ROWS, np.int32)  # (R,) that had the gram
        self._weights: NDArray[np.float32] = np.zeros((FIRST_ROWS, 0), np.float32)  # (R, C)
        self._served: NDArray[np.int8] = np.zeros((FIRST_ROWS, 0), np.int8)  # (R, C)
        self._rarity: NDArray[np.uint8] = np.zeros(FIRST_ROWS, np.uint8)  # (R,)
        self._prior: NDArray[np.float32] = np.zeros(0, np.float32)  # (C,)
        self._replay = TextReplay(self.settings.replay_per_class, key)

    @property
    def n_classes(self) -> int:
        return len(self._prior)

    @property
    def n_rows(self) -> int:
        """Rows in the table, free ones included."""
        return len(self._buckets)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held, texts kept for replay aside."""
        held = (self._seen, self._slots, self._buckets, self._texts, self._rarity)
        return sum(a.nbytes for a in (*held, self._weights, self._served))

    def grow(self, n_classes: int) -> None:
        """At least `n_classes` classes; `learn` does it by itself."""
        if n_classes > self.n_classes:
            more = n_classes - self.n_classes
            wider = ((0, 0), (0, more))
            self._prior = np.pad(self._prior, (0, more))
            self._weights = np.pad(self._weights, wider)
            self._served = np.pad(self._served, wider)
            if self.n_rows > self._most_rows():
                self._evict(self.n_rows - self._most_rows())
                self._compact(self._most_rows())

    def predict(self, columns: Texts) -> NDArray[np.float32]:
        """(n, C) log-probabilities: to the bit those of `weights().predict`."""
        return self.view().predict(columns)

    def weights(self) -> TextWeights:
        """A copy of what is served."""
        return TextWeights.of(self.tensors(), stop_words=self.settings.stop_words)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """A copy of what is served, as named arrays for a model; read-only."""
        tensors = {name: np.array(tensor) for name, tensor in self.view().tensors().items()}
        for tensor in tensors.values():
            tensor.flags.writeable = False
        return tensors

    def learn(
        self, columns: Texts, codes: NDArray[np.integer[Any]], grams: csr_array | None = None
    ) -> None:
        """Learn n events in sequence: class codes (n,), -1 where unlabelled (left out).

        `grams` (n, BUCKETS): the texts', where somebody has hashed them already.
        """
        labelled = np.flatnonzero(np.asarray(codes) >= 0)
        if len(labelled) == 0:
            return
        new: dict[str, list[str | None]] = {
            name: [column[i] for i in labelled.tolist()] for name, column in columns.items()
        }
        new_codes = np.asarray(codes)[labelled].astype(np.int32)
        self.grow(1 + int(new_codes.max()))
        old, old_codes = self._replay.draw(self.n_texts, len(new_codes))
        n_old = len(old_codes)
        if grams is None:
            grams = self.grams(new)
        elif len(labelled) < len(codes):
            grams = grams[labelled]
        if n_old:
            grams = below(grams, self.grams(old))
        self.n_texts += len(new_codes)
        touched = self._admit(grams.indices[: grams.indptr[len(new_codes)]])
        order = np.arange(len(new_codes) + n_old)
        if n_old:  # each text, then the one replayed for it
            order = order.reshape(2, -1).T.ravel()
        every_code = np.concatenate([new_codes, old_codes])
        indptr, indices, counts = csr_parts(grams)
        learn_rows(
            indptr,
            indices,
            counts,
            every_code,
            order,
            self._slots,
            self._rarity,
            self.n_texts,
            self._weights,
            touched,
            np.float32(self.settings.rate),
        )
        self._prior *= np.float32(0.5 ** (len(new_codes) / PRIOR_HALF_LIFE))
        self._prior += np.bincount(new_codes, minlength=self.n_classes).astype(np.float32)
        serve(np.flatnonzero(touched), self._buckets, self._weights, self._served)
        self._replay.offer(self.n_texts - len(new_codes), new, new_codes)

    def grams(self, columns: Texts) -> csr_array:
        """(n, BUCKETS) of n events' texts: what is predicted, and learned, from."""
        return hashed_grams(columns, stop_words=stop_word_list(self.settings.stop_words))

    def view(self) -> TextWeights:
        """What is served, in arrays that change with the next `learn` or `grow`: not to keep."""
        stop_words = self.settings.stop_words
        return TextWeights(
            slots=self._slots,
            rarity=self._rarity,
            weights=self._served,
            prior=self._prior,
            n_texts=self.n_texts,
            stop_words=stop_words,
        )

    def _most_rows(self) -> int:
        return max(FIRST_ROWS, self.settings.max_weights // max(self.n_classes, 1))

    def _admit(self, buckets: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Count the texts' grams; those that recur get a row. Returns (R,) rows touched."""
        n_free = int((self._buckets < 0).sum())
        if self.n_rows >= self._most_rows() and n_free < self.n_rows // 16:
            self._evict(self.n_rows // 8)
        table = (self._seen, self._slots)
        done = admit(buckets, 0, *table, self._buckets, self._texts, False)
        while done < len(buckets):
            full = self.n_rows >= self._most_rows()
            if not full:
                self._compact(min(2 * self.n_rows, self._most_rows()))
            done = admit(buckets, done, *table, self._buckets, self._texts, full)
        rows = self._slots[buckets]
        rows = rows[rows >= 0]
        self._rarity[rows] = rarity_of(self._texts[rows])
        touched = np.zeros(self.n_rows, np.bool_)
        touched[rows] = True
        return touched

    def _evict(self, n_more: int) -> None:
        """Free the rows with the smallest weights until `n_more` are free.

        At half the rows that a stream asks for that costs nothing on huffpost; oldest first
        costs .004, rarest first .001; at a quarter .003, .023, .006.
        """
        taken = np.flatnonzero(self._buckets >= 0)
        n_out = min(n_more - (self.n_rows - len(taken)), len(taken))
        if n_out <= 0:
            return
        size = largest(self._weights)[taken]
        out = taken[np.argpartition(size, n_out - 1)[:n_out]]
        self._slots[self._buckets[out]] = -1
        self._seen[self._buckets[out]] = 0
        self._buckets[out] = -1
        for column in (self._texts, self._rarity, self._weights, self._served):
            column[out] = 0

    def _compact(self, n_rows: int) -> None:
        """A table of `n_rows`: longer with free rows at its end, or shorter without the free."""
        keep = np.arange(self.n_rows)
        if n_rows < self.n_rows:
            keep = np.flatnonzero(self._buckets >= 0)
        more = n_rows - len(keep)
        self._buckets = np.pad(self._buckets[keep], (0, more), constant_values=-1)
        self._texts = np.pad(self._texts[keep], (0, more))
        self._rarity = np.pad(self._rarity[keep], (0, more))
        self._weights = np.pad(self._weights[keep], ((0, more), (0, 0)))
        self._served = np.pad(self._served[keep], ((0, more), (0, 0)))
        taken = np.flatnonzero(self._buckets >= 0)
        self._slots[self._buckets[taken]] = taken

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on, to the bit: a JSON-able dict, and arrays."""
        columns, replay = self._replay.arrays()
        meta = {"key": self.key, "n_texts": self.n_texts, "replay_columns": columns}
        return meta, {
            "seen": self._seen.copy(),
            "buckets": self._buckets.copy(),
            "texts": self._texts.copy(),
            "weights": self._weights.copy(),
            "prior": self._prior.copy(),
            **replay,
        }

    @classmethod
    def restore(
        cls,
        meta: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        settings: TextSettings | None = None,
    ) -> "TextExpert":
        """Go on from what `state` gave, under the same settings. StateError where it can't be."""
        try:
            expert = cls(key=int(meta["key"]), settings=settings)
            expert.n_texts = int(meta["n_texts"])
            expert._seen = np.array(arrays["seen"], np.uint8)
            expert._buckets = np.array(arrays["buckets"], np.int32)
            expert._texts = np.array(arrays["texts"], np.int32)
            expert._weights = np.array(arrays["weights"], np.float32)
            expert._prior = np.array(arrays["prior"], np.float32)
            n_rows, n_classes = expert._weights.shape
            taken = np.flatnonzero(expert._buckets >= 0)
            expert._slots[expert._buckets[taken]] = taken
            expert._replay.restore(meta["replay_columns"], arrays)
        except (KeyError, TypeError, ValueError, IndexError, UnicodeError) as error:
            raise StateError(
                f"a text expert's state lacks or garbles {error}; restore what state() gave"
            ) from error
        sizes = (len(expert._buckets), len(expert._texts), len(expert._seen), len(expert._prior))
        if sizes != (n_rows, n_rows, BUCKETS, n_classes):
            raise StateError(
                f"a text expert's weights {expert._weights.shape} don't fit the {sizes} entries of "
                "buckets, texts, seen, prior; the state is corrupt"
            )
        expert._rarity = np.zeros(n_rows, np.uint8)
        expert._rarity[taken] = rarity_of(expert._texts[taken])
        expert._served = np.zeros((n_rows, n_classes), np.int8)
        serve(taken, expert._buckets, expert._weights, expert._served)
        return expert
