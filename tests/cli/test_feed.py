"""`streamlearn feed` against a real broker: what it says, and what a mistake costs."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from streamlearn.config import KafkaConfig
from streamlearn.core.records import Frame
from streamlearn.runtime.broker import free_port
from streamlearn.topics import Topics
from streamlearn.wire import event_codec
from tests.wire.pictures import file_of

PUMPS = "pump,temp,state,at\n" + "".join(
    f"{'ab'[i % 2]},{i}.5,{'ok' if i % 3 else 'leak'},{i * 0.01}\n" for i in range(20)
)

Run = Callable[..., int]


@pytest.fixture
def pumps(tmp_path: Path) -> str:
    path = tmp_path / "pumps.csv"
    path.write_text(PUMPS)
    return str(path)


def fed(kafka: KafkaConfig, topics: Topics) -> list[Frame]:
    """All frames on the topic, in each stream's order."""
    topic = topics["events"].full_name
    consumer = Consumer(
        kafka.client_settings() | {"group.id": "t", "enable.partition.eof": True, "log_level": 0}
    )
    frames, ended = [], set[int | None]()
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(4)])
        while len(ended) < 4:
            message = consumer.poll(10.0)
            assert message is not None, "the topic did not answer"
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(message.partition())
                continue
            frames.append(event_codec.decode(message.value(), message.key(), None, 0.0)[0])
    finally:
        consumer.close()
    return frames


def temps(frames: list[Frame], stream: str) -> list[float]:
    return [t for f in frames if f.stream == stream for t in f.numbers[:, 0].tolist()]


def test_a_file_is_fed_and_accounted_for(
    run: Run,
    at: list[str],
    pumps: str,
    kafka: KafkaConfig,
    topics: Topics,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--label", "state", "--stream", "pump", "--time", "at", "--frame", "4"]
    assert run("feed", pumps, *options, "--json", *at) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out.splitlines()[-1])
    assert said | {"seconds": 0} == {
        "sent": 20,
        "acknowledged": 20,
        "frames": 6,
        "seconds": 0,
        "next_skip": 20,
    }
    assert "sent 20 events in 6 frames, 20 acknowledged" in shown.err
    assert "label: state" in shown.err and "number: temp" in shown.err
    frames = fed(kafka, topics)
    assert temps(frames, "a") == [i + 0.5 for i in range(0, 20, 2)]
    assert temps(frames, "b") == [i + 0.5 for i in range(1, 20, 2)]
    assert {f.columns for f in frames} == {("temp",)}
    first = next(f for f in frames if f.stream == "a")
    assert first.event_time_s.tolist() == pytest.approx([0.0, 0.02, 0.04, 0.06])
    assert first.labels() == ("leak", "ok", "ok", "leak")


def test_it_goes_on_where_it_stopped(
    run: Run, at: list[str], pumps: str, kafka: KafkaConfig, topics: Topics
) -> None:
    options = ["--label", "state", "--stream-name", "pump", "--skip", "15", "--rate", "1000/s"]
    assert run("feed", pumps, *options, *at) == 0
    [frame] = fed(kafka, topics)
    assert temps([frame], "pump") == [15.5, 16.5, 17.5, 18.5, 19.5]
    assert frame.event_time_s.min() > 1.6e9  # no --time: when it was sent


def test_a_header_with_brackets_and_columns_left_out_or_kept(
    run: Run, at: list[str], tmp_path: Path, kafka: KafkaConfig, topics: Topics,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = "".join(f"{i % 7},{i},{i % 3},{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "odd.csv").write_text("temp [mm],count,x [/red],label\n" + rows)
    options = ["--keep", "count", "--ignore", "x [/red]", "--stream-name", "s [bold]"]
    assert run("feed", str(tmp_path / "odd.csv"), *options, *at) == 0
    said = capsys.readouterr().err
    assert "number: temp [mm], count" in said and "ignored: x [/red]" in said
    assert "time: when it is sent" in said and "[bold]" in said
    [frame] = fed(kafka, topics)
    assert frame.stream == "s [bold]" and frame.columns == ("temp [mm]", "count")


def test_a_folder_of_images_is_fed(
    run: Run,
    at: list[str],
    tmp_path: Path,
    kafka: KafkaConfig,
    topics: Topics,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(6):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(np.full((9, 9), number, np.uint8)))
    (tmp_path / "pets" / "cat" / "9.png").write_bytes(b"none")
    assert run("feed", str(tmp_path / "pets"), *at) == 0
    said = capsys.readouterr().err
    assert "image: image" in said and "image: 1 rows left out" in said
    [frame] = fed(kafka, topics)
    assert frame.stream == "pets" and frame.labels() == ("cat", "dog") * 3
    assert frame.images["image"].pixels[:, 0, 0].tolist() == list(range(6))
    assert frame.event_ids[5] == "dog/5.png"


def test_a_pipe_and_the_events_own_pace(
    run: Run,
    at: list[str],
    kafka: KafkaConfig,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(PUMPS.encode())))
    )
    options = ["--label", "state", "--stream-name", "p", "--time", "at", "--rate", "realtime"]
    assert run("feed", "-", *options, *at) == 0
    assert temps(fed(kafka, topics), "p") == [i + 0.5 for i in range(20)]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--label", "stat"], "state"),
        (["--rate", "fast"], "200/s"),
        (["--rate", "realtime"], "--time"),
        (["--stream", "pump", "--stream-name", "x"], "exclude"),
        (["--frame", "5000"], "4096"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message_and_exit_code_2(
    run: Run,
    pumps: str,
    options: list[str],
    remedy: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("feed", pumps, *options) == 2
    shown = capsys.readouterr().err
    assert remedy in shown and "Traceback" not in shown


def test_no_broker_is_exit_code_1(
    run: Run, pumps: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streamlearn.runtime.feeder.CONNECT_TIMEOUT_S", 0.5)
    assert run("feed", pumps, "--bootstrap", f"127.0.0.1:{free_port()}") == 1
    assert "streamlearn broker" in capsys.readouterr().err


def test_no_file_is_exit_code_2(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("feed", "/no/such.csv", "--bootstrap", "127.0.0.1:1") == 2
    assert "/no/such.csv" in capsys.readouterr().err
