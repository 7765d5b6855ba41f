"""Late labels: remembered events are learned once, scored by what was predicted when they came."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from streamlearn.core.learner import StreamLearner
from streamlearn.core.pending import MAX_TEXT_CHARACTERS
from streamlearn.core.records import IMAGE_SIDE, Frame, ImageColumn, Label
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import ConfigError, StateError
from tests.core.test_learner import sent, state_bytes

MakeStream = Callable[..., list[Frame]]
SMALL = LearnerSettings(random_features=24, step_events=32, late_labels=100)


def with_ids(frames: list[Frame]) -> list[Frame]:
    """Each event with an id of its own."""
    named = []
    for number, frame in enumerate(frames):
        ids = tuple(f"{number}.{row}" for row in range(len(frame)))
        named.append(replace(frame, event_ids=ids))
    return named


def unlabelled(frame: Frame) -> tuple[Frame, list[str], list[Label]]:
    """The frame without its labels; the ids and labels of those that it had."""
    pairs = [
        (event_id, label)
        for event_id, label in zip(frame.event_ids, frame.labels(), strict=True)
        if label is not None
    ]
    bare = replace(frame, label_codes=np.full(len(frame), -1, np.int32))
    return bare, [event_id for event_id, _ in pairs], [label for _, label in pairs]


Act = Frame | tuple[list[str], list[Label]]


def do(learner: StreamLearner, act: Act) -> None:
    if isinstance(act, Frame):
        learner.learn(act)
    else:
        learner.learn_labels(*act)


def pictures(n: int, seed: int = 0) -> ImageColumn:
    """Every third is missing."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, IMAGE_SIDE, IMAGE_SIDE), dtype=np.uint8)
    return ImageColumn.of_some([None if at % 3 == 2 else one for at, one in enumerate(pixels)])


def odd_life(make_stream: MakeStream) -> list[Act]:
    """Labels at once, a frame late, twice, never; texts, images, gaps, columns and classes that
    come."""
    frames = make_stream(160, d=4, n_classes=2, missing=0.05, a_frame=40)
    later = make_stream(160, d=6, n_classes=4, missing=0.05, a_frame=40, seed=1)
    words = ("one", "two", "three", "four", "five", "six", "seven")
    texts = [
        replace(f, texts={"t": tuple(f"{words[i % 7]} is {i}" for i in range(len(f)))})
        for f in later
    ]
    texts[2:] = [replace(f, images={"i": pictures(len(f))}) for f in texts[2:]]
    acts: list[Act] = []
    waiting: list[tuple[list[str], list[Label]]] = []
    for number, frame in enumerate(with_ids([*frames, *texts])):
        bare, ids, labels = unlabelled(frame)
        acts.append(frame if number % 4 == 1 else bare)
        waiting.append((ids, labels))
        if number % 3 == 2:
            acts += waiting[-2:]
    return [*acts, waiting[0], ([], [])]


def test_restored_goes_on_to_the_bit_at_any_cut(make_stream: MakeStream) -> None:
    acts = odd_life(make_stream)
    unbroken = StreamLearner("s", SMALL)
    for act in acts:
        do(unbroken, act)
    assert unbroken.prequential.n > 150 and len(unbroken.classes) == 4
    for cut in range(len(acts) + 1):
        learner = StreamLearner("s", SMALL)
        for number, act in enumerate(acts):
            if number == cut:
                learner = StreamLearner.restore(sent(learner.state()), SMALL)
            do(learner, act)
        assert state_bytes(learner) == state_bytes(unbroken)
        assert learner.model().hash == unbroken.model().hash


def test_scored_by_what_was_predicted_then(make_stream: MakeStream) -> None:
    """Counts against a second bookkeeping; labels come three frames later, in another order."""
    frames = with_ids(make_stream(40 * 12, n_classes=3, a_frame=40))
    learner = StreamLearner("s", replace(SMALL, late_labels=200))
    said: dict[str, Label | None] = {}
    right = n = 0
    for number, frame in enumerate(frames):
        bare, _, _ = unlabelled(frame)
        told = learner.learn(bare)
        assert told.n_labelled == 0
        for event_id, code in zip(frame.event_ids, told.predicted.tolist(), strict=True):
            said[event_id] = None if code < 0 else told.classes[code]
        if number < 3:
            continue
        _, ids, labels = unlabelled(frames[number - 3])
        version = learner.version
        late = learner.learn_labels(ids[::-1], labels[::-1])
        assert late.outcome is not None and late.frame is not None
        assert late.frame.event_ids == tuple(ids[::-1]) and late.unknown == late.repeated == ()
        assert (late.outcome.base_version, learner.version) == (version, version + 1)
        expected = sum(said[i] == label for i, label in zip(ids, labels, strict=True))
        assert (late.outcome.n_labelled, late.outcome.n_correct) == (40, expected)
        n, right = n + 40, right + expected
    assert (learner.prequential.n, learner.prequential.n_correct.sum()) == (n, right)
    assert learner.drift.errors.n_labelled == n == learner.rehearsal.n_seen.sum()
    assert learner.n_events == 40 * 12 and learner.drift.n_events == 40 * 12


