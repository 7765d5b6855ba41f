"""The timeline against counting by hand; the picture by what is on it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import InputError
from streamlearn.evaluation import Timeline, evaluate
from streamlearn.evaluation.events import joined, pick
from streamlearn.evaluation.plot import check_plot, draw

SETTINGS = LearnerSettings(step_events=32, random_features=16)


def frames() -> list[Frame]:
    """A class comes late, and then the columns swap."""
    rng = np.random.default_rng(0)
    n = 3200
    codes = np.where(np.arange(n) < 1600, rng.integers(0, 2, n), rng.integers(0, 3, n))
    codes = np.where(rng.random(n) < 0.1, -1, codes).astype(np.int32)
    numbers = rng.normal(4.0 * codes[:, None], 1.0, (n, 3)) * [1.0, -1.0, 0.1]
    numbers[2400:] = numbers[2400:, ::-1]
    whole = Frame("s", ("x", "y", "z"), numbers, codes, ("up", "down", "late"), np.arange(float(n)))
    return [whole.rows(i, i + 160) for i in range(0, n, 160)]


@pytest.fixture(scope="module")
def lived() -> tuple[Timeline, list[Frame]]:
    timeline = Timeline("keep")
    result = evaluate(frames(), SETTINGS, readout="keep", timeline=timeline, compare=["sklearn"])
    assert timeline.n == result.n
    for name, share in (("keep", result.accuracy), ("no-change", result.no_change)):
        assert np.concatenate(timeline._right[name]).mean() == pytest.approx(share)
    assert np.concatenate(timeline._right["majority"]).mean() == pytest.approx(result.majority)
    return timeline, frames()


def test_marks_stand_where_it_happened(lived: tuple[Timeline, list[Frame]]) -> None:
    timeline, given = lived
    labels = [label for frame in given for label in frame.labels() if label is not None]
    assert {(mark.what, mark.event) for mark in timeline.new_classes} == {
        (label, labels.index(label)) for label in ("up", "down", "late")
    }
    assert timeline.drifts and all(0 < mark.event <= timeline.n for mark in timeline.drifts)


def test_curves_are_sliding_means(lived: tuple[Timeline, list[Frame]]) -> None:
    timeline, _ = lived
    right = np.concatenate(timeline._right["no-change"])
    events, share = timeline.curves()["no-change"]
    window = 128
    for k in (0, 100, -1):
        part = right[max(events[k] - window, 0) : events[k]]
        assert share[k] == pytest.approx(part.mean())
    assert events[-1] == timeline.n and set(timeline.curves()) >= {"keep", "sklearn SGDClassifier"}


def test_streams_lie_in_the_order_of_their_times() -> None:
    """As if every event had been a frame of its own, in the order in which they happened."""
    rng = np.random.default_rng(1)
    n = 1200
    stream, codes = rng.integers(0, 3, n), rng.integers(0, 2, n).astype(np.int32)
    codes[1000:] = 2  # by time, the last class comes at 1000
    whole = Frame("", ("x",), codes[:, None] + 0.0, codes, ("a", "b", "late"), np.arange(float(n)))
    timeline = Timeline("serve")
    parts = [
        replace(pick(whole, np.flatnonzero(stream == one)), stream=str(one)) for one in range(3)
    ]
    evaluate(parts, SETTINGS, timeline=timeline)
    assert {mark.what: mark.event for mark in timeline.new_classes}["late"] == 1000
    right, last = np.zeros(n), [-1, -1, -1]
    for i in range(n):
        right[i], last[stream[i]] = codes[i] == last[stream[i]], int(codes[i])
    events, share = timeline.curves()["no-change"]
    for k in (10, 200, -1):
        assert share[k] == pytest.approx(right[max(events[k] - 128, 0) : events[k]].mean())


def test_watching_changes_nothing_and_drift_is_marked_where_it_is() -> None:
    plain, timeline = evaluate(frames(), SETTINGS), Timeline("serve")
    whole = [joined(frames())]
    watched = evaluate(whole, SETTINGS, timeline=timeline)
    assert watched.accuracy == plain.accuracy
    labelled = np.flatnonzero(whole[0].label_codes >= 0)
    swapped = int((labelled < 2400).sum())
    assert any(0 <= mark.event - swapped <= 400 for mark in timeline.drifts)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture(lived: tuple[Timeline, list[Frame]], tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"out.{ending}"
    check_plot(path)
    result = evaluate(frames(), SETTINGS, classes_over_time=True)
    draw(path, lived[0], result.classes_over_time, title="pumps")
    written = path.read_bytes()
    if ending == "png":
        assert written.startswith(b"\x89PNG") and len(written) > 20_000
    else:
        for said in (b"accuracy (keep)", b"majority", b"drift", b"new class", b"late", b"pumps"):
            assert b"<!-- " + said in written or said in written


def test_a_plot_that_cannot_be_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="end the name with one of"):
        check_plot(tmp_path / "out.doc")
    with pytest.raises(InputError, match="no folder"):
        check_plot(tmp_path / "gone" / "out.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="pip install"):
        check_plot(tmp_path / "out.png")


def test_names_are_drawn_as_they_are_whatever_they_hold(tmp_path: Path) -> None:
    """Dollars are no formula, and a script that no font has is no warning (here: no error)."""
    timeline = Timeline("serve")
    named = [replace(frame, label_values=("under $5_{", "over $10$", "天気")) for frame in frames()]
    result = evaluate(named[:12], SETTINGS, timeline=timeline)
    draw(tmp_path / "names.png", timeline, result.classes_over_time, title="a$b_{$.csv")
    assert (tmp_path / "names.png").read_bytes().startswith(b"\x89PNG")
    assert {"天気", "over $10$"} <= {mark.what for mark in timeline.new_classes}
