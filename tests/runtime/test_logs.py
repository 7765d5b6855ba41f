"""What repeats is counted, not shown."""

import io
import logging
from collections.abc import Iterator

import pytest

from streamlearn.runtime.logs import OURS, RateLimit, set_up
from streamlearn.testing import Clock


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("aiokafka", logging.ERROR, "", 0, text, arguments, None)


def test_a_message_comes_once_in_a_while_and_says_how_often() -> None:
    clock = Clock()
    limit = RateLimit(10.0, clock)
    assert limit.filter(record("node %d is down", 1))
    assert not limit.filter(record("node %d is down", 2))
    assert limit.filter(record("something else"))
    assert not limit.filter(record("node %d is down", 3))
    clock.forward(10.0)
    again = record("node %d is down", 4)
    assert limit.filter(again)
    assert again.getMessage() == "node 4 is down (2 more like it)"


@pytest.fixture
def untouched() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


@pytest.mark.usefixtures("untouched")
def test_ours_is_shown_and_fausts_chatter_is_not() -> None:
    stream = io.StringIO()
    set_up(stream, logging.INFO)
    logging.getLogger(OURS).info("partition %d", 3)
    logging.getLogger(OURS).info("partition %d", 3)  # what we say is never held back
    logging.getLogger(OURS).debug("checkpoint")
    logging.getLogger("faust.app.base").info("chatter")
    logging.getLogger("streamlearn.runtime.app").info("Faust's, under our module's name")
    lines = stream.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["INFO partition 3"] * 2
