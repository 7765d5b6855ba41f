"""The learner as a whole: state, causality, and what a stream's life brings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamlearn.core.drift import DriftVerdict
from streamlearn.core.learner import LearnerState, Outcome, StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import ConfigError, StateError

MakeStream = Callable[..., list[Frame]]
SMALL = LearnerSettings(random_features=24, step_events=32)


def sent(state: LearnerState) -> LearnerState:
    """As after a journey through JSON and bytes: read-only arrays in fresh memory."""
    arrays = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in state.arrays.items()
    }
    return LearnerState(json.loads(json.dumps(state.meta, allow_nan=False)), arrays)


def learn_all(frames: list[Frame], settings: LearnerSettings = SMALL) -> StreamLearner:
    learner = StreamLearner(frames[0].stream, settings)
    for frame in frames:
        learner.learn(frame)
    return learner


def state_bytes(learner: StreamLearner) -> dict[str, bytes]:
    state = learner.state()
    parts = {name: array.tobytes() for name, array in state.arrays.items()}
    return {**parts, "meta": json.dumps(state.meta).encode()}


def odd_life(make_stream: MakeStream) -> list[Frame]:
    """Gaps, unlabelled events, texts, odd frame sizes, columns and classes that come late."""
    frames = make_stream(500, d=4, n_classes=2, missing=0.05, unlabelled=0.1, a_frame=50)
    later = make_stream(300, d=6, n_classes=4, unlabelled=0.3, a_frame=37, seed=1)
    texts = [replace(f, texts={"place": tuple("abc"[i % 3] for i in range(len(f)))}) for f in later]
    return [*frames, *texts]


@pytest.mark.parametrize("cut_after", [0, 1, 2, 6, 10, 12])
def test_restored_goes_on_to_the_bit(make_stream: MakeStream, cut_after: int) -> None:
    frames = odd_life(make_stream)
    unbroken = learn_all(frames)
    first = StreamLearner("s", SMALL)
    for frame in frames[:cut_after]:
        first.learn(frame)
    second = StreamLearner.restore(sent(first.state()), SMALL)
    assert second.model().hash == first.model().hash
    for frame in frames[cut_after:]:
        second.learn(frame)
    assert second.model().hash == unbroken.model().hash
    assert state_bytes(second) == state_bytes(unbroken)


def test_taking_state_and_model_changes_nothing(make_stream: MakeStream) -> None:
    frames = odd_life(make_stream)
    watched = StreamLearner("s", SMALL)
    for frame in frames:
        watched.model()
        watched.state()
        watched.learn(frame)
    assert state_bytes(watched) == state_bytes(learn_all(frames))


def test_state_that_does_not_fit_is_refused(make_stream: MakeStream) -> None:
    state = learn_all(make_stream(100, missing=0.1)).state()
    with pytest.raises(StateError, match="settings"):
        StreamLearner.restore(state, replace(SMALL, seed=1))
    with pytest.raises(StateError, match="format"):
        StreamLearner.restore(replace(state, meta={**state.meta, "format": 0}), SMALL)
    other_draws = {**state.meta["mixture"], "slow": "0" * 64}
    with pytest.raises(StateError, match="numpy"):
        StreamLearner.restore(replace(state, meta={**state.meta, "mixture": other_draws}), SMALL)
    older = {k: v for k, v in state.meta["settings"].items() if k != "softmax_rates"}
    StreamLearner.restore(replace(state, meta={**state.meta, "settings": older}), SMALL)
    for name in ("scale/mean", "mixture/ridge/a/gram/100", "mixture/softmax", "census/tables"):
        arrays = {key: array for key, array in state.arrays.items() if key != name}
        with pytest.raises(StateError, match="not whole"):
            StreamLearner.restore(replace(state, arrays=arrays), SMALL)
        arrays[name] = state.arrays[name][:-1]
        with pytest.raises(StateError, match="not whole"):
            StreamLearner.restore(replace(state, arrays=arrays), SMALL)


def test_frames_of_whole_steps_may_be_cut_anyhow(make_stream: MakeStream) -> None:
    """After the first frame: one frame of k steps learns as k frames of a step each.

    Only the version, the number of frames, differs. A frame cut within a step is another stream
    of steps, so its weights differ.
    """
    parts = make_stream(32 * 13, missing=0.03, a_frame=32)
    whole = make_stream(32 * 13, missing=0.03, a_frame=32 * 13)[0]
    large = learn_all([parts[0], whole.rows(32, 32 * 13)])
    small = learn_all(parts)
    assert (large.version, small.version) == (2, 13)
    for name, tensor in small.model().tensors.items():
        assert tensor.tobytes() == large.model().tensors[name].tobytes()
    assert small.prequential.accuracy == large.prequential.accuracy
    odd = learn_all([parts[0], whole.rows(32, 50), whole.rows(50, 32 * 13)])
    assert odd.model().tensors["ridge/a/100"].tobytes() != tensor_bytes(small, "ridge/a/100")


def tensor_bytes(learner: StreamLearner, name: str) -> bytes:
    return learner.model().tensors[name].tobytes()


CHILD = """
import sys
import numpy as np
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
rng = np.random.default_rng(0)
learner = StreamLearner("s", LearnerSettings(random_features=200))
for start in range(0, 1024, 256):
    x = rng.normal(size=(256, 32))
    y = (x[:, :3]).argmax(axis=1).astype(np.int32)
    texts = {"t": tuple(f"word {int(k)} of class {c}" for k, c in zip(x[:, 3] * 30, y))}
    names = tuple(map(str, range(32)))
    frame = Frame("s", names, x, y, ("a", "b", "c"), np.arange(256.0), texts=texts)
    served = learner.model().predict_next(frame)
    learner.learn(frame)
