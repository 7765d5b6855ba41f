"""The catalogue, the bound on series, the server."""

import urllib.request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamlearn.telemetry.catalogue import CATALOGUE, Kind, names
from streamlearn.telemetry.metrics import (
    REST,
    SHOWN_STREAMS,
    FrameScore,
    ShownStreams,
    WorkerMetrics,
)
from streamlearn.telemetry.metrics_server import MetricsServer


def score(stream: str, events: int = 10, correct: int = 7) -> FrameScore:
    return FrameScore(stream, events, events, correct, 5, 4, drift=2)


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_names_are_ours_and_single() -> None:
    found = [metric.name for metric in CATALOGUE]
    assert len(set(found)) == len(found)
    assert all(name.startswith("streamlearn_") for name in found)
    assert not any(name.endswith("_total") for name in found)
    assert all(metric.help.endswith(".") for metric in CATALOGUE)
    assert all(bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM) for metric in CATALOGUE)
    assert "streamlearn_events_total" in names()


def test_every_metric_of_the_catalogue_is_exposed() -> None:
    metrics = WorkerMetrics()
    text = generate_latest(metrics.registry).decode()  # type: ignore[no-untyped-call]
    for metric in CATALOGUE:
        assert f"# TYPE {metric.name} {metric.kind}" in text


def test_a_learned_frame_is_counted() -> None:
    metrics = WorkerMetrics()
    metrics.learned(score("a"), 0.002)
    metrics.learned(score("a", correct=9), 0.004)
    metrics.published("a", 2, "delta", 1000)
    assert value(metrics, "streamlearn_events_total", stream="a") == 20
    assert value(metrics, "streamlearn_correct_total", stream="a") == 16
    assert value(metrics, "streamlearn_no_change_correct_total", stream="a") == 10
    assert value(metrics, "streamlearn_frames_total") == 2
    assert value(metrics, "streamlearn_adaptation_seconds_count") == 2
    assert value(metrics, "streamlearn_update_version", stream="a") == 2
    assert value(metrics, "streamlearn_drift_verdict", stream="a") == 2


def test_recent_accuracy_forgets_slowly() -> None:
    metrics = WorkerMetrics()
    weight = right = 0.0
    for i in range(50):
        correct = 10 if i < 25 else 2
        metrics.learned(score("a", correct=correct), 0.001)
        weight, right = weight * 0.999**10 + 10, right * 0.999**10 + correct
    assert value(metrics, "streamlearn_accuracy", stream="a") == pytest.approx(right / weight)


def test_no_metric_has_100_series_however_many_streams_and_partitions() -> None:
    metrics = WorkerMetrics()
    for i in range(300):
        metrics.learned(score(f"s{i}", events=1 + i), 0.001)
        metrics.published(f"s{i}", 1, "full", 10)
    metrics.lag({number: number for number in range(500)})
    text = generate_latest(metrics.registry).decode()  # type: ignore[no-untyped-call]
    events = 0.0
    for family in text_string_to_metric_families(text.replace("# EOF\n", "")):
        samples = [s for s in family.samples if not s.name.endswith("_created")]
        assert len(samples) < 100, family.name
        events += sum(s.value for s in samples if s.name == "streamlearn_events_total")
    assert value(metrics, "streamlearn_lag_frames", partition=REST) == sum(range(90, 500))
    assert value(metrics, "streamlearn_events_total", stream=REST) is not None
    assert events <= sum(range(1, 301))  # a stream that lost its series took its counts along


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 50)), max_size=200))
def test_shown_streams_are_few_and_never_much_quieter_than_the_others(
    counts: list[tuple[int, int]],
) -> None:
    shown, totals, visible = ShownStreams(4), dict[str, int](), set[str]()
    for number, events in counts:
        name = f"s{number}"
        totals[name] = totals.get(name, 0) + events
        series, loser = shown.count(name, events)
        assert series in (name, REST)
        visible.discard(loser or "")
        if series == name:
            visible.add(name)
        assert len(visible) <= 4
        if series == REST:
            assert totals[name] <= 2 * min(totals[other] for other in visible)
    assert SHOWN_STREAMS < 100


def test_the_server_says_where_it_is_and_stops() -> None:
    metrics = WorkerMetrics()
    server = MetricsServer(metrics.registry, host="127.0.0.1", port=0)
    try:
        with urllib.request.urlopen(server.url) as answer:
            assert b"streamlearn_frames_total" in answer.read()
    finally:
        server.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(server.url, timeout=1)
