"""A worker that gets stuck, to be started as `python -m tests.crash.wedged HOW worker ...`.

HOW is where: `thread` (learning never returns), `agent` (Faust brings no more events), `loop`
(the event loop blocks), `own` (a rebalance never ends). Two are not stuck at all: `slow`, to whom
the state topic's records come one in 0.4 s, and `fails`, whose disk is full after a while.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from streamlearn.__main__ import main
from streamlearn.errors import StateError
from streamlearn.runtime.agents import Agent
from streamlearn.runtime.app import WorkerApp
from streamlearn.runtime.log import KafkaLog
from streamlearn.runtime.trainer import Trainer

WELL = 3  # calls that go well before


def for_ever(*_: Any) -> None:
    threading.Event().wait()


def disk_full(*_: Any) -> None:
    time.sleep(0.3)  # meanwhile Faust's buffers fill
    raise StateError("the disk is full")


async def awaits_for_ever(*_: Any) -> None:
    await asyncio.Event().wait()


def after(calls: int, well: Any, stuck: Any) -> Any:
    left = [calls]

    def method(self: Any, *arguments: Any) -> Any:
        left[0] -= 1
        return (well if left[0] >= 0 else stuck)(self, *arguments)

    return method


def slowly(read: Any) -> Any:
    def method(self: KafkaLog, topic: str, *place: int) -> Iterator[Any]:
        for record in read(self, topic, *place):
            if topic.endswith("state"):
                time.sleep(0.4)
            yield record

    return method


def wedge(how: str) -> None:
    patched: dict[str, tuple[Any, str, Any]] = {
        "thread": (Trainer, "learn", after(WELL, Trainer.learn, for_ever)),
        "fails": (Trainer, "learn", after(1, Trainer.learn, disk_full)),
        "agent": (Agent, "take", after(WELL, Agent.take, awaits_for_ever)),
        "loop": (WorkerApp, "_show_lag", after(WELL, WorkerApp._show_lag, for_ever)),
        "own": (Agent, "own", awaits_for_ever),
        "slow": (KafkaLog, "read", slowly(KafkaLog.read)),
    }
    setattr(*patched[how])


if __name__ == "__main__":
    wedge(sys.argv.pop(1))
    main()
