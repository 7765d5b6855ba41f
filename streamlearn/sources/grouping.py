"""Rows of many streams, as they lie in the file, to Frames of one stream each.

A stream's rows are collected, in file order, until they fill a frame. So rows of streams that take
turns (a, b, a, b) become full frames of a and of b; between streams the order then differs from
the file's by what is waiting, at most MAX_WAITING rows, while within a stream it never does.
Nothing waits for time: what a frame contains follows from the file and the frame size alone,
except on a live pipe, where whatever has come is passed on at once.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Frame
from streamlearn.sources.rows import Codes, Rows, as_frame, join

MAX_WAITING = 65_536  # rows; then all that wait are passed on in frames that are not full
MAX_WAITING_BYTES = 64 << 20  # of images' files: the same


def frames_by_stream(
    batches: Iterable[Rows], codes: Codes, *, frame_events: int, live: bool = False
) -> Iterator[Frame]:
    """Frames of at most `frame_events` rows. `live`: nothing waits beyond its batch."""
    waiting: list[Rows] = []
    for batch in batches:
        if not len(batch):
            continue
        if waiting and waiting[0].shape != batch.shape:
            yield from _cut(join(waiting), codes, frame_events, whole=False)[0]
            waiting = []
        waiting.append(batch)
        n_waiting = sum(map(len, waiting))
        full = n_waiting >= MAX_WAITING or sum(r.file_bytes for r in waiting) >= MAX_WAITING_BYTES
        if n_waiting < frame_events and not live and not full:
            continue
        frames, rest = _cut(join(waiting), codes, frame_events, whole=not live and not full)
        yield from frames
        waiting = [rest] if len(rest) else []
    if waiting:
        yield from _cut(join(waiting), codes, frame_events, whole=False)[0]


def _cut(rows: Rows, codes: Codes, size: int, *, whole: bool) -> tuple[list[Frame], Rows]:
    """Frames in the order of their last rows, and the rows left over: none unless `whole`."""
    text = np.array([isinstance(label, str) for label in codes.labels] + [False])
    kind = rows.streams.astype(np.int64) * 2 + text[rows.labels]  # a frame's labels have one type
    by_stream = np.argsort(rows.streams, kind="stable")
    edges = np.flatnonzero(np.diff(rows.streams[by_stream])) + 1
    cuts: list[NDArray[np.intp]] = []
    left: list[NDArray[np.intp]] = []
    for at in np.split(by_stream, edges):
        runs = _runs(kind[at], rows.labels[at] >= 0)
        for i, run in enumerate(np.split(at, runs)):
            full = len(run) - len(run) % size if whole and i == len(runs) else len(run)
            cuts += [run[start : min(start + size, full)] for start in range(0, full, size)]
            left.append(run[full:])
    cuts.sort(key=lambda cut: int(cut[-1]))
    rest = np.sort(np.concatenate(left)) if left else np.zeros(0, np.intp)
    return [as_frame(rows.pick(cut), codes) for cut in cuts], rows.pick(rest)


def _runs(kind: NDArray[np.int64], labelled: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Where the type of the labels changes within a stream; unlabelled rows have none."""
    at = np.flatnonzero(labelled)
    if not len(at) or kind[at].min() == kind[at].max():
        return np.zeros(0, np.intp)
    changes = np.flatnonzero(np.diff(kind[at])) + 1
    return at[changes]
