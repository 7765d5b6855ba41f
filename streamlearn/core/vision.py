"""Stage 2, vision: images become rows of features that a linear head can tell classes by.

In: pixels (n, 28, 28) grey, and which events have an image. Out: (n, w) an image column, w = 505,
zeros where an event has none. Unlike `features`, which standardises numbers with what the stream
has seen, this is the same function for every stream at any time: theta, slow weights that are
drawn once from the seed and published once. So nothing here forgets, and no event's bits depend
on others. One layer (Coates, Ng, Lee 2011, An analysis of single-layer networks in unsupervised
feature learning, AISTATS, without the learning):

    p       the 7 x 7 patch at a pixel, edges repeated, its mean taken off, over sqrt(|p|^2 + .6^2)
    a       relu(p f - t), relu(-p f - t) for each of 28 filters f
    v       cube roots of the means of a under 3 x 3 Gaussian windows: (9, 56)
    block   4 (v - mean of v), and 1: there is an image

The cube root evens out faint and strong strokes, the 4 stands for the ridge's rho (see docs).
Theta may as well come from meta-training: other values, or sizes, under the same names.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from streamlearn.core.records import IMAGE_SIDE, Frame, ImageColumn

MAX_IMAGE_COLUMNS = 4  # more are ignored: the heads' memory grows with the square of all features
FILTERS, PATCH, GRID = 28, 7, 3  # 5 x 5, 9 x 9, 4 x 4 windows: within .005 of it, or worse
SMOOTH = 1.0  # pixels, of the filters: white noise sees too fine a grain
THRESHOLD, CONTRAST, SCALE = 0.2, 0.6, 4.0
WINDOW = 0.5  # standard deviation of a window, in cells of the grid
_SEED = 0x766973  # beside views 0 and 1 of the random matrices

Images: TypeAlias = Sequence[ImageColumn | None]  # a column each, None: no event has an image


@lru_cache(maxsize=4)
def draw_theta(seed: int) -> dict[str, NDArray[np.float32]]:
    """The encoder, by the names of its slow weights; read-only."""
    rng = np.random.default_rng([seed, _SEED])
    noise = rng.standard_normal((FILTERS, PATCH, PATCH), np.float32)
    filters = gaussian_filter(noise, (0.0, SMOOTH, SMOOTH))
    filters -= filters.mean(axis=(1, 2), keepdims=True)
    filters /= np.sqrt((filters**2).sum(axis=(1, 2), keepdims=True))
    cell = IMAGE_SIDE / GRID
    centres = (np.arange(GRID) + 0.5) * cell - 0.5
    away = (np.arange(IMAGE_SIDE) - centres[:, None]) / (cell * WINDOW)
    windows = np.exp(-0.5 * away**2)
    theta = {
        "image/filters": filters,  # (c, k, k)
        "image/thresholds": np.full((2, FILTERS), THRESHOLD, np.float32),  # of f, of -f
        "image/windows": windows / windows.sum(axis=1, keepdims=True),  # (g, 28), rows and columns
        "image/contrast_scale": np.array([CONTRAST, SCALE]),
    }
    theta = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in theta.items()}
    for tensor in theta.values():
        tensor.flags.writeable = False
    return theta


def block_width(theta: Mapping[str, NDArray[Any]]) -> int:
    """w, features of an image column: of each window and filter and its negative, and one more."""
    return len(theta["image/windows"]) ** 2 * 2 * len(theta["image/filters"]) + 1


class Vision:
    """The encoder as it is used: pixels in, features out."""

    __slots__ = ("_contrast", "_filters", "_scale", "_side", "_thresholds", "_windows", "width")

    def __init__(self, theta: Mapping[str, NDArray[Any]]) -> None:
        """From slow weights. KeyError, ValueError where they are no encoder."""
        filters, thresholds = theta["image/filters"], theta["image/thresholds"]
        windows, factors = theta["image/windows"], theta["image/contrast_scale"]
        n, side = len(filters), filters.shape[-1]
        shapes = filters.shape, thresholds.shape, windows.shape[1:], factors.shape
        wanted = (n, side, side), (2, n), (IMAGE_SIDE,), (2,)
        if shapes != wanted or side % 2 == 0:
            raise ValueError(f"an encoder of shapes {shapes}, not {wanted} with an odd patch")
        flat = filters.reshape(n, side * side).T
        # a filter sees no mean, so the patches' need not be taken off: see _patches
        self._filters = np.ascontiguousarray(flat - flat.mean(axis=0), np.float32)  # (k k, c)
        both = np.einsum("iy,jx->ijyx", windows, windows).reshape(len(windows) ** 2, -1)
        self._windows = np.ascontiguousarray(both, np.float32)  # (g g, 784)
        self._thresholds = np.ascontiguousarray(thresholds, np.float32)
        self._contrast, self._scale = (np.float32(factor) for factor in factors)
        self._side = side
        self.width = block_width(theta)

    def see(self, images: Images, n: int) -> NDArray[np.float32]:
        """(n, columns * width): a block of features an image column."""
        blocks = np.zeros((n, len(images), self.width), np.float32)
        for place, column in enumerate(images):
            if column is not None:
                for event in np.flatnonzero(column.present).tolist():
                    self._write(column.pixels[event], blocks[event, place])
        return blocks.reshape(n, len(images) * self.width)

    def _write(self, pixels: NDArray[np.uint8], block: NDArray[np.float32]) -> None:
        """One image, (28, 28) to (width,): products of one shape, so its bits are its own."""
        own = np.array(pixels, np.uint8, order="C")  # writable: numba compiles read-only ones apart
        patches, inverse = _patches(own, self._side, self._contrast)
        active = _rectified(patches @ self._filters, inverse, self._thresholds)
        roots = np.cbrt(self._windows @ active).ravel()
        block[:-1] = (roots - roots.mean()) * self._scale
        block[-1] = 1.0


def images_of(frame: Frame, columns: tuple[str, ...]) -> Images:
    """The frame's images in `columns`."""
    return [frame.images.get(column) for column in columns]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _patches(
    pixels: NDArray[np.uint8], side: int, contrast: np.float32
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(784, side * side) each pixel's patch on 0..1, and (784,) 1 / sqrt(|p - mean|^2 + c^2)."""
    height, width = pixels.shape
    half, area = side // 2, side * side
    padded = np.empty((height + 2 * half, width + 2 * half), np.float32)
    for y in range(padded.shape[0]):
        for x in range(padded.shape[1]):
            row = min(max(y - half, 0), height - 1)
            column = min(max(x - half, 0), width - 1)
            padded[y, x] = np.float32(pixels[row, column]) / np.float32(255.0)
    patches = np.empty((height * width, area), np.float32)
    inverse = np.empty(height * width, np.float32)
    for y in range(height):
        for x in range(width):
            at = y * width + x
            total, squares = np.float32(0.0), np.float32(0.0)
            for i in range(side):
                for j in range(side):
                    value = padded[y + i, x + j]
                    patches[at, i * side + j] = value
                    total += value
                    squares += value * value
            spread = max(squares - total * total / np.float32(area), np.float32(0.0))
            inverse[at] = np.float32(1.0) / np.sqrt(spread + contrast * contrast)
    return patches, inverse


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _rectified(
    seen: NDArray[np.float32], inverse: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(784, 2 c) how far each filter, and its negative, is over its threshold."""
    n, n_filters = seen.shape
    active = np.empty((n, 2 * n_filters), np.float32)
    zero = np.float32(0.0)
    for i in range(n):
        for f in range(n_filters):
            value = seen[i, f] * inverse[i]
            active[i, f] = max(value - thresholds[0, f], zero)
            active[i, n_filters + f] = max(-value - thresholds[1, f], zero)
    return active
