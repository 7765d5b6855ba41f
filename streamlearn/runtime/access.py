"""Who may do what on Kafka: deploy/kafka/secure/roles.toml as ACLs, and which rights are missing.

The table names topics by their short names; here they get their prefix, and the group its name.
"""

import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError, ConfigError
from streamlearn.runtime.connection import NO_RIGHT, connect, who
from streamlearn.shipped import shipped
from streamlearn.topics import NAMES, Topics

TIMEOUT_S = 10.0
GROUP_RIGHTS = {"": (), "look": (AclOperation.DESCRIBE,), "join": (AclOperation.READ,)}
_BUSY = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
_MANAGE = (AclOperation.CREATE, AclOperation.ALTER_CONFIGS)
_SEE = (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)


@dataclass(frozen=True, slots=True)
class Role:
    """One entry of roles.toml; topics by their short names."""

    about: str
    read: tuple[str, ...]
    write: tuple[str, ...]
    group: str  # "", "look" or "join"
    manage: bool  # create topics, change their settings


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One operation on one topic or group, or on all topics with a prefix."""

    kind: str  # "topic" or "group"
    name: str
    operation: str  # Kafka's name: READ, WRITE, ...
    prefixed: bool = False

    @property
    def resource(self) -> str:
        """What it is a right to, in words."""
        return f"{self.kind} {self.name}{'*' if self.prefixed else ''}"

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource}"


@cache
def roles() -> Mapping[str, Role]:
    """The table; ConfigError where it is wrong."""
    file = shipped("kafka") / "secure" / "roles.toml"
    found: dict[str, Role] = {}
    for name, raw in tomllib.loads(file.read_text(encoding="utf-8")).items():
        known = {key.name for key in fields(Role)}
        topics = {*raw.get("read", ()), *raw.get("write", ())}
        if raw.keys() != known or topics - set(NAMES) or raw["group"] not in GROUP_RIGHTS:
            raise ConfigError(
                f"[{name}] in {file} must have the keys {sorted(known)}, topics of "
                f"{', '.join(NAMES)}, and a group of {list(GROUP_RIGHTS)}; got {raw}"
            )
        found[name] = Role(**raw | {"read": tuple(raw["read"]), "write": tuple(raw["write"])})
    return found


def rights(role: str, topics: Topics, group: str) -> list[Right]:
    """What a role may do in this installation."""
    entry = roles()[role]
    found = [Right("topic", topics[name].full_name, "READ") for name in entry.read]
    found += [Right("topic", topics[name].full_name, "WRITE") for name in entry.write]
    found += [Right("group", group, operation.name) for operation in GROUP_RIGHTS[entry.group]]
    everywhere = [*_SEE, *(_MANAGE if entry.manage else ())]
    found += [Right("topic", topics.prefix, operation.name, True) for operation in everywhere]
    return found


def apply(
    kafka: KafkaConfig, users: Iterable[tuple[str, str]], topics: Topics, group: str
) -> list[str]:
    """Give users their rights (twice is the same as once); lines that say what was given.

    `users`: (role, user) pairs. Rights that users have beside these are left alone.
    """
    wanted = [(user, right) for role, user in users for right in rights(role, topics, group)]
    client = connect(kafka)
    answers = client.create_acls(
        [_binding(user, right) for user, right in wanted], request_timeout=TIMEOUT_S
    )
    try:
        for answer in answers.values():
            answer.result()
    except KafkaException as error:
        raise BrokerError(
            f"{who(kafka)} may not grant rights at {kafka.bootstrap} ({error.args[0].name()}); it "
            "needs a super user, or one with Alter on the cluster, and an authorizer on the broker"
        ) from None
    return [f"{user}: {right}" for user, right in wanted]


def _binding(user: str, right: Right) -> AclBinding:
    prefixed = right.prefixed and right.name != ""
    return AclBinding(
        ResourceType.TOPIC if right.kind == "topic" else ResourceType.GROUP,
        right.name or "*",
        ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[right.operation],
        AclPermissionType.ALLOW,
    )


def check(kafka: KafkaConfig, role: str, topics: Topics, group: str) -> None:
    """BrokerError that lists the rights that a role needs and this user lacks."""
    lacking = missing(kafka, role, topics, group)
    if lacking:
        raise BrokerError(
            f"{who(kafka)} lacks rights that a {role} needs at {kafka.bootstrap}: "
            f"{', '.join(map(str, lacking))}; grant them with `streamlearn access apply`"
        )


def missing(kafka: KafkaConfig, role: str, topics: Topics, group: str) -> list[Right]:
    """The rights of a role that this user lacks, as the broker tells it. Without an authorizer:
    none. What is not there, and may be asked for, is not looked at.
    """
    client = connect(kafka)
    answers: Mapping[str, Any] = client.describe_topics(
        TopicCollection([spec.full_name for spec in topics]),
        include_authorized_operations=True,
        request_timeout=TIMEOUT_S,
    )
    allowed = {name: _operations(answer) for name, answer in answers.items()}
    lacking = []
    for right in rights(role, topics, group):
        if right.kind == "group":
            places = [_group_operations(client, group)]
        else:
            places = [allowed[n] for n in allowed if right.prefixed or n == right.name]
        if any(
            operations is not None and right.operation not in operations for operations in places
        ):
            lacking.append(right)
    return sorted(lacking)


def _group_operations(client: AdminClient, group: str) -> set[str] | None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        answers = client.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=TIMEOUT_S
        )
        try:
            answers[group].result()
        except KafkaException as error:
            if error.args[0].code() in _BUSY and time.monotonic() < deadline:
                time.sleep(0.05)  # a broker that just started
                continue
        return _operations(answers[group])


def _operations(answer: Any) -> set[str] | None:
    try:
        found: Iterable[AclOperation] | None = answer.result().authorized_operations
    except KafkaException as error:
        return set() if error.args[0].code() in NO_RIGHT else None
    return None if found is None else {operation.name for operation in found}
