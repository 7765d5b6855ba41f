"""A secured broker: each role does its own work and nothing else, with a real worker on it.

The table of who may do what is written here a second time, by hand: `ALLOWED` is the truth that
roles.toml, made ACLs on a real broker, is held to.
"""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streamlearn import topics as topic_specs
from streamlearn.cli.doctor import Finding, State, _kafka
from streamlearn.config import Config, KafkaConfig, TopicsConfig, load
from streamlearn.core.records import Frame
from streamlearn.errors import BrokerError
from streamlearn.runtime import access, admin, connection
from streamlearn.runtime.app import _credentials
from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.feeder import Feeder
from streamlearn.runtime.kafka_launch import can_use_java
from streamlearn.runtime.keys import new_pair
from streamlearn.runtime.log import KafkaLog
from streamlearn.runtime.publisher import KafkaPublisher
from streamlearn.runtime.replica import Outcome
from streamlearn.runtime.scoreboard import Verdict
from streamlearn.runtime.secure_folder import SecureFolder
from streamlearn.runtime.subscriber import Subscriber
from streamlearn.runtime.witness import Witness
from streamlearn.runtime.worker import run
from streamlearn.topics import NAMES, Topics
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.signing import generate_keys

pytestmark = pytest.mark.skipif(not can_use_java(), reason="needs Java, and Maven or cached jars")

PREFIX, GROUP = "sec.", "sec-workers"
TRIALS = topic_specs.load(prefix="trials.", partitions=2)  # for junk that no worker shall read
ALLOWED = {
    "feeder": {"write events", "write labels"},
    "worker": {
        *("read events", "read labels", "read state"),
        *("write updates", "write snapshots", "write slow", "write state"),
        *("write predictions", "write label-requests", "write deadletters", "write metrics"),
        *("see group", "move group"),
    },
    "subscriber": {"read updates", "read snapshots", "read slow"},
    "watcher": {
        *(
            "read metrics",
            "read predictions",
            "read label-requests",
            "read deadletters",
            "see group",
        ),
    },
    "auditor": {
        *("read events", "read updates", "read snapshots", "read state", "read deadletters"),
        "see group",
    },
    "admin": {"create topic", "alter topic", "see group"},
}
TRIED = {
    *(f"{verb} {name}" for verb in ("read", "write") for name in NAMES),
    *("see group", "move group", "create topic", "alter topic", "delete topic", "grant rights"),
}
REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


class WithPlain(SecureFolder):
    """Takes the feeder with PLAIN as well, as brokers of others may."""

    def broker_properties(self) -> dict[str, str]:
        password = self.kafka("feeder", "x:1").secret()
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        clients = "listener.name.clients"
        return super().broker_properties() | {
            f"{clients}.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
            f"{clients}.plain.sasl.jaas.config": f'{login} user_feeder="{password}";',
        }


@dataclass(frozen=True)
class Secured:
    """The broker, and how each role reaches it."""

    broker: LocalBroker
    folder: SecureFolder
    topics: Topics

    def kafka(self, user: str, **changed: object) -> KafkaConfig:
        given = self.folder.kafka(user, self.broker.bootstrap).model_dump() | changed
        return KafkaConfig.model_validate(given)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = WithPlain(tmp_path_factory.mktemp("secured") / "secure")
    topics = topic_specs.load(prefix=PREFIX, partitions=2)
    with LocalBroker(secure=folder, heap="256m") as broker:
        admin.apply(broker.kafka, topics)
        admin.apply(broker.kafka, [topic_specs.load(prefix="other.", partitions=1)["events"]])
        admin.apply(broker.kafka, TRIALS)
        for installation in (topics, TRIALS):
            access.apply(broker.kafka, [(role, role) for role in ALLOWED], installation, GROUP)
        folder.write_settings(broker.bootstrap, topics)
        access.check(broker.kafka, "worker", topics, GROUP)  # waits for the group's coordinator
        yield Secured(broker, folder, topics)


# --- who may do what ---------------------------------------------------------------------------


def refused(error: KafkaError) -> bool:
    """Whether for want of a right; anything else fails the test."""
    assert error.code() in REFUSED, error
    return True


def writable(kafka: KafkaConfig, topics: Topics) -> set[str]:
    said: dict[str, KafkaError | None] = {}
    producer = Producer({**kafka.client_settings(), "acks": "all", "log_level": 0})
    for spec in topics:

        def delivered(error: KafkaError | None, _: object, name: str = spec.name) -> None:
            said[name] = error

        producer.produce(spec.full_name, b"x", b"k", partition=0, on_delivery=delivered)
    assert producer.flush(20) == 0
    return {f"write {name}" for name, error in said.items() if error is None or not refused(error)}


