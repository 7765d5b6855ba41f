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
The same file gives the same pixels everywhere with the same Pillow.
"""

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from streamlearn.core.records import IMAGE_SIDE, ImageColumn
from streamlearn.wire.event_rules import RefusedError

MAX_PIXELS = 25_000_000  # of one image: 100 MB while it is read, were it RGBA
MAX_SIDE = 16_384
MAX_FRAME_PIXELS = 250_000_000  # of all different images of a frame: seconds, not minutes
MAX_SCANS = 100  # a progressive JPEG has about 10

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
FILE_STARTS = (PNG_START, JPEG_START)
WHITE = 255

_SIZE = (IMAGE_SIDE, IMAGE_SIDE)
_UPRIGHT = {  # EXIF 2.32, tag 0x0112: how the stored image has to be turned
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # where Pillow finds it
T = TypeVar("T")
File: TypeAlias = JpegImageFile | PngImageFile
_LOCK = threading.Lock()  # Python's warning filters belong to the whole process


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One file that was read."""

    raw: bytes
    pixels: NDArray[np.uint8]  # (IMAGE_SIDE, IMAGE_SIDE)
    n_pixels: int  # of the file


class Pictures:
    """Reads the images of one frame: each different one once, and not more than is bearable."""

    def __init__(self) -> None:
        self._left = MAX_FRAME_PIXELS
        self._known: dict[bytes, Picture] = {}

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
        known = self._known.get(raw)
        if known is None:
            known = self._known[raw] = read(raw, at_most=self._left)
            self._left -= known.n_pixels
        return known


def column_of(pictures: Sequence[Picture | None]) -> ImageColumn:
    """A column of images, None where missing."""
    column = ImageColumn.of_some([None if one is None else one.pixels for one in pictures])
    for array in (column.pixels, column.present):
        array.flags.writeable = False
    return replace(column, raw=tuple(None if one is None else one.raw for one in pictures))


def read(raw: bytes, *, at_most: int = MAX_FRAME_PIXELS) -> Picture:
    """A PNG or JPEG file; RefusedError where it is none, or has more than `at_most` pixels."""

    def seen(image: File) -> Picture:
        n_pixels = _checked_size(image.size)
        if n_pixels > at_most:
            raise RefusedError(
                f"the frame's images have more than {MAX_FRAME_PIXELS} pixels together; "
                "send fewer in a frame, or smaller ones"
            )
        return Picture(raw, _pixels(_upright(_drafted(image))), n_pixels)

    return _read(raw, seen)


def _read(raw: bytes, see: Callable[[File], T]) -> T:
    """What `see` makes of a file; RefusedError where it is none."""
    try:
        with _warnings_as_errors():
            return see(_opened(raw))
    except RefusedError:
        raise
    except Exception as error:  # others' bytes: Pillow raises from an open set of types
        kind = "PNG" if raw.startswith(PNG_START) else "JPEG"
        said = " ".join(str(error).split())[:200]
        raise RefusedError(f"a broken {kind}: {said or type(error).__name__}") from error


def n_pixels_of(raw: bytes) -> int:
    """Width x height by its header; RefusedError where it is no image."""
    return _read(raw, lambda image: _checked_size(image.size))


@contextmanager
def _warnings_as_errors() -> Iterator[None]:
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _opened(raw: bytes) -> File:
    """Its header is read, not its pixels. Not by Image.open, which would try other formats."""
    if raw.startswith(PNG_START):
        return PngImageFile(io.BytesIO(raw))
    if not raw.startswith(JPEG_START):
        raise RefusedError("neither PNG nor JPEG")
    n_scans = raw.count(b"\xff\xda")  # a scan's marker; within a scan 0xFF is followed by 0
    if n_scans > MAX_SCANS:
        raise RefusedError(f"a JPEG of {n_scans} scans; at most {MAX_SCANS} are read")
    return JpegImageFile(io.BytesIO(raw))


def _checked_size(size: tuple[int, int]) -> int:
    """Width x height; RefusedError for more than one image may have."""
    width, height = size
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise RefusedError(
            f"an image of {width} x {height} pixels; at most {MAX_PIXELS} in all and {MAX_SIDE} "
            "a side are read: send it smaller"
        )
    return width * height


def _drafted(image: File) -> File:
    if isinstance(image, JpegImageFile):  # decode fewer pixels, and no colour, where that will do
        image.draft("L", (2 * IMAGE_SIDE, 2 * IMAGE_SIDE))
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Grey, IMAGE_SIDE x IMAGE_SIDE, turned as its EXIF says."""
    image.load()
    small = _shrunk(_grey(image))
    turn = None
    if any(name in image.info for name in _EXIF):
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return small if turn is None else small.transpose(turn)  # a square: turning after is the same


def _shrunk(grey: Image.Image) -> Image.Image:
    """By an antialiased triangle filter, which averages over all pixels (Parmar et al. 2022,
    arXiv:2104.11222); very large images by whole factors first."""
    if grey.size == _SIZE:
        return grey
    return grey.resize(_SIZE, Image.Resampling.BILINEAR, reducing_gap=3.0)


def _pixels(small: Image.Image) -> NDArray[np.uint8]:
    return np.frombuffer(small.tobytes(), np.uint8).reshape(_SIZE)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        values = np.asarray(image)
        upper = (values >> 8).astype(np.uint8)
        if "transparency" in image.info:
            upper[values == image.info["transparency"]] = WHITE
        return Image.fromarray(upper)
    if not image.has_transparency_data:
        return image if image.mode == "L" else image.convert("L")
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    paper = Image.new("L", image.size, WHITE)
    paper.paste(image.convert("L"), mask=image.getchannel("A"))
    return paper


# --- arrays ------------------------------------------------------------------------------------


def shrink(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(IMAGE_SIDE, IMAGE_SIDE) of pixels (h, w), or (h, w, channels): grey, RGB or RGBA."""
    if array.shape == _SIZE:
        return array
    return _pixels(_shrunk(_grey(_image_of(array))))


def shrink_image(image: Image.Image) -> NDArray[np.uint8]:
    """(IMAGE_SIDE, IMAGE_SIDE) of an image that Pillow holds, of any mode."""
    _checked_size(image.size)
    return _pixels(_upright(image))


def to_png(array: NDArray[np.uint8]) -> bytes:
    """Pixels (h, w), or (h, w, channels), as a PNG file; `read` gives what `shrink` gives."""
    out = io.BytesIO()
    _image_of(array).save(out, "PNG")
    return out.getvalue()


def _image_of(array: NDArray[np.uint8]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or array.shape[2:] not in ((), (3,), (4,))
    ):
        raise RefusedError(
            f"pixels of {array.dtype} {array.shape}; give uint8 of shape (h, w), (h, w, 1), "
            "(h, w, 3) or (h, w, 4)"
        )
    _checked_size((array.shape[1], array.shape[0]))
    return Image.fromarray(np.ascontiguousarray(array))


def files(column: ImageColumn) -> list[bytes | None]:
    """Each event's file; where none was kept, a PNG of its pixels, which is learned the same."""
    return [
        to_png(column.pixels[row]) if raw is None and column.present[row] else raw
        for row, raw in enumerate(column.raw)
    ]
