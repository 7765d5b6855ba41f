"""`streamlearn doctor`: each line ok, a note, or what is missing and how to mend it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamlearn import config
from streamlearn import topics as topic_specs
from streamlearn.cli import app
from streamlearn.cli.doctor import Finding, State, findings
from streamlearn.config import Config, KafkaConfig
from streamlearn.runtime import admin


def report(settings: Config) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings(settings)}


def program(folder: Path, name: str, text: str, code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
    path.chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no programs but those that a test puts into this folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def nowhere(tmp_path: Path, **flags: object) -> Config:
    return config.load({"XDG_CACHE_HOME": str(tmp_path)}, None, flags)


def test_every_promised_line_is_there(bare: Path, tmp_path: Path) -> None:
    settings = nowhere(tmp_path, **{"kafka.bootstrap": "127.0.0.1:1"})
    names = ["Python", "packages", "Java", "Maven", "Docker", "GPU", "state", "broker"]
    assert list(report(settings)) == names


def test_a_good_installation(kafka: KafkaConfig, prefix: str) -> None:
    flags = {"kafka.bootstrap": kafka.bootstrap, "topics.prefix": prefix}
    settings = config.load({}, None, flags)
    before = report(settings)
    assert before["broker"].state is State.OK
    assert before["topics"].state is State.MISSING
    assert "streamlearn topics apply" in before["topics"].text
    admin.apply(kafka, topic_specs.load(prefix=prefix, partitions=4))
    after = report(settings)
    assert after["topics"].state is State.OK
    assert not [finding for finding in after.values() if finding.state is State.MISSING]


def test_a_named_broker_that_does_not_answer_is_missing(tmp_path: Path) -> None:
    broker = report(nowhere(tmp_path, **{"kafka.bootstrap": "127.0.0.1:1"}))["broker"]
    assert broker.state is State.MISSING
    assert "streamlearn broker" in broker.text


def test_without_any_way_to_a_broker_it_is_missing(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "diff", refuse)
    found = report(nowhere(tmp_path))
    assert {found[name].state for name in ("Java", "Maven", "Docker")} == {State.NOTE}
    assert found["broker"].state is State.MISSING
    assert "Java 17 with Maven, or Docker" in found["broker"].text


def test_with_java_and_maven_an_unnamed_broker_is_only_a_note(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "diff", refuse)
    program(bare, "java", 'openjdk version "21.0.2"')
    program(bare, "mvn", "Apache Maven 3.9.9")
    found = report(nowhere(tmp_path))
    assert (found["Java"].state, found["Maven"].state) == (State.OK, State.OK)
    assert found["broker"].state is State.NOTE


@pytest.mark.parametrize("version", ['java version "1.8.0_402"', 'openjdk version "11.0.2"'])
def test_an_old_java_is_said(bare: Path, tmp_path: Path, version: str) -> None:
    program(bare, "java", version)
    java = report(nowhere(tmp_path, **{"kafka.bootstrap": "127.0.0.1:1"}))["Java"]
    assert java.state is State.NOTE
    assert java.text == f"{version}; a local broker needs Java 17 or newer"


def test_a_docker_client_without_engine_is_no_docker(bare: Path, tmp_path: Path) -> None:
    program(bare, "docker", "Cannot connect to the Docker daemon", code=1)
    docker = report(nowhere(tmp_path, **{"kafka.bootstrap": "127.0.0.1:1"}))["Docker"]
    assert docker.state is State.NOTE


def test_a_state_folder_that_cannot_be_written_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flags = {"worker.state_dir": tmp_path / "file" / "state", "kafka.bootstrap": "127.0.0.1:1"}
    state = report(nowhere(tmp_path, **flags))["state"]
    assert state.state is State.MISSING
    assert "STREAMLEARN_WORKER__STATE_DIR" in state.text


@pytest.mark.parametrize("state, code", [(State.OK, 0), (State.NOTE, 0), (State.MISSING, 1)])
def test_the_exit_code_says_whether_something_needed_is_missing(
    state: State, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "streamlearn.cli.doctor.findings", lambda _: iter([Finding("thing", state, "[why]")])
    )
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert result.output == f" {state}  thing     [why]\n"


def refuse(*_: object) -> None:
    from streamlearn.errors import BrokerError

    raise BrokerError("no Kafka broker answers")
