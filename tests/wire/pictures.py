"""Small real images, as files."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamlearn.core.records import IMAGE_SIDE, ImageColumn


def file_of(image: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """An image as Pillow writes it."""
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def slope(height: int = IMAGE_SIDE, width: int = IMAGE_SIDE) -> NDArray[np.uint8]:
    """(height, width) from dark to light, different along both sides."""
    down = np.linspace(0, 120, height)[:, None]
    return (down + np.linspace(0, 120, width)[None, :]).astype(np.uint8)


PNG = file_of(slope())
JPEG = file_of(slope(40, 60), "JPEG")


def same_images(a: Mapping[str, ImageColumn], b: Mapping[str, ImageColumn]) -> None:
    """Files, pixels and which are missing are equal."""
    assert list(a) == list(b)
    for name, mine in a.items():
        assert mine.raw == b[name].raw
        np.testing.assert_array_equal(mine.pixels, b[name].pixels)
        np.testing.assert_array_equal(mine.present, b[name].present)
