"""An Arrow schema to the layout of a frame: which column is learned as what.

Comes after arrow_bounds has bounded the number of columns; event_columns then reads the cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import pyarrow as pa
import pyarrow.types as pt

from streamlearn.core.records import Reason
from streamlearn.errors import FrameError
from streamlearn.wire import event_rules as rules

_MAX_REMEMBERED_BYTES = 32 * 1024  # of a schema; 256 of them are remembered


class Kind(Enum):
    """What a column is learned as."""

    NUMBER = "number"
    TEXT = "text"
    IMAGE = "image"
    NOTHING = "nothing"  # nulls only
    RESERVED = "reserved"  # label, event_time or event_id


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a batch which columns are: numbers of columns, by what they are learned as."""

    names: tuple[str, ...]  # of all columns
    numbers: list[int]
    texts: list[int]
    images: list[int]
    reserved: Mapping[str, int]
    all_float64: bool  # so that all numbers can be taken at once
    written_out: list[int]  # texts and images, reserved ones too: a cell may take many bytes

    @property
    def has_features(self) -> bool:
        """Whether any column is learned from."""
        return bool(self.numbers or self.texts or self.images)


def layout_of(value: bytes) -> Layout:
    """The layout of an Arrow IPC stream, whose first message is its schema.

    FrameError for names and types that we don't learn from. A feeder's frames have one schema,
    so the last few are remembered.
    """
    head = 8 if value.startswith(b"\xff\xff\xff\xff") else 4  # before 0.15, Arrow had no marker
    message = value[: head + int.from_bytes(value[head - 4 : head], "little")]
    if len(message) > _MAX_REMEMBERED_BYTES:
        return _layout(message)
    return _remembered(message)


def _layout(message: bytes) -> Layout:
    schema = pa.ipc.read_schema(pa.py_buffer(message))
    names, types = schema.names, schema.types
    rules.check_names(names)
    _check_no_extensions(schema)
    indices: dict[Kind, list[int]] = {kind: [] for kind in Kind}
    for index, (name, type_) in enumerate(zip(names, types, strict=True)):
        indices[_kind(name, type_)].append(index)
    return Layout(
        names=tuple(names),
        numbers=indices[Kind.NUMBER],
        texts=indices[Kind.TEXT],
        images=indices[Kind.IMAGE],
        reserved={names[index]: index for index in indices[Kind.RESERVED]},
        all_float64=all(types[index] == pa.float64() for index in indices[Kind.NUMBER]),
        written_out=[
            index
            for index, type_ in enumerate(types)
            if kind_of_type(type_) in (Kind.TEXT, Kind.IMAGE)
        ],
    )


_remembered = lru_cache(maxsize=256)(_layout)


def _kind(name: str, type_: pa.DataType) -> Kind:
    if name in rules.RESERVED:
        return Kind.RESERVED
    kind = kind_of_type(type_)
    if kind is None:
        raise FrameError(
            Reason.WRONG_TYPE,
            f"column {name[:80]!r} is {str(type_)[:80]}; "
            "send numbers, text, PNG or JPEG bytes, one value a cell",
        )
    return kind


def _check_no_extensions(schema: pa.Schema) -> None:
    for column in schema:
        if isinstance(column.type, pa.BaseExtensionType) or (
            column.metadata is not None and b"ARROW:extension:name" in column.metadata
        ):
            raise FrameError(
                Reason.WRONG_TYPE,
                f"column {column.name[:80]!r} is of an Arrow extension type; send its storage type",
            )


def kind_of_type(type_: pa.DataType) -> Kind | None:
    """What a column of this type is learned as; None: nothing that we know."""
    if pt.is_dictionary(type_):
        type_ = type_.value_type
    if (
        pt.is_boolean(type_)
        or pt.is_integer(type_)
        or pt.is_floating(type_)
        or pt.is_decimal(type_)
    ):
        return Kind.NUMBER
    if pt.is_temporal(type_) and not pt.is_interval(type_):
        return Kind.NUMBER
    if is_text(type_):
        return Kind.TEXT
    if is_bytes(type_):
        return Kind.IMAGE
    return Kind.NOTHING if pt.is_null(type_) else None


def is_text(type_: pa.DataType) -> bool:
    """Whether cells are Unicode."""
    return pt.is_string(type_) or pt.is_large_string(type_) or pt.is_string_view(type_)


def is_bytes(type_: pa.DataType) -> bool:
    """Whether cells are bytes."""
    return (
        pt.is_binary(type_)
        or pt.is_large_binary(type_)
        or pt.is_binary_view(type_)
        or pt.is_fixed_size_binary(type_)
    )
