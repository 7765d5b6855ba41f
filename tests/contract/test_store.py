"""One suite for every store: the one in memory earns its trust beside RocksDB."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.errors import StateError
from streamlearn.stores.memory import MemoryStore
from streamlearn.stores.rocksdb import RocksDBStore
from streamlearn.stores.store import Store

Reopen = Callable[[], Store]


@pytest.fixture(params=["memory", "rocksdb"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the same rows again, as after a restart."""
    opened: list[Store] = []
    rows: dict[bytes, bytes] = {}

    def again() -> Store:
        for old in opened:
            old.close()
        memory = request.param == "memory"
        store: Store = MemoryStore(rows) if memory else RocksDBStore(tmp_path / "deep" / "er" / "0")
        opened.append(store)
        return store

    yield again
    for store in opened:
        store.close()


def test_a_new_store_is_empty(reopen: Reopen) -> None:
    store = reopen()
    assert store.get(b"a") is None
    assert list(store.scan(b"")) == []


def test_rows_outlive_the_process(reopen: Reopen) -> None:
    reopen().write({b"a": b"1", b"b": b"", b"c": bytes(100_000)})
    store = reopen()
    assert [store.get(key) for key in (b"a", b"b", b"c")] == [b"1", b"", bytes(100_000)]


def test_a_scan_is_ordered_and_stops_at_its_prefix(reopen: Reopen) -> None:
    store = reopen()
    keys = [b"s/\xff", b"s/a", b"s/a\x00", b"s/b", b"s", b"s0", b"r/z", b"\xff\xff"]
    store.write({key: key[::-1] for key in keys})
    wanted = sorted(key for key in keys if key.startswith(b"s/"))
    assert list(store.scan(b"s/")) == [(key, key[::-1]) for key in wanted]
    assert [key for key, _ in store.scan(b"")] == sorted(keys)
    assert [key for key, _ in store.scan(b"\xff\xff")] == [b"\xff\xff"]


def test_a_scan_sees_the_rows_of_its_beginning(reopen: Reopen) -> None:
    store = reopen()
    store.write({b"a": b"1", b"b": b"2"})
    rows = store.scan(b"")
    store.write({b"c": b"3"}, deletes=[b"a", b"b"])
    assert list(rows) == [(b"a", b"1"), (b"b", b"2")]
    assert list(store.scan(b"")) == [(b"c", b"3")]


def test_deletes_come_before_puts(reopen: Reopen) -> None:
    store = reopen()
    store.write({b"a": b"old", b"b": b"old"})
    store.write({b"a": b"new"}, deletes=[b"a", b"b", b"never there"])
    assert list(store.scan(b"")) == [(b"a", b"new")]


def test_a_closed_store_refuses(reopen: Reopen) -> None:
    store = reopen()
    store.close()
    store.close()
    for use in (
        lambda: store.get(b"a"),
        lambda: store.scan(b""),
        lambda: store.write({}),
    ):
        with pytest.raises(StateError, match="closed"):
            use()


rows = st.dictionaries(st.binary(max_size=6), st.binary(max_size=40), max_size=6)


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.tuples(rows, st.lists(st.binary(max_size=6), max_size=4)), max_size=8))
def test_both_stores_hold_what_a_dict_holds(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[dict[bytes, bytes], list[bytes]]],
) -> None:
    rocks = RocksDBStore(tmp_path_factory.mktemp("rocks") / "0")
    memory = MemoryStore()
    plain: dict[bytes, bytes] = {}
    for puts, deletes in steps:
        for store in (rocks, memory):
            store.write(puts, deletes)
        plain = {k: v for k, v in plain.items() if k not in deletes} | puts
    wanted = sorted(plain.items())
    assert list(rocks.scan(b"")) == wanted == list(memory.scan(b""))
    rocks.close()