def test_probabilities_are_those_that_were_served(make_stream: MakeStream) -> None:
    first, second, third = with_ids(make_stream(120, n_classes=2, a_frame=40))
    learner = StreamLearner("s", SMALL)
    learner.learn(first)
    bare, ids, _ = unlabelled(second)
    served = learner.learn(bare).probabilities
    learner.learn(third)
    late = learner.learn_labels(ids, ["new"] * 40)  # a class that nobody knew
    assert late.outcome is not None and late.outcome.classes[-1] == "new"
    assert late.outcome.n_correct == 0
    np.testing.assert_array_equal(late.outcome.probabilities[:, :2], served)
    assert not late.outcome.probabilities[:, 2].any()
    assert learner.model().predict_proba(first).shape == (40, 3)


def test_late_labels_teach_about_as_much_as_prompt_ones(make_stream: MakeStream) -> None:
    frames = with_ids(make_stream(64 * 20, n_classes=3))
    prompt, late = StreamLearner("s", SMALL), StreamLearner("s", SMALL)
    for frame in frames:
        prompt.learn(frame)
        bare, ids, labels = unlabelled(frame)
        late.learn(bare)
        late.learn_labels(ids, labels)
    assert late.prequential.n == prompt.prequential.n
    assert late.prequential.accuracy_faded > prompt.prequential.accuracy_faded - 0.05
    assert late.prequential.accuracy_faded > 0.75


def test_late_texts_are_learned(make_stream: MakeStream) -> None:
    """Words tell the class, numbers nothing."""
    rng = np.random.default_rng(0)
    learner = StreamLearner("s", SMALL)
    right: list[bool] = []
    for number in range(30):
        codes = rng.integers(0, 2, 20)
        words = tuple(f"{'sunny' if c else 'rainy'} day {rng.integers(1000)}" for c in codes)
        ids = tuple(f"{number}.{i}" for i in range(20))
        numbers, times = rng.normal(size=(20, 1)), np.full(20, float(number))
        bare = np.full(20, -1, np.int32)
        told = learner.learn(
            Frame("s", ("x",), numbers, bare, (), times, ids, texts={"t": words}),
        )
        labels: list[Label] = [int(c) for c in codes]
        guesses = [told.classes[c] if c >= 0 else None for c in told.predicted.tolist()]
        right += [guess == label for guess, label in zip(guesses, labels, strict=True)]
        learner.learn_labels(ids, labels)
    assert np.mean(right[-200:]) > 0.95


def test_images_wait_for_their_labels_as_they_came() -> None:
    learner = StreamLearner("s", SMALL)
    columns = {"front": pictures(12), "back": pictures(12, seed=1)}
    ids = tuple(f"e{at}" for at in range(12))
    bare = np.full(12, -1, np.int32)
    learner.learn(
        Frame("s", ("x",), np.zeros((12, 1)), bare, (), np.zeros(12), ids, images=columns)
    )
    learner = StreamLearner.restore(sent(learner.state()), SMALL)
    asked = [7, 2, 0, 11]
    late = learner.learn_labels([ids[at] for at in asked], ["a", "b", "a", "b"])
    assert late.frame is not None and set(late.frame.images) == {"front", "back"}
    for name, column in columns.items():
        found, chosen = late.frame.images[name], column.pick(np.array(asked))
        np.testing.assert_array_equal(found.pixels, chosen.pixels)
        assert found.present.tolist() == chosen.present.tolist() == [True, False, True, False]


def test_memory_is_bounded_by_images() -> None:
    learner = StreamLearner("s", replace(SMALL, late_labels=10))
    for number in range(4):
        images = {str(at): ImageColumn.of(pictures(1).pixels) for at in range(15)}
        learner.learn(
            Frame(
                "s", ("x",), np.zeros((1, 1)), np.array([-1], np.int32), (), np.zeros(1),
                (str(number),), images=images,
            )
        )  # fmt: skip
        learner = StreamLearner.restore(sent(learner.state()), learner.settings)
    assert learner.learn_labels(list("0123"), ["a"] * 4).unknown == (0, 1)


def test_memory_that_is_not_needed_changes_nothing(make_stream: MakeStream) -> None:
    """Labelled events with and without ids: the model is the one without a memory."""
    frames = make_stream(300, unlabelled=0.2)
    models = [
        learned.model()
        for settings in (SMALL, replace(SMALL, late_labels=0))
        for stream in (frames, with_ids(frames))
        for learned in [StreamLearner("s", settings)]
        if [learned.learn(frame) for frame in stream]
    ]
    assert len({model.hash for model in models}) == 1