sys.stdout.write(learner.model().hash + served.tobytes().hex()[:400])
"""


def test_the_same_bits_with_any_number_of_threads_and_hash_seed() -> None:
    def child(threads: str, hash_seed: str) -> subprocess.Popen[str]:
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
        env = {**os.environ, **dict.fromkeys(names, threads), "PYTHONHASHSEED": hash_seed}
        return subprocess.Popen(
            [sys.executable, "-c", CHILD], env=env, stdout=subprocess.PIPE, text=True
        )

    with child("1", "1") as one, child("2", "2") as other:
        answers = [process.communicate(timeout=200)[0] for process in (one, other)]
    assert answers[0] == answers[1] != ""


def test_labels_of_a_step_do_not_move_its_predictions(make_stream: MakeStream) -> None:
    frames = make_stream(320, a_frame=64)
    honest, fooled = StreamLearner("s", SMALL), StreamLearner("s", SMALL)
    for frame in frames[:-1]:
        honest.learn(frame)
        fooled.learn(frame)
    wrong = (frames[-1].label_codes + 1) % 3
    a = honest.learn(frames[-1])
    b = fooled.learn(replace(frames[-1], label_codes=wrong.astype(np.int32)))
    assert (a.probabilities[:32] == b.probabilities[:32]).all()  # a step is 32 events
    assert (a.probabilities[32:] != b.probabilities[32:]).any()


def test_later_events_of_a_step_do_not_move_earlier_predictions(make_stream: MakeStream) -> None:
    learner = learn_all(make_stream(320, a_frame=64))
    frame = make_stream(32, seed=9)[0]
    numbers = frame.numbers.copy()
    numbers[20:] *= -3.0
    moved = replace(frame, numbers=numbers)
    model = learner.model()
    assert (model.predict_next(frame)[:20] == model.predict_next(moved)[:20]).all()


def test_permuted_labels_fall_to_the_majority(make_stream: MakeStream) -> None:
    honest = learn_all(make_stream(2000, n_classes=3))
    leaky = learn_all(make_stream(2000, n_classes=3, permute_labels=True))
    assert honest.prequential.accuracy > honest.prequential.majority + 0.2
    assert leaky.prequential.accuracy < leaky.prequential.majority + 0.03


def test_the_outcome_counts(make_stream: MakeStream) -> None:
    learner = StreamLearner("s", SMALL)
    for version, frame in enumerate(make_stream(300, a_frame=100, unlabelled=0.2)):
        outcome = learner.learn(frame)
        labels = frame.labels()
        known = [i for i, label in enumerate(labels) if label is not None]
        named = [outcome.classes[p] if p >= 0 else None for p in outcome.predicted]
        assert outcome.base_version == version == learner.version - 1
        assert outcome.n_labelled == len(known)
        assert outcome.n_correct == sum(named[i] == labels[i] for i in known)
        assert outcome.probabilities.shape == (100, len(outcome.classes))
        assert len(outcome.head_weights) == len(outcome.heads) == 13
        assert outcome.head_weights.sum() == pytest.approx(1.0)
    assert (outcome.probabilities.argmax(axis=1) == outcome.predicted).all()


def test_only_the_very_first_event_is_not_tested(make_stream: MakeStream) -> None:
    outcome = StreamLearner("s", SMALL).learn(make_stream(64, n_classes=2)[0])
    assert outcome.predicted[0] == -1 and (outcome.predicted[1:] >= 0).all()


def test_unlabelled_events_are_predicted_and_move_the_context_only(make_stream: MakeStream) -> None:
    learner = learn_all(make_stream(256))
    before, frame = learner.model(), make_stream(32, seed=3)[0]
    outcome = learner.learn(replace(frame, label_codes=np.full(32, -1, np.int32)))
    after = learner.model()
    assert outcome.n_labelled == 0 and (outcome.predicted >= 0).all()
    changed = {n for n, t in after.tensors.items() if t.tobytes() != before.tensors[n].tobytes()}
    assert changed == {"recent/means", "input/mean", "input/inverse_std"}
    assert after.version == before.version + 1


def test_labels_keep_their_type(make_stream: MakeStream) -> None:
    frame = make_stream(64, n_classes=3)[0]
    order = list(dict.fromkeys(frame.label_codes.tolist()))
    mixed = replace(frame, label_values=("1", 1, "a b"))
    learner = learn_all([mixed])
    assert learner.classes == tuple(("1", 1, "a b")[code] for code in order)
    restored = StreamLearner.restore(sent(learner.state()), SMALL)
    assert [type(c) for c in restored.classes] == [type(c) for c in learner.classes]


def test_the_same_class_under_other_codes(make_stream: MakeStream) -> None:
    frames = make_stream(256)
    turned = [
        replace(
            f, label_values=f.label_values[::-1], label_codes=(2 - f.label_codes).astype(np.int32)
        )
        for f in frames
    ]
    assert learn_all(turned).model().hash == learn_all(frames).model().hash


def test_a_new_class_is_learned_at_once(make_stream: MakeStream) -> None:
    frames = make_stream(512, n_classes=2)
    learner = learn_all(frames)
    far = replace(
        frames[0],
        numbers=frames[0].numbers + np.logspace(-2, 3, 5) * 4,
        label_values=("new", "new"),
    )
    assert learner.learn(far).n_correct < 64
    again = learner.learn(far)
    assert again.n_correct > 55
    assert learner.classes[-1] == "new"


def test_a_new_column_is_learned(make_stream: MakeStream) -> None:
    frames = make_stream(3072, d=3, n_classes=2)
    rng = np.random.default_rng(1)

    def tell(frame: Frame) -> Frame:
        helpful = frame.label_codes[:, None] * 3.0 + rng.normal(size=(len(frame), 1))
        numbers = np.hstack([frame.numbers[:, :0], frame.numbers, helpful])
        return replace(frame, columns=(*frame.columns, "helpful"), numbers=numbers)

    learner = learn_all(frames[:24])
    told = [learner.learn(tell(frame)) for frame in frames[24:]]
    plain = learn_all(frames[:24])
    untold = [plain.learn(frame) for frame in frames[24:]]
    assert score(told[4:]) > score(untold[4:]) + 0.02
    assert learner.model().columns == ("x0", "x1", "x2", "helpful")


def score(outcomes: list[Outcome]) -> float:
    return sum(o.n_correct for o in outcomes) / sum(o.n_labelled for o in outcomes)


def test_columns_that_vanish_come_empty_or_never_change(make_stream: MakeStream) -> None:
    frames = make_stream(1024, d=4, n_classes=2)
    empty, constant = np.full((64, 1), np.nan), np.full((64, 1), 3.0)
    odd = [
        replace(
            f,
            columns=(*f.columns, "empty", "constant"),
            numbers=np.hstack([f.numbers, empty, constant]),
        )
        for f in frames[:8]
    ]
    learner = learn_all([*odd, *frames[8:]])
    assert learner.prequential.accuracy > 0.8
    for tensor in learner.model().tensors.values():
        assert np.isfinite(tensor).all()


def gappy(frames: list[Frame], *, informative: bool) -> list[Frame]:
    """A tenth of all values missing at random; or a column more, whose gaps tell class 0."""
    rng = np.random.default_rng(5)
    lacking = []
    for frame in frames:
        numbers = frame.numbers.copy()
        if informative:
            likely = np.where(frame.label_codes == 0, 0.9, 0.1)
            column = np.where(rng.random(len(frame)) < likely, np.nan, 1.0)
            numbers = np.column_stack([numbers, column])
            lacking.append(replace(frame, columns=(*frame.columns, "late"), numbers=numbers))
        else:
            numbers[rng.random(numbers.shape) < 0.1] = np.nan
            lacking.append(replace(frame, numbers=numbers))
    return lacking


def imputed(frames: list[Frame]) -> list[Frame]:
    """Each gap filled with its column's mean."""
    mean = np.nanmean(np.concatenate([frame.numbers for frame in frames]), axis=0)
    return [replace(f, numbers=np.where(np.isnan(f.numbers), mean, f.numbers)) for f in frames]


