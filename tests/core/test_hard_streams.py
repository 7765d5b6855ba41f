"""What a stream's life may bring, each beside what costs nothing or the same life without it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.learner import Outcome, StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings

SMALL = LearnerSettings(random_features=32, step_events=32)
CENTRES = np.random.default_rng(11).normal(size=(6, 6)) * 2.0
NAMES = ("cold", "warm", "hot", "wet", "dry", "odd")


def events(
    codes: NDArray[np.int32], *, seed: int = 0, noise: float = 1.0
) -> tuple[Frame, NDArray[np.int32]]:
    """Events around their class's centre, and the classes."""
    rng = np.random.default_rng([seed, len(codes)])
    numbers = CENTRES[codes] + noise * rng.normal(size=(len(codes), 6))
    columns, times = tuple(f"x{j}" for j in range(6)), np.arange(float(len(codes)))
    return Frame("s", columns, numbers, codes, NAMES, times), codes


def drawn(n: int, classes: tuple[int, ...], seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng([seed, n]).choice(classes, n).astype(np.int32)


class Life:
    """A learner, and what it answered."""

    def __init__(self, settings: LearnerSettings = SMALL) -> None:
        self.learner = StreamLearner("s", settings)

    def live(self, frame: Frame, size: int = 64) -> NDArray[np.bool_]:
        """Learn it; (n,) whether each event was predicted right."""
        right = []
        for start in range(0, len(frame), size):
            part = frame.rows(start, min(start + size, len(frame)))
            right.append(predicted(self.learner.learn(part)) == np.array(part.labels()))
        return np.concatenate(right)

    def recall(self, frame: Frame, readout: str) -> float:
        """Share of events that the model names right, each asked on its own."""
        model = self.learner.model()
        assert readout in ("serve", "keep")
        found = model.predict_proba(frame, readout="keep" if readout == "keep" else "serve")
        named = np.array(model.classes)[found.argmax(axis=1)]
        return float((named == np.array(frame.labels())).mean())


def predicted(outcome: Outcome) -> NDArray[np.str_]:
    names = np.array([*outcome.classes, "none"])
    return np.asarray(names[outcome.predicted])


def test_new_classes() -> None:
    """They are named after a few events, and the old ones stay."""
    life = Life()
    life.live(events(drawn(640, (0, 1)))[0])
    for new in (2, 3):
        known = tuple(range(new))
        frame, codes = events(drawn(320, (*known, new), seed=new))
        right = life.live(frame, size=32)
        is_new = codes == new
        assert not right[:32][is_new[:32]].any()  # nobody could know it
        assert right[64:][is_new[64:]].mean() > 0.85
        assert right[~is_new].mean() > 0.9
    asked = events(drawn(400, (0, 1, 2, 3), seed=9))[0]
    assert life.recall(asked, "serve") > 0.93 and life.recall(asked, "keep") > 0.93


def test_classes_that_come_one_after_the_other() -> None:
    """Once known, a class is named: no head's weight falls by what nobody could know.

    Heads that say least lose least by a class that is new, and were the only ones asked when it
    was known: .83.
    """
    codes = np.repeat(np.arange(6, dtype=np.int32), 100)
    right = Life().live(events(codes)[0], size=32)
    first = np.searchsorted(codes, codes)  # where its class began
    known = first < np.arange(len(codes)) // 32 * 32
    known[:32] = False
    assert right[known].mean() > 0.9


def test_vanished_classes() -> None:
    """`serve` stops naming them; `keep` still knows them; if they come back, so does `serve`."""
    life = Life()
    life.live(events(drawn(800, (0, 1, 2)))[0])
    without = events(drawn(1600, (0, 1), seed=1))[0]
    never = Life()
    never.live(events(drawn(800, (0, 1)))[0])
    assert life.live(without).mean() > never.live(without).mean() - 0.01
    gone = events(drawn(200, (2,), seed=2))[0]
    assert life.recall(gone, "keep") > 0.9
    back = life.live(events(drawn(320, (0, 1, 2), seed=3))[0])
    assert back[64:].mean() > 0.93


def test_renamed_columns() -> None:
    """Two of six are called otherwise from now on: no worse than to forget and begin anew."""
    life = Life()
    before = life.live(events(drawn(960, (0, 1, 2)))[0])[480:].mean()
    frame = events(drawn(960, (0, 1, 2), seed=1))[0]
    renamed = replace(frame, columns=("speed", "x1", "x2", "heat", "x4", "x5"))
    right = life.live(renamed)
    assert right[:64].mean() > 0.75  # four columns are still known
    assert right[320:].mean() > before - 0.02
    anew = Life().live(renamed)
    assert right.mean() > anew.mean() - 0.01
    assert life.learner.model().columns[-2:] == ("speed", "heat")
    for tensor in life.learner.model().tensors.values():
        assert np.isfinite(tensor).all()


def test_class_skew_of_one_to_a_thousand() -> None:
    """The rare class is found, where to predict the frequent one is .999 right."""
    rng = np.random.default_rng(3)
    codes = (rng.permutation(20_000) < 20).astype(np.int32)
    frame, _ = events(codes, noise=0.7)
    life = Life(replace(SMALL, step_events=256))
    right = life.live(frame, size=1024)
    rare = codes == 1
    assert life.learner.prequential.majority == pytest.approx(0.999, abs=1e-4)
    assert life.learner.prequential.accuracy >= life.learner.prequential.majority
    assert right[rare][8:].mean() > 0.8 and (~right[~rare]).sum() < 5
    asked = events(drawn(400, (0, 1), seed=4), noise=0.7)[0]
    for readout in ("serve", "keep"):
        assert life.recall(asked, readout) > 0.95, readout  # the majority is .5


def with_columns(frame: Frame, values: NDArray[np.float64]) -> Frame:
    """More columns; `values` (n, k)."""
    names = tuple(f"more {j}" for j in range(values.shape[1]))
    numbers = np.hstack([frame.numbers, values])
    return replace(frame, columns=(*frame.columns, *names), numbers=numbers)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e12])
