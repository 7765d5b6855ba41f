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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import IMAGE_SIDE
from streamlearn.errors import ConfigError, StateError

ROW_ALIGNMENT = 16  # float32: every part of every row starts at 64 bytes, so kernels round alike
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
    """The shared layers before any meta-learning: drawn from the seed, "0/w", "1/w", ...

    More inputs are more rows of the first matrix, before its scale (`widen`).
    """
    return {  # He et al. 2015: variance 2 / inputs keeps relu layers at scale
        f"{index}/w": (
            np.random.default_rng([spec.seed, index]).standard_normal((layer.inputs, layer.outputs))
            * math.sqrt(2 / layer.inputs)
        ).astype(np.float32)
        for index, layer in enumerate(spec.layers)
    }


def new_weights(spec: NetworkSpec, key: int) -> Weights:
    """A new stream's fast weights: A from `key`, which stands for (seed, stream), all else zero."""
    weights = {
        name: np.zeros(shape, dtype=np.float32) for name, shape in spec.layout.shapes.items()
    }
    for index, layer in enumerate(spec.layers):
        rng = np.random.default_rng([key, index])
        draw = rng.standard_normal((layer.inputs, spec.rank)) / math.sqrt(layer.inputs)
        weights[f"{index}/a"] = np.ascontiguousarray(draw.T, dtype=np.float32)
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


def widen(weights: Mapping[str, NDArray[np.float32]], spec: NetworkSpec, key: int) -> Weights:
    """The same weights for the more inputs of `spec`, a wider mlp; new inputs' A as a new stream's.

    The shared first matrix scales with the square root of its inputs, so for the same network the
    inputs are given times that root, and A, too, is scaled down.
    """
    have = weights["0/a"].shape[1]
    widened = {name: value.copy() for name, value in weights.items()}
    first = new_weights(spec, key)["0/a"]
    first[:, :have] = weights["0/a"] * np.float32(math.sqrt(have / spec.inputs))
    widened["0/a"] = first
    return widened
