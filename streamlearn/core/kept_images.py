"""Stage 6, kept images: the pixels of events that the reservoir keeps.

In: a step's images, and which events were kept. Out: images of kept events, by the stream's event
count. The reservoir keeps rows of numbers and knows nothing of images; they lie here beside it, as
pixels and not as features, so that they can be encoded again by whatever encoder there is.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import IMAGE_SIDE, ImageColumn
from streamlearn.core.vision import Images

MOST_ASKED = 512  # kept images that `keep` is weighed by; encoding one takes .2 ms
_SLACK = 256  # images over twice what is kept, before those of events that left are dropped
_EVENT = np.dtype(np.int64)


class KeptImages:
    """Images by event, of as many columns as there were when the event came."""

    __slots__ = ("_images", "_wait")

    def __init__(self) -> None:
        self._images: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}
        self._wait = _SLACK  # images to hold before it is looked which events left

    def __len__(self) -> int:
        return len(self._images)

    def take(self, events: NDArray[np.int64], taken: NDArray[np.bool_], images: Images) -> None:
        """Of events (n,), with images (n,) a column, remember those `taken`."""
        for at in np.flatnonzero(taken).tolist():
            pixels = np.zeros((len(images), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
            present = np.zeros(len(images), np.bool_)
            for place, column in enumerate(images):
                if column is not None and column.present[at]:
                    pixels[place], present[place] = column.pixels[at], True
            self._images[int(events[at])] = pixels, present

    @property
    def is_full(self) -> bool:
        """Whether it is time to say which events are still kept."""
        return len(self._images) > self._wait

    def forget_others(self, events: Iterable[int]) -> None:
        """Drop the images of all but these events."""
        kept = set(events)
        self._images = {event: own for event, own in self._images.items() if event in kept}
        self._wait = 2 * len(self._images) + _SLACK

    def of(self, events: NDArray[np.int64], n_columns: int) -> Images:
        """Images (m,) a column; events that came before a column have none in it."""
        pixels = np.zeros((n_columns, len(events), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        present = np.zeros((n_columns, len(events)), np.bool_)
        for row, event in enumerate(events.tolist()):
            if event in self._images:
                own, there = self._images[event]
                pixels[: len(own), row], present[: len(own), row] = own, there
        return [ImageColumn.of(pixels[k], present[k]) for k in range(n_columns)]

    def state(self, events: Iterable[int], n_columns: int) -> dict[str, NDArray[Any]]:
        """Everything needed to go on, given the events that are kept."""
        known = np.array(sorted(set(events) & self._images.keys()), _EVENT)
        columns = self.of(known, n_columns)
        shape = (len(known), n_columns)
        pixels = np.zeros((*shape, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        present = np.zeros(shape, np.bool_)
        for place, column in enumerate(columns):
            if column is not None:
                pixels[:, place], present[:, place] = column.pixels, column.present
        return {"event": known, "pixels": pixels, "present": present}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> "KeptImages":
        """Go on from what `state` gave. KeyError, ValueError where it doesn't fit."""
        events, pixels, present = (arrays[name] for name in ("event", "pixels", "present"))
        shape = (*present.shape, IMAGE_SIDE, IMAGE_SIDE)
        if present.ndim != 2 or pixels.shape != shape or events.shape != present.shape[:1]:
            raise ValueError(f"images {pixels.shape}, {present.shape} of events {events.shape}")
        kept = cls()
        for row, event in enumerate(events.tolist()):
            own = np.array(pixels[row], np.uint8), np.array(present[row], np.bool_)
            kept._images[event] = own
        kept._wait = 2 * len(kept) + _SLACK
        return kept


def first_of_each(codes: NDArray[np.int32], most: int) -> NDArray[np.intp]:
    """Positions of about `most` of codes (m,), sorted by class, the same number a class.

    >>> first_of_each(np.array([0, 0, 0, 1, 1, 1, 2]), 6).tolist()
    [0, 1, 3, 4, 6]
    """
    n = np.bincount(codes)
    rank = np.arange(len(codes)) - (np.cumsum(n) - n)[codes]
    share = most // max(int(np.count_nonzero(n)), 1)
    return np.flatnonzero(rank < max(share, 1))
