"""Updates: a subscriber that applies them holds the publisher's bits, or gets a named error."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import Update, apply, diff
from streamlearn.errors import GapError, IntegrityError

SLOW = SlowWeights({"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
OTHER_SLOW = SlowWeights({"a": np.zeros((2, 3), np.float32)})


def model(version: int, /, stream: str = "s", **tensors: Any) -> Model:
    return model_of(version, tensors, stream)


def model_of(version: int, tensors: Mapping[str, NDArray[Any]], stream: str = "s") -> Model:
    return Model(stream, version, {"format": 1, "classes": ["a", 1]}, tensors, SLOW)


def same(a: Model, b: Model) -> None:
    """Bit by bit, apart from what Model.hash says."""
    assert (a.stream, a.version, dict(a.manifest)) == (b.stream, b.version, dict(b.manifest))
    assert set(a.tensors) == set(b.tensors)
    for name, tensor in a.tensors.items():
        other = b.tensors[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape)
        assert tensor.tobytes() == other.tobytes()
    assert a.hash == b.hash


dtypes = st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, bool])
shapes = array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)
any_tensor = dtypes.flatmap(lambda dtype: arrays(dtype, shapes))
tensor_sets = st.dictionaries(st.text(min_size=1, max_size=3), any_tensor, max_size=4)


@given(tensor_sets, tensor_sets, st.data())
@settings(max_examples=80, derandomize=True, deadline=None)
def test_apply_undoes_diff(
    before: dict[str, NDArray[Any]], after: dict[str, NDArray[Any]], data: st.DataObject
) -> None:
    kept = {n: t for n, t in before.items() if data.draw(st.booleans())}
    published, current = model_of(1, before), model_of(2, after | kept)
    same(apply(None, diff(None, current), SLOW), current)
    same(apply(published, diff(published, current), SLOW), current)


def test_only_what_changed_is_in_it() -> None:
    kept, old = np.zeros((4, 2)), np.ones(3)
    published = model(1, kept=kept, old=old, gone=old)
    current = model(5, kept=kept.copy(), old=old * 2, new=old)
    update = diff(published, current)
    assert set(update.changed) == {"old", "new"}
    assert update.changed_rows == {}
    assert update.removed == ("gone",)
    assert update.manifest is None
    assert (update.base_version, update.version) == (1, 5)
    assert (update.base_hash, update.result_hash) == (published.hash, current.hash)


def test_a_changed_manifest_is_in_it_as_a_whole() -> None:
    published = model(1)
    current = replace(model(2), manifest={"format": 1, "classes": ["a", 1, "b"]})
    update = diff(published, current)
    assert update.manifest == current.manifest
    same(apply(published, update, SLOW), current)


def test_rows_are_sent_where_they_are_smaller() -> None:
    tensor = np.random.default_rng(1).standard_normal((100, 8)).astype(np.float32)
    few, many = tensor.copy(), tensor.copy()
    few[[7, 93]] += 1
    many[:90] += 1
    published = model(1, w=tensor)
    update = diff(published, model(2, w=few))
    rows, values = update.changed_rows["w"]
    assert rows.tolist() == [7, 93] and rows.dtype == np.int32
    np.testing.assert_array_equal(values, few[[7, 93]])
    assert not update.changed
    same(apply(published, update, SLOW), model(2, w=few))
    assert set(diff(published, model(2, w=many)).changed) == {"w"}
    small = diff(model(1, w=np.zeros((4, 2))), model(2, w=np.eye(4, 2)))
    assert set(small.changed) == {"w"}, "a second entry would cost more than the rows save"


def test_places_are_sent_where_rows_change_in_few_of_them() -> None:
    table = np.random.default_rng(2).integers(-9, 9, (50, 6, 5)).astype(np.int8)
    changed = table.copy()
    changed[3, 1, 2] += 1
    changed[49, 5, 4] += 1
    published, current = model(1, w=table), model(2, w=changed)
    update = diff(published, current)
    places, values = update.changed_rows["w"]
    assert places.tolist() == [3 * 30 + 7, 50 * 30 - 1] and places.dtype == np.int32
    assert values.tolist() == [changed[3, 1, 2], changed[49, 5, 4]]
    same(apply(published, update, SLOW), current)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.float32("nan"), np.float32("nan")),  # the same bits: unchanged
        (np.float32(0.0), np.float32(-0.0)),  # other bits: changed, though equal
    ],
)
def test_bits_count_not_values(before: np.float32, after: np.float32) -> None:
    published, current = (model(v, w=np.full(9, x)) for v, x in ((1, before), (2, after)))
    assert bool(diff(published, current).changed) == (before.tobytes() != after.tobytes())
    same(apply(published, diff(published, current), SLOW), current)


def test_a_tensor_that_grew_or_changed_its_type_is_sent_whole() -> None:
    published = model(1, grown=np.zeros((3, 2)), retyped=np.zeros(4, np.float32))
    current = model(2, grown=np.zeros((3, 3)), retyped=np.zeros(4, np.int32))
    assert set(diff(published, current).changed) == {"grown", "retyped"}
    same(apply(published, diff(published, current), SLOW), current)


def test_several_versions_make_one_update_and_small_ones_make_the_same() -> None:
    rng = np.random.default_rng(2)
    versions = [model(0, w=rng.standard_normal((50, 4)), x=np.zeros(3))]
    for version in range(1, 6):
        w = versions[-1].tensors["w"].copy()
        w[rng.integers(50)] += 1
        versions.append(model(version, w=w, x=np.full(3, float(version // 2))))
    held = versions[0]
    for before, after in pairwise(versions):
        held = apply(held, diff(before, after), SLOW)
    same(held, versions[-1])
    same(apply(versions[0], diff(versions[0], versions[-1]), SLOW), versions[-1])


def test_the_base_stays_and_the_result_is_read_only() -> None:
    tensor = np.zeros((100, 4))
    changed = tensor.copy()
    changed[5] = 1
    published = model(1, w=tensor, x=np.zeros(2))
    result = apply(published, diff(published, model(2, w=changed, x=np.ones(2))), SLOW)
    assert not published.tensors["w"].any()
    for array in result.tensors.values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


def test_another_base_is_a_gap() -> None:
    published, current = model(1, w=np.zeros(3)), model(2, w=np.ones(3))
    update = diff(published, current)
    for base in (None, current, model(1, w=np.ones(3)), model(3, w=np.zeros(3))):
        with pytest.raises(GapError, match="fetch the snapshot"):
            apply(base, update, SLOW)
    with pytest.raises(GapError, match="slow topic"):
        apply(published, update, OTHER_SLOW)


def test_another_streams_update_is_refused() -> None:
    mine, theirs = model(1, w=np.zeros(3)), model(1, stream="t", w=np.zeros(3))
    update = diff(theirs, model(2, stream="t", w=np.ones(3)))
    with pytest.raises(IntegrityError, match="not for stream"):
        apply(mine, update, SLOW)


_ROWS: NDArray[np.int32] = np.array([1], np.int32)
TAMPERED: list[Mapping[str, Any]] = [
    {"changed": {"x": np.full(2, 9.0)}},
    {"changed": {"other": np.ones(2)}},
    {"version": 3},
    {"manifest": {"format": 1, "classes": []}},
    {"removed": ("scalar",)},
    {"result_hash": "0" * 64},
    {"changed_rows": {"w": (_ROWS + 1, np.ones((1, 4)))}},
    {"changed_rows": {"w": (_ROWS + 99, np.ones((1, 4)))}},
    {"changed_rows": {"w": (_ROWS - 2, np.ones((1, 4)))}},
    {"changed_rows": {"w": (_ROWS, np.ones((1, 5)))}},
    {"changed_rows": {"w": (_ROWS, np.ones((2, 4)))}},
    {"changed_rows": {"w": (_ROWS, np.ones((1, 4), np.float32))}},
    {"changed_rows": {"w": (_ROWS.astype(np.int64), np.ones((1, 4)))}},
    {"changed_rows": {"w": (_ROWS.reshape(1, 1), np.ones((1, 4)))}},
    {"changed_rows": {"w": (_ROWS + 99 * 4, np.ones(1))}},
    {"changed_rows": {"w": (_ROWS - 2, np.ones(1))}},
    {"changed_rows": {"scalar": (_ROWS, np.ones(1))}},
    {"changed_rows": {"unknown": (_ROWS, np.ones((1, 4)))}},
]


@pytest.mark.parametrize("change", TAMPERED, ids=str)
def test_what_was_changed_on_the_way_is_refused(change: dict[str, Any]) -> None:
    w = np.zeros((99, 4))
    w[1] = 1
    published = model(1, w=np.zeros((99, 4)), x=np.zeros(2), scalar=np.array(1.0))
    good = diff(published, model(2, w=w, x=np.ones(2), scalar=np.array(1.0)))
    apply(published, good, SLOW)
    with pytest.raises(IntegrityError):
        apply(published, replace(good, **change), SLOW)


def test_a_whole_model_needs_its_manifest() -> None:
    update: Update = replace(diff(None, model(1)), manifest=None)
    with pytest.raises(IntegrityError, match="manifest"):
        apply(None, update, SLOW)


def test_a_learners_model_predicts_the_same_bits_after_updates() -> None:
    learner = StreamLearner("s", LearnerSettings(random_features=8, step_events=16))
    rng = np.random.default_rng(3)
    published: Model | None = None
    held: Model | None = None
    for version in range(6):
        x = rng.standard_normal((32, 3))
        codes = (x[:, 0] > 0).astype(np.int32) + (version > 2)  # a new class on the way
        frame = Frame(
            "s", ("a", "b", "c"), x, codes.astype(np.int32), ("lo", "hi", "top"), np.arange(32.0)
        )
        learner.learn(frame)
        current = learner.model()
        held = apply(held, diff(published, current), current.slow)
        published = current
        same(held, current)
        probabilities = held.predict_next(frame)
        assert probabilities.tobytes() == current.predict_next(frame).tobytes()
