"""Topics on the broker: compare them with their specs, create and mend them.

The specs come from `streamlearn.topics`; this file only talks to the broker. Partition counts are
never changed: a stream would move to another partition, away from its state.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError, ConfigError
from streamlearn.runtime.connection import connect
from streamlearn.topics import TopicSpec

TIMEOUT_S = 10.0


class Difference(StrEnum):
    """How a topic on the broker differs from its spec: a closed set."""

    MISSING = "missing"
    PARTITIONS = "partitions"
    CONFIG = "config"


@dataclass(frozen=True, slots=True)
class TopicDiff:
    """One difference; `key` is Kafka's setting for Difference.CONFIG."""

    topic: str  # full name
    kind: Difference
    wanted: str
    found: str
    key: str = ""

    def __str__(self) -> str:
        what = self.key or self.kind
        return f"{self.topic}: {what} is {self.found}, should be {self.wanted}"


def diff(kafka: KafkaConfig, specs: Iterable[TopicSpec]) -> list[TopicDiff]:
    """What on the broker is not as specified; settings without a spec are not looked at."""
    client = connect(kafka)
    wanted = list(specs)
    try:
        found = client.list_topics(timeout=TIMEOUT_S).topics
        here = [spec for spec in wanted if spec.full_name in found]
        resources = [ConfigResource(ResourceType.TOPIC, spec.full_name) for spec in here]
        answers = client.describe_configs(resources, request_timeout=TIMEOUT_S) if here else {}
        settings = {resource.name: answer.result() for resource, answer in answers.items()}
    except KafkaException as error:
        raise BrokerError(f"{kafka.bootstrap} did not describe its topics: {error}") from error
    differences = []
    for spec in wanted:
        if spec not in here:
            differences.append(TopicDiff(spec.full_name, Difference.MISSING, "there", "missing"))
            continue
        count = len(found[spec.full_name].partitions)
        if count != spec.partitions:
            differences.append(
                TopicDiff(spec.full_name, Difference.PARTITIONS, str(spec.partitions), str(count))
            )
        entries: dict[str, ConfigEntry] = settings[spec.full_name]
        for key, value in spec.config.items():
            entry = entries.get(key)
            if entry is None:
                raise ConfigError(
                    f"topics/{spec.name}.toml: this broker knows no topic setting {key!r}"
                )
            # a value that is right by the broker's default only may change with the broker
            if entry.value != value:
                differences.append(
                    TopicDiff(spec.full_name, Difference.CONFIG, value, str(entry.value), key)
                )
    return differences


def apply(
    kafka: KafkaConfig, specs: Iterable[TopicSpec], *, replication: int = -1
) -> list[TopicDiff]:
    """Create missing topics and set differing settings; return what was changed.

    ConfigError when a topic has another number of partitions, before anything is changed.
    """
    wanted = {spec.full_name: spec for spec in specs}
    differences = diff(kafka, wanted.values())
    for difference in differences:
        if difference.kind is Difference.PARTITIONS:
            raise ConfigError(
                f"{difference}; the number of partitions of a topic in use cannot be changed, "
                f"because streams would move away from their state: set "
                f"STREAMLEARN_TOPICS__PARTITIONS to {difference.found}, or use another prefix "
                "(STREAMLEARN_TOPICS__PREFIX)"
            )
    client = connect(kafka)
    missing = [wanted[d.topic] for d in differences if d.kind is Difference.MISSING]
    changed = [d for d in differences if d.kind is Difference.CONFIG]
    try:
        _create(client, missing, replication)
        _set_configs(client, changed)
    except KafkaException as error:
        raise BrokerError(
            f"{kafka.bootstrap} refused to change its topics: {error.args[0].str()}; the broker's "
            "log says more, and the user needs the rights Create and AlterConfigs"
        ) from error
    if differences:
        _wait_until_as_specified(kafka, wanted.values())
    return differences


def _wait_until_as_specified(kafka: KafkaConfig, specs: Iterable[TopicSpec]) -> None:
    """The controller has answered; the broker that clients ask learns of it a moment later."""
    deadline = time.monotonic() + TIMEOUT_S
    while left := diff(kafka, specs):
        if time.monotonic() > deadline:
            raise BrokerError(f"the broker took the changes, but still: {left[0]}")
        time.sleep(0.05)


def delete(kafka: KafkaConfig, specs: Iterable[TopicSpec]) -> None:
    """Delete the topics, with all that is on them; those that are not there are left alone."""
    client = connect(kafka)
    wanted = {spec.full_name for spec in specs}
    try:
        names = sorted(wanted & client.list_topics(timeout=TIMEOUT_S).topics.keys())
        if names:
            for answer in client.delete_topics(names, operation_timeout=TIMEOUT_S).values():
                answer.result()
    except KafkaException as error:
        raise BrokerError(
            f"{kafka.bootstrap} did not delete all of {', '.join(sorted(wanted))}: "
            f"{error.args[0].str()}; delete what is left of them with Kafka's own tools"
        ) from error


def _create(client: AdminClient, specs: list[TopicSpec], replication: int) -> None:
    if not specs:
        return
    topics = [
        NewTopic(
            spec.full_name,
            num_partitions=spec.partitions,
            replication_factor=replication,
            config=dict(spec.config),
        )
        for spec in specs
    ]
    for answer in client.create_topics(topics, operation_timeout=TIMEOUT_S).values():
        try:
            answer.result()
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":  # someone else was faster
                raise
    _wait_until_known(client, {spec.full_name for spec in specs})


def _wait_until_known(client: AdminClient, names: set[str]) -> None:
    """The controller has made them; brokers answer for them a little later."""
    deadline = time.monotonic() + TIMEOUT_S
    while names - client.list_topics(timeout=TIMEOUT_S).topics.keys():
        if time.monotonic() > deadline:
            raise BrokerError(
                f"topics were created but are not known after {TIMEOUT_S:g} s: {names}"
            )
        time.sleep(0.02)


def _set_configs(client: AdminClient, changed: list[TopicDiff]) -> None:
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(
                    d.key,
                    d.wanted,
                    source=ConfigSource.DYNAMIC_TOPIC_CONFIG,
                    incremental_operation=AlterConfigOpType.SET,
                )
                for d in changed
                if d.topic == topic
            ],
        )
        for topic in sorted({d.topic for d in changed})
    ]
    if resources:
        for answer in client.incremental_alter_configs(resources).values():
            answer.result()
