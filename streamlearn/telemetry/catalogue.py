"""The catalogue of metrics: name, kind, labels, help. Dashboards and alerts are checked against it.

No metric has 100 series or more (`metrics`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Kind(StrEnum):
    """Prometheus' kinds that we use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue; a counter's exposed name ends in _total."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()  # upper bounds, of histograms


_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SLOW_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

CATALOGUE = (
    Metric("streamlearn_events", _C, ("stream",), "Events tested and, where labelled, learned."),
    Metric("streamlearn_labelled", _C, ("stream",), "Events with a label."),
    Metric("streamlearn_correct", _C, ("stream",), "Labelled events that were predicted right."),
    Metric(
        "streamlearn_no_change_correct",
        _C,
        ("stream",),
        "Labelled events that 'the same label as before' would have predicted right.",
    ),
    Metric(
        "streamlearn_majority_correct",
        _C,
        ("stream",),
        "Labelled events that 'the most frequent label' would have predicted right.",
    ),
    Metric("streamlearn_accuracy", _G, ("stream",), "Share right among recent labelled events."),
    Metric(
        "streamlearn_no_change_accuracy",
        _G,
        ("stream",),
        "The same share for 'the same label as before'.",
    ),
    Metric("streamlearn_update_version", _G, ("stream",), "Version published last."),
    Metric(
        "streamlearn_drift_verdict",
        _G,
        ("stream",),
        "0 no data, 1 warming up, 2 stable, 3 warning, 4 drift.",
    ),
    Metric(
        "streamlearn_recall_clusters",
        _G,
        ("stream",),
        "Share of held-out events that micro-clusters recall, each class counting the same.",
    ),
    Metric("streamlearn_recall_uniform", _G, ("stream",), "The same share for the uniform sample."),
    Metric(
        "streamlearn_replay_uniform",
        _G,
        ("stream",),
        "1 where the uniform sample is replayed, 0 where micro-clusters are.",
    ),
    Metric("streamlearn_frames", _C, (), "Frames learned."),
    Metric("streamlearn_replayed_frames", _C, (), "Frames skipped, as they were learned before."),
    Metric(
        "streamlearn_late_labels",
        _C,
        ("result",),
        "Late labels met in the log: learned, repeated (known before) or unknown.",
    ),
    Metric("streamlearn_label_requests", _C, (), "Events whose labels were asked for."),
    Metric("streamlearn_repeated_events", _C, (), "Labelled events whose id was learned before."),
    Metric(
        "streamlearn_network_diverged",
        _C,
        (),
        "Inner loops of a stream's network that diverged and got the weights before them back.",
    ),
    Metric("streamlearn_dead_letters", _C, ("reason",), "Frames and rows that were not learned."),
    Metric("streamlearn_errors", _C, ("kind",), "Errors that stopped the worker, by type."),
    Metric("streamlearn_updates", _C, ("kind",), "Updates published: full or delta."),
    Metric("streamlearn_update_bytes", _C, (), "Bytes of published updates, compressed."),
    Metric("streamlearn_lag_frames", _G, ("partition",), "Frames that wait to be learned."),
    Metric("streamlearn_epoch", _G, ("partition",), "Epoch in which a partition is owned."),
    Metric("streamlearn_partitions", _G, (), "Partitions that the worker owns."),
    Metric("streamlearn_hot_streams", _G, (), "Streams in memory."),
    Metric("streamlearn_hot_bytes", _G, (), "Bytes of the streams in memory, about."),
    Metric("streamlearn_adaptation_seconds", _H, (), "Testing and learning one frame.", _FAST_S),
    Metric(
        "streamlearn_event_to_update_seconds",
        _H,
        (),
        "From a frame's timestamp to its update acknowledged by the broker.",
        _SLOW_S,
    ),
    Metric("streamlearn_checkpoint_seconds", _H, (), "One checkpoint.", _SLOW_S),
    Metric("streamlearn_checkpoint_bytes", _C, (), "Bytes written to state and snapshots."),
    Metric(
        "streamlearn_checkpoint_waiting_seconds",
        _G,
        (),
        "How long changes wait for their checkpoint: a kill now has as much learned again.",
    ),
    Metric("streamlearn_restore_seconds", _H, (), "Taking over one partition.", _SLOW_S),
)


DRIFT_CODES = {"NO DATA": 0, "WARMING UP": 1, "STABLE": 2, "WARNING": 3, "DRIFT": 4}


class Catalogue:
    """Every metric of the catalogue, made in one registry.

    >>> metrics = Catalogue(CollectorRegistry())
    >>> metrics.counter("streamlearn_frames").inc()
    >>> metrics.registry.get_sample_value("streamlearn_frames_total")
    1.0
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in CATALOGUE:
            name, text, labels = metric.name, metric.help, metric.labels
            if metric.kind is Kind.COUNTER:
                self._counters[name] = Counter(name, text, labels, registry=registry)
            elif metric.kind is Kind.GAUGE:
                self._gauges[name] = Gauge(name, text, labels, registry=registry)
            else:
                self._histograms[name] = Histogram(
                    name, text, labels, registry=registry, buckets=metric.buckets
                )

    def counter(self, name: str) -> Counter:
        """The counter of that name; KeyError if the catalogue has none."""
        return self._counters[name]

    def gauge(self, name: str) -> Gauge:
        """The gauge of that name; KeyError if the catalogue has none."""
        return self._gauges[name]

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name; KeyError if the catalogue has none."""
        return self._histograms[name]

    def forget_stream(self, stream: str) -> None:
        """Drop the series of one stream, from every metric that has a stream."""
        by_kind = (self._counters, self._gauges, self._histograms)
        for metric in CATALOGUE:
            if metric.labels == ("stream",):
                for made in by_kind:
                    if metric.name in made:
                        made[metric.name].remove(stream)


def names(kinds: Sequence[Kind] = tuple(Kind)) -> tuple[str, ...]:
    """Names as Prometheus shows them, for checking dashboards and alerts."""
    suffix = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_bucket"}
    return tuple(m.name + suffix[m.kind] for m in CATALOGUE if m.kind in kinds)
