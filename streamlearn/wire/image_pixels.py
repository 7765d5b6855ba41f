"""One image by Pillow: a file, an array or Pillow's own to 28 x 28 grey pixels, and to a PNG.

`image_codec` says what becomes of what, and what is refused.
"""

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from streamlearn.core.records import IMAGE_SIDE
from streamlearn.wire.event_rules import RefusedError
from streamlearn.wire.image_codec import (
    JPEG_START,
    MAX_PIXELS,
    MAX_SCANS,
    MAX_SIDE,
    PNG_START,
)

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


def read(raw: bytes, spend: Callable[[int], None] | None = None) -> tuple[NDArray[np.uint8], int]:
    """(IMAGE_SIDE, IMAGE_SIDE) of a file, and how many pixels the file has: `spend` is told."""

    def seen(image: File) -> tuple[NDArray[np.uint8], int]:
        n_pixels = _checked_size(image.size)
        if spend is not None:
            spend(n_pixels)
        return _pixels(_upright(_drafted(image))), n_pixels

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
    if array.shape == _SIZE and array.dtype == np.uint8:
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
