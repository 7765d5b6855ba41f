"""PNG and JPEG files to pixels and back: what an image of any size and mode is learned as.

Others' bytes, so a file's header is believed only as far as it is harmless, and nothing is
allocated before. What an image becomes, in this order:

| what it is               | becomes                                                             |
|--------------------------|---------------------------------------------------------------------|
| animated                 | its first picture                                                   |
| 16 bits a channel        | their upper 8                                                       |
| colour, palette, CMYK    | grey: .299 red + .587 green + .114 blue (ITU-R BT.601)              |
| (partly) transparent     | lying on white, as browsers show it                                 |
| any other size           | IMAGE_SIDE x IMAGE_SIDE, both sides scaled on their own, antialiased |
| turned by its EXIF       | upright                                                             |

Refused, by RefusedError: other formats, more than MAX_PIXELS or MAX_SIDE, JPEGs of more than
MAX_SCANS scans (each is a pass over the whole image), files that are cut short or broken, and
all that Pillow only warns about. An image of IMAGE_SIDE x IMAGE_SIDE grey is itself, to the bit.
The same file gives the same pixels everywhere with the same Pillow, which `image_pixels` alone
imports, once there is an image: it takes a tenth of a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import ImageColumn
from streamlearn.wire.event_rules import RefusedError

MAX_PIXELS = 25_000_000  # of one image: up to .5 s and 300 MiB while it is read
MAX_SIDE = 16_384
MAX_FRAME_PIXELS = 250_000_000  # of all different images of a frame: seconds, not minutes
MAX_SCANS = 32  # a progressive JPEG has about 10; each of 25 million pixels takes 23 ms

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
FILE_STARTS = (PNG_START, JPEG_START)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One file that was read."""

    raw: bytes
    pixels: NDArray[np.uint8]  # (IMAGE_SIDE, IMAGE_SIDE)
    n_pixels: int  # of the file


class Pictures:
    """Reads the images of one frame: each different one once, and not more than is bearable.

    What turns out to be broken has cost its pixels, too.
    """

    def __init__(self) -> None:
        self._left = MAX_FRAME_PIXELS
        self._known: dict[bytes, Picture | RefusedError] = {}

    def column(
        self, cells: Sequence[bytes | None], refuse: Callable[[int, str], None]
    ) -> ImageColumn:
        """A column of files; `refuse` is told rows and reasons, and they have no pixels."""
        found: list[Picture | None] = [None] * len(cells)
        for row, raw in enumerate(cells):
            try:
                found[row] = None if raw is None else self._read(raw)
            except RefusedError as error:
                refuse(row, str(error))
        return column_of(found)

    def _read(self, raw: bytes) -> Picture:
        if raw not in self._known:
            try:
                self._known[raw] = read(raw, spend=self._spend)
            except RefusedError as error:
                self._known[raw] = error
        known = self._known[raw]
        if isinstance(known, RefusedError):
            raise known
        return known

    def _spend(self, n_pixels: int) -> None:
        if n_pixels > self._left:
            raise RefusedError(
                f"the frame's images have more than {MAX_FRAME_PIXELS} pixels together; "
                "send fewer in a frame, or smaller ones"
            )
        self._left -= n_pixels


def column_of(pictures: Sequence[Picture | None]) -> ImageColumn:
    """A column of images, None where missing."""
    column = ImageColumn.of_some([None if one is None else one.pixels for one in pictures])
    for array in (column.pixels, column.present):
        array.flags.writeable = False
    return replace(column, raw=tuple(None if one is None else one.raw for one in pictures))


def read(raw: bytes, *, spend: Callable[[int], None] | None = None) -> Picture:
    """A PNG or JPEG file; RefusedError where it is none.

    `spend` is told its pixels before they are read, and may raise RefusedError.
    """
    from streamlearn.wire import image_pixels

    return Picture(raw, *image_pixels.read(raw, spend))


def n_pixels_of(raw: bytes) -> int:
    """Width x height by its header; RefusedError where it is no image."""
    from streamlearn.wire import image_pixels

    return image_pixels.n_pixels_of(raw)


def files(column: ImageColumn) -> list[bytes | None]:
    """Each event's file; where none was kept, a PNG of its pixels, which is learned the same."""
    from streamlearn.wire.image_pixels import to_png

    return [
        to_png(column.pixels[row]) if raw is None and column.present[row] else raw
        for row, raw in enumerate(column.raw)
    ]
