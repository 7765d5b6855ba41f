"""Stage 2, features: what the experts see of an event.

In: rows of inputs (preprocess), the recent past and the recent labels. Out: one matrix a step,
(n, width), whose columns lie so that each view is a slice of it:

    images (k w) | relu a (D) | 1 | z (d) | new (h * r) | labels (4 c) | relu b (D)
    `------------- view a -------------'
                                `------ linear: the softmax heads ----'
                                `-plain-'
                                `-------------------- view b -------------------'

images  of each of k image columns the block of w features that `vision` makes; k is mostly 0
z       inputs standardised with earlier steps' statistics, clipped to +-5, missing = mean = 0
new     z minus its exponentially weighted mean before the event, a block for each half-life, for
        the r inputs with `recent`; event by event, it needs no label. Missing: nothing is new
labels  of each class: was it the last known label, and its recent frequency at each decay;
        frozen while a step is predicted
relu    max(0, [1, z] W1) and max(0, [1, z, new] W2) with random matrices that never change
        (Rahimi, Recht 2008, Weighted sums of random kitchen sinks, NeurIPS); where there are
        images, relu a also gets images W3, so that a class may hang on a number and an image
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.network_spec import NetworkSpec, shared_layers
from streamlearn.core.vision import MAX_IMAGE_COLUMNS, block_width, draw_theta

CLIP = 5.0  # standard deviations
MAX_LABEL_CLASSES = 32  # classes whose recent labels are features, first come
_SLOW_BLOCK = 64  # inputs drawn at a time; sizes are 64, 256, 1024
MIXED = 32  # M, directions of an image's features that relu a, and `encodings`, see
_MIX_SCALE = 0.2  # they spread by about 1 then, as z W1 does: a block's variance is 13..48
_SEED_OF_MIX = 0x6D6978  # beside the views 0 and 1


@dataclass(frozen=True, slots=True, eq=False)
class SlowWeights:
    """Random matrices, drawn once from the seed and published once; read-only.

    "a/weights" (m, D) and "b/weights" (m, 1 + h, D) have a row for each of m inputs (of view b
    one for z and one for each half-life), "a/bias" and "b/bias" are (D,). Where a stream has
    images: vision's theta, and "image/mix" (w, M) and "a/images" (columns, M, D), whose product
    is W3 of an image column. Where it has an adapted network: its shared layers, "network/...".
    """

    tensors: Mapping[str, NDArray[Any]]
    _cache: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def hash(self) -> str:
        """sha256 hex over names, dtypes, shapes and bytes."""
        if "hash" not in self._cache:
            self._cache["hash"] = tensors_hash(self.tensors)
        return self._cache["hash"]


def tensors_hash(tensors: Mapping[str, NDArray[Any]]) -> str:
    """sha256 hex over the tensors in the order of their names: name, dtype, shape, bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype.str}\0{tensor.shape}\0".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def slow_size(n_inputs: int) -> int:
    """Rows of the random matrices that n_inputs need: few sizes, so that streams share them."""
    size = _SLOW_BLOCK
    while size < n_inputs:
        size *= 4
    return size


