"""Scores against a slow, obvious loop, scikit-learn's kappa, and a state taken in the middle."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, cohen_kappa_score

from streamlearn.core.prequential import Prequential
from streamlearn.errors import StateError


def sticky_labels(n: int, classes: int, seed: int) -> NDArray[np.int32]:
    """Labels that stay with probability .7, so that no-change is worth something."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    for i in range(1, n):
        if rng.random() < 0.7:
            labels[i] = labels[i - 1]
    return labels


def by_hand(true: list[int], predicted: list[int], steps: list[int]) -> dict[str, float]:
    """Each definition, written out event by event."""
    hits = dict.fromkeys(("accuracy", "no_change", "no_change_delayed", "majority"), 0)
    seen: list[int] = []
    at = 0
    for size in steps:
        known = seen[-1] if seen else None
        for label, guess in zip(true[at : at + size], predicted[at : at + size], strict=True):
            counts = [seen.count(c) for c in range(10)]
            first = list(dict.fromkeys(seen))
            leader = max(first, key=lambda c: counts[c]) if first else None
            hits["accuracy"] += guess == label
            hits["no_change"] += bool(seen) and seen[-1] == label
            hits["no_change_delayed"] += known == label
            hits["majority"] += (
                leader is not None and counts[leader] == counts[label] and (leader == label)
            )
            seen.append(label)
        at += size
    return {name: hit / len(true) for name, hit in hits.items()}


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_definitions_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Strictly growing counts make ties at the lead rare; ties are tested on their own below.
    true = sticky_labels(300, 3, seed)
    predicted = np.where(rng.random(300) < 0.6, true, rng.integers(0, 3, 300)).astype(np.int32)
    steps = [1, 7, 32, 60, 100, 100]
    scores = Prequential()
    at = 0
    for size in steps:
        scores.update(true[at : at + size], predicted[at : at + size])
        at += size
    expected = by_hand(true.tolist(), predicted.tolist(), steps)
    assert scores.accuracy == accuracy_score(true, predicted) == expected["accuracy"]
    assert scores.no_change == expected["no_change"]
    assert scores.no_change_delayed == expected["no_change_delayed"]
    assert scores.kappa == pytest.approx(cohen_kappa_score(true, predicted))
    assert scores.kappa_temporal == pytest.approx(
        (expected["accuracy"] - expected["no_change"]) / (1 - expected["no_change"])
    )
    assert scores.n_true.tolist() == np.bincount(true).tolist()
    assert scores.n_correct.tolist() == np.bincount(true[true == predicted]).tolist()


def test_majority_is_causal_and_the_earlier_leader_wins_a_tie() -> None:
    scores = Prequential()
    #   leader before each event: none, 0, 0, 0 (tie 1:1), 1 (2:1), 1
    true = np.array([0, 1, 1, 1, 1, 0], np.int32)
    #   event 2 makes 1 the leader (2:1), so events 3 and 4 are right, 0 and 5 and the rest wrong
    step = scores.update(true, np.zeros(6, np.int32))
    assert step.majority == 2


def test_no_change_at_steps_of_one_is_both() -> None:
    true = sticky_labels(200, 4, 5)
    scores = Prequential()
    for i in range(200):
        scores.update(true[i : i + 1], true[i : i + 1])
    assert scores.no_change == scores.no_change_delayed > 0.6
    assert scores.accuracy == 1.0 == scores.kappa


def test_faded_accuracy_equals_the_full_sum() -> None:
    rng = np.random.default_rng(3)
    right = rng.integers(0, 2, 500)
    scores = Prequential(fading=0.99)
    for i in range(0, 500, 50):
        scores.update(np.ones(50, np.int32), right[i : i + 50].astype(np.int32))
    weight = 0.99 ** np.arange(499, -1, -1)
    assert scores.accuracy_faded == pytest.approx(weight @ right / weight.sum())


def test_unlabelled_events_and_unknown_guesses_count_nowhere_but_as_errors() -> None:
    scores = Prequential()
    step = scores.update(np.array([-1, 2, -1], np.int32), np.array([1, -1, 0], np.int32))
    assert (step.n, step.correct) == (1, 0)
    assert scores.n_predicted.tolist() == [0, 0, 0]
    assert scores.kappa == 0.0


def test_before_the_first_event_all_is_zero() -> None:
    scores = Prequential()
    scores.update(np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert (scores.n, scores.accuracy, scores.kappa, scores.kappa_temporal) == (0, 0, 0, 0)


def test_streams_add_up_under_their_own_class_codes() -> None:
    rng = np.random.default_rng(0)
    a_true, a_guess = rng.integers(0, 2, (2, 50)).astype(np.int32)
    b_true, b_guess = rng.integers(0, 3, (2, 70)).astype(np.int32)
    a, b, total = Prequential(), Prequential(), Prequential()
    a.update(a_true, a_guess)
    b.update(b_true, b_guess)
    total.absorb(a, np.array([1, 0]))
    total.absorb(b, np.array([0, 1, 2]))
    flipped = np.array([1, 0])
    true = np.concatenate([flipped[a_true], b_true])
    guess = np.concatenate([flipped[a_guess], b_guess])
    assert total.n == 120
    assert total.kappa == pytest.approx(cohen_kappa_score(true, guess))


def test_a_restored_scorer_goes_on_to_the_bit() -> None:
    true = sticky_labels(400, 5, 9)
    guess = np.roll(true, 1)
    straight, first = Prequential(), Prequential()
    for i in range(0, 400, 40):
        straight.update(true[i : i + 40], guess[i : i + 40])
        first.update(true[i : i + 40], guess[i : i + 40])
        first = Prequential.restore(*first.state())
    for name, value in straight.state()[1].items():
        assert np.array_equal(value, first.state()[1][name]), name
    assert straight.accuracy_faded == first.accuracy_faded


def test_state_is_a_copy() -> None:
    scores = Prequential()
    scores.update(np.zeros(3, np.int32), np.zeros(3, np.int32))
    _, arrays = scores.state()
    scores.update(np.zeros(3, np.int32), np.zeros(3, np.int32))
    assert arrays["counts"][0] == 3


@pytest.mark.parametrize("broken", ["missing", "shape"])
def test_a_state_that_does_not_fit_is_refused(broken: str) -> None:
    meta, arrays = Prequential().state()
    changed: dict[str, NDArray[Any]] = dict(arrays)
    if broken == "missing":
        del changed["faded"]
    else:
        changed["counts"] = changed["counts"][:3]
    with pytest.raises(StateError):
        Prequential.restore(meta, changed)


def test_a_step_needs_one_prediction_an_event() -> None:
    with pytest.raises(ValueError, match="one prediction an event"):
        Prequential().update(np.zeros(3, np.int32), np.zeros(2, np.int32))
