"""Rows to frames of one stream: order, sizes, pipes, resuming; npz archives."""

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlearn.core.records import Frame
from streamlearn.sources import open_source
from streamlearn.sources.grouping import frames_by_stream
from streamlearn.sources.rows import Codes, Rows


def rows_of(streams: list[int], first: int, labels: list[int] | None = None) -> Rows:
    n = len(streams)
    return Rows(
        columns=("x",),
        numbers=np.arange(first, first + n, dtype=np.float64)[:, None],
        labels=np.array(labels or [-1] * n, np.int32),
        streams=np.array(streams, np.int32),
        time_s=np.zeros(n),
    )


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=30), max_size=8),
    st.integers(1, 7),
    st.booleans(),
)
def test_nothing_is_lost_and_a_streams_order_is_kept(
    batches: list[list[int]], size: int, live: bool
) -> None:
    codes = Codes()
    for name in "abcd":
        codes.stream(name)
    starts = [0, *itertools.accumulate(map(len, batches))]
    rows = [rows_of(streams, at) for streams, at in zip(batches, starts, strict=False)]
    frames = list(frames_by_stream(rows, codes, frame_events=size, live=live))
    assert all(1 <= len(frame) <= size for frame in frames)
    everything = [code for streams in batches for code in streams]
    for code, name in enumerate("abcd"):
        got = [v for f in frames if f.stream == name for v in f.numbers[:, 0].tolist()]
        assert got == [float(at) for at, stream in enumerate(everything) if stream == code]
        if not live:  # only a stream's last frame is not full
            sizes = [len(f) for f in frames if f.stream == name]
            assert all(s == size for s in sizes[:-1])


def test_turns_become_full_frames_in_the_order_of_their_last_events() -> None:
    codes = Codes()
    codes.stream("a"), codes.stream("b")
    frames = list(frames_by_stream([rows_of([0, 1] * 8, 0)], codes, frame_events=4))
    assert [(f.stream, f.numbers[:, 0].tolist()) for f in frames] == [
        ("a", [0, 2, 4, 6]), ("b", [1, 3, 5, 7]), ("a", [8, 10, 12, 14]), ("b", [9, 11, 13, 15]),
    ]  # fmt: skip


def test_many_streams_wait_within_bounds() -> None:
    codes = Codes()
    for name in range(5000):
        codes.stream(str(name))
    order = np.random.default_rng(0).integers(0, 5000, 100_000)
    batches = (rows_of(order[i : i + 8192].tolist(), i) for i in range(0, 100_000, 8192))
    behind, seen = 0, 0
    for frame in frames_by_stream(batches, codes, frame_events=256):
        seen += len(frame)
        behind = max(behind, int(frame.numbers[-1, 0]) - seen)
    assert seen == 100_000
    assert behind <= 65_536 + 8192


def test_labels_of_one_frame_have_one_type() -> None:
    codes = Codes()
    codes.stream("a")
    assert [codes.label(v) for v in (1, "x", 2)] == [0, 1, 2]
    rows = rows_of([0] * 6, 0, [0, -1, 2, 1, -1, 0])
    frames = list(frames_by_stream([rows], codes, frame_events=100))
    assert [frame.labels() for frame in frames] == [(1, None, 2), ("x", None), (1,)]


def test_frames_are_coded_in_order_of_appearance_and_frozen() -> None:
    codes = Codes()
    codes.stream("a")
    for label in "pqr":
        codes.label(label)
    (frame,) = frames_by_stream([rows_of([0] * 4, 0, [2, -1, 0, 2])], codes, frame_events=9)
    assert frame.label_values == ("r", "p")
    assert frame.label_codes.tolist() == [0, -1, 1, 0]
    with pytest.raises(ValueError, match="read-only"):
        frame.numbers[0, 0] = 1


def test_resuming_skips_exactly_what_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("s,x,label\n" + "".join(f"{i % 3},{i * 2 % 11},{i % 2}\n" for i in range(100)))

    def events(skip: int) -> list[tuple[str, float]]:
        with open_source(path, stream="s", frame_events=8) as source:
            frames = list(source.frames(skip=skip))
        return [(f.stream, v) for f in frames for v in f.numbers[:, 0].tolist()]

    for skip in (0, 1, 8, 37, 100, 500):
        assert events(skip) == events(0)[skip:]


