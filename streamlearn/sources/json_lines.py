"""JSON lines to columns: one object a line, whatever each line has.

By Python rather than by Arrow's JSON reader, since that one refuses a file whose types change,
and people's logs do that: a column with numbers and text becomes text, and `kinds` looks further.
"""

import json
from typing import Any, TypeAlias

import pyarrow as pa

Batch: TypeAlias = dict[str, Any]  # column name to an Arrow array, all of one length


def json_batch(piece: bytes) -> tuple[Batch, int]:
    """The columns of whole lines (none where no line is an object), and the lines left out."""
    rows: list[dict[str, Any]] = []
    skipped = 0
    for line in piece.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            skipped += 1
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _column([row.get(name) for row in rows]) for name in names}, skipped


def _column(values: list[Any]) -> Any:
    """Numbers as numbers, else text; a nested value is kept as JSON text of no kind of ours."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(-(2**63) <= v < 2**63 for v in values if v is not None):
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if v is None else _as_float(v) for v in values], pa.float64())
    if kinds <= {dict, list}:
        return pa.array([None if v is None else [1] for v in values], pa.list_(pa.int8()))
    return pa.array([_text(v) for v in values], pa.string())


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict | list):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate is no text
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON knows one kind of number: 1.0 is 1
    return str(value).lower() if isinstance(value, bool) else str(value)
