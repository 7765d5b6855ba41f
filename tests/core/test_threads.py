"""One thread inside, whatever thread enters, and as before afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamlearn.core import threads
from streamlearn.core.threads import one_thread


def now() -> list[int]:
    return [library.num_threads for library in threads._libraries]


@pytest.fixture(autouse=True)
def two_threads() -> None:
    """As on a machine with several cores; and this thread has asked before."""
    threads._set([2] * len(threads._libraries))
    with one_thread():
        pass
    if now() != [2] * len(threads._libraries):
        pytest.skip("needs a BLAS with more than one thread")


def inside() -> list[int]:
    with one_thread(), one_thread():
        return now()


def test_the_main_thread() -> None:
    assert set(inside()) == {1} and set(now()) == {2}


def test_another_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert set(pool.submit(inside).result()) == {1}
        assert set(pool.submit(now).result()) == {2}


def test_the_last_to_leave_puts_it_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with one_thread():
            entered.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        with one_thread():
            staying = pool.submit(stay)
            assert entered.wait(10)
        assert set(now()) == {1}
        leave.set()
        staying.result()
    assert set(now()) == {2}
