"""The nearest events against distances of all to all, in float64."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.neighbours import (
    DOUBT,
    MOST_BYTES,
    NEAREST,
    SHARPNESS,
    STEPS,
    Neighbours,
    ring_size,
)

START, INPUTS, CLASSES = 3, 4, 3


def events(n: int, seed: int = 0, d: int = INPUTS) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Features, z behind START others, some of them the same; and classes."""
    rng = np.random.default_rng([seed, n])
    features = rng.normal(size=(n, START + d + 1)).astype(np.float32)
    features[::7] = features[:1]
    features[5:9, START:] = 5.0  # z is clipped there
    return features, rng.integers(0, CLASSES, n).astype(np.int32)


def ring(size: int, d: int = INPUTS) -> Neighbours:
    return Neighbours.of(np.zeros((0, 0), np.int8), np.zeros(0, np.int32)).resized(0, size, d)


def slowly(
    asked: NDArray[np.float32], kept: NDArray[np.float32], codes: NDArray[np.int32]
) -> NDArray[np.float64]:
    """(n, C) as the docstrings say it."""
    out = np.full((len(asked), CLASSES), DOUBT / CLASSES)
    rows = np.rint(kept[:, START : START + INPUTS].astype(float) * STEPS)
    for i, row in enumerate(asked):
        z = np.rint(row[START : START + INPUTS].astype(float) * STEPS)
        far = ((rows - z) ** 2).sum(axis=1)
        if len(far):
            last = np.sort(far)[:NEAREST][-1]
            weights = np.where(far <= last, np.exp(-SHARPNESS * far / max(last, 1.0)), 0.0)
            np.add.at(out[i], codes, weights)
    return out / out.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n", [0, 1, 3, 40, 64, 150])
def test_the_last_events_answer(n: int) -> None:
    size = 64
    features, codes = events(n, seed=1)
    one, step = ring(size), ring(size)
    for i in range(n):
        one.learn(features[i : i + 1], START, codes[i : i + 1], i)
    step.learn(features[: n // 2], START, codes[: n // 2], 0)
    step.learn(features[n // 2 :], START, codes[n // 2 :], n // 2)
    np.testing.assert_array_equal(one.live, step.live)
    np.testing.assert_array_equal(one.codes, step.codes)
    asked = np.concatenate([events(30, seed=2)[0], features[-3:]])
    expected = slowly(asked, features[-size:], codes[-size:])
    np.testing.assert_allclose(one.predict(asked, START, CLASSES), expected, rtol=1e-6)
    again = Neighbours.restore(one.tensors(), INPUTS, CLASSES)
    np.testing.assert_array_equal(again.live, one.live)


def test_bits_do_not_depend_on_who_else_is_asked_about() -> None:
    """Sums of whole numbers are exact, in the largest products too."""
    for d in (4, 256):
        kept = ring(64, d)
        features, codes = events(64, seed=3, d=d)
        kept.learn(np.clip(features * 9, -5, 5), START, codes, 0)
        asked = np.clip(events(33, seed=4, d=d)[0] * 9, -5, 5)
        whole = kept.predict(asked, START, CLASSES)
        alone = [kept.predict(row[None].copy(), START, CLASSES)[0] for row in asked]
        np.testing.assert_array_equal(whole, np.array(alone))


def test_a_ring_of_another_size_holds_the_newest() -> None:
    features, codes = events(100, seed=5)
    for size in (16, 128):
        kept = ring(64)
        kept.learn(features, START, codes, 0)
        other = kept.resized(100, size, INPUTS)
        held = min(size, 64)
        asked = events(20, seed=6)[0]
        expected = slowly(asked, features[-held:], codes[-held:])
        np.testing.assert_allclose(other.predict(asked, START, CLASSES), expected, rtol=1e-6)
        other.learn(features[:5], START, codes[:5], 100)
        both = np.concatenate([features, features[:5]]), np.concatenate([codes, codes[:5]])
        held = min(size, 69)
        expected = slowly(asked, both[0][-held:], both[1][-held:])
        np.testing.assert_allclose(other.predict(asked, START, CLASSES), expected, rtol=1e-6)


def test_the_ring_is_bounded() -> None:
    assert [ring_size(1024, n, 8) for n in (0, 33, 5000)] == [32, 64, 1024]
    assert ring_size(1024, 5000, 256) * 256 == MOST_BYTES
    assert ring_size(10, 5000, 8) == 10


@pytest.mark.parametrize("wrong", ["code", "inputs", "dtype"])
def test_what_does_not_fit_is_refused(wrong: str) -> None:
    tensors = ring(32).tensors()
    if wrong == "code":
        tensors["neighbours/codes"][3] = CLASSES
    if wrong == "dtype":
        tensors["neighbours/rows"] = tensors["neighbours/rows"].astype(np.float32)
    with pytest.raises(ValueError, match="neighbours"):
        Neighbours.restore(tensors, INPUTS + (wrong == "inputs"), CLASSES)
