"""A Kafka broker of one's own: one KRaft node on this machine, for development, demo and tests.

`kafka_launch` says how to run it; here it is started, waited for, stopped, killed and started
again. `admin` then creates the topics; nothing else knows where the broker came from.
"""

import fcntl
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Set
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError
from streamlearn.runtime import kafka_launch
from streamlearn.runtime.child import ChildProcess
from streamlearn.runtime.kafka_jars import DEFAULT_CACHE
from streamlearn.runtime.kafka_launch import HOST, Node
from streamlearn.runtime.secure_folder import ROOT, SecureFolder

PORTS = range(15_000, 32_000)  # to choose from
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
_SCRATCH = "streamlearn-kafka-"


class LocalBroker(AbstractContextManager["LocalBroker"]):
    """A broker that runs as long as the `with` block, and never longer than this process.

    `port` 0 picks a free one; `data_dir` None is a temporary folder that goes away afterwards.
    `secure` takes users with passwords over TLS only, and keeps its data in its own folder.
    The same data folder and port come back with restart(), so clients only see it away.
    Enter it from a thread that lives as long as the broker: on Linux the child is told to die
    with the thread that started it.

        with LocalBroker() as broker:
            Feeder(broker.bootstrap)
    """

    def __init__(
        self,
        *,
        port: int = 0,
        data_dir: Path | None = None,
        cache_dir: Path = DEFAULT_CACHE,
        heap: str = "512m",
        secure: SecureFolder | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.port = port
        self.data_dir = data_dir if data_dir is not None or secure is None else secure.data_dir
        self.secure = secure
        self.cache_dir = cache_dir
        self.heap = heap
        self._on_progress = on_progress or (lambda message: None)
        self._controller_port = self._internal_port = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._ownership: IO[str] | None = None
        self._node: Node | None = None
        self._command: list[str] = []
        self._child: ChildProcess | None = None

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.port}"

    @property
    def kafka(self) -> KafkaConfig:
        """How clients reach it; a secured one: as root, who may do everything."""
        if self.secure is None:
            return KafkaConfig(bootstrap=self.bootstrap)
        return self.secure.kafka(ROOT, self.bootstrap)

    @property
    def internal(self) -> str:
        """host:port of a secured one for programs with a certificate of its authority."""
        return f"{HOST}:{self._internal_port}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it is not running."""
        return self._child.pid if self._child is not None else None

    @property
    def log_file(self) -> Path:
        """What the broker printed, over all its starts."""
        if self.data_dir is None:
            raise BrokerError("the broker was not started; enter it with `with LocalBroker():`")
        return self.data_dir / "kafka.log"

    def __enter__(self) -> "LocalBroker":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Format the data folder if it is new, start, return when clients are answered."""
        if self.pid is not None:
            return
        if self.port == 0:
            self.port = free_port()
        elif _listening(self.port):
            raise BrokerError(
                f"port {self.port} is taken; choose another with --port, or use what listens "
                f"there: STREAMLEARN_BOOTSTRAP={HOST}:{self.port}"
            )
        self._controller_port = self._controller_port or free_port({self.port})
        if self.secure is not None:
            self.secure.prepare()
            chosen = {self.port, self._controller_port}
            self._internal_port = self._internal_port or free_port(chosen)
        if self.data_dir is None:
            _sweep()
            self._temporary = tempfile.TemporaryDirectory(prefix=_SCRATCH)
            self.data_dir = Path(self._temporary.name)
            self._ownership = _own(self.data_dir)
        try:
            self._launch(self.data_dir)
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """Stop if it runs, then start again on the same data folder and port."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """SIGTERM, after 10 s SIGKILL. The data stays, until close() for a temporary folder."""
        self._end_container(at_once=False)
        if self._child is not None:
            self._child.stop(STOP_TIMEOUT_S)

    def kill9(self) -> None:
        """SIGKILL, as a power cut would. restart() brings it back."""
        self._end_container(at_once=True)
        if self._child is not None:
            self._child.kill9()

    def wait(self) -> int | None:
        """Block until the broker ends by itself; its exit code."""
        while self.pid is not None:
            time.sleep(0.2)
        return None if self._child is None else self._child.exit_code

    def close(self) -> None:
        """Stop, and remove the data folder if it is a temporary one."""
        if self._temporary is None:
            self.stop()
        else:
            self.kill9()  # an orderly end is for the sake of data that stays
            if self._ownership is not None:
                self._ownership.close()
            self._temporary.cleanup()
            self._temporary, self._ownership, self.data_dir = None, None, None

    def _launch(self, data_dir: Path) -> None:
        folder = data_dir.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._node = Node(
            *(self.port, self._controller_port, folder, self.heap),
            secure=self.secure,
            internal_port=self._internal_port,
        )
        self._command = kafka_launch.command(self._node, self.cache_dir, self._on_progress)
        self._on_progress("starting Kafka")
        self._child = ChildProcess("kafka", self._command, env=None, log_file=self.log_file)
        self._child.start()

    def _end_container(self, *, at_once: bool) -> None:
        if self._node is None or self.pid is None:
            return
        beside = kafka_launch.stop_command(self._node, self._command, at_once=at_once)
        if beside is not None:
            subprocess.run(beside, capture_output=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.pid is None:
                raise BrokerError(f"Kafka ended while starting:\n{self.log_tail()}")
            if _listening(self.port) and _answers(self.kafka):
                return
            time.sleep(0.05)
        raise BrokerError(
            f"Kafka did not answer at {self.bootstrap} in {START_TIMEOUT_S:.0f} s:\n"
            f"{self.log_tail()}"
        )

    def log_tail(self) -> str:
        """The log from its last serious line on, for error messages."""
        if not self.log_file.exists():
            return "(no log)"
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        serious = [i for i, line in enumerate(lines) if " ERROR " in line or " FATAL " in line]
        start = serious[-1] if serious else max(0, len(lines) - 6)
        return "\n".join(lines[start : start + 6])


def _own(folder: Path) -> IO[str]:
    """A lock that the system lets go of when this process is gone, however that happens."""
    unlocked = folder / "owner.new"  # an owner that is seen is locked
    owner = unlocked.open("w")
    fcntl.flock(owner, fcntl.LOCK_EX)
    unlocked.rename(folder / "owner")
    return owner


def _sweep() -> None:
    """Remove temporary folders whose processes were killed before they could."""
    for owner_file in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*/owner"):
        with suppress(OSError), owner_file.open() as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner_file.parent, ignore_errors=True)


def free_port(chosen: Set[int] = frozenset()) -> int:
    """A port that nobody listens on, below the range that clients' own sockets come from.

    `chosen`: others that were found free, and are not used yet.
    """
    for _ in range(200):
        port = random.choice(PORTS)
        if port in chosen:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise BrokerError(
        f"no free port from {PORTS.start} to {PORTS.stop}; stop something that listens there"
    )


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def _answers(kafka: KafkaConfig) -> bool:
    client = AdminClient({**kafka.client_settings(), "log_level": 0})
    try:
        return bool(client.list_topics(timeout=2.0).brokers)
    except KafkaException:
        return False
