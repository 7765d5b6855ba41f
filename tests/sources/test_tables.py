"""Tables of all formats: the same events come out, odd cells and all, and what was told is said."""

import bz2
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from streamlearn.core.records import Frame
from streamlearn.sources import Source, open_source

HEADER = "when,pump,temp,flow,on,mode,note,serial,row,state"


def messy_csv(n: int = 300) -> str:
    """Dates, streams, missing and unreadable numbers, booleans, categories, text, ids, counters."""
    lines = [HEADER]
    for i in range(n):
        temp = ("", "NA", "n/a", "broken", "?")[i % 5] if i % 31 == 0 else f"{20 + i % 7 / 2}"
        note = f'"pump {i}, said ""hm"", line\n{i}"' if i % 50 == 0 else f"quiet day number {i * 7}"
        lines.append(
            f"2026-01-{1 + i // 24 % 28:02d}T{i % 24:02d}:00:00,{'ab'[i % 2]},{temp},{i % 9}e2,"
            f"{('yes', 'no', '')[i % 3]},{('auto', 'hand')[i % 4 == 0]},{note},SN{i:07x},{i},"
            f"{('ok', 'worn', '')[i % 10 // 8 + (i == 7) * 2]}"
        )
    return "\n".join(lines) + "\n"


def read(path: Path | str, **asked: Any) -> tuple[list[Frame], Source]:
    with open_source(path, **asked) as source:
        return list(source.frames()), source


def column(frames: list[Frame], name: str) -> list[float]:
    return [v for f in frames for v in f.numbers[:, f.columns.index(name)].tolist()]


def labels(frames: list[Frame]) -> list[Any]:
    return [label for frame in frames for label in frame.labels()]


def test_a_messy_csv_is_read_and_told_about(tmp_path: Path) -> None:
    path = tmp_path / "pumps.csv"
    path.write_text(messy_csv())
    frames, source = read(path, label="state", time="when", stream_name="all")
    said = source.inferred
    kinds = {name: str(told.kind) for name, told in said.columns.items()}
    assert kinds == {
        "pump": "category", "temp": "number", "flow": "number", "on": "boolean",
        "mode": "category", "note": "text", "serial": "ignored", "row": "ignored",
    }  # fmt: skip
    text = "\n".join(said.lines())
    assert "serial (an id: every value is new" in text
    assert "row (a number that only grows" in text
    assert "temp: 2 cells are no number, taken as missing" in text
    temp = column(frames, "temp")
    assert [np.isnan(temp[i]) for i in (0, 1, 31, 62, 93, 124)] == [1, 0, 1, 1, 1, 1]
    assert temp[1] == 20.5
    assert column(frames, "flow")[10] == 100.0
    assert column(frames, "on")[:2] == [1.0, 0.0]
    assert np.isnan(column(frames, "on")[2])
    assert labels(frames)[7:10] == [None, "worn", "worn"]
    assert frames[0].texts["note"][0] == 'pump 0, said "hm", line\n0'
    assert frames[0].event_time_s[1] - frames[0].event_time_s[0] == 3600
    assert frames[0].event_time_s[0] == pd.Timestamp("2026-01-01").timestamp()
    assert sum(map(len, frames)) == 300


