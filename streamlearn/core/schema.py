"""Stage 1, schema: what a stream's events are known to have, which only ever grows.

In: frames. Out: rows of inputs, texts and images as the experts read them, class codes; and
whether a step brought inputs (columns, missing flags, categories), texts, images or classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.census import Census
from streamlearn.core.preprocess import Input, Inputs, Standardiser
from streamlearn.core.records import Frame, Label
from streamlearn.core.text import Texts, texts_of
from streamlearn.core.vision import MAX_IMAGE_COLUMNS, Images, images_of

_UNSEEN = -2  # code of a label value that is no class yet


class Schema:
    """Of one stream; `standardiser` goes with its inputs."""

    def __init__(self, *, max_recent: int) -> None:
        """`max_recent`: with more number columns, none is compared with the recent past."""
        self.inputs = Inputs()
        self.texts: tuple[str, ...] = ()  # columns that are read word by word
        self.images: tuple[str, ...] = ()  # image columns
        self.classes: dict[Label, int] = {}  # to their codes, in order of appearance
        self.standardiser = Standardiser()
        self._census = Census()
        self._max_recent = max_recent

    @property
    def has_numbers(self) -> bool:
        """Whether there are number columns."""
        return bool(self.inputs.number_names)

    @property
    def is_text_alone(self) -> bool:
        """Whether there are texts, and no number columns beside them."""
        return bool(self.texts) and not self.has_numbers

    def lookup(self, frame: Frame) -> NDArray[np.int32]:
        """Class of each label code; the last is what code -1, unlabelled, finds."""
        known = [self.classes.get(value, _UNSEEN) for value in frame.label_values]
        return np.array([*known, -1], np.int32)

    def class_codes(self, step: Frame, lookup: NDArray[np.int32]) -> tuple[NDArray[np.int32], bool]:
        """Class of each event (n,), -1 where unlabelled; whether any class is new."""
        codes = lookup[step.label_codes]
        unseen = step.label_codes[codes == _UNSEEN]
        if not len(unseen):
            return codes, False
        for code in dict.fromkeys(unseen.tolist()):  # in order of appearance
            lookup[code] = self.classes.setdefault(step.label_values[code], len(self.classes))
        return lookup[step.label_codes], True

    def new_columns(self, frame: Frame) -> tuple[Input, ...]:
        """Inputs for columns that are not known yet."""
        return self.inputs.new_columns(frame, max_recent=self._max_recent)

    def passes(self, frame: Frame, rows: NDArray[np.float64]) -> bool:
        """Whether a frame without new columns brings nothing that is to be counted."""
        return not frame.texts and self._census.passes(rows)

    def count(
        self, step: Frame, rows: NDArray[np.float64], codes: NDArray[np.int32]
    ) -> dict[Input, int]:
        """Flags and categories that a step's values suffice for, and in how many events each was
        1."""
        numbers = rows[:, self.inputs.numbers]
        return self._census.count(step, numbers, codes, len(self.classes), self.inputs)

    def read(self, step: Frame) -> tuple[Texts, Images]:
        """A step's texts and images, as far as columns are known."""
        return texts_of(step, self.texts), images_of(step, self.images)

    def grow(self, step: Frame, new: Mapping[Input, int], n_events: int) -> bool:
        """Add inputs, and in how many events they were 1, and what texts and images came.

        Whether anything did, after n_events before the step.
        """
        n_inputs, texts, n_images = len(self.inputs), self.texts, len(self.images)
        if new:
            self.inputs = self.inputs.grown(list(new))
            self.standardiser.grow(self.inputs.inputs[n_inputs:], n_events, new)
        self.texts = self._census.text_columns
        came = [n for n, c in step.images.items() if n not in self.images and c.present.any()]
        self.images = (*self.images, *came)[:MAX_IMAGE_COLUMNS]
        return len(self.inputs) > n_inputs or self.texts != texts or len(self.images) > n_images

    def as_json(self) -> dict[str, Any]:
        """For a model's manifest."""
        return {
            "inputs": self.inputs.as_json(),
            "texts": list(self.texts),
            "images": list(self.images),
            "classes": list(self.classes),
        }

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict, and arrays."""
        said = self.as_json()
        del said["texts"]  # the census knows
        said["census"], counted = self._census.state()
        scale = self.standardiser
        arrays: dict[str, NDArray[Any]] = {
            "scale/count": scale.count.copy(),
            "scale/mean": scale.mean.copy(),
            "scale/squares": scale.squares.copy(),
        }
        return said, arrays | {f"census/{name}": array for name, array in counted.items()}

    def resume(
        self, meta: Mapping[str, Any], parts: Mapping[str, Mapping[str, NDArray[Any]]]
    ) -> None:
        """Go on from what `state` gave, its arrays by their first names. KeyError, ValueError."""
        self.inputs = Inputs.from_json(meta["inputs"])
        self._census = Census.restore(meta["census"], parts["census"])
        self.texts = self._census.text_columns
        self.images = tuple(str(name) for name in meta["images"])
        self.classes = {label: code for code, label in enumerate(meta["classes"])}
        scale = self.standardiser
        scale.count, scale.mean, scale.squares = (
            np.array(parts["scale"][name], np.float64) for name in ("count", "mean", "squares")
        )
        if len(scale.mean) != len(self.inputs):
            raise ValueError(f"{len(scale.mean)} spreads of {len(self.inputs)} inputs")
