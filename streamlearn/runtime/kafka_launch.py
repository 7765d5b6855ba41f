"""The commands that run one Kafka node: by Java, or by Docker's official image.

Only commands are made here; `broker` starts and stops them. Both get deploy/kafka's
server.properties and, on top, this node's ports and data folder.
"""

import base64
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamlearn.errors import BrokerError, ConfigError
from streamlearn.runtime.kafka_jars import DEFAULT_CACHE, jars, jars_folder, java
from streamlearn.runtime.secure_folder import SecureFolder
from streamlearn.shipped import shipped

HOST = "127.0.0.1"
_FRAME = re.compile(r"\s+(at |\.\.\. )")  # of a Java stack trace
IMAGE = "apache/kafka:4.3.1"
QUICK_START = "-XX:TieredStopAtLevel=1"  # the first compiler only: 2.4 s of CPU to start, not 4.2


@dataclass(frozen=True, slots=True)
class Node:
    """Where one broker listens and keeps its data."""

    port: int
    controller_port: int
    folder: Path  # absolute
    heap: str  # as for java -Xmx
    secure: SecureFolder | None = None  # None: whoever reaches it may do everything
    internal_port: int = 0  # of a secured one, for itself and programs with a certificate

    def settings(self, *, listen_on: str, data: Path) -> dict[str, str]:
        """What server.properties leaves open."""
        if self.secure is not None:
            ports = {
                "CLIENTS": self.port,
                "INTERNAL": self.internal_port,
                "CONTROLLER": self.controller_port,
            }
            listeners = {name: f"{name}://{HOST}:{port}" for name, port in ports.items()}
            return {
                "listeners": ",".join(listeners.values()),
                "advertised.listeners": f"{listeners['CLIENTS']},{listeners['INTERNAL']}",
                "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
                "log.dirs": str(data),
                **self.secure.broker_properties(),
            }
        return {
            "listeners": f"PLAINTEXT://{listen_on}:{self.port},"
            f"CONTROLLER://{listen_on}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "log.dirs": str(data),
        }


def can_use_java(cache_dir: Path = DEFAULT_CACHE) -> bool:
    """Whether a broker can be started with Java: jars at hand, or Maven to fetch them."""
    return shutil.which("java") is not None and (
        shutil.which("mvn") is not None or jars_folder(cache_dir).is_dir()
    )


def command(node: Node, cache_dir: Path, on_progress: Callable[[str], None]) -> list[str]:
    """How to run the node, its data folder made ready.

    ConfigError without Java and Docker; BrokerError for a folder that Kafka cannot use.
    """
    if can_use_java(cache_dir):
        return _java_command(node, jars(cache_dir, on_progress))
    docker = shutil.which("docker")
    if docker is not None and node.secure is None:
        return _docker_command(node, docker)
    if docker is not None:
        raise ConfigError("a secured local broker needs Java 17 with Maven; Docker runs others")
    raise ConfigError(
        "a local broker needs Java 17 with Maven, or Docker, and neither is on the PATH; "
        "install one, or set STREAMLEARN_BOOTSTRAP to a broker that runs"
    )


def stop_command(node: Node, started: list[str], *, at_once: bool) -> list[str] | None:
    """What must run beside the signal: a container is not its client's child."""
    if not started[0].endswith("docker"):
        return None
    return [started[0], "kill" if at_once else "stop", _container(node)]


def _java_command(node: Node, libs: Path) -> list[str]:
    shared = (shipped("kafka") / "server.properties").read_text(encoding="utf-8")
    if node.secure is not None:  # where a line comes twice, the last one counts
        secure = shipped("kafka") / "secure" / "server.properties"
        shared += secure.read_text(encoding="utf-8")
    own = node.settings(listen_on=HOST, data=node.folder / "log")
    properties = node.folder / "server.properties"
    lines = "\n".join(f"{key}={value}" for key, value in own.items())
    properties.write_text(f"{shared}\n{lines}\n", encoding="utf-8")
    if not (node.folder / "log" / "meta.properties").exists():
        users = None if node.secure is None else node.secure.new_users()
        _format(node.folder, libs, properties, users)
    return [
        *(java(), QUICK_START, f"-Xmx{node.heap}", f"-Xms{node.heap}", "-cp", f"{libs}/*"),
        f"-Dlog4j2.configurationFile={shipped('kafka') / 'log4j2.properties'}",
        *("kafka.Kafka", str(properties)),
    ]


def _format(folder: Path, libs: Path, properties: Path, users: str | None) -> None:
    # Kafka's form of an id: 22 characters, never a leading dash
    cluster = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    tool = [java(), QUICK_START, "-cp", f"{libs}/*", "kafka.tools.StorageTool", "format"]
    if users is not None:
        tool.append("@/dev/stdin")  # passwords: not on the command line, which all may see
    done = subprocess.run(
        [*tool, "-t", cluster, "-c", str(properties)], capture_output=True, text=True, input=users
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = " ".join(line for line in said if not _FRAME.match(line))
        raise BrokerError(f"Kafka cannot use {folder}: {why[-800:]}; choose an empty --data-dir")


def _container(node: Node) -> str:
    return f"streamlearn-kafka-{node.port}"


def _docker_command(node: Node, docker: str) -> list[str]:
    shared = (shipped("kafka") / "server.properties").read_text(encoding="utf-8").splitlines()
    lines = [line for line in shared if line and not line.startswith("#")]
    own = node.settings(listen_on="", data=Path("/data/log"))
    lines += [f"{key}={value}" for key, value in own.items()]
    variables: list[str] = []
    for line in lines:  # the image takes its settings as KAFKA_LOG_DIRS=...
        key, _, value = line.partition("=")
        variables += ["-e", f"KAFKA_{key.upper().replace('.', '_')}={value}"]
    return [
        *(docker, "run", "--rm", "--name", _container(node)),
        *("-p", f"{HOST}:{node.port}:{node.port}", "-v", f"{node.folder}:/data"),
        *("--user", f"{os.getuid()}:{os.getgid()}"),
        *("-e", f"KAFKA_HEAP_OPTS=-Xmx{node.heap}", *variables, IMAGE),
    ]
