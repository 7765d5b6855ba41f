"""What is RocksDB's own: locks, damage, a killed process."""

import os
import subprocess
import sys
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