def readable(kafka: KafkaConfig, topics: Topics) -> set[str]:
    names = {spec.full_name: spec.name for spec in topics}
    settings = kafka.client_settings() | {
        **{"group.id": GROUP, "enable.auto.commit": False, "enable.partition.eof": True},
        **{"auto.offset.reset": "earliest", "log_level": 0, "fetch.wait.max.ms": 10},
    }
    consumer, found = Consumer(settings), {}
    consumer.assign([TopicPartition(full, 0, 0) for full in names])
    while len(found) < len(names):  # pytest's timeout ends a failure
        message = consumer.poll(0.2)
        if message is None or message.topic() not in names:  # or one about the group
            continue
        error = message.error()
        at_end = error is not None and error.code() == KafkaError._PARTITION_EOF
        found.setdefault(names[message.topic()], error is None or at_end or not refused(error))
    consumer.close()
    return {f"read {name}" for name, right in found.items() if right}


def manageable(kafka: KafkaConfig, topics: Topics, role: str) -> set[str]:
    client = AdminClient({**kafka.client_settings(), "log_level": 0})
    events = topics["events"].full_name
    entry = ConfigEntry("retention.ms", "86400000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(
        ResourceType.TOPIC, topics["updates"].full_name, incremental_configs=[entry]
    )
    moved = ConsumerGroupTopicPartitions(GROUP, [TopicPartition(events, 1, 0)])
    binding = AclBinding(
        *(ResourceType.TOPIC, events, ResourcePatternType.LITERAL, f"User:{role}", "*"),
        *(AclOperation.ALL, AclPermissionType.ALLOW),
    )
    answers = {
        "see group": client.describe_consumer_groups([GROUP]),
        "move group": client.alter_consumer_group_offsets([moved]),
        "create topic": client.create_topics([NewTopic(f"{topics.prefix}new-{role}", 1, 1)]),
        "alter topic": client.incremental_alter_configs([resource]),
        "delete topic": client.delete_topics([topics["metagradients"].full_name]),
        "grant rights": client.create_acls([binding]),
    }
    return {what for what, [answer] in ((w, a.values()) for w, a in answers.items()) if did(answer)}


def did(answer: "Future[Any]") -> bool:
    try:
        result = answer.result(20)
    except KafkaException as error:
        return not refused(error.args[0])
    problems = [tp.error for tp in getattr(result, "topic_partitions", ()) if tp.error]
    return not problems or not refused(problems[0])


@pytest.mark.parametrize("role", ALLOWED)
def test_each_role_can_do_its_own_work_and_nothing_else(secured: Secured, role: str) -> None:
    kafka = secured.kafka(role)
    done = writable(kafka, TRIALS) | readable(kafka, TRIALS) | manageable(kafka, TRIALS, role)
    assert done <= TRIED
    assert done == ALLOWED[role]
    seen = connection.connect(kafka).list_topics(timeout=10).topics.keys()
    assert seen >= {spec.full_name for spec in TRIALS} and "other.events" not in seen


def test_the_table_knows_all_roles_and_who_fits_which(secured: Secured) -> None:
    assert ALLOWED.keys() == access.roles().keys()
    for user in ALLOWED:
        kafka = secured.kafka(user)
        fitting = {r for r in ALLOWED if not access.missing(kafka, r, secured.topics, GROUP)}
        assert fitting == {user}
    with pytest.raises(BrokerError, match="user 'watcher' may not grant rights") as grant:
        access.apply(secured.kafka("watcher"), [("feeder", "watcher")], secured.topics, GROUP)
    assert len(str(grant.value)) < 300  # without the broker's own objects


def test_who_may_not_look_back_or_go_back_is_told_so(
    secured: Secured, capfd: pytest.CaptureFixture[str]
) -> None:
    feeder = KafkaPublisher(secured.kafka("feeder"), client_id="feeder")
    feeder.send(f"{PREFIX}events", 0, Message(b"s", b"{}", []))
    feeder.flush()
    log = KafkaLog(secured.kafka("subscriber"), group=GROUP)
    with pytest.raises(BrokerError, match=r"user 'subscriber' has no right to that.*doctor"):
        next(log.read(f"{PREFIX}events", 0, 0, 1))
    log.close()
    publisher = KafkaPublisher(secured.kafka("auditor"), client_id="auditor")
    publisher.send(f"{PREFIX}events", 0, Message(b"s", b"{}", []))
    with pytest.raises(BrokerError, match=r"user 'auditor' has no right to that"):
        publisher.flush()
    assert capfd.readouterr().err == ""


