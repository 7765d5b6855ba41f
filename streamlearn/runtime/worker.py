"""One worker: Faust's app, the learning thread, and everything that they need, put together.

Faust reads the events topic and keeps the group (`app`); `agents` takes frames to the learning
thread; `trainer` learns there; `process` ends it all in time, and `watchdog` when it hangs.
"""

import logging
import os
import socket
import time
from pathlib import Path
from tempfile import TemporaryFile

from streamlearn import topics as topic_specs
from streamlearn.config import Config
from streamlearn.errors import BrokerError, ConfigError, StreamlearnError
from streamlearn.runtime import access, admin, keys
from streamlearn.runtime.agents import Agent
from streamlearn.runtime.amends import Amends, Decision
from streamlearn.runtime.app import WorkerApp
from streamlearn.runtime.budget import Budget
from streamlearn.runtime.group_offsets import KafkaGroupOffsets
from streamlearn.runtime.late_labels import Forwarding
from streamlearn.runtime.log import KafkaLog
from streamlearn.runtime.logs import OURS
from streamlearn.runtime.process import Hushed, Process, end_now
from streamlearn.runtime.publisher import KafkaPublisher
from streamlearn.runtime.restore import Restore
from streamlearn.runtime.standing import GroupView
from streamlearn.runtime.trainer import Trainer
from streamlearn.runtime.warm_up import warm_up
from streamlearn.runtime.watchdog import Pulse, Watch, Watchdog, Work
from streamlearn.stores.rocksdb import RocksDBStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.telemetry.metrics_server import MetricsServer
from streamlearn.topics import Topics
from streamlearn.wire.signing import Signer, Verifier

log = logging.getLogger(OURS)


def run(config: Config, decision: Decision | None = None) -> None:
    """Work until SIGTERM or Ctrl-C. Raises what stopped the worker: a StreamlearnError, mostly.

    `decision`: what to do first where states and log don't fit.
    BrokerError when no broker answers or topics are missing, ConfigError when they are wrong.
    """
    if config.worker.late_labels and not config.learner.late_labels:
        raise ConfigError(
            "worker.late_labels passes labels on to events that nobody remembers; set "
            "STREAMLEARN_LEARNER__LATE_LABELS to how many each stream should remember, as 1024"
        )
    if config.worker.label_requests and not config.worker.late_labels:
        raise ConfigError(
            "worker.label_requests asks for labels that this worker would not take; set "
            "STREAMLEARN_WORKER__LATE_LABELS to true and STREAMLEARN_LEARNER__LATE_LABELS to how "
            "many events each stream should remember, as 1024"
        )
    topics = topic_specs.load(prefix=config.topics.prefix, partitions=config.topics.partitions)
    access.check(config.kafka, "worker", topics, config.worker.group)
    _check_topics(config, topics)
    key = keys.signer(config.worker.signing_key, prefix=config.topics.prefix)
    worker_id = f"{socket.gethostname()}-{os.getpid()}"
    folder = _folder(config)
    metrics = WorkerMetrics()
    server = MetricsServer(
        metrics.registry, host=config.worker.metrics_host, port=config.worker.metrics_port
    )
    pulse = Pulse()
    publisher = KafkaPublisher(config.kafka, client_id=worker_id, progress=pulse)
    kafka_log = KafkaLog(config.kafka, group=config.worker.group, progress=pulse)
    trainer = _trainer(config, topics, worker_id, folder, key, publisher, kafka_log, metrics, pulse)
    log.info(
        "worker %s in group %s at %s, state in %s, metrics at %s",
        worker_id,
        config.worker.group,
        config.kafka.bootstrap,
        folder,
        server.url,
    )
    if key is not None:
        log.info("what subscribers read is signed with key %s", key.key_id)
    if decision is not None:
        _amend(decision, config, topics, folder, publisher, kafka_log)
    log.info("warming up; the first time on this machine, loops are compiled: half a minute")
    warm_up(config.learner)
    app = WorkerApp(config, topics, worker_id)
    app.trainer = trainer
    app.forwarding = Forwarding(topics, publisher=publisher, metrics=metrics)
    watch = _watch(config, topics, worker_id, trainer, publisher, pulse)
    watch.start()
    try:
        _serve(app, config, publisher)
    finally:
        watch.stop()
        trainer.close()
        kafka_log.close()
        server.close()
    log.info("stopped")


