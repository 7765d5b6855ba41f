"""Encodings of images and texts: what micro-clusters form by where numbers don't say it all."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.encodings import DIRECTIONS, Encodings
from streamlearn.core.features import draw_slow, slow_size
from streamlearn.core.learner import LearnerState, StreamLearner
from streamlearn.core.microclusters import MicroClusters
from streamlearn.core.recall import held_out
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.rehearsal import _HELD_KEY, Rehearsal
from streamlearn.core.reservoir import UniformReservoir, stream_key
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.text import hashed_grams
from streamlearn.core.vision import Vision

SETTINGS = LearnerSettings(random_features=16, step_events=32, network="off", reservoir_per_class=5)
SLOW = draw_slow(0, 16, len(SETTINGS.half_lives), slow_size(0), images=True)
N = 320


def pictures(n: int = N, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Bars that lie (class 0), stand or lean (class 1), on noise."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(2, size=n).astype(np.int32)
    codes[:2] = 0, 1  # as a learner numbers them
    pixels = rng.integers(0, 40, size=(n, 28, 28)).astype(np.uint8)
    for i, code in enumerate(codes.tolist()):
        at = int(rng.integers(8, 18))
        if code == 0:
            pixels[i, at : at + 3, 3:25] = 220
        elif rng.random() < 0.5:
            pixels[i, 3:25, at : at + 3] = 220
        else:
            for row in range(3, 25):
                pixels[i, row, row : row + 3] = 220
    return pixels, codes


def stream(
    codes: NDArray[np.int32], numbers: NDArray[np.float64] | None = None, **more: Any
) -> Frame:
    rows = np.zeros((len(codes), 0)) if numbers is None else numbers
    names = tuple(f"x{j}" for j in range(rows.shape[1]))
    return Frame("s", names, rows, codes, ("a", "b"), np.arange(float(len(codes))), **more)


def learned(frame: Frame, size: int = 64, settings: LearnerSettings = SETTINGS) -> StreamLearner:
    learner = StreamLearner("s", settings)
    for start in range(0, len(frame), size):
        learner.learn(frame.rows(start, min(start + size, len(frame))))
    return learner


def mixed_by_hand(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n, 32) the plain product, in doubles."""
    seen = Vision(SLOW.tensors).see([ImageColumn.of(pixels)], len(pixels))
    return seen.astype(np.float64) @ SLOW.tensors["image/mix"].astype(np.float64)


def hashed_by_hand(text: str, seed: int) -> NDArray[np.float64]:
    """(32,) of a text in column "note", gram after gram, in whole numbers."""
    grams = hashed_grams({"note": (text,)})
    mask, found, squares = (1 << 64) - 1, np.zeros(DIRECTIONS), 0.0
    for bucket, count in zip(grams.indices.tolist(), grams.data.tolist(), strict=True):
        bits = (seed + bucket * 0x9E3779B97F4A7C15) & mask
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & mask
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & mask
        bits ^= bits >> 31
        value = 1.0 + np.log(count)
        squares += value**2
        found[bits % DIRECTIONS] += value if bits >> 63 else -value
    return found / np.sqrt(squares)


def as_bytes(state: LearnerState) -> dict[str, Any]:
    return {"meta": state.meta, **{name: a.tobytes() for name, a in state.arrays.items()}}


