"""What is still known of all classes, against counting by hand."""

from dataclasses import replace

import numpy as np
import pytest

from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.evaluation import evaluate
from streamlearn.evaluation.classes_over_time import EVERY, FEWEST, MOST, HeldOut, summed_up

SETTINGS = LearnerSettings(step_events=32, random_features=48)
CENTRES = np.random.default_rng(2).normal(size=(6, 8)) * 3


def life(*phases: tuple[int, ...], n: int = 500, seed: int = 0) -> list[Frame]:
    """Events of the classes of each phase, n a phase, in frames of 100."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate([rng.choice(classes, n) for classes in phases]).astype(np.int32)
    numbers = CENTRES[codes] + rng.normal(size=(len(codes), 8))
    columns, values = tuple(f"x{j}" for j in range(8)), tuple("abcdef")
    whole = Frame("s", columns, numbers, codes, values, np.arange(float(len(codes))))
    return [whole.rows(i, i + 100) for i in range(0, len(codes), 100)]


def test_keep_knows_what_serve_forgot() -> None:
    frames = life((0, 1), (2, 3), (4, 5), n=2000)
    result = evaluate(frames, SETTINGS, classes_over_time=True)
    found = result.classes_over_time
    assert found is not None and found.n_classes == 6
    assert found.keep.final > 0.9 > 0.75 > found.serve.final
    assert found.serve.backward_transfer is not None and found.keep.backward_transfer is not None
    assert found.serve.backward_transfer < -0.3 < -0.1 < found.keep.backward_transfer
    assert found.serve.forgetting is not None and found.serve.forgetting > 0.3
    assert found.looks[-1][1] == 6 and found.looks[-1][2:] == pytest.approx(
        (found.serve.final, found.keep.final)
    )
    assert result.n == found.looks[-1][0]


def test_every_tenth_event_of_a_class_is_held_out() -> None:
    frames = life((0, 1), (2, 3), (4, 5))
    result = evaluate(frames, SETTINGS, classes_over_time=True)
    assert result.n == 1500 - sum(int(n) // EVERY for n in np.bincount(codes_of(frames)))


def codes_of(frames: list[Frame]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.concatenate([frame.label_codes for frame in frames])


def test_held_out_events_are_never_learned() -> None:
    """Their labels may be anything: nothing else changes."""
    frames, twisted, counts = life((0, 1, 2)), [], dict.fromkeys(range(3), 0)
    for frame in frames:
        numbers = frame.numbers.copy()
        for row, code in enumerate(frame.label_codes.tolist()):
            counts[code] += 1
            if counts[code] % EVERY == 0:
                numbers[row] += 1000.0
        twisted.append(replace(frame, numbers=numbers))
    plain = evaluate(frames, SETTINGS, classes_over_time=True)
    other = evaluate(twisted, SETTINGS, classes_over_time=True)
    assert (plain.accuracy, plain.experts) == (other.accuracy, other.experts)
    assert plain.classes_over_time != other.classes_over_time


def test_classes_that_none_came_after_lose_nothing() -> None:
    found = evaluate(life((0, 1, 2)), SETTINGS, classes_over_time=True).classes_over_time
    assert found is not None and found.keep.final > 0.9
    assert found.keep.backward_transfer is None and found.serve.forgetting is None


def test_memory_is_bounded_and_spread_over_time() -> None:
    held = HeldOut()
    for frame in life((0,), n=4000):
        held.take(frame)
    events = held.classes["a"].events
    times = np.array([event.event_time_s[0] for event in events])
    assert MOST // 2 <= len(events) <= MOST
    assert np.ptp(np.diff(times)) == 0 and times[0] < 200 and times[-1] > 3800


def test_the_figures_follow_from_the_looks() -> None:
    held = HeldOut()
    frames = life((0, 1), (2,), n=300)
    learner = StreamLearner("s", SETTINGS)
    first: dict[str, float] = {}
    for frame in frames:
        if held.brings_class(frame):
            first = recall(held, learner.model())
            held.look(learner.model(), new_class=True)
        left = held.take(frame)
        assert left is not None
        learner.learn(left)
    last = recall(held, learner.model())
    held.look(learner.model(), end=True)
    found = summed_up([held])
    assert len(held.classes["a"].events) >= FEWEST and set(first) == {"a", "b"}
    assert found.serve.final == pytest.approx(np.mean(list(last.values())))
    assert found.serve.backward_transfer == pytest.approx(
        np.mean([last[label] - first[label] for label in first])
    )
    assert found.serve.forgetting == pytest.approx(-(found.serve.backward_transfer or 0.0))


def recall(held: HeldOut, model: Model) -> dict[str, float]:
    """Share of each class's held-out events that `serve` names right, one by one."""
    found: dict[str, float] = {}
    for label, one in held.classes.items():
        if one.events:
            named = [model.classes[model.predict_proba(e)[0].argmax()] for e in one.events]
            found[str(label)] = float(np.mean([name == label for name in named]))
    return found
