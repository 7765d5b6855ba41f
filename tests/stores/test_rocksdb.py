"""What is RocksDB's own: locks, damage, full disks, a killed process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlearn.errors import StateError
from streamlearn.stores.rocksdb import RocksDBStore

DIES = """
import os, sys
from pathlib import Path
from streamlearn.stores.rocksdb import RocksDBStore
store = RocksDBStore(Path(sys.argv[1]))
for i in range(200):
    store.write({b"a": b"%d" % i, b"b": b"%d" % i, b"blob": bytes([i]) * 50_000})
os.kill(os.getpid(), 9)
"""

FILLS = """
import resource, sys
from pathlib import Path
from streamlearn.errors import StateError
from streamlearn.stores.rocksdb import RocksDBStore
store = RocksDBStore(Path(sys.argv[1]))
store.write({b"a": b"1"})
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    for i in range(200):
        store.write({b"%d" % i: bytes([i]) * 50_000})
except StateError as error:
    print(error)
store.close()  # with no second error on top
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One MiB, mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a disk that is soon full")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a disk that is soon full")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def fill(*arguments: str) -> str:
    command = [sys.executable, "-c", FILLS, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_full_disk_is_told_with_a_remedy_and_costs_no_written_row(small_disk: Path) -> None:
    said = fill(str(small_disk / "0"))
    assert f"the disk of {small_disk / '0'} is full; make room there" in said
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    store = RocksDBStore(small_disk / "0")
    assert store.get(b"a") == b"1"
    store.close()


def test_a_disk_that_refuses_is_told_with_a_remedy(tmp_path: Path) -> None:
    said = fill(str(tmp_path / "0"), "limited")
    assert "cannot be read or written any more (IO error" in said and "start the worker" in said


def test_a_folder_in_use_is_refused_with_a_remedy(tmp_path: Path) -> None:
    store = RocksDBStore(tmp_path / "0")
    with pytest.raises(StateError, match="in use by another worker; give each worker"):
        RocksDBStore(tmp_path / "0")
    store.close()


def test_a_damaged_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    store = RocksDBStore(tmp_path / "0")
    store.write({b"a": b"1"})
    store.close()
    (tmp_path / "0" / "CURRENT").write_bytes(b"MANIFEST-9999\n")
    with pytest.raises(StateError, match="remove this folder: the worker restores it"):
        RocksDBStore(tmp_path / "0")


def test_a_killed_process_loses_nothing_it_wrote(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "0")], check=False)
    assert done.returncode == -9
    store = RocksDBStore(tmp_path / "0")
    assert store.get(b"a") == store.get(b"b") == b"199"
    assert store.get(b"blob") == bytes([199]) * 50_000
    store.close()


def test_destroyed_is_gone(tmp_path: Path) -> None:
    store = RocksDBStore(tmp_path / "0")
    store.write({b"a": b"1"})
    store.destroy()
    assert not os.path.exists(tmp_path / "0")
