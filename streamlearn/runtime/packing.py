"""A frame as the messages that carry it: halved until each part fits into one. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from streamlearn.core.records import Frame
from streamlearn.errors import FrameError, InputError
from streamlearn.wire import event_codec, image_codec
from streamlearn.wire.event_rules import RefusedError

MAX_PART_BYTES = 900 * 1024  # of a part that could be halved


@dataclass(frozen=True, slots=True)
class Packed:
    """One message: some events of a frame, in their order."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    n_events: int


def pack(frame: Frame) -> Iterator[Packed]:
    """The frame's events as messages that a worker takes.

    InputError where a part can't be encoded, or where one event alone is too large; the parts
    before it have come by then.
    """
    n = len(frame)
    if n > 1 and frame.images and _too_much(frame):
        yield from _pack_halves(frame)
        return
    try:
        value, headers = event_codec.encode(frame)
    except FrameError as error:
        raise InputError(f"frame of stream {frame.stream!r}: {error}") from None
    if len(value) > MAX_PART_BYTES and n > 1:
        yield from _pack_halves(frame)
        return
    if len(value) > event_codec.MAX_FRAME_BYTES:
        raise InputError(
            f"one event of stream {frame.stream!r} has {len(value):,} bytes; at most "
            f"{event_codec.MAX_FRAME_BYTES:,} are learned from: send smaller images or texts"
        )
    yield Packed(value, tuple(headers), n)


def _pack_halves(frame: Frame) -> Iterator[Packed]:
    n = len(frame)
    yield from pack(frame.rows(0, n // 2))
    yield from pack(frame.rows(n // 2, n))


def _too_much(frame: Frame) -> bool:
    """Whether images' files alone are too large for a part, or more pixels than a worker reads."""
    files = [raw for column in frame.images.values() for raw in column.raw if raw is not None]
    if sum(map(len, files)) > MAX_PART_BYTES:
        return True
    return sum(map(_n_pixels, set(files))) > image_codec.MAX_FRAME_PIXELS


def _n_pixels(raw: bytes) -> int:
    try:
        return image_codec.n_pixels_of(raw)
    except RefusedError:  # the worker says so, where whoever made the frame did not look
        return 0
