"""Kafka's jars: fetched once by Maven into a cache folder, shared by all brokers of a user.

`deploy/kafka/pom.xml` says which; a changed pom gets a folder of its own. Several processes may
ask at once: one fetches, the others wait; a half-fetched folder is never seen.
"""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from streamlearn.errors import BrokerError, ConfigError
from streamlearn.shipped import shipped

DEFAULT_CACHE = Path("~/.cache/streamlearn")
FETCH_TIMEOUT_S = 600.0


def java() -> str:
    """The java to run; ConfigError when there is none."""
    found = shutil.which("java")
    if found is None:
        raise ConfigError("there is no java on the PATH; install Java 17 or newer")
    return found


def jars_folder(cache_dir: Path = DEFAULT_CACHE) -> Path:
    """Where the jars of this version are, or will be."""
    pom = (shipped("kafka") / "pom.xml").read_bytes()
    return cache_dir.expanduser() / f"kafka-{hashlib.sha256(pom).hexdigest()[:12]}"


def jars(cache_dir: Path = DEFAULT_CACHE, on_progress: Callable[[str], None] | None = None) -> Path:
    """The folder with the jars, fetched if need be (44 MB, some 5 s)."""
    folder = jars_folder(cache_dir)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():  # nobody fetched it while we waited
            if on_progress:
                on_progress("fetching Kafka with Maven, once (44 MB)")
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigError(
            "Kafka's jars are not in the cache and there is no mvn on the PATH to fetch them; "
            "install Maven, or set STREAMLEARN_BOOTSTRAP to a broker that runs"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as work:
        pom = shutil.copy(shipped("kafka") / "pom.xml", work)
        fetched = Path(work) / "jars"
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={fetched}"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=FETCH_TIMEOUT_S,
        )
        if done.returncode != 0 or not any(fetched.glob("kafka_2.13-*.jar")):
            lines = [line for line in done.stdout.splitlines() if "ERROR" in line]
            raise BrokerError(
                "Maven could not fetch Kafka's jars; is the network there?\n" + "\n".join(lines[:5])
            )
        fetched.rename(folder)