def test_every_format_gives_the_same_events(tmp_path: Path) -> None:
    text = messy_csv().replace("broken", "")
    rows = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str).to_dict("records")
    lines = "\n".join(json.dumps(row) for row in rows)
    table = pa.table({name: [row[name] for row in rows] for name in HEADER.split(",")})
    files: dict[str, bytes] = {
        "plain.csv": text.encode(),
        "bom.csv": b"\xef\xbb\xbf" + text.encode(),
        "windows.csv": text.replace("\n", "\r\n").encode(),
        "packed.csv.gz": gzip.compress(text.encode()),
        "packed.csv.bz2": bz2.compress(text.encode()),
        "packed.csv.zst": zstandard.compress(text.encode()),
        "objects.jsonl": lines.encode(),
        "objects.jsonl.gz": gzip.compress(lines.encode()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pq.write_table(table, tmp_path / "rows.parquet")
    asked = {"label": "state", "stream": "pump", "time": "when"}
    expected, _ = read(tmp_path / "plain.csv", **asked)
    for name in [*files, "rows.parquet"]:
        frames, _ = read(tmp_path / name, **asked)
        assert len(frames) == len(expected), name
        for one, other in zip(frames, expected, strict=True):
            assert (one.stream, one.columns) == (other.stream, other.columns), name
            assert np.array_equal(one.numbers, other.numbers, equal_nan=True), name
            assert one.labels() == other.labels(), name
            assert np.array_equal(one.event_time_s, other.event_time_s), name
            if name != "windows.csv":  # where the line's end within quotes differs
                assert one.texts == other.texts, name


def test_typed_columns_of_parquet(tmp_path: Path) -> None:
    n = 60
    rng = np.random.default_rng(0)
    when = pd.Series(pd.to_datetime("2026-01-01") + pd.to_timedelta(rng.permutation(n), "h"))
    table = pa.table(
        {
            "f32": pa.array(rng.normal(size=n), pa.float32()),
            "i8": pa.array([None, *rng.integers(0, 9, n - 1).tolist()], pa.int8()),
            "flag": pa.array([True, False, None] * 20),
            "when": pa.array(when),
            "day": pa.array(when.dt.date),
            "dec": pa.array(["1.50"] * n).cast(pa.decimal128(9, 2)),
            "kind": pa.array(["a", "b"] * 30).dictionary_encode(),
            "list": pa.array([[1, 2]] * n),
            "raw": pa.array([b"\0"] * n),
            "empty": pa.nulls(n),
            "y": pa.array([1.0, 2.0, None] * 20),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    frames, source = read(tmp_path / "t.parquet", label="y")
    assert frames[0].columns == ("f32", "i8", "flag", "when", "day", "dec")
    assert np.isnan(frames[0].numbers[0, 1])
    assert frames[0].numbers[:3, 2].tolist()[:2] == [1.0, 0.0]
    assert column(frames, "when") == [t.timestamp() for t in when.dt.tz_localize("UTC")]
    assert column(frames, "day")[0] == when.dt.floor("D").dt.tz_localize("UTC")[0].timestamp()
    assert column(frames, "dec")[0] == 1.5
    assert frames[0].texts["kind"][:2] == ("a", "b")
    assert labels(frames)[:3] == [1, 2, None]
    assert source.inferred.of_kind(source.inferred.columns["list"].kind) == ("list", "raw")
    assert "no value so far: empty" in source.inferred.lines()
    assert source.total_rows == n
    assert source.done == 1.0


def test_json_lines_with_odd_lines_and_new_columns(tmp_path: Path) -> None:
    lines = [
        '{"a": 1, "label": "x"}', "not json", "[1, 2]", '{"a": 2.5, "b": true, "label": "y"}', "",
        '{"b": false, "c": "word", "a": null, "label": null, "nested": {"k": 1}}',
        '{"a": 99999999999999999999999999, "label": "x"}',
    ]  # fmt: skip
    (tmp_path / "odd.jsonl").write_text("\n".join(lines))
    frames, source = read(tmp_path / "odd.jsonl")
    assert labels(frames) == ["x", "y", None, "x"]
    assert column(frames, "a")[:2] == [1.0, 2.5]
    assert np.isnan(column(frames, "a")[2])
    assert column(frames, "a")[3] == 1e26
    assert column(frames, "b")[1:3] == [1.0, 0.0]
    assert frames[0].texts["c"][2] == "word"
    assert "2 lines left out: they are no record" in source.inferred.lines()
    assert source.inferred.label == "label"


def test_json_numbers_are_the_same_label_with_and_without_a_point(tmp_path: Path) -> None:
    lines = [f'{{"a": 1, "label": {label}}}' for label in ("1", "1.0", '"x"', "true", '"1"')]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines))
    assert labels(read(tmp_path / "mixed.jsonl")[0]) == ["1", "1", "x", "true", "1"]


def test_columns_named_as_the_parts_of_an_event(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(
        "event_id,event_time,label,x\nq1,10.5,a,1\nq2,11.5,b,2\nq3,13,a,3\n"
    )
    frames, _ = read(tmp_path / "e.csv")
    assert frames[0].event_ids == ("q1", "q2", "q3")
    assert frames[0].event_time_s.tolist() == [10.5, 11.5, 13.0]
    assert frames[0].columns == ("x",)
    frames, source = read(tmp_path / "e.csv", label="x", time="event_time")
    assert labels(frames) == [1, 2, 3]
    assert "label_: renamed from label" in source.inferred.lines()
    assert frames[0].texts["label_"] == ("a", "b", "a")


@pytest.mark.parametrize(
    "cells, unit, first",
    [
        (["1700000000", "1700000001"], "seconds", 1.7e9),
        (["1700000000000", "1700000001000"], "milliseconds", 1.7e9),
        (["1700000000000000", ""], "microseconds", 1.7e9),
        (["2023-11-14 22:13:20", "2023/11/14"], "ISO 8601", 1.7e9),
        (["2023-11-15T00:13:20+02:00", "2023-11-14T22:13:20Z"], "ISO 8601", 1.7e9),
    ],
)
def test_times_in_their_usual_spellings(
    tmp_path: Path, cells: list[str], unit: str, first: float
) -> None:
    (tmp_path / "t.csv").write_text("t,x,label\n" + "".join(f"{c},1,a\n" for c in cells))
    frames, source = read(tmp_path / "t.csv", time="t")
    assert frames[0].event_time_s[0] == first
    assert unit in source.inferred.time
    if cells[1] == "":  # a missing time is the one before
        assert frames[0].event_time_s[1] == first


@pytest.mark.parametrize(
    "cells, expected",
    [
        (["1", "2", "", "1.0", "nan"], [1, 2, None, 1, None]),
        (["1", "b", "007"], ["1", "b", "007"]),
        (["True", "false"], ["True", "false"]),
        (["  x ", "x"], ["x", "x"]),
        (["-1", "+3"], [-1, 3]),
    ],
)
def test_labels_as_people_write_them(tmp_path: Path, cells: list[str], expected: list[Any]) -> None:
    (tmp_path / "l.csv").write_text("x,c\n" + "".join(f"1,{c}\n" for c in cells))
    frames, _ = read(tmp_path / "l.csv", label="c")
    assert labels(frames) == expected


def test_semicolons_decimal_commas_and_thousands(tmp_path: Path) -> None:
    (tmp_path / "de.csv").write_text("a;b;label\n1,5;x;0\n-2,25;y;1\n")
    frames, _ = read(tmp_path / "de.csv")
    assert column(frames, "a") == [1.5, -2.25]
    (tmp_path / "many.csv").write_text("a;label\n1.234,5;x\n-2.000.000,25;y\n7;x\n0.5;x\n")
    frames, _ = read(tmp_path / "many.csv")
    assert column(frames, "a") == [1234.5, -2000000.25, 7.0, 0.5]
    (tmp_path / "us.csv").write_text('a,label\n"1,234.5",0\n"2,000,000",1\n+3,1\n')
    frames, _ = read(tmp_path / "us.csv")
    assert column(frames, "a") == [1234.5, 2e6, 3.0]
    (tmp_path / "share.csv").write_text("a,label\n12.5%,x\n-3 %,y\n7,x\n")
    assert column(read(tmp_path / "share.csv")[0], "a")[:3] == [12.5, -3.0, 7.0]
    (tmp_path / "tab.tsv").write_text("a\tlabel\n1\tx\n")
    assert column(read(tmp_path / "tab.tsv")[0], "a") == [1.0]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("3,19", "11,791"), (3.19, 11.791)),  # a is no number otherwise, and b is read alike
        (("", "11,791"), (None, 11791.0)),
        (("2,000,000", "11,791"), (2e6, 11791.0)),
        (("7,5 %", "-1,250"), (7.5, -1.25)),
        (("of 3, 19", "11,791"), (None, 11791.0)),  # a text with a comma says nothing
    ],
)
def test_what_a_comma_means_between_commas(
    tmp_path: Path, cells: tuple[str, str], expected: tuple[float | None, float]
) -> None:
    line = ",".join(f'"{cell}"' for cell in cells)
    (tmp_path / "c.csv").write_text("a,b,label\n" + f"{line},x\n{line},y\n")
    frames, source = read(tmp_path / "c.csv")
    if expected[0] is not None:
        assert column(frames, "a") == [expected[0]] * 2
    assert column(frames, "b") == [expected[1]] * 2
    assert ("decimal commas" in source.inferred.lines()[0]) == (expected[1] % 1 != 0)


