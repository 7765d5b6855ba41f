"""What a scikit-learn user passes as X to columns of numbers, texts and images.

Below `estimator`, which hands plain numbers to scikit-learn's own checks and everything else to
here. A cell is an image where it is the bytes of a PNG or JPEG file, a PIL image, or a uint8 array
(h, w) or (h, w, channels); a column is what its first cell is that is not missing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamlearn.core.records import ImageColumn
from streamlearn.errors import InputError
from streamlearn.wire import image_codec, image_pixels
from streamlearn.wire.event_rules import RefusedError

NUMBER, TEXT = "number", "text"
IMAGE = "image"  # a kind, and the column of an X that is images alone
TIMES = np.datetime64, np.timedelta64, date, timedelta  # a datetime is a date


T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """n rows in columns."""

    numbers: NDArray[np.float64]  # (n, d), NaN where missing
    columns: tuple[str, ...]  # d names
    texts: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    images: Mapping[str, ImageColumn] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def kinds(self) -> dict[str, str]:
        """Of the columns that are not numbers."""
        return dict.fromkeys(self.texts, TEXT) | dict.fromkeys(self.images, IMAGE)

    def rows(self, start: int, stop: int) -> "Inputs":
        """Rows start..stop."""
        return Inputs(
            self.numbers[start:stop],
            self.columns,
            {name: cells[start:stop] for name, cells in self.texts.items()},
            {name: column.rows(start, stop) for name, column in self.images.items()},
        )


def other_than_numbers(X: Any, known: Mapping[str, str]) -> Inputs | None:
    """X in columns; None where it holds numbers only. InputError for cells that are neither.

    `known`: "text" or "image" of columns that were such before, of which all may be missing now.
    """
    if hasattr(X, "columns") and hasattr(X, "dtypes"):  # a data frame, of pandas or polars
        table = {str(name): list(np.asarray(X[name])) for name in X.columns}
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype == object:
        table = {f"x{at}": X[:, at].tolist() for at in range(X.shape[1])}
    elif isinstance(X, np.ndarray) and X.ndim in (3, 4) and X.dtype == np.uint8:
        table = {IMAGE: list(X)}
    elif isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.dtype == object):
        table = {IMAGE: list(X)}
        if any(isinstance(cell, str) for cell in table[IMAGE]):
            raise InputError(
                "X is a list of texts, not of rows; texts are a column of a data frame, for "
                "example pandas.DataFrame({'text': X})"
            )
        if not any(map(_is_image, table[IMAGE])) and not all(map(_is_missing, table[IMAGE])):
            return None
    else:
        return None
    for name, cells in table.items():
        if cells and isinstance(cells[0], TIMES):
            raise InputError(
                f"column {name!r} holds times, {cells[0]!r}; give numbers that recur: the hour, "
                "the weekday, a duration's seconds"
            )
    kinds = {name: known.get(name) or _kind(cells) for name, cells in table.items()}
    return _inputs(table, kinds) if {TEXT, IMAGE} & set(kinds.values()) else None


def _kind(cells: Iterable[Any]) -> str:
    """By the first cell that is not missing."""
    for cell in cells:
        if isinstance(cell, str):
            return TEXT
        if _is_image(cell):
            return IMAGE
        if not _is_missing(cell):
            return NUMBER
    return NUMBER


def _is_image(cell: Any) -> bool:
    if isinstance(cell, np.ndarray):
        return cell.dtype == np.uint8 and cell.ndim >= 2
    return isinstance(cell, bytes | bytearray | memoryview | Image.Image)


def _is_missing(cell: Any) -> bool:
    """None, NaN, and pandas' NA and NaT."""
    return (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float | np.floating) and cell != cell)
    )


def _inputs(table: Mapping[str, Sequence[Any]], kinds: Mapping[str, str]) -> Inputs:
    numbers: dict[str, list[float]] = {}
    texts: dict[str, tuple[str | None, ...]] = {}
    images: dict[str, ImageColumn] = {}
    n = 0
    for name, cells in table.items():
        n = len(cells)
        if kinds[name] == TEXT:
            texts[name] = tuple(_each(name, cells, _text))
        elif kinds[name] == IMAGE:
            images[name] = ImageColumn.of_some(_each(name, cells, _pixels))
        else:
            found = _each(name, cells, _number)
            numbers[name] = [np.nan if number is None else number for number in found]
    matrix = np.array(list(numbers.values()), np.float64).T.reshape(n, len(numbers))
    return Inputs(np.ascontiguousarray(matrix), tuple(numbers), texts, images)


def _each(name: str, cells: Sequence[Any], read: Callable[[Any], T]) -> list[T | None]:
    found: list[T | None] = []
    for row, cell in enumerate(cells):
        try:
            found.append(None if _is_missing(cell) else read(cell))
        except (RefusedError, TypeError, ValueError) as error:
            raise InputError(
                f"row {row} of column {name!r} can't be {type(cell).__name__} {cell!r:.40}: {error}"
            ) from None
    return found


def _number(cell: Any) -> float:
    if isinstance(cell, str | bytes):
        raise TypeError("the rows before it are numbers; give one type a column")
    number = float(cell)
    if np.isinf(number):
        raise ValueError("infinite; give NaN where it is missing")
    return number


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise TypeError("the rows before it are texts; give one type a column")
    return cell


def _pixels(cell: Any) -> NDArray[np.uint8]:
    """(IMAGE_SIDE, IMAGE_SIDE) of whatever holds an image."""
    match cell:
        case bytes() | bytearray() | memoryview():
            return image_codec.read(bytes(cell)).pixels
        case np.ndarray():
            return image_pixels.shrink(cell)
        case Image.Image():
            return image_pixels.shrink_image(cell)
        case _:
            raise TypeError("the rows before it are images; give one type a column")
