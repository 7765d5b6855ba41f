"""Text, replay: a few texts of every class, to be learned again beside new ones.

In: learned texts. Out: texts of classes drawn evenly. Unlike the stream's reservoir, which serves
people and every expert, this keeps nothing but text, so a text expert stands on its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.text.grams import MAX_CHARACTERS


class TextReplay:
    """At most `capacity` texts a class, each an equal chance (Vitter 1985, Algorithm R)."""

    def __init__(self, capacity: int, key: int) -> None:
        self.capacity = capacity
        self.key = key
        self.columns: list[str] = []
        self.n_seen: list[int] = []  # of each class
        self.kept: list[list[tuple[str | None, ...]]] = []  # a class's events, by self.columns

    def draw(self, event: int, n: int) -> tuple[dict[str, list[str | None]], NDArray[np.int32]]:
        """n events, the class of each drawn evenly; none while nothing is kept."""
        classes = [code for code, kept in enumerate(self.kept) if kept]
        if not classes:
            return {}, np.zeros(0, np.int32)
        codes = np.zeros(n, np.int32)
        columns: dict[str, list[str | None]] = {name: [] for name in self.columns}
        for i in range(n):
            codes[i] = classes[_uniform(self.key, event + i, 0, len(classes))]
            kept = self.kept[codes[i]]
            texts = kept[_uniform(self.key, event + i, 1, len(kept))]
            for j, name in enumerate(self.columns):
                columns[name].append(texts[j] if j < len(texts) else None)
        return columns, codes

    def offer(
        self, event: int, columns: Mapping[str, Sequence[str | None]], codes: NDArray[np.int32]
    ) -> None:
        self.columns.extend(name for name in columns if name not in self.columns)
        for i, code in enumerate(codes.tolist()):
            while len(self.n_seen) <= code:
                self.n_seen.append(0)
                self.kept.append([])
            self.n_seen[code] += 1
            position = self.n_seen[code] - 1
            if position >= self.capacity:
                position = _uniform(self.key, event + i, 2, self.n_seen[code])
            if position < self.capacity:
                given = (columns[n][i] if n in columns else None for n in self.columns)
                texts = tuple(text[:MAX_CHARACTERS] if text else None for text in given)
                self.kept[code][position : position + 1] = [texts]

    def arrays(self) -> tuple[list[str], dict[str, NDArray[Any]]]:
        """Column names; texts as UTF-8, the length of each (-1: none), counts a class."""
        wide = len(self.columns)
        flat = [
            text
            for kept in self.kept
            for texts in kept
            for text in (*texts, *[None] * (wide - len(texts)))
        ]
        encoded = [None if t is None else t.encode("utf-8", "surrogatepass") for t in flat]
        return list(self.columns), {
            "replay/bytes": np.frombuffer(b"".join(e or b"" for e in encoded), np.uint8).copy(),
            "replay/lengths": np.array([-1 if e is None else len(e) for e in encoded], np.int32),
            "replay/kept": np.array([len(kept) for kept in self.kept], np.int32),
            "replay/n_seen": np.array(self.n_seen, np.int64),
        }

    def restore(self, columns: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.columns = list(columns)
        self.n_seen = arrays["replay/n_seen"].tolist()
        whole = np.asarray(arrays["replay/bytes"], np.uint8).tobytes()
        flat: list[str | None] = []
        at = 0
        for length in arrays["replay/lengths"].tolist():
            flat.append(
                None if length < 0 else whole[at : at + length].decode("utf-8", "surrogatepass")
            )
            at += max(length, 0)
        wide = len(self.columns)
        events = [tuple(flat[i : i + wide]) for i in range(0, len(flat), wide)] if wide else []
        kept = arrays["replay/kept"].tolist()
        if at != len(whole) or sum(kept) != len(events) or len(kept) != len(self.n_seen):
            raise ValueError(f"{len(events)} replayed texts where {kept} a class are kept")
        at = 0
        for n in kept:
            self.kept.append(events[at : at + n])
            at += n


def _uniform(key: int, event: int, purpose: int, n: int) -> int:
    """One of 0..n-1, from counts alone: splitmix64 (Steele, Lea, Flood 2014)."""
    mask = (1 << 64) - 1
    bits = (key + (4 * event + purpose + 1) * 0x9E3779B97F4A7C15) & mask
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & mask
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & mask
    return ((bits ^ (bits >> 31)) * n) >> 64
