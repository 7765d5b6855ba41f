"""The catalogue of metrics: name, kind, labels, help. Dashboards and alerts are checked against it.

A worker counts into `WorkerMetrics`; `/metrics` and the metrics topic show the same registry.
No metric has 100 series or more: busy streams get series of their own, the rest share one
(`REST`), as do partitions beyond the first 90. Nothing here decides anything.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from streamlearn.errors import ConfigError

REST = "(rest)"  # no Kafka key of ours: it stands for all streams without a series of their own
SHOWN_STREAMS = 40
SHOWN_PARTITIONS = 90
_FADE = 1 / 1000  # events: an event's weight in the recent accuracies halves in about 700


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


class ShownStreams:
    """Which streams have series of their own: the first ones, until a much busier one comes.

    A stream takes another's place when it has more than twice its events, so places rarely
    change. Counts go to whichever series is the stream's at the time, so no counter ever falls.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: dict[str, int] = {}
        self._shown: set[str] = set()
        self._quietest = 0  # events of the quietest shown stream, when last looked

    def count(self, stream: str, events: int) -> tuple[str, str | None]:
        """The series' name for these events, and the stream that lost its series, if any."""
        total = self._events[stream] = self._events.get(stream, 0) + events
        if stream in self._shown:
            return stream, None
        if len(self._shown) < self._capacity:
            self._shown.add(stream)
            return stream, None
        if total <= 2 * self._quietest:
            return REST, None
        loser = min(self._shown, key=lambda name: self._events[name])
        self._quietest = self._events[loser]
        if total <= 2 * self._quietest:
            return REST, None
        self._shown.remove(loser)
        self._shown.add(stream)
        return stream, loser


@dataclass(slots=True)
class _Recent:
    """Faded shares of right predictions, of one series."""

    weight: float = 0.0
    correct: float = 0.0
    no_change: float = 0.0

    def add(self, labelled: int, correct: int, no_change: int) -> None:
        keep = (1 - _FADE) ** labelled
        self.weight = self.weight * keep + labelled
        self.correct = self.correct * keep + correct
        self.no_change = self.no_change * keep + no_change


@dataclass(frozen=True, slots=True)
class FrameScore:
    """What one learned frame adds to the counts."""

    stream: str
    events: int
    labelled: int
    correct: int
    no_change_correct: int
    majority_correct: int
    drift: int  # as streamlearn_drift_verdict
    recall_clusters: float = float("nan")  # NaN: not known yet
    recall_uniform: float = float("nan")
    replay_uniform: bool = False


class WorkerMetrics(Catalogue):
    """What a worker counts. Thread-safe where two threads meet: the registry's own locks."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry if registry is not None else CollectorRegistry())
        self._streams = ShownStreams(SHOWN_STREAMS)
        self._recent: dict[str, _Recent] = {}
        self._lock = threading.Lock()

    def learned(self, score: FrameScore, seconds: float) -> None:
        """One frame was tested and learned."""
        with self._lock:
            series = self._series(score.stream, score.events)
            recent = self._recent.setdefault(series, _Recent())
        self.counter("streamlearn_frames").inc()
        self.histogram("streamlearn_adaptation_seconds").observe(seconds)
        for name, count in (
            ("streamlearn_events", score.events),
            ("streamlearn_labelled", score.labelled),
            ("streamlearn_correct", score.correct),
            ("streamlearn_no_change_correct", score.no_change_correct),
            ("streamlearn_majority_correct", score.majority_correct),
        ):
            self.counter(name).labels(series).inc(count)
        if series != REST:
            self.gauge("streamlearn_drift_verdict").labels(series).set(score.drift)
            for name, value in (
                ("streamlearn_recall_clusters", score.recall_clusters),
                ("streamlearn_recall_uniform", score.recall_uniform),
                ("streamlearn_replay_uniform", float(score.replay_uniform)),
            ):
                if value == value:
                    self.gauge(name).labels(series).set(value)
        if score.labelled:
            recent.add(score.labelled, score.correct, score.no_change_correct)
            for name, right in (
                ("streamlearn_accuracy", recent.correct),
                ("streamlearn_no_change_accuracy", recent.no_change),
            ):
                self.gauge(name).labels(series).set(right / recent.weight)

    def published(self, stream: str, version: int, kind: str, size: int) -> None:
        """One update was acknowledged."""
        self.counter("streamlearn_updates").labels(kind).inc()
        self.counter("streamlearn_update_bytes").inc(size)
        with self._lock:
            series = self._series(stream, 0)
        if series != REST:
            self.gauge("streamlearn_update_version").labels(series).set(version)

    def lag(self, frames: dict[int, int]) -> None:
        """Frames that wait, a partition; replaces what was shown before."""
        self._by_partition("streamlearn_lag_frames", frames, total=True)

    def epochs(self, epochs: dict[int, int]) -> None:
        """Epochs of the partitions that are owned now; replaces what was shown before."""
        self._by_partition("streamlearn_epoch", epochs, total=False)
        self.gauge("streamlearn_partitions").set(len(epochs))

    def _by_partition(self, name: str, values: dict[int, int], *, total: bool) -> None:
        gauge = self.gauge(name)
        gauge.clear()
        numbers = sorted(values)
        for number in numbers[:SHOWN_PARTITIONS]:
            gauge.labels(str(number)).set(values[number])
        rest = [values[number] for number in numbers[SHOWN_PARTITIONS:]]
        if rest:
            gauge.labels(REST).set(sum(rest) if total else max(rest))

    def _series(self, stream: str, events: int) -> str:
        series, loser = self._streams.count(stream, events)
        if loser is not None:
            self.forget_stream(loser)
            self._recent.pop(loser, None)
        return series


class MetricsServer:
    """Serves a registry at /metrics; `port` 0 takes a free one, `url` says which.

    ConfigError where nobody can listen there.
    """

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int) -> None:
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at {host}:{port} ({error.strerror}); choose another "
                "--metrics-port, 0 takes any free one"
            ) from None
        self.port: int = self._server.server_port
        self.url = f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def names(kinds: Sequence[Kind] = tuple(Kind)) -> tuple[str, ...]:
    """Names as Prometheus shows them, for checking dashboards and alerts."""
    suffix = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_bucket"}
    return tuple(m.name + suffix[m.kind] for m in CATALOGUE if m.kind in kinds)
