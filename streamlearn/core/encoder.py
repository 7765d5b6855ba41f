"""Stage 7a, encoder: the small networks whose fast weights a stream adapts.

A network is a few frozen layers that all streams share (slow weights), in each of them a stream's
own low-rank adapter and bias, and a stream's own softmax head (fast weights):

    mlp    h = relu(x (W + A B) + bias)                                       for numbers
    conv   h = relu(group_norm(patches(x) (W + A B)) + bias), twice           for 28 x 28 grey
    head   logits = h V + c

A and B are a layer's adapter (Hu et al. 2022, LoRA, arXiv:2106.09685): B starts at zero, so a new
stream starts as the shared network. A convolution is the same layer on patches of its input, and
group norm (Wu & He 2018, arXiv:1803.08494) replaces batch norm, which would let one event's
neighbours change its prediction. The fast weights of S streams are one matrix (S, P): clipping,
rolling back and merging are then operations on rows, and `Layout` names the parts of a row.
`adapt` learns these weights.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from streamlearn.errors import ConfigError, StateError

ROW_ALIGNMENT = 16  # float32: every part of every row starts at 64 bytes, so kernels round alike
BLOCK_EVENTS = 32  # events predicted in blocks of one shape: kernels differ for small ones
IMAGE_SIDE = 28
NORM_GROUPS = 4
NORM_EPSILON = 1e-5

Weights: TypeAlias = dict[str, NDArray[np.float32]]  # one stream's fast weights, by name
Slow: TypeAlias = Mapping[str, NDArray[np.float32]]  # "0/w", "1/w", ...: (inputs, outputs)


@dataclass(frozen=True, slots=True)
class Layer:
    """One adapted layer: a matrix on rows, or on patches where `kernel` is not 0."""

    inputs: int
    outputs: int
    kernel: int = 0  # side of a patch; stride 2, padding kernel // 2
    side: int = 0  # of the input image


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """The shape of a network: what has to be equal for weights to fit.

    `classes` is a capacity, a power of two: the head has room for classes not yet seen.
    """

    inputs: int  # d, numbers an event; 784 for an image
    hidden: tuple[int, ...] = (64, 64)  # units of the mlp's layers, channels of the conv's
    rank: int = 2
    classes: int = 16
    kind: Literal["mlp", "conv"] = "mlp"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes < 2 or self.classes & (self.classes - 1):
            raise ConfigError(
                f"the head's class capacity is a power of two, not {self.classes}; "
                f"use class_capacity(n)"
            )
        if not self.hidden or min(self.inputs, self.rank, *self.hidden) < 1:
            raise ConfigError(
                f"a network needs inputs, hidden units and a rank of at least 1, not "
                f"inputs={self.inputs}, hidden={self.hidden}, rank={self.rank}"
            )
        if self.kind == "conv" and self.inputs != IMAGE_SIDE**2:
            raise ConfigError(
                f"the conv network reads {IMAGE_SIDE} x {IMAGE_SIDE} images: "
                f"inputs={self.inputs}, set it to {IMAGE_SIDE**2}"
            )
        if self.kind == "conv" and any(units % NORM_GROUPS for units in self.hidden):
            raise ConfigError(
                f"the conv network's channels are multiples of {NORM_GROUPS} (group norm), "
                f"not {self.hidden}"
            )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        if self.kind == "mlp":
            return tuple(map(Layer, (self.inputs, *self.hidden), self.hidden))
        layers, side, channels = [], IMAGE_SIDE, 1
        for units in self.hidden:
            kernel = 5 if channels == 1 else 3
            layers.append(Layer(channels * kernel**2, units, kernel, side))
            side, channels = (side + 1) // 2, units
        return tuple(layers)

    @cached_property
    def features(self) -> int:
        """Width of what the head reads: (n, features)."""
        last = self.layers[-1]
        return last.outputs * ((last.side + 1) // 2) ** 2 if last.kernel else last.outputs

    @cached_property
    def layout(self) -> "Layout":
        shapes: dict[str, tuple[int, ...]] = {}
        for index, layer in enumerate(self.layers):
            shapes[f"{index}/a"] = (self.rank, layer.inputs)  # A transposed: r rows are contiguous
            shapes[f"{index}/b"] = (self.rank, layer.outputs)
            shapes[f"{index}/bias"] = (layer.outputs,)
        shapes["head/w"] = (self.features, self.classes)
        shapes["head/bias"] = (self.classes,)
        return Layout(shapes)


def class_capacity(n_classes: int) -> int:
    """The smallest capacity (a power of two, at least 2) with room for n_classes.

    >>> class_capacity(1), class_capacity(8), class_capacity(9)
    (2, 8, 16)
    """
    return max(2, 1 << (n_classes - 1).bit_length())


class Layout:
    """Where each named part of a stream's fast weights lies in its row of (S, P)."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.offsets: dict[str, int] = {}
        end = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = end
            end += -(-math.prod(shape) // ROW_ALIGNMENT) * ROW_ALIGNMENT
        self.width = end  # P; the gaps stay zero

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """The parts of (S, P), each (S, *shape), sharing its memory."""
        views = {}
        for name, shape in self.shapes.items():
            start = self.offsets[name]
            part = rows[:, start : start + math.prod(shape)]
            views[name] = part.view(rows.shape[0], *shape)
        return views

    def pack(self, weights: Mapping[str, NDArray[np.float32]]) -> Tensor:
        """One stream's named arrays as its row (P,). StateError where they do not fit."""
        row = np.zeros(self.width, dtype=np.float32)
        if weights.keys() != self.shapes.keys():
            raise StateError(
                f"fast weights are {sorted(self.shapes)}, got {sorted(weights)}: "
                f"they belong to another network"
            )
        for name, shape in self.shapes.items():
            if weights[name].shape != shape:
                raise StateError(
                    f"fast weights {name} are {shape}, got {weights[name].shape}: "
                    f"they belong to another network; a wider head: grow() them first"
                )
            start = self.offsets[name]
            row[start : start + math.prod(shape)] = weights[name].ravel()
        return torch.from_numpy(row)

    def unpack(self, row: Tensor) -> Weights:
        """A row (P,) as named arrays, copied."""
        values = row.detach().cpu().numpy()
        return {
            name: values[start : start + math.prod(shape)].reshape(shape).copy()
            for (name, shape), start in zip(self.shapes.items(), self.offsets.values(), strict=True)
        }


def slow_weights(spec: NetworkSpec) -> Weights:
    """The shared layers before any meta-learning: drawn from the seed, "0/w", "1/w", ..."""
    rng = np.random.default_rng(np.random.SeedSequence([spec.seed, 0]))
    return {  # He et al. 2015: variance 2 / inputs keeps relu layers at scale
        f"{index}/w": (
            rng.standard_normal((layer.inputs, layer.outputs)) * math.sqrt(2 / layer.inputs)
        ).astype(np.float32)
        for index, layer in enumerate(spec.layers)
    }


def new_weights(spec: NetworkSpec, stream: str) -> Weights:
    """A new stream's fast weights: A from (seed, stream), all else zero."""
    digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    rng = np.random.default_rng(
        np.random.SeedSequence([spec.seed, 1, int.from_bytes(digest, "little")])
    )
    weights = {
        name: np.zeros(shape, dtype=np.float32) for name, shape in spec.layout.shapes.items()
    }
    for index, layer in enumerate(spec.layers):
        draw = rng.standard_normal((spec.rank, layer.inputs)) / math.sqrt(layer.inputs)
        weights[f"{index}/a"] = draw.astype(np.float32)
    return weights


def grow(weights: Mapping[str, NDArray[np.float32]], classes: int) -> Weights:
    """The same weights with a head of `classes` columns; the new ones are zero."""
    have = weights["head/bias"].shape[0]
    if classes < have:
        raise StateError(f"a head only grows: it has room for {have} classes, not {classes}")
    grown = {name: value.copy() for name, value in weights.items()}
    grown["head/w"] = np.pad(weights["head/w"], ((0, 0), (0, classes - have)))
    grown["head/bias"] = np.pad(weights["head/bias"], (0, classes - have))
    return grown


def stack(spec: NetworkSpec, streams: Sequence[Mapping[str, NDArray[np.float32]]]) -> Tensor:
    """Several streams' fast weights as (S, P)."""
    return torch.stack([spec.layout.pack(weights) for weights in streams])


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
    parts = spec.layout.views(phi)
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
