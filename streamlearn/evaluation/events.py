"""Frames as evaluating needs them: in whole steps, some of their events, several as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import MAX_FRAME_EVENTS, Frame, ImageColumn, Label
from streamlearn.core.steps import step_cuts
from streamlearn.errors import InputError

FRAME_EVENTS = 1024  # about: frames hold whole steps
PIECE_EVENTS = 128  # about: so often it is looked at what comes over time


def frame_events(step: int) -> int:
    """Events a frame to evaluate with: whole steps, since a step never spans two frames."""
    if not 1 <= step <= MAX_FRAME_EVENTS:
        raise InputError(
            f"a step is 1..{MAX_FRAME_EVENTS} events, got --step {step}; 32 is a good start"
        )
    return step * max(FRAME_EVENTS // step, 1)


def pieces(frame: Frame, step: int, *, first: bool) -> Iterator[Frame]:
    """The frame in shorter ones, cut where a step ends: what is learned from them is the same.

    `first`: of its stream, whose first steps are shorter, and in one piece.
    """
    start = 0
    for begin, end in step_cuts(len(frame), step, first=first):
        whole = end - start >= PIECE_EVENTS and (not first or begin >= step)
        if whole or end == len(frame):
            yield frame.rows(start, end)
            start = end


def pick(frame: Frame, chosen: NDArray[np.intp]) -> Frame:
    """The events at these positions."""
    at = chosen.tolist()
    return replace(
        frame,
        numbers=frame.numbers[chosen],
        label_codes=frame.label_codes[chosen],
        event_time_s=frame.event_time_s[chosen],
        event_ids=tuple(frame.event_ids[i] for i in at) if frame.event_ids else (),
        texts={name: tuple(column[i] for i in at) for name, column in frame.texts.items()},
        images={name: column.pick(chosen) for name, column in frame.images.items()},
    )


def with_pixels(frame: Frame) -> Frame:
    """The frame with its images' pixels as number columns, for learners that know no images."""
    if not frame.images:
        return frame
    columns, parts = list(frame.columns), [frame.numbers]
    for name, image in frame.images.items():
        pixels = image.pixels.reshape(len(frame), -1).astype(np.float64)
        pixels[~image.present] = np.nan
        parts.append(pixels)
        columns += [f"{name}/{at}" for at in range(pixels.shape[1])]
    return replace(frame, columns=tuple(columns), numbers=np.hstack(parts), images={})


def joined(frames: Sequence[Frame]) -> Frame:
    """Frames of one stream as one, whatever columns each has."""
    columns = tuple(dict.fromkeys(name for frame in frames for name in frame.columns))
    texts = tuple(dict.fromkeys(name for frame in frames for name in frame.texts))
    images = tuple(dict.fromkeys(name for frame in frames for name in frame.images))
    numbers = np.full((sum(map(len, frames)), len(columns)), np.nan)
    place = {name: j for j, name in enumerate(columns)}
    codes: dict[Label, int] = {}
    label_codes: list[int] = []
    start = 0
    for frame in frames:
        stop = start + len(frame)
        numbers[start:stop, [place[name] for name in frame.columns]] = frame.numbers
        start = stop
        for label in frame.labels():
            label_codes.append(-1 if label is None else codes.setdefault(label, len(codes)))
    return Frame(
        stream=frames[0].stream,
        columns=columns,
        numbers=numbers,
        label_codes=np.array(label_codes, np.int32),
        label_values=tuple(codes),
        event_time_s=np.concatenate([frame.event_time_s for frame in frames]),
        texts={
            name: tuple(
                text for frame in frames for text in frame.texts.get(name, (None,) * len(frame))
            )
            for name in texts
        },
        images={
            name: ImageColumn.joined(
                [frame.images.get(name) or ImageColumn.missing(len(frame)) for frame in frames]
            )
            for name in images
        },
    )
