"""A kept event is read back by the events topic's own codec."""

import numpy as np

from streamlearn.core.records import Frame
from streamlearn.wire import event_codec, kept_codec

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


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
        images={"photo": (PNG, PNG)} if images else {},
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
