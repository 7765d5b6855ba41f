"""Who rests: what a part brings, by mixtures worked out anew; streams that need one late."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.adaptation import AdaptRequest
from streamlearn.core.cohort import adapter_of
from streamlearn.core.learner import StreamLearner
from streamlearn.core.pool import Pool, mix
from streamlearn.core.records import Frame
from streamlearn.core.roster import (
    CHEAP,
    DEAR,
    LONGEST_REST,
    WINDOW,
    Part,
    Roster,
    Terms,
    asked,
)
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import apply, diff
from streamlearn.errors import FormatError

SETTINGS = LearnerSettings(random_features=16)
PARTS = ("forest", "neighbours")
N = 20_480


class Served(NamedTuple):
    pool: Pool
    scores: NDArray[np.float32]
    codes: NDArray[np.int32]


@pytest.fixture(scope="module")
def served() -> Served:
    """A pool that has learned 600 events of 6 heads, head 4 a good one, and the next 40."""
    rng, pool = np.random.default_rng(3), Pool(6, 3)
    codes = rng.integers(0, 3, 640).astype(np.int32)
    scores = rng.normal(0.3, 0.4, size=(640, 6, 3)).astype(np.float32)
    scores[np.arange(640), 4, codes] += 0.8
    for start in range(0, 600, 40):
        step = slice(start, start + 40)
        mixed, _ = mixtures(scores[step], pool.weights(), pool.stack, pool.serve())
        pool.learn(scores[step], mixed, codes[step])
    return Served(pool, scores[600:], codes[600:])


def mixtures(
    scores: NDArray[np.float32],
    weights: NDArray[np.float64],
    stack: NDArray[np.float64],
    serve: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    n, _, c = scores.shape
    mixed, out = np.empty((n, 3, c)), np.empty((n, c), np.float32)
    mix(scores, weights, stack, serve, mixed, out)
    return mixed, out


def test_what_a_part_brings_is_what_the_mixtures_lose_without_its_heads(served: Served) -> None:
    pool, scores, codes = served
    weights, serve = pool.weights(), pool.serve()
    mixed, whole = mixtures(scores, weights, pool.stack, serve)
    roster = Roster()
    for name, first in (("a", 2), ("b", 4)):
        roster.add(name, first, 2, CHEAP)
    roster.learn(scores, mixed, codes, weights, pool.stack, serve)
    age = np.arange(len(codes))[::-1]
    for at, heads in enumerate(([2, 3], [4, 5])):
        less, stack = weights.copy(), pool.stack.copy()
        less[heads], stack[:, heads] = 0.0, 0.0
        _, without = mixtures(scores, less / less.sum(), stack, serve)
        row = np.arange(len(codes))
        gain = np.log(whole[row, codes].astype(float)) - np.log(without[row, codes].astype(float))
        expected = (1 - 1 / WINDOW) ** age @ gain
        assert roster.tally[at, 0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert roster.tally[at, 1] == pytest.approx(((1 - 1 / WINDOW) ** age).sum())
    assert roster.tally[1, 0] > 40 * CHEAP.least_gain > roster.tally[0, 0]


def test_heads_at_rest_have_no_weight_and_wake_unnoticed(served: Served) -> None:
    given, scores, codes = served
    pool = Pool(6, 3)
    pool.likelihood, pool.stack = given.likelihood.copy(), given.stack.copy()
    pool.rest(4, 6)
    scores = scores.copy()
    scores[:, 4:] = 0.0
    for _ in range(3):
        assert asked(pool.weights(), pool.stack).tolist() == [True] * 4 + [False] * 2
        mixed, out = mixtures(scores, pool.weights(), pool.stack, pool.serve())
        four = mixtures(scores[:, :4], pool.weights()[:4], pool.stack[:, :4], pool.serve())[1]
        np.testing.assert_array_equal(out, four)
        pool.learn(scores, mixed, codes)
    pool.grow((0.5,))
    assert np.isfinite(pool.likelihood[6])
    pool.wake(4, 6)
    assert asked(pool.weights(), pool.stack).all()
    assert pool.weights()[4] == pool.weights()[:4].min()
    assert not pool.stack[:, 4:6].any()


def rests(roster: Roster, n_events: int, *, gain: float = 0.0) -> list[tuple[int, bool]]:
    """When a roster's one part moves, bringing `gain` an event, and whether it is awake then."""
    moves = []
    for at in range(64, n_events + 64, 64):
        roster.tally[:] = 64 * gain, 64
        moves += [(at, part.awake) for part in roster.review(64, 0, new_class=False)]
    return moves


