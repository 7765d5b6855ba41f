"""What cannot be read is refused with the rule, the value and the remedy."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamlearn.errors import InputError
from streamlearn.sources import open_source

GOOD = "temp,state\n1.5,a\n2.5,b\n"


def refused(path: Path | str, **asked: Any) -> str:
    with pytest.raises(InputError) as caught, open_source(path, **asked) as source:
        for _ in source.frames():
            pass
    return str(caught.value)


FILES: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "is empty"),
    ("blank.csv", b"\n\n \n", "holds no events"),
    ("header.csv", b"temp,state\n", "holds no events"),
    ("bare.csv", b"1,2\n3,4\n", "has no header"),
    ("latin.csv", "temp,state\n1,caf\xe9\n".encode("latin1"), "iconv"),
    ("wide.csv", GOOD.encode("utf-16"), "UTF-16"),
    ("noise.csv", b"\x00\x01\x02\x03" * 50, "neither text nor Parquet"),
    ("cut.csv.gz", gzip.compress(GOOD.encode() * 999)[:40], "cut short"),
    ("cut.parquet", b"PAR1" + b"\0" * 99, "Parquet"),
    ("list.json", b'[{"a": 1}]', "one object a line"),
    ("broken.npz", b"PK\x03\x04 no archive", "no npz archive"),
    ("lines.jsonl", b'{"a": \n{"b":\n', "holds no events"),
]


@pytest.mark.parametrize("name, content, said", FILES, ids=[name for name, _, _ in FILES])
def test_files_that_are_no_table(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path / name, label="state")
    assert said in message
    assert name in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "gone.csv")
    assert "No such file" in refused(tmp_path / "gone.npz")
    assert "holds no PNG or JPEG" in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_one_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(GOOD)
    path.chmod(0)
    assert "Permission denied" in refused(path)


@pytest.mark.parametrize("flag", ["label", "stream", "time"])
def test_a_missing_column_lists_the_columns(tmp_path: Path, flag: str) -> None:
    (tmp_path / "g.csv").write_text(GOOD)
    message = refused(tmp_path / "g.csv", **{flag: "tmp"})
    assert f"--{flag} 'tmp' is no column" in message
    assert "did you mean 'temp'?" in message
    assert "'temp', 'state'" in message


@pytest.mark.parametrize("flag", ["ignore", "keep"])
def test_a_missing_feature_lists_the_columns(tmp_path: Path, flag: str) -> None:
    (tmp_path / "g.csv").write_text(GOOD)
    assert "'temp', 'state'" in refused(tmp_path / "g.csv", **{flag: ("tmp",)})
    np.savez(tmp_path / "g.npz", X=np.zeros((9, 2)))
    assert "'x0', 'x1'" in refused(tmp_path / "g.npz", **{flag: ("tmp",)})


def test_fractions_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("x,price\n1,2.5\n2,3\n")
    assert "holds fractions, for example 2.5" in refused(tmp_path / "f.csv", label="price")
    pq.write_table(pa.table({"x": [1, 2], "p": [0.5, 1.0]}), tmp_path / "f.parquet")
    assert "holds fractions, for example 0.5" in refused(tmp_path / "f.parquet", label="p")


def test_a_time_column_without_times(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(GOOD)
    assert "holds no times, for example 'a'" in refused(tmp_path / "g.csv", time="state")


def test_nothing_left_to_learn_from(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(GOOD)
    assert "no column to learn from" in refused(tmp_path / "g.csv", label="state", ignore=("temp",))


def test_choices_that_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(GOOD)
    assert "exclude each other" in refused(tmp_path / "g.csv", stream="temp", stream_name="s")
    assert "1..4096" in refused(tmp_path / "g.csv", frame_events=5000)


ARCHIVES: list[tuple[dict[str, Any], str]] = [
    ({"data": np.zeros((3, 2))}, "has no array X; an npz holds events as X"),
    ({"X": np.zeros(3)}, "(n, d)"),
    ({"X": np.array([["a", "b"]])}, "(n, d)"),
    ({"X": np.zeros((0, 2))}, "no events"),
    ({"X": np.zeros((3, 2)), "y": np.zeros(2)}, "--label 'y'"),
    ({"X": np.zeros((3, 2)), "y": np.array([0.5, 1, 2])}, "fractions"),
    ({"X": np.zeros((3, 2)), "y": np.array([0, 1, 2]), "class_names": ["a", "b"]}, "its name"),
    ({"X": np.zeros((3, 2)), "order": np.array([0, 3])}, "order must hold row numbers"),
    ({"X": np.array([[{}]], dtype=object)}, "object arrays"),
]


@pytest.mark.parametrize("arrays, said", ARCHIVES, ids=[said for _, said in ARCHIVES])
def test_archives_that_are_no_events(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=True, **arrays)
    assert said in refused(tmp_path / "a.npz")