def _folder(config: Config) -> Path:
    """Of this group's states, in the worker's own; ConfigError where it cannot be had."""
    name = f"{config.topics.prefix}{config.worker.group}".replace("/", "%2F")
    folder = config.worker.state_dir / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigError(
            f"state folder {folder} cannot be made or written: {error.strerror}; give another with "
            "--state-dir (STREAMLEARN_WORKER__STATE_DIR)"
        ) from None


def _trainer(
    config: Config,
    topics: Topics,
    worker_id: str,
    folder: Path,
    key: Signer | None,
    publisher: KafkaPublisher,
    kafka_log: KafkaLog,
    metrics: WorkerMetrics,
    pulse: Pulse,
) -> Trainer:
    return Trainer(
        config.learner,
        topics,
        worker_id=worker_id,
        open_store=lambda number: RocksDBStore(folder / str(number)),
        memory_budget_bytes=config.worker.memory_budget_mib << 20,
        publisher=publisher,
        log=kafka_log,
        metrics=metrics,
        clock=time.time,
        budget=Budget(
            config.worker.checkpoint_mib_per_s * 2**20,
            burst_s=config.worker.checkpoint_interval_s,
            clock=time.monotonic,
        ),
        predictions=config.worker.predictions,
        label_requests=config.worker.label_requests,
        signer=key,
        verifier=_trusted(config),
        effect=pulse,
    )


def _trusted(config: Config) -> Verifier | None:
    worker, subscriber, prefix = config.worker, config.subscriber, config.topics.prefix
    return keys.trusted(worker.signing_key, subscriber.public_keys, prefix=prefix)


def _amend(
    decision: Decision,
    config: Config,
    topics: Topics,
    folder: Path,
    publisher: KafkaPublisher,
    kafka_log: KafkaLog,
) -> None:
    """Before the group is joined: it must be empty."""
    log.warning("%s: %s", decision, decision.costs)

    def effect(name: str) -> None:
        log.debug("%s: %s", decision, name)

    Amends(
        topics,
        log=kafka_log,
        offsets=KafkaGroupOffsets(config.kafka, group=config.worker.group),
        restore=Restore(
            topics,
            log=kafka_log,
            publisher=publisher,
            clock=time.time,
            effect=effect,
            verifier=_trusted(config),
        ),
        open_store=lambda number: RocksDBStore(folder / str(number)),
        say=lambda line: log.warning("%s: %s", decision, line),
    ).carry_out(decision)


def _watch(
    config: Config,
    topics: Topics,
    worker_id: str,
    trainer: Trainer,
    publisher: KafkaPublisher,
    pulse: Pulse,
) -> Watch:
    events = topics["events"].full_name
    work = Work(
        pulse,
        positions=lambda: {(events, n): offset for n, offset in trainer.positions().items()},
        waits=lambda: publisher.waiting,
    )
    view = GroupView(
        config.kafka,
        group=config.worker.group,
        client_id=worker_id,
        instance=config.worker.instance,
    )
    watchdog = Watchdog(
        work,
        ask=view.ask,
        has_message=view.has_message,
        deadline_s=config.worker.stall_deadline_s,
        clock=time.monotonic,
    )
    return Watch(watchdog, end_now)


def _serve(app: WorkerApp, config: Config, publisher: KafkaPublisher) -> None:
    app.learning = Agent(
        app.trainer,
        acknowledge=lambda message: message.ack(app.consumer),
        clock=time.monotonic,
        checkpoint_interval_s=config.worker.checkpoint_interval_s,
    )
    quiet = Hushed(lambda: isinstance(app.failure, StreamlearnError))
    for handler in logging.getLogger().handlers:
        handler.addFilter(quiet)
    try:
        Process(app, publisher.give_up).execute_from_commandline()
    except SystemExit as end:
        if app.failure is not None:
            raise app.failure from None
        if end.code not in (0, None):
            raise BrokerError(
                f"the worker stopped by itself: {end.__context__ or 'its log says why'}. Start it "
                "again: it goes on where it was"
            ) from None
    finally:
        app.learning.close()


def _check_topics(config: Config, topics: Topics) -> None:
    """Faust waits in silence for a topic that is not there."""
    for difference in admin.diff(config.kafka, topics):
        if difference.kind is admin.Difference.MISSING:
            raise BrokerError(
                f"{difference.topic} is missing at {config.kafka.bootstrap}; create the topics "
                "with `streamlearn topics apply`"
            )
        if difference.kind is admin.Difference.PARTITIONS:
            raise ConfigError(
                f"{difference}; set STREAMLEARN_TOPICS__PARTITIONS to {difference.found}, or use "
                "another prefix (STREAMLEARN_TOPICS__PREFIX)"
            )
