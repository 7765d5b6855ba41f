"""A store in RocksDB: one folder a partition, so that a partition can be dropped as a whole.

Buffers are small on purpose: a worker has one database a partition, and the rows' reader keeps
what is hot. Writes reach the operating system before they return, so a killed process loses none;
a power cut may, and then the state topic has them.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
)

from streamlearn.errors import StateError

_MIB = 1 << 20
_FULL = "No space left on device"  # how RocksDB tells it


class RocksDBStore:
    """Rows of one partition in the folder `path`, which is made if needed.

    Raises StateError when the folder is in use by another process, or damaged, or when its disk
    is full or does not let itself be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db: Rdict | None = Rdict(str(path), _options())
        except Exception as error:  # rocksdict raises plain Exception
            raise StateError(_cannot_open(path, str(error))) from error

    def get(self, key: bytes) -> bytes | None:
        with self._explained():
            value: bytes | None = self._open().get(key)
        return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self._open().items(from_key=prefix)  # pinned here: the iterator is a snapshot

        def matching() -> Iterator[tuple[bytes, bytes]]:
            while True:
                with self._explained():
                    row = next(rows, None)
                if row is None:
                    return
                key, value = row
                if not isinstance(key, bytes) or not key.startswith(prefix):
                    return
                yield key, value

        return matching()

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        batch = WriteBatch(raw_mode=True)
        for key in deletes:
            batch.delete(key)
        for key, value in puts.items():
            batch.put(key, value)
        with self._explained():
            self._open().write(batch)

    def close(self) -> None:
        if self._db is None:
            return
        db, self._db = self._db, None
        if self._failed:
            with suppress(Exception):  # it says again what stopped the worker
                db.close()
            return
        with self._explained():
            db.close()

    def destroy(self) -> None:
        """Close, and remove the folder."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A disk that refuses becomes StateError."""
        try:
            yield
        except StateError:
            raise
        except Exception as error:  # rocksdict raises plain Exception
            self._failed = True
            raise StateError(_refused(self.path, str(error))) from error

    def _open(self) -> Rdict:
        if self._db is None:
            raise StateError(f"the store {self.path} is closed; open it again before using it")
        return self._db


def _options() -> Options:
    options = Options(raw_mode=True)  # bytes in, bytes out
    options.create_if_missing(True)
    options.set_write_buffer_size(16 * _MIB)
    options.set_max_write_buffer_number(2)
    options.set_max_total_wal_size(64 * _MIB)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_MIB)
    options.set_stats_dump_period_sec(0)
    options.set_compression_type(DBCompressionType.none())  # rows come compressed
    # rows are large and replaced whole: kept out of the tree, so compaction doesn't copy them
    options.set_enable_blob_files(True)
    options.set_min_blob_size(16 << 10)
    options.set_blob_file_size(64 * _MIB)
    options.set_enable_blob_gc(True)
    # a compaction copies what lives in the oldest tenth of their files; with half of them, and
    # twice as often, 20,000 states written four times took 1.5 to 1.9 times the CPU, and up to 1.9
    # times the disk (files all of whose rows were replaced go anyway)
    options.set_blob_gc_age_cutoff(0.1)
    options.set_level_zero_file_num_compaction_trigger(8)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(8 * _MIB))
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options


def _cannot_open(path: Path, reason: str) -> str:
    if "lock" in reason.lower():
        return (
            f"{path} is in use by another worker; give each worker a state folder of its own "
            "(--state-dir, STREAMLEARN_WORKER__STATE_DIR)"
        )
    if _FULL in reason:
        return _refused(path, reason)
    return (
        f"{path} cannot be opened ({reason.strip()}); if the disk is sound and writable, remove "
        "this folder: the worker restores it from the state topic"
    )


def _refused(path: Path, reason: str) -> str:
    """What to do when an open store cannot be read or written any more."""
    if _FULL in reason:
        return (
            f"the disk of {path} is full; make room there, or use another --state-dir "
            "(STREAMLEARN_WORKER__STATE_DIR), and start the worker again: nothing is lost"
        )
    return (
        f"{path} cannot be read or written any more ({reason.strip()}); see that the disk is sound "
        "and writable, and start the worker again. If the folder is damaged, remove it: the worker "
        "restores it from the state topic"
    )
