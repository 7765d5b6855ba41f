"""A Kafka broker of one's own: one KRaft node on this machine, for development, demo and tests.

Java starts it from jars that Maven fetches once into a cache folder; without Java and Maven,
Docker runs the official image. `admin` then creates the topics; nothing else in the package
knows where the broker came from.
"""

import base64
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamlearn.errors import BrokerError, ConfigError
from streamlearn.runtime.kafka_jars import DEFAULT_CACHE, jars, jars_folder, java
from streamlearn.shipped import shipped

HOST = "127.0.0.1"
IMAGE = "apache/kafka:4.3.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class LocalBroker:
    """A broker that runs as long as the `with` block, and never longer than this process.

    `port` 0 picks a free one; `data_dir` None is a temporary folder that goes away afterwards.
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
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.port = port
        self.data_dir = data_dir
        self.cache_dir = cache_dir
        self.heap = heap
        self._on_progress = on_progress or (lambda message: None)
        self._controller_port = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it is not running."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    @property
    def log_file(self) -> Path:
        """What the broker printed, over all its starts."""
        return self._folder() / "kafka.log"

    def __enter__(self) -> Self:
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
        self._controller_port = self._controller_port or free_port()
        if self.data_dir is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="streamlearn-kafka-")
            self.data_dir = Path(self._temporary.name)
        try:
            self._launch()
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
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill9(self) -> None:
        """SIGKILL, as a power cut would. restart() brings it back."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def wait(self) -> int:
        """Block until the broker ends by itself; its exit code."""
        return 0 if self._process is None else self._process.wait()

    def close(self) -> None:
        """Stop, and remove the data folder if it is a temporary one."""
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary, self.data_dir = None, None

    def _folder(self) -> Path:
        if self.data_dir is None:
            raise BrokerError("the broker was not started; enter it with `with LocalBroker():`")
        return self.data_dir

    def _launch(self) -> None:
        folder = self._folder().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if can_use_java(self.cache_dir):
            libs = jars(self.cache_dir, self._on_progress)
            properties = self._write_properties(folder)
            base = [java(), "-cp", f"{libs}/*"]
            self._format(base, folder, properties)
            command = [
                *(base[0], f"-Xmx{self.heap}", f"-Xms{self.heap}", *base[1:]),
                f"-Dlog4j2.configurationFile={shipped('kafka') / 'log4j2.properties'}",
                *("kafka.Kafka", str(properties)),
            ]
            last_signal = signal.SIGKILL
        elif docker := shutil.which("docker"):
            command = self._docker_command(docker, folder)
            last_signal = signal.SIGTERM  # the docker client hands it on to the container
        else:
            raise ConfigError(
                "a local broker needs Java 17 with Maven, or Docker, and neither is on the PATH; "
                "install one, or set STREAMLEARN_BOOTSTRAP to a broker that runs"
            )
        self._on_progress("starting Kafka")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us, and we stop it in order
                preexec_fn=_die_with_parent(last_signal),
            )

    def _settings(self, folder: Path) -> dict[str, str]:
        controller = f"{HOST}:{self._controller_port}"
        return {
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(folder / "log"),
        }

    def _write_properties(self, folder: Path) -> Path:
        shared = (shipped("kafka") / "server.properties").read_text(encoding="utf-8")
        own = "\n".join(f"{key}={value}" for key, value in self._settings(folder).items())
        path = folder / "server.properties"
        path.write_text(f"{shared}\n{own}\n", encoding="utf-8")
        return path

    def _format(self, base: list[str], folder: Path, properties: Path) -> None:
        if (folder / "log" / "meta.properties").exists():
            return
        # Kafka's form of an id: 22 characters, never a leading dash
        cluster = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        done = subprocess.run(
            [*base, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise BrokerError(
                f"Kafka cannot use {folder}: {(done.stderr or done.stdout).strip()[-800:]}; "
                "choose an empty --data-dir"
            )

    def _docker_command(self, docker: str, folder: Path) -> list[str]:
        inside = {
            **self._settings(Path("/data")),
            "listeners": f"PLAINTEXT://:{self.port},CONTROLLER://:{self._controller_port}",
        }
        shared = (shipped("kafka") / "server.properties").read_text(encoding="utf-8").splitlines()
        lines = [line for line in shared if line and not line.startswith("#")]
        lines += [f"{key}={value}" for key, value in inside.items()]
        variables = []
        for line in lines:  # the image takes its settings as KAFKA_LOG_DIRS=...
            key, _, value = line.partition("=")
            variables += ["-e", f"KAFKA_{key.upper().replace('.', '_')}={value}"]
        return [
            *(docker, "run", "--rm", "--init", "-p", f"{HOST}:{self.port}:{self.port}"),
            *("-v", f"{folder}:/data", "--user", f"{os.getuid()}:{os.getgid()}"),
            *("-e", f"KAFKA_HEAP_OPTS=-Xmx{self.heap}", *variables, IMAGE),
        ]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.pid is None:
                raise BrokerError(f"Kafka ended while starting:\n{self.log_tail()}")
            if _listening(self.port) and _answers(self.bootstrap):
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


def can_use_java(cache_dir: Path = DEFAULT_CACHE) -> bool:
    """Whether a broker can be started with Java: jars at hand, or Maven to fetch them."""
    return shutil.which("java") is not None and (
        shutil.which("mvn") is not None or jars_folder(cache_dir).is_dir()
    )


def free_port() -> int:
    """A port that nobody listens on, below the range that clients' own sockets come from."""
    for _ in range(200):
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise BrokerError("no free port between 15000 and 32000; stop something that listens there")


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def _answers(bootstrap: str) -> bool:
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return bool(client.list_topics(timeout=2.0).brokers)
    except KafkaException:
        return False


def _die_with_parent(last_signal: signal.Signals) -> Callable[[], None] | None:
    """Linux: the kernel sends `last_signal` to the child when the parent is gone, however."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(last_signal))
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)

    return in_child
