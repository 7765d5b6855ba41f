"""Text, columns: what a frame says in the columns that a stream's texts are read from."""

from streamlearn.core.records import Frame
from streamlearn.core.text.weights import Texts


def texts_of(frame: Frame, columns: tuple[str, ...]) -> Texts:
    """The frame's texts in `columns`; None for each event where it lacks one."""
    if not columns:
        return {}
    none = (None,) * len(frame)
    return {column: frame.texts.get(column, none) for column in columns}