@pytest.mark.parametrize("terms", [CHEAP, DEAR])
def test_rests_double_and_auditions_stay_short(terms: Terms) -> None:
    roster = Roster()
    roster.add("a", 8, 2, terms)
    moves, at, rest = [], terms.trial, terms.rest
    for _ in range(7):
        moves += [(at, False), (at + rest, True)]
        at += rest + max(terms.audition, int(rest * terms.share))
        rest = min(2 * rest, LONGEST_REST)
    assert rests(roster, moves[-1][0]) == moves


def test_a_part_that_brings_something_stays_and_starts_anew() -> None:
    roster = Roster()
    roster.add("a", 8, 2, CHEAP)
    assert rests(roster, 50_000, gain=CHEAP.least_gain) == []
    assert rests(roster, 20_000)[:2] == [(64, False), (64 + CHEAP.rest, True)]
    assert rests(roster, 20_000, gain=1.0)[1:] == []
    assert roster.parts[0].rest == CHEAP.rest  # after the audition that it passed


def named(parts: list[Part]) -> list[str]:
    return [part.name for part in parts]


def test_of_two_parts_one_rests_first_and_the_other_is_judged_without_it() -> None:
    roster = Roster()
    roster.add("a", 8, 2, CHEAP)
    roster.add("b", 10, 2, CHEAP)
    roster.tally[:] = [(-1.0, 64), (-2.0, 64)]
    assert named(roster.review(CHEAP.trial, 0, new_class=False)) == ["b"]
    assert roster.is_awake("a") and roster.is_resting("b") and not roster.is_awake("b")
    assert roster.review(CHEAP.audition - 1, 0, new_class=False) == []
    assert roster.tally[0].tolist() == [0.0, 0.0]
    roster.tally[0] = -1.0, 64
    assert named(roster.review(1, 0, new_class=False)) == ["a"]


@pytest.mark.parametrize(("n_drifts", "new_class"), [(1, False), (0, True)])
def test_a_drift_or_a_new_class_wakes_all_for_a_trial(n_drifts: int, new_class: bool) -> None:
    roster = Roster()
    for name in PARTS:
        roster.add(name, 8, 2, CHEAP)
    for n_events in (CHEAP.trial, CHEAP.audition):
        roster.tally[:] = 0.0, 64
        roster.review(n_events, 0, new_class=False)
    assert all(roster.is_resting(name) for name in PARTS)
    assert named(roster.review(1, n_drifts, new_class=new_class)) == list(PARTS)
    roster.tally[:] = 0.0, 64
    assert roster.review(CHEAP.trial - 1, n_drifts, new_class=False) == []
    assert len(roster.review(1, n_drifts, new_class=False)) == 1


def learned(frames: list[Frame], settings: LearnerSettings = SETTINGS) -> StreamLearner:
    learner = StreamLearner("s", settings)
    for frame in frames:
        learner.learn(frame)
    return learner


def test_shorter_windows_of_view_b_rest_unsolved_while_their_statistics_move(
    linear: list[Frame],
) -> None:
    learner = learned(linear[:27])
    roster, view = learner._mixture.roster, learner._mixture.ridge.views[1]
    resting = [roster.is_resting(f"ridge/b/{window}") for window in ("100", "1000", "inf")]
    assert resting == [True, False, False]
    before, statistics = learner.model(), view.cross[0].copy()
    learner.learn(linear[27])
    update = diff(before, learner.model())
    sent = {*update.changed, *update.changed_rows}
    assert "ridge/b/100" not in sent and {"ridge/a/100", "ridge/b/1000"} <= sent
    assert not np.array_equal(view.cross[0], statistics)


def is_awake(learner: StreamLearner) -> tuple[bool, ...]:
    return tuple(learner._mixture.roster.is_awake(name) for name in PARTS)


@pytest.fixture(scope="module")
def linear() -> list[Frame]:
    """Sums and noise: trees and nearest events have nothing to add."""
    return concepts(change=N)[:36]


def test_on_a_linear_stream_both_rest_and_the_model_is_without_them(linear: list[Frame]) -> None:
    learner = learned(linear[:22])
    assert is_awake(learner) == (False, False)
    assert not any(name.startswith(PARTS) for name in learner.model().tensors)
    for name in (*PARTS, "forest/log", "neighbours/log"):
        assert learner._mixture.experts.weights[learner.heads.index(name)] == 0.0
    asleep = learner.model()
    update = diff(asleep, learned(linear[:23]).model())
    assert not any(name.startswith(PARTS) for name in {*update.changed, *update.changed_rows})


