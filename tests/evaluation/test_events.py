"""Frames cut, picked from and joined, against the events that they hold."""

from dataclasses import replace

import numpy as np
import pytest

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import IMAGE_SIDE, Frame, ImageColumn
from streamlearn.core.settings import LearnerSettings
from streamlearn.evaluation.events import PIECE_EVENTS, joined, pick, pieces, with_pixels


def frame(n: int = 700) -> Frame:
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 3, n).astype(np.int32)
    numbers = rng.normal(codes[:, None], 1.0, (n, 2))
    texts = {"t": tuple(f"word {i}" if i % 3 else None for i in range(n))}
    ids = tuple(map(str, range(n)))
    times = np.arange(float(n))
    return Frame("s", ("x", "y"), numbers, codes, ("a", "b", 3), times, ids, texts)


def images(n: int) -> ImageColumn:
    """Every fourth is missing."""
    pixels = np.random.default_rng(1).integers(0, 256, (n, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    return ImageColumn.of_some([None if at % 4 == 3 else one for at, one in enumerate(pixels)])


@pytest.mark.parametrize("step", [1, 8, 32, 100, 256])
def test_pieces_teach_what_the_whole_teaches(step: int) -> None:
    settings = LearnerSettings(step_events=step, random_features=8)
    whole, cut = StreamLearner("s", settings), StreamLearner("s", settings)
    for k, one in enumerate((frame(), frame(300))):
        whole.learn(one)
        parts = list(pieces(one, step, first=k == 0))
        assert sum(map(len, parts)) == len(one) and min(map(len, parts)) > 0
        if k == 1:
            assert max(map(len, parts)) < max(PIECE_EVENTS + step, 2 * step)
        for part in parts:
            cut.learn(part)
    for name, tensor in whole.model().tensors.items():
        assert tensor.tobytes() == cut.model().tensors[name].tobytes(), name


def test_picked_events_are_whole() -> None:
    one = pick(frame(), np.array([5, 2]))
    assert one.event_ids == ("5", "2") and one.texts == {"t": ("word 5", "word 2")}
    assert one.labels() == (frame().labels()[5], frame().labels()[2])
    np.testing.assert_array_equal(one.numbers, frame().numbers[[5, 2]])


def test_joined_frames_have_all_columns() -> None:
    first = frame(3)
    second = replace(
        frame(4),
        columns=("z", "x"),
        label_values=(3, "b", "new"),
        texts={"u": ("a", "b", None, "c")},
    )
    both = joined([first, second])
    assert both.columns == ("x", "y", "z") and set(both.texts) == {"t", "u"}
    assert both.labels() == (*first.labels(), *second.labels())
    np.testing.assert_array_equal(both.numbers[:3, :2], first.numbers)
    np.testing.assert_array_equal(both.numbers[3:, [2, 0]], second.numbers)
    assert np.isnan(both.numbers[:3, 2]).all() and np.isnan(both.numbers[3:, 1]).all()
    assert both.texts["u"] == (None, None, None, "a", "b", None, "c")


def test_images_are_cut_picked_and_joined_with_their_events() -> None:
    whole = images(300)
    shown = replace(frame(300), images={"i": whole})
    parts = list(pieces(shown, 32, first=True))
    assert len(parts) > 1
    back = joined([*parts, frame(5)]).images["i"]
    np.testing.assert_array_equal(back.pixels[:300], whole.pixels)
    assert back.present.tolist() == [*whole.present.tolist(), *[False] * 5]
    one = pick(shown, np.array([7, 2])).images["i"]
    np.testing.assert_array_equal(one.pixels, whole.pixels[[7, 2]])
    assert one.present.tolist() == [False, True]


def test_pixels_as_numbers() -> None:
    assert with_pixels(frame(3)).columns == ("x", "y")
    flat = with_pixels(replace(frame(8), images={"i": images(8)}))
    assert flat.columns[:3] == ("x", "y", "i/0") and len(flat.columns) == 2 + 784
    np.testing.assert_array_equal(flat.numbers[6, 2:], images(8).pixels[6].ravel())
    assert np.isnan(flat.numbers[[3, 7], 2:]).all() and not flat.images