def test_an_id_is_learned_once(make_stream: MakeStream) -> None:
    frames = with_ids(make_stream(80, n_classes=2, a_frame=20))
    learner = StreamLearner("s", SMALL)
    learner.learn(frames[0])
    again = learner.learn(frames[0])
    assert (again.n_labelled, again.n_repeated, len(again.predicted)) == (0, 20, 20)
    bare, ids, labels = unlabelled(frames[1])
    learner.learn(bare)
    learner.learn(bare)  # waits once
    learner.learn(replace(bare, event_ids=frames[0].event_ids))  # learned: waits no more
    once = learner.learn_labels([*ids, *ids, *frames[0].event_ids], [*labels, *labels, *labels])
    assert once.repeated == tuple(range(20, 60)) and once.unknown == ()
    assert once.outcome is not None and once.outcome.n_labelled == 20
    version, before = learner.version, state_bytes(learner)
    assert learner.learn_labels(ids, labels).repeated == tuple(range(20))
    assert (learner.version, state_bytes(learner)) == (version, before)
    bare, ids, labels = unlabelled(frames[2])
    learner.learn(bare)
    learner.learn(frames[2])  # the label comes with the event itself
    assert learner.learn_labels(ids, labels).repeated == tuple(range(20))
    assert learner.prequential.n == 60
    twice = replace(frames[3], event_ids=("same",) * 20)
    assert learner.learn(twice).n_labelled == 1


def test_memory_is_bounded_by_count(make_stream: MakeStream) -> None:
    frames = with_ids(make_stream(160, a_frame=40))
    learner = StreamLearner("s", SMALL)
    for frame in frames:
        learner.learn(unlabelled(frame)[0])
    ids = [event_id for frame in frames for event_id in frame.event_ids]
    late = learner.learn_labels(ids, ["x"] * 160)
    assert late.unknown == tuple(range(60))
    learner.learn(with_ids(make_stream(100, a_frame=100))[0])  # learned ids are bounded, too
    assert learner.learn_labels(ids[60:61], ["x"]).unknown == (0,)


def test_memory_is_bounded_by_characters() -> None:
    learner = StreamLearner("s", SMALL)
    for number in range(4):
        text = "word " * (MAX_TEXT_CHARACTERS // 15)
        learner.learn(
            Frame(
                "s", ("x",), np.zeros((1, 1)), np.array([-1], np.int32), (), np.zeros(1),
                (str(number),), texts={"t": (text,)},
            )
        )  # fmt: skip
    assert learner.learn_labels(["0", "1", "2", "3"], ["a"] * 4).unknown == (0,)


def test_old_events_are_not_learned(make_stream: MakeStream) -> None:
    first, second, _ = with_ids(make_stream(120, a_frame=40))  # a second an event
    learner = StreamLearner("s", replace(SMALL, late_label_max_age_s=60.0))
    learner.learn(unlabelled(first)[0])
    wrong_clock = replace(second, event_time_s=np.full(40, 1e12))
    learner.learn(wrong_clock)
    _, ids, labels = unlabelled(first)
    assert learner.learn_labels(ids, labels).unknown == tuple(range(40))
    learner.learn(second)  # until second 79
    assert learner.learn_labels(ids, labels).unknown == tuple(range(19))


def test_without_a_memory_every_event_is_unknown(make_stream: MakeStream) -> None:
    learner = StreamLearner("s", replace(SMALL, late_labels=0))
    learner.learn(with_ids(make_stream(40))[0])
    assert learner.learn_labels(["0.1", "x"], ["a", "b"]).unknown == (0, 1)
    with pytest.raises(ValueError, match="labels"):
        learner.learn_labels(["0.1"], [])


def test_a_memory_that_does_not_fit_is_refused(make_stream: MakeStream) -> None:
    learner = StreamLearner("s", SMALL)
    learner.learn(unlabelled(with_ids(make_stream(40))[0])[0])
    state = learner.state()
    for name in ("words", "served", "event", "now_s"):
        arrays = {k: a for k, a in state.arrays.items() if k != f"pending/{name}"}
        with pytest.raises(StateError, match="not whole"):
            StreamLearner.restore(replace(state, arrays=arrays), SMALL)
        cut = state.arrays[f"pending/{name}"][:-1]
        with pytest.raises(StateError, match="not whole"):
            StreamLearner.restore(replace(state, arrays={**arrays, f"pending/{name}": cut}), SMALL)
    for wrong in ({"late_labels": -1}, {"late_label_max_age_s": float("inf")}):
        with pytest.raises(ConfigError, match="late_label"):
            LearnerSettings(**wrong)
