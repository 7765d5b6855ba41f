"""Stage 7a, network spec: the shape of a stream's small network, its first weights, their layout.

A network is a few frozen layers that all streams share (slow weights), in each of them a stream's
own low-rank adapter and bias, and a stream's own softmax head (fast weights):

    mlp    h = relu(x (W + A B) + bias)                                       for numbers
    conv   h = relu(group_norm(patches(x) (W + A B)) + bias), a few times     for 28 x 28 grey
    head   logits = h V + c

A and B are a layer's adapter (Hu et al. 2022, LoRA, arXiv:2106.09685): B starts at zero, so a new
stream starts as the shared network. The fast weights of S streams are one matrix (S, P): clipping,
rolling back and merging are then operations on rows, and `Layout` names the parts of a row.
Here is what needs no torch; `encoder` computes with it and `adapt` learns, `network` predicts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import IMAGE_SIDE
from streamlearn.errors import ConfigError, StateError

ROW_ALIGNMENT = 16  # float32: every part of every row starts at 64 bytes, so kernels round alike
NORM_GROUPS = 4
GAIN = 16.0  # norm of a growing mlp's inputs, about: that of 256 inputs of variance 1
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
    blocks: tuple[int, ...] = ()  # of a growing mlp: its inputs, in blocks that may each grow, and
    # that come so scaled that an event's squares add up to about 1; () of any other network
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
        if self.blocks and (self.kind != "mlp" or sum(self.blocks) != self.inputs):
            raise ConfigError(
                f"an mlp's inputs are the sum of its blocks {self.blocks}, not {self.inputs}"
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


def image_network(*, seed: int, classes: int) -> NetworkSpec:
    """The network of a stream of images, with room for so many classes."""
    return NetworkSpec(
        inputs=IMAGE_SIDE**2,
        hidden=(16, 32, 32),  # a third layer: as good as two, and a head a third as wide
        rank=4,
        classes=class_capacity(classes),
        kind="conv",
        seed=seed,
    )


def number_network(*, seed: int, blocks: Sequence[int], classes: int) -> NetworkSpec:
    """The network of a stream of numbers, with room for `blocks` of inputs and classes."""
    sizes = tuple(block_capacity(size) for size in blocks)
    return NetworkSpec(inputs=sum(sizes), blocks=sizes, classes=class_capacity(classes), seed=seed)


def block_capacity(n: int) -> int:
    """Room for a block of n inputs: a power of two, at least 16; 0 for none.

    >>> block_capacity(0), block_capacity(3), block_capacity(17)
    (0, 16, 32)
    """
    return n and max(16, 1 << (n - 1).bit_length())


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

    def cuts(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Where each part lies in a row, and its shape."""
        return {
            name: (slice(start, start + math.prod(self.shapes[name])), self.shapes[name])
            for name, start in self.offsets.items()
        }

    def pack(self, weights: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """One stream's named arrays as its row (P,). StateError where they do not fit."""
        row = np.zeros(self.width, dtype=np.float32)
        if weights.keys() != self.shapes.keys():
            raise StateError(
                f"fast weights are {sorted(self.shapes)}, got {sorted(weights)}: "
                f"they belong to another network"
            )
        for name, (cut, shape) in self.cuts().items():
            if weights[name].shape != shape:
                raise StateError(
                    f"fast weights {name} are {shape}, got {weights[name].shape}: "
                    f"they belong to another network; a wider head: grow() them first"
                )
            row[cut] = weights[name].ravel()
        return row

    def unpack(self, row: NDArray[np.float32]) -> Weights:
        """A row (P,) as named arrays, copied."""
        return {name: row[cut].reshape(shape).copy() for name, (cut, shape) in self.cuts().items()}


def slow_weights(spec: NetworkSpec) -> Weights:
    """The shared layers before any meta-learning: drawn from the seed, "0/w", "1/w", ..."""
    return {
        f"{index}/w": _draw(spec, index, [spec.seed], layer.outputs) * np.float32(math.sqrt(2))
        for index, layer in enumerate(spec.layers)
    }  # He et al. 2015: variance 2 / inputs keeps relu layers at scale


def _draw(spec: NetworkSpec, index: int, entropy: list[int], width: int) -> NDArray[np.float32]:
    """(inputs, width) normal, of variance 1 / inputs; of blocks 1, their inputs come scaled.

    A larger block has the same first rows.
    """
    layer = spec.layers[index]
    sizes = spec.blocks if spec.blocks and index == 0 else (layer.inputs,)
    parts = [
        np.random.default_rng([*entropy, index, block]).standard_normal((size, width))
        for block, size in enumerate(sizes)
    ]
    scale = 1.0 / (GAIN if sizes is spec.blocks else math.sqrt(layer.inputs))
    return np.asarray(np.concatenate(parts) * scale, np.float32)


@lru_cache(maxsize=32)
def shared_layers(spec: NetworkSpec) -> Slow:
    """The shared layers of all streams of this spec; whatever the head's room, the same ones."""
    return slow_weights(spec)


def new_weights(spec: NetworkSpec, key: int) -> Weights:
    """A new stream's fast weights: A from `key`, which stands for (seed, stream), all else zero."""
    weights = {
        name: np.zeros(shape, dtype=np.float32) for name, shape in spec.layout.shapes.items()
    }
    for index in range(len(spec.layers)):
        weights[f"{index}/a"] = np.ascontiguousarray(_draw(spec, index, [key], spec.rank).T)
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


def widen(
    weights: Mapping[str, NDArray[np.float32]], was: NetworkSpec, now: NetworkSpec, key: int
) -> Weights:
    """The same weights in a network of larger blocks; new inputs' A is as a new stream's."""
    widened = {name: value.copy() for name, value in weights.items()}
    first = new_weights(now, key)["0/a"]
    first[:, places(was, now)] = weights["0/a"]
    widened["0/a"] = first
    return widened


def places(was: NetworkSpec, now: NetworkSpec) -> NDArray[np.intp]:
    """(inputs,) where each input of a network lies in one of larger blocks."""
    starts = np.cumsum([0, *now.blocks[:-1]])
    parts = [start + np.arange(size) for start, size in zip(starts, was.blocks, strict=True)]
    return np.concatenate(parts).astype(np.intp)
