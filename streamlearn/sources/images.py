"""Images of a file's rows: bytes, paths or arrays to columns of 28 x 28 grey pixels.

Between `readers` (what a format holds) and Rows. Files are read as a worker would read them, and
rows that it would refuse are left out here, counted, with one of the reasons. Only feeding needs
the files themselves; everybody else keeps 784 bytes an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import ImageColumn
from streamlearn.errors import InputError
from streamlearn.wire.event_codec import MAX_FRAME_BYTES
from streamlearn.wire.event_rules import RefusedError
from streamlearn.wire.image_codec import Picture, column_of, read
from streamlearn.wire.image_pixels import shrink, to_png

ROWS = 64  # with images, that many at a time: each may be a file of some MB
SMALLEST_SIDE = 8  # of an array: less is taken for a grid of numbers

T = TypeVar("T")
Found = tuple[ImageColumn, NDArray[np.bool_]]  # a column, and which of its rows can't be read


class ImageReader:
    """Reads one source's images, and counts what is no image."""

    def __init__(self, *, keep_files: bool) -> None:
        self._keep_files = keep_files
        self._refused: dict[str, int] = {}  # rows by column
        self._why: dict[str, str] = {}  # the first reason, by column
        self._not_found: dict[str, int] = {}

    def of_files(self, name: str, cells: Sequence[bytes | None]) -> Found:
        """A column of files."""
        return self._column(name, cells, lambda cell: cell)

    def of_paths(self, name: str, cells: Sequence[str | None], folder: Path) -> Found:
        """A column of paths, relative to `folder`; where there is no file, there is no image."""
        return self._column(name, cells, lambda cell: self._file(name, cell, folder))

    def _column(self, name: str, cells: Sequence[T], file: Callable[[T], bytes | None]) -> Found:
        found: list[Picture | None] = []
        bad = np.zeros(len(cells), np.bool_)
        for row, cell in enumerate(cells):
            try:
                raw = file(cell)
                found.append(None if raw is None else _read(raw))
            except RefusedError as error:
                bad[row] = True
                found.append(None)
                self._refused[name] = self._refused.get(name, 0) + 1
                self._why.setdefault(name, str(error))
        column = column_of(found)
        if not self._keep_files:
            column = replace(column, raw=(None,) * len(column))
        return column, bad

    def _file(self, name: str, cell: str | None, folder: Path) -> bytes | None:
        if cell is None:
            return None
        path = folder / cell
        try:
            _check_bytes(path.stat().st_size)
            return path.read_bytes()
        except OSError:
            self._not_found[name] = self._not_found.get(name, 0) + 1
            return None

    def of_arrays(self, arrays: NDArray[np.uint8]) -> ImageColumn:
        """A column of n images (n, h, w) or (n, h, w, channels)."""
        column = ImageColumn.of(np.stack([shrink(array) for array in arrays]))
        return replace(column, raw=tuple(map(to_png, arrays))) if self._keep_files else column

    def notes(self) -> list[str]:
        """What was left out, a line each."""
        lines = [
            f"{name}: {count:,} rows left out, their image can't be read ({self._why[name]})"
            for name, count in self._refused.items()
        ]
        return lines + [
            f"{name}: {count:,} files were not found, taken as missing"
            for name, count in self._not_found.items()
        ]


def _read(raw: bytes) -> Picture:
    _check_bytes(len(raw))
    return read(raw)


def _check_bytes(n: int) -> None:
    if n > MAX_FRAME_BYTES:
        raise RefusedError(f"a file of {n:,} bytes; at most {MAX_FRAME_BYTES:,} fit into an event")


def are_images(array: NDArray[np.generic]) -> bool:
    """Whether an array holds images: uint8, (n, h, w), or (n, h, w, c) with 1, 3, 4 channels."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        return False
    return min(array.shape[1:3]) >= SMALLEST_SIDE and array.shape[3:] in ((), (1,), (3,), (4,))


def check_paths(name: str, cells: Sequence[str | None], folder: Path) -> None:
    """InputError where not one of a column's first cells is a file: it means something else."""
    given = [cell for cell in cells if cell is not None]
    if given and not any((folder / cell).is_file() for cell in given):
        raise InputError(
            f"--image {name!r}: there is no file {folder / given[0]}; its cells are paths of PNG "
            "or JPEG files, relative to the table's folder"
        )
