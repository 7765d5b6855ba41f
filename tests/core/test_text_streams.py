"""Streams with texts, alone and beside numbers: learning, state, and what a subscriber holds."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.experts import Readout
from streamlearn.core.learner import LearnerState, StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.core.settings import STOP_WORD_LISTS, LearnerSettings
from streamlearn.core.text import STOP_WORD_LISTS as LISTS_OF_TEXT
from streamlearn.core.update import apply, diff
from streamlearn.errors import ConfigError, FormatError, StateError

SMALL = LearnerSettings(random_features=16, step_events=32)
TOPICS = ("match goal team league", "vote party law court", "film song star stage", "rain sun wind")
FILLER = ["the", "a", "of", "in", "on", "with", "who", "says", "new", "more", "after", "over"]


def news(
    n: int,
    *,
    classes: tuple[int, ...] = (0, 1, 2),
    seed: int = 0,
    numbers: float = 0.0,
    column: str = "title",
    unlabelled: float = 0.0,
    without: float = 0.0,
) -> Frame:
    """Headlines of few words of their topic among many that are of none.

    `numbers`: how far a number column tells class 0 from the others, none where it is 0;
    `without`: share of events that have no text.
    """
    rng = np.random.default_rng(seed)
    codes = rng.choice(classes, n).astype(np.int32)

    def title(code: int) -> str | None:
        own = rng.choice(TOPICS[code].split(), 2)
        words = [*own, *rng.choice(FILLER, 6), f"n{rng.integers(400)}"]
        return None if rng.random() < without else " ".join(rng.permutation(words))

    texts = {column: tuple(title(code) for code in codes)}
    x = numbers * (codes == 0)[:, None] + rng.normal(size=(n, 2))
    columns = ("x", "y") if numbers else ()
    labels: NDArray[np.int32] = np.where(rng.random(n) < unlabelled, -1, codes).astype(np.int32)
    times = np.arange(float(n))
    return Frame("s", columns, x[:, : len(columns)], labels, (0, 1, 2, 3), times, texts=texts)


def cut(frame: Frame, size: int) -> list[Frame]:
    return [frame.rows(i, min(i + size, len(frame))) for i in range(0, len(frame), size)]


def learn(frames: list[Frame], settings: LearnerSettings = SMALL) -> StreamLearner:
    learner = StreamLearner("s", settings)
    for frame in frames:
        learner.learn(frame)
    return learner


def sent(model: Model) -> Model:
    """As after a journey through bytes."""
    tensors = {
        name: np.frombuffer(bytearray(tensor.tobytes()), tensor.dtype).reshape(tensor.shape)
        for name, tensor in model.tensors.items()
    }
    manifest = json.loads(json.dumps(model.manifest))
    return Model(model.stream, model.version, manifest, tensors, model.slow)


def sent_state(state: LearnerState) -> LearnerState:
    arrays = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in state.arrays.items()
    }
    return LearnerState(json.loads(json.dumps(state.meta, allow_nan=False)), arrays)


def state_bytes(learner: StreamLearner) -> dict[str, bytes]:
    state = learner.state()
    parts = {name: array.tobytes() for name, array in state.arrays.items()}
    return {**parts, "meta": json.dumps(state.meta).encode()}


def odd_life() -> list[Frame]:
    """Numbers first, then texts, then another text column and a new class, then neither."""
    bare = news(96, numbers=1.0, seed=1)
    return [
        *cut(replace(bare, texts={}), 48),
        *cut(news(180, numbers=1.0, unlabelled=0.2, without=0.2, seed=2), 60),
        *cut(news(120, classes=(1, 3), column="body", seed=3), 40),
        *cut(replace(bare, texts={}), 48),
        *cut(news(64, classes=(0, 1, 2, 3), seed=4), 64),
    ]


def test_words_are_learned() -> None:
    learner = learn(cut(news(800), 100))
    assert learner.prequential.accuracy > 0.9
    assert learner.heads[-2:] == ("text", "text/log")
    assert learner.model().columns == ("title",)
    assert len(learner.model().manifest["inputs"]) == 0  # titles are no categories
    leaky = news(800)
    codes = np.random.default_rng(0).permutation(leaky.label_codes)
    shuffled = learn(cut(replace(leaky, label_codes=codes), 100))
    assert shuffled.prequential.accuracy < shuffled.prequential.majority + 0.06


def test_texts_beside_numbers_beat_either() -> None:
    """Numbers tell class 0, words the others, each not quite."""
    frame = news(2000, numbers=2.5, without=0.4)
    both = learn(cut(frame, 100))
    numbers = learn(cut(replace(frame, texts={}), 100))
    texts = learn(cut(replace(frame, columns=(), numbers=np.zeros((2000, 0))), 100))
    best = max(numbers.prequential.accuracy, texts.prequential.accuracy)
    assert both.prequential.accuracy > best + 0.05
    asked = news(600, numbers=2.5, without=0.4, seed=9)
    for readout in ("serve", "keep"):
        right = {}
        for name, one in (("both", both), ("numbers", numbers), ("texts", texts)):
            model = one.model()
            guess = model.predict_proba(asked, readout=readout).argmax(axis=1)
            known = np.array([model.classes.index(c) for c in asked.label_codes.tolist()])
            right[name] = (guess == known).mean()
        assert right["both"] >= max(right["numbers"], right["texts"]), (readout, right)


@pytest.mark.parametrize("cut_after", [0, 1, 2, 3, 5, 6, 8, 10])
def test_restored_goes_on_to_the_bit(cut_after: int) -> None:
    frames = odd_life()
    unbroken = learn(frames)
    first = learn(frames[:cut_after])
    second = StreamLearner.restore(sent_state(first.state()), SMALL)
    assert second.model().hash == first.model().hash
    for frame in frames[cut_after:]:
        second.learn(frame)
    assert state_bytes(second) == state_bytes(unbroken)
    assert second.model().hash == unbroken.model().hash


def test_a_subscriber_predicts_the_same_bits_and_follows_by_updates() -> None:
    learner = StreamLearner("s", SMALL)
    frames = [part for frame in odd_life() for part in cut(frame, 32)]
    held: Model | None = None
    for frame in frames:
        current = learner.model()
        held = apply(held, diff(held, current), current.slow)
        expected = sent(held).predict_next(frame)
        outcome = learner.learn(frame)
        if outcome.base_version == 0:
            continue  # the first frame is cut into short steps
        c = len(held.classes)
        assert expected.tobytes() == np.ascontiguousarray(outcome.probabilities[:, :c]).tobytes()
    assert held is not None and held.columns == ("x", "y", "title", "body")


def test_updates_carry_what_changed_only() -> None:
    learner = learn(cut(news(4000), 256))
    before = learner.model()
    learner.learn(news(32, seed=5))
    update = diff(before, learner.model())
    nbytes = sum(t.nbytes for t in update.changed.values())
    nbytes += sum(r.nbytes + v.nbytes for r, v in update.changed_rows.values())
    assert "text/weights" in update.changed_rows and nbytes < 12_000
    assert sum(t.nbytes for t in before.tensors.values()) > 50_000


@pytest.mark.parametrize("readout", ["serve", "keep"])
def test_each_event_on_its_own(readout: Readout) -> None:
    model = sent(learn(odd_life()).model())
    asked = news(70, classes=(0, 1, 2, 3), numbers=1.0, without=0.3, seed=8)
    whole = model.predict_proba(asked, readout=readout)
    for start, stop in ((0, 1), (5, 6), (3, 40), (33, 70)):
        assert (
            model.predict_proba(asked.rows(start, stop), readout=readout) == whole[start:stop]
        ).all()
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, rtol=1e-5)
    more = replace(asked, texts={"other": ("goal",) * 70, **asked.texts})
    assert (model.predict_proba(more, readout=readout) == whole).all()
    assert model.predict_proba(asked.rows(0, 0), readout=readout).shape == (0, 4)


def test_an_event_without_words_leaves_their_heads_as_they_are() -> None:
    learner = learn(cut(news(600, numbers=2.0), 60))
    model = learner.model()
    bare = replace(news(50, numbers=2.0, seed=3), texts={})
    unknown = replace(bare, texts={"title": (" \t",) * 50})
    assert (model.predict_proba(bare) == model.predict_proba(unknown)).all()
    weights = learner.learn(bare).head_weights
    was = model.tensors["pool/weights"]
    assert weights[-2] == pytest.approx(was[-2], abs=0.1) and was[-2] > 0.5


def test_keep_remembers_topics_that_are_gone() -> None:
    frames = [*cut(news(400, classes=(0, 1)), 50), *cut(news(400, classes=(2, 3), seed=1), 50)]
    model = learn(frames).model()
    asked = news(400, classes=(0, 1, 2, 3), seed=2)
    known = np.array([model.classes.index(c) for c in asked.label_codes.tolist()])
    keep = (model.predict_proba(asked, readout="keep").argmax(axis=1) == known).mean()
    assert keep > 0.8


def test_texts_before_any_label() -> None:
    frame = news(64, unlabelled=1.0)
    learner = learn([frame])
    assert learner.model().predict_next(frame).shape == (64, 0)
    assert StreamLearner.restore(sent_state(learner.state()), SMALL).model().columns == ("title",)
    learner.learn(news(64))
    assert learner.model().predict_proba(frame).shape == (64, 3)


def test_frames_of_whole_steps_may_be_cut_anyhow() -> None:
    whole = news(32 * 9, numbers=1.0)
    small = learn(cut(whole, 32))
    large = learn([whole.rows(0, 32), whole.rows(32, 32 * 9)])
    for name, tensor in small.model().tensors.items():
        assert tensor.tobytes() == large.model().tensors[name].tobytes(), name


def test_stop_words_are_a_choice() -> None:
    assert LISTS_OF_TEXT == STOP_WORD_LISTS
    english = replace(SMALL, stop_words="english")
    frames = cut(news(300), 100)
    assert learn(frames, english).model().hash != learn(frames).model().hash
    with pytest.raises(ConfigError, match="stop_words"):
        replace(SMALL, stop_words="klingon")


def test_what_does_not_fit_is_refused() -> None:
    learner = learn(cut(news(100), 50))
    state, model = learner.state(), learner.model()
    for name in ("mixture/text/weights", "mixture/text/gain", "mixture/text/buckets"):
        arrays = {**state.arrays, name: state.arrays[name][:-1]}
        with pytest.raises(StateError):
            StreamLearner.restore(replace(state, arrays=arrays), SMALL)
    census = {**state.meta["census"], "strings": []}
    with pytest.raises(StateError):
        StreamLearner.restore(replace(state, meta={**state.meta, "census": census}), SMALL)
    for name, wrong in (
        ("text/buckets", model.tensors["text/buckets"] + 2**20),
        ("text/weights", model.tensors["text/weights"][:, :-1]),
        ("text/share", np.zeros(2)),
    ):
        tensors = {**model.tensors, name: np.ascontiguousarray(wrong)}
        with pytest.raises(FormatError, match="text"):
            replace(model, tensors=tensors).predict_proba(news(1))
    manifest = {**model.manifest, "settings": {**model.manifest["settings"], "stop_words": "no"}}
    with pytest.raises(FormatError, match="stop words"):
        replace(model, manifest=manifest).predict_proba(news(1))
