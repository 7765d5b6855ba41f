"""`streamlearn subscribe` against a real broker and models that were published there."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import diff
from streamlearn.topics import Topics
from streamlearn.wire import update_codec

Run = Callable[..., int]


def learned(stream: str) -> Model:
    """A model that tells "up" from "down" by the sign of a."""
    rng = np.random.default_rng(0)
    learner = StreamLearner(stream, LearnerSettings(random_features=8, step_events=8))
    for _ in range(4):
        x = rng.normal(size=(32, 2))
        learner.learn(
            Frame(
                stream=stream,
                columns=("a", "b"),
                numbers=x,
                label_codes=(x[:, 0] > 0).astype(np.int32),
                label_values=("down", "up"),
                event_time_s=np.zeros(32),
            )
        )
    return learner.model()


def publish(kafka: KafkaConfig, topics: Topics, *models: Model) -> None:
    producer = Producer(kafka.client_settings() | {"log_level": 0})
    for model in models:
        messages = [("slow", m) for m in update_codec.encode_slow(model.slow)]
        update = update_codec.encode(
            diff(None, model), epoch=3, source_partition=0, source_offset=0
        )
        for name, (key, value, headers) in [*messages, *(("updates", m) for m in update)]:
            topic = topics[name].full_name
            producer.produce(topic, value, key, partition=0, headers=[*headers])
    assert producer.flush(10) == 0


@pytest.fixture(scope="module")
def model() -> Model:
    return learned("boiler")


def test_models_are_shown(
    run: Run,
    at: list[str],
    kafka: KafkaConfig,
    topics: Topics,
    model: Model,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("subscribe", *at) == 0
    assert "no model has been published" in capsys.readouterr().out
    publish(kafka, topics, model, learned("pump"))
    assert run("subscribe", *at) == 0
    shown = capsys.readouterr().out
    assert "boiler" in shown and "pump" in shown and model.hash[:12] in shown
    assert run("subscribe", "--stream", "boiler", "--json", *at) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["streams"].keys() == {"boiler"}
    about = said["streams"]["boiler"]
    assert (about["version"], about["epoch"], about["hash"]) == (4, 3, model.hash)
    assert set(about["classes"]) == {"up", "down"} and about["columns"] == ["a", "b"]


def test_a_file_is_predicted(
    run: Run,
    at: list[str],
    kafka: KafkaConfig,
    topics: Topics,
    model: Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(kafka, topics, model)
    file = tmp_path / "new.csv"
    file.write_text("b,a,label\n0.5,3.0,up\n0.1,-2.5,down\n-1,2.0,down\n")
    assert run("subscribe", "--predict", str(file), *at) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["up", "down", "up"]
    assert "3 events predicted; right for 2 of 3" in shown.err
    assert run("subscribe", "--stream", "boiler", "--predict", str(file), "--json", *at) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["predicted"] for line in lines] == ["up", "down", "up"]
    assert all(
        sum(line["probabilities"].values()) == pytest.approx(1.0, abs=1e-3) for line in lines
    )


def test_mistakes_are_exit_code_2(
    run: Run,
    at: list[str],
    kafka: KafkaConfig,
    topics: Topics,
    model: Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(kafka, topics, model, learned("pump"))
    file = tmp_path / "new.csv"
    file.write_text("a,b\n1,2\n")
    other = tmp_path / "other.csv"
    other.write_text("c,d,label\n1,2,up\n")
    for arguments, remedy in (
        (["--metrics-port", "0"], "give that, too"),
        (["--image", "a"], "--predict"),
        (["--predict", str(other), "--stream", "pump"], "model of 'pump' reads: a, b"),
        (["--stream", "boilr"], "did you mean 'boiler'"),
        (["--predict", str(file)], "needs --stream"),
        (["--predict", str(file), "--follow"], "give one of them"),
        (["--predict", "/no/such.csv", "--stream", "pump"], "/no/such.csv"),
    ):
        assert run("subscribe", *arguments, *at) == 2
        shown = capsys.readouterr().err
        assert remedy in shown and "Traceback" not in shown


def test_topics_that_are_not_there_are_exit_code_1(
    run: Run, bootstrap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("subscribe", "--bootstrap", bootstrap, "--prefix", "no.such.") == 1
    assert "streamlearn topics apply" in capsys.readouterr().err


def test_new_versions_are_followed_until_it_is_stopped(
    at: list[str], kafka: KafkaConfig, topics: Topics, model: Model
) -> None:
    command = [sys.executable, "-m", "streamlearn", "subscribe", "--follow", "--json", *at]
    with subprocess.Popen(
        [*command, "--metrics-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        where = process.stderr.readline()
        assert json.loads(process.stdout.readline()) == {"kind": "ready", "versions": {}}
        publish(kafka, topics, model)
        said = json.loads(process.stdout.readline())
        assert (said["kind"], said["stream"], said["version"]) == ("version", "boiler", 4)
        assert said["hash"] == model.hash
        with urllib.request.urlopen(where.split()[-1]) as page:
            shown = page.read().decode()
        assert 'streamlearn_subscriber_messages_total{outcome="applied"} 1.0' in shown
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
