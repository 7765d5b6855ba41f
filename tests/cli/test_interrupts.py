"""Signals raise in the main thread, with an instance that a C library can hand on."""

import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest
from confluent_kafka import KafkaError, Message, Producer

from streamlearn import __main__
from streamlearn.cli import interrupts
from streamlearn.cli.interrupts import check, end_at_once_on, interrupt_on


@pytest.fixture(autouse=True)
def handlers_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(interrupts, "_came", threading.Event())
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_was_lost_is_remembered() -> None:
    class Anything:
        """A weak reference's callback can't raise, and importing a module runs one."""

    interrupt_on(signal.SIGHUP)
    check()
    thing = Anything()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGHUP))
    del thing
    assert reference() is None
    with pytest.raises(KeyboardInterrupt):
        check()


@pytest.mark.parametrize("debug", [False, True])
def test_what_an_interrupt_broke_is_no_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def broken(**_: object) -> None:
        with suppress(KeyboardInterrupt):  # as a C constructor does
            signal.raise_signal(signal.SIGINT)
        raise TypeError("expected something else")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(__main__, "app", broken)
    monkeypatch.setattr(sys, "argv", ["streamlearn", *(["--debug"] if debug else [])])
    with pytest.raises(TypeError if debug else SystemExit) as raised:
        __main__.main()
    assert debug or raised.value.args == (130,)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    interrupt_on(signal.SIGHUP)
    end_at_once_on(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)
