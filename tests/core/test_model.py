"""Models: what a subscriber computes is what the learner served, whatever way the bytes took."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from streamlearn.core.experts import Readout
from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import FormatError

MakeStream = Callable[..., list[Frame]]
SMALL = LearnerSettings(random_features=24, step_events=64)


def sent(model: Model) -> Model:
    """As after a journey through bytes: fresh memory, JSON's own types."""
    tensors = {
        name: np.frombuffer(bytearray(tensor.tobytes()), tensor.dtype).reshape(tensor.shape)
        for name, tensor in model.tensors.items()
    }
    manifest = json.loads(json.dumps(model.manifest))
    return Model(model.stream, model.version, manifest, tensors, model.slow)


@pytest.fixture(scope="module")
def learned(make_stream: MakeStream) -> tuple[Model, list[Frame]]:
    frames = make_stream(640, d=6, missing=0.05)
    learner = StreamLearner("s", SMALL)
    for frame in frames[:-1]:
        learner.learn(frame)
    return learner.model(), frames


@pytest.mark.parametrize("a_frame", [1, 7, 64])
def test_predict_next_is_what_the_learner_serves(make_stream: MakeStream, a_frame: int) -> None:
    learner = StreamLearner("s", SMALL)
    for frame in make_stream(100 if a_frame == 1 else 640, missing=0.02, a_frame=a_frame):
        model = sent(learner.model())
        expected = model.predict_next(frame)
        outcome = learner.learn(frame)
        if outcome.base_version == 0:
            continue  # the first frame is cut into short steps
        c = len(model.classes)
        assert expected.tobytes() == np.ascontiguousarray(outcome.probabilities[:, :c]).tobytes()
        assert not outcome.probabilities[:, c:].any()
        assert model.hash == sent(model).hash


@pytest.mark.parametrize("readout", ["serve", "keep"])
def test_each_event_on_its_own(learned: tuple[Model, list[Frame]], readout: Readout) -> None:
    model, frames = learned
    frame = frames[-1]
    whole = model.predict_proba(frame, readout=readout)
    for start, stop in ((0, 1), (5, 6), (3, 40), (33, 64)):
        part = model.predict_proba(frame.rows(start, stop), readout=readout)
        assert (part == whole[start:stop]).all()
    turned = replace(frame, numbers=frame.numbers[::-1].copy())
    assert (model.predict_proba(turned, readout=readout)[::-1] == whole).all()
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, rtol=1e-5)


def test_the_first_event_is_the_same_question(learned: tuple[Model, list[Frame]]) -> None:
    model, frames = learned
    one = frames[-1].rows(0, 1)
    np.testing.assert_allclose(model.predict_next(one), model.predict_proba(one), rtol=1e-4)


def test_predicting_leaves_no_trace(learned: tuple[Model, list[Frame]]) -> None:
    model, frames = learned
    before, first = model.hash, model.predict_next(frames[-1])
    model.predict_proba(frames[3])
    again = Model(model.stream, model.version, model.manifest, model.tensors, model.slow)
    assert again.hash == before
    assert (model.predict_next(frames[-1]) == first).all()


def test_many_threads_get_the_same_bits(learned: tuple[Model, list[Frame]]) -> None:
    model, frames = learned
    fresh = sent(model)  # nothing is prepared yet
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(fresh.predict_next, [frames[-1]] * 32))
    assert all((answer == model.predict_next(frames[-1])).all() for answer in answers)


def test_other_columns_in_another_order(learned: tuple[Model, list[Frame]]) -> None:
    model, frames = learned
    frame = frames[-1]
    turned = replace(
        frame,
        columns=("new", *frame.columns[::-1]),
        numbers=np.hstack([np.ones((len(frame), 1)), frame.numbers[:, ::-1]]),
    )
    assert (model.predict_proba(turned) == model.predict_proba(frame)).all()
    without = replace(frame, columns=frame.columns[1:], numbers=frame.numbers[:, 1:])
    gone = frame.numbers.copy()
    gone[:, 0] = np.nan
    missing = replace(frame, numbers=gone)
    assert (model.predict_proba(without) == model.predict_proba(missing)).all()


def test_before_any_label_there_is_no_class(make_stream: MakeStream) -> None:
    frame = make_stream(10)[0]
    learner = StreamLearner("s", SMALL)
    assert learner.model().predict_next(frame).shape == (10, 0)
    assert learner.model().predict_proba(frame, readout="keep").shape == (10, 0)
    learner.learn(replace(frame, label_codes=np.full(10, -1, np.int32)))
    assert learner.model().predict_next(frame).shape == (10, 0)
    assert learner.model().columns == frame.columns


def test_no_events_give_no_rows(learned: tuple[Model, list[Frame]]) -> None:
    model, frames = learned
    assert model.predict_proba(frames[0].rows(0, 0)).shape == (0, 3)
    assert model.predict_next(frames[0].rows(0, 0)).shape == (0, 3)


def test_tensors_are_read_only_and_not_the_learners(make_stream: MakeStream) -> None:
    learner = StreamLearner("s", SMALL)
    frames = make_stream(256)
    learner.learn(frames[0])
    model = learner.model()
    before = model.hash
    for frame in frames[1:]:
        learner.learn(frame)
    again = Model(model.stream, model.version, model.manifest, model.tensors, model.slow)
    assert again.hash == before
    with pytest.raises(ValueError, match="read-only"):
        model.tensors["input/mean"][0] = 1.0


def test_the_hash_sees_every_part(learned: tuple[Model, list[Frame]]) -> None:
    model, _ = learned
    changed = model.tensors["ridge/b/inf"].copy()
    changed[3, 1] = np.nextafter(changed[3, 1], 9)
    others = [
        replace(model, stream="t"),
        replace(model, version=model.version + 1),
        replace(model, manifest={**model.manifest, "classes": ["x", "y", "z"]}),
        replace(model, tensors={**model.tensors, "ridge/b/inf": changed}),
    ]
    assert len({model.hash, *(other.hash for other in others)}) == 5


def test_a_model_that_is_not_whole_is_refused(learned: tuple[Model, list[Frame]]) -> None:
    model, frames = learned
    tensors = {name: t for name, t in model.tensors.items() if name != "ridge/a/100"}
    with pytest.raises(FormatError, match="ridge/a/100"):
        replace(model, tensors=tensors).predict_next(frames[0])
    tensors = {**model.tensors, "pool/serve": np.zeros(2)}
    with pytest.raises(FormatError, match="pool/serve"):
        replace(model, tensors=tensors).predict_next(frames[0])
    with pytest.raises(FormatError, match="format 99"):
        replace(model, manifest={**model.manifest, "format": 99}).predict_next(frames[0])
