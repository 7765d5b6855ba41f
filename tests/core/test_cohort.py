"""Streams that learn side by side get what each gets alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from streamlearn.core.adapt_settings import AdaptSettings
from streamlearn.core.adaptation import AdaptRequest, AdaptResult
from streamlearn.core.adapter import Adapter, room
from streamlearn.core.cohort import Cohort, Learning, finish
from streamlearn.core.compensate import CompensateSettings
from streamlearn.core.encoder import logits, slow_tensors, stack
from streamlearn.core.network_expert import NetworkExpert, moved
from streamlearn.core.network_spec import (
    NetworkSpec,
    image_network,
    number_network,
    shared_layers,
)

SETTINGS = AdaptSettings(rate=0.1)
KINDS = [("mlp", 8), ("conv", 784)]


def spec(kind: str, inputs: int, classes: int = 3) -> NetworkSpec:
    if kind == "conv":
        return image_network(seed=0, classes=classes)
    return number_network(seed=0, blocks=(inputs, 4), classes=classes)


def asked(kind: str, inputs: int, key: int, n: int = 40) -> tuple[NetworkExpert, AdaptRequest]:
    """A stream's expert that has seen `n` events of three classes, and what it asks for."""
    rng = np.random.default_rng(key)
    expert = NetworkExpert(spec(kind, inputs), key=key, settings=SETTINGS)
    expert.grow(spec(kind, inputs), 3)
    codes = rng.integers(0, 3, n).astype(np.int32)
    x = (rng.normal(size=(n, expert.spec.inputs)) + codes[:, None]).astype(np.float32)
    expert.offer(x, codes, np.arange(n))
    assert expert.due() == n
    replayed = np.tile(np.arange(n), SETTINGS.steps)
    request = expert.request(
        n,
        x[replayed],
        codes[replayed],
        np.zeros((len(replayed), 0), np.float32),
        drift=0.0,
        n_drifts=0,
    )
    return expert, request


def adapter() -> Adapter:
    return Adapter(SETTINGS, CompensateSettings())


def same(one: AdaptResult, other: AdaptResult) -> bool:
    names = ("phi", "anchor", "importance", "anchored")
    return all(
        np.array_equal(getattr(one.weights, name), getattr(other.weights, name)) for name in names
    )


@pytest.mark.parametrize(("kind", "inputs"), KINDS)
def test_a_request_gets_the_same_bits_alone_and_among_others(kind: str, inputs: int) -> None:
    sizes = [40, 33, 40, 200, 64] if kind == "mlp" else [40, 33, 40]
    requests = [asked(kind, inputs, key, n)[1] for key, n in enumerate(sizes)]
    together = adapter().adapt(requests)
    for request, result in zip(requests, together, strict=True):
        (alone,) = adapter().adapt([request])
        assert same(alone, result)
        assert not np.array_equal(result.weights.phi, request.weights.phi)