def test_gaps_that_mean_nothing_cost_nothing(make_stream: MakeStream) -> None:
    frames = gappy(make_stream(1500, d=20, n_classes=2), informative=False)
    learner = learn_all(frames)
    plain = learn_all(imputed(frames))
    assert learner.prequential.accuracy > plain.prequential.accuracy - 0.01
    assert len(learner.model().manifest["inputs"]) == 20


def test_gaps_that_mean_something_are_used(make_stream: MakeStream) -> None:
    frames = gappy(make_stream(1500, d=3, n_classes=3), informative=True)
    learner = learn_all(frames)
    plain = learn_all(imputed(frames))
    assert learner.prequential.accuracy > plain.prequential.accuracy + 0.03
    assert learner.model().manifest["inputs"][-1][:2] == ["missing", "late"]
    asked = frames[-1]
    told = learner.model().predict_proba(asked)[:, learner.classes.index("class 0")]
    gap = np.isnan(asked.numbers[:, -1])
    assert told[gap].mean() > told[~gap].mean() + 0.3


def test_text_columns_of_few_values_are_categories() -> None:
    rng = np.random.default_rng(0)
    learner = StreamLearner("s", SMALL)
    for _ in range(8):
        codes = rng.integers(0, 3, 64).astype(np.int32)
        texts = tuple(None if rng.random() < 0.1 else f"city {c}" for c in codes)
        learner.learn(
            Frame(
                "s", (), np.zeros((64, 0)), codes, ("a", "b", "c"), np.zeros(64), texts={"t": texts}
            )
        )
    assert learner.prequential.accuracy > 0.85


