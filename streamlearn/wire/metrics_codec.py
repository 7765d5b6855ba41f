"""Topic `metrics`: a worker's metrics as OpenMetrics text, which any Prometheus parser reads.

| part         | is                                                          |
|--------------|-------------------------------------------------------------|
| key          | the worker's name                                           |
| content-type | `application/openmetrics-text; version=1.0.0; charset=utf-8` |
| value        | OpenMetrics 1.0 text, ending in `# EOF`, at most 4 MiB      |
| ce_*         | CloudEvents 1.0: type `streamlearn.metrics`, source, id, time |

FormatError is all that decode raises.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from streamlearn.errors import FormatError
from streamlearn.wire.cloud_events import CONTENT_TYPE, Message, attributes

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
METRICS_TYPE = "streamlearn.metrics"
MAX_METRICS_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One value: `streamlearn_events_total{...} 5` of the counter `streamlearn_events`."""

    family: str  # the metric's name in the catalogue
    kind: str  # counter, gauge, histogram, summary, info, stateset, unknown
    name: str  # with its suffix: _total, _bucket, _count, _sum, ...
    labels: Mapping[str, str]
    value: float


def to_text(registry: CollectorRegistry) -> bytes:
    """All metrics of a registry, as /metrics serves them."""
    return bytes(generate_latest(registry))  # type: ignore[no-untyped-call]


def encode(registry: CollectorRegistry, *, worker: str, written_s: float) -> Message:
    """A record for the metrics topic."""
    headers = attributes(
        METRICS_TYPE,
        source=f"/streamlearn/workers/{worker}",
        id=f"{worker}.{written_s:.6f}",
        time_s=written_s,
    )
    headers.append((CONTENT_TYPE, OPENMETRICS.encode()))
    return Message(worker.encode(), to_text(registry), headers)


def _families(text: str) -> Iterator[Metric]:
    yield from text_string_to_metric_families(text)  # type: ignore[no-untyped-call]


def decode(value: bytes | None) -> tuple[Sample, ...]:
    """The samples in OpenMetrics text, in its order; FormatError where it is none."""
    if value is None or len(value) > MAX_METRICS_BYTES:
        size = "no value" if value is None else f"{len(value)} bytes"
        raise FormatError(f"metrics with {size}; 1 to {MAX_METRICS_BYTES} are accepted")
    try:
        return tuple(
            Sample(family.name, family.type, sample.name, dict(sample.labels), float(sample.value))
            for family in _families(value.decode())
            for sample in family.samples
        )
    except Exception as error:  # the parser lets IndexError, KeyError and others through
        raise FormatError(f"no OpenMetrics text: {type(error).__name__}: {error}") from error