def offered(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Codes without the events that are held out."""
    rank = np.array([np.sum(codes[: i + 1] == code) for i, code in enumerate(codes)])
    key = stream_key(SETTINGS.seed, "s") ^ _HELD_KEY
    held = held_out(np.arange(len(codes)), key=key) & (rank > SETTINGS.reservoir_per_class)
    assert held.any()
    return np.where(held, -1, codes).astype(np.int32)


@pytest.mark.parametrize("size", [32, 64, 320])
def test_clusters_of_images_are_those_of_their_encodings_offered_by_hand(size: int) -> None:
    pixels, codes = pictures()
    learner = learned(stream(codes, images={"photo": ImageColumn.of(pixels)}), size)
    events = np.arange(N)
    by_hand = MicroClusters(capacity=5)
    by_hand.offer(mixed_by_hand(pixels), offered(codes), events, events.astype(np.float64))
    expected, found = by_hand.kept(), learner.rehearsal.clusters.kept()
    assert found.event.tolist() == expected.event.tolist()
    assert found.weights.tolist() == expected.weights.tolist() and found.weights.max() > 5
    np.testing.assert_allclose(found.rows, expected.rows, rtol=1e-4, atol=1e-4)


def test_an_events_encoding_has_the_same_bits_alone_and_among_others() -> None:
    pixels, _ = pictures(50)
    there = np.arange(50) % 7 > 0
    seen = Vision(SLOW.tensors).see([ImageColumn.of(pixels, there)], 50)
    words = {"note": tuple(f"event {i} says nothing new" if i % 5 else None for i in range(50))}
    encodings = Encodings(texts=True, n_images=1)
    together = encodings.of(50, seen, SLOW, hashed_grams(words), 3)
    for i in range(50):
        said = hashed_grams({"note": words["note"][i : i + 1]})
        alone = encodings.of(1, seen[i : i + 1], SLOW, said, 3)
        np.testing.assert_array_equal(alone[0], together[i])
        text, image = np.split(together[i], 2)
        assert np.isnan(text).all() == (i % 5 == 0) and np.isnan(image).all() == (i % 7 == 0)
    np.testing.assert_allclose(
        together[there, 32:], mixed_by_hand(pixels)[there], rtol=1e-4, atol=1e-4
    )
    text = words["note"][8]
    assert text is not None
    np.testing.assert_allclose(together[8, :32], hashed_by_hand(text, 3), rtol=1e-12, atol=1e-12)


def lines(n: int = N) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """What machines say, of few patterns."""
    rng = np.random.default_rng(1)
    kind = rng.integers(3, size=n)
    kind[:2] = 0, 2
    said = (
        "connection from host h{} was refused after {} ms",
        "disk {} is full, {} blocks are left",
        "user u{} has logged in from terminal {}",
    )
    words = tuple(said[k].format(*rng.integers(9000, size=2)) for k in kind)
    return words, (kind == 2).astype(np.int32)


@pytest.mark.parametrize("size", [32, 64, 320])
def test_clusters_of_texts_are_those_of_their_encodings_offered_by_hand(size: int) -> None:
    words, codes = lines()
    learner = learned(stream(codes, texts={"note": words}), size)
    events = np.arange(N)
    by_hand = MicroClusters(capacity=5)
    rows = np.stack([hashed_by_hand(text, SETTINGS.seed) for text in words])
    later = np.where(events < 16, -1, offered(codes)).astype(np.int32)
    by_hand.offer(rows, later, events, events.astype(np.float64))  # before, no texts were known
    expected, found = by_hand.kept(), learner.rehearsal.clusters.kept()
    assert found.event.tolist() == expected.event.tolist()
    assert found.weights.tolist() == expected.weights.tolist() and found.weights.max() > 5
    np.testing.assert_allclose(found.rows, expected.rows, atol=1e-12)
    assert learner.rehearsal.trusted == "uniform"  # nothing is replayed of them


def test_any_frames_and_stops_leave_the_same_bits() -> None:
    """Frames of whole steps; stopped and restored after each, and not."""
    pixels, codes = pictures()
    words, _ = lines()
    frames = (
        stream(codes, images={"photo": ImageColumn.of(pixels, np.arange(N) % 9 > 0)}),
        stream(codes, texts={"note": words}),
        stream(codes, np.random.default_rng(2).normal(size=(N, 2)),
               images={"photo": ImageColumn.of(pixels, np.arange(N) > 99)}),
    )  # fmt: skip
    for frame in frames:
        one, other = learned(frame, 64), StreamLearner("s", SETTINGS)
        for start in range(0, N, 64):
            other = StreamLearner.restore(other.state(), SETTINGS)
            other.learn(frame.rows(start, start + 64))
        assert as_bytes(one.state()) == as_bytes(other.state())
        wide = learned(frame.rows(0, 64), 64)
        wide.learn(frame.rows(64, N))
        mine, theirs = one.rehearsal.state()[1], wide.rehearsal.state()[1]
        assert all(np.array_equal(mine[n], theirs[n], equal_nan=True) for n in mine)


def test_columns_of_any_kind_may_come_at_any_time() -> None:
    """Numbers, then images, then more numbers, then other images: a row is its event's own."""
    pixels, codes = pictures()
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(N, 4))
    at = np.arange(N)
    numbers[at < 192, 2:] = np.nan
    shown = {
        "photo": ImageColumn.of(pixels, (at >= 64) & (at % 5 > 0)),
        "scan": ImageColumn.of(pixels[::-1].copy(), at >= 256),
    }
    learner = StreamLearner("s", SETTINGS)
    for start in range(0, N, 64):
        part = stream(codes, numbers, images=shown).rows(start, start + 64)
        if start < 192:
            part = replace(part, columns=("x0", "x1"), numbers=part.numbers[:, :2])
        part = replace(part, images={n: c for n, c in part.images.items() if c.present.any()})
        learner.learn(part)
    names = learner._schema.inputs.number_names
    n_inputs = len(learner._schema.inputs)
    assert set(names) == {"x0", "x1", "x2", "x3"}
    assert learner._memory.encodings == Encodings(n_images=2)
    members = [learner.rehearsal.clusters.members(), learner.rehearsal.uniform.kept()]
    for kept in [*members, learner.rehearsal.held.kept()]:
        assert kept.rows.shape[1] == n_inputs + 2 * DIRECTIONS
        assert len(kept.event) > 5
        own = kept.rows[:, :n_inputs][:, learner._schema.inputs.numbers]
        theirs = numbers[kept.event][:, [int(name[1:]) for name in names]]
        np.testing.assert_array_equal(own, theirs)
        for k, column in enumerate(shown.values()):
            own = kept.rows[:, n_inputs + k * DIRECTIONS : n_inputs + (k + 1) * DIRECTIONS]
            known = column.present[kept.event]
            assert np.isnan(own[~known]).all()
            by_hand = mixed_by_hand(column.pixels[kept.event[known]])
            np.testing.assert_allclose(own[known], by_hand, rtol=1e-4, atol=1e-4)


