"""A folder of PNG and JPEG files to Rows: FOLDER/label/picture.png.

| of a file                    | is                                                           |
|------------------------------|--------------------------------------------------------------|
| the first folder on its path | its label; files that lie in FOLDER itself are unlabelled    |
| its path                     | the event's id                                               |
| its name                     | its place in the order, numbers by their value: 9 before 10  |
| when it was last changed     | its place, and the event's time, with --order time           |

Names before folders: a/1.png, b/2.png, a/3.png is the order in which pictures were taken if they
were numbered then. Names that start with a dot, and files with other endings, are left out.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from streamlearn.errors import InputError
from streamlearn.sources.images import ROWS, ImageReader
from streamlearn.sources.kinds import IMAGES
from streamlearn.sources.labels import LabelColumn
from streamlearn.sources.rows import Codes, Rows
from streamlearn.sources.table import Inferred, Roles

COLUMN = "image"
ENDINGS = (".png", ".jpg", ".jpeg")
_DIGITS = re.compile(r"(\d+)")
_ORDER = re.compile(r"name|time|shuffle(?::(\d{1,18}))?")


class Folder:
    """One folder; what is in it is listed at once, and read when it is asked for."""

    def __init__(
        self,
        path: Path,
        roles: Roles,
        codes: Codes,
        said: Inferred,
        images: ImageReader,
        *,
        default_stream: int,
        order: str,
    ) -> None:
        for name, flag in ((roles.label, "label"), (roles.stream, "stream"), (roles.time, "time")):
            if name is not None:
                raise InputError(
                    f"--{flag} {name!r}: a folder has no columns; its subfolders are the labels. "
                    "For more, give a table with a column of paths, and --image"
                )
        self._path, self._codes, self._said, self._images = path, codes, said, images
        self._default_stream = default_stream
        self._files, n_others = _listed(path)
        if not self._files:
            raise InputError(
                f"{path} holds no PNG or JPEG file; give a folder with a subfolder a label"
            )
        self.n = len(self._files)
        self._time_s = np.arange(self.n, dtype=np.float64)
        self._sort(order)
        self._labels = self._coded_labels()
        self._say(n_others, order)

    def _sort(self, order: str) -> None:
        match = _ORDER.fullmatch(order)
        if match is None:
            raise InputError(f"--order is name, time, or shuffle:SEED, got {order!r}")
        self._files.sort(key=_natural)
        if order == "time":
            changed = [(self._path / file).stat().st_mtime for file in self._files]
            by_time = np.argsort(changed, kind="stable")
            self._files = [self._files[at] for at in by_time.tolist()]
            self._time_s = np.array(changed, np.float64)[by_time]
        elif order != "name":
            mixed = np.random.default_rng(int(match[1] or 0)).permutation(self.n)
            self._files = [self._files[at] for at in mixed.tolist()]

    def _coded_labels(self) -> np.typing.NDArray[np.int32]:
        labels = [file.parts[0] if len(file.parts) > 1 else None for file in self._files]
        return LabelColumn("folder", self._codes).codes_of(pa.array(labels, pa.string()))

    def _say(self, n_others: int, order: str) -> None:
        said = self._said
        said.format = f"a folder of {self.n:,} images"
        said.columns[COLUMN] = IMAGES
        if (self._labels >= 0).any():
            said.label = "the names of its subfolders"
        if order == "time":
            said.time, said.timed = "when each file was last changed", True
        words = {"name": "by the files' names", "time": "by the files' times"}
        said.notes.append(f"events in order {words.get(order, order)} (--order)")
        if n_others:
            said.notes.append(f"{n_others:,} files left out: neither .png, .jpg nor .jpeg")

    def rows(self) -> Iterator[Rows]:
        """All events in order, some at a time."""
        for start in range(0, self.n, ROWS):
            at = slice(start, start + ROWS)
            files = [str(file) for file in self._files[at]]
            column, bad = self._images.of_paths(COLUMN, files, self._path)
            rows = Rows(
                columns=(),
                numbers=np.empty((len(files), 0)),
                labels=self._labels[at],
                streams=np.full(len(files), self._default_stream, np.int32),
                time_s=self._time_s[at],
                images={COLUMN: column},
                ids=np.array([Path(file).as_posix() for file in files], object),
            )
            yield rows.pick(~bad) if bad.any() else rows
        self._said.notes += self._images.notes()


def _listed(folder: Path) -> tuple[list[Path], int]:
    """Paths of the images in it, relative to it, and how many other files there are."""
    found: list[Path] = []
    n_others = 0

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error

    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(ENDINGS):
                found.append(Path(here, name).relative_to(folder))
            else:
                n_others += 1
    return found, n_others


def _natural(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Digits by their value: frame9 before frame10; equal names by their folders."""
    parts = _DIGITS.split(file.name)
    key = [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)]
    return key, file.as_posix()
