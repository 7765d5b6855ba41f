"""Streams with images: what they gain, what may come and go, and that every bit is kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from streamlearn.core.kept_images import KeptImages
from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import apply, diff
from streamlearn.core.vision import MAX_IMAGE_COLUMNS
from streamlearn.evaluation import evaluate

SMALL = LearnerSettings(random_features=64, step_events=32)
NAMES = tuple("abcdef")


def pictures(
    codes: NDArray[np.int32], *, seed: int = 0, inverted: bool = False
) -> NDArray[np.uint8]:
    """(n, 28, 28): a class's strokes, moved by up to 2 pixels, on noise."""
    shapes = np.random.default_rng(42).normal(size=(len(NAMES), 28, 28))
    strokes = np.abs(ndimage.gaussian_filter(shapes, (0, 2, 2))) < 0.01  # lines where it changes
    rng = np.random.default_rng([seed, len(codes)])
    found = np.empty((len(codes), 28, 28), np.uint8)
    for at, code in enumerate(codes.tolist()):
        moved = np.roll(strokes[code], rng.integers(-2, 3, 2), (0, 1))
        values = 200.0 * moved + rng.normal(20.0, 15.0, (28, 28))
        found[at] = np.clip(255 - values if inverted else values, 0, 255)
    return found


def stream(
    codes: NDArray[np.int32],
    numbers: NDArray[np.float64] | None = None,
    **columns: ImageColumn,
) -> Frame:
    rows = np.zeros((len(codes), 0)) if numbers is None else numbers
    names = tuple(f"x{j}" for j in range(rows.shape[1]))
    times = np.arange(float(len(codes)))
    return Frame("s", names, rows, codes, NAMES, times, images=columns)


