"""Experts: all heads of one stream, from rows of inputs to probabilities.

In: rows (n, d) and what the stream has learned so far. Out: scores (n, K, C) of the K heads, and
the read-outs `serve` (for the stream's next events) and `keep` (for any event of any time). The
learner and every subscriber predict through this one path, so their bits agree.

The heads, in order: ridge on view a and on view b, each with every window, then softmax on the
linear features with every rate, the ones of local_heads; where there is an adapted network, the one
of network_head; where there are texts, the two of text_head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from streamlearn.core.features import Layout, Projections, write_features
from streamlearn.core.local_heads import LocalReader
from streamlearn.core.network_head import NetworkHead, write_network_scores
from streamlearn.core.pool import N_MIXTURES, mix, mix_keep
from streamlearn.core.text import Texts, TextWeights
from streamlearn.core.text_head import keep_with_texts, write_text_scores
from streamlearn.core.vision import Images, Vision

Readout: TypeAlias = Literal["serve", "keep"]
BLOCK = 32  # rows of one product where events are predicted on their own: see `alone`


@dataclass(slots=True, eq=False)
class Experts:
    """All that prediction needs, in the shapes in which it is used."""

    layout: Layout
    projections: Projections
    rates: NDArray[np.float64]  # (h,) of the recent means
    mean: NDArray[np.float64]  # (d,) of the inputs
    inverse_std: NDArray[np.float64]  # (d,)
    recent_means: NDArray[np.float64]  # (h, r) of z
    labels: NDArray[np.float64]  # (c, 1 + decays) last known label, recent frequencies
    ridge_a: NDArray[np.float32]  # (F_a, windows * C)
    ridge_b: NDArray[np.float32]  # (F_b, windows * C)
    softmax: NDArray[np.float32]  # (rates * C, F_linear)
    weights: NDArray[np.float64]  # (K,) of the heads in the first mixture
    stack: NDArray[np.float64]  # (2, K)
    serve: NDArray[np.float64]  # (3,) of the mixtures
    keep: NDArray[np.float64]  # (windows,) of view a's heads
    n_classes: int
    local: LocalReader
    network: NetworkHead | None = None  # None: the stream has none, or it is at rest
    text: TextWeights | None = None  # None: the stream has no texts
    text_share: float = 0.0  # of `keep`
    vision: Vision | None = None  # None: the stream has no images

    @property
    def n_heads(self) -> int:
        return len(self.weights)

    def see(self, images: Images, n: int) -> NDArray[np.float32] | None:
        """(n, k w) blocks of n events' images; None where the stream has none."""
        return None if self.vision is None else self.vision.see(images, n)

    def features(
        self,
        rows: NDArray[np.float64],
        seen: NDArray[np.float32] | None,
        recent_means: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """(n, width) of rows (n, d), and of what is `seen` (n, k w) in images.

        With `recent_means` (h, r) the rows follow each other, and it moves past them, in place;
        without, each row is seen as the next event after `self.recent_means`.
        """
        return write_features(
            rows,
            self.mean,
            self.inverse_std,
            self.recent_means if recent_means is None else recent_means,
            self.rates,
            self.labels,
            self.projections,
            self.layout,
            seen,
            advance=recent_means is not None,
        )

    def network_logits(
        self, features: NDArray[np.float32], images: Images
    ) -> NDArray[np.float32] | None:
        """(n, C) logits of the adapted network for the next events; None where nobody is asked."""
        if self.network is None:
            return None
        return self.network.logits(features, images, self.layout)

    def scores(
        self,
        features: NDArray[np.float32],
        logs: NDArray[np.float32] | None = None,
        network: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """(n, K, C) of features (n, width).

        `logs` (n, C) of texts: see `text_logs`; `network` (n, C): see `network_logits`.
        """
        n, c = len(features), self.n_classes
        scores = np.zeros((n, self.n_heads, c), np.float32)  # what heads at rest say
        flat = scores.reshape(n, self.n_heads * c)
        b_start, l_start = self.ridge_a.shape[1], self.ridge_a.shape[1] + self.ridge_b.shape[1]
        flat[:, :b_start] = features[:, self.layout.a] @ self.ridge_a
        flat[:, b_start:l_start] = features[:, self.layout.b] @ self.ridge_b
        logits = (features[:, self.layout.linear] @ self.softmax.T).reshape(n, -1, c)
        logits -= logits.max(axis=2, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=2, keepdims=True)
        l_end = l_start + len(self.softmax)
        flat[:, l_start:l_end] = logits.reshape(n, -1)
        self.local.write(features, self.layout, scores, l_end // c)
        if network is not None:
            at = l_end // c + 2 * len(self.local.parts)
            write_network_scores(network, self.labels, self.weights, at, scores)
        if logs is not None:
            write_text_scores(logs, self.weights, scores)
        return scores

    def text_logs(self, texts: Texts) -> NDArray[np.float32] | None:
        """(n, C) log-probabilities by the events' texts; None where the stream has none."""
        return None if self.text is None else self.text.predict(texts)

    def gram_logs(self, grams: csr_array | None) -> NDArray[np.float32] | None:
        """The same of the texts' grams."""
        return None if self.text is None or grams is None else self.text.predict_grams(grams)

    def mix(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """The mixtures (n, 3, C) and what is served (n, C)."""
        n, _, c = scores.shape
        mixed = np.empty((n, N_MIXTURES, c))
        served = np.empty((n, c), np.float32)
        mix(scores, self.weights, self.stack, self.serve, mixed, served)
        return mixed, served

    def keep_numbers(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, C) what `keep` says without texts."""
        return mix_keep(scores[:, : len(self.keep)], self.keep)

    def read(
        self,
        features: NDArray[np.float32],
        logs: NDArray[np.float32] | None,
        images: Images,
        readout: Readout,
    ) -> NDArray[np.float32]:
        """(n, C) probabilities."""
        if self.n_classes == 0 or len(features) == 0:
            return np.zeros((len(features), self.n_classes), np.float32)
        scores = self.scores(features, logs, self.network_logits(features, images))
        if readout == "serve":
            return self.mix(scores)[1]
        kept = self.keep_numbers(scores)
        return kept if logs is None else keep_with_texts(kept, scores, self.text_share)

    def sequence(
        self, rows: NDArray[np.float64], texts: Texts, images: Images, readout: Readout
    ) -> NDArray[np.float32]:
        """(n, C) for events that are the stream's next, one after the other. No trace."""
        seen = self.see(images, len(rows))
        features = self.features(rows, seen, self.recent_means.copy())
        return self.read(features, self.text_logs(texts), images, readout)

    def alone(
        self, rows: NDArray[np.float64], texts: Texts, images: Images, readout: Readout
    ) -> NDArray[np.float32]:
        """(n, C) for events each of which is asked about as the next one. No trace.

        Always in blocks of BLOCK rows, the last one padded: a product's rounding follows its
        shape, so a row's bits don't depend on how many others are asked about. Texts and
        images are read one by one.
        """
        n = len(rows)
        n_padded = -(-n // BLOCK) * BLOCK
        padded = np.zeros((n_padded, rows.shape[1]))
        padded[:n] = rows
        logs = self.text_logs(texts)
        if logs is not None:
            logs = np.pad(logs, ((0, n_padded - n), (0, 0)))
        seen = self.see(images, n)
        if seen is not None:
            seen = np.pad(seen, ((0, n_padded - n), (0, 0)))
        parts = [np.empty((0, self.n_classes), np.float32)]
        for start in range(0, n_padded, BLOCK):
            block = slice(start, start + BLOCK)
            features = self.features(padded[block], None if seen is None else seen[block])
            said = None if logs is None else logs[block]
            looked_at = [None if c is None else c.padded(start, BLOCK) for c in images]
            parts.append(self.read(features, said, looked_at, readout))
        return np.concatenate(parts)[:n]


def stacked(weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(F, windows * C) from (F, C) of each window."""
    return np.concatenate(weights, axis=1)
