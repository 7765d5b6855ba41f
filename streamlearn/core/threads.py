"""Beside the stages: linear algebra on one thread, so that every process gets the same bits.

OpenBLAS splits a product differently on two threads than on one, and rounds differently then. A
worker and a subscriber with other defaults must agree bit by bit, so both learn and predict within
`one_thread()`. The number of threads is a setting of the whole process: the first to enter sets
it, the last to leave puts it back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import scipy.linalg  # noqa: F401  (loads SciPy's own OpenBLAS before the libraries are listed)
from threadpoolctl import ThreadpoolController

_libraries = ThreadpoolController().select(user_api="blas").lib_controllers
_lock = threading.Lock()
_inside = 0
_before: list[int] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and LAPACK of numpy and scipy run on one thread inside; reentrant; about 10 us."""
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = [library.num_threads or 1 for library in _libraries]
            _set([1] * len(_libraries))
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _set(_before)


def _set(n_threads: list[int]) -> None:
    """Whichever thread asks: threadpoolctl 3.8 lets only the first one that ever did, silently."""
    for library, n in zip(_libraries, n_threads, strict=True):
        clear = getattr(library, "clear_controlling_thread", lambda force: None)
        clear(force=True)
        library.set_num_threads(n)
        clear(force=True)