class SlowPipe(io.RawIOBase):
    """A pipe that gives one piece a read."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.given = 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        self.given += 1
        return self.pieces.pop(0) if self.pieces else b""


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_pipe_is_passed_on_as_it_comes(kind: str) -> None:
    if kind == "csv":
        pieces = [b"x,label\n1,a\n", b"2,b\n3,", b"a\n"]
    else:
        pieces = [b'{"x":1,"label":"a"}\n', b'{"x":2,"label":"b"}\n{"x":3,', b'"label":"a"}\n']
    pipe: Any = SlowPipe(pieces)
    with open_source("-", stdin=pipe) as source:
        frames = source.frames()
        assert next(frames).numbers.tolist() == [[1.0]]
        assert pipe.given == 1  # it did not wait for more
        assert next(frames).numbers.tolist() == [[2.0]]
        assert next(frames).numbers.tolist() == [[3.0]]
        assert next(frames, None) is None
        assert source.done is None
    assert source.inferred.stream == "all events are of 'stdin'"


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def npz_frames(path: Path, **asked: Any) -> list[Frame]:
    with open_source(path, **asked) as source:
        return list(source.frames())


def numbers(frames: list[Frame]) -> NDArray[np.float64]:
    return np.concatenate([frame.numbers for frame in frames])


def test_npz_with_names_order_and_streams(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3)).astype(np.float32)
    X[4, 1], X[5, 1] = np.nan, np.inf
    y = rng.integers(0, 2, 50)
    y[7] = -1
    order = rng.permutation(50)
    stream = np.array(["left", "right"])[rng.integers(0, 2, 50)]
    path = save(
        tmp_path / "z.npz", X=X, y=y, order=order, stream=stream,
        feature_names=["a", "b", "c"], class_names=["no", "yes"],
    )  # fmt: skip
    frames = npz_frames(path)
    assert {frame.stream for frame in frames} == {"left", "right"}
    for side in ("left", "right"):
        at = order[stream[order] == side]
        mine = [frame for frame in frames if frame.stream == side]
        expected = np.where(np.isfinite(X[at]), X[at], np.nan)
        assert np.array_equal(numbers(mine), expected, equal_nan=True)
        labels = [None if code < 0 else ("no", "yes")[code] for code in y[at].tolist()]
        assert [one for frame in mine for one in frame.labels()] == labels
        assert mine[0].event_time_s.tolist() == np.flatnonzero(stream[order] == side).tolist()
    assert frames[0].columns == ("a", "b", "c")


def test_npz_grids_are_flattened_and_a_counter_is_left_out(tmp_path: Path) -> None:
    X = np.random.default_rng(1).integers(0, 255, (80, 4, 4), dtype=np.uint8)
    path = save(tmp_path / "i.npz", X=X, y=np.arange(80) % 3)
    frames = npz_frames(path)
    assert np.array_equal(numbers(frames), X.reshape(80, 16))
    assert frames[0].columns[0] == "x0"
    assert set(frames[0].label_values) == {0, 1, 2}
    X = np.stack([np.arange(80), np.arange(80) % 7], axis=1)
    path = save(tmp_path / "c.npz", X=X, y=np.arange(80) % 3, subject=np.arange(80) // 40)
    assert npz_frames(path)[0].columns == ("x1",)
    assert npz_frames(path, keep=("x0",))[0].columns == ("x0", "x1")
    by_subject = npz_frames(path, stream="subject")
    assert [(f.stream, len(f)) for f in by_subject] == [("0", 40), ("1", 40)]


def test_the_shared_streams_are_read(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("watch_imu/data.npz")
    with open_source(path) as source:
        frames = list(source.frames())
    assert frames[0].stream == "watch_imu"
    with np.load(path) as arrays:
        order, X, y, names = (arrays[k] for k in ("order", "X", "y", "class_names"))
    assert np.array_equal(numbers(frames), X[order].astype(np.float64))
    assert [v for f in frames for v in f.labels()] == names[y[order]].tolist()


def test_the_shared_news_are_read(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("huffpost_10k/data.csv.gz")
    with open_source(path, label="label", time="t") as source:
        frames: Iterator[Frame] = source.frames()
        first = next(frames)
        n = len(first) + sum(len(frame) for frame in frames)
    assert n == 10_000
    assert first.texts["title"][0].startswith("'Ant-Man And The Wasp'")  # type: ignore[union-attr]
    assert first.labels()[:2] == ("ENTERTAINMENT", "POLITICS")
    assert first.event_time_s[0] == 1525132800.0
