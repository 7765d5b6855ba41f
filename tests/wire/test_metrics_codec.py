"""Metrics: what a registry holds comes back as typed samples."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from streamlearn.errors import FormatError
from streamlearn.wire import metrics_codec
from streamlearn.wire.metrics_codec import Sample


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    counter = Counter("events", "Events.", ["stream"], registry=found)
    counter.labels('a"\\\n ü').inc(5)
    Gauge("accuracy", "Accuracy.", registry=found).set(0.1 + 0.2)
    Histogram("seconds", "Seconds.", buckets=(0.5, 1.0), registry=found).observe(0.7)
    Info("build", "Build.", registry=found).info({"version": "1"})
    Gauge("unknown_yet", "NaN.", registry=found).set(float("nan"))
    return found


def test_samples_come_back() -> None:
    message = metrics_codec.encode(registry(), worker="w-1", written_s=2.5)
    assert message.value is not None and message.value.endswith(b"# EOF\n")
    samples = {
        (sample.name, tuple(sample.labels.items())): sample
        for sample in metrics_codec.decode(message.value)
    }
    events = samples["events_total", (("stream", 'a"\\\n ü'),)]
    assert events == Sample("events", "counter", "events_total", {"stream": 'a"\\\n ü'}, 5.0)
    assert samples["accuracy", ()].value == 0.1 + 0.2
    buckets = [samples["seconds_bucket", (("le", le),)].value for le in ("0.5", "1.0", "+Inf")]
    assert buckets == [0.0, 1.0, 1.0]
    assert samples["seconds_sum", ()].kind == "histogram"
    assert samples["build_info", (("version", "1"),)].kind == "info"
    unknown = samples["unknown_yet", ()].value
    assert unknown != unknown


def test_headers() -> None:
    message = metrics_codec.encode(registry(), worker="w-1", written_s=2.5)
    said = dict(message.headers)
    assert message.key == b"w-1"
    assert said["content-type"].startswith(b"application/openmetrics-text")
    assert said["ce_time"] == b"1970-01-01T00:00:02.500000+00:00"
    assert said["ce_id"] == b"w-1.2.500000"


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"\xff",
        b"no metrics",
        b"# EOF\nmore",
        b"# TYPE a counter\na_total x\n# EOF\n",
        b'a{b="c} 1\n# EOF\n',
        b"x" * (4 * 1024 * 1024 + 1),
    ],
)
def test_what_is_no_metrics_is_a_format_error(value: bytes | None) -> None:
    with pytest.raises(FormatError):
        metrics_codec.decode(value)
