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
            for library in _libraries:
                library.set_num_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for library, n_threads in zip(_libraries, _before, strict=True):
                    library.set_num_threads(n_threads)
