"""Topic specs: the shipped ones, and what is said about wrong ones."""

import shutil
from pathlib import Path

import pytest

from streamlearn.errors import ConfigError
from streamlearn.shipped import shipped
from streamlearn.topics import NAMES, TopicSpec, load

CHUNK_BYTES = 900 * 1024  # the largest value that the codecs make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped("topics"), tmp_path / "topics"))


def test_there_is_a_file_for_each_topic() -> None:
    topics = load(prefix="p.", partitions=3)
    assert [topic.name for topic in topics] == list(NAMES)
    assert {topic.full_name for topic in topics} == {f"p.{name}" for name in NAMES}


def test_what_belongs_to_a_stream_has_as_many_partitions_as_events() -> None:
    topics = load(prefix="", partitions=3)
    shared = {"events", "updates", "snapshots", "state", "predictions", "labels", "label-requests"}
    assert {topic.name for topic in topics if topic.partitions == 3} == shared
    assert {topic.partitions for topic in topics if topic.name not in shared} == {1}


def test_what_must_survive_is_compacted_and_the_log_is_not() -> None:
    topics = load(prefix="", partitions=1)
    compacted = {t.name for t in topics if t.config["cleanup.policy"] == "compact"}
    assert compacted == {"snapshots", "state", "slow"}


def test_a_chunk_with_its_headers_fits_each_topic_and_the_broker() -> None:
    properties = (shipped("kafka") / "server.properties").read_text(encoding="utf-8")
    broker_limit = int(properties.split("message.max.bytes=")[1].split()[0])
    for topic in load(prefix="", partitions=1):
        limit = int(topic.config["max.message.bytes"])
        assert CHUNK_BYTES + 64 * 1024 <= limit <= broker_limit


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'events'"):
        load(prefix="", partitions=1)["event"]


def test_specs_are_frozen() -> None:
    spec = load(prefix="", partitions=1)["events"]
    assert isinstance(spec, TopicSpec)
    with pytest.raises(AttributeError):
        spec.partitions = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("events", "about = 3", "must have the keys"),
        ("events", "about = ", "cannot be read"),
        ("extra", "", "extra.toml is unknown"),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, name: str, text: str, said: str) -> None:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load(prefix="", partitions=1, folder=folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "slow.toml").unlink()
    with pytest.raises(ConfigError, match=r"slow\.toml is missing"):
        load(prefix="", partitions=1, folder=folder)


def test_numbers_must_be_quoted(folder: Path) -> None:
    path = folder / "events.toml"
    text = path.read_text(encoding="utf-8").replace('"604800000"', "604800000")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="in quotes"):
        load(prefix="", partitions=1, folder=folder)
