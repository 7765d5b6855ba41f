"""The local broker and topic administration, on a real Kafka."""

import itertools
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError, ConfigError
from streamlearn.runtime import admin, connection, kafka_jars, kafka_launch
from streamlearn.runtime import broker as broker_module
from streamlearn.runtime.broker import LocalBroker, free_port
from streamlearn.runtime.kafka_launch import can_use_java
from streamlearn.topics import Topics

needs_java = pytest.mark.skipif(not can_use_java(), reason="needs Java, and Maven or cached jars")


def send(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 100_000_000})
    problems: list[object] = []
    producer.produce(topic, value, partition=0, on_delivery=lambda e, m: problems.append(e))
    assert producer.flush(20) == 0
    assert problems == [None]


def read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                found.append(message.value() or b"")
        return found
    finally:
        consumer.close()


def test_topics_are_created_once_and_then_as_specified(kafka: KafkaConfig, prefix: str) -> None:
    specs = topic_specs.load(prefix=prefix, partitions=3)
    missing = admin.diff(kafka, specs)
    assert {d.kind for d in missing} == {admin.Difference.MISSING}
    assert admin.apply(kafka, specs) == missing
    assert admin.diff(kafka, specs) == []
    assert admin.apply(kafka, specs) == []
    found = AdminClient(kafka.client_settings()).list_topics(timeout=10).topics
    assert {n: len(t.partitions) for n, t in found.items() if n.startswith(prefix)} == {
        spec.full_name: spec.partitions for spec in specs
    }


def test_a_changed_setting_is_found_and_set(kafka: KafkaConfig, topics: Topics) -> None:
    wanted = replace(topics["updates"], config={"retention.ms": "1234567"})
    (difference,) = admin.diff(kafka, [wanted])
    assert str(difference).endswith("updates: retention.ms is 86400000, should be 1234567")
    assert admin.apply(kafka, [wanted]) == [difference]
    assert admin.diff(kafka, [wanted]) == []
    # what the spec does not name is left alone
    assert admin.diff(kafka, [replace(wanted, config={"cleanup.policy": "delete"})]) == []


def test_another_number_of_partitions_is_refused(kafka: KafkaConfig, topics: Topics) -> None:
    name = topics["events"].full_name
    client = AdminClient(kafka.client_settings())
    client.create_partitions([NewPartitions(name, 5)])[name].result()
    while len(client.list_topics(name, timeout=10).topics[name].partitions) < 5:
        time.sleep(0.05)
    with pytest.raises(ConfigError, match=r"events: partitions is 5, should be 4.*PARTITIONS to 5"):
        admin.apply(kafka, topics)


def test_an_unknown_kafka_setting_is_named(kafka: KafkaConfig, topics: Topics) -> None:
    wrong = replace(topics["updates"], config={"retention.sm": "1"})
    with pytest.raises(ConfigError, match=r"topics/updates\.toml.*retention\.sm"):
        admin.diff(kafka, [wrong])


def test_nobody_listening_is_said_with_the_remedy() -> None:
    with pytest.raises(BrokerError, match=r"no Kafka broker answers.*streamlearn broker"):
        connection.connect(KafkaConfig(bootstrap=f"127.0.0.1:{free_port()}"))


def test_a_large_frame_passes(bootstrap: str, topics: Topics) -> None:
    frame = os.urandom(50_000_000)
    send(bootstrap, topics["events"].full_name, frame)
    assert read(bootstrap, topics["events"].full_name, 1) == [frame]


@needs_java
def test_data_survives_kill9_and_clients_find_the_same_port(tmp_path: Path) -> None:
    specs = topic_specs.load(prefix="p.", partitions=1)
    with LocalBroker(data_dir=tmp_path) as broker:
        kafka = KafkaConfig(bootstrap=broker.bootstrap)
        admin.apply(kafka, specs)
        send(broker.bootstrap, "p.events", b"one")
        killed, address = broker.pid, broker.bootstrap
        broker.kill9()
        assert broker.pid is None
        assert killed is not None
        assert not psutil.pid_exists(killed)
        broker.restart()
        assert broker.bootstrap == address
        send(address, "p.events", b"two")
        assert admin.diff(kafka, specs) == []
        assert read(address, "p.events", 2) == [b"one", b"two"]


