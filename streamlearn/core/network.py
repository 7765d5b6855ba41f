"""Stage 7c, network: a stream's adapted network as it predicts, in numpy.

In: a spec, the shared layers, one stream's fast weights. Out: logits of events. The adapters are
multiplied out once, W + A B, so that an event costs one product a layer; learner and subscribers
predict through here and agree bit by bit, and a subscriber needs no torch. `encoder` computes the
same for many streams at once, to learn them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from streamlearn.core.network_spec import (
    NORM_EPSILON,
    NORM_GROUPS,
    Layer,
    NetworkSpec,
    Slow,
)

BARRED = np.float32(-1e30)  # the logit of a class that the head has not learned


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """One stream's network, whole. Built anew whenever its weights change."""

    spec: NetworkSpec
    matrices: tuple[NDArray[np.float32], ...]  # (inputs, outputs) a layer
    biases: tuple[NDArray[np.float32], ...]  # (outputs,) a layer
    head: NDArray[np.float32]  # (features, n_classes)
    head_bias: NDArray[np.float32]  # (n_classes,)

    @classmethod
    def of(
        cls, spec: NetworkSpec, slow: Slow, row: NDArray[np.float32], n_classes: int
    ) -> "Network":
        """From fast weights (P,); `n_classes` of the head's columns are in use."""
        parts = spec.layout.unpack(row)
        layers = range(len(spec.layers))
        return cls(
            spec,
            tuple(slow[f"{i}/w"] + parts[f"{i}/a"].T @ parts[f"{i}/b"] for i in layers),
            tuple(parts[f"{i}/bias"] for i in layers),
            np.ascontiguousarray(parts["head/w"][:, :n_classes]),
            parts["head/bias"][:n_classes],
        )

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, n_classes) of x (n, inputs)."""
        h = x
        for layer, matrix, bias in zip(self.spec.layers, self.matrices, self.biases, strict=True):
            h = _convolve(layer, matrix, bias, h) if layer.kernel else h @ matrix + bias
            np.maximum(h, 0.0, out=h)
        logits: NDArray[np.float32] = h @ self.head + self.head_bias
        return logits


def _convolve(
    layer: Layer,
    matrix: NDArray[np.float32],
    bias: NDArray[np.float32],
    h: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(n, channels * side^2) to (n, outputs * (side / 2)^2), channels first."""
    n, k = len(h), layer.kernel
    images = h.reshape(n, -1, layer.side, layer.side)
    padded = np.pad(images, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    patches = sliding_window_view(padded, (k, k), axis=(2, 3))[:, :, ::2, ::2]
    places = patches.shape[2] * patches.shape[3]
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(n * places, layer.inputs)
    out = (rows @ matrix).reshape(n, places, NORM_GROUPS, -1)  # outputs, group by group
    out -= out.mean(axis=(1, 3), keepdims=True)
    out /= np.sqrt((out * out).mean(axis=(1, 3), keepdims=True) + np.float32(NORM_EPSILON))
    normed = out.reshape(n, places, layer.outputs) + bias
    return np.ascontiguousarray(normed.transpose(0, 2, 1)).reshape(n, -1)


def log_probabilities(
    logits: NDArray[np.float32], log_prior: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(n, C) log softmax of logits, with the classes' log frequencies put back where given."""
    z = logits if log_prior is None else logits + log_prior
    z = z - z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)), np.float32)
