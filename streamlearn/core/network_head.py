"""Experts, network head: the adapted network as one more head of the pool.

In: features and images of events. Out: its probabilities, a head after the ones on numbers. The
classes' recent frequencies are put back into its logits, which adapt learns without them.

On numbers it reads what the softmax heads read, in blocks that may each grow: standardised
inputs, what is new in them at each half-life, recent labels. Without the last two it is no use:
elec2 at 32 .839 alone, with them .912, the best head of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.adapt_settings import RARE, AdaptSettings
from streamlearn.core.features import Layout
from streamlearn.core.network import Network, log_probabilities
from streamlearn.core.network_spec import GAIN, NetworkSpec, image_network, number_network
from streamlearn.core.pool import mix_scores
from streamlearn.core.records import IMAGE_SIDE
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.vision import Images

NETWORK = "network"
NETWORK_HEADS = (NETWORK,)
NUMBERS_RATE = 0.5  # of settings.network_rate: elec2, noaa
LABEL_GAIN = np.float32(GAIN / 4)  # an event's recent labels have squares of 1 to 4 in all


@dataclass(frozen=True, slots=True, eq=False)
class NetworkHead:
    """A stream's network as it predicts; immutable."""

    network: Network
    scale: NDArray[np.float32]  # (d,) of each input

    def logits(
        self, features: NDArray[np.float32], images: Images, layout: Layout
    ) -> NDArray[np.float32]:
        """(n, C) for the stream's next events, of features (n, width) and images.

        NaN where an event has nothing that the network reads.
        """
        x = read(self.network.spec, features, images, layout, self.scale)
        logits = self.network.logits(np.nan_to_num(x))
        logits[np.isnan(x[:, 0])] = np.nan
        return logits


def read(
    spec: NetworkSpec,
    features: NDArray[np.float32],
    images: Images,
    layout: Layout,
    scale: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(n, inputs) what the network reads of events; NaN where there is nothing."""
    if spec.kind == "conv":
        return image_rows(images, len(features))
    return side_by_side(number_blocks(features, layout, scale), spec)


def image_rows(images: Images, n: int) -> NDArray[np.float32]:
    """(n, 784) of the first image column, each image by its own mean and spread; NaN without."""
    x = np.full((n, IMAGE_SIDE**2), np.nan, np.float32)
    column = images[0] if images else None
    if column is not None:
        rows = np.flatnonzero(column.present)
        pixels = column.pixels[rows].reshape(len(rows), IMAGE_SIDE**2).astype(np.float32)
        pixels -= pixels.mean(axis=1, keepdims=True)
        x[rows] = pixels / (pixels.std(axis=1, keepdims=True) + np.float32(1.0))
    return x


def number_blocks(
    features: NDArray[np.float32], layout: Layout, scale: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """What the network reads of features (n, width): blocks (n, size), each growing at its end."""
    r = len(layout.recent)
    starts = [layout.new_start + half_life * r for half_life in range(layout.n_half_lives)]
    gain = scale * np.float32(GAIN)
    recent = gain[list(layout.recent)]
    return [
        features[:, layout.z] * gain,
        *(features[:, start : start + r] * recent for start in starts),
        features[:, layout.labels_start : layout.b_start] * LABEL_GAIN,
    ]


def spec_of(kind: str, layout: Layout, *, seed: int, classes: int) -> NetworkSpec:
    """The network on images ("conv"), or on numbers of this layout."""
    if kind == "conv":
        return image_network(seed=seed, classes=classes)
    r = len(layout.recent)
    labels = layout.b_start - layout.labels_start
    sizes = (layout.n_inputs, *(r for _ in range(layout.n_half_lives)), labels)
    return number_network(seed=seed, blocks=sizes, classes=classes)


def side_by_side(blocks: Sequence[NDArray[np.float32]], spec: NetworkSpec) -> NDArray[np.float32]:
    """(n, inputs) of blocks (n, size); what an event did not have (NaN, too few columns) is 0."""
    x = np.zeros((len(blocks[0]), spec.inputs), np.float32)
    start = 0
    for block, size in zip(blocks, spec.blocks, strict=True):
        x[:, start : start + block.shape[1]] = np.nan_to_num(block)
        start += size
    return x


def log_frequency(labels: NDArray[np.float64], n_classes: int) -> NDArray[np.float32]:
    """(C,) log of the classes' recent frequencies, a mean over the decays; never -inf."""
    frequency = np.zeros(n_classes)
    frequency[: len(labels)] = labels[:, 1:].mean(axis=1)
    return np.log(frequency + RARE).astype(np.float32)


def write_network_scores(
    logits: NDArray[np.float32],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    at: int,
    scores: NDArray[np.float32],
) -> None:
    """Head `at` of scores (n, K, C) from logits (n, C); asleep where they are NaN."""
    prior = log_frequency(labels, logits.shape[1])
    scores[:, at] = np.exp(log_probabilities(np.nan_to_num(logits), prior))
    asleep = np.isnan(logits[:, 0])
    if asleep.any():
        put_to_sleep(scores, weights, at, at + len(NETWORK_HEADS), asleep)


def adapt_settings(settings: LearnerSettings, spec: NetworkSpec) -> AdaptSettings:
    """What of the learner's settings is the inner loop's."""
    return AdaptSettings(
        loss=settings.network_loss,  # type: ignore[arg-type]  # LearnerSettings checks it
        steps=settings.network_steps,
        rate=settings.network_rate * (NUMBERS_RATE if spec.blocks else 1.0),
        proximal=settings.network_proximal,
    )


def with_sleepers(
    scores: NDArray[np.float32], weights: NDArray[np.float64], at: int
) -> NDArray[np.float32]:
    """Scores (n, K, C) with the network's heads put in at `at`, asleep for all events.

    `weights` (K + heads,) of all heads in M1.
    """
    asleep = np.zeros((len(scores), len(NETWORK_HEADS), scores.shape[2]), np.float32)
    wider = np.concatenate([scores[:, :at], asleep, scores[:, at:]], axis=1)
    put_to_sleep(wider, weights, at, at + len(NETWORK_HEADS), np.ones(len(wider), np.bool_))
    return wider


@numba.njit(cache=True, nogil=True, error_model="numpy")
def put_to_sleep(
    scores: NDArray[np.float32],
    weights: NDArray[np.float64],
    first: int,
    last: int,
    asleep: NDArray[np.bool_],
) -> None:
    """Heads first..last of scores (n, K, C) answer as those before them do together, in place.

    So nobody's weight moves by an event of which they have nothing to say (Freund, Schapire,
    Singer, Warmuth 1997, Using and combining predictors that specialize, STOC).
    """
    answer = np.empty(scores.shape[2])
    for i in range(len(scores)):
        if asleep[i]:
            mix_scores(scores[i, :first], weights[:first], answer)
            total = max(answer.sum(), 1e-300)
            for k in range(first, last):
                for c in range(len(answer)):
                    scores[i, k, c] = answer[c] / total
