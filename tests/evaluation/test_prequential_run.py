"""Evaluation against the learner's own outcomes, the published figures, and streams apart."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, cohen_kappa_score

from streamlearn.core.learner import Outcome
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import InputError
from streamlearn.evaluation import evaluate, frame_events
from streamlearn.sources import open_source

SMALL = LearnerSettings(step_events=16, random_features=20)


def frames(
    stream: str, n: int, *, classes: tuple[str, ...] = ("a", "b"), seed: int = 0, size: int = 64
) -> list[Frame]:
    """Two clouds, and a label in nine of ten events."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, len(classes), n)
    numbers = rng.normal(codes[:, None], 0.7, (n, 3))
    labels: NDArray[np.int32] = np.where(rng.random(n) < 0.9, codes, -1).astype(np.int32)
    whole = Frame(stream, ("x", "y", "z"), numbers, labels, classes, np.arange(float(n)))
    return [whole.rows(i, min(i + size, n)) for i in range(0, n, size)]


def test_the_figures_are_those_of_the_predictions() -> None:
    seen: list[tuple[Frame, Outcome]] = []
    mixed = frames("s", 500) + frames("t", 300, classes=("b", "c"), seed=1)
    result = evaluate(mixed, SMALL, watch=lambda frame, outcome: seen.append((frame, outcome)))
    pairs = [
        (label, outcome.classes[code] if code >= 0 else "none")
        for frame, outcome in seen
        for label, code in zip(frame.labels(), outcome.predicted.tolist(), strict=True)
        if label is not None
    ]
    true, guess = zip(*pairs, strict=True)
    assert result.n == len(pairs) < result.events == 800
    assert result.accuracy == accuracy_score(true, guess)
    # the few events before a stream's first label count as errors, but as no class of their own
    assert result.kappa == pytest.approx(cohen_kappa_score(true, guess), abs=0.02)
    assert result.classes == ("a", "b", "c") or set(result.classes) == {"a", "b", "c"}
    assert [one.stream for one in result.streams] == ["s", "t"]
    assert sum(one.n * one.accuracy for one in result.streams) == pytest.approx(
        result.n * result.accuracy
    )
    assert sum(result.experts.values()) == pytest.approx(1.0)


def test_streams_do_not_touch_each_other() -> None:
    alone = evaluate(frames("s", 400), SMALL)
    turns = [f for pair in zip(frames("s", 400), frames("t", 400, seed=2)) for f in pair]  # noqa: B905
    together = evaluate(turns, SMALL)
    assert next(one for one in together.streams if one.stream == "s") == alone.streams[0]


def test_same_seed_same_figures_and_the_size_of_frames_does_not_matter() -> None:
    def figures(size: int, seed: int) -> dict[str, object]:
        settings = dataclasses.replace(SMALL, seed=seed)
        result = evaluate(frames("s", 640, size=size), settings).as_json()
        return {k: v for k, v in result.items() if k not in ("seconds", "events_per_s")}

    assert figures(64, 0) == figures(320, 0)
    assert figures(64, 0) != figures(64, 1)


def test_the_json_has_its_promised_keys() -> None:
    result = evaluate(frames("s", 100), SMALL).as_json()
    promised = {
        "n", "accuracy", "kappa", "kappa_temporal", "no_change", "no_change_delayed", "majority",
        "events_per_s", "seconds", "classes",
    }  # fmt: skip
    assert promised <= set(result)
    assert json.loads(json.dumps(result, allow_nan=False))["step"] == 16


@pytest.mark.parametrize("step", [1, 3, 32, 256, 1000, 4096])
def test_frames_hold_whole_steps(step: int) -> None:
    assert frame_events(step) % step == 0
    assert frame_events(step) <= 4096


def test_nothing_to_score_is_an_error_with_a_remedy() -> None:
    with pytest.raises(InputError, match="no events"):
        evaluate([], SMALL)
    bare = dataclasses.replace(
        frames("s", 10)[0], label_codes=np.full(10, -1, np.int32), label_values=()
    )
    with pytest.raises(InputError, match="--label"):
        evaluate([bare], SMALL)
    with pytest.raises(InputError, match="--step 0"):
        frame_events(0)


def test_a_quantity_is_no_label() -> None:
    n = 200
    prices = Frame(
        "s", ("x",), np.zeros((n, 1)), np.arange(n, dtype=np.int32), tuple(range(n)), np.zeros(n)
    )
    with pytest.raises(InputError, match="too many to be classes"):
        evaluate([prices], SMALL)


def test_many_classes_in_a_short_last_frame_are_classes() -> None:
    codes = np.random.default_rng(0).integers(0, 200, 700).astype(np.int32)
    codes[600:] = np.arange(100)  # a frame of nothing but different labels
    numbers, names = codes[:, None].astype(float), tuple(f"item {at}" for at in range(200))
    whole = Frame("s", ("x",), numbers, codes, names, np.arange(700.0))
    result = evaluate([whole.rows(0, 600), whole.rows(600, 700)], SMALL)
    assert len(result.classes) > 150


@pytest.mark.parametrize(
    "name, step, measured", [("watch_imu", 32, 0.938), ("noaa_weather", 256, 0.814)]
)
def test_the_published_accuracy_is_reached(
    shared_data: Callable[[str], Path], name: str, step: int, measured: float
) -> None:
    path = shared_data(f"{name}/data.npz")
    with open_source(path, frame_events=frame_events(step)) as source:
        result = evaluate(source.frames(), LearnerSettings(step_events=step))
    assert result.accuracy > measured - 0.005
    assert result.accuracy > max(result.no_change_delayed, result.majority)
