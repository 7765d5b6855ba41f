"""Experts, tested: a step as it was predicted, and what its scores are once it brought more.

In: scores of the heads and classes that were known. Out: scores of those that are known now; heads
that were not there yet answer as the others did together, new classes were as good as impossible.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from streamlearn.core.grown import grown
from streamlearn.core.network_head import NETWORK_HEADS, with_sleepers
from streamlearn.core.text_head import TEXT_HEADS, widened, write_text_scores


@dataclass(slots=True, eq=False)
class Tested:
    """A step as it was predicted, kept until its labels are learned."""

    recent_before: NDArray[np.float64]  # (h, r)
    features: NDArray[np.float32]  # (n, width)
    scores: NDArray[np.float32]  # (n, K, C)
    mixed: NDArray[np.float64]  # (n, 3, C)
    served: NDArray[np.float32]  # (n, C)
    n_classes: int  # that were known
    heads: tuple[str, ...]  # (K,) that were there
    grams: csr_array | None = None  # (n, BUCKETS) of the texts; None: the stream has none


def scores_now(
    tested: Tested,
    heads: tuple[str, ...],
    n_classes: int,
    weights: NDArray[np.float64],
    network_at: int,
) -> NDArray[np.float32]:
    """(n, K, C) for the heads and classes that there are now; `weights` (K,) of them in M1.

    `network_at`: where a network's heads belong. Forest's and neighbours' scores of new classes
    are theirs to say: see LocalHeads.widen.
    """
    scores = tested.scores
    n, _, n_known = scores.shape
    if not n_known:
        return np.zeros((n, len(heads), n_classes), np.float32)
    if set(NETWORK_HEADS) & set(heads) and not set(NETWORK_HEADS) & set(tested.heads):
        scores = with_sleepers(scores, weights, network_at)
    if scores.shape[1] < len(heads):  # texts are new: they had nothing to say
        scores = grown(scores, 0, len(TEXT_HEADS))
        asleep = np.zeros((n, n_known), np.float32)
        write_text_scores(asleep, weights, scores)
    elif set(TEXT_HEADS) & set(heads):
        return widened(scores, n_classes)
    return grown(scores, 0, 0, n_classes - n_known)
