"""Stage 7b, encoder: a small network's forward pass in torch, for many streams at once.

`network_spec` says what the network is. A convolution is a matrix product on patches of its input,
and group norm (Wu & He 2018, arXiv:1803.08494) replaces batch norm, which would let one event's
neighbours change its prediction. `adapt` learns the fast weights through this; what a model
predicts with is `network`, the same in numpy.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from streamlearn.core.network_spec import NORM_EPSILON, NORM_GROUPS, Layer, NetworkSpec, Slow

BLOCK_EVENTS = 32  # events predicted in blocks of one shape: kernels differ for small ones


def views(spec: NetworkSpec, rows: Tensor) -> dict[str, Tensor]:
    """The named parts of fast weights (S, P), each (S, *shape), sharing their memory."""
    cuts = spec.layout.cuts().items()
    return {name: rows[:, cut].view(rows.shape[0], *shape) for name, (cut, shape) in cuts}


def stack(spec: NetworkSpec, streams: Sequence[Mapping[str, NDArray[np.float32]]]) -> Tensor:
    """Several streams' fast weights as (S, P)."""
    return torch.from_numpy(np.stack([spec.layout.pack(weights) for weights in streams]))


def slow_tensors(slow: Slow, device: torch.device) -> tuple[Tensor, ...]:
    """The shared matrices (inputs, outputs) in the order of the layers."""
    return tuple(
        torch.from_numpy(np.ascontiguousarray(slow[f"{index}/w"])).to(device)
        for index in range(len(slow))
    )


def logits(spec: NetworkSpec, slow: Sequence[Tensor], phi: Tensor, x: Tensor) -> Tensor:
    """(S, N, classes) of x (S, N, d) under fast weights (S, P). Differentiable in phi.

    Only batched products: a stream's bits do not depend on who shares its batch.
    """
    parts = views(spec, phi)
    h = features(spec, slow, parts, x)
    return torch.baddbmm(parts["head/bias"].unsqueeze(1), h, parts["head/w"])


@contextmanager
def single_threaded() -> Iterator[None]:
    """torch on one thread, in this thread: with more, kernels split sums by what is in the batch.

    Measured: a product of a batch of 1 had other bits than the same product in a batch of 9, on
    two threads; on one thread never. So weights do not depend on the number of cores either.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def infer(spec: NetworkSpec, slow: Sequence[Tensor], phi: Tensor, x: Tensor) -> Tensor:
    """`logits` for prediction: an event's bits do not depend on the events beside it either."""
    s, n, d = x.shape
    if not n:
        return x.new_zeros(s, 0, spec.classes)
    blocks = -(-n // BLOCK_EVENTS)
    padded = x.new_zeros(s, blocks * BLOCK_EVENTS, d)
    padded[:, :n] = x
    with single_threaded():
        cut = torch.split(padded, BLOCK_EVENTS, dim=1)
        done = [logits(spec, slow, phi, block.contiguous()) for block in cut]
    return torch.cat(done, dim=1)[:, :n]


def features(
    spec: NetworkSpec, slow: Sequence[Tensor], parts: Mapping[str, Tensor], x: Tensor
) -> Tensor:
    """What the head reads, (S, N, features)."""
    h = x
    for index, layer in enumerate(spec.layers):
        if layer.kernel:
            h = _convolve(layer, slow[index], parts, index, h)
        else:
            h, _ = adapted(slow[index], parts, index, h)
        h = torch.relu(h)
    return h


def adapted(
    slow: Tensor, parts: Mapping[str, Tensor], index: int, x: Tensor
) -> tuple[Tensor, Tensor]:
    """x (W + A B) + bias (S, M, outputs), by way of (x A) transposed (S, r, M), returned too.

    W is read once for all streams; W + A B would be a matrix a stream, and cost its memory.
    """
    narrow = torch.bmm(parts[f"{index}/a"], x.transpose(1, 2))
    bias = parts[f"{index}/bias"].unsqueeze(1)
    wide = torch.baddbmm(bias, x, slow.expand(x.shape[0], -1, -1))
    return wide.baddbmm_(narrow.transpose(1, 2), parts[f"{index}/b"]), narrow


def _convolve(
    layer: Layer, slow: Tensor, parts: Mapping[str, Tensor], index: int, h: Tensor
) -> Tensor:
    """(S, N, channels * side^2) to (S, N, outputs * (side / 2)^2), channels first.

    Patches are many and the matrix is small, so here it is W + A B.
    """
    s, n = h.shape[:2]
    a, b = parts[f"{index}/a"], parts[f"{index}/b"]
    w = torch.baddbmm(slow.expand(s, -1, -1), a.transpose(1, 2), b)
    bias = parts[f"{index}/bias"].unsqueeze(1)
    images = h.reshape(s * n, -1, layer.side, layer.side)
    patches = functional.unfold(images, layer.kernel, padding=layer.kernel // 2, stride=2)
    places = patches.shape[2]
    rows = patches.transpose(1, 2).reshape(s, n * places, layer.inputs)
    out = torch.bmm(rows, w).view(s * n, places, layer.outputs).transpose(1, 2)
    normed = functional.group_norm(out, NORM_GROUPS, eps=NORM_EPSILON)
    shifted = normed.reshape(s, n, layer.outputs, places) + bias.unsqueeze(-1)
    return shifted.flatten(2)