def test_who_lacks_a_right_is_told_at_once(secured: Secured) -> None:
    """Not when messages time out after a minute; and no thread dies of it."""
    for user in ("subscriber", "worker"):  # may write nothing at all; may write elsewhere
        with (
            pytest.raises(BrokerError, match=rf"user '{user}' has no right .*streamlearn doctor"),
            Feeder(secured.kafka(user), topic_prefix=PREFIX) as feeder,
        ):
            feeder.send("boiler", {"a": 1.0}, label="x")
    publisher = KafkaPublisher(secured.kafka("auditor"), client_id="none")
    publisher.send(f"{PREFIX}events", 0, Message(b"k", b"x", []))
    with pytest.raises(BrokerError, match=r"user 'auditor' has no right .*streamlearn doctor"):
        publisher.flush()
    with (
        pytest.raises(BrokerError, match=r"user 'feeder' has no right .*streamlearn doctor"),
        Subscriber(secured.kafka("feeder"), topic_prefix=PREFIX) as subscriber,
    ):
        subscriber.streams()


# --- who gets in -------------------------------------------------------------------------------


def test_every_way_to_say_who_one_is(secured: Secured) -> None:
    """With librdkafka, and with aiokafka as Faust is told to use it."""
    certificate = secured.folder.client_certificate("feeder")
    with_certificate = KafkaConfig(
        bootstrap=secured.broker.internal,
        protocol="SSL",
        ca_file=secured.folder.ca_file,
        cert_file=certificate,
    )
    mechanisms = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
    ways = [secured.kafka("feeder", sasl_mechanism=mechanism) for mechanism in mechanisms]
    for kafka in (*ways, with_certificate):
        assert not access.missing(kafka, "feeder", secured.topics, GROUP)
        assert access.missing(kafka, "subscriber", secured.topics, GROUP)
        auth = credentials_to_aiokafka_auth(_credentials(kafka))
        assert asyncio.run(topics_seen(kafka, auth)) >= {t.full_name for t in secured.topics}


async def topics_seen(kafka: KafkaConfig, auth: Mapping[str, Any]) -> set[str]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, **auth)
    await consumer.start()
    try:
        return set(await consumer.topics())
    finally:
        await consumer.stop()


