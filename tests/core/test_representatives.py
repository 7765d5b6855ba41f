"""Representatives as people see them, out of a learner's state."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.companions import MAX_WORDS, packed, unpacked
from streamlearn.core.learner import LearnerState, StreamLearner
from streamlearn.core.microclusters import Why
from streamlearn.core.modes import Verdict
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.representatives import gallery
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import StateError

SETTINGS = LearnerSettings(random_features=16, step_events=32)


def life(noise: float = 0.0) -> tuple[StreamLearner, list[Frame]]:
    """Class "a" in two groups, "b" in one; a category, texts of many words, gaps."""
    rng = np.random.default_rng(3)
    learner, frames = StreamLearner("s", SETTINGS), []
    for k in range(25):
        codes = rng.integers(2, size=64).astype(np.int32)
        group = rng.integers(2, size=64) * (codes == 0)
        x = rng.normal(size=(64, 2)) * 0.5 + 8 * np.stack([codes, group], axis=1)
        x[rng.random(64) < 0.05, 1] = np.nan
        said = np.where(rng.random(64) < noise, 1 - codes, codes).astype(np.int32)
        words = tuple(f"event {k * 64 + i} says w{rng.integers(4000)}" for i in range(64))
        colour = tuple("red" if c else "blue" for c in codes)
        frame = Frame(
            "s", ("x", "y"), x, said, ("a", "b"), 1e9 + k * 64.0 + np.arange(64),
            texts={"note": words, "colour": colour},
        )  # fmt: skip
        frames.append(frame)
        learner.learn(frame)
    return learner, frames


def test_each_says_its_class_group_count_time_reason_and_values() -> None:
    learner, frames = life()
    learner.rehearsal.replay(30, 1)
    found = gallery(learner.state())
    assert (found.stream, found.version, found.events) == ("s", 25, 1600)
    assert found.n_modes == {"a": 2, "b": 1}
    assert sum(found.n_seen.values()) == 1600
    assert sum(one.replayed for one in found.shown) == 30
    held = learner.rehearsal.held.n_seen.sum()
    assert sum(one.count for one in found.shown) == 1600 - held > 1400
    by_class = [one.label for one in found.shown]
    assert by_class == sorted(by_class, key=list(found.n_seen).index)
    for one in found.shown:
        frame, row = frames[one.event // 64], one.event % 64
        assert frame.labels()[row] == one.label
        assert frame.event_time_s[row] == one.event_time_s
        for name, x in zip(("x", "y"), frame.numbers[row], strict=True):
            assert one.values.get(name, x) == x or (np.isnan(x) and name not in one.values)
        assert one.values["colour"] == frame.texts["colour"][row]
        assert isinstance(one.why, Why) and one.verdict in Verdict
        if one.event >= 64:  # texts are texts from the first frame on, or so
            assert one.texts["note"] == frame.texts["note"][row]
        assert set(one.centre) <= {"x", "y"}
    groups = {(one.label, one.mode): one.centre["y"] for one in found.shown if one.mode is not None}
    assert abs(groups["a", 0] - groups["a", 1]) > 4


def test_wrong_labels_are_told_from_the_rest() -> None:
    """Of the representatives whose label is wrong most are marked, of the others few."""
    found = gallery(life(noise=0.1)[0].state())
    wrong = [one for one in found.shown if (one.values["colour"] == "red") != (one.label == "b")]
    right = [one for one in found.shown if one not in wrong]
    marked = [one for one in wrong if one.verdict is not Verdict.TYPICAL]
    assert len(wrong) > 4
    assert len(marked) >= 0.8 * len(wrong)
    assert sum(one.verdict is not Verdict.TYPICAL for one in right) <= 0.1 * len(right)


def test_a_new_stream_has_none_and_a_broken_state_says_so(
    make_stream: Callable[..., Any],
) -> None:
    assert gallery(StreamLearner("s", SETTINGS).state()).shown == ()
    learner = StreamLearner("s", SETTINGS)
    learner.learn(make_stream(40)[0])
    state = learner.state()
    for broken in (
        replace(state, meta={k: v for k, v in state.meta.items() if k != "inputs"}),
        replace(state, arrays={k: v for k, v in state.arrays.items() if k != "scale/mean"}),
        LearnerState({"stream": "s"}, {}),
    ):
        with pytest.raises(StateError, match="not whole"):
            gallery(broken)


def test_long_texts_are_cut_and_none_is_none() -> None:
    long = "ü" * 5000
    words = packed([{"a": long, "b": "short"}, {"a": None}, {"a": 'with \0 and "quotes"'}])
    assert words.dtype == np.uint8 and words.shape[0] == 3
    cut = unpacked(words[0])
    assert cut["b"] == "short" and cut["a"] == "ü" * (MAX_WORDS // 2 - 1) + "…"
    assert unpacked(words[1]) == {} and unpacked(np.zeros(7, np.uint8)) == {}
    assert unpacked(words[2]) == {"a": 'with \0 and "quotes"'}


def test_images_of_members_are_shown_as_they_are_learned() -> None:
    rng = np.random.default_rng(5)
    codes = rng.integers(2, size=60).astype(np.int32)
    pixels = rng.integers(0, 256, size=(60, 28, 28)).astype(np.uint8)
    there = np.arange(60) % 5 > 0
    frame = Frame(
        "s", ("x",), codes[:, None] + rng.normal(size=(60, 1)), codes, ("a", "b"),
        np.arange(60.0), images={"photo": ImageColumn.of(pixels, there)},
    )  # fmt: skip
    learner = StreamLearner("s", SETTINGS)
    for start in range(0, 60, 20):
        learner.learn(frame.rows(start, start + 20))
    found = gallery(learner.state())
    assert len(found.shown) > 20
    for one in found.shown:
        if there[one.event]:
            np.testing.assert_array_equal(one.images["photo"], pixels[one.event])
        else:
            assert one.images == {}


def test_with_nothing_but_labels_they_are_drawn_by_chance() -> None:
    codes = np.random.default_rng(6).integers(2, size=200).astype(np.int32)
    frame = Frame("s", (), np.zeros((200, 0)), codes, ("a", "b"), np.arange(200.0))
    learner = StreamLearner("s", SETTINGS)
    learner.learn(frame)
    found = gallery(learner.state())
    assert found.trusted == "uniform"
    assert [one.label for one in found.shown] == ["a"] * 20 + ["b"] * 20
    events = {one.event for one in found.shown}
    assert len(events) == 40 and max(events) > 100 > min(events)
    for one in found.shown:
        assert (one.mode, one.verdict, one.why) == (None, Verdict.TYPICAL, Why.CHANCE)
        assert one.count in (4, 5, 6) and one.label == ("a", "b")[codes[one.event]]


def bars(n: int) -> tuple[Frame, NDArray[np.int64]]:
    """Class "a" lies or stands, "b" leans; one event of "a" is a blot. And which of these (n,)."""
    rng = np.random.default_rng(8)
    kind = rng.integers(3, size=n)
    kind[n // 2] = 3
    pixels = rng.integers(0, 80, size=(n, 28, 28)).astype(np.uint8)
    for i, which in enumerate(kind.tolist()):
        light = int(rng.integers(150, 250))
        if which == 0:
            pixels[i, 12:15, 3:25] = light
        elif which == 1:
            pixels[i, 3:25, 12:15] = light
        elif which == 2:
            for row in range(3, 25):
                pixels[i, row, row : row + 3] = light
        else:
            pixels[i] = rng.integers(0, 256, size=(28, 28))
    codes = (kind == 2).astype(np.int32)
    shown = {"photo": ImageColumn.of(pixels)}
    return Frame("s", (), np.zeros((n, 0)), codes, ("a", "b"), np.arange(n * 1.0), images=shown), (
        kind
    )


def test_images_alone_form_groups_with_counts_and_a_blot_is_none_of_them() -> None:
    frame, kind = bars(600)
    learner = StreamLearner("s", replace(SETTINGS, network="off"))
    for start in range(0, 600, 100):
        learner.learn(frame.rows(start, start + 100))
    found = gallery(learner.state())
    assert found.n_modes == {"a": 2, "b": 1} and found.trusted == "microclusters"
    held = learner.rehearsal.held.n_seen.sum()
    assert sum(one.count for one in found.shown) == 600 - held
    for label in ("a", "b"):
        own = [one for one in found.shown if one.label == label]
        assert len(own) == 20 and own[0].count > 10
        modes = {(one.mode, int(kind[one.event])) for one in own if one.mode is not None}
        assert len(modes) == found.n_modes[label]  # each mode is one kind, each kind one mode
    blot = [one for one in found.shown if one.event == 300]
    assert [(one.verdict is Verdict.TYPICAL, one.count) for one in blot] == [(False, 1)]
    for one in found.shown:
        assert one.why is not Why.CHANCE and not one.values
        np.testing.assert_array_equal(one.images["photo"], frame.images["photo"].pixels[one.event])


def test_texts_alone_form_groups_with_counts_and_nobody_is_contradicted() -> None:
    """Patterns of machines' messages, whatever their class."""
    rng = np.random.default_rng(9)
    kind = rng.integers(3, size=600)
    said = (
        "connection from host h{} was refused after {} ms",
        "disk {} is full, {} blocks are left",
        "user u{} has logged in from terminal {}",
    )
    words = [said[k].format(*rng.integers(9000, size=2)) for k in kind]
    codes = rng.integers(2, size=600).astype(np.int32)
    times = np.arange(600.0)
    texts = {"note": tuple(words)}
    frame = Frame("s", (), np.zeros((600, 0)), codes, ("a", "b"), times, texts=texts)
    learner = StreamLearner("s", SETTINGS)
    for start in range(0, 600, 100):
        learner.learn(frame.rows(start, start + 100))
    found = gallery(learner.state())
    assert found.n_modes == {"a": 3, "b": 3} and found.trusted == "uniform"
    for label in ("a", "b"):
        own = [one for one in found.shown if one.label == label]
        assert len(own) == 20 and own[0].count > 10
        modes = {(one.mode, words[one.event].split()[0]) for one in own if one.mode is not None}
        assert len(modes) == 3
    for one in found.shown:
        assert (one.verdict, one.texts) == (Verdict.TYPICAL, {"note": words[one.event]})
        assert one.why is not Why.CHANCE


