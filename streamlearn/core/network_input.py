"""Experts, network, input: a step's events and replayed ones, as the adapted network is to learn.

In: a step's features and images, or what is replayed. Out: what waits in the NetworkExpert, and its
requests to the inner loop.
"""

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.adaptation import AdaptRequest
from streamlearn.core.drift import DriftReport
from streamlearn.core.features import Layout
from streamlearn.core.network_expert import LOGITS, NetworkExpert
from streamlearn.core.network_head import image_rows, number_blocks, read, side_by_side
from streamlearn.core.rehearsal import Replay
from streamlearn.core.vision import Images


def blocks_to_keep(
    network: NetworkExpert,
    features: NDArray[np.float32],
    layout: Layout,
    scale: NDArray[np.float32],
) -> dict[str, NDArray[np.float32]]:
    """What is to be kept with each event of features (n, width): what is read of numbers."""
    if network.spec.kind == "conv":  # images are kept as they are
        return {}
    blocks = number_blocks(features, layout, scale)
    return {f"network/{i}": block for i, block in enumerate(blocks)}


def offer(
    network: NetworkExpert,
    features: NDArray[np.float32],
    images: Images,
    layout: Layout,
    scale: NDArray[np.float32],
    labelled: NDArray[np.intp],
    codes: NDArray[np.int32],
    events: NDArray[np.int64],
) -> None:
    """Let it wait for more of the events `labelled`, of classes `codes` (n,)."""
    x = read(network.spec, features, images, layout, scale)[labelled]
    legible = ~np.isnan(x[:, 0])
    chosen = labelled[legible]
    network.offer(x[legible], codes[chosen], events[chosen])


def request(
    network: NetworkExpert, n: int, replay: Replay, images: Images, report: DriftReport
) -> AdaptRequest:
    """The oldest `n` events that wait, with those that are replayed, and their `images`."""
    spec, with_each, m = network.spec, replay.companions, len(replay.codes)
    if spec.kind == "conv":
        x = image_rows(images, m)
    else:
        none = np.zeros((m, 0), np.float32)
        blocks = [with_each.get(f"network/{i}", none) for i in range(len(spec.blocks))]
        x = side_by_side(blocks, spec)
    steps = network.settings.steps
    legible = np.flatnonzero(~np.isnan(x[:, 0]))
    legible = legible[: len(legible) // steps * steps]  # as many in each step
    return network.request(
        n,
        x[legible],
        replay.codes[legible],
        with_each.get(LOGITS, np.zeros((m, 0), np.float32))[legible],
        drift=report.score,
        n_drifts=report.n_drifts,
    )
