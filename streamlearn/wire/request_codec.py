"""Topic `label-requests` (opt-in): events whose labels would help a stream's model most.

Headers of an envelope (see there), `ce_` left out:

| header          | is                                                                        |
|-----------------|---------------------------------------------------------------------------|
| subject         | the stream                                                                |
| modelversion    | of the model that asks                                                    |
| sourcepartition | partition and offset, in the events topic, of the frame after which it    |
| sourceoffset    | asks                                                                      |

The payload is one JSON object, never packed, so that any program can read it:
{"requests": [{"event_id", "event_time", "predicted", "probability", "why"}, ...]}, the most useful
first; event_time in seconds since the epoch, predicted null where the model knows no class. The
answer is a late label (`label_codec`). The Kafka key is the stream.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamlearn.core.records import Label
from streamlearn.errors import FormatError
from streamlearn.wire.cloud_events import CONTENT_TYPE, Headers, Message
from streamlearn.wire.envelope import PART_BYTES, Role, seal, unseal, whole
from streamlearn.wire.signing import Signer, Verifier

JSON = "application/json"
_NAMES = {"event_id", "event_time", "predicted", "probability", "why"}


@dataclass(frozen=True, slots=True)
class Request:
    """One event that is worth a label."""

    event_id: str
    event_time_s: float  # seconds since the epoch
    predicted: Label | None
    probability: float  # of it, 0..1
    why: str


@dataclass(frozen=True, slots=True)
class LabelRequests:
    """Requests that one model made at one time, the most useful first."""

    stream: str
    model_version: int
    source_partition: int
    source_offset: int
    requests: tuple[Request, ...]


def encode(requests: LabelRequests, *, signer: Signer | None = None) -> Message:
    """As one record; what would not fit into it, of the least useful, is left out."""
    rows: list[str] = []
    size = len('{"requests":[]}')
    for one in requests.requests:
        said = {
            "event_id": one.event_id,
            "event_time": one.event_time_s,
            "predicted": one.predicted,
            "probability": one.probability,
            "why": one.why,
        }
        rows.append(json.dumps(said, separators=(",", ":"), allow_nan=False))
        size += len(rows[-1]) + 1
        if size > PART_BYTES:
            del rows[-1]
            break
    payload = f'{{"requests":[{",".join(rows)}]}}'.encode()
    place = f"{requests.source_partition}.{requests.source_offset}"
    fields = [
        ("source", f"/streamlearn/partitions/{requests.source_partition}"),
        ("id", f"labels.{place}"),
        ("subject", requests.stream),
        ("modelversion", str(requests.model_version)),
        ("sourcepartition", str(requests.source_partition)),
        ("sourceoffset", str(requests.source_offset)),
        (CONTENT_TYPE, JSON),
        ("compression", "none"),
        ("rawsize", str(len(payload))),
    ]
    return seal(Role.LABEL_REQUESTS, fields, [requests.stream.encode()], [payload], signer)[0]


def decode(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    *,
    verifier: Verifier | None = None,
) -> LabelRequests:
    """One record. FormatError or IntegrityError for what is not what it says it is."""
    part = unseal(value, key, headers, role=Role.LABEL_REQUESTS, verifier=verifier)
    if part.parts != 1 or not part.subject:
        raise FormatError("label requests come in one part, with their stream as subject")
    try:
        said: Any = json.loads(part.value or b"")
        rows = said["requests"]
        requests = tuple(_request(row) for row in rows)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"label requests that are none: {error!r:.200}") from error
    fields = part.fields
    return LabelRequests(
        stream=part.subject,
        model_version=whole("modelversion", fields.get("modelversion", "")),
        source_partition=whole("sourcepartition", fields.get("sourcepartition", "")),
        source_offset=whole("sourceoffset", fields.get("sourceoffset", "")),
        requests=requests,
    )


def _request(row: Mapping[str, Any]) -> Request:
    if not isinstance(row, dict) or set(row) != _NAMES:
        raise ValueError(f"a request of {sorted(row)!r:.100}")
    predicted, numbers = row["predicted"], (row["event_time"], row["probability"])
    if not all(isinstance(x, float | int) and math.isfinite(x) for x in numbers):
        raise ValueError("event_time and probability are numbers")
    if not isinstance(row["event_id"], str) or not isinstance(row["why"], str):
        raise ValueError("event_id and why are texts")
    if predicted is not None and (
        isinstance(predicted, bool) or not isinstance(predicted, str | int)
    ):
        raise ValueError("predicted is a label or null")
    time_s, probability = map(float, numbers)
    return Request(row["event_id"], time_s, predicted, probability, row["why"])