def test_categories_beside_texts_part_their_groups() -> None:
    """Three patterns on two levels; before texts are known, there are categories alone."""
    rng = np.random.default_rng(9)
    kind, level = rng.integers(3, size=1200), rng.integers(2, size=1200)
    said = (
        "connection from host h{} was refused after {} ms",
        "disk {} is full, {} blocks are left",
        "user u{} has logged in from terminal {}",
    )
    words = tuple(said[k].format(*rng.integers(9000, size=2)) for k in kind)
    texts = {"note": words, "level": tuple(("info", "warn")[i] for i in level)}
    codes, times = rng.integers(2, size=1200).astype(np.int32), np.arange(1200.0)
    frame = Frame("s", (), np.zeros((1200, 0)), codes, ("a", "b"), times, texts=texts)
    learner = StreamLearner("s", SETTINGS)
    for start in range(0, 1200, 100):
        learner.learn(frame.rows(start, start + 100))
    found = gallery(learner.state())
    assert found.n_modes == {"a": 6, "b": 6}
    parts = {(one.label, one.mode, kind[one.event], level[one.event]) for one in found.shown}
    assert len(parts) == 12
    for one in found.shown:
        assert (one.texts["note"], one.values["level"]) == (
            words[one.event],
            texts["level"][one.event],
        )