def test_the_inner_loop_learns_what_it_is_asked() -> None:
    expert, request = asked("mlp", 8, key=1)
    slow = shared_layers(expert.spec)
    before = expert.network(slow)
    inner = adapter()
    for _ in range(10):
        (result,) = inner.adapt([request])
        expert.take(result)
        request = replace(request, weights=expert.weights, boundary=False)
    after = expert.network(slow)
    right = [(net.logits(request.x).argmax(axis=1) == request.y).mean() for net in (before, after)]
    assert right[1] > 0.9 > right[0]
    torch_says = logits(
        expert.spec,
        slow_tensors(slow, torch.device("cpu")),
        stack(expert.spec, [expert.spec.layout.unpack(expert.weights.phi)]),
        torch.from_numpy(request.x)[None],
    )
    np.testing.assert_allclose(
        after.logits(request.x), torch_says[0, :, :3].numpy(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("kind", "inputs"), KINDS)
def test_an_expert_goes_on_to_the_bit_from_its_state(kind: str, inputs: int) -> None:
    expert, request = asked(kind, inputs, key=3)
    expert.take(adapter().adapt([request])[0])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, expert.spec.inputs)).astype(np.float32)
    codes = rng.integers(0, 3, 50).astype(np.int32)
    expert.offer(x[:20], codes[:20], 40 + np.arange(20))
    meta, arrays = expert.state()
    again = NetworkExpert.restore(meta, arrays, spec=expert.spec, key=3, settings=SETTINGS)
    results = []
    for one in (expert, again):
        one.offer(x[20:], codes[20:], 60 + np.arange(30))
        request = one.request(
            one.due(),
            x[:40].repeat(4, axis=0),
            codes[:40].repeat(4),
            np.zeros((160, 0), np.float32),
            drift=0.5,
            n_drifts=0,
        )
        results.append(adapter().adapt([request])[0])
        one.take(results[-1])
        events, said = one.said(shared_layers(one.spec))
        assert events.tolist() == list(range(40, 90))
        np.testing.assert_array_equal(said, one.network(shared_layers(one.spec)).logits(x))
    assert same(*results)
    short = arrays | {"phi": arrays["phi"][1:]}
    with pytest.raises(ValueError, match="belongs"):
        NetworkExpert.restore(meta, short, spec=expert.spec, key=3, settings=SETTINGS)


def test_new_classes_and_inputs_leave_what_was_learned() -> None:
    expert, request = asked("mlp", 8, key=4)
    expert.take(adapter().adapt([request])[0])
    was, now = expert.spec, spec("mlp", 17, classes=5)
    x = np.random.default_rng(1).normal(size=(9, was.inputs)).astype(np.float32)
    before = expert.network(shared_layers(was)).logits(x)
    expert.grow(now, 5)
    after = expert.network(shared_layers(now)).logits(moved(x, was, now))
    assert was.blocks == (16, 16) and now.blocks == (32, 16)
    np.testing.assert_allclose(after[:, :3], before, rtol=1e-4, atol=1e-4)
    assert not after[:, 3:].any()


class Counting:
    """An inner loop that changes nothing, and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def adapt(self, requests: Sequence[AdaptRequest]) -> list[AdaptResult]:
        self.calls.append(len(requests))
        return [AdaptResult(request.weights, 0.0, False) for request in requests]


def asks(times: int, answer: str) -> Learning[str]:
    _, request = asked("mlp", 8, key=5)
    for _ in range(times):
        result = yield request
        assert isinstance(result, AdaptResult)
    return answer


def test_all_that_wait_share_a_call() -> None:
    inner, ended = Counting(), list[str]()
    cohort = Cohort(lambda: inner)
    for name, times in (("a", 1), ("b", 3), ("c", 0), ("d", 2)):
        cohort.begin(name, asks(times, name), ended.append, pytest.fail)
    assert ended == ["c"] and inner.calls == []
    cohort.finish()
    assert ended == ["c", "a", "d", "b"] and inner.calls == [3, 2, 1]
    assert finish(asks(2, "alone"), lambda: inner) == "alone"


def test_a_place_has_one_learning_at_a_time_and_a_failure_is_its_own() -> None:
    inner, ended, failures = Counting(), list[str](), list[Exception]()

    def breaks() -> Learning[str]:
        yield asked("mlp", 8, key=5)[1]
        raise ZeroDivisionError

    cohort = Cohort(lambda: inner)
    cohort.begin("a", asks(1, "first"), ended.append, failures.append)
    cohort.begin("b", breaks(), ended.append, failures.append)
    cohort.begin("a", asks(1, "second"), ended.append, failures.append)
    assert ended == ["first"] and [type(f) for f in failures] == [ZeroDivisionError]
    cohort.finish()
    assert ended == ["first", "second"] and inner.calls == [2, 1]


def test_room_is_a_power_of_two() -> None:
    assert [room(n) for n in (1, 32, 33, 255, 256)] == [32, 32, 64, 256, 256]
