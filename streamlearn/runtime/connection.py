"""The first word with a broker: it answers, or one line says why not and what to do.

librdkafka tries for ever, and says what went wrong only to its error callback. `Refusals` listens
there; `answer` waits for the broker and ends at once for what no waiting mends: a wrong password,
a certificate that is not trusted, TLS on one side only.
"""

import logging
import time
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError

TIMEOUT_S = 10.0
_FOR_GOOD = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError._SSL,
}
NO_RIGHT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_NOBODY = {KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE}
_CONNECTING = {KafkaError._TRANSPORT, KafkaError._RESOLVE}  # says what happened to a connection

SILENT = logging.getLogger("streamlearn.librdkafka")  # for producers: what ends one is raised
SILENT.disabled = True  # else it is a line on standard error as well

# Of a producer. One request at a time a broker: with several, the first message to a new topic was
# acknowledged and not there (two of 75 feeds, on a busy machine; none of 100 with one). Supposed,
# not traced: the new leader refuses batch 0, then takes batch 1, since of a producer that it does
# not know it takes any number, and calls batch 0, sent again, a duplicate.
IDEMPOTENT = {"acks": "all", "enable.idempotence": True, "max.in.flight": 1}


class Client(Protocol):
    """An AdminClient, a Producer or a Consumer."""

    def list_topics(self, *, timeout: float) -> ClusterMetadata:
        """What is there."""

    def poll(self, timeout: float) -> Any:
        """Serve callbacks."""


class Refusals:
    """A client's error_cb; pass it as that, and to `answer`. It keeps the first of each kind."""

    def __init__(self) -> None:
        self._heard: dict[int, KafkaError] = {}

    def __call__(self, error: KafkaError) -> None:
        self._heard.setdefault(error.code(), error)

    def first(self, codes: set[int]) -> KafkaError | None:
        """The first that was heard of these."""
        return next((error for code, error in self._heard.items() if code in codes), None)


def who(kafka: KafkaConfig) -> str:
    """Whom a broker takes us for, in words."""
    if kafka.protocol.startswith("SASL_"):
        return f"user {kafka.username!r}"
    if kafka.protocol == "SSL" and kafka.cert_file is not None:
        return f"the owner of {kafka.cert_file}"
    return "a client without a name"


def connect(kafka: KafkaConfig) -> AdminClient:
    """A client whose broker has answered; BrokerError when none listens, or within 10 s."""
    refusals = Refusals()
    settings: dict[str, Any] = dict(kafka.client_settings())
    settings |= {"log_level": 0, "error_cb": refusals}  # what goes wrong is raised
    client = AdminClient(settings)
    answer(client, kafka, refusals, timeout_s=TIMEOUT_S, patient=False)
    return client


def answer(
    client: Client,
    kafka: KafkaConfig,
    refusals: Refusals,
    *,
    timeout_s: float,
    patient: bool = True,
) -> ClusterMetadata:
    """The broker's topics. BrokerError after `timeout_s`, at once for what waiting does not mend,
    and, if not `patient`, where nobody listens.
    """
    deadline = time.monotonic() + timeout_s
    slice_s = 0.25  # a refusal is heard only between two tries; a slow network needs longer ones
    while True:
        try:
            left_s = max(0.05, deadline - time.monotonic())
            return client.list_topics(timeout=min(slice_s, left_s))
        except KafkaException as error:
            slice_s *= 2
            client.poll(0)  # calls error_cb
            final = refusals.first(_FOR_GOOD | (set() if patient else _NOBODY))
            if final is not None or time.monotonic() > deadline:
                raise BrokerError(_explain(kafka, refusals, error.args[0])) from None


def _explain(kafka: KafkaConfig, refusals: Refusals, last: KafkaError) -> str:
    at, connecting = kafka.bootstrap, refusals.first(_CONNECTING)
    found = refusals.first(_FOR_GOOD) or connecting or refusals.first(_NOBODY) or last
    text = found.str().partition(": ")[2] or found.str()  # without sasl_ssl://host:port/bootstrap
    text = text.partition(" (after ")[0]
    if found.code() == KafkaError._SSL or "SSL" in text.partition("handshake")[0]:
        return (
            f"no TLS with {at}: {text}; look at kafka.ca_file ({_given(kafka.ca_file)}), "
            f"kafka.cert_file ({_given(kafka.cert_file)}), kafka.protocol ({kafka.protocol}), and "
            "whether the broker's certificate is for this host"
        )
    if found.code() in _FOR_GOOD and "mechanism handshake" in text:
        return f"{at} does not take {kafka.sasl_mechanism}: {text}; set kafka.sasl_mechanism"
    if found.code() in _FOR_GOOD:
        return (
            f"{at} refused {who(kafka)} ({kafka.sasl_mechanism}): user or password is wrong; "
            "check kafka.username, and kafka.password or kafka.password_file"
        )
    if found.code() == KafkaError._ALL_BROKERS_DOWN and connecting is None:
        return (
            f"{at} ends the connection without a word: it seems to want another protocol than "
            f"{kafka.protocol}; set kafka.protocol (STREAMLEARN_KAFKA__PROTOCOL) to what it "
            "takes, mostly SASL_SSL, SSL or PLAINTEXT"
        )
    return (
        f"no Kafka broker answers at {at} ({text}); start one with "
        "`streamlearn broker`, or set STREAMLEARN_BOOTSTRAP to where yours listens"
    )


def _given(file: Path | None) -> str:
    return "not set" if file is None else str(file)


def said(kafka: KafkaConfig, error: KafkaError) -> str:
    """An error of the broker in words; a right that is missing, with the remedy."""
    if error.code() not in NO_RIGHT:
        return error.str()
    return (
        f"{who(kafka)} has no right to that ({error.str()}); `streamlearn doctor` tells for which "
        "work its rights are enough, `streamlearn access apply` grants more"
    )


def wait_for_reports(producer: Producer, timeout_s: float) -> int:
    """How many messages are still on their way after that time. KafkaException at its end.

    As its `flush`, which after it has set an exception goes on to call delivery reports: in Python
    each of these ends in a SystemError, with the locks taken that it had taken. `poll` stops.
    """
    deadline = time.monotonic() + timeout_s
    while len(producer) > 0 and (left_s := deadline - time.monotonic()) > 0:
        producer.poll(min(left_s, 0.05))  # another thread may serve the last report meanwhile
    return len(producer)


def no_topics(kafka: KafkaConfig, names: list[str]) -> BrokerError:
    """Topics that should be there are not seen."""
    unseen = f", or {who(kafka)} may not see them" if kafka.protocol != "PLAINTEXT" else ""
    return BrokerError(
        f"{kafka.bootstrap} has no topic {', '.join(names)}{unseen}; make the topics with "
        "`streamlearn topics apply`"
        + (", see `streamlearn access list` for the rights" if unseen else "")
    )