def test_constant_features(value: float) -> None:
    frame = events(drawn(1200, (0, 1, 2)))[0]
    plain, padded = Life(), Life()
    wide = with_columns(frame, np.full((len(frame), 6), value))
    assert padded.live(wide).mean() > plain.live(frame).mean() - 0.01
    moved = wide.numbers.copy()
    moved[:, -1] += 1.0  # now it is another constant
    assert padded.live(replace(wide, numbers=moved)).mean() > 0.95


def test_all_missing_columns() -> None:
    frame = events(drawn(1200, (0, 1, 2)))[0]
    plain, padded = Life(), Life()
    wide = with_columns(frame, np.full((len(frame), 6), np.nan))
    assert padded.live(wide).mean() > plain.live(frame).mean() - 0.01
    assert len(padded.learner.model().manifest["inputs"]) == 12  # no flags: they tell nothing
    nothing = replace(frame, numbers=np.full_like(frame.numbers, np.nan))
    empty = Life()
    empty.live(nothing)
    scores = empty.learner.prequential
    assert scores.accuracy > scores.majority - 0.06
    some_come = with_columns(frame, CENTRES[frame.label_codes])
    assert padded.live(some_come)[-600:].mean() > 0.98  # at last they hold something


def test_label_noise_of_a_fifth() -> None:
    """Against the true classes it is nearly as right as if it had been told the truth."""
    frame, codes = events(drawn(3000, (0, 1, 2)))
    rng = np.random.default_rng(5)
    wrong = (codes + rng.integers(1, 3, len(codes))) % 3
    told = np.where(rng.random(len(codes)) < 0.2, wrong, codes).astype(np.int32)
    noisy, clean = Life(), Life()
    right = noisy.live(replace(frame, label_codes=told))
    ceiling = (told == codes).mean()
    assert right[1000:].mean() > ceiling - 0.04
    clean.live(frame)
    asked = events(drawn(600, (0, 1, 2), seed=8))[0]
    for readout in ("serve", "keep"):
        assert noisy.recall(asked, readout) > clean.recall(asked, readout) - 0.03
