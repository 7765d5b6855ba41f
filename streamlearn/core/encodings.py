"""Stage 6, encodings: what events' images and texts are like, in columns that clusters form by.

In: a step's features, and its texts' grams. Out: columns (n, w) that stand beside the numbers in
what the reservoir keeps, and what each of them weighs. Unlike the features that heads read, these
are few, and functions of the event alone that nothing moves: neither idf nor any mean has a part.

image k   the block that `vision` makes, in the 32 directions of the slow weights "image/mix"
texts     log tf of all grams at unit length, hashed to 32 sums with signs (Weinberger et al. 2009,
          Feature hashing for large scale multitask learning, ICML): groups of like texts, not
          classes. Only where a stream has neither images nor number columns

A block weighs as much as all numbers together. The encodings carry a version; kept rows of another
one are made anew from what is kept of their events.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from streamlearn.core.features import MIXED, SlowWeights, tensors_hash
from streamlearn.core.text import csr_parts

FORMAT = 1
DIRECTIONS = MIXED  # of texts: as many


@dataclass(frozen=True, slots=True)
class Encodings:
    """A stream's blocks, in the order in which their columns lie: texts, image 0, image 1, ..."""

    texts: bool = False
    n_images: int = 0

    @property
    def width(self) -> int:
        """w"""
        return DIRECTIONS * (self.texts + self.n_images)

    def grown(self, *, texts: bool, n_images: int) -> "Encodings":
        """With blocks for `texts`, if they alone are there, and for `n_images` columns.

        Blocks stay for ever, and new ones come last: texts that come after images have none.
        """
        return Encodings(self.texts or (texts and not n_images), n_images)

    def of(
        self,
        n: int,
        blocks: NDArray[np.float32] | None,
        slow: SlowWeights,
        grams: csr_array | None,
        seed: int,
    ) -> NDArray[np.float64]:
        """(n, w) of n events, NaN where one has no such image, no text.

        `blocks` (n, k v) of images, see `vision`; `grams` (n, BUCKETS) of texts.
        """
        of_texts = np.full((n, DIRECTIONS * self.texts), np.nan)
        of_images = np.full((n, DIRECTIONS * self.n_images), np.nan)
        if self.texts and grams is not None:
            indptr, indices, counts = csr_parts(grams)
            hash_grams(indptr, indices, counts, np.uint64(seed), of_texts)
        if self.n_images and blocks is not None:
            # one layout, or numba compiles it twice
            mix_blocks(np.ascontiguousarray(blocks), slow.tensors["image/mix"], of_images)
        return np.concatenate([of_texts, of_images], axis=1)

    def scale(self, inverse_std: NDArray[np.float64], *, numbers: bool) -> NDArray[np.float64]:
        """(d + w,) of all columns, given the inputs' (d,); `numbers`: some are of number columns.

        Texts at unit length vary by about 1 in all, an image's directions by about 1 each.
        """
        total = max(len(inverse_std), 1)
        own = np.full(self.width, np.sqrt(total / DIRECTIONS))
        if self.texts:
            alone = not numbers and not self.n_images
            own[:DIRECTIONS] = np.sqrt(total) if alone else 0.0
        return np.concatenate([inverse_std, own])

    @property
    def overlap(self) -> bool:
        """Whether classes lie among each other by these: texts of news do."""
        return self.texts and not self.n_images

    def compared(self, scale: NDArray[np.float64]) -> NDArray[np.float64]:
        """What of `scale` the samples' recall is measured by."""
        return scale[: len(scale) - self.width] if self.overlap else scale

    def as_json(self, slow: SlowWeights) -> dict[str, Any]:
        """For a state; `slow` decides what images are encoded as."""
        return {"texts": self.texts, "images": self.n_images, "version": version(slow)}

    @classmethod
    def from_json(cls, meta: Mapping[str, Any] | None) -> "Encodings":
        """From `as_json`; a state without had none. KeyError, TypeError where it doesn't fit."""
        return cls() if meta is None else cls(bool(meta["texts"]), int(meta["images"]))


@lru_cache(maxsize=64)
def version(slow: SlowWeights) -> str:
    """Events of the same version are encoded the same."""
    theta = {name: tensor for name, tensor in slow.tensors.items() if name.startswith("image/")}
    return f"{FORMAT}/{tensors_hash(theta)[:16]}"


# an event after the other, so that its bits don't depend on the others
@numba.njit(cache=True, nogil=True, error_model="numpy")
def mix_blocks(
    blocks: NDArray[np.float32], mix: NDArray[np.float32], encoded: NDArray[np.float64]
) -> None:
    """Blocks (n, k w), each on `mix` (w, 32), into (n, k 32); the last of w: there is an image."""
    width, directions = mix.shape
    total = np.empty(directions, np.float32)
    for i in range(len(blocks)):
        for column in range(blocks.shape[1] // width):
            block = blocks[i, column * width : (column + 1) * width]
            if block[width - 1] == 0.0:
                continue
            total[:] = 0.0
            for f in range(width):
                for j in range(directions):
                    total[j] += block[f] * mix[f, j]
            for j in range(directions):
                encoded[i, column * directions + j] = total[j]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def hash_grams(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.float32],
    key: np.uint64,
    encoded: NDArray[np.float64],
) -> None:
    """Grams of n events, as `hashed_grams` gives them, into (n, 32); no gram: left as it is."""
    for i in range(len(encoded)):
        if indptr[i] == indptr[i + 1]:
            continue
        squares = 0.0
        encoded[i] = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            value = 1.0 + (np.log(np.float64(counts[k])) if counts[k] != 1.0 else 0.0)
            squares += value * value
            # splitmix64 (Steele, Lea, Flood 2014) of the seed and the gram: a place and a sign
            bits = key + np.uint64(indices[k]) * np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = bits ^ (bits >> np.uint64(31))
            place = np.int64(bits % np.uint64(DIRECTIONS))
            encoded[i, place] += value if bits >> np.uint64(63) else -value
        encoded[i] /= np.sqrt(squares)
