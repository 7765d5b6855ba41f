"""One real broker for all tests that need one; each test gets topics of its own by a prefix.

STREAMLEARN_BOOTSTRAP names a broker that runs already. Otherwise one is started on a free port
in a temporary folder, the first time that a test asks for it; processes that run tests side by
side (`make test`) share it.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.kafka_launch import can_use_java
from streamlearn.topics import Topics

SHARED_DATA = os.environ.get("STREAMLEARN_SHARED_DATA")  # no setting of the product


def pytest_configure() -> None:
    """Settings of the person who runs the tests must not change what is tested."""
    for name in list(os.environ):
        if name.startswith("STREAMLEARN_") and name != "STREAMLEARN_BOOTSTRAP":
            del os.environ[name]


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Path of a file of the shared streams; skips, saying what is missing, where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(SHARED_DATA or beside)

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"needs {name}: set STREAMLEARN_SHARED_DATA to the shared data")
        return folder / name

    return find


LONG = ("tests/crash/", "tests/broker/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits longest comes first: `make test` shares modules out in this order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))  # stable


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real broker, shared by the whole session."""
    if given := os.environ.get("STREAMLEARN_BOOTSTRAP"):
        yield given
        return
    if not can_use_java() and shutil.which("docker") is None:
        pytest.skip("needs a broker: Java with Maven, Docker, or STREAMLEARN_BOOTSTRAP")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with LocalBroker() as broker:
            yield broker.bootstrap
        return
    with shared_broker(tmp_path_factory.getbasetemp().parent) as address:
        yield address


@contextmanager
def shared_broker(folder: Path) -> Iterator[str]:
    """One broker for processes that share a folder.

    Whoever comes first starts it, and ends it when nobody holds the users' lock any more (a process
    that crashed holds none). Who comes after that starts the next, with users of its own.
    """
    with (folder / "broker.lock").open("a+") as lock, (folder / "broker.users").open("a+") as users:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if address := lock.read():
            fcntl.flock(users, fcntl.LOCK_SH)
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield address
            return
        with LocalBroker() as broker:
            lock.write(broker.bootstrap)
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield broker.bootstrap
            fcntl.flock(lock, fcntl.LOCK_EX)  # nobody takes the address any more
            lock.truncate(0)
            fcntl.flock(lock, fcntl.LOCK_UN)  # who comes now starts their own
            fcntl.flock(users, fcntl.LOCK_EX)  # who has it is done with it


@pytest.fixture
def kafka(bootstrap: str) -> KafkaConfig:
    """How clients reach the session's broker."""
    return KafkaConfig(bootstrap=bootstrap)


@pytest.fixture
def prefix() -> str:
    """What this test's topics start with."""
    return f"test.{uuid.uuid4().hex[:8]}."


@pytest.fixture
def topics(kafka: KafkaConfig, prefix: str) -> Topics:
    """All topics of an installation of this test's own, created, 4 partitions each."""
    specs = topic_specs.load(prefix=prefix, partitions=4)
    admin.apply(kafka, specs)
    return specs
