"""The frame builder against the events that went in, one by one."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from streamlearn.core.records import ImageColumn
from streamlearn.errors import InputError
from streamlearn.runtime.framing import (
    FrameBuilder,
    checked_label,
    events_of,
    frame_of_one,
    seconds,
)
from streamlearn.wire import image_codec
from tests.wire.pictures import PNG, same_images, slope


def built(*events: tuple[dict[str, object], object]) -> FrameBuilder:
    builder = FrameBuilder("s")
    for at, (features, label) in enumerate(events):
        assert builder.add(features, label=label, event_id=None, time_s=float(at))
    return builder


def test_columns_join_and_missing_values_are_nan() -> None:
    frame = built(({"a": 1}, "x"), ({"b": 2.5}, None), ({"a": None, "b": True}, "y")).take()
    assert frame.columns == ("a", "b")
    np.testing.assert_array_equal(frame.numbers, [[1, np.nan], [np.nan, 2.5], [np.nan, 1]])
    assert frame.labels() == ("x", None, "y")
    assert frame.event_time_s.tolist() == [0.0, 1.0, 2.0]


def test_a_column_keeps_its_kind_in_a_frame() -> None:
    builder = built(({"a": 1, "note": "hot", "picture": PNG}, "x"), ({"a": 2}, "y"))
    assert not builder.add({"a": "text"}, label="x", event_id=None, time_s=2.0)
    frame = builder.take()
    assert len(frame) == 2 and len(builder) == 0
    assert frame.texts == {"note": ("hot", None)}
    assert frame.images["picture"].raw == (PNG, None)
    assert frame.images["picture"].present.tolist() == [True, False]
    np.testing.assert_array_equal(frame.images["picture"].pixels[0], slope())
    assert builder.add({"a": "text"}, label="x", event_id=None, time_s=2.0)


def test_a_column_that_was_only_missing_takes_the_first_kind_seen() -> None:
    frame = built(({"a": None, "c": 0}, 1), ({"a": "t", "b": None}, 2)).take()
    assert frame.texts == {"a": (None, "t")}
    assert frame.columns == ("c", "b")


def test_labels_of_a_frame_are_all_text_or_all_numbers() -> None:
    builder = built(({"a": 1}, None), ({"a": 1}, 3), ({"a": 1}, None))
    assert not builder.add({"a": 1}, label="x", event_id=None, time_s=0.0)
    assert builder.take().labels() == (None, 3, None)
    assert builder.add({"a": 1}, label="x", event_id=None, time_s=0.0)


def test_every_event_has_an_id_as_soon_as_one_has() -> None:
    builder = FrameBuilder("s")
    for event_id in ("mine", None, None):
        builder.add({"a": 1}, label=None, event_id=event_id, time_s=0.0)
    ids = builder.take().event_ids
    assert ids[0] == "mine" and len(set(ids)) == 3 and all(ids)
    assert built(({"a": 1}, None)).take().event_ids == ()


def test_arrays_of_a_frame_are_read_only() -> None:
    frame = frame_of_one("s", {"a": 1.0}, time_s=5.0)
    for array in (frame.numbers, frame.label_codes, frame.event_time_s):
        assert not array.flags.writeable
    assert frame.labels() == (None,)


@pytest.mark.parametrize(
    "features",
    [
        {},
        {"": 1},
        {"label": 1},
        {"event_time": 1},
        {"a": [1, 2]},
        {"a": 1j},
        {3: 1},
        {"a": b"no image"},
        {"a": PNG[:-40]},
        {"a": None},
        {"a": "\ud800"},
    ],
    ids=lambda features: str(features)[:20],
)
def test_what_cannot_be_learned_from_is_refused(features: dict[str, object]) -> None:
    with pytest.raises(InputError):
        frame_of_one("s", features, time_s=0.0)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("ok", "ok"),
        (np.str_("ok"), "ok"),
        (3, 3),
        (np.int16(3), 3),
        (3.0, 3),
        (np.bool_(True), "true"),
        (None, None),
    ],
)
def test_labels_are_texts_or_whole_numbers(given: object, label: object) -> None:
    checked = checked_label(given)
    assert checked == label and type(checked) is type(label)


@pytest.mark.parametrize("given", [0.5, float("nan"), float("inf"), [1], b"ok", 1j, "", "x" * 300])
def test_what_is_no_class_is_refused(given: object) -> None:
    with pytest.raises(InputError):
        checked_label(given)


def test_times() -> None:
    assert seconds(datetime(2026, 1, 1, tzinfo=UTC), 0.0) == 1767225600.0
    assert seconds(datetime(2026, 1, 1), 0.0) == 1767225600.0
    assert seconds(None, 7.0) == 7.0
    for wrong in (float("nan"), "yesterday", 1e14):
        with pytest.raises(InputError):
            seconds(wrong, 0.0)


def test_events_of_a_frame_make_the_frame_again() -> None:
    builder = built(({"a": 1.5, "t": "x"}, 3), ({"b": 2, "p": PNG}, None), ({"a": 0.0, "b": 1}, 4))
    frame = builder.take()
    for event in events_of(frame):
        assert builder.add(
            event.features, label=event.label, event_id=event.event_id, time_s=event.time_s
        )
    again = builder.take()
    np.testing.assert_array_equal(frame.numbers, again.numbers)
    assert (again.columns, again.texts) == (frame.columns, frame.texts)
    same_images(again.images, frame.images)
    assert again.labels() == frame.labels() and again.event_ids == ()
    assert again.event_time_s.tolist() == frame.event_time_s.tolist()


def test_an_event_without_any_value_is_an_event() -> None:
    frame = frame_of_one("s", {"a": float("nan")}, time_s=0.0)
    [event] = events_of(frame)
    assert frame_of_one("s", event.features, time_s=0.0).columns == ("a",)


def test_a_frame_holds_no_more_pixels_than_a_worker_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlearn.runtime.framing.MAX_FRAME_PIXELS", 2 * 28 * 28)
    builder = built(({"p": PNG}, None), ({"p": PNG}, None), ({"a": 1.0}, None))
    assert not builder.add({"p": PNG}, label=None, event_id=None, time_s=3.0)
    assert len(builder.take()) == 3
    assert builder.add({"p": PNG}, label=None, event_id=None, time_s=3.0)


def test_an_image_without_its_file_is_sent_as_its_pixels() -> None:
    frame = built(({"p": PNG}, None)).take()
    shown = replace(frame, images={"p": ImageColumn.of(frame.images["p"].pixels)})
    [event] = events_of(shown)
    raw = event.features["p"]
    assert isinstance(raw, bytes)
    np.testing.assert_array_equal(image_codec.read(raw).pixels, slope())
