"""Many arrays as few: those of one dtype end to end in one tensor, and a layout that tells them.

A learner's state has about a hundred small arrays; as tensors of their own, each costs more to
write and to read than its bytes do. Layout: {dtype: [[NAME, [axis, ...]], ...]}, JSON-able.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.errors import FormatError

_NAMES = {np.dtype(name).num: name for name in (
    "bool", "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32",
    "uint64", "int64", "float64",
)}  # fmt: skip


def flatten(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], dict[str, list[tuple[str, tuple[int, ...]]]]]:
    """(one 1-d tensor a dtype, under the dtype's name; their layout). FormatError: other dtypes."""
    groups: dict[str, list[str]] = {}
    for name, array in arrays.items():
        dtype = _NAMES.get(array.dtype.num) or array.dtype.name
        if array.dtype.kind not in "biuf":
            raise FormatError(
                f"array {name!r} is {array.dtype}; only bool, int, uint and float can be sent"
            )
        groups.setdefault(dtype, []).append(name)
    tensors = {
        dtype: np.concatenate([arrays[name].reshape(-1) for name in names])
        for dtype, names in groups.items()
    }
    layout = {
        dtype: [(name, arrays[name].shape) for name in names] for dtype, names in groups.items()
    }
    return tensors, layout


def unflatten(tensors: Mapping[str, NDArray[Any]], layout: Any) -> dict[str, NDArray[Any]]:
    """The arrays, as views; FormatError for what is no layout of exactly these tensors."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        if layout.keys() != tensors.keys():
            raise ValueError(f"tensors {sorted(tensors)[:9]}")
        for dtype, group in layout.items():
            tensor, at = tensors[dtype], 0
            for name, shape in group:
                size = math.prod(shape)
                arrays[str(name)] = _piece(tensor, at, size).reshape(shape)
                at += size
            if at != tensor.size:
                raise ValueError(f"{at} of {tensor.size} values of {dtype}")
        if len(arrays) != sum(map(len, layout.values())):
            raise ValueError("two arrays of one name")
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FormatError(f"no layout of these tensors: {str(error)[:200]}") from error
    return arrays


def _piece(tensor: NDArray[Any], at: int, size: int) -> NDArray[Any]:
    if not 0 <= size <= tensor.size - at:
        raise ValueError(f"{size} values at {at} of {tensor.size}")
    return tensor[at : at + size]