@lru_cache(maxsize=16)
def draw_slow(
    seed: int,
    n_random: int,
    n_half_lives: int,
    size: int,
    *,
    images: bool = False,
    network: NetworkSpec | None = None,
) -> SlowWeights:
    """The same rows whatever the size: block k of 64 inputs comes from (seed, view, k).

    With `network`, its shared layers too: "network/0/w", ...
    """
    layers = {} if network is None else shared_layers(network)
    tensors = {f"network/{name}": layer.copy() for name, layer in layers.items()}
    if images:
        tensors |= draw_theta(seed)
        rng = np.random.default_rng([seed, _SEED_OF_MIX])
        mix = rng.standard_normal((block_width(tensors), MIXED), np.float32)
        rows_of = rng.standard_normal((MAX_IMAGE_COLUMNS, MIXED, n_random), np.float32)
        tensors["image/mix"] = mix * np.float32(_MIX_SCALE)
        tensors["a/images"] = rows_of / np.float32(np.sqrt(MIXED))
    for view, (name, rows) in enumerate((("a", 1), ("b", 1 + n_half_lives))):
        bias = np.random.default_rng([seed, view]).standard_normal(n_random, np.float32)
        blocks = [
            np.random.default_rng([seed, view, 1 + block]).standard_normal(
                (_SLOW_BLOCK, rows, n_random), np.float32
            )
            for block in range(size // _SLOW_BLOCK)
        ]
        weights = np.concatenate(blocks)
        tensors[f"{name}/bias"] = bias
        tensors[f"{name}/weights"] = weights[:, 0].copy() if name == "a" else weights
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return SlowWeights(tensors)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the blocks of the feature matrix lie."""

    n_random: int  # D; 0 while there are no inputs, see `random_width`
    n_inputs: int  # d
    recent: tuple[int, ...]  # the r inputs compared with the recent past
    n_half_lives: int  # h
    n_classes: int  # c, at most MAX_LABEL_CLASSES
    n_label_features: int  # a class: 1 + decays
    image_width: int = 0  # k * w

    @property
    def linear_start(self) -> int:
        return self.image_width + self.n_random

    @property
    def new_start(self) -> int:
        return self.linear_start + 1 + self.n_inputs

    @property
    def labels_start(self) -> int:
        return self.new_start + self.n_half_lives * len(self.recent)

    @property
    def b_start(self) -> int:
        return self.labels_start + self.n_classes * self.n_label_features

    @property
    def width(self) -> int:
        return self.b_start + self.n_random

    @property
    def n_a(self) -> int:
        return self.new_start

    @property
    def n_b(self) -> int:
        return self.width - self.linear_start

    @property
    def n_linear(self) -> int:
        return self.b_start - self.linear_start

    @property
    def n_plain(self) -> int:
        """Of the linear features, those that plain heads see: [1, z], which come first."""
        return self.new_start - self.linear_start

    @property
    def a(self) -> slice:
        return slice(0, self.new_start)

    @property
    def b(self) -> slice:
        return slice(self.linear_start, self.width)

    @property
    def z(self) -> slice:
        return slice(self.linear_start + 1, self.new_start)

    @property
    def linear(self) -> slice:
        return slice(self.linear_start, self.b_start)

    def positions_in(self, grown: "Layout") -> NDArray[np.intp]:
        """(width,) where each of our columns lies in a layout with more of anything."""
        r, r_grown = len(self.recent), len(grown.recent)
        parts = [np.arange(self.image_width), grown.image_width + np.arange(self.n_random)]
        parts.append(grown.linear_start + np.arange(self.new_start - self.linear_start))
        parts += [grown.new_start + k * r_grown + np.arange(r) for k in range(self.n_half_lives)]
        parts.append(grown.labels_start + np.arange(self.b_start - self.labels_start))
        parts.append(grown.b_start + np.arange(self.n_random))
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """The random matrices as one stream uses them: its inputs' rows, scaled, bias on top."""

    a: NDArray[np.float32]  # (1 + d, D)
    b: NDArray[np.float32]  # (1 + d + h r, D)
    images: NDArray[np.float32]  # (k w, D)


def project(slow: SlowWeights, layout: Layout, scale: NDArray[np.float32]) -> Projections:
    """`scale` (2, d): of each input's rows in view a and b, fixed when the input came."""
    return _project(slow, layout.n_inputs, layout.recent, layout.image_width, scale.tobytes())


@lru_cache(maxsize=64)  # streams with the same inputs share them
def _project(
    slow: SlowWeights, n_inputs: int, recent: tuple[int, ...], image_width: int, scale_bytes: bytes
) -> Projections:
    if not n_inputs:
        images = np.zeros((image_width, 0), np.float32)
        return Projections(np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32), images)
    scale = np.frombuffer(scale_bytes, np.float32).reshape(2, n_inputs)
    weights_a, weights_b = slow.tensors["a/weights"], slow.tensors["b/weights"]
    chosen = np.array(recent, np.intp)
    a = [slow.tensors["a/bias"][None], weights_a[:n_inputs] * scale[0][:, None]]
    b = [slow.tensors["b/bias"][None], weights_b[:n_inputs, 0] * scale[1][:, None]]
    for k in range(1, weights_b.shape[1]):
        b.append(weights_b[chosen, k] * scale[1][chosen, None])
    of_images = [np.zeros((0, a[0].shape[1]), np.float32)]
    if image_width:
        mix = slow.tensors["image/mix"]
        of_images += [mix @ own for own in slow.tensors["a/images"][: image_width // len(mix)]]
    return Projections(*(np.concatenate(parts) for parts in (a, b, of_images)))


def input_scale(layout: Layout, n_new: int) -> NDArray[np.float32]:
    """(2, n_new) scale of the random rows of inputs that came last: 1 / sqrt(all inputs now)."""
    n_b = layout.n_inputs + layout.n_half_lives * len(layout.recent)
    scale = np.empty((2, n_new), np.float32)
    scale[0] = 1.0 / np.sqrt(max(layout.n_inputs, 1))
    scale[1] = 1.0 / np.sqrt(max(n_b, 1))
    return scale


def rates_of(half_lives: Sequence[float]) -> NDArray[np.float64]:
    """(h,) step of the exponentially weighted means: what is left halves in a half-life."""
    return np.array([1.0 - 0.5 ** (1.0 / half_life) for half_life in half_lives])


def random_width(n_random: int, n_inputs: int) -> int:
    """D of a layout: without inputs random features would be constants, and dear."""
    return n_random if n_inputs else 0


def label_rows(n_classes: int) -> int:
    """Classes whose recent labels are features: a stream of many classes stays affordable."""
    return min(n_classes, MAX_LABEL_CLASSES)


def write_features(
    rows: NDArray[np.float64],
    mean: NDArray[np.float64],
    inverse_std: NDArray[np.float64],
    recent_means: NDArray[np.float64],
    rates: NDArray[np.float64],
    labels: NDArray[np.float64],
    projections: Projections,
    layout: Layout,
    images: NDArray[np.float32] | None = None,
    *,
    advance: bool,
) -> NDArray[np.float32]:
    """(n, width) features of rows (n, d); `recent_means` (h, r) moves in place if `advance`.

    Without `advance` each row is seen as the next event after the same past. `images` (n, k w):
    their blocks, where there are any.
    """
    features = np.empty((len(rows), layout.width), np.float32)
    d, start = layout.linear_start, layout.new_start
    features[:, d] = 1.0
    recent = np.array(layout.recent, np.int64)
    _standardise(
        rows, mean, inverse_std, recent, recent_means, rates, d + 1, start, advance, features
    )
    features[:, layout.labels_start : layout.b_start] = labels[: layout.n_classes].ravel()
    random = features[:, d:start] @ projections.a
    if images is not None:
        features[:, : layout.image_width] = images
        random += images @ projections.images
    np.maximum(random, 0.0, out=features[:, layout.image_width : d])
    linear = features[:, d : layout.labels_start]
    np.maximum(linear @ projections.b, 0.0, out=features[:, layout.b_start :])
    return features


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _standardise(
    rows: NDArray[np.float64],
    mean: NDArray[np.float64],
    inverse_std: NDArray[np.float64],
    recent: NDArray[np.int64],
    recent_means: NDArray[np.float64],
    rates: NDArray[np.float64],
    z_start: int,
    new_start: int,
    advance: bool,
    features: NDArray[np.float32],
) -> None:
    n, d = rows.shape
    n_recent = len(recent)
    z = np.empty(d)
    for i in range(n):
        for j in range(d):
            value = (rows[i, j] - mean[j]) * inverse_std[j]
            value = min(max(value, -CLIP), CLIP) if value == value else value
            z[j] = value
            features[i, z_start + j] = value if value == value else 0.0
        for k in range(len(rates)):
            for r in range(n_recent):
                new = z[recent[r]] - recent_means[k, r]
                new = new if new == new else 0.0
                features[i, new_start + k * n_recent + r] = new
                if advance:
                    recent_means[k, r] += rates[k] * new


@numba.njit(cache=True, nogil=True, error_model="numpy")
def move_labels(
    labels: NDArray[np.float64], decays: NDArray[np.float64], codes: NDArray[np.int32]
) -> None:
    """Labels (c, 1 + decays) after events of classes `codes`, oldest first; in place."""
    for code in codes:
        for c in range(labels.shape[0]):
            is_it = 1.0 if c == code else 0.0
            labels[c, 0] = is_it
            for k in range(len(decays)):
                value = labels[c, 1 + k] * decays[k] + (1.0 - decays[k]) * is_it
                labels[c, 1 + k] = value if value > 1e-30 else 0.0