def test_events_without_any_feature_are_no_error() -> None:
    learner = StreamLearner("s", SMALL)
    codes = (np.arange(64) % 2).astype(np.int32)
    outcome = learner.learn(Frame("s", (), np.zeros((64, 0)), codes, (0, 1), np.zeros(64)))
    assert outcome.probabilities.shape == (64, 2)


def test_one_class_only(make_stream: MakeStream) -> None:
    frames = [replace(f, label_codes=np.zeros_like(f.label_codes)) for f in make_stream(256)]
    assert learn_all(frames).prequential.accuracy == pytest.approx(255 / 256)


def test_keep_remembers_what_serve_forgot() -> None:
    """Classes two at a time; at the end all are asked for."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 8)) * 3
    learner = StreamLearner("s", replace(SMALL, random_features=64))
    columns, values = tuple(f"x{j}" for j in range(8)), tuple(range(6))

    def frame(classes: list[int]) -> Frame:
        codes = rng.choice(classes, 64).astype(np.int32)
        x = centres[codes] + rng.normal(size=(64, 8))
        return Frame("s", columns, x, codes, values, np.zeros(64))

    for pair in ([0, 1], [2, 3], [4, 5]):
        for _ in range(8):
            learner.learn(frame(pair))
    asked, model = frame([0, 1, 2, 3, 4, 5]), learner.model()
    keep, serve = (
        (model.predict_proba(asked, readout=readout).argmax(axis=1) == asked.label_codes).mean()
        for readout in ("keep", "serve")
    )
    assert keep > 0.85 and keep > serve + 0.2


def test_the_drift_of_a_column_is_told(make_stream: MakeStream) -> None:
    frames = make_stream(2048, d=3)
    learner = learn_all(frames[:24])
    moved = [replace(f, numbers=f.numbers + np.array([0.0, 100.0, 0.0])) for f in frames[24:]]
    outcomes = [learner.learn(frame) for frame in moved]
    told = [o for o in outcomes if o.drift is DriftVerdict.DRIFT]
    assert told and "x1" in {o.drift_column for o in told}


def test_a_frame_without_events_is_refused(make_stream: MakeStream) -> None:
    with pytest.raises(ValueError, match="no events"):
        StreamLearner("s", SMALL).learn(make_stream(10)[0].rows(0, 0))


def test_a_frame_of_another_stream_is_refused(make_stream: MakeStream) -> None:
    with pytest.raises(ValueError, match="'t'"):
        StreamLearner("t", SMALL).learn(make_stream(10)[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"step_events": 0},
        {"windows": ()},
        {"windows": (1.0,)},
        {"label_decays": (1.0,)},
        {"seed": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(SMALL, **wrong)


@pytest.mark.parametrize(
    ("name", "step", "limit", "bar"),
    [("watch_imu", 32, None, 0.933), ("noaa_weather", 256, None, 0.809), ("elec2", 64, 8000, 0.90)],
)
def test_accuracy_on_real_streams(
    shared_stream: Callable[..., list[Frame]], name: str, step: int, limit: int | None, bar: float
) -> None:
    frames = shared_stream(name, a_frame=256, limit=limit)
    learner = learn_all(frames, LearnerSettings(step_events=step))
    scores = learner.prequential
    assert scores.accuracy > bar
    assert scores.accuracy > scores.no_change_delayed