def test_at_rest_and_awake_a_subscriber_has_the_learners_bits(linear: list[Frame]) -> None:
    learner, held, seen = StreamLearner("s", SETTINGS), None, set()
    for frame in linear:
        before = None if held is None else held.predict_next(frame)
        outcome = learner.learn(frame)
        if before is not None and before.shape == outcome.probabilities.shape:
            np.testing.assert_array_equal(before, outcome.probabilities)
        model = learner.model()
        held = apply(held, diff(held, model), model.slow)
        assert held.hash == model.hash
        seen.add(is_awake(learner))
    assert len(seen) > 2 and seen >= {(True, True), (False, False)}


def test_a_state_of_any_time_goes_on_to_the_same_bits(linear: list[Frame]) -> None:
    whole = learned(linear).model().hash
    for at in (15, 19, 22, 27, 34):  # before rests, in those of one and both, in an audition
        half = StreamLearner.restore(learned(linear[:at]).state(), SETTINGS)
        for frame in linear[at:]:
            half.learn(frame)
        assert half.model().hash == whole


def test_frames_cut_between_steps_rest_as_the_whole_ones_do(linear: list[Frame]) -> None:
    settings = replace(SETTINGS, step_events=128)
    cut = [frame.rows(i, i + 128) for frame in linear[1:] for i in (0, 128)]
    whole, parts = learned(linear, settings), learned([linear[0], *cut], settings)
    assert is_awake(whole) == is_awake(parts)
    for name, tensor in whole.model().tensors.items():
        np.testing.assert_array_equal(tensor, parts.model().tensors[name])


def test_a_new_class_wakes_who_rests(linear: list[Frame]) -> None:
    learner = learned(linear[:22])
    assert is_awake(learner) == (False, False)
    frame = linear[22]
    codes = np.where(np.arange(256) < 200, frame.label_codes, 2).astype(np.int32)
    learner.learn(replace(frame, label_codes=codes, label_values=(*frame.label_values, "new")))
    assert is_awake(learner) == (True, True)
    assert learner.model().tensors["forest/unlikely"].shape[1] == 3


def test_a_model_whose_weights_ask_for_a_part_that_it_lacks_is_refused(linear: list[Frame]) -> None:
    model = learned(linear[:3]).model()
    less = {name: t for name, t in model.tensors.items() if not name.startswith("forest")}
    with pytest.raises(FormatError, match="not whole"):
        replace(model, tensors=less).predict_next(linear[3])


def concepts(*, change: int) -> list[Frame]:
    """A linear concept, then two thresholds of which one must be passed (XOR)."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N, 6))
    y = x @ rng.normal(size=6) + 0.5 * rng.logistic(size=N) > 0
    y[change:] = ((x[:, 0] > 0.0) ^ (x[:, 1] > 0.5))[change:]
    columns, times = tuple("abcdef"), np.arange(float(N))
    whole = Frame("s", columns, x, y.astype(np.int32), ("no", "yes"), times)
    return [whole.rows(start, start + 256) for start in range(0, N, 256)]


def test_a_forest_that_rests_wakes_when_thresholds_come() -> None:
    frames = concepts(change=39 * 256)
    learner, plain = StreamLearner("s", SETTINGS), StreamLearner("s", replace(SETTINGS, trees=0))
    right: list[tuple[int, int]] = []
    for at, frame in enumerate(frames):
        right.append((learner.learn(frame).n_correct, plain.learn(frame).n_correct))
        if at == 38:
            assert is_awake(learner) == (False, False)
        if at == 41:  # within three frames of the change, by the drift that it is
            assert is_awake(learner) == (True, True)
    assert is_awake(learner)[0]
    ours, without = np.sum(right[-16:], axis=0) / (16 * 256)
    assert ours > without + 0.03, (ours, without)


def test_a_network_that_rests_asks_for_no_inner_loop(linear: list[Frame]) -> None:
    settings = replace(SETTINGS, network="all", trees=0, neighbours=0)
    learner, asked_in = StreamLearner("s", settings), []
    for frame in linear[:22]:
        was_awake = learner._mixture.roster.is_awake("network")
        asked_in.append(sum(1 for _ in answered(learner, frame)))
        is_awake = learner._mixture.roster.is_awake("network")
        if was_awake == is_awake:
            assert bool(asked_in[-1]) == is_awake
        assert ("network" in learner.model().tensors) == is_awake
    assert 0 in asked_in[:16] and sum(asked_in[16:]) > 0  # it rested, and was auditioned


def answered(learner: StreamLearner, frame: Frame) -> Iterator[AdaptRequest]:
    """The requests of a frame, each answered."""
    learning = learner.learning(frame)
    try:
        request = next(learning)
        while True:
            yield request
            (result,) = adapter_of(learner.settings).adapt([request])
            request = learning.send(result)
    except StopIteration:
        return
