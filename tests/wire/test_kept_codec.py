"""A kept event is read back as it came, with when and why."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.core.microclusters import Why
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.errors import StateError
from streamlearn.wire import image_codec, kept_codec
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
            said = kept_codec.decode(kept_codec.encode(whole, row, event=70 + row, why=2), "s")
            back = said.frame
            assert (said.event, said.why, len(back)) == (70 + row, Why.NEARER, 1)
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
        back = kept_codec.decode(kept_codec.encode(whole, row, event=0, why=0), "s").frame
        np.testing.assert_array_equal(back.images["photo"].pixels[0], pixels[row])


GOLDEN = bytes.fromhex("534c4b52010001000700000000000000") + b'{"a":1.5,"event_time":1.0}'


def test_golden_bytes() -> None:
    said = kept_codec.decode(GOLDEN, "s")
    assert (said.event, said.why, said.frame.numbers.tolist()) == (7, Why.FAR, [[1.5]])
    alone = Frame("s", ("a",), np.array([[1.5]]), np.array([-1], np.int32), (), np.array([1.0]))
    assert kept_codec.encode(alone, 0, event=7, why=1) == GOLDEN


def test_rows_of_format_0_are_written_anew_once() -> None:
    newer = kept_codec.refreshed(GOLDEN[16:])
    assert newer is not None and kept_codec.refreshed(newer) is None
    said = kept_codec.decode(newer, "s")
    assert (said.event, said.why, said.frame.numbers.tolist()) == (None, None, [[1.5]])


@given(st.binary(max_size=60), st.integers(0, len(GOLDEN)))
def test_foreign_rows_are_refused_by_name(noise: bytes, cut: int) -> None:
    for row in (noise, GOLDEN[:cut] + noise, b"SLKR\x02\0" + noise.ljust(10)):
        if row == GOLDEN:
            continue
        try:
            kept_codec.decode(row, "s")
        except StateError:
            continue
        assert row.startswith(b"SLKR\x01")
    with pytest.raises(StateError, match="upgrade"):
        kept_codec.decode(b"SLKR\x02\0" + bytes(20), "s")
