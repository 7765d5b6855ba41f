"""Streams with an adapted network: its place in the pool, the same bits everywhere."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from streamlearn.core.adaptation import AdaptRequest
from streamlearn.core.cohort import adapter_of
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import apply, diff

MakeStream = Callable[..., list[Frame]]
SETTINGS = LearnerSettings(network="all", step_events=32, random_features=16)


@pytest.fixture(scope="module")
def frames(make_stream: MakeStream) -> list[Frame]:
    return make_stream(640, d=4, n_classes=3, unlabelled=0.1)


def learned(frames: list[Frame], settings: LearnerSettings = SETTINGS) -> StreamLearner:
    learner = StreamLearner("s", settings)
    for frame in frames:
        learner.learn(frame)
    return learner


def test_the_network_is_a_head_that_learns(frames: list[Frame]) -> None:
    learner = learned(frames)
    assert "network" in learner.heads
    before, after = learned(frames[:1]).model(), learner.model()
    assert not np.array_equal(before.tensors["network"], after.tensors["network"])


@pytest.mark.parametrize("network", ["off", "images"])
def test_numbers_alone_have_none_unless_asked_for(frames: list[Frame], network: str) -> None:
    learner = learned(frames[:2], LearnerSettings(network=network))
    assert "network" not in learner.heads
    assert not any(name.startswith("network") for name in learner.model().tensors)
    assert not any(name.startswith("network") for name in learner.model().slow.tensors)


def test_a_subscriber_says_what_the_learner_says_bit_by_bit(frames: list[Frame]) -> None:
    learner, held = StreamLearner("s", SETTINGS), None
    for frame in frames:
        step = frame.rows(0, SETTINGS.step_events)
        before = None if held is None else held.predict_next(step)
        outcome = learner.learn(frame)
        if before is not None:
            served = outcome.probabilities[: len(step), : before.shape[1]]
            np.testing.assert_array_equal(before, served)
        model = learner.model()
        held = apply(held, diff(held, model), model.slow)
        assert held.hash == model.hash


def test_replayed_events_are_held_to_what_was_said_when_they_were_learned(
    frames: list[Frame],
) -> None:
    learner, requests = StreamLearner("s", SETTINGS), list[AdaptRequest]()
    inner = adapter_of(SETTINGS)
    for frame in frames:
        learning = learner.learning(frame)
        try:
            request = next(learning)
            while True:
                requests.append(request)
                request = learning.send(inner.adapt([request])[0])
        except StopIteration:
            pass
    stored = requests[-1].replay_logits
    known = ~np.isnan(stored)
    assert known.any(axis=2).mean() > 0.8  # the others are so new that they wait themselves
    right = np.where(known, stored, -np.inf).argmax(axis=2) == requests[-1].replay_y
    assert right[known.any(axis=2)].mean() > 0.5 > 1 / 3


def test_its_state_goes_on_to_the_same_bits(frames: list[Frame]) -> None:
    whole = learned(frames)
    half = learned(frames[:5])
    again = StreamLearner.restore(half.state(), SETTINGS)
    for learner in (half, again):
        for frame in frames[5:]:
            learner.learn(frame)
        assert learner.model().hash == whole.model().hash


def test_frames_cut_between_steps_change_nothing(frames: list[Frame]) -> None:
    cut = [frame.rows(i, i + 32) for frame in frames[1:] for i in (0, 32)]
    whole, parts = learned(frames), learned([frames[0], *cut])
    for name, tensor in whole.model().tensors.items():
        np.testing.assert_array_equal(tensor, parts.model().tensors[name])


def test_columns_and_classes_come_and_it_goes_on(make_stream: MakeStream) -> None:
    narrow = make_stream(320, d=3, n_classes=2)
    wide = make_stream(320, d=20, n_classes=5, seed=1)
    learner = learned([*narrow, *wide])
    restored = StreamLearner.restore(learner.state(), SETTINGS)
    for frame in wide:
        outcome = learner.learn(frame)
        again = restored.learn(frame)
        np.testing.assert_array_equal(outcome.probabilities, again.probabilities)
    assert learner.model().hash == restored.model().hash


def test_what_it_reads_makes_it_better_than_chance_alone(frames: list[Frame]) -> None:
    learner = learned(frames)
    head = learner.heads.index("network")
    right = n = 0
    for frame in frames:
        tested = learner._mixture.test(learner._schema.inputs.rows(frame), {}, ())
        told = frame.label_codes >= 0
        named = [learner.classes[c] for c in tested.scores[:, head].argmax(axis=1)]
        labels = frame.labels()
        right += sum(a == b for a, b, t in zip(named, labels, told, strict=True) if t)
        n += int(told.sum())
    assert right / n > 0.6


def pictures(n: int, *, seed: int = 0, missing: float = 0.2) -> list[Frame]:
    """Bars, upright or lying, on noise; some events without an image, all with a number."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2, n).astype(np.int32)
    pixels = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
    for i, place in enumerate(rng.integers(12, 16, n)):
        bar = np.s_[:, place] if codes[i] else np.s_[place, :]
        pixels[i][bar] = 255
    column = ImageColumn.of(pixels, rng.random(n) >= missing)
    numbers, times = rng.normal(size=(n, 1)), np.arange(float(n))
    whole = Frame("s", ("x",), numbers, codes, ("lying", "upright"), times, images={"p": column})
    return [whole.rows(i, i + 64) for i in range(0, n, 64)]