@needs_java
def test_the_broker_dies_with_the_process_that_started_it(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "from streamlearn.runtime.broker import LocalBroker\n"
        "broker = LocalBroker(); broker.start()\n"
        "print(broker.pid, broker.data_dir, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid, folder = parent.stdout.readline().split()
    child = psutil.Process(int(pid))
    parent.kill()  # no chance to clean up
    parent.wait()
    parent.stdout.close()
    parent.stdin.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and alive(child):
        time.sleep(0.05)
    assert not alive(child)
    assert Path(folder).is_dir()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError):  # the next one to start clears up first
        LocalBroker().start()
    assert not Path(folder).exists()
    connection.connect(KafkaConfig(bootstrap=bootstrap))  # and leaves alone what is in use


def alive(process: psutil.Process) -> bool:
    """Running, and not only waiting for whoever adopted it to take note of its end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@needs_java
def test_a_taken_port_is_said_with_the_remedy(bootstrap: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is taken.*--port"):
            LocalBroker(port=port).start()


@needs_java
def test_what_kafka_refuses_is_said_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "free_port", lambda chosen=frozenset(): 20_000)
    with pytest.raises(
        BrokerError, match=r"listeners on the same port.*choose an empty --data-dir"
    ) as refused:
        LocalBroker(data_dir=tmp_path).start()
    assert "\tat " not in str(refused.value)


def test_ports_chosen_together_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the draws are the same."""
    draws = itertools.cycle([20_001, 20_001, 20_002, 20_003])
    monkeypatch.setattr("random.choice", lambda ports: next(draws))
    chosen: set[int] = set()
    for _ in range(3):
        chosen.add(free_port(chosen))
    assert len(chosen) == 3


@needs_java
def test_a_broker_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=77\n")
    broker = LocalBroker(data_dir=tmp_path)
    with pytest.raises(BrokerError, match=r"ended while starting:(.|\n)*node id 77"):
        broker.start()
    assert broker.pid is None


def test_without_java_and_docker_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"Java 17 with Maven, or Docker.*STREAMLEARN_BOOTSTRAP"):
        LocalBroker(cache_dir=tmp_path).start()


def test_jars_are_fetched_once_however_many_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Maven that counts its calls stands in for the network."""
    calls = tmp_path / "calls"
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text(
        "#!/bin/sh\n"
        f'echo called >> "{calls}"\n'
        'for a in "$@"; do case "$a" in -DoutputDirectory=*) out="${a#*=}";; esac; done\n'
        'mkdir -p "$out"; sleep 0.2; touch "$out/kafka_2.13-4.jar"\n'
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{maven.parent}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: kafka_jars.jars(cache), range(4)))
    assert found == {kafka_jars.jars_folder(cache)}
    assert calls.read_text().count("called") == 1
    assert sorted(p.name for p in cache.iterdir()) == sorted(["kafka.lock", found.pop().name])


def test_a_failed_fetch_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text("#!/bin/sh\necho '[ERROR] no route to host'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{maven.parent}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    with pytest.raises(BrokerError, match="no route to host"):
        kafka_jars.jars(cache)
    assert [p.name for p in cache.iterdir()] == ["kafka.lock"]


def test_without_java_docker_is_asked_and_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A docker that only writes down what it was asked for: no container is run."""
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    node = kafka_launch.Node(port=15001, controller_port=15002, folder=tmp_path, heap="512m")
    command = kafka_launch.command(node, tmp_path, lambda message: None)
    assert command[:3] == [str(docker), "run", "--rm"]
    assert command[-1] == kafka_launch.IMAGE
    settings = dict(v.split("=", 1) for f, v in itertools.pairwise(command) if f == "-e")
    assert settings["KAFKA_LISTENERS"] == "PLAINTEXT://:15001,CONTROLLER://:15002"
    assert settings["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:15001"
    assert settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    name = command[command.index("--name") + 1]
    for at_once, verb in ((True, "kill"), (False, "stop")):
        stop = kafka_launch.stop_command(node, command, at_once=at_once)
        assert stop == [str(docker), verb, name]
    with pytest.raises(BrokerError, match="Kafka ended while starting"):
        LocalBroker(cache_dir=tmp_path, data_dir=tmp_path / "data").start()
    assert (tmp_path / "asked").read_text().startswith("run --rm --name streamlearn-kafka-")