def test_blocks_weigh_as_much_as_all_numbers_and_texts_only_alone() -> None:
    spread = np.array([2.0, 4.0])
    both = Encodings(texts=True, n_images=1).scale(spread, numbers=True)
    assert both[:2].tolist() == [2.0, 4.0] and not both[2:34].any()
    assert (both[34:] ** 2).sum() == pytest.approx(2.0)
    alone = Encodings(texts=True).scale(spread, numbers=False)  # beside two categories' inputs
    assert (alone[2:] ** 2).mean() == pytest.approx(2.0)
    assert Encodings().scale(spread, numbers=True).tolist() == spread.tolist()
    assert Encodings(n_images=1).grown(texts=True, n_images=2) == Encodings(n_images=2)
    assert Encodings(texts=True).grown(texts=False, n_images=1) == Encodings(True, 1)


def test_a_stream_of_numbers_has_no_encodings_whatever_it_says_beside_them() -> None:
    words, codes = lines()
    numbers = np.random.default_rng(4).normal(size=(N, 2))
    state = learned(stream(codes, numbers, texts={"note": words})).state()
    assert state.meta["format"] == 5
    assert "encodings" not in state.meta and "n_numbers" not in state.meta["rehearsal"]
    assert state.arrays["rehearsal/microclusters/centres"].shape[1] == 2


def before_encodings(state: LearnerState, n_numbers: int) -> LearnerState:
    """As a program without encodings would have written it."""
    assert state.meta["format"] == 6
    meta = {k: v for k, v in state.meta.items() if k != "encodings"} | {"format": 5}
    meta["rehearsal"] = {k: v for k, v in meta["rehearsal"].items() if k != "n_numbers"}
    wide = ("centres", "errors", "members", "rows")
    arrays = {
        name: array[:, :n_numbers]
        if name.startswith("rehearsal/") and name.endswith(wide)
        else array[:n_numbers]
        if name == "rehearsal/microclusters/scale"
        else array
        for name, array in state.arrays.items()
    }
    return LearnerState(meta, arrays)