IMAGES = LearnerSettings(step_events=32, random_features=16)


def test_images_bring_a_network_and_missing_ones_leave_it_asleep() -> None:
    frames = pictures(448)
    learner = learned(frames[:6], IMAGES)
    assert "network" in learner.heads
    assert learner.model().manifest["network"] == "conv"
    frame = frames[6]
    images = [frame.images["p"]]
    tested = learner._mixture.test(learner._schema.inputs.rows(frame), {}, images)
    head, present = learner.heads.index("network"), frame.images["p"].present
    named = tested.scores[:, head].argmax(axis=1)
    labels = np.array([learner.classes.index(label) for label in frame.labels()])
    assert (named == labels)[present].mean() > 0.9
    experts = learner._mixture.experts
    logits = experts.network_logits(tested.features, images)
    assert logits is not None and np.isnan(logits[~present]).all()
    weights = experts.weights[:head]
    others = np.maximum(tested.scores[:, :head].astype(np.float64), 0.01)  # pool.CLIP
    others = np.einsum("k,nkc->nc", weights, others / others.sum(axis=2, keepdims=True))
    others /= others.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tested.scores[~present, head], others[~present], rtol=1e-5)


def test_with_images_a_subscriber_and_a_restored_learner_have_the_same_bits() -> None:
    frames = pictures(320)
    half = learned(frames[:3], IMAGES)
    again = StreamLearner.restore(half.state(), IMAGES)
    for frame in frames[3:]:
        step, model = frame.rows(0, 32), half.model()
        outcome = half.learn(frame)
        np.testing.assert_array_equal(model.predict_next(step), outcome.probabilities[:32])
        together = model.predict_proba(step)
        alone = [model.predict_proba(step.rows(i, i + 1))[0] for i in (0, 7, 31)]
        np.testing.assert_array_equal(together[[0, 7, 31]], alone)
        np.testing.assert_array_equal(again.learn(frame).probabilities, outcome.probabilities)
    assert again.model().hash == half.model().hash


def test_images_that_come_later_find_their_place_before_the_texts() -> None:
    rng = np.random.default_rng(0)
    words = [f"word{k} and {k * 7 % 13} more" for k in range(40)]

    def texts(n: int) -> tuple[str, ...]:
        return tuple(" ".join(rng.choice(words, 5)) for _ in range(n))

    learner = StreamLearner("s", IMAGES)
    for number, frame in enumerate(pictures(384)):
        images = frame.images if number >= 3 else {}
        outcome = learner.learn(replace(frame, texts={"t": texts(len(frame))}, images=images))
        restored = StreamLearner.restore(learner.state(), IMAGES)
        assert restored.model().hash == learner.model().hash
    assert outcome.heads[-3:] == ("network", "text", "text/log")
    assert len(outcome.head_weights) == len(outcome.heads)