def test_headers_that_name_twice_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text(",x,x,label\n5,1,2,a\n3,3,4,b\n")
    frames, source = read(tmp_path / "h.csv")
    assert frames[0].columns == ("column 1", "x", "x_")
    assert any("column 1, x_" in line for line in source.inferred.lines())


def test_lines_of_another_length_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("x,label\n1,a\n2\n3,b,c\n4,b\n")
    frames, source = read(tmp_path / "r.csv")
    assert column(frames, "x") == [1.0, 4.0]
    assert "2 lines left out: they are no record" in source.inferred.lines()


def test_what_is_ignored_can_be_kept_and_the_rest_ignored(tmp_path: Path) -> None:
    path = tmp_path / "pumps.csv"
    path.write_text(messy_csv())
    frames, _ = read(path, label="state", ignore=("temp", "note"), keep=("row", "serial"))
    assert frames[0].columns == ("flow", "on", "row")
    assert set(frames[0].texts) == {"pump", "mode", "serial"}


def test_a_file_longer_than_a_piece_is_read_in_pieces(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60_000, 3)).round(9)
    quoted = np.where(rng.random(60_000) < 0.01, '"two\nlines, and a ""quote"""', "plain")
    path = tmp_path / "long.csv"
    body = "".join(
        f"{a},{b},{c},{q},{i % 3}\n"
        for i, ((a, b, c), q) in enumerate(zip(values.tolist(), quoted, strict=True))
    )
    path.write_text("a,b,c,q,label\n" + body)
    assert path.stat().st_size > 2 << 20
    with open_source(path, frame_events=1000) as source:
        frames = list(source.frames())
        assert source.done == 1.0
    assert {len(frame) for frame in frames} == {1000}
    assert np.array_equal(np.concatenate([frame.numbers for frame in frames]), values)
    texts = [text for frame in frames for text in frame.texts["q"]]
    assert texts.count('two\nlines, and a "quote"') == (quoted != "plain").sum()


def test_a_lone_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    lines = [f'5" pipe {i},{i % 7}.5,{i % 2}' for i in range(101)]
    (tmp_path / "q.csv").write_text("name,x,label\n" + "\n".join(lines) + "\n")
    frames, _ = read(tmp_path / "q.csv")
    assert sum(map(len, frames)) == 101
