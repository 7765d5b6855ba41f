"""Experts, softmax: the stream's softmax heads, which grow with its features and classes.

In: features and class codes of learned events. Out: weights (heads * C, F_linear) that prediction
reads. Plain heads see [1, z] alone, the first of the linear features: their other weights are 0.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.features import Layout
from streamlearn.core.softmax import learn_softmax


class SoftmaxHeads:
    """A head a rate, learning: those of `rates`, then the plain ones.

    `weights` (heads * C, F_linear) moves in place, but for `grow`, which makes another.
    """

    def __init__(self, rates: Sequence[float], plain_rates: Sequence[float]) -> None:
        self._rates = np.array((*rates, *plain_rates), np.float32)
        self._n_plain = len(plain_rates)
        self.weights = np.zeros((0, 0), np.float32)

    def grow(self, old: Layout, layout: Layout, n_classes: int) -> None:
        """Room for more features and classes, at 0."""
        heads = len(self._rates)
        weights = np.zeros((heads, n_classes, layout.n_linear), np.float32)
        if len(self.weights):
            was = self.weights.reshape(heads, -1, old.n_linear)
            linear = old.positions_in(layout)[old.linear] - layout.linear.start
            weights[:, : was.shape[1], linear] = was
        self.weights = weights.reshape(heads * n_classes, layout.n_linear)

    def learn(
        self, features: NDArray[np.float32], layout: Layout, codes: NDArray[np.int32]
    ) -> None:
        """Features (n, F) and classes (n,), in sequence."""
        seen = self._seen(layout)
        learn_softmax(features, layout.linear_start, codes, self._rates, self.weights, seen)

    def tensors(self, layout: Layout) -> Iterator[NDArray[np.float32]]:
        """Each head's weights (C, what it sees), copied."""
        by_head = self.weights.reshape(len(self._rates), -1, layout.n_linear)
        for weights, n in zip(by_head, self._seen(layout), strict=True):
            yield weights[:, :n].copy()

    def _seen(self, layout: Layout) -> NDArray[np.int64]:
        """(heads,) how many of the linear features each sees."""
        counts = len(self._rates) - self._n_plain, self._n_plain
        return np.repeat((layout.n_linear, layout.n_plain), counts)
