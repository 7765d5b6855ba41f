"""Topic `predictions` (opt-in): what was predicted for a frame's events before they were learned.

Headers of an envelope (see there), `ce_` left out:

| header          | is                                                                        |
|-----------------|---------------------------------------------------------------------------|
| subject         | the stream                                                                |
| modelversion    | of the model that predicted the frame's first step                        |
| stepevents      | of the frame's first step at most: so many just that model predicted      |
| sourcepartition | partition and offset of the frame in the events topic                     |
| sourceoffset    |                                                                           |
| row             | which event of the frame the first row is, from 0                         |

The payload is safetensors with one tensor, `probabilities` (n, C) float32; its metadata is
{"classes": [...], "event_ids": [...]}, the ids empty where the feeder sent none. A class that was
not known when an event was predicted has probability 0. A frame whose predictions are too large
for one record comes as several, by rows. The Kafka key is the stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Label
from streamlearn.errors import FormatError
from streamlearn.wire import tensors as tensor_bytes
from streamlearn.wire.cloud_events import CONTENT_TYPE, Headers, Message
from streamlearn.wire.envelope import PART_BYTES, Role, seal, unseal, whole
from streamlearn.wire.signing import Signer, Verifier

SAFETENSORS = "application/x-safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Rows of one frame's predictions."""

    stream: str
    model_version: int  # that predicted the frame's first `step_events` events
    step_events: int
    source_partition: int
    source_offset: int
    probabilities: NDArray[np.float32]  # (n, C)
    classes: tuple[Label, ...]
    event_ids: tuple[str, ...] = ()  # n of them, or none
    row: int = 0  # of the first of these events in its frame

    def predicted(self) -> tuple[Label | None, ...]:
        """(n,) the most probable label of each event, None before any label was seen."""
        if not self.classes:
            return (None,) * len(self.probabilities)
        best: list[int] = self.probabilities.argmax(axis=1).tolist()
        seen = np.asarray(self.probabilities.sum(axis=1) > 0).tolist()
        return tuple(self.classes[c] if any_ else None for c, any_ in zip(best, seen, strict=True))


def encode(
    predictions: Predictions, *, signer: Signer | None = None, part_bytes: int = PART_BYTES
) -> list[Message]:
    """One record, or several of at most part_bytes."""
    return [_message(piece, signer) for piece in _pieces(predictions, part_bytes)]


def _pieces(frame: Predictions, part_bytes: int) -> Iterator[Predictions]:
    n, n_classes = frame.probabilities.shape
    longest_id = max((len(i.encode()) for i in frame.event_ids), default=0)
    rows = max(1, (part_bytes - 4096) // (4 * n_classes + 6 * longest_id + 8))  # ids escaped
    for start in range(0, n, rows):
        cut = slice(start, start + rows)
        yield replace(
            frame,
            probabilities=frame.probabilities[cut],
            event_ids=frame.event_ids[cut],
            row=frame.row + start,
        )


def _message(piece: Predictions, signer: Signer | None) -> Message:
    meta = {"classes": list(piece.classes), "event_ids": list(piece.event_ids)}
    raw = tensor_bytes.pack({"probabilities": piece.probabilities}, meta)
    payload, compression = tensor_bytes.compress(raw)
    place = f"{piece.source_partition}.{piece.source_offset}"
    fields = [
        ("source", f"/streamlearn/partitions/{piece.source_partition}"),
        ("id", f"{place}.{piece.row}.{piece.model_version}"),
        ("subject", piece.stream),
        ("modelversion", str(piece.model_version)),
        ("stepevents", str(piece.step_events)),
        ("sourcepartition", str(piece.source_partition)),
        ("sourceoffset", str(piece.source_offset)),
        ("row", str(piece.row)),
        (CONTENT_TYPE, SAFETENSORS),
        ("compression", compression),
        ("rawsize", str(len(raw))),
    ]
    return seal(Role.PREDICTIONS, fields, [piece.stream.encode()], [payload], signer)[0]


def decode(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    *,
    verifier: Verifier | None = None,
) -> Predictions:
    """One record. FormatError or IntegrityError for what is not what it says it is."""
    part = unseal(value, key, headers, role=Role.PREDICTIONS, verifier=verifier)
    if part.parts != 1 or not part.subject:
        raise FormatError("predictions come in one part, with their stream as subject")
    fields = part.fields

    def number(name: str) -> int:
        return whole(name, fields.get(name, ""))

    raw = tensor_bytes.decompress(
        part.value or b"", fields.get("compression", ""), number("rawsize")
    )
    tensors, meta = tensor_bytes.unpack(raw)
    probabilities = tensors.get("probabilities")
    classes, event_ids = meta.get("classes"), meta.get("event_ids")
    if (
        probabilities is None
        or probabilities.dtype != np.float32
        or probabilities.ndim != 2
        or not _are(classes, (str, int))
        or not _are(event_ids, (str,))
        or probabilities.shape[1] != len(classes)
        or len(event_ids) not in (0, len(probabilities))
    ):
        raise FormatError("probabilities, classes and event ids of predictions don't fit together")
    return Predictions(
        stream=part.subject,
        model_version=number("modelversion"),
        step_events=number("stepevents"),
        source_partition=number("sourcepartition"),
        source_offset=number("sourceoffset"),
        probabilities=probabilities,
        classes=tuple(classes),
        event_ids=tuple(event_ids),
        row=number("row"),
    )


def _are(found: object, types: tuple[type, ...]) -> TypeGuard[list[Any]]:
    return isinstance(found, list) and all(
        isinstance(one, types) and not isinstance(one, bool) for one in found
    )
