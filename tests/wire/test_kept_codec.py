"""A kept event is read back by the events topic's own codec."""

from dataclasses import replace

import numpy as np

from streamlearn.core.records import Frame, ImageColumn
from streamlearn.wire import event_codec, image_codec, kept_codec
from tests.wire.pictures import JPEG, PNG, slope

PHOTOS = image_codec.column_of([image_codec.read(JPEG), image_codec.read(PNG)])


def frame(images: bool) -> Frame:
    numbers = np.array([[1.5, np.nan], [0.1 + 0.2, -3.0]])
    return Frame(
        "s",
        ("a", "b"),
        numbers,
        np.array([-1, 0], np.int32),
        ("ok",),
        np.array([1e9, 1e9 + 0.25]),
        event_ids=("x", "y"),
        texts={"said": ("hello", 'with "quotes" and ü')},
        images={"photo": PHOTOS} if images else {},
    )


def test_round_trip() -> None:
    for images in (False, True):
        whole = frame(images)
        for row in range(2):
            back, rejected = event_codec.decode(kept_codec.encode(whole, row), b"s", [], 0.0)
            assert rejected == () and len(back) == 1
            kept = [
                name for name in ("a", "b") if np.isfinite(whole.numbers[row]["ab".index(name)])
            ]
            assert [
                n for n in back.columns if np.isfinite(back.numbers[0][back.columns.index(n)])
            ] == kept
            for name in kept:
                mine = back.numbers[0][back.columns.index(name)]
                assert mine == whole.numbers[row]["ab".index(name)]
            assert back.labels()[0] == whole.labels()[row]
            assert back.event_time_s[0] == whole.event_time_s[row]
            assert back.event_ids == (whole.event_ids[row],)
            assert back.texts["said"] == (whole.texts["said"][row],)
            if images:
                assert back.images["photo"].raw == (PHOTOS.raw[row],)
                np.testing.assert_array_equal(back.images["photo"].pixels[0], PHOTOS.pixels[row])


def test_an_image_without_its_file_is_kept_as_its_pixels() -> None:
    pixels = np.stack([slope(), 255 - slope()])
    whole = replace(frame(images=False), images={"photo": ImageColumn.of(pixels)})
    for row in range(2):
        back, rejected = event_codec.decode(kept_codec.encode(whole, row), b"s", [], 0.0)
        assert rejected == ()
        np.testing.assert_array_equal(back.images["photo"].pixels[0], pixels[row])
