"""The worker's Faust app: one agent on the events topic, and what Faust lacks.

Faust reads the topic and keeps the group; `agents` takes frames to the learning thread. Added
here: partitions are handed over with a checkpoint and a commit before they go, and what stops the
worker is its last word. `worker` puts app and learning together.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import faust
from faust.transport.drivers import aiokafka as driver
from mode.supervisors import CrashingSupervisor

from streamlearn.config import Config, KafkaConfig
from streamlearn.runtime.agents import MAX_FRAMES, WITHIN_S, Agent
from streamlearn.runtime.late_labels import Forwarding
from streamlearn.runtime.logs import OURS
from streamlearn.runtime.process import HARD_STOP_S, hard_stop, later
from streamlearn.runtime.trainer import Trainer
from streamlearn.topics import Topics

SESSION_S = 6.0  # the broker's default minimum; a dead worker's partitions move after it
HEARTBEAT_S = 1.0
BUFFERED_FRAMES = 256  # a partition, fetched ahead
TICK_S = 0.25
METRICS_EVERY_S = 5.0

log = logging.getLogger(OURS)


class _Consumer(driver.Consumer):
    """Hands partitions over before Faust forgets what was acknowledged."""

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        await cast(WorkerApp, self.app).hand_over()
        await super().on_partitions_revoked(revoked)


class _Transport(driver.Transport):
    Consumer = _Consumer


class WorkerApp(faust.App):
    """Faust's app with one agent on the events topic, and perhaps one on the labels topic."""

    def __init__(self, config: Config, topics: Topics, worker_id: str) -> None:
        kafka, worker = config.kafka, config.worker
        super().__init__(
            worker.group,
            broker=[f"kafka://{server}" for server in kafka.bootstrap.split(",")],
            broker_credentials=_credentials(kafka),
            broker_client_id=worker_id,
            broker_session_timeout=SESSION_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_commit_interval=1.0,
            consumer_group_instance_id=worker.instance,
            datadir=str(worker.state_dir / "faust"),
            agent_supervisor=CrashingSupervisor,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_buffer_maxsize=BUFFERED_FRAMES,
            stream_wait_empty=False,  # acknowledgements wait for checkpoints
            web_enabled=False,
            worker_redirect_stdouts=False,
        )
        self.failure: BaseException | None = None
        self.learning: Agent
        self.trainer: Trainer
        self.forwarding: Forwarding
        self._events = topics["events"].full_name
        self.agent(self._source(self._events), concurrency=1)(self._learn)
        if worker.late_labels:
            self.agent(self._source(topics["labels"].full_name), concurrency=1)(self._pass_on)
        self.on_rebalance_complete.connect(self._own)
        self.on_before_shutdown.connect(self._last_checkpoint)
        self.task(self._tick)

    def _source(self, topic: str) -> Any:
        return self.topic(
            topic, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw"
        )

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    async def hand_over(self) -> None:
        """Checkpoint and commit while the partitions are still ours."""
        with self._stops_worker():
            await self.learning.hand_over()
            await self.consumer.commit()

    async def _learn(self, stream: Any) -> None:
        stream.enable_acks = False  # else noack_take, broken off by an error, turns them on
        async for events in stream.noack_take(MAX_FRAMES, within=WITHIN_S):
            with self._stops_worker():
                await self.learning.take(events)

    async def _pass_on(self, stream: Any) -> None:
        """Late labels join the events log: what is learned follows from that log alone."""
        stream.enable_acks = False
        async for events in stream.noack_take(MAX_FRAMES, within=WITHIN_S):
            with self._stops_worker():
                await self.learning.pass_on(events, self.forwarding.forward)

    async def _own(self, *_: Any, **__: Any) -> None:
        # awaited before events flow (on_partitions_assigned is not)
        assigned = self.consumer.assignment()
        partitions = [tp.partition for tp in assigned if tp.topic == self._events]
        with self._stops_worker():
            await self.learning.own(partitions, self.consumer_generation_id)

    async def _last_checkpoint(self, *_: Any, **__: Any) -> None:
        with self._stops_worker():
            await self.learning.hand_over()

    async def _tick(self) -> None:
        """Checkpoints for streams that pause; lag; metrics to their topic."""
        published = time.monotonic()
        while not self.should_stop:
            await self.sleep(TICK_S)
            with self._stops_worker():
                await self.learning.tick()
                self._show_lag()
                if time.monotonic() - published >= METRICS_EVERY_S:
                    published = time.monotonic()
                    await self.learning.call(self.trainer.publish_metrics)

    def _show_lag(self) -> None:
        ends = {
            tp.partition: self.consumer.highwater(tp)
            for tp in self.consumer.assignment()
            if tp.topic == self._events
        }
        self.trainer.show_lag({number: end for number, end in ends.items() if end is not None})

    @contextmanager
    def _stops_worker(self) -> Iterator[None]:
        """Remember the first failure: it is the worker's last word, and gives the exit code."""
        try:
            yield
        except Exception as error:
            if self.failure is None:
                self.failure = error
                later(HARD_STOP_S, partial(hard_stop, str(error)))
            raise


def _credentials(kafka: KafkaConfig) -> Any:
    if kafka.protocol == "PLAINTEXT":
        return None
    if kafka.protocol == "SSL":
        return faust.SSLCredentials(kafka.tls())
    return faust.SASLCredentials(
        username=kafka.username,
        password=kafka.secret(),
        mechanism=kafka.sasl_mechanism,
        ssl_context=kafka.tls(),
    )
