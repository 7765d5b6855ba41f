"""Beside the stages: arrays that get longer when a stream brings more classes or inputs.

A young stream grows dozens of arrays with its first events and again when it is restored;
`np.pad`, which can do much more, takes ten times as long for each of them.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def inserted(array: NDArray[T], at: int, n: int, fill: Any = np.nan) -> NDArray[T]:
    """A copy with `n` columns of `fill` before column `at`; as it is where it ends before that.

    >>> inserted(np.array([[1.0, 2.0]]), 1, 2, fill=0).tolist()
    [[1.0, 0.0, 0.0, 2.0]]
    """
    width = array.shape[-1]
    if width <= at or n < 1:
        return array
    longer = grown(array, *[0] * (array.ndim - 1), n, fill=fill)
    longer[..., at + n :] = array[..., at:]
    longer[..., at : at + n] = fill
    return longer


def grown(array: NDArray[T], *more: int, fill: Any = 0) -> NDArray[T]:
    """A copy with `more` entries at the end of each axis (axes left out: none), all `fill`.

    >>> grown(np.array([[1, 2]]), 1, 2, fill=7).tolist()
    [[1, 2, 7, 7], [7, 7, 7, 7]]
    """
    shape = list(array.shape)
    for axis, n in enumerate(more):
        shape[axis] += n
    longer: NDArray[T] = np.empty(shape, array.dtype)
    longer.fill(fill)
    longer[tuple(map(slice, array.shape))] = array
    return longer