def test_who_does_not_get_in_is_told_why_in_one_line(secured: Secured, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-password\n")
    at, ca_file = secured.broker.bootstrap, secured.folder.ca_file
    stranger = SecureFolder(tmp_path / "stranger")
    stranger.prepare()
    own = KafkaConfig(
        bootstrap=secured.broker.internal,
        protocol="SSL",
        ca_file=ca_file,
        cert_file=stranger.client_certificate("broker"),
    )
    cases = [
        (secured.kafka("worker", password_file=wrong), r"refused user 'worker' .*password"),
        (secured.kafka("nobody", password_file=wrong), r"refused user 'nobody' .*password"),
        (secured.kafka("worker", ca_file=None), r"no TLS .*ca_file \(not set\)"),
        (secured.kafka("worker", ca_file=stranger.ca_file), r"no TLS .*stranger"),
        (secured.kafka("worker", sasl_mechanism="PLAIN"), r"refused user 'worker' \(PLAIN\)"),
        (KafkaConfig(bootstrap=at), r"another protocol than PLAINTEXT; set kafka\.protocol"),
        (secured.kafka("worker", protocol="SASL_PLAINTEXT"), r"another protocol than SASL_PLAIN"),
        (KafkaConfig(bootstrap=at, protocol="SSL", ca_file=ca_file), r"another protocol than SSL"),
        (own, r"no TLS .*cert_file .*broker\.pem"),
        (own.model_copy(update={"cert_file": None}), r"no TLS .*cert_file \(not set\)"),
    ]
    for kafka, said in cases:
        with pytest.raises(BrokerError, match=said) as error:
            connection.connect(kafka)
        assert "\n" not in str(error.value) and "not-the-password" not in str(error.value)
    bad = cases[0][0]
    for client in (Feeder, Subscriber):
        with pytest.raises(BrokerError, match="refused user 'worker'"):
            client(bad, topic_prefix=PREFIX)


def test_the_doctor_looks_at_the_connection_and_the_rights(
    secured: Secured, tmp_path: Path
) -> None:
    def report(kafka: KafkaConfig) -> dict[str, Finding]:
        config = Config(kafka=kafka, topics=TopicsConfig(prefix=PREFIX, partitions=2))
        worker = config.worker.model_copy(update={"group": GROUP})
        found = _kafka(config.model_copy(update={"worker": worker}), can_start=True)
        return {finding.name: finding for finding in found}

    good = report(secured.kafka("worker"))
    assert {finding.state for finding in good.values()} == {State.OK}
    assert good["broker"].text.endswith(", SASL_SSL")
    assert good["rights"].text == "user 'worker' may work as worker"
    wrong = tmp_path / "wrong"
    wrong.write_text("x")
    bad = report(secured.kafka("worker", password_file=wrong))
    assert list(bad) == ["broker"] and bad["broker"].state is State.MISSING
    assert re.search(r"refused user 'worker' .*check kafka.username", bad["broker"].text)


# --- the product on it -------------------------------------------------------------------------


@contextmanager
def worker(settings: Path, folder: Path, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """`streamlearn worker -c settings`; its words go to folder/worker.log."""
    given = {f"STREAMLEARN_{name}": value for name, value in env.items()} | {
        "STREAMLEARN_WORKER__GROUP": GROUP,
        "STREAMLEARN_WORKER__STATE_DIR": str(folder / "state"),
        "STREAMLEARN_WORKER__METRICS_PORT": "0",
        "STREAMLEARN_WORKER__PREDICTIONS": "true",
        "STREAMLEARN_LEARNER__RANDOM_FEATURES": "4",
        "STREAMLEARN_LEARNER__STEP_EVENTS": "8",
    }
    command = [sys.executable, "-m", "streamlearn", "worker", "-v", "-c", str(settings)]
    log = (folder / "worker.log").open("a")
    with log, subprocess.Popen(command, stderr=log, text=True, env=os.environ | given) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def frame(seed: int) -> Frame:
    x = np.random.default_rng(seed).normal(size=(8, 2))
    codes = (x[:, 0] > 0).astype(np.int32)
    return Frame("boiler", ("a", "b"), x, codes, ("no", "yes"), np.full(8, time.time()))


def secrets_of(folder: SecureFolder) -> list[str]:
    secrets = [folder.kafka(user, "x:1").secret() for user in folder.users()]
    assert all(len(secret) > 20 for secret in secrets)
    return secrets


def test_a_worker_a_feeder_and_a_subscriber_each_with_their_own_rights(
    secured: Secured, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signing_key, public_key = new_pair(tmp_path / "keys")
    folder = secured.folder
    learning = worker(
        folder.settings_file("worker"), tmp_path, WORKER__SIGNING_KEY=str(signing_key)
    )
    with (
        learning as process,
        Feeder(secured.kafka("feeder"), topic_prefix=PREFIX) as feeder,
        Subscriber(
            secured.kafka("subscriber"), topic_prefix=PREFIX, public_key=public_key
        ) as subscriber,
    ):
        feeder.send_frame(frame(1))
        assert feeder.flush().acknowledged == 8
        assert subscriber.wait_for("boiler", 1, timeout_s=200).current.classes  # a worker starts
        ours = Witness(secured.broker.kafka, subscriber, topic_prefix=PREFIX, public_key=public_key)
        stranger = generate_keys()[1]
        theirs = Witness(secured.broker.kafka, subscriber, topic_prefix=PREFIX, public_key=stranger)
        with ours, theirs, caplog.at_level(logging.INFO, "streamlearn.runtime.witness"):
            feeder.send_frame(frame(2))
            while not (checks := list(ours.poll(0.2))):
                pass  # pytest's timeout ends a failure
            assert [check.verdict for check in checks] == [Verdict.SAME]
            while "signed with unknown key" not in caplog.text:
                assert not list(theirs.poll(0.2)), "predictions of strangers are not looked at"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "worker.log").read_text()
        assert Outcome.FOREIGN not in subscriber.counts
    said = (tmp_path / "worker.log").read_text()
    assert "what subscribers read is signed with key" in said
    private = signing_key.read_text().splitlines()[1]
    for secret in (*secrets_of(folder), private):
        assert secret not in said
    assert " ERROR " not in said and "Traceback" not in said


def test_a_worker_without_the_rights_says_which_before_it_begins(secured: Secured) -> None:
    config = load({"STREAMLEARN_WORKER__GROUP": GROUP}, secured.folder.settings_file("feeder"))
    with pytest.raises(BrokerError, match="user 'feeder' lacks rights that a worker") as error:
        run(config)
    said = str(error.value)
    assert "\n" not in said and "streamlearn access apply" in said
    assert "READ on topic sec.events" in said and f"READ on group {GROUP}" in said


def test_no_secret_is_open_to_others_or_in_the_brokers_log(secured: Secured) -> None:
    folder = secured.folder
    assert folder.path.stat().st_mode & 0o077 == 0
    for file in folder.path.iterdir():
        if file.suffix == ".password" or file.name in ("ca-key.pem", "broker.pem"):
            assert file.stat().st_mode & 0o077 == 0, file
    log = secured.broker.log_file.read_text()
    settings = "".join(folder.settings_file(user).read_text() for user in folder.users())
    for secret in secrets_of(folder):
        assert secret not in log + settings