def test_a_state_without_encodings_gets_those_of_the_images_that_it_keeps() -> None:
    pixels, codes = pictures()
    shown = {"photo": ImageColumn.of(pixels)}
    one = learned(stream(codes, images=shown))
    old = StreamLearner.restore(before_encodings(one.state(), 0), SETTINGS)
    kept = old.rehearsal.uniform.kept()
    np.testing.assert_array_equal(kept.rows, one.rehearsal.uniform.kept().rows)
    assert not len(old.rehearsal.clusters.kept().codes)  # formed by nothing: they begin anew
    assert not len(old.rehearsal.held.kept().codes)
    old.learn(
        stream(
            *[pictures(64, seed=5)[1]], images={"photo": ImageColumn.of(pictures(64, seed=5)[0])}
        )
    )
    new = old.rehearsal.clusters.members()
    assert (new.event >= N).all() and not np.isnan(new.rows).any()
    assert as_bytes(StreamLearner.restore(old.state(), SETTINGS).state()) == as_bytes(old.state())


def test_a_state_of_numbers_and_images_without_encodings_keeps_its_clusters() -> None:
    pixels, codes = pictures()
    numbers = np.random.default_rng(6).normal(size=(N, 2))
    one = learned(stream(codes, numbers, images={"photo": ImageColumn.of(pixels)}))
    old = StreamLearner.restore(before_encodings(one.state(), 2), SETTINGS)
    for kept in (old.rehearsal.clusters.kept(), old.rehearsal.clusters.members()):
        np.testing.assert_allclose(
            kept.rows[:, 2:], mixed_by_hand(pixels[kept.event]), rtol=1e-4, atol=1e-4
        )
    before, after = one.rehearsal.clusters.kept(), old.rehearsal.clusters.kept()
    np.testing.assert_array_equal(before.rows[:, :2], after.rows[:, :2])
    assert before.weights.tolist() == after.weights.tolist()


def test_encodings_of_another_version_are_made_anew_and_centres_go_along() -> None:
    pixels, codes = pictures()
    one = learned(stream(codes, images={"photo": ImageColumn.of(pixels)}))
    state = one.state()
    assert state.meta["encodings"]["version"].startswith("1/")
    meta = {**state.meta, "encodings": {**state.meta["encodings"], "version": "0/theirs"}}
    theirs = {
        name: array + 7.0
        if name.startswith("rehearsal/") and name.endswith(("centres", "members", "rows"))
        else array
        for name, array in state.arrays.items()
    }
    again = StreamLearner.restore(LearnerState(meta, theirs), SETTINGS)
    for kept in ("kept", "members"):
        before = getattr(one.rehearsal.clusters, kept)()
        after = getattr(again.rehearsal.clusters, kept)()
        np.testing.assert_allclose(after.rows, before.rows, atol=1e-9)
        assert before.weights.tolist() == after.weights.tolist()
    np.testing.assert_array_equal(
        again.rehearsal.uniform.kept().rows, one.rehearsal.uniform.kept().rows
    )


def test_texts_of_another_version_begin_anew() -> None:
    words, codes = lines()
    state = learned(stream(codes, texts={"note": words})).state()
    meta = {**state.meta, "encodings": {**state.meta["encodings"], "version": "0/theirs"}}
    again = StreamLearner.restore(LearnerState(meta, state.arrays), SETTINGS)
    assert not len(again.rehearsal.clusters.kept().codes)
    again.learn(stream(codes, texts={"note": words}))
    assert (again.rehearsal.clusters.members().event >= N).all()


def test_room_before_a_column_that_is_not_there_yet_comes_by_itself() -> None:
    rows, codes, events = np.ones((3, 2)), np.zeros(3, np.int32), np.arange(3)
    samples = MicroClusters(capacity=2), UniformReservoir(capacity=2, key=0)
    for sample in samples:
        sample.offer(rows, codes, events, np.zeros(3))
        sample.insert(2, 3)
        assert sample.members().rows.shape[1] == 2
        sample.insert(1, 3)
        assert np.isnan(sample.members().rows[0]).tolist() == [False, True, True, True, False]
    rehearsal = Rehearsal(capacity=2, key=0)
    scale = np.ones(3)
    rehearsal.offer(rows, codes, events, np.zeros(3), scale, encoded=np.full((3, 1), 5.0))
    wider = np.full((3, 4), 2.0)
    rehearsal.offer(wider, codes, 3 + events, np.zeros(3), np.ones(5), encoded=np.full((3, 1), 5.0))
    kept = rehearsal.clusters.members()
    assert (kept.rows[:, 4] == 5.0).all() and (kept.rows[:, 0] <= 2.0).all()
