"""The memory budget."""

import numpy as np

from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.hot_streams import HotStream, HotStreams


def stream(name: str, size: int, partition: int = 0) -> HotStream:
    settings = LearnerSettings(random_features=1)
    return HotStream(partition, StreamLearner(name, settings), -1, None, size=size)


def test_the_longest_unused_leave_first_and_only_through_on_evict() -> None:
    left: list[str] = []
    hot = HotStreams(100, lambda gone: left.append(gone.name))
    for name in "abcd":
        hot.add(stream(name, 30))
    assert hot.bytes == 120 and left == []  # nobody leaves in the middle of a micro-batch
    assert hot.get(0, "a") is not None
    hot.make_room()
    assert left == ["b"] and hot.bytes == 90 and hot.get(0, "b") is None


def test_one_stream_always_fits() -> None:
    hot = HotStreams(1, lambda gone: None)
    hot.add(stream("a", 50))
    hot.make_room()
    assert len(hot) == 1


def test_sizes_are_kept_up_to_date() -> None:
    hot = HotStreams(100, lambda gone: None)
    one = stream("a", 10)
    hot.add(one)
    hot.resize(one, 70)
    assert hot.bytes == 70
    hot.drop(0)
    assert hot.bytes == 0 and len(hot) == 0


def test_a_partition_is_dropped_without_storing() -> None:
    left: list[str] = []
    hot = HotStreams(100, lambda gone: left.append(gone.name))
    for name, partition in (("a", 0), ("b", 0), ("a", 1)):
        hot.add(stream(name, 10, partition))
    hot.drop(0, {"b"})
    assert hot.get(0, "b") is None and hot.get(0, "a") is not None
    hot.drop(0)
    assert [(s.partition, s.name) for s in hot] == [(1, "a")] and left == []


def test_what_those_that_left_had_said_has_an_eighth_of_the_budget() -> None:
    tensors = {"softmax/0.05": np.zeros(40, np.float32)}  # 160 bytes
    model = Model("any", 1, {}, tensors, SlowWeights({}))
    hot = HotStreams(4000, lambda gone: None)
    for slot, name in enumerate("abcdef"):
        one = stream(name, 3000)
        one.published, one.slot, one.newest_event_s = model, slot, 7.0
        hot.add(one)
        hot.make_room()
    assert [hot.left(0, name) for name in "ab"] == [None, None], "500 bytes are room for three"
    said = hot.left(0, "c")
    assert said is not None and (said.model, said.slot, said.newest_event_s) == (model, 2, 7.0)
    assert hot.left(0, "c") is None, "told once"
    hot.add(stream("d", 10))
    assert hot.left(0, "d") is None, "it says more by now"
    hot.drop(0, {"e"})
    assert hot.left(0, "e") is None, "somebody else knows better"
