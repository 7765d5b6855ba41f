"""Signals raise in the main thread, with an instance that a C library can hand on."""

import signal
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, Message, Producer

from streamlearn.cli.interrupts import interrupt_on


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_inside_a_callback_of_confluent_kafka_is_raised() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt_on(signal.SIGINT)
    producer = Producer(
        {"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 1, "log_level": 0}
    )

    def reported(error: KafkaError | None, message: Message) -> None:
        signal.raise_signal(signal.SIGINT)

    producer.produce("anything", b"", callback=reported)

    def wait_for_reports() -> None:
        while True:  # pytest's timeout ends a failure
            producer.poll(0.05)

    with pytest.raises(KeyboardInterrupt):
        wait_for_reports()


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    interrupt_on(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)