def drawn(n: int, classes: tuple[int, ...], seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng([seed, n]).choice(classes, n).astype(np.int32)


def live(learner: StreamLearner, frame: Frame, size: int = 64) -> NDArray[np.bool_]:
    """Learn it in frames of `size`; (n,) whether each event was predicted right."""
    right = []
    for start in range(0, len(frame), size):
        part = frame.rows(start, min(start + size, len(frame)))
        outcome = learner.learn(part)
        names = np.array([*outcome.classes, "none"])
        right.append(names[outcome.predicted] == np.array(part.labels()))
    return np.concatenate(right)


def recall(model: Model, frame: Frame, readout: str = "keep") -> float:
    found = model.predict_proba(frame, readout="keep" if readout == "keep" else "serve")
    named = np.array(model.classes)[found.argmax(axis=1)]
    return float((named == np.array(frame.labels())).mean())


def mixed(n: int, *, seed: int = 0) -> Frame:
    """The class hangs on whether number and picture agree: neither alone says anything."""
    rng = np.random.default_rng([seed, n])
    picture, sign = rng.integers(0, 2, n), rng.integers(0, 2, n)
    numbers = rng.normal(size=(n, 2))
    numbers[:, 0] = (2 * sign - 1) * rng.uniform(0.5, 1.5, n)
    codes = (picture ^ sign).astype(np.int32)
    shown = pictures(picture.astype(np.int32), seed=seed)
    return stream(codes, numbers, shown=ImageColumn.of(shown))


def test_what_only_number_and_image_together_tell() -> None:
    frame, asked = mixed(900), mixed(200, seed=1)
    learner = StreamLearner("s", SMALL)
    right = live(learner, frame)
    assert right[600:].mean() > 0.85
    assert recall(learner.model(), asked) > 0.85
    for blind in (
        replace(frame, images={}),
        replace(frame, columns=(), numbers=np.zeros((900, 0))),
    ):
        assert live(StreamLearner("s", SMALL), blind)[600:].mean() < 0.65


def test_numbers_text_and_image_in_one_event() -> None:
    """Three pairs of classes, each told apart by another part of the event."""
    codes = drawn(900, (0, 1, 2, 3, 4, 5))
    rng = np.random.default_rng(0)
    part = codes // 2  # which part tells the two apart
    other = rng.integers(0, 2, 900)
    picture = np.where(part == 0, codes % 2, other).astype(np.int32)
    numbers = np.stack([part + 0.1 * rng.normal(size=900), rng.normal(size=900)], axis=1)
    numbers[part == 1, 1] += 6 * (codes[part == 1] % 2) - 3
    words = np.where(part == 2, codes % 2, 2)
    phrases = ("valve is shut", "pump runs hot", "all is quiet")
    said = tuple(f"{phrases[word]} {i % 97}" for i, word in enumerate(words.tolist()))
    frame = stream(codes, numbers, shown=ImageColumn.of(pictures(picture)))
    frame = replace(frame, texts={"said": said})
    learner = StreamLearner("s", SMALL)
    right = live(learner, frame)
    for pair in range(3):
        assert right[450:][part[450:] == pair].mean() > 0.85, pair


def test_missing_images_leave_the_numbers() -> None:
    codes = drawn(800, (0, 1))
    rng = np.random.default_rng(3)
    there = rng.random(800) < 0.5
    numbers = codes[:, None] + 0.5 * rng.normal(size=(800, 1))  # right for .84 of them
    frame = stream(codes, numbers, shown=ImageColumn.of(pictures(codes), there))
    right = live(StreamLearner("s", SMALL), frame)[300:]
    assert right[there[300:]].mean() > 0.95
    assert 0.75 < right[~there[300:]].mean() < 0.93


def test_an_image_column_that_comes_late_changes_nothing_that_was_known() -> None:
    codes = drawn(320, (0, 1, 2))
    numbers = np.random.default_rng(1).normal(size=(320, 4)) + codes[:, None]
    plain = stream(codes, numbers)
    learner = StreamLearner("s", SMALL)
    live(learner, plain)
    asked = plain.rows(0, 64)
    before = learner.model()
    only_images = replace(plain.rows(0, 1), label_codes=np.array([-1], np.int32))
    learner.learn(replace(only_images, images={"shown": ImageColumn.of(pictures(codes[:1]))}))
    after = learner.model()
    assert before.image_columns == () and after.image_columns == ("shown",)
    assert before.slow.hash != after.slow.hash
    was, now = (model.predict_proba(asked, readout="keep") for model in (before, after))
    assert np.abs(was - now).max() < 0.02  # one more event for the scale of the numbers, no more
    shown = replace(plain, images={"shown": ImageColumn.of(pictures(codes))})
    assert live(learner, shown)[160:].mean() > 0.9
    gone = stream(codes, numbers)  # and it may go again
    assert recall(learner.model(), gone) > recall(before, gone) - 0.05


def test_columns_beyond_the_limit_are_ignored() -> None:
    codes = drawn(3, (0, 1))
    column = ImageColumn.of(pictures(codes))
    learner = StreamLearner("s", replace(SMALL, random_features=8))
    names = [f"i{k}" for k in range(MAX_IMAGE_COLUMNS + 2)]
    learner.learn(stream(codes, None, **dict.fromkeys(names, column)))
    assert learner.model().image_columns == tuple(names[:MAX_IMAGE_COLUMNS])


def test_new_classes_and_another_style_of_pictures() -> None:
    """Classes two at a time, `keep` knows all; then light and dark change places."""
    learner = StreamLearner("s", SMALL)
    for pair in ((0, 1), (2, 3), (4, 5)):
        codes = drawn(200, pair)
        right = live(
            learner, stream(codes, None, shown=ImageColumn.of(pictures(codes, seed=pair[0])))
        )
        assert right[-100:].mean() > 0.95
    codes = drawn(300, (0, 1, 2, 3, 4, 5), seed=9)
    asked = stream(codes, None, shown=ImageColumn.of(pictures(codes, seed=9)))
    assert recall(learner.model(), asked) > 0.95
    dark = ImageColumn.of(pictures(codes, seed=8, inverted=True))
    right = live(learner, stream(codes, None, shown=dark))
    assert right[150:].mean() > 0.9
    assert recall(learner.model(), asked) > 0.9


def test_state_update_and_prediction_keep_every_bit() -> None:
    frame = mixed(320)
    frame = replace(frame, images={**frame.images, "late": ImageColumn.missing(320)})
    late = np.zeros(320, np.bool_)
    late[200:] = True
    frame = replace(
        frame, images={**frame.images, "late": ImageColumn.of(pictures(frame.label_codes), late)}
    )
    one, other = StreamLearner("s", SMALL), StreamLearner("s", SMALL)
    held: Model | None = None
    for start in range(0, 320, 64):
        part = frame.rows(start, start + 64)
        before = one.model()
        outcome = one.learn(part)
        if before.version:
            served = before.predict_next(part.rows(0, 32))
            assert (outcome.probabilities[:32, : served.shape[1]] == served).all()
        other = StreamLearner.restore(other.state(), SMALL)
        other.learn(part)
        model = one.model()
        assert model.hash == other.model().hash
        held = apply(held, diff(held, model), model.slow)
        together = held.predict_proba(part)
        for at in (0, 33, 63):
            alone = model.predict_proba(part.rows(at, at + 1))
            assert (alone[0] == together[at]).all()
    assert one.model().image_columns == ("shown", "late")
    again = StreamLearner.restore(one.state(), SMALL).state()
    for name, array in one.state().arrays.items():
        assert np.array_equal(array, again.arrays[name], equal_nan=array.dtype.kind == "f"), name


def test_late_labels_learn_from_images() -> None:
    settings = replace(SMALL, late_labels=500)
    codes = drawn(400, (0, 1, 2))
    shown = ImageColumn.of(pictures(codes))
    ids = tuple(f"e{i}" for i in range(400))
    frame = replace(stream(codes, None, shown=shown), event_ids=ids)
    learner = StreamLearner("s", settings)
    live(learner, frame.rows(0, 30))
    learner.learn(replace(frame.rows(30, 400), label_codes=np.full(370, -1, np.int32)))
    learner.learn_labels(ids[30:], [str(label) for label in frame.labels()[30:]])
    codes = drawn(200, (0, 1, 2), seed=4)
    asked = stream(codes, None, shown=ImageColumn.of(pictures(codes, seed=4)))
    assert recall(learner.model(), asked) > 0.95


def test_kept_images_are_those_of_kept_events() -> None:
    codes = drawn(900, (0, 1, 2))
    pixels = pictures(codes)
    learner = StreamLearner("s", replace(SMALL, reservoir_per_class=5))
    live(learner, stream(codes, None, shown=ImageColumn.of(pixels)))
    kept, images = learner.rehearsal.uniform.kept(), learner._memory.images
    found = images.of(kept.event, 1)[0]
    assert found is not None and found.present.all()
    assert (found.pixels == pixels[kept.event]).all()
    assert len(images) < 400  # of 900: at most 20 a class are kept
    arrays = images.state(learner.rehearsal.events(), 1)
    assert len(arrays["event"]) <= 3 * (5 + 5 + 10)
    again = KeptImages.restore(arrays).of(kept.event, 1)[0]
    assert again is not None and (again.pixels == found.pixels).all()
    with pytest.raises(ValueError):
        KeptImages.restore({**arrays, "present": arrays["present"][:-1]})


def test_digits_two_classes_at_a_time(shared_data: Callable[[str], Path]) -> None:
    """One learner, one pass: `serve` follows the stream, `keep` knows all digits at its end.

    On all 5000: docs/learner.md.
    """
    with np.load(shared_data("mnist_5k/data.npz"), allow_pickle=False) as data:
        pixels, codes = data["X"], data["y"].astype(np.int32)
    rng = np.random.default_rng(0)
    pairs = [rng.permutation(np.flatnonzero(codes // 2 == pair))[:400] for pair in range(5)]
    order = np.concatenate(pairs)
    digits = tuple(str(digit) for digit in range(10))
    shown, times = ImageColumn.of(pixels[order]), np.arange(float(len(order)))
    numbers = np.zeros((len(order), 0))
    frame = Frame("s", (), numbers, codes[order], digits, times, images={"digit": shown})
    frames = [frame.rows(start, start + 256) for start in range(0, len(frame), 256)]
    found = evaluate(frames, LearnerSettings(step_events=32), classes_over_time=True)
    assert found.classes_over_time is not None
    memory = found.classes_over_time.keep
    assert memory.forgetting is not None and memory.forgetting <= 0.04
    assert memory.final >= 0.94
    assert found.accuracy >= 0.93
